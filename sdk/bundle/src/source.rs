//! Where the bytes of a bundle are: in memory, or in a file that is read where something is needed.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

/// Bytes that are hashed at once.
const PIECE: usize = 1 << 18;

/// The bytes of a bundle.
pub(crate) enum Source {
    Memory(Vec<u8>),
    /// The file stays open, so that another one that takes its place is not read instead.
    File {
        file: Mutex<File>,
        len: u64,
    },
}

impl Source {
    /// A regular file.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is not a regular file",
            ));
        }
        Ok(Self::File {
            file: Mutex::new(file),
            len: metadata.len(),
        })
    }

    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File { len, .. } => *len,
        }
    }

    /// Fills `to` with what lies at `at`.
    ///
    /// # Errors
    /// The operating system's; [`io::ErrorKind::UnexpectedEof`] where the bytes end before.
    pub(crate) fn read_at(&self, at: u64, to: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Memory(bytes) => {
                let start = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                (&bytes[start..]).read_exact(to)
            }
            Self::File { file, .. } => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(at))?;
                file.read_exact(to)
            }
        }
    }

    /// A range that lies inside.
    ///
    /// # Errors
    /// As [`Source::read_at`]; memory that is refused.
    pub(crate) fn bytes(&self, range: &Range<u64>) -> io::Result<Cow<'_, [u8]>> {
        let len = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
        if let Self::Memory(bytes) = self {
            let start = usize::try_from(range.start).map_err(io::Error::other)?;
            let part = bytes.get(start..).and_then(|rest| rest.get(..len));
            return part
                .map(Cow::Borrowed)
                .ok_or_else(|| io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).map_err(io::Error::other)?;
        bytes.resize(len, 0);
        self.read_at(range.start, &mut bytes)?;
        Ok(Cow::Owned(bytes))
    }

    /// Adds a range to a hash.
    ///
    /// # Errors
    /// As [`Source::read_at`].
    pub(crate) fn hash_into(&self, range: Range<u64>, hash: &mut Sha256) -> io::Result<()> {
        let mut piece = vec![0; (range.end - range.start).min(PIECE as u64) as usize];
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(PIECE as u64) as usize;
            self.read_at(at, &mut piece[..len])?;
            hash.update(&piece[..len]);
            at += len as u64;
        }
        Ok(())
    }

    /// Its bytes from the first one on.
    pub(crate) fn cursor(&self) -> Cursor<'_> {
        Cursor {
            source: self,
            at: 0,
        }
    }
}

/// Reads a [`Source`] from any place.
pub(crate) struct Cursor<'a> {
    source: &'a Source,
    at: u64,
}

impl Read for Cursor<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let left = self.source.len().saturating_sub(self.at);
        let len = to.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.source.read_at(self.at, &mut to[..len])?;
        self.at += len as u64;
        Ok(len)
    }
}

impl Seek for Cursor<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.source.len().checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
