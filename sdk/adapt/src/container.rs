//! The frame that this crate's files share.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | magic |
//! | 4 | version, little-endian |
//! | 8 | length L of the payload, little-endian |
//! | L | payload in postcard's wire format |
//! | 4 | CRC-32 (IEEE) of all bytes before, little-endian |
//!
//! Magic, version, length and CRC stay where they are in every version.

use crate::error::AdaptError;
use crate::safe_write::safe_write;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

const HEADER: usize = 20;
const CRC: usize = 4;

/// One kind of file.
pub(crate) struct Format {
    pub(crate) magic: [u8; 8],
    /// The earliest version that is read.
    pub(crate) oldest: u32,
    /// The version that is written, and the latest that is read.
    pub(crate) version: u32,
    /// What is said of a file with another magic.
    pub(crate) not_one: fn(PathBuf) -> AdaptError,
}

impl Format {
    /// Writes `payload` so that `path` always holds a whole file: the old one or this one.
    pub(crate) fn save(&self, path: &Path, payload: &impl Serialize) -> Result<(), AdaptError> {
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.extend_from_slice(&self.magic);
        bytes.extend_from_slice(&self.version.to_le_bytes());
        bytes.extend_from_slice(&[0; 8]);
        let encoded = postcard::to_extend(payload, bytes);
        let mut bytes = encoded.map_err(|error| AdaptError::FileDamaged {
            path: path.to_owned(),
            why: error.to_string(),
        })?;
        let length = (bytes.len() - HEADER) as u64;
        bytes[12..HEADER].copy_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        safe_write(path, &bytes)
    }

    /// Version of the file at `path`, and its header and payload; magic, length, CRC and version are checked.
    pub(crate) fn read(&self, path: &Path) -> Result<(u32, Vec<u8>), AdaptError> {
        let io = |source| AdaptError::Io {
            action: "read",
            path: path.to_owned(),
            source,
        };
        let mut file = File::open(path).map_err(io)?;
        let found = file.metadata().map_err(io)?.len();
        let mut header = Vec::with_capacity(HEADER);
        (&mut file)
            .take(HEADER as u64)
            .read_to_end(&mut header)
            .map_err(io)?;
        if !self.magic.starts_with(&header[..header.len().min(8)]) {
            return Err((self.not_one)(path.to_owned()));
        }
        let wrong_length = |expected| AdaptError::FileLength {
            path: path.to_owned(),
            expected,
            found,
        };
        let Ok(&[_, _, _, _, _, _, _, _, v0, v1, v2, v3, ref length @ ..]) =
            <&[u8; HEADER]>::try_from(header.as_slice())
        else {
            return Err(wrong_length((HEADER + CRC) as u64));
        };
        let expected = u64::from_le_bytes(*length).saturating_add((HEADER + CRC) as u64);
        if expected != found {
            return Err(wrong_length(expected));
        }
        let size = usize::try_from(found).map_err(|_| wrong_length(expected))?;
        let mut content = header;
        content.reserve_exact(size - HEADER);
        file.take(found - HEADER as u64)
            .read_to_end(&mut content)
            .map_err(io)?;
        if content.len() != size {
            return Err(AdaptError::FileLength {
                path: path.to_owned(),
                expected,
                found: content.len() as u64,
            });
        }
        let crc = content.split_off(size - CRC);
        if crc != crc32fast::hash(&content).to_le_bytes() {
            return Err(AdaptError::FileDamaged {
                path: path.to_owned(),
                why: "its checksum does not match".into(),
            });
        }
        let version = u32::from_le_bytes([v0, v1, v2, v3]);
        if !(self.oldest..=self.version).contains(&version) {
            return Err(AdaptError::FileVersion {
                path: path.to_owned(),
                found: version,
                supported: self.version,
            });
        }
        Ok((version, content))
    }

    /// The payload of the content that [`read`](Self::read) gave. Its numbers are as the file says and must be checked.
    pub(crate) fn decode<'c, T: Deserialize<'c>>(
        &self,
        path: &Path,
        content: &'c [u8],
    ) -> Result<T, AdaptError> {
        let damaged = |why: String| AdaptError::FileDamaged {
            path: path.to_owned(),
            why,
        };
        let (payload, rest) = postcard::take_from_bytes::<T>(&content[HEADER..])
            .map_err(|error| damaged(format!("content: {error}")))?;
        if !rest.is_empty() {
            return Err(damaged(format!("{} bytes behind the content", rest.len())));
        }
        Ok(payload)
    }
}
