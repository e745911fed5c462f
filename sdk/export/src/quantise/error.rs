//! Why there is no int8 variant.

use std::path::PathBuf;

use ssl_edge_adapt::AdaptError;
use ssl_edge_bundle::BundleError;
use ssl_edge_runtime::RuntimeError;
use ssl_edge_vision::{DatasetError, FrameError};

use super::QuantizeReport;

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
    /// Too few frames to calibrate with and to measure on.
    #[error(
        "{folder} has {found} usable images, and calibration needs at least {needed}; add frames from the line, without labels"
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
    "{path} was not written: gate {gate} does not hold for {variant}, it is at {value:.6} with {float_layers} layers in f32; layer {layer} hurts most (alone in int8 it costs {loss:.1e} of the mean cosine): allow more f32 layers, widen the gate or calibrate with more frames"
)]
pub struct GateFailure {
    /// The bundle that would have been written.
    pub path: PathBuf,
    /// `int8`, or the member with the graph that it does not hold for.
    pub variant: String,
    /// The gate.
    pub gate: String,
    /// What was measured.
    pub value: f64,
    /// The layer that hurts most of those in int8.
    pub layer: String,
    /// Mean cosine that it costs alone.
    pub loss: f64,
    /// Layers that were given back to f32.
    pub float_layers: usize,
    /// All figures.
    pub report: QuantizeReport,
}

impl From<candle_core::Error> for QuantizeError {
    fn from(error: candle_core::Error) -> Self {
        Self::Encoder(error.into())
    }
}
