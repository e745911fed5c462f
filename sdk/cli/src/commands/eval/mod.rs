//! `eval`: how well an encoder separates labelled images.

mod anomaly;
mod fewshot;
mod knn;
mod openset;

use crate::output::Format;
use anyhow::Result;
use clap::Subcommand;

/// Measures of an encoder.
#[derive(Subcommand)]
pub(crate) enum EvalCommand {
    /// Accuracy of 20 nearest neighbours
    Knn(knn::KnnArgs),
    /// Accuracy with few labelled images a class, beside raw pixels and HOG + LBP
    Fewshot(fewshot::FewshotArgs),
    /// How well frames of kinds that were not taught are told apart from those that were
    Openset(openset::OpensetArgs),
    /// Anomaly detection from good parts only, beside raw pixels, HOG + LBP and random weights
    Anomaly(Box<anomaly::AnomalyArgs>),
}

/// Runs the measure that was asked for.
pub(crate) fn run(command: &EvalCommand, format: Format) -> Result<()> {
    match command {
        EvalCommand::Knn(args) => knn::run(args, format),
        EvalCommand::Fewshot(args) => fewshot::run(args, format),
        EvalCommand::Openset(args) => openset::run(args, format),
        EvalCommand::Anomaly(args) => anomaly::run(args, format),
    }
}
