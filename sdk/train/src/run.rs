//! A finished or interrupted run, read back.

use std::path::Path;

use ssl_edge_nn::VitConfig;
use ssl_edge_vision::Preprocess;

use crate::checkpoint::{Tensors, exported_tensors, latest_checkpoint, read_state};
use crate::error::{Result, TrainError};
use crate::methods::{ENCODER, strip};
use crate::resolve::{config_text, read_config};

/// Name of the configuration in a run folder.
pub(crate) const CONFIG: &str = "config.toml";
/// Name of the metrics in a run folder.
pub(crate) const METRICS: &str = "metrics.jsonl";

/// The encoder that a run has trained, and where it comes from.
#[derive(Clone, Debug)]
pub struct RunEncoder {
    /// Name of the architecture.
    pub arch: String,
    /// Shape.
    pub config: VitConfig,
    /// Weights by name, f32.
    pub tensors: Tensors,
    /// How a frame becomes its input.
    pub preprocess: Preprocess,
    /// How it was trained.
    pub provenance: Provenance,
}

/// How an encoder was trained.
#[derive(Clone, Debug, PartialEq)]
pub struct Provenance {
    /// Method.
    pub method: String,
    /// Images seen, counting repeats.
    pub images_seen: u64,
    /// Images in the data set.
    pub dataset_images: usize,
    /// Seed.
    pub seed: u64,
    /// The run's `config.toml` without the folders of the data: a bundle counts the images it was trained on and does not name them.
    pub config: String,
}

/// The encoder of a run's newest checkpoint: the teacher's for DINO.
///
/// # Errors
/// A folder without a run or without a checkpoint; damaged files.
pub fn encoder_of(run: &Path) -> Result<RunEncoder> {
    let path = run.join(CONFIG);
    if !path.is_file() {
        return Err(TrainError::NoRun {
            path: run.into(),
            what: "run (config.toml)",
            remedy: "give the folder that `pretrain --out` wrote",
        });
    }
    let config = read_config(&path)?;
    let Some(checkpoint) = latest_checkpoint(run)? else {
        return Err(TrainError::NoRun {
            path: run.into(),
            what: "checkpoint",
            remedy: "continue the run with --resume until it has written one",
        });
    };
    let state = read_state(&checkpoint)?;
    let tensors = strip(&exported_tensors(&checkpoint)?, ENCODER);
    let mut unnamed = config.clone();
    unnamed.data.folders.clear();
    unnamed.probe = None;
    Ok(RunEncoder {
        arch: config.arch,
        config: config.encoder,
        tensors,
        preprocess: config.preprocess,
        provenance: Provenance {
            method: config.method.as_str().into(),
            images_seen: state.images_seen,
            dataset_images: state.dataset_images,
            seed: config.seed,
            config: config_text(&unnamed)?,
        },
    })
}
