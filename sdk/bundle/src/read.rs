//! From a file to checked members: seal or outline, zip, manifest, sizes, signature, and each member's hash.

use std::borrow::Cow;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::layout::{self, Fault, Members};
use crate::manifest::Versions;
use crate::signature;
use crate::source::Source;
use crate::{BundleError, MANIFEST, Manifest, PublicKey, SCHEMA, SIGNATURE, hex};

const MAX_MANIFEST: u64 = 1 << 20;
const MAX_SIGNATURE: u64 = 4 << 10;

/// An open bundle.
///
/// Of a file, only the list of members, the manifest and the signature are read when it is opened. A member is read, and its hash compared, when it is
/// asked for, so what is never asked for is never read: [`Bundle::check`] looks at every byte.
pub struct Bundle {
    path: PathBuf,
    source: Source,
    members: Members,
    manifest: Manifest,
    signer: Option<PublicKey>,
}

impl Bundle {
    /// Opens a bundle.
    ///
    /// # Errors
    /// [`BundleError`] with the file, what is wrong and the remedy: not a bundle, cut short or damaged outside its members, made by a newer version,
    /// a list of members or a manifest field that does not hold.
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        let source = Source::open(path).map_err(|source| BundleError::Read {
            path: path.to_owned(),
            source,
        })?;
        let fault = |fault| refused(path, fault);
        layout::check_ends(&source).map_err(fault)?;
        let members = layout::locate(&source).map_err(fault)?;
        layout::check_outline(&source, &members).map_err(fault)?;
        Self::of(path, source, members)
    }

    /// A bundle in memory, with every byte checked; `path` only names it in messages.
    ///
    /// # Errors
    /// As [`Bundle::open`] and [`Bundle::check`].
    pub fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self, BundleError> {
        let source = Source::Memory(bytes);
        let fault = |fault| refused(path, fault);
        layout::check_ends(&source).map_err(fault)?;
        layout::check_seal(&source).map_err(fault)?;
        let members = layout::locate(&source).map_err(fault)?;
        let bundle = Self::of(path, source, members)?;
        bundle.check_members()?;
        Ok(bundle)
    }

    fn of(path: &Path, source: Source, members: Members) -> Result<Self, BundleError> {
        let text = manifest_text(path, &source, &members)?.into_owned();
        let mut bundle = Self {
            path: path.to_owned(),
            manifest: parse_manifest(path, &text)?,
            source,
            members,
            signer: None,
        };
        bundle.signer = bundle.check_signature(&text)?;
        bundle.check_list()?;
        Ok(bundle)
    }

    /// Reads every byte and compares every hash.
    ///
    /// # Errors
    /// [`BundleError::Damaged`] or [`BundleError::Member`], which names the member; [`BundleError::Read`].
    pub fn check(&self) -> Result<(), BundleError> {
        layout::check_seal(&self.source).map_err(|fault| refused(&self.path, fault))?;
        self.check_members()
    }

    /// The file that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size of the file.
    pub fn size(&self) -> u64 {
        self.source.len()
    }

    /// The whole file with every byte checked, for [`crate::save`].
    ///
    /// # Errors
    /// As [`Bundle::check`].
    pub fn to_bytes(&self) -> Result<Cow<'_, [u8]>, BundleError> {
        if let Source::Memory(bytes) = &self.source {
            return Ok(Cow::Borrowed(bytes));
        }
        self.check()?;
        let all = self.source.bytes(&(0..self.source.len()));
        all.map_err(|error| refused(&self.path, error.into()))
    }

    /// What the bundle says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Bytes of a member. Those of a bundle in memory are borrowed, those of a file are read, and their hash is compared.
    ///
    /// [`crate::ONNX`] and [`crate::GOLDEN`] are in every open bundle, [`crate::WEIGHTS`] in those that are no imported graph.
    ///
    /// # Errors
    /// [`BundleError::Member`] where there is none of that name or it does not match the manifest, [`BundleError::Read`].
    pub fn member(&self, name: &str) -> Result<Cow<'_, [u8]>, BundleError> {
        let range = self.range(name)?;
        let bytes = self.source.bytes(range);
        let bytes = bytes.map_err(|error| refused(&self.path, error.into()))?;
        if let (Cow::Owned(bytes), Some(spec)) = (&bytes, self.manifest.members.get(name))
            && hex(&Sha256::digest(bytes)) != spec.sha256
        {
            return Err(self.other_hash(name));
        }
        Ok(bytes)
    }

    /// Reads a member piece by piece. The read that would reach its end fails where the hash is another than the manifest's, so whoever has read to the
    /// end has read what was written.
    ///
    /// # Errors
    /// [`BundleError::Member`] where there is none of that name.
    pub fn reader(&self, name: &str) -> Result<MemberReader<'_>, BundleError> {
        let range = self.range(name)?.clone();
        Ok(MemberReader {
            bundle: self,
            name: name.to_owned(),
            left: range,
            // What is in memory was checked when the bundle was made of it.
            hash: matches!(self.source, Source::File { .. }).then(Sha256::new),
        })
    }

    /// Size of a member, or `None` where the bundle has none of that name.
    pub fn member_size(&self, name: &str) -> Option<u64> {
        self.members.get(name).map(|range| range.end - range.start)
    }

    /// Names of all members, the manifest among them.
    pub fn member_names(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }

    /// The key whose signature the bundle carries. It holds, but whether that key is to be trusted is for the caller to know.
    pub fn signer(&self) -> Option<PublicKey> {
        self.signer
    }

    /// Identity of the encoder; see [`Manifest::encoder_hash`].
    pub fn encoder_hash(&self) -> [u8; 32] {
        self.manifest.encoder_hash()
    }

    fn range(&self, name: &str) -> Result<&Range<u64>, BundleError> {
        let range = self.members.get(name);
        range.ok_or_else(|| self.mismatch(name, "it is missing".to_owned()))
    }

    fn mismatch(&self, member: &str, reason: String) -> BundleError {
        BundleError::Member {
            path: self.path.clone(),
            member: member.to_owned(),
            reason,
        }
    }

    fn other_hash(&self, member: &str) -> BundleError {
        self.mismatch(member, "its SHA-256 differs".to_owned())
    }

    /// Whose signature of `manifest` there is. It is of the bytes that were parsed: the file may have changed since.
    fn check_signature(&self, manifest: &[u8]) -> Result<Option<PublicKey>, BundleError> {
        let Some(range) = self.members.get(SIGNATURE) else {
            return Ok(None);
        };
        if range.end - range.start > MAX_SIGNATURE {
            return Err(damaged(&self.path, "its signature is larger than 4 KiB"));
        }
        let signature = self.member(SIGNATURE)?;
        let signer = signature::verify(manifest, &signature);
        signer.map(Some).map_err(|reason| BundleError::Signature {
            path: self.path.clone(),
            reason,
        })
    }

    /// Compares the members that are there with the list and the sizes of the manifest.
    fn check_list(&self) -> Result<(), BundleError> {
        let is_listed = |name: &&String| ![MANIFEST, SIGNATURE].contains(&name.as_str());
        for name in self.members.keys().filter(is_listed) {
            if !self.manifest.members.contains_key(name) {
                return Err(self.mismatch(name, "the manifest does not list it".to_owned()));
            }
        }
        for (name, spec) in &self.manifest.members {
            let range = self.range(name)?;
            let found = range.end - range.start;
            if found != spec.bytes {
                return Err(self.mismatch(name, format!("{found} bytes instead of {}", spec.bytes)));
            }
        }
        Ok(())
    }

    fn check_members(&self) -> Result<(), BundleError> {
        for (name, spec) in &self.manifest.members {
            let mut hash = Sha256::new();
            let read = self.source.hash_into(self.range(name)?.clone(), &mut hash);
            read.map_err(|error| refused(&self.path, error.into()))?;
            if hex(&hash.finalize()) != spec.sha256 {
                return Err(self.other_hash(name));
            }
        }
        Ok(())
    }
}

