//! `eval fewshot`: accuracy with few labelled images a class, and what hand-made features reach on the same draws.

use crate::data::{EncoderArgs, check_classes_left, scan_classes};
use crate::output::{Format, Table};
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde::Serialize;
use ssl_edge::encoder::{Encoder, Pooling, embed_files};
use ssl_edge::eval::{Features, FewshotHead, FewshotOptions, fewshot, image_features};
use ssl_edge::vision::{ClassFolder, hog_lbp, raw_pixels};
use std::path::PathBuf;

/// Side of the small picture whose pixels are the weakest baseline.
const RAW_SIDE: u32 = 32;

/// Accuracy with few labelled images a class.
#[derive(Args)]
pub(crate) struct FewshotArgs {
    #[command(flatten)]
    encoder: EncoderArgs,
    /// Class folders; images that are not drawn as shots are queries
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Labelled images of each class
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1,5,10",
        value_name = "K,…"
    )]
    shots: Vec<usize>,
    /// Random draws of the labelled images
    #[arg(long, default_value_t = 30, value_name = "N")]
    draws: usize,
    /// Key of the draws
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Which tokens make the encoder's feature
    #[arg(long, value_enum, default_value = "bundle")]
    pooling: PoolingArg,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PoolingArg {
    /// What the bundle's manifest says
    Bundle,
    /// The class token
    Cls,
    /// The mean of the patch tokens
    Mean,
    /// Both, one after the other
    ClsMean,
    /// Each of the three, for comparison
    All,
}

#[derive(Serialize)]
struct Report {
    images: usize,
    classes: usize,
    draws: usize,
    results: Vec<Score>,
}

#[derive(Serialize)]
struct Score {
    features: &'static str,
    head: &'static str,
    pooling: Option<&'static str>,
    shots: usize,
    mean: f64,
    ci95: f64,
}

/// Features of one kind.
struct Kind {
    name: &'static str,
    pooling: Option<Pooling>,
    features: Features,
}

/// Embeds the images, computes the baselines and scores all of them on the same draws.
pub(crate) fn run(args: &FewshotArgs, format: Format) -> Result<()> {
    let folder = scan_classes(&args.data)?;
    let encoder = args.encoder.open()?;
    let mut kinds = encoder_kinds(
        &encoder,
        &folder,
        &args.pooling.resolve(encoder.manifest().pooling),
    )?;
    let used = &kinds[0].features;
    check_classes_left(&folder, &used.labels, &used.skipped)?;
    let (images, classes) = (used.labels.len(), folder.classes.len());
    let baseline = |name, features| Kind {
        name,
        pooling: None,
        features,
    };
    kinds.push(baseline(
        "raw_pixels",
        image_features(&folder, |image| raw_pixels(image, RAW_SIDE)),
    ));
    kinds.push(baseline("hog_lbp", image_features(&folder, hog_lbp)));
    let options = FewshotOptions {
        shots: args.shots.clone(),
        draws: args.draws,
        seed: args.seed,
        heads: FewshotHead::ALL.to_vec(),
    };
    let mut results = Vec::new();
    for kind in &kinds {
        let scores = fewshot(&kind.features.labelled()?, &options).with_context(|| {
            format!("{} cannot be scored on {}", kind.name, args.data.display())
        })?;
        results.extend(scores.into_iter().map(|score| Score {
            features: kind.name,
            head: score.head.name(),
            pooling: kind.pooling.map(pooling_name),
            shots: score.shots,
            mean: score.mean,
            ci95: score.ci95,
        }));
    }
    let report = Report {
        images,
        classes,
        draws: args.draws,
        results,
    };
    format.print(&report, |report| human(report, &args.shots))
}

/// The encoder's features under each pooling, from one pass over the images.
fn encoder_kinds(
    encoder: &Encoder,
    folder: &ClassFolder,
    poolings: &[Pooling],
) -> Result<Vec<Kind>> {
    let files: Vec<PathBuf> = folder
        .samples
        .iter()
        .map(|(path, _)| path.clone())
        .collect();
    let mut values = vec![Vec::new(); poolings.len()];
    let mut labels = Vec::new();
    let skipped = embed_files(encoder, &files, |index, embedding| {
        labels.push(folder.samples[index].1);
        for (values, &pooling) in values.iter_mut().zip(poolings) {
            values.extend(embedding.feature(pooling));
        }
    })?;
    let kind = |(&pooling, values): (&Pooling, Vec<f32>)| {
        let dim = values.len() / labels.len().max(1);
        let features = Features {
            values,
            labels: labels.clone(),
            dim,
            skipped: skipped.clone(),
        };
        Kind {
            name: "encoder",
            pooling: Some(pooling),
            features,
        }
    };
    Ok(poolings.iter().zip(values).map(kind).collect())
}

fn human(report: &Report, shots: &[usize]) -> String {
    let heads: Vec<String> = shots
        .iter()
        .map(|&shots| format!("{shots} shot{}", if shots == 1 { "" } else { "s" }))
        .collect();
    let mut columns = vec!["features", "pooling", "head"];
    columns.extend(heads.iter().map(String::as_str));
    let mut table = Table::new(&columns);
    let mut rows: Vec<(&str, Option<&str>, &str)> = Vec::new();
    for score in &report.results {
        let row = (score.features, score.pooling, score.head);
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    for row in rows {
        let mut cells = vec![
            row.0.to_owned(),
            row.1.unwrap_or("-").to_owned(),
            row.2.to_owned(),
        ];
        let of_row = |score: &&Score| (score.features, score.pooling, score.head) == row;
        cells.extend(
            report
                .results
                .iter()
                .filter(of_row)
                .map(|score| format!("{:.1} ± {:.1}", 100.0 * score.mean, 100.0 * score.ci95)),
        );
        table.row(cells);
    }
    format!(
        "{}\n{} images of {} classes, {} draws; balanced accuracy in %, ± 1.96 standard errors",
        table.render(),
        report.images,
        report.classes,
        report.draws
    )
}

impl PoolingArg {
    fn resolve(self, of_bundle: Pooling) -> Vec<Pooling> {
        match self {
            PoolingArg::Bundle => vec![of_bundle],
            PoolingArg::Cls => vec![Pooling::Cls],
            PoolingArg::Mean => vec![Pooling::Mean],
            PoolingArg::ClsMean => vec![Pooling::ClsMean],
            PoolingArg::All => vec![Pooling::Cls, Pooling::Mean, Pooling::ClsMean],
        }
    }
}

fn pooling_name(pooling: Pooling) -> &'static str {
    match pooling {
        Pooling::Cls => "cls",
        Pooling::Mean => "mean",
        Pooling::ClsMean => "cls_mean",
    }
}
