//! `eval anomaly`: how well defects are told from good parts, and where they are, when only good parts were learned.

mod alarms;
mod images;
mod job;
mod score;

use crate::data::EncoderArgs;
use crate::output::{Format, Table, note};
use anyhow::{Context, Result, bail};
use clap::Args;
use images::{Images, Kind};
use serde::Serialize;
use ssl_edge::anomaly::{
    Method, NeighbourOptions, NormalOptions, PcaOptions, TILES, anomaly_splits,
};
use std::path::PathBuf;

/// Anomaly detection from good parts only.
#[derive(Args)]
pub(crate) struct AnomalyArgs {
    #[command(flatten)]
    encoder: EncoderArgs,
    /// Good images, of which the shots are drawn
    #[arg(long, value_name = "DIR")]
    good: PathBuf,
    /// Good images to test; those that are drawn are left out
    #[arg(long, value_name = "DIR")]
    test_good: PathBuf,
    /// Defective images to test; images that are below --good or --test-good too are left out
    #[arg(long, value_name = "DIR")]
    test_bad: PathBuf,
    /// Masks of the defects, FOLDER/STEM_mask.png or FOLDER/STEM.png for the image FOLDER/STEM.* below --test-bad; white is defective
    #[arg(long, value_name = "DIR")]
    masks: Option<PathBuf>,
    /// Good parts learned
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1,4,8",
        value_name = "K,…"
    )]
    shots: Vec<usize>,
    /// Random draws of the good parts; if there are fewer choices, each is taken once
    #[arg(long, default_value_t = 10, value_name = "N")]
    draws: usize,
    /// Draws of which the pixels are scored too
    #[arg(long, default_value_t = 3, value_name = "N")]
    pixel_draws: usize,
    /// Key of the draws
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Photos of one part, numbered in a row (the number in the file name divided by N names the part, in all folders): a part is drawn
    /// whole, counts as one shot, and is never tested when it was learned
    #[arg(long, value_name = "N")]
    group: Option<u64>,
    /// Tiles along the shorter side of an image, each embedded at the encoder's resolution
    #[arg(long, default_value_t = TILES, value_name = "N")]
    tiles: usize,
    /// Share of the variance of good tokens that the subspace holds
    #[arg(long, default_value_t = 0.99, value_name = "SHARE")]
    variance: f64,
    /// Bytes that the kept good tokens may take
    #[arg(long, default_value_t = NeighbourOptions::default().budget_bytes, value_name = "BYTES")]
    budget: usize,
    /// Blur of heat maps before pixels are scored, in pixels
    #[arg(long, default_value_t = 4.0, value_name = "PIXELS")]
    sigma: f64,
    /// Share of good parts that may be called anomalous, from which the thresholds follow, also those of a job
    #[arg(long, default_value_t = 0.05, value_name = "SHARE")]
    alarm_rate: f64,
    /// Leave out the baselines
    #[arg(long)]
    no_baselines: bool,
}

#[derive(Serialize)]
struct Report {
    good: usize,
    test_good: usize,
    test_bad: usize,
    masks: usize,
    tiles: usize,
    alarm_rate: f64,
    results: Vec<Row>,
    job: Vec<job::JobRow>,
}

/// One method at one number of shots.
#[derive(Serialize)]
struct Row {
    method: String,
    shots: usize,
    image_auroc: f64,
    /// Over draws and test images.
    ci95: f64,
    pixel_auroc: Option<f64>,
    aupro: Option<f64>,
    /// Over draws alone: what is left when methods are compared on the same images.
    ci95_draws: f64,
    draws: usize,
    fit_ms: f64,
    score_ms: f64,
    bytes: usize,
    #[serde(flatten)]
    alarms: alarms::Alarms,
}

