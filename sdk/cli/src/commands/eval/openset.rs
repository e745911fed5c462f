//! `eval openset`: how well a job tells frames of kinds that it was not taught.

use crate::data::{EncoderArgs, check_classes_left, scan_classes, scan_images};
use crate::output::{Format, Table};
use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use ssl_edge::eval::{
    Features, HeadChoice, OpensetOptions, OpensetScore, file_features, openset, part_features,
};
use std::path::PathBuf;

/// How well unknown kinds are told.
#[derive(Args)]
pub(crate) struct OpensetArgs {
    #[command(flatten)]
    encoder: EncoderArgs,
    /// Class folders of the kinds that are taught
    #[arg(long, value_name = "DIR")]
    known: PathBuf,
    /// Images of other kinds, in any folders
    #[arg(long, value_name = "DIR")]
    unknown: PathBuf,
    /// Labelled images of each known class
    #[arg(long, value_delimiter = ',', default_value = "5", value_name = "K,…")]
    shots: Vec<usize>,
    /// Random draws of the labelled images
    #[arg(long, default_value_t = 30, value_name = "N")]
    draws: usize,
    /// Key of the draws
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Heads to fit
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "lda,ridge,logistic,prototype,knn",
        value_name = "HEAD,…"
    )]
    heads: Vec<String>,
}

#[derive(Serialize)]
struct Report {
    known: usize,
    unknown: usize,
    draws: usize,
    results: Vec<Score>,
}

#[derive(Serialize)]
struct Score {
    features: &'static str,
    head: String,
    shots: usize,
    auroc: f64,
    ci95: f64,
    fpr95: f64,
    accuracy_known: f64,
}

/// Embeds known and unknown images and scores what a job sees of them, and its parts alone.
pub(crate) fn run(args: &OpensetArgs, format: Format) -> Result<()> {
    let heads = args
        .heads
        .iter()
        .map(|head| Ok(HeadChoice::One(head.parse()?)))
        .collect::<Result<Vec<_>>>()?;
    let folder = scan_classes(&args.known)?;
    let others = scan_images(std::slice::from_ref(&args.unknown))?;
    let encoder = args.encoder.open()?;
    let known = part_features(&encoder, &folder)?;
    check_classes_left(&folder, &known.labels, &known.skipped)?;
    let unknown = file_features(&encoder, &others)?;
    let options = OpensetOptions {
        shots: args.shots.clone(),
        draws: args.draws,
        seed: args.seed,
        heads,
    };
    let mut results = Vec::new();
    let mut score = |features, known: &Features, unknown: &Features| -> Result<()> {
        let scores = openset(&known.labelled()?, &unknown.labelled()?, &options)
            .with_context(|| format!("{} cannot be scored", args.known.display()))?;
        results.extend(scores.iter().map(|found| row(features, found)));
        Ok(())
    };
    let preferred = known.layout.preferred_names();
    let encoder_only: Vec<&str> = preferred
        .iter()
        .copied()
        .filter(|p| *p != "texture")
        .collect();
    for (features, parts) in [
        ("job", &preferred[..]),
        ("encoder", &encoder_only[..]),
        ("texture", &["texture"]),
    ] {
        score(features, &known.only(parts)?, &unknown.only(parts)?)?;
    }
    let report = Report {
        known: known.labels.len(),
        unknown: unknown.labels.len(),
        draws: args.draws,
        results,
    };
    format.print(&report, human)
}

fn row(features: &'static str, score: &OpensetScore) -> Score {
    Score {
        features,
        head: score.head.name(),
        shots: score.shots,
        auroc: score.auroc,
        ci95: score.ci95,
        fpr95: score.fpr95,
        accuracy_known: score.accuracy_known,
    }
}

fn human(report: &Report) -> String {
    let mut table = Table::new(&[
        "features",
        "head",
        "shots",
        "AUROC",
        "FPR at 95 %",
        "accuracy",
    ]);
    for score in &report.results {
        table.row(vec![
            score.features.into(),
            score.head.clone(),
            score.shots.to_string(),
            format!("{:.1} ± {:.1}", 100.0 * score.auroc, 100.0 * score.ci95),
            format!("{:.1}", 100.0 * score.fpr95),
            format!("{:.1}", 100.0 * score.accuracy_known),
        ]);
    }
    format!(
        "{}\n{} known images, {} unknown ones, {} draws; in %, ± 1.96 standard errors; FPR is the share of unknown images that pass for known\n\
         when 95 % of the known ones do",
        table.render(),
        report.known,
        report.unknown,
        report.draws
    )
}
