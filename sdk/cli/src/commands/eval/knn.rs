//! `eval knn`: DINO's weighted 20-NN accuracy, T = 0.07.

use crate::data::{EncoderArgs, check_any_left, check_classes_left, scan_classes};
use crate::output::{Format, percent};
use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;
use ssl_edge::eval::{encoder_features, knn_accuracy};
use ssl_edge::vision::ClassFolder;
use std::path::PathBuf;

const NEIGHBOURS: usize = 20;
const TEMPERATURE: f64 = 0.07;

/// Accuracy of 20 nearest neighbours.
#[derive(Args)]
pub(crate) struct KnnArgs {
    #[command(flatten)]
    encoder: EncoderArgs,
    /// Class folders that are searched
    #[arg(long, value_name = "DIR")]
    train: PathBuf,
    /// Class folders that are scored
    #[arg(long, value_name = "DIR")]
    val: PathBuf,
}

#[derive(Serialize)]
struct Report {
    knn20: f64,
    balanced: f64,
    train: usize,
    val: usize,
}

/// Embeds both folders and scores the second by the first.
pub(crate) fn run(args: &KnnArgs, format: Format) -> Result<()> {
    let train_folder = scan_classes(&args.train)?;
    let mut val_folder = scan_classes(&args.val)?;
    use_labels_of(&train_folder, &mut val_folder)?;
    let encoder = args.encoder.open()?;
    let train = encoder_features(&encoder, &train_folder)?;
    check_classes_left(&train_folder, &train.labels, &train.skipped)?;
    let val = encoder_features(&encoder, &val_folder)?;
    check_any_left(val_folder.samples.len(), &val.skipped)?;
    if train.labels.len() < NEIGHBOURS {
        bail!(
            "{} has {} images and {NEIGHBOURS} neighbours are searched for; add images, or use `eval fewshot`",
            args.train.display(),
            train.labels.len()
        );
    }
    let score = knn_accuracy(
        &train.labelled()?,
        &val.labelled()?,
        NEIGHBOURS,
        TEMPERATURE,
    )?;
    let report = Report {
        knn20: score.accuracy,
        balanced: score.balanced_accuracy,
        train: train.labels.len(),
        val: val.labels.len(),
    };
    format.print(&report, |report| {
        format!(
            "20-NN accuracy {} (mean over classes {}), {} images scored by {}",
            percent(report.knn20),
            percent(report.balanced),
            report.val,
            report.train
        )
    })
}

/// Gives the samples of `val` the class indices of `train`.
fn use_labels_of(train: &ClassFolder, val: &mut ClassFolder) -> Result<()> {
    let mut indices = Vec::with_capacity(val.classes.len());
    for class in &val.classes {
        let Some(index) = train.classes.iter().position(|known| known == class) else {
            bail!(
                "class `{class}` is in {} but not in {}; both need the same class folders (there: {})",
                val.root.display(),
                train.root.display(),
                train.classes.join(", ")
            );
        };
        indices.push(index);
    }
    for (_, label) in &mut val.samples {
        *label = indices[*label];
    }
    val.classes.clone_from(&train.classes);
    Ok(())
}