/// Reads a member and hashes it; see [`Bundle::reader`].
pub struct MemberReader<'a> {
    bundle: &'a Bundle,
    name: String,
    left: Range<u64>,
    /// Of a file; taken when the end is reached.
    hash: Option<Sha256>,
}

impl Read for MemberReader<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let left = self.left.end - self.left.start;
        let len = to.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let to = &mut to[..len];
        self.bundle.source.read_at(self.left.start, to)?;
        self.left.start += len as u64;
        if let Some(hash) = &mut self.hash {
            hash.update(&*to);
        }
        if self.left.is_empty()
            && let Some(hash) = self.hash.take()
            && let Some(spec) = self.bundle.manifest.members.get(&self.name)
            && hex(&hash.finalize()) != spec.sha256
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                self.bundle.other_hash(&self.name),
            ));
        }
        Ok(len)
    }
}

fn manifest_text<'a>(
    path: &Path,
    source: &'a Source,
    members: &Members,
) -> Result<Cow<'a, [u8]>, BundleError> {
    let text = match members.get(MANIFEST) {
        Some(range) if range.end - range.start <= MAX_MANIFEST => source.bytes(range),
        Some(_) => return Err(damaged(path, "its manifest is larger than 1 MiB")),
        None => {
            return Err(BundleError::NotABundle {
                path: path.to_owned(),
                reason: format!("it has no {MANIFEST}"),
            });
        }
    };
    text.map_err(|error| refused(path, error.into()))
}

fn parse_manifest(path: &Path, text: &[u8]) -> Result<Manifest, BundleError> {
    let invalid = |field: &str, reason: String| BundleError::Manifest {
        path: path.to_owned(),
        field: field.to_owned(),
        reason,
    };
    let versions: Versions =
        serde_json::from_slice(text).map_err(|error| invalid("schema", error.to_string()))?;
    if versions.schema > SCHEMA {
        return Err(BundleError::NewerSchema {
            path: path.to_owned(),
            found: versions.schema,
            supported: SCHEMA,
            requires: versions.requires,
        });
    }
    let manifest: Manifest =
        serde_json::from_slice(text).map_err(|error| invalid("JSON", error.to_string()))?;
    manifest
        .validate()
        .map_err(|(field, reason)| invalid(field, reason))?;
    Ok(manifest)
}

fn refused(path: &Path, fault: Fault) -> BundleError {
    let path = path.to_owned();
    match fault {
        Fault::NotABundle(reason) => BundleError::NotABundle { path, reason },
        Fault::Damaged(reason) => BundleError::Damaged { path, reason },
        Fault::Read(source) => BundleError::Read { path, source },
    }
}

fn damaged(path: &Path, reason: &str) -> BundleError {
    refused(path, Fault::Damaged(reason.to_owned()))
}

#[cfg(test)]
mod tests;
