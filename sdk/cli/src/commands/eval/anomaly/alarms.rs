//! False alarms: what a threshold from the learned parts promises, and what happens on good images that were not learned.

use super::images::{Images, Item};
use anyhow::Result;
use serde::Serialize;
use ssl_edge::anomaly::{AnomalySplit, GoodFrame, Normal, NormalOptions, Rates, ThresholdSource};
use ssl_edge::eval::binomial_band;
use std::collections::BTreeSet;

/// Of one method at one number of shots, over all draws.
#[derive(Serialize)]
pub(super) struct Alarms {
    /// What the threshold was made for.
    false_alarm_allowed: f64,
    /// What the learned images are certain of, if those to come are like them: what is allowed, or one in one more than there are.
    false_alarm_promised: f64,
    /// What the thresholds rest on: `conformal`, or `extrapolated`.
    threshold: &'static str,
    /// Share of good test images above the threshold, over all draws.
    false_alarm_rate: f64,
    /// Where that share lies with 95 % if the chance is what is allowed and each tested part is independent of the others.
    false_alarm_band: (f64, f64),
    /// Whether there are no more false alarms than the band holds.
    false_alarm_in_band: bool,
    /// Share of defective images above the threshold.
    pub(super) detection_rate: f64,
}

/// Of one draw.
pub(super) struct Drawn {
    promised: f64,
    extrapolated: bool,
    false_alarms: f64,
    detections: f64,
    /// Good parts tested.
    parts: usize,
}

/// Scores of the tested images, whether they are defective, and the parts of the good ones.
pub(super) struct Tested<'t> {
    pub(super) scores: &'t [f64],
    pub(super) positive: &'t [bool],
    pub(super) good: &'t [usize],
}

/// Calibrates on the images of `split` and counts the tested ones above the threshold.
pub(super) fn one(
    images: &Images,
    kind: usize,
    split: &AnomalySplit,
    options: &NormalOptions,
    rate: f64,
    tested: &Tested<'_>,
) -> Result<Drawn> {
    let item = |i: usize| -> &Item { &images.items[i] };
    let part = |group: u64| split.groups.partition_point(|other| *other < group);
    let learned = split.learned.iter().map(|&i| item(images.pool[i]));
    let frames = learned
        .map(|item| {
            Ok(GoodFrame {
                grid: item.tokens[kind].grid()?,
                part: part(item.group),
                copy_of: None,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let rates = Rates {
        frame: rate,
        ..Rates::default()
    };
    let report = Normal::fit(&frames, options, &rates)?.report().clone();
    let share = |of: bool| {
        let all = tested.scores.iter().zip(tested.positive);
        let of_kind = all.filter(|(_, positive)| **positive == of);
        let above = of_kind.clone().filter(|(s, _)| **s > report.frame.value);
        above.count() as f64 / of_kind.count().max(1) as f64
    };
    let parts: BTreeSet<u64> = tested.good.iter().map(|&i| item(i).group).collect();
    Ok(Drawn {
        promised: rate.max(report.floor),
        extrapolated: report.frame.source != ThresholdSource::Conformal,
        false_alarms: share(false),
        detections: share(true),
        parts: parts.len(),
    })
}

/// The means over the draws.
pub(super) fn over(draws: &[&Drawn], allowed: f64) -> Alarms {
    let mean = |f: &dyn Fn(&Drawn) -> f64| {
        draws.iter().map(|draw| f(draw)).sum::<f64>() / draws.len().max(1) as f64
    };
    // Draws test the same images again, so that they do not count as more of them.
    let parts = draws.iter().map(|draw| draw.parts).min().unwrap_or(1);
    let band = binomial_band(allowed, parts.max(1));
    let rate = mean(&|draw| draw.false_alarms);
    Alarms {
        false_alarm_allowed: allowed,
        false_alarm_promised: mean(&|draw| draw.promised),
        threshold: match draws.iter().any(|draw| draw.extrapolated) {
            true => "extrapolated",
            false => "conformal",
        },
        false_alarm_rate: rate,
        false_alarm_band: band,
        false_alarm_in_band: rate <= band.1 + 1e-12,
        detection_rate: mean(&|draw| draw.detections),
    }
}

impl Alarms {
    /// For a table.
    pub(super) fn human(&self) -> String {
        format!(
            "{:.1} (to {:.1}){}{}",
            100.0 * self.false_alarm_rate,
            100.0 * self.false_alarm_band.1,
            if self.false_alarm_in_band { "" } else { " !" },
            if self.threshold == "extrapolated" {
                " (e)"
            } else {
                ""
            }
        )
    }
}
