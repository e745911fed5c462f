//! Errors of this crate.

use std::io;
use std::path::PathBuf;

use crate::PublicKey;

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
    /// The signature is damaged, or it is of something else.
    #[error(
        "the signature of bundle {path} does not hold ({reason}); get the bundle from its maker again, and do not trust this one"
    )]
    Signature {
        /// The bundle.
        path: PathBuf,
        /// What does not hold.
        reason: String,
    },
    /// A signature was required and there is none.
    #[error(
        "bundle {path} is not signed, and a signature by {required} is required; sign it with `ssl-edge bundle sign`"
    )]
    Unsigned {
        /// The bundle.
        path: PathBuf,
        /// The key that is trusted.
        required: Box<PublicKey>,
    },
    /// The bundle is signed by somebody else.
    #[error(
        "bundle {path} is signed by {found}, and a signature by {required} is required; get a bundle of that maker, or trust the other key"
    )]
    OtherSigner {
        /// The bundle.
        path: PathBuf,
        /// The key that signed.
        found: Box<PublicKey>,
        /// The key that is trusted.
        required: Box<PublicKey>,
    },
    /// A key file could not be read.
    #[error("cannot read the key {path}: {source}; check the path and the permissions")]
    ReadKey {
        /// The key file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A file holds no key of the wanted kind.
    #[error(
        "{path} holds no Ed25519 {kind} key in PEM; make a pair with `ssl-edge bundle keygen`, sign with the private one, verify with the public one"
    )]
    Key {
        /// The key file.
        path: PathBuf,
        /// `private` or `public`.
        kind: &'static str,
    },
    /// A key would have replaced a file.
    #[error("{path} exists, and a key never replaces a file; choose another name")]
    KeyExists {
        /// The file that is there.
        path: PathBuf,
    },
    /// The operating system gives no entropy.
    #[error("no key can be made, the operating system gives no random bytes: {reason}")]
    Entropy {
        /// The operating system's reason.
        reason: String,
    },
}
