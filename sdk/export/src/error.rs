//! Errors of this crate.

use std::path::PathBuf;

use ssl_edge_bundle::BundleError;
use ssl_edge_runtime::RuntimeError;
use ssl_edge_vision::FrameError;

/// Why no bundle was made. A file that was there before is unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The encoder's configuration or a tensor does not fit.
    #[error("cannot export the encoder: {0}")]
    Encoder(#[from] ssl_edge_nn::Error),
    /// A size that bundles do not allow.
    #[error("cannot export the encoder: {field} {reason}; choose another size")]
    Unsupported {
        /// Path of the field in the manifest, such as `arch.dim`.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A weight is a NaN or an infinity.
    #[error(
        "cannot export the encoder: tensor {tensor} has a non-finite value; export an earlier checkpoint, and train with a lower learning rate"
    )]
    NonFinite {
        /// Name of the tensor.
        tensor: String,
    },
    /// A tensor that is not part of the encoder.
    #[error(
        "cannot export the encoder: tensor {tensor} is not part of it; pass the encoder's own tensors, without heads and decoders"
    )]
    Unexpected {
        /// Name of the tensor.
        tensor: String,
    },
    /// The preprocessing does not fit.
    #[error("cannot export the encoder: {0}")]
    Preprocess(#[from] FrameError),
    /// The bundle could not be assembled or saved.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// An engine does not run the finished bundle, or not well enough.
    #[error("{path} was not written, because the finished bundle failed its check: {source}")]
    Check {
        /// The bundle that would have been written.
        path: PathBuf,
        /// What the engine said.
        source: RuntimeError,
    },
}

impl From<candle_core::Error> for ExportError {
    fn from(error: candle_core::Error) -> Self {
        Self::Encoder(error.into())
    }
}
