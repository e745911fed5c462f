//! Golden compare: frames beside 1 to N golden parts, position by position, after a search for a small shift.
//!
//! Where a job tells what no good part looks like anywhere, golden parts tell what is not where it should be: a missing screw, a label that is
//! upside down, a print with another text. Parts must lie alike in front of the camera. Tokens are those of [`surface`](crate::surface):
//! [`PIXELS`](crate::surface::PIXELS) need no encoder.
//!
//! ```no_run
//! use ssl_edge::golden::{GoldenLearner, LearnOptions, compare_golden};
//! use ssl_edge::vision::decode_file;
//!
//! let mut learner = GoldenLearner::new(&LearnOptions::default());
//! for file in ["good/1.png", "good/2.png", "good/3.png"] {
//!     learner.add(None, &decode_file(file.as_ref())?.frame(), file)?;
//! }
//! let golden = learner.learn()?;
//! golden.save("cover.sslg".as_ref())?;
//! let found = compare_golden(None, &golden, &decode_file("part.png".as_ref())?.frame())?;
//! println!("{:?}, p = {:?}", found.differs, found.p_value);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::Error;
use crate::anomaly::{FrameTokens, Rates};
use crate::encoder::{Encoder, Limit};
use crate::error::look;
use crate::job::{AdaptError, EncoderId};
use crate::surface::{ENCODER, PIXELS, tokens_of_kind_within};
use crate::vision::Frame;

pub use ssl_edge_adapt::golden::{
    Golden, GoldenModel, GoldenOptions, GoldenParts, GoldenReport, GoldenScore, GoldenVerdict,
};

/// How golden parts are learned.
#[derive(Clone, Debug, PartialEq)]
pub struct LearnOptions {
    /// What tokens are made of: [`PIXELS`] or [`ENCODER`].
    pub tokens: String,
    /// How they are compared.
    pub compare: GoldenOptions,
    /// Shares of good frames, and of their tokens, that may be called different.
    pub rates: Rates,
}

impl LearnOptions {
    /// A shift of up to two tokens, 5 % of frames and 0.1 % of tokens. Pixels are compared as they are: divided by their norm, a square that should
    /// be dark would be the same as one that is bright.
    pub fn of(tokens: &str) -> Self {
        let mut compare = GoldenOptions::default();
        compare.prepare.unit_norm = tokens != PIXELS;
        Self {
            tokens: tokens.into(),
            compare,
            rates: Rates::default(),
        }
    }
}

impl Default for LearnOptions {
    /// Of grey pixels.
    fn default() -> Self {
        Self::of(PIXELS)
    }
}

/// Takes golden parts one by one.
#[derive(Clone, Debug)]
pub struct GoldenLearner {
    options: LearnOptions,
    encoder: Option<EncoderId>,
    parts: Vec<FrameTokens>,
    sources: Vec<String>,
}

impl GoldenLearner {
    /// No golden part yet.
    pub fn new(options: &LearnOptions) -> Self {
        Self {
            options: options.clone(),
            encoder: None,
            parts: Vec::new(),
            sources: Vec::new(),
        }
    }

    /// Takes the frame of a golden part, which comes from `source`. The encoder is not looked at for tokens of [`PIXELS`].
    ///
    /// # Errors
    /// As [`tokens_of_kind`](crate::surface::tokens_of_kind); another encoder than before; a frame of another shape than the first; [`AdaptError::SameGolden`]. What was taken
    /// before stays.
    pub fn add(
        &mut self,
        encoder: Option<&Encoder>,
        frame: &Frame<'_>,
        source: &str,
    ) -> Result<(), Error> {
        self.add_within(encoder, frame, source, &Limit::default())
    }

    /// As [`GoldenLearner::add`], but gives the frame up when `limit` passes.
    ///
    /// # Errors
    /// As [`GoldenLearner::add`]; [`Error::Interrupted`], or the engine's.
    pub fn add_within(
        &mut self,
        encoder: Option<&Encoder>,
        frame: &Frame<'_>,
        source: &str,
        limit: &Limit,
    ) -> Result<(), Error> {
        let tokens = tokens_of_kind_within(&self.options.tokens, encoder, frame, limit)?;
        let own = encoder_of_tokens(&self.options.tokens, encoder);
        if let Some(first) = self.parts.first() {
            check_fits(&tokens, first)?;
            if own != self.encoder {
                return Err(Error::OtherEncoder);
            }
        }
        if let Some(first) = self.parts.iter().position(|part| *part == tokens) {
            let second = self.parts.len();
            return Err(AdaptError::SameGolden { first, second }.into());
        }
        self.encoder = own;
        self.parts.push(tokens);
        self.sources.push(source.into());
        Ok(())
    }

