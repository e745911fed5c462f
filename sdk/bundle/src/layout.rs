//! How a bundle lies in its file: the zip's list of members, and the two hashes in its comment.
//!
//! The comment ends with `ssl-edge outline`, a SHA-256, `ssl-edge sha256` and another SHA-256. The first hash, the outline, is of all bytes before its
//! digits but for the contents of the members that the manifest holds the hashes of: with it, a reader that wants one member need not read the others.
//! The second one, the seal, is of every byte before its digits. Bundles of earlier versions have the seal alone.

use std::collections::BTreeMap;
use std::io::{self, BufReader};
use std::ops::Range;

use sha2::{Digest, Sha256};
use zip::read::{ArchiveOffset, Config};
use zip::{CompressionMethod, ZipArchive};

use crate::source::Source;
use crate::{MANIFEST, SIGNATURE, hex};

const MAX_MEMBERS: usize = 64;
const ZIP_MAGIC: &[u8] = b"PK\x03\x04";
const OUTLINE_PREFIX: &str = "ssl-edge outline ";
const SEAL_PREFIX: &str = " ssl-edge sha256 ";
const DIGITS: usize = 64;
const SEAL_LEN: u64 = (SEAL_PREFIX.len() + DIGITS) as u64;

/// Where the contents of each member lie.
pub(crate) type Members = BTreeMap<String, Range<u64>>;

/// Why a file is not laid out as a bundle.
pub(crate) enum Fault {
    /// It is something else.
    NotABundle(String),
    /// It was a bundle.
    Damaged(String),
    Read(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

fn damaged(reason: impl Into<String>) -> Fault {
    Fault::Damaged(reason.into())
}

/// A comment with room for both hashes.
pub(crate) fn comment() -> String {
    let digits = "0".repeat(DIGITS);
    format!("{OUTLINE_PREFIX}{digits}{SEAL_PREFIX}{digits}")
}

/// Fills in the hashes of a zip that ends with [`comment`].
///
/// # Errors
/// A zip whose members cannot be listed.
pub(crate) fn seal(bytes: Vec<u8>) -> Result<Vec<u8>, Fault> {
    let source = Source::Memory(bytes);
    let members = locate(&source)?;
    let outline = outline(&source, &members)?;
    let Source::Memory(mut bytes) = source else {
        return Err(damaged("it is not in memory"));
    };
    let end = bytes.len() - SEAL_LEN as usize;
    bytes[end - DIGITS..end].copy_from_slice(outline.as_bytes());
    let end = bytes.len() - DIGITS;
    let digits = hex(&Sha256::digest(&bytes[..end]));
    bytes[end..].copy_from_slice(digits.as_bytes());
    Ok(bytes)
}

/// Checks the first bytes and the presence of the seal.
pub(crate) fn check_ends(source: &Source) -> Result<(), Fault> {
    let mut magic = [0; ZIP_MAGIC.len()];
    let known = source.len().min(magic.len() as u64) as usize;
    source.read_at(0, &mut magic[..known])?;
    if magic != ZIP_MAGIC {
        return Err(Fault::NotABundle(
            match known {
                0 => "the file is empty",
                1..4 => "the file has less than 4 bytes",
                _ => "it does not begin as a zip file does",
            }
            .to_owned(),
        ));
    }
    // Files of earlier versions have the seal without the space before it.
    match text_before(source, SEAL_PREFIX.trim_start(), DIGITS as u64)? {
        true => Ok(()),
        false => Err(damaged("the seal at its end is missing")),
    }
}

/// Whether `text` stands before the last `after` bytes.
fn text_before(source: &Source, text: &str, after: u64) -> io::Result<bool> {
    let Some(at) = source.len().checked_sub(after + text.len() as u64) else {
        return Ok(false);
    };
    let mut found = vec![0; text.len()];
    source.read_at(at, &mut found)?;
    Ok(found == text.as_bytes())
}

/// Checks that nothing outside the members' contents has changed: by the outline, or by the seal where there is no outline.
pub(crate) fn check_outline(source: &Source, members: &Members) -> Result<(), Fault> {
    let has_outline = text_before(source, OUTLINE_PREFIX, DIGITS as u64 + SEAL_LEN)?;
    if !has_outline || !text_before(source, SEAL_PREFIX, DIGITS as u64)? {
        return check_seal(source);
    }
    let mut digits = [0; DIGITS];
    source.read_at(source.len() - SEAL_LEN - DIGITS as u64, &mut digits)?;
    if outline(source, members)?.as_bytes() != digits {
        return Err(damaged("its outline does not match the hash at its end"));
    }
    Ok(())
}

/// Checks that no byte has changed.
pub(crate) fn check_seal(source: &Source) -> Result<(), Fault> {
    let end = source.len() - DIGITS as u64;
    let mut hash = Sha256::new();
    source.hash_into(0..end, &mut hash)?;
    let mut digits = [0; DIGITS];
    source.read_at(end, &mut digits)?;
    if hex(&hash.finalize()).as_bytes() != digits {
        return Err(damaged("its contents do not match the seal at its end"));
    }
    Ok(())
}

/// The hash of what lies between the contents of the members, and of the manifest and the signature.
fn outline(source: &Source, members: &Members) -> Result<String, Fault> {
    let mut contents: Vec<&Range<u64>> = members
        .iter()
        .filter(|(name, _)| ![MANIFEST, SIGNATURE].contains(&name.as_str()))
        .map(|(_, range)| range)
        .collect();
    contents.sort_by_key(|range| (range.start, range.end));
    let end = source.len() - SEAL_LEN - DIGITS as u64;
    let (mut at, mut hash) = (0, Sha256::new());
    for range in contents {
        if range.start < at || range.end > end {
            return Err(damaged("its members lie over each other"));
        }
        source.hash_into(at..range.start, &mut hash)?;
        at = range.end;
    }
    source.hash_into(at..end, &mut hash)?;
    Ok(hex(&hash.finalize()))
}

/// The members of the zip, all of them stored as they are.
pub(crate) fn locate(source: &Source) -> Result<Members, Fault> {
    let config = Config {
        archive_offset: ArchiveOffset::Known(0),
    };
    let unreadable = |error: zip::result::ZipError| damaged(format!("zip: {error}"));
    let reader = BufReader::new(source.cursor());
    let mut zip = ZipArchive::with_config(config, reader).map_err(unreadable)?;
    if zip.len() > MAX_MEMBERS || zip.has_duplicate_names() {
        return Err(damaged("its list of members is not one we write"));
    }
    let mut members = Members::new();
    for index in 0..zip.len() {
        let file = zip.by_index_raw(index).map_err(unreadable)?;
        let name = file.name().map_err(unreadable)?.into_owned();
        let range = file
            .data_start()
            .and_then(|start| Some(start..start.checked_add(file.size())?));
        match range {
            Some(range)
                if range.end <= source.len()
                    && file.compression() == CompressionMethod::Stored
                    && file.compressed_size() == file.size()
                    && !file.encrypted() =>
            {
                members.insert(name, range);
            }
            _ => return Err(damaged(format!("member {name} is not stored whole"))),
        }
    }
    Ok(members)
}
