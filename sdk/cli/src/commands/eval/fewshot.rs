//! `eval fewshot`: accuracy with few labelled images a class, and what hand-made features reach on the same draws.

use crate::data::{EncoderArgs, check_classes_left, scan_classes};
use crate::output::{Format, Table};
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde::Serialize;
use ssl_edge::encoder::Pooling;
use ssl_edge::eval::{
    Features, FewshotOptions, HeadChoice, fewshot, image_features, part_features,
    part_features_with_copies,
};
use ssl_edge::job::HeadKind;
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
    /// Heads to fit
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "discriminant,lda,ridge,logistic,prototype,knn",
        value_name = "HEAD,…"
    )]
    heads: Vec<String>,
    /// Also with turned, mirrored, dimmed and brightened copies of the support: always, and where a job would keep them; ten times the work
    #[arg(long)]
    augment: bool,
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
    /// The mean of the patch tokens that stand out
    Salient,
    /// Each of them, for comparison
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
    head: String,
    pooling: Option<&'static str>,
    shots: usize,
    mean: f64,
    ci95: f64,
    /// Of the scores on the queries, with the job's temperature.
    ece: f64,
    brier: f64,
}

/// Features of one kind.
struct Kind {
    name: &'static str,
    pooling: Option<&'static str>,
    features: Features,
    heads: Vec<HeadChoice>,
}

/// Embeds the images, computes the baselines and scores all of them on the same draws.
pub(crate) fn run(args: &FewshotArgs, format: Format) -> Result<()> {
    let heads = args
        .heads
        .iter()
        .map(|head| Ok(HeadChoice::One(head.parse()?)))
        .collect::<Result<Vec<_>>>()?;
    let folder = scan_classes(&args.data)?;
    let encoder = args.encoder.open()?;
    let all = match args.augment {
        true => part_features_with_copies(&encoder, &folder)?,
        false => part_features(&encoder, &folder)?,
    };
    check_classes_left(&folder, &all.labels, &all.skipped)?;
    let kinds = kinds(
        &all,
        &folder,
        &args.pooling.resolve(encoder.manifest().pooling),
        &heads,
    )?;
    let mut results = Vec::new();
    for kind in &kinds {
        let options = FewshotOptions {
            shots: args.shots.clone(),
            draws: args.draws,
            seed: args.seed,
            heads: kind.heads.clone(),
        };
        let scores = fewshot(&kind.features.labelled()?, &options).with_context(|| {
            format!("{} cannot be scored on {}", kind.name, args.data.display())
        })?;
        results.extend(scores.into_iter().map(|score| Score {
            features: kind.name,
            head: score.head.name(),
            pooling: kind.pooling,
            shots: score.shots,
            mean: score.mean,
            ci95: score.ci95,
            ece: score.ece,
            brier: score.brier,
        }));
    }
    let report = Report {
        images: all.labels.len(),
        classes: folder.classes.len(),
        draws: args.draws,
        results,
    };
    format.print(&report, |report| human(report, &args.shots))
}

/// The encoder's features under each pooling, alone and with the texture descriptor, what a job chooses by itself, and the baselines.
fn kinds(
    all: &Features,
    folder: &ClassFolder,
    poolings: &[PartPooling],
    heads: &[HeadChoice],
) -> Result<Vec<Kind>> {
    let mut kinds = Vec::new();
    for with_texture in [false, true] {
        for pooling in poolings {
            let mut parts = pooling.parts.to_vec();
            parts.extend(with_texture.then_some("texture"));
            kinds.push(Kind {
                name: if with_texture {
                    "encoder+texture"
                } else {
                    "encoder"
                },
                pooling: Some(pooling.name),
                features: all.only(&parts)?,
                heads: heads.to_vec(),
            });
        }
    }
    if !all.copies.is_empty() {
        kinds.extend(with_copies(all, poolings)?);
    }
    kinds.push(Kind {
        name: "auto",
        pooling: Some("auto"),
        features: all.clone(),
        heads: vec![HeadChoice::Auto],
    });
    let mut baseline = |name, features| {
        kinds.push(Kind {
            name,
            pooling: None,
            features,
            heads: heads.to_vec(),
        });
    };
    let raw = image_features(folder, |image| raw_pixels(image, RAW_SIDE));
    baseline("raw_pixels", raw);
    baseline("hog_lbp", image_features(folder, hog_lbp));
    Ok(kinds)
}

