//! `calibrate`: a job from class folders.

use crate::data::{EncoderArgs, check_any_left, scan_classes};
use crate::output::{Format, Table, percent};
use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use ssl_edge::job::{CalibrateOptions, ClassId, FitOptions, FitReport, Job, calibrate};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Fit a job from class folders.
#[derive(Args)]
pub(crate) struct CalibrateArgs {
    #[command(flatten)]
    encoder: EncoderArgs,
    /// One folder of images for each class
    #[arg(long, value_name = "DIR")]
    samples: PathBuf,
    /// The job file to write
    #[arg(long, value_name = "J.sslj")]
    out: PathBuf,
}

#[derive(Serialize)]
struct Report {
    job: PathBuf,
    classes: Vec<Class>,
    samples: usize,
    loo_accuracy: Option<f64>,
    loo_balanced_accuracy: Option<f64>,
    lambda: Option<f64>,
    confusion: Vec<Vec<u32>>,
    suspects: Vec<String>,
}

#[derive(Serialize)]
struct Class {
    name: String,
    samples: usize,
}

/// Embeds the samples, fits the head and saves the job.
pub(crate) fn run(args: &CalibrateArgs, format: Format) -> Result<()> {
    let folder = scan_classes(&args.samples)?;
    let encoder = args.encoder.open()?;
    let unix_time = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs() as i64);
    let options = CalibrateOptions {
        fit: FitOptions::default(),
        unix_time,
    };
    let taught = calibrate(&encoder, &folder, &options)
        .with_context(|| format!("{} cannot become a job", args.samples.display()))?;
    check_any_left(folder.samples.len(), &taught.skipped)?;
    taught.job.save(&args.out)?;
    format.print(&report(args, &taught.job, &taught.report), human)
}

fn report(args: &CalibrateArgs, job: &Job, fit: &FitReport) -> Report {
    let count = |id: ClassId| {
        job.samples()
            .iter()
            .filter(|sample| sample.class == id)
            .count()
    };
    let n_classes = fit.confusion.n_classes;
    Report {
        job: args.out.clone(),
        classes: job
            .classes()
            .iter()
            .map(|class| Class {
                name: class.name.clone(),
                samples: count(class.id),
            })
            .collect(),
        samples: fit.n,
        loo_accuracy: fit.loo_accuracy,
        loo_balanced_accuracy: fit.loo_balanced_accuracy,
        lambda: fit.lambda,
        confusion: (0..n_classes)
            .map(|truth| {
                (0..n_classes)
                    .map(|predicted| fit.confusion.get(truth, predicted))
                    .collect()
            })
            .collect(),
        suspects: fit
            .suspects
            .iter()
            .filter_map(|&id| Some(job.sample(id).ok()?.meta.source.clone()))
            .collect(),
    }
}

fn human(report: &Report) -> String {
    let mut heads = vec!["true class", "samples"];
    heads.extend(report.classes.iter().map(|class| class.name.as_str()));
    let mut table = Table::new(&heads);
    for (class, counts) in report.classes.iter().zip(&report.confusion) {
        let mut cells = vec![class.name.clone(), class.samples.to_string()];
        cells.extend(counts.iter().map(u32::to_string));
        table.row(cells);
    }
    let accuracy = match report.loo_accuracy {
        Some(accuracy) => format!("accuracy to expect (leave-one-out): {}", percent(accuracy)),
        None => {
            "no class has two samples, so there is no accuracy to expect yet; add samples".into()
        }
    };
    let mut text = format!(
        "{}\ncolumns: what the head says of a sample it was fitted without\n{accuracy}\nsaved {}",
        table.render(),
        report.job.display()
    );
    if !report.suspects.is_empty() {
        text.push_str("\nlook at these labels first:");
        for suspect in &report.suspects {
            text.push_str(&format!("\n  {suspect}"));
        }
    }
    text
}
