//! From a file to checked members: seal, zip, manifest, sizes and hashes, in this order.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use zip::read::{ArchiveOffset, Config};
use zip::{CompressionMethod, ZipArchive};

use crate::manifest::Versions;
use crate::signature;
use crate::write::{SEAL_DIGITS, SEAL_PREFIX};
use crate::{BundleError, MANIFEST, Manifest, MemberSpec, PublicKey, SCHEMA, SIGNATURE, hex};

const MAX_MEMBERS: usize = 64;
const MAX_MANIFEST: usize = 1 << 20;
const MAX_SIGNATURE: usize = 4 << 10;
const ZIP_MAGIC: &[u8] = b"PK\x03\x04";

/// An open bundle: the whole file in memory, every size and hash checked.
pub struct Bundle {
    path: PathBuf,
    bytes: Vec<u8>,
    members: BTreeMap<String, Range<usize>>,
    manifest: Manifest,
    signer: Option<PublicKey>,
}

impl Bundle {
    /// Reads and checks a bundle.
    ///
    /// # Errors
    /// [`BundleError`] with the file, what is wrong and the remedy: not a bundle, cut short or damaged, made by a newer version,
    /// a member or a manifest field that does not hold.
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        let bytes = read_file(path).map_err(|source| BundleError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::from_bytes(path, bytes)
    }

    /// The same checks on a bundle in memory; `path` only names it in messages.
    ///
    /// # Errors
    /// As [`Bundle::open`].
    pub fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self, BundleError> {
        check_seal(path, &bytes)?;
        let members = locate_members(path, &bytes)?;
        let manifest = parse_manifest(path, &bytes, &members)?;
        let signer = check_signature(path, &bytes, &members)?;
        check_members(path, &bytes, &members, &manifest)?;
        Ok(Self {
            path: path.to_owned(),
            bytes,
            members,
            manifest,
            signer,
        })
    }

    /// The file that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole file, for [`crate::save`].
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What the bundle says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Bytes of a member, or `None` where the bundle has none of that name.
    ///
    /// [`crate::ONNX`] and [`crate::GOLDEN`] are in every open bundle, [`crate::WEIGHTS`] in those that are no imported graph.
    pub fn member(&self, name: &str) -> Option<&[u8]> {
        self.members
            .get(name)
            .map(|range| &self.bytes[range.clone()])
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
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file",
        ));
    }
    let size = usize::try_from(metadata.len()).map_err(io::Error::other)?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(size).map_err(io::Error::other)?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn check_seal(path: &Path, bytes: &[u8]) -> Result<(), BundleError> {
    if !bytes.starts_with(ZIP_MAGIC) {
        let reason = match bytes.len() {
            0 => "the file is empty",
            1..4 => "the file has less than 4 bytes",
            _ => "it does not begin as a zip file does",
        };
        return Err(BundleError::NotABundle {
            path: path.to_owned(),
            reason: reason.to_owned(),
        });
    }
    let tail = SEAL_PREFIX.len() + SEAL_DIGITS;
    let sealed =
        bytes.len() >= tail && bytes[bytes.len() - tail..].starts_with(SEAL_PREFIX.as_bytes());
    if !sealed {
        return Err(damaged(path, "the seal at its end is missing"));
    }
    let (content, digits) = bytes.split_at(bytes.len() - SEAL_DIGITS);
    if hex(&Sha256::digest(content)).as_bytes() != digits {
        return Err(damaged(
            path,
            "its contents do not match the seal at its end",
        ));
    }
    Ok(())
}

fn locate_members(
    path: &Path,
    bytes: &[u8],
) -> Result<BTreeMap<String, Range<usize>>, BundleError> {
    let config = Config {
        archive_offset: ArchiveOffset::Known(0),
    };
    let unreadable = |error: zip::result::ZipError| damaged(path, &format!("zip: {error}"));
    let mut zip = ZipArchive::with_config(config, Cursor::new(bytes)).map_err(unreadable)?;
    if zip.len() > MAX_MEMBERS || zip.has_duplicate_names() {
        return Err(damaged(path, "its list of members is not one we write"));
    }
    let mut members = BTreeMap::new();
    for index in 0..zip.len() {
        let file = zip.by_index_raw(index).map_err(unreadable)?;
        let name = file.name().map_err(unreadable)?.into_owned();
        let range = file.data_start().and_then(|start| {
            let end = start.checked_add(file.size())?;
            Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
        });
        match range {
            Some(range)
                if range.end <= bytes.len()
                    && file.compression() == CompressionMethod::Stored
                    && file.compressed_size() == file.size()
                    && !file.encrypted() =>
            {
                members.insert(name, range);
            }
            _ => return Err(damaged(path, &format!("member {name} is not stored whole"))),
        }
    }
    Ok(members)
}