    /// Golden parts taken.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Learns what was taken.
    ///
    /// # Errors
    /// As [`GoldenModel::fit`].
    pub fn learn(&self) -> Result<GoldenParts, Error> {
        let grids = self
            .parts
            .iter()
            .map(FrameTokens::grid)
            .collect::<Result<Vec<_>, _>>()?;
        let LearnOptions {
            tokens,
            compare,
            rates,
        } = &self.options;
        Ok(GoldenParts {
            tokens: tokens.clone(),
            encoder: self.encoder,
            sources: self.sources.clone(),
            model: GoldenModel::fit(&grids, compare, rates)?,
        })
    }
}

/// Compares a frame with golden parts.
///
/// # Errors
/// [`AdaptError::EncoderMismatch`] for golden parts of another encoder, or of one where none is given; a frame of another shape than the golden
/// parts; as [`tokens_of_kind`](crate::surface::tokens_of_kind).
pub fn compare_golden(
    encoder: Option<&Encoder>,
    golden: &GoldenParts,
    frame: &Frame<'_>,
) -> Result<GoldenScore, Error> {
    compare_golden_within(encoder, golden, frame, &Limit::default())
}

/// As [`compare_golden`], but gives up when `limit` passes: while the encoder runs, and before the comparison.
///
/// # Errors
/// As [`compare_golden`]; [`Error::Interrupted`], or the engine's.
pub fn compare_golden_within(
    encoder: Option<&Encoder>,
    golden: &GoldenParts,
    frame: &Frame<'_>,
    limit: &Limit,
) -> Result<GoldenScore, Error> {
    golden.check_encoder(encoder_of_tokens(ENCODER, encoder).as_ref())?;
    let tokens = tokens_of_kind_within(&golden.tokens, encoder, frame, limit)?;
    look(limit)?;
    Ok(golden.model.inspect(&tokens.grid()?)?)
}

/// The encoder that tokens of this kind come from.
fn encoder_of_tokens(kind: &str, encoder: Option<&Encoder>) -> Option<EncoderId> {
    let encoder = encoder.filter(|_| kind == ENCODER)?;
    Some(EncoderId {
        hash: encoder.hash(),
        dim: encoder.dim(),
    })
}

fn check_fits(tokens: &FrameTokens, first: &FrameTokens) -> Result<(), Error> {
    if tokens.size == first.size {
        return Ok(());
    }
    let shape = |[rows, cols]: [usize; 2]| format!("{rows} x {cols} tokens");
    let error = AdaptError::GridShape {
        what: "golden part",
        expected: shape(first.size),
        got: shape(tokens.size),
        remedy: "golden parts and frames must have the same size and region of interest",
    };
    Err(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vision::{Image, Station, Surface};

    fn photo(seed: u64) -> Image {
        Station::new(0).photo(Surface::Clean, 64, seed)
    }

    #[test]
    fn golden_parts_of_pixels_need_no_encoder() {
        let mut learner = GoldenLearner::new(&LearnOptions::default());
        for seed in 0..4 {
            learner.add(None, &photo(seed).frame(), "").unwrap();
        }
        let twice = learner.add(None, &photo(1).frame(), "").unwrap_err();
        assert!(matches!(
            twice,
            Error::Job(AdaptError::SameGolden {
                first: 1,
                second: 4
            })
        ));
        assert_eq!(learner.len(), 4);
        let golden = learner.learn().unwrap();
        assert_eq!((golden.encoder, golden.sources.len()), (None, 4));
        let found = compare_golden(None, &golden, &photo(9).frame()).unwrap();
        assert_eq!((found.heat.rows, found.heat.cols), (28, 28));
        assert!(found.p_value.is_some_and(|p| p >= 0.2 - 1e-9));
    }

    #[test]
    fn what_cannot_be_compared_is_named() {
        let mut learner = GoldenLearner::new(&LearnOptions::of(ENCODER));
        assert!(matches!(
            learner.add(None, &photo(0).frame(), ""),
            Err(Error::NoEncoder)
        ));
        assert!(learner.is_empty() && learner.learn().is_err());
        let mut learner = GoldenLearner::new(&LearnOptions::of("wavelets"));
        assert!(matches!(
            learner.add(None, &photo(0).frame(), ""),
            Err(Error::UnknownPart { .. })
        ));
    }
}
