//! One method on all draws.

use super::Row;
use super::alarms::{self, Drawn, Tested};
use super::images::{Images, Item};
use anyhow::{Context, Result, bail};
use rayon::prelude::*;
use ssl_edge::anomaly::{
    AnomalySplit, HeatRegion, NormalModel, NormalOptions, PixelMetrics, PixelScores, auroc,
    auroc_standard_error, frame_heat,
};
use std::time::Instant;

/// What is measured beside the images' scores.
pub(super) struct Measures {
    /// Pixels, on the first so many draws.
    pub(super) pixel_draws: usize,
    /// Blur of heat maps.
    pub(super) sigma: f64,
    /// Allowed share of false alarms.
    pub(super) alarm_rate: f64,
}

struct Draw {
    auroc: f64,
    standard_error: Option<f64>,
    pixels: Option<PixelMetrics>,
    alarms: Drawn,
    fit_ms: f64,
    score_ms: f64,
    bytes: usize,
}

/// Fits and scores the tokens of one kind on each of `splits`.
pub(super) fn score(
    images: &Images,
    kind: usize,
    splits: &[AnomalySplit],
    options: &NormalOptions,
    measures: &Measures,
) -> Result<Row> {
    let draws = splits
        .par_iter()
        .enumerate()
        .map(|(draw, split)| {
            one(
                images,
                kind,
                split,
                options,
                (draw < measures.pixel_draws).then_some(measures.sigma),
                measures.alarm_rate,
            )
        })
        .collect::<Result<Vec<Draw>>>()?;
    let n = draws.len() as f64;
    let mean = |f: &dyn Fn(&Draw) -> f64| draws.iter().map(f).sum::<f64>() / n;
    let image_auroc = mean(&|d| d.auroc);
    let variance = draws
        .iter()
        .map(|d| (d.auroc - image_auroc).powi(2))
        .sum::<f64>()
        / (n - 1.0).max(1.0)
        / n;
    // The same images are tested in each draw, so their part of the variance does not shrink with the number of draws.
    let of_images = mean(&|d| d.standard_error.unwrap_or(0.0).powi(2));
    let scored: Vec<PixelMetrics> = draws.iter().filter_map(|d| d.pixels).collect();
    let of_pixels = |f: fn(&PixelMetrics) -> f64| {
        (!scored.is_empty()).then(|| scored.iter().map(f).sum::<f64>() / scored.len() as f64)
    };
    Ok(Row {
        method: String::new(),
        shots: 0,
        image_auroc,
        ci95: 1.96 * (variance + of_images).sqrt(),
        pixel_auroc: of_pixels(|p| p.auroc),
        aupro: of_pixels(|p| p.aupro),
        ci95_draws: 1.96 * variance.sqrt(),
        draws: draws.len(),
        fit_ms: mean(&|d| d.fit_ms),
        score_ms: mean(&|d| d.score_ms),
        bytes: draws.iter().map(|d| d.bytes).max().unwrap_or(0),
        alarms: alarms::over(
            &draws.iter().map(|d| &d.alarms).collect::<Vec<_>>(),
            measures.alarm_rate,
        ),
    })
}

impl Row {
    pub(super) fn named(self, method: String, shots: usize) -> Self {
        Self {
            method,
            shots,
            ..self
        }
    }
}

fn one(
    images: &Images,
    kind: usize,
    split: &AnomalySplit,
    options: &NormalOptions,
    sigma: Option<f64>,
    alarm_rate: f64,
) -> Result<Draw> {
    let item = |i: usize| &images.items[i];
    let learned = split
        .learned
        .iter()
        .map(|&i| item(images.pool[i]).tokens[kind].grid())
        .collect::<Result<Vec<_>, _>>()?;
    let start = Instant::now();
    let model = NormalModel::fit(&learned, options)?;
    let fit_ms = start.elapsed().as_secs_f64() * 1e3;
    let (good, bad) = (
        images.tested(&images.good, split),
        images.tested(&images.bad, split),
    );
    if good.is_empty() || bad.is_empty() {
        bail!(
            "no good or no defective image is left to test when {} good parts are learned; add images or lower --shots",
            split.groups.len()
        );
    }
    let (mut scores, mut positive) = (Vec::new(), Vec::new());
    let mut pixels = sigma.map(|_| PixelScores::default());
    let mut elapsed = 0.0;
    for (i, is_bad) in good
        .iter()
        .map(|&i| (i, false))
        .chain(bad.iter().map(|&i| (i, true)))
    {
        let start = Instant::now();
        let map = model.score(&item(i).tokens[kind].grid()?)?;
        scores.push(model.image_score(&map));
        elapsed += start.elapsed().as_secs_f64() * 1e3;
        positive.push(is_bad);
        if let (Some(pixels), Some(sigma)) = (&mut pixels, sigma)
            && (!is_bad || item(i).mask.is_some())
        {
            push_pixels(pixels, item(i), &map, sigma)?;
        }
    }
    let tested = Tested {
        scores: &scores,
        positive: &positive,
        good: &good,
    };
    Ok(Draw {
        alarms: alarms::one(images, kind, split, options, alarm_rate, &tested)?,
        auroc: auroc(&scores, &positive).context("both kinds of images are there")?,
        standard_error: auroc_standard_error(&scores, &positive),
        pixels: pixels.and_then(|pixels| pixels.metrics()),
        fit_ms,
        score_ms: elapsed / scores.len() as f64,
        bytes: model.bytes(),
    })
}

fn push_pixels(
    pixels: &mut PixelScores,
    item: &Item,
    map: &ssl_edge::anomaly::TokenMap,
    sigma: f64,
) -> Result<()> {
    let [height, width] = item.size;
    let region = HeatRegion {
        x: 0,
        y: 0,
        width,
        height,
    };
    let heat = frame_heat(map, item.size, region, sigma)?;
    Ok(pixels.push(&heat, item.mask.as_deref(), item.size)?)
}