fn parse_manifest(
    path: &Path,
    bytes: &[u8],
    members: &BTreeMap<String, Range<usize>>,
) -> Result<Manifest, BundleError> {
    let text = match members.get(MANIFEST) {
        Some(range) if range.len() <= MAX_MANIFEST => &bytes[range.clone()],
        Some(_) => return Err(damaged(path, "its manifest is larger than 1 MiB")),
        None => {
            return Err(BundleError::NotABundle {
                path: path.to_owned(),
                reason: format!("it has no {MANIFEST}"),
            });
        }
    };
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

fn check_signature(
    path: &Path,
    bytes: &[u8],
    members: &BTreeMap<String, Range<usize>>,
) -> Result<Option<PublicKey>, BundleError> {
    let (Some(signature), Some(manifest)) = (members.get(SIGNATURE), members.get(MANIFEST)) else {
        return Ok(None);
    };
    if signature.len() > MAX_SIGNATURE {
        return Err(damaged(path, "its signature is larger than 4 KiB"));
    }
    let of = |range: &Range<usize>| &bytes[range.clone()];
    let signer = signature::verify(of(manifest), of(signature));
    signer.map(Some).map_err(|reason| BundleError::Signature {
        path: path.to_owned(),
        reason,
    })
}

fn check_members(
    path: &Path,
    bytes: &[u8],
    members: &BTreeMap<String, Range<usize>>,
    manifest: &Manifest,
) -> Result<(), BundleError> {
    let mismatch = |member: &str, reason: String| BundleError::Member {
        path: path.to_owned(),
        member: member.to_owned(),
        reason,
    };
    let is_listed = |name: &&String| ![MANIFEST, SIGNATURE].contains(&name.as_str());
    for name in members.keys().filter(is_listed) {
        if !manifest.members.contains_key(name) {
            return Err(mismatch(name, "the manifest does not list it".to_owned()));
        }
    }
    for (
        name,
        MemberSpec {
            sha256,
            bytes: size,
        },
    ) in &manifest.members
    {
        let Some(range) = members.get(name) else {
            return Err(mismatch(name, "it is missing".to_owned()));
        };
        if range.len() as u64 != *size {
            return Err(mismatch(
                name,
                format!("{} bytes instead of {size}", range.len()),
            ));
        }
        if hex(&Sha256::digest(&bytes[range.clone()])) != *sha256 {
            return Err(mismatch(name, "its SHA-256 differs".to_owned()));
        }
    }
    Ok(())
}

fn damaged(path: &Path, reason: &str) -> BundleError {
    BundleError::Damaged {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::write::{pack, seal};
    use crate::{GOLDEN, ONNX, WEIGHTS};

    const WEIGHT_BYTES: &[u8] = b"weights";

    fn member(bytes: &[u8]) -> Value {
        json!({"sha256": hex(&Sha256::digest(bytes)), "bytes": bytes.len()})
    }

    fn manifest() -> Value {
        json!({
            "schema": 1, "requires": "0.1.0", "created_by": "test",
            "arch": {"name": "tiny", "dim": 8, "depth": 1, "heads": 2, "patch": 4, "registers": 0, "mlp_ratio": 4,
                     "image_size": [8, 8], "gelu": "tanh", "eps": 1e-6},
            "preprocess": {"height": 8, "width": 8, "fit": "squash", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
            "pooling": "cls",
            "provenance": {"method": "random", "images_seen": 0, "dataset_images": 0, "seed": 0, "config": ""},
            "golden": {"count": 1, "tolerance": 1e-4},
            "members": {WEIGHTS: member(WEIGHT_BYTES), ONNX: member(b"onnx"), GOLDEN: member(b"golden")},
        })
    }

    fn open(manifest: &Value, members: &[(&str, &[u8])]) -> Result<Bundle, BundleError> {
        let text = manifest.to_string();
        let mut all = vec![(MANIFEST, text.as_bytes())];
        all.extend_from_slice(members);
        Bundle::from_bytes(Path::new("b.sslb"), seal(pack(&all).unwrap()))
    }

    fn members(weights: &'static [u8]) -> [(&'static str, &'static [u8]); 3] {
        [(WEIGHTS, weights), (ONNX, b"onnx"), (GOLDEN, b"golden")]
    }

    fn message(result: Result<Bundle, BundleError>) -> String {
        result.map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn a_sealed_file_still_has_every_member_checked() {
        assert!(open(&manifest(), &members(WEIGHT_BYTES)).is_ok());

        let changed = message(open(&manifest(), &members(b"Weights")));
        assert!(
            changed.contains("b.sslb") && changed.contains(WEIGHTS) && changed.contains("SHA-256"),
            "{changed}"
        );
        let longer = message(open(&manifest(), &members(b"weights+")));
        assert!(longer.contains("8 bytes instead of 7"), "{longer}");
        let missing = message(open(&manifest(), &members(WEIGHT_BYTES)[..2]));
        assert!(
            missing.contains(GOLDEN) && missing.contains("missing"),
            "{missing}"
        );

        let mut extra = members(WEIGHT_BYTES).to_vec();
        extra.push(("run.sh", b"echo"));
        let extra = message(open(&manifest(), &extra));
        assert!(
            extra.contains("run.sh") && extra.contains("does not list"),
            "{extra}"
        );
    }

    #[test]
    fn a_newer_schema_names_the_version_to_get() {
        let newer = json!({"schema": 7, "requires": "3.2.0", "shape": "unknown to this version"});
        let message = message(open(&newer, &members(WEIGHT_BYTES)));
        assert!(
            message.contains("schema 7") && message.contains("ssl-edge 3.2.0"),
            "{message}"
        );
    }

    #[test]
    fn numbers_that_cannot_be_are_refused_by_name() {
        let cases = [
            ("/arch/heads", json!(3), "arch.heads"),
            ("/arch/dim", json!(1_u64 << 40), "arch.dim"),
            ("/arch/depth", json!(0), "arch.depth"),
            ("/arch/patch", json!(0), "arch.patch"),
            ("/arch/gelu", json!("relu"), "arch.gelu"),
            ("/arch/eps", json!(-1.0), "arch.eps"),
            ("/arch/image_size", json!([8, 6]), "arch.image_size"),
            (
                "/arch/image_size",
                json!([8, 12]),
                "preprocess makes images of 8 x 8",
            ),
            ("/preprocess/height", json!(4_000_000_000_u32), "preprocess"),
            ("/preprocess/fit", json!("stretch"), "preprocess.fit"),
            ("/preprocess/std", json!([0.5, 0.0, 0.5]), "preprocess.std"),
            ("/golden/count", json!(0), "golden.count"),
            ("/golden/tolerance", json!(5.0), "golden.tolerance"),
        ];
        for (pointer, value, field) in cases {
            let mut manifest = manifest();
            *manifest.pointer_mut(pointer).unwrap() = value;
            let message = message(open(&manifest, &members(WEIGHT_BYTES)));
            assert!(
                message.contains(field) && message.contains("b.sslb"),
                "{pointer}: {message}"
            );
        }
    }

    #[test]
    fn unknown_manifest_fields_are_ignored() {
        let mut manifest = manifest();
        manifest["note"] = json!("from a later version of the same schema");
        assert!(open(&manifest, &members(WEIGHT_BYTES)).is_ok());
    }

    #[test]
    fn a_member_list_that_is_cut_from_the_manifest_is_refused() {
        let mut manifest = manifest();
        manifest["members"].as_object_mut().unwrap().remove(ONNX);
        let message = message(open(&manifest, &members(WEIGHT_BYTES)));
        assert!(message.contains(ONNX), "{message}");
    }
}
