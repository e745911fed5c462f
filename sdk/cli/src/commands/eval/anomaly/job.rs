//! What a job says at its own thresholds that was taught the drawn good parts as `calibrate` teaches a folder of good images alone: which good images
//! pass, which defects it finds.

use super::images::{Images, Item};
use anyhow::Result;
use rayon::prelude::*;
use serde::Serialize;
use ssl_edge::anomaly::AnomalySplit;
use ssl_edge::encoder::Encoder;
use ssl_edge::job::{
    AdaptError, FitOptions, Job, Look, SampleMeta, Seen, job_for, judge, see, teach_seen,
};
use ssl_edge::surface::PIXELS;
use ssl_edge::vision::Frame;

/// Counts over all draws of one number of shots.
#[derive(Serialize)]
pub(super) struct JobRow {
    shots: usize,
    draws: usize,
    good_tested: usize,
    good_passed: usize,
    defects_tested: usize,
    /// Defective images that do not pass.
    defects_found: usize,
    /// Share of good frames that may be called unlike those taught, by all tests of the job together.
    false_alarm_allowed: f64,
    /// The share that is certain, of the draw for which it is largest.
    false_alarm_promised: f64,
    /// Whether a threshold of some draw is extrapolated.
    extrapolated: bool,
}

/// A job without classes that looks at the surface which `calibrate` gives a job of one class.
pub(super) fn empty_job(encoder: &Encoder) -> Result<Job> {
    let mut job = job_for(encoder);
    job.set_surface(Some(PIXELS))?;
    Ok(job)
}

/// What a job is shown of a frame.
pub(super) fn seen(encoder: &Encoder, job: &Job, frame: &Frame<'_>) -> Result<Seen> {
    let look = Look {
        tokens: true,
        ..Look::default()
    };
    Ok(see(encoder, job, frame, &look)?)
}

/// Teaches a job the learned images of each of `splits`, and counts the tested ones that pass.
pub(super) fn score(
    images: &Images,
    empty: &Job,
    splits: &[AnomalySplit],
    shots: usize,
    alarm_rate: f64,
) -> Result<JobRow> {
    let draws = splits
        .par_iter()
        .map(|split| one(images, empty, split, alarm_rate))
        .collect::<Result<Vec<JobRow>>>()?;
    let sum = |of: fn(&JobRow) -> usize| draws.iter().map(of).sum();
    Ok(JobRow {
        shots,
        draws: draws.len(),
        good_tested: sum(|draw| draw.good_tested),
        good_passed: sum(|draw| draw.good_passed),
        defects_tested: sum(|draw| draw.defects_tested),
        defects_found: sum(|draw| draw.defects_found),
        false_alarm_allowed: alarm_rate,
        false_alarm_promised: draws
            .iter()
            .map(|draw| draw.false_alarm_promised)
            .fold(0.0, f64::max),
        extrapolated: draws.iter().any(|draw| draw.extrapolated),
    })
}

fn one(images: &Images, empty: &Job, split: &AnomalySplit, alarm_rate: f64) -> Result<JobRow> {
    let item = |i: usize| -> &Item { &images.items[i] };
    let mut job = empty.clone();
    let class = job.add_class("good")?;
    for &learned in &split.learned {
        let item = item(images.pool[learned]);
        let meta = SampleMeta {
            source: item.path.display().to_string(),
            unix_time: 0,
        };
        match teach_seen(&mut job, class, &item.seen, meta, Vec::new()) {
            // The same photo under two names is one sample, as for `calibrate`.
            Ok(_) | Err(ssl_edge::Error::Job(AdaptError::Duplicate { .. })) => {}
            Err(error) => return Err(error.into()),
        }
    }
    job.fit(&FitOptions {
        search: true,
        unknown_rate: alarm_rate,
        ..FitOptions::default()
    })?;
    let passes = |list: &[usize]| {
        list.iter()
            .map(|&i| Ok(judge(&job, &item(i).seen)?.ok == Some(true)))
            .collect::<Result<Vec<bool>>>()
    };
    let good = passes(&images.tested(&images.good, split))?;
    let bad = passes(&images.tested(&images.bad, split))?;
    let count = |passed: &[bool], what: bool| passed.iter().filter(|&&one| one == what).count();
    let alarms = job.false_alarms();
    Ok(JobRow {
        shots: split.groups.len(),
        draws: 1,
        good_tested: good.len(),
        good_passed: count(&good, true),
        defects_tested: bad.len(),
        defects_found: count(&bad, false),
        false_alarm_allowed: alarm_rate,
        false_alarm_promised: alarms.as_ref().map_or(1.0, |alarms| alarms.promised),
        extrapolated: alarms.is_none_or(|alarms| alarms.extrapolated),
    })
}

impl JobRow {
    /// For a table: shots, draws, good images passed, defects found.
    pub(super) fn cells(&self) -> Vec<String> {
        vec![
            format!("of {}", self.shots),
            self.draws.to_string(),
            format!("{}/{}", self.good_passed, self.good_tested),
            format!("{}/{}", self.defects_found, self.defects_tested),
        ]
    }
}
