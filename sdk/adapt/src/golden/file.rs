//! The file of golden parts (`.sslg`): a [container](crate::container) with magic `SSLEGLD\0`, whose payload is a [`GoldenParts`].

use super::GoldenModel;
use crate::container::Format;
use crate::error::AdaptError;
use crate::job::EncoderId;
use serde::{Deserialize, Serialize};
use std::path::Path;

const FORMAT: Format = Format {
    magic: *b"SSLEGLD\0",
    oldest: 1,
    version: 1,
    not_one: |path| AdaptError::NotGolden { path },
};

/// Golden parts as they are kept: what they look like, what that was made from, and where they come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GoldenParts {
    /// What tokens are made of, as the program that makes them calls it.
    pub tokens: String,
    /// The encoder whose tokens they are; `None` for tokens that need none.
    pub encoder: Option<EncoderId>,
    /// Where each golden part comes from.
    pub sources: Vec<String>,
    /// The calibrated golden parts.
    pub model: GoldenModel,
}

impl GoldenParts {
    /// Checks that tokens of `encoder` may be compared with these; `None` stands for no encoder, which is right for golden parts that need none.
    ///
    /// # Errors
    ///
    /// [`AdaptError::EncoderMismatch`], which names both.
    pub fn check_encoder(&self, encoder: Option<&EncoderId>) -> Result<(), AdaptError> {
        match (&self.encoder, encoder) {
            (None, _) => Ok(()),
            (Some(own), Some(given)) if own == given => Ok(()),
            (Some(own), given) => Err(own.mismatch("the golden file", given)),
        }
    }

    /// Writes them so that `path` always holds a whole file: the old one or this one.
    ///
    /// # Errors
    ///
    /// [`AdaptError::Io`]. What was at `path` before is still there.
    pub fn save(&self, path: &Path) -> Result<(), AdaptError> {
        FORMAT.save(path, self)
    }

    /// Reads golden parts; they compare as they did when they were saved, bit for bit.
    ///
    /// # Errors
    ///
    /// [`AdaptError::Io`], [`AdaptError::NotGolden`], [`AdaptError::FileVersion`], [`AdaptError::FileLength`], [`AdaptError::FileDamaged`].
    pub fn load(path: &Path) -> Result<Self, AdaptError> {
        let (_, content) = FORMAT.read(path)?;
        let golden: Self = FORMAT.decode(path, &content)?;
        let damaged = |why: String| AdaptError::FileDamaged {
            path: path.to_owned(),
            why,
        };
        golden.model.check().map_err(damaged)?;
        if golden.sources.len() != golden.model.report().parts {
            return Err(damaged("the golden parts and their sources differ".into()));
        }
        Ok(golden)
    }
}
