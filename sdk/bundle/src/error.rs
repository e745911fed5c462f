//! Errors of this crate.

use std::io;
use std::path::PathBuf;

/// Why a bundle could not be read or written. Every message names the file and the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The file could not be opened or read.
    #[error("cannot read bundle {path}: {source}; check the path and the permissions")]
    Read {
        /// The bundle.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The file could not be written; what was there before is unchanged.
    #[error(
        "cannot save {path}: {source}; free space on the disk or choose another folder (the previous file, if any, is unchanged)"
    )]
    Save {
        /// The file that was to be written.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The file is something else.
    #[error("{path} is not an ssl-edge bundle ({reason}); make one with `ssl-edge export`")]
    NotABundle {
        /// The file.
        path: PathBuf,
        /// What gave it away.
        reason: String,
    },
    /// The file was a bundle and lost or changed bytes.
    #[error(
        "bundle {path} is cut short or damaged ({reason}); copy it again from its source or repeat `ssl-edge export`"
    )]
    Damaged {
        /// The bundle.
        path: PathBuf,
        /// What does not hold.
        reason: String,
    },
    /// The file was written by a later version.
    #[error(
        "bundle {path} has manifest schema {found}, this version reads up to {supported}: update to ssl-edge {requires} or later"
    )]
    NewerSchema {
        /// The bundle.
        path: PathBuf,
        /// Schema of the file.
        found: u32,
        /// Newest schema this version reads.
        supported: u32,
        /// Oldest ssl-edge version that reads the file.
        requires: String,
    },
    /// A member does not have the size or hash that the manifest says.
    #[error(
        "member {member} of bundle {path} does not match the manifest ({reason}); copy the bundle again from its source or repeat `ssl-edge export`"
    )]
    Member {
        /// The bundle.
        path: PathBuf,
        /// Name inside the zip.
        member: String,
        /// What differs.
        reason: String,
    },
    /// The manifest says something that cannot be.
    #[error("the manifest of {path} is not valid: {field} {reason}; repeat `ssl-edge export`")]
    Manifest {
        /// The bundle.
        path: PathBuf,
        /// Path of the field, such as `arch.heads`.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
}
