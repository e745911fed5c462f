//! Errors of this crate.

/// Why work could not be done.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Sizes or types that do not go together.
    #[error("{reason}")]
    Invalid {
        /// Which, and what was expected.
        reason: String,
    },
    /// A tensor that an encoder needs is not there.
    #[error("there is no tensor {name}")]
    MissingTensor {
        /// Its name.
        name: String,
    },
    /// The machine's memory does not suffice.
    #[error("out of memory on the GPU: {bytes} bytes are not left")]
    OutOfMemory {
        /// What was asked for.
        bytes: usize,
    },
    /// The machine failed.
    #[error("{reason}")]
    Machine {
        /// What it says.
        reason: String,
    },
}

/// What functions of this crate give.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The failure of a machine.
    pub fn machine(reason: impl std::fmt::Display) -> Self {
        Self::Machine {
            reason: reason.to_string(),
        }
    }
}

/// Returns [`Error::Invalid`] with a formatted reason.
macro_rules! bail {
    ($($reason:tt)*) => {
        return Err($crate::Error::Invalid { reason: format!($($reason)*) })
    };
}

pub(crate) use bail;
