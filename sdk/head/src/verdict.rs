//! From an embedding in `i8` to a verdict, in integers only.
//!
//! With `q` the embedding, `v = centre + 2^s q` is what the arithmetic takes as the frame, exactly. A class's logit is
//! `factor · (weights · q) + offset`; the largest wins, the first among equals, and its score is its share in the softmax of the logits (for
//! cosine heads divided by `‖v‖` first). The frame is unknown when its cosine to every row lies below the image's limit: with
//! `p = (v · v_row) / ‖v_row‖` that is `p < limit · ‖v‖`, decided on `p²` and `limit² ‖v‖²`, so that no root is needed.

use crate::MAX_CLASSES;
use crate::error::InputError;
use crate::fixed::{EXP_BITS, ONE_Q15, dot, dot_wide, exp_neg, softmax_share, square};
use crate::image::{ClassRecord, HeadImage, ONE_Q30, RowRecord};
use heapless::Vec;

/// Fraction bits of `‖v‖` where scores and similarities are divided by it.
const NORM_BITS: u32 = 9;
/// Fraction bits of `p`, the projection of a frame on a row.
const PROJECTION_BITS: u8 = 16;
/// No projection of an image that this crate wrote comes near to it; it keeps the squares of others inside `u128`.
const MAX_PROJECTION: i128 = 1 << 40;

/// What a head says about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Index of the best class, also when the frame is unknown.
    pub class: u16,
    /// Its probability in Q15 (32768 is 1), given that the frame is of one of the classes.
    pub score: u16,
    /// Whether the frame is unlike every taught sample that the image holds.
    pub unknown: bool,
    /// The taught sample that the frame is most like; `None` for an image without rows.
    pub nearest: Option<Nearest>,
}

/// A taught sample beside a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nearest {
    /// Index of the row; [`HeadImage::row`] gives the sample's id.
    pub row: u16,
    /// Cosine between the frame and it in Q15, -32768..=32768.
    pub similarity: i32,
}

/// A frame's integers that all rows share.
struct Frame<'q> {
    values: &'q [i8],
    /// `centre · q`
    along_centre: i64,
    /// `‖v‖²`, up to 2^44.
    square: u64,
}