/// What a job sees, and the texture alone, with and without copies of the support.
fn with_copies(all: &Features, poolings: &[PartPooling]) -> Result<Vec<Kind>> {
    let kind = HeadKind::Lda;
    let heads = [true, false].map(|always| HeadChoice::Augmented { kind, always });
    let mut kinds = Vec::new();
    for pooling in poolings {
        let mut parts = pooling.parts.to_vec();
        parts.push("texture");
        kinds.push(("encoder+texture", pooling.name, parts));
    }
    kinds.push(("texture", "texture", vec!["texture"]));
    let mut out = Vec::new();
    for (name, pooling, parts) in kinds {
        out.push(Kind {
            name,
            pooling: Some(pooling),
            features: all.only(&parts)?,
            heads: heads.to_vec(),
        });
    }
    Ok(out)
}

fn human(report: &Report, shots: &[usize]) -> String {
    let heads: Vec<String> = shots
        .iter()
        .map(|&shots| format!("{shots} shot{}", if shots == 1 { "" } else { "s" }))
        .collect();
    let mut columns = vec!["features", "pooling", "head"];
    for head in &heads {
        columns.extend([head.as_str(), "ECE", "Brier"]);
    }
    let mut table = Table::new(&columns);
    let mut rows: Vec<(&str, Option<&str>, &str)> = Vec::new();
    for score in &report.results {
        let row = (score.features, score.pooling, score.head.as_str());
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
        let of_row = |score: &&Score| (score.features, score.pooling, score.head.as_str()) == row;
        for score in report.results.iter().filter(of_row) {
            cells.extend([
                format!("{:.1} ± {:.1}", 100.0 * score.mean, 100.0 * score.ci95),
                format!("{:.1}", 100.0 * score.ece),
                format!("{:.3}", score.brier),
            ]);
        }
        table.row(cells);
    }
    format!(
        "{}\n{} images of {} classes, {} draws; balanced accuracy in %, ± 1.96 standard errors; ECE: calibration error in %, Brier score from 0 to 2",
        table.render(),
        report.images,
        report.classes,
        report.draws
    )
}

/// A pooling as parts of the feature.
#[derive(Clone, Copy)]
struct PartPooling {
    name: &'static str,
    parts: &'static [&'static str],
}

const CLS: PartPooling = PartPooling {
    name: "cls",
    parts: &["cls"],
};
const MEAN: PartPooling = PartPooling {
    name: "mean",
    parts: &["mean"],
};
const CLS_MEAN: PartPooling = PartPooling {
    name: "cls_mean",
    parts: &["cls", "mean"],
};
const SALIENT: PartPooling = PartPooling {
    name: "salient",
    parts: &["salient"],
};

impl PoolingArg {
    fn resolve(self, of_bundle: Pooling) -> Vec<PartPooling> {
        match self {
            PoolingArg::Bundle => vec![match of_bundle {
                Pooling::Cls => CLS,
                Pooling::Mean => MEAN,
                Pooling::ClsMean => CLS_MEAN,
            }],
            PoolingArg::Cls => vec![CLS],
            PoolingArg::Mean => vec![MEAN],
            PoolingArg::ClsMean => vec![CLS_MEAN],
            PoolingArg::Salient => vec![SALIENT],
            PoolingArg::All => vec![CLS, MEAN, CLS_MEAN, SALIENT],
        }
    }
}
