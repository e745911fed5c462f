//! What can go wrong in this crate.

use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An architecture name that is not known.
    #[error("unknown architecture `{arch}`; known are {}", crate::VitConfig::NAMES.join(", "))]
    UnknownArch {
        /// The name given.
        arch: String,
    },
    /// Sizes of a configuration that do not fit each other.
    #[error("encoder configuration: {reason}")]
    Config {
        /// What does not fit.
        reason: String,
    },
    /// An image that is not a whole number of patches.
    #[error(
        "an image of {width}x{height} pixels is not a whole number of {patch}-pixel patches; choose multiples of {patch}"
    )]
    ImageSize {
        /// Height in pixels.
        height: usize,
        /// Width in pixels.
        width: usize,
        /// Patch side in pixels.
        patch: usize,
    },
    /// Two parameters of one name.
    #[error("parameter `{name}` exists already")]
    DuplicateParam {
        /// Its name.
        name: String,
    },
    /// A tensor that a model needs is not there.
    #[error("tensor `{name}` is missing; the weights belong to another architecture")]
    MissingTensor {
        /// Its name.
        name: String,
    },
    /// A tensor that a model does not know.
    #[error(
        "tensor `{name}` is not part of this model; the weights belong to another architecture"
    )]
    UnexpectedTensor {
        /// Its name.
        name: String,
    },
    /// A tensor of another shape.
    #[error(
        "tensor `{name}` has shape {found:?}, expected {expected:?}; the weights belong to another architecture"
    )]
    TensorShape {
        /// Its name.
        name: String,
        /// The shape that the model needs.
        expected: Vec<usize>,
        /// The shape found.
        found: Vec<usize>,
    },
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file that is not safetensors, or is damaged.
    #[error("{} is not a valid safetensors file ({reason}); it may be cut off: write it again", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Weights whose reader fails.
    #[error("weights cannot be read: {source}")]
    Read {
        /// What the reader says.
        source: std::io::Error,
    },
    /// Memory that the system refuses.
    #[error(
        "the system refuses {:.2} GiB of memory for the encoder; lower the batch or the image size, or leave it more memory",
        *bytes as f64 / f64::from(1 << 30)
    )]
    Memory {
        /// Bytes asked for.
        bytes: usize,
    },
    /// A device that cannot be used.
    #[error("device {device} cannot be used: {reason}")]
    Device {
        /// The device that was asked for.
        device: crate::compute::Processor,
        /// Why.
        reason: String,
    },
    /// An error of the tensor library.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}