impl HeadImage<'_> {
    /// The verdict on a frame's embedding `[dim]`.
    ///
    /// Cost: `(classes + rows) · dim` multiply-adds; no division that depends on the embedding's length, no floating point.
    ///
    /// # Errors
    ///
    /// [`InputError::Length`].
    pub fn inspect(&self, embedding: &[i8]) -> Result<Verdict, InputError> {
        let frame = self.frame(embedding)?;
        let (class, below) = self.below_best(&frame);
        let sum = below.iter().map(|x| u64::from(exp_neg(*x))).sum();
        let (nearest, projection) = self.project(&frame, None).unzip();
        Ok(Verdict {
            class: class as u16,
            score: softmax_share(exp_neg(0), sum),
            unknown: self.header.unknown
                && projection.is_some_and(|p| self.is_below_limit(p, &frame)),
            nearest,
        })
    }

    /// Probability of each class in Q15, in the order of the classes.
    ///
    /// # Errors
    ///
    /// [`InputError::Length`].
    pub fn scores(&self, embedding: &[i8]) -> Result<Vec<u16, MAX_CLASSES>, InputError> {
        let (_, below) = self.below_best(&self.frame(embedding)?);
        let sum = below.iter().map(|x| u64::from(exp_neg(*x))).sum();
        Ok(below
            .iter()
            .map(|x| softmax_share(exp_neg(*x), sum))
            .collect())
    }

    /// The row that an embedding `[dim]` is most like, and whether the embedding would be unknown; row `skip` is left out, so that a taught
    /// sample can be held against the others.
    ///
    /// # Errors
    ///
    /// [`InputError::Length`].
    pub fn nearest(
        &self,
        embedding: &[i8],
        skip: Option<u16>,
    ) -> Result<Option<(Nearest, bool)>, InputError> {
        let frame = self.frame(embedding)?;
        Ok(self.project(&frame, skip).map(|(nearest, projection)| {
            (
                nearest,
                self.header.unknown && self.is_below_limit(projection, &frame),
            )
        }))
    }

    fn frame<'q>(&self, values: &'q [i8]) -> Result<Frame<'q>, InputError> {
        if values.len() != self.dim() {
            return Err(InputError::Length {
                needed: self.header.dim,
                found: values.len(),
            });
        }
        let along_centre = dot_wide(values, self.centre);
        let bits = self.header.centre_bits;
        let square = self.centre_square as i64
            + (along_centre << (bits + 1))
            + (i64::from(square(values)) << (2 * bits));
        Ok(Frame {
            values,
            along_centre,
            square: square as u64,
        })
    }

    /// Index of the largest logit, and how far each is below it: in Q24, at most `u32::MAX`.
    fn below_best(&self, frame: &Frame) -> (usize, Vec<u32, MAX_CLASSES>) {
        let rows = self.weights.chunks_exact(self.dim());
        let logits: Vec<i64, MAX_CLASSES> = self
            .classes
            .iter()
            .zip(rows)
            .map(|(class, weights)| {
                let class = ClassRecord::read(class);
                i64::from(dot(frame.values, weights)) * i64::from(class.factor) + class.offset
            })
            .collect();
        let mut best = 0;
        for (class, logit) in logits.iter().enumerate() {
            if *logit > logits[best] {
                best = class;
            }
        }
        let largest = logits[best];
        let bits = u32::from(self.header.logit_bits);
        let (excess, norm) = if self.header.cosine {
            // As many of the norm's fraction bits as the logits have to give.
            let lacking = (EXP_BITS + NORM_BITS).saturating_sub(bits);
            (
                bits + lacking - EXP_BITS - NORM_BITS,
                norm(frame.square) >> lacking,
            )
        } else {
            (bits - EXP_BITS, 1)
        };
        let below = logits.iter().map(|logit| {
            let distance = (largest.wrapping_sub(*logit) as u64) >> excess;
            // Scores of a frame of zeros are all 0.
            let quotient = distance.checked_div(norm).unwrap_or(0);
            u32::try_from(quotient).unwrap_or(u32::MAX)
        });
        (best, below.collect())
    }

    /// The row with the largest projection `v · v_row / ‖v_row‖`, the first among equals, with that projection.
    fn project(&self, frame: &Frame, skip: Option<u16>) -> Option<(Nearest, i64)> {
        let bits = self.header.centre_bits;
        let along_centre = frame.along_centre << bits;
        let values = self.row_values.chunks_exact(self.dim());
        let mut best: Option<(u16, i64)> = None;
        for (row, (record, values)) in (0u16..).zip(self.rows.iter().zip(values)) {
            if Some(row) == skip {
                continue;
            }
            let record = RowRecord::read(record);
            let product =
                record.offset + along_centre + (i64::from(dot(frame.values, values)) << (2 * bits));
            let scaled = (i128::from(product) * i128::from(record.factor))
                >> (self.header.row_bits - PROJECTION_BITS);
            let projection = scaled.clamp(-MAX_PROJECTION, MAX_PROJECTION) as i64;
            if best.is_none_or(|(_, largest)| projection > largest) {
                best = Some((row, projection));
            }
        }
        best.map(|(row, projection)| {
            // From 2^-16 over 2^-9 to Q15.
            let scaled = projection << (15 + NORM_BITS - u32::from(PROJECTION_BITS));
            let similarity = scaled.checked_div(norm(frame.square) as i64).unwrap_or(0);
            let one = i64::from(ONE_Q15);
            let similarity = similarity.clamp(-one, one) as i32;
            (Nearest { row, similarity }, projection)
        })
    }

    /// Whether the cosine that belongs to `projection` is below the limit.
    fn is_below_limit(&self, projection: i64, frame: &Frame) -> bool {
        let limit = self.header.cosine_limit;
        if frame.square == 0 {
            return limit > 0;
        }
        let own = u128::from(projection.unsigned_abs()).pow(2);
        let limit_square = u64::from(limit.unsigned_abs()).pow(2)
            >> (2 * ONE_Q30.ilog2() - 2 * u32::from(PROJECTION_BITS));
        let bound = u128::from(limit_square) * u128::from(frame.square);
        if limit >= 0 {
            projection < 0 || own < bound
        } else {
            projection < 0 && own > bound
        }
    }
}

/// `‖v‖` with [`NORM_BITS`] fraction bits, rounded down.
fn norm(square: u64) -> u64 {
    (square << (2 * NORM_BITS)).isqrt()
}
