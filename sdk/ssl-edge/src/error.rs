//! The error of what spans modules.

use ssl_edge_adapt::AdaptError;
use ssl_edge_runtime::{Interruption, Limit, RuntimeError};
use ssl_edge_vision::{DatasetError, DecodeError, FrameError};

/// A failure of a function that uses several modules; those of one module return that module's own error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A buffer is no frame, or cannot be preprocessed.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A file cannot be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A folder is no data set.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// A bundle cannot be opened, or a frame not embedded.
    #[error(transparent)]
    Encoder(#[from] RuntimeError),
    /// A frame was given up outside the engine, which says so itself ([`RuntimeError::Interrupted`]).
    #[error(
        "the frame was given up because {reason}; all that worked on it is ready for other frames"
    )]
    Interrupted {
        /// Why.
        reason: Interruption,
    },
    /// A job refuses.
    #[error(transparent)]
    Job(#[from] AdaptError),
    /// A job looks at something that this program cannot make.
    #[error("the job uses a feature `{name}` that this program does not make; update the program")]
    UnknownPart {
        /// The part's name.
        name: String,
    },
    /// Patch tokens are the encoder's, and no encoder is given.
    #[error("these patch tokens are the encoder's, and no encoder is given; open the bundle too")]
    NoEncoder,
    /// Golden parts are shown through two encoders.
    #[error("the golden parts before came through another encoder; show all through one")]
    OtherEncoder,
    /// The job changed since a monitor learned what its verdicts are like.
    #[error(
        "the job is at revision {job} and the monitor knows it at {monitor}; make a new monitor from reference frames"
    )]
    JobChanged {
        /// The job's revision.
        job: u64,
        /// The one that the monitor knows.
        monitor: u64,
    },
    /// A reference frame was taught.
    #[error(
        "reference frame {index} (counted from 0) is a sample of the job, so it says nothing about frames that were not taught; take reference frames from the running line"
    )]
    ReferenceTaught {
        /// The frame.
        index: usize,
    },
    /// Reference frames are not what was taught.
    #[error(
        "{unknown} of {frames} reference frames are unknown to the job, so that a rise could not be told; teach the job frames of this line first"
    )]
    ReferenceUnknown {
        /// Unknown frames.
        unknown: usize,
        /// All reference frames.
        frames: usize,
    },
    /// A job cannot move to another encoder.
    #[error(
        "sample {sample} (`{source_of_sample}`) has no picture from which a feature of another encoder could be made; teach it again with this \
         encoder, and with thumbnails if the job is to move once more"
    )]
    NoThumbnail {
        /// The sample.
        sample: u64,
        /// Where it comes from.
        source_of_sample: String,
    },
    /// All images of a class are broken.
    #[error(
        "class `{class}` has no image that can be read (the first of {broken}: {first}); replace its images, or remove the folder"
    )]
    NoReadableImage {
        /// The class.
        class: String,
        /// Number of its images.
        broken: usize,
        /// What is wrong with the first of them.
        first: String,
    },
}

/// Gives up if `limit` has passed.
pub(crate) fn look(limit: &Limit) -> Result<(), Error> {
    match limit.passed() {
        None => Ok(()),
        Some(reason) => Err(Error::Interrupted { reason }),
    }
}
