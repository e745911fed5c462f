//! Keys of Ed25519 in the files that OpenSSL reads and writes: PKCS#8 and SubjectPublicKeyInfo in PEM.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{
    DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey, KeypairBytes,
};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use crate::{BundleError, hex};

/// Both kinds of key file are far smaller.
const MAX_KEY_FILE: u64 = 64 << 10;

/// Signs bundles. Whoever has it can speak for its owner: it stays on the machine that releases encoders.
pub struct SecretKey(SigningKey);

/// Says whether a bundle was signed with the secret key that belongs to it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl SecretKey {
    /// A new key from the operating system's entropy.
    ///
    /// # Errors
    /// [`BundleError::Entropy`] where the system has none.
    pub fn generate() -> Result<Self, BundleError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| BundleError::Entropy {
            reason: error.to_string(),
        })?;
        Ok(Self::from_seed(&seed))
    }

    /// The key of a seed of 32 bytes, which must be as secret as the key.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// Reads a PEM file with `BEGIN PRIVATE KEY`, such as [`SecretKey::write`] and `openssl genpkey -algorithm ed25519` make.
    ///
    /// # Errors
    /// [`BundleError::ReadKey`] or [`BundleError::Key`].
    pub fn read(path: &Path) -> Result<Self, BundleError> {
        let text = read_text(path)?;
        let key = SigningKey::from_pkcs8_pem(text.trim());
        key.map(Self).map_err(|_| BundleError::Key {
            path: path.to_owned(),
            kind: "private",
        })
    }

    /// Writes a new PEM file that only its owner may read.
    ///
    /// # Errors
    /// [`BundleError::Save`], or [`BundleError::KeyExists`]: a key is never replaced.
    pub fn write(&self, path: &Path) -> Result<(), BundleError> {
        let pair = KeypairBytes {
            secret_key: self.0.to_bytes(),
            public_key: None,
        };
        let text = pair
            .to_pkcs8_pem(LineEnding::LF)
            .expect("32 bytes are always a key");
        create(path, text.as_bytes(), true)
    }

    /// The key that verifies what this one signs.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl PublicKey {
    /// Reads a PEM file with `BEGIN PUBLIC KEY`, such as [`PublicKey::write`] and `openssl pkey -pubout` make.
    ///
    /// # Errors
    /// [`BundleError::ReadKey`] or [`BundleError::Key`].
    pub fn read(path: &Path) -> Result<Self, BundleError> {
        let text = read_text(path)?;
        let key = VerifyingKey::from_public_key_pem(text.trim());
        key.map(Self).map_err(|_| BundleError::Key {
            path: path.to_owned(),
            kind: "public",
        })
    }

    /// Writes a new PEM file.
    ///
    /// # Errors
    /// [`BundleError::Save`], or [`BundleError::KeyExists`]: a key is never replaced.
    pub fn write(&self, path: &Path) -> Result<(), BundleError> {
        let text = self
            .0
            .to_public_key_pem(LineEnding::LF)
            .expect("32 bytes are always a key");
        create(path, text.as_bytes(), false)
    }

    /// The 32 bytes of the key.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    pub(crate) fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        VerifyingKey::from_bytes(bytes).ok().map(Self)
    }

    /// Refuses the weak keys and signatures that several messages would share.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.0
            .verify_strict(message, &Signature::from_bytes(signature))
            .is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.to_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

fn read_text(path: &Path) -> Result<String, BundleError> {
    let read = || {
        if fs::metadata(path)?.len() > MAX_KEY_FILE {
            return Err(io::Error::other("it is too large to be a key"));
        }
        fs::read_to_string(path)
    };
    read().map_err(|source| BundleError::ReadKey {
        path: path.to_owned(),
        source,
    })
}

fn create(path: &Path, bytes: &[u8], secret: bool) -> Result<(), BundleError> {
    let write = || {
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        if secret {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
        let mut file = options.open(path)?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        if written.is_err() {
            // What is there is ours and of no use.
            let _ = fs::remove_file(path);
        }
        written
    };
    write().map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => BundleError::KeyExists {
            path: path.to_owned(),
        },
        _ => BundleError::Save {
            path: path.to_owned(),
            source,
        },
    })
}
