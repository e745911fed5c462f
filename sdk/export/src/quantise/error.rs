//! Why there is no variant.

use std::path::PathBuf;

use ssl_edge_adapt::AdaptError;
use ssl_edge_bundle::BundleError;
use ssl_edge_runtime::RuntimeError;
use ssl_edge_vision::{DatasetError, FrameError};

use super::{QuantizeReport, Target};

/// Why a bundle was not quantised. A file that was there before is unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuantizeError {
    /// The bundle could not be read or written.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The weights or the frames do not fit the encoder.
    #[error("cannot quantise the encoder: {0}")]
    Encoder(#[from] ssl_edge_nn::Error),
    /// A folder of frames could not be read.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// A frame could not be preprocessed.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The accuracies or the detection could not be measured.
    #[error("cannot score the frames: {0}")]
    Score(#[from] AdaptError),
    /// The bundle to quantise does not open, or the finished one does not.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The weights' shape is not one we run.
    #[error("cannot quantise {path}: {reason}")]
    Manifest {
        /// The bundle.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Too few frames to calibrate with or to measure on.
    #[error(
        "{folder} has {found} usable images, and at least {needed} are needed; add frames from the line, without labels"
    )]
    TooFewFrames {
        /// The folder.
        folder: PathBuf,
        /// Images that could be decoded.
        found: usize,
        /// Images that are needed.
        needed: usize,
    },
    /// The folder of good and bad parts cannot be used.
    #[error("{folder} {reason}; it needs a folder good and others with bad parts (--parts)")]
    Parts {
        /// The folder.
        folder: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A gate needs frames that were not given.
    #[error("gate {gate} needs {needs}")]
    Unmeasured {
        /// The gate.
        gate: String,
        /// What it needs, and how to name it.
        needs: &'static str,
    },
    /// Graphs are made of int8 layers, or of f32 ones beside them.
    #[error(
        "ONNX graphs go with int8, not with {precision}; leave --onnx out or quantise to int8 as well"
    )]
    Graphs {
        /// The precision that was asked for.
        precision: &'static str,
    },
    /// A gate does not hold.
    #[error(transparent)]
    Gate(Box<GateFailure>),
    /// The report could not be written.
    #[error("cannot write the report {path}: {source}; choose another folder")]
    Report {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
}

/// A gate that does not hold, and everything that was measured.
#[derive(Debug, thiserror::Error)]
#[error(
    "{path} was not written: gate {gate} does not hold for {variant}, it is at {value:.6} with {float_layers} layers in {}; layer {layer} hurts most (alone in {precision} it costs {loss:.1e} of the mean cosine): {}",
    .target.float(),
    .target.remedy()
)]
pub struct GateFailure {
    /// The bundle that would have been written.
    pub path: PathBuf,
    /// What was to be made.
    pub target: Target,
    /// The target's name, or the member with the graph that it does not hold for.
    pub variant: String,
    /// The gate.
    pub gate: String,
    /// What was measured.
    pub value: f64,
    /// The layer that hurts most of those that are quantised.
    pub layer: String,
    /// What it is in.
    pub precision: &'static str,
    /// Mean cosine that it costs alone.
    pub loss: f64,
    /// Layers that were given back to floating point.
    pub float_layers: usize,
    /// All figures.
    pub report: QuantizeReport,
}

impl From<candle_core::Error> for QuantizeError {
    fn from(error: candle_core::Error) -> Self {
        Self::Encoder(error.into())
    }
}