/// Embeds all images once and scores every method on the same draws.
pub(crate) fn run(args: &AnomalyArgs, format: Format) -> Result<()> {
    if args.tiles == 0 || args.tiles > 16 {
        bail!("--tiles is {}; it must be from 1 to 16", args.tiles);
    }
    if !(args.alarm_rate > 0.0 && args.alarm_rate < 1.0) {
        bail!(
            "--alarm-rate is {}; it must be above 0 and below 1",
            args.alarm_rate
        );
    }
    let mut images = Images::scan(args)?;
    let encoder = args.encoder.open()?;
    let empty = job::empty_job(&encoder)?;
    images.embed(&encoder, &empty, args.tiles, !args.no_baselines)?;
    let kinds = match args.no_baselines {
        true => &Kind::ALL[..1],
        false => &Kind::ALL[..],
    };
    let (mut results, mut jobs) = (Vec::new(), Vec::new());
    for &shots in &args.shots {
        let groups: Vec<u64> = images.pool.iter().map(|&i| images.items[i].group).collect();
        let splits = anomaly_splits(&groups, shots, args.draws, args.seed).with_context(|| {
            format!(
                "{shots} good parts cannot be drawn from {}",
                args.good.display()
            )
        })?;
        for (index, kind) in kinds.iter().enumerate() {
            for method in methods(args) {
                let name = format!("{}{}", kind.prefix(), method.name());
                let options = NormalOptions {
                    method,
                    ..NormalOptions::default()
                };
                let measures = score::Measures {
                    pixel_draws: if args.masks.is_some() {
                        args.pixel_draws
                    } else {
                        0
                    },
                    sigma: args.sigma,
                    alarm_rate: args.alarm_rate,
                };
                let row = score::score(&images, index, &splits, &options, &measures)
                    .with_context(|| format!("{name} cannot be scored"))?;
                note(format_args!("{name} at {shots}: {:.3}", row.image_auroc));
                results.push(row.named(name, shots));
            }
        }
        jobs.push(job::score(
            &images,
            &empty,
            &splits,
            shots,
            args.alarm_rate,
        )?);
    }
    let report = Report {
        good: images.pool.len(),
        test_good: images.good.len(),
        test_bad: images.bad.len(),
        masks: images
            .items
            .iter()
            .filter(|item| item.mask.is_some())
            .count(),
        tiles: args.tiles,
        alarm_rate: args.alarm_rate,
        results,
        job: jobs,
    };
    format.print(&report, human)
}

fn methods(args: &AnomalyArgs) -> [Method; 2] {
    [
        Method::Pca(PcaOptions {
            explained_variance: args.variance,
            ..PcaOptions::default()
        }),
        Method::Neighbours(NeighbourOptions {
            budget_bytes: args.budget,
            ..NeighbourOptions::default()
        }),
    ]
}

fn human(report: &Report) -> String {
    let mut table = Table::new(&[
        "method",
        "good parts",
        "image AUROC",
        "± draws",
        "pixel AUROC",
        "AUPRO",
        "false alarms",
        "defects found",
        "fit ms",
        "score ms",
    ]);
    let optional =
        |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{:.1}", 100.0 * v));
    for row in &report.results {
        table.row(vec![
            row.method.clone(),
            row.shots.to_string(),
            format!("{:.1} ± {:.1}", 100.0 * row.image_auroc, 100.0 * row.ci95),
            format!("{:.1}", 100.0 * row.ci95_draws),
            optional(row.pixel_auroc),
            optional(row.aupro),
            row.alarms.human(),
            format!("{:.1}", 100.0 * row.alarms.detection_rate),
            format!("{:.1}", row.fit_ms),
            format!("{:.2}", row.score_ms),
        ]);
    }
    let mut jobs = Table::new(&[
        "a job of good parts alone",
        "draws",
        "good passed",
        "defects found",
    ]);
    for row in &report.job {
        jobs.row(row.cells());
    }
    format!(
        "{}\n{} good images to draw from; tested on {} good and {} defective ones ({} with masks), {} tiles along the shorter side; areas in %, \
         ± 1.96 standard errors over draws and test images\nfalse alarms: share of good test images above the threshold for {:.1} %, with what chance \
         leaves open for as many parts; `!` where more were called anomalous, (e) where the threshold is extrapolated\n\n{}\nimages over all draws, at the thresholds of the job for {:.1} %",
        table.render(),
        report.good,
        report.test_good,
        report.test_bad,
        report.masks,
        report.tiles,
        100.0 * report.alarm_rate,
        jobs.render(),
        100.0 * report.alarm_rate
    )
}
