//! Why a plug-in cannot be used.

use std::fmt;
use std::path::PathBuf;

use crate::abi;

/// What a plug-in refused and why, by its own account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// An argument that makes no sense to it.
    Invalid,
    /// There is no driver.
    NoDriver,
    /// The driver is older than what it needs.
    OldDriver,
    /// The driver sees no such device.
    NoDevice,
    /// The device is older than what it has code for.
    OldDevice,
    /// A library that it needs is missing.
    NoLibrary,
    /// The device's memory does not suffice.
    OutOfMemory,
    /// It cannot run such an encoder.
    Unsupported,
    /// The device or its driver failed.
    Failed,
    /// It panicked.
    Panicked,
    /// A number that this version does not know.
    Unknown(u32),
}

/// Why a plug-in could not be opened, or what it refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginError {
    /// There is none.
    #[error(
        "plug-in {file} was not found; looked in {}: install it beside the program, name its folder in {}, or give its path",
        list(.looked), crate::PATH_VARIABLE
    )]
    NotFound {
        /// Name of the library.
        file: String,
        /// Where it was looked for.
        looked: Vec<PathBuf>,
    },
    /// The operating system cannot load it.
    #[error("plug-in {} cannot be loaded: {reason}", .path.display())]
    Load {
        /// The library.
        path: PathBuf,
        /// The system's reason.
        reason: String,
    },
    /// A library that is no plug-in.
    #[error("{} is no plug-in of ssl-edge: it has no function {symbol}", .path.display())]
    NotAPlugin {
        /// The library.
        path: PathBuf,
        /// What is missing.
        symbol: &'static str,
    },
    /// A plug-in of another version.
    #[error(
        "plug-in {} speaks versions {oldest} to {newest} of the plug-in interface, this library speaks {wanted}: {}",
        .path.display(), advice(*.newest, *.wanted)
    )]
    Version {
        /// The library.
        path: PathBuf,
        /// Oldest version that it speaks.
        oldest: u32,
        /// Newest version that it speaks.
        newest: u32,
        /// The version that was asked for.
        wanted: u32,
    },
    /// A table that contradicts the version that it claims to be.
    #[error(
        "plug-in {} has a damaged table of functions ({reason}); install it again",
        .path.display()
    )]
    Damaged {
        /// The library.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The plug-in said no.
    #[error("{reason}")]
    Refused {
        /// The library.
        path: PathBuf,
        /// Which kind of no.
        refusal: Refusal,
        /// Its reason.
        reason: String,
    },
}

impl Refusal {
    pub(crate) fn of(status: u32) -> Self {
        match status {
            abi::INVALID => Self::Invalid,
            abi::NO_DRIVER => Self::NoDriver,
            abi::OLD_DRIVER => Self::OldDriver,
            abi::NO_DEVICE => Self::NoDevice,
            abi::OLD_DEVICE => Self::OldDevice,
            abi::NO_LIBRARY => Self::NoLibrary,
            abi::OUT_OF_MEMORY => Self::OutOfMemory,
            abi::UNSUPPORTED => Self::Unsupported,
            abi::FAILED => Self::Failed,
            abi::PANICKED => Self::Panicked,
            other => Self::Unknown(other),
        }
    }

    pub(crate) fn status(self) -> u32 {
        match self {
            Self::Invalid => abi::INVALID,
            Self::NoDriver => abi::NO_DRIVER,
            Self::OldDriver => abi::OLD_DRIVER,
            Self::NoDevice => abi::NO_DEVICE,
            Self::OldDevice => abi::OLD_DEVICE,
            Self::NoLibrary => abi::NO_LIBRARY,
            Self::OutOfMemory => abi::OUT_OF_MEMORY,
            Self::Unsupported => abi::UNSUPPORTED,
            Self::Failed => abi::FAILED,
            Self::Panicked => abi::PANICKED,
            Self::Unknown(other) => other,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "invalid argument",
            Self::NoDriver => "no driver",
            Self::OldDriver => "driver too old",
            Self::NoDevice => "no device",
            Self::OldDevice => "device too old",
            Self::NoLibrary => "library missing",
            Self::OutOfMemory => "out of memory",
            Self::Unsupported => "unsupported encoder",
            Self::Failed => "device failed",
            Self::Panicked => "plug-in panicked",
            Self::Unknown(status) => return write!(f, "status {status}"),
        })
    }
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths.iter().map(|p| p.display().to_string()).collect();
    paths.join(", ")
}

fn advice(newest: u32, wanted: u32) -> &'static str {
    if newest < wanted {
        "the plug-in is too old, install that of this release"
    } else {
        "the plug-in is too new, install that of this release or a newer ssl-edge"
    }
}
