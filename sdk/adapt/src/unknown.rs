//! When a frame is unlike everything that was taught.
//!
//! The distance of an embedding is `1 - cos` to the nearest sample of any class. For each taught sample whose class has another one the same is
//! computed with the sample itself left out; call these `d_1 … d_n`. Were a new frame of the taught kinds exchangeable with them, the chance that
//! its distance exceeds the k-th smallest of them, `k = ⌈(n + 1)(1 - rate)⌉`, would be at most `rate` (split conformal prediction; with
//! leave-one-out distances it holds approximately). So the threshold is `d_(k)`, and a frame beyond it is unknown. When `k > n`, that is when
//! `n + 1 < 1 / rate`, no threshold can promise the rate: there are too few samples to tell, and nothing is called unknown. At the default
//! rate of 0.05 that takes 19 samples in classes of at least two.

use crate::blocks;
use crate::error::AdaptError;
use crate::support::Support;
use serde::{Deserialize, Serialize};

/// Cosines computed in `f32` and `f64` differ by less than this.
const ROUNDING: f64 = 1e-6;

/// The distance beyond which a frame is unknown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnknownRule {
    /// Share of frames of the taught kinds that may be called unknown.
    pub rate: f64,
    /// Leave-one-out distances that the threshold comes from.
    pub n: usize,
    /// The threshold; `None` while `n + 1 < 1 / rate`: nothing is unknown.
    pub threshold: Option<f64>,
}

impl UnknownRule {
    /// The rule from leave-one-out distances.
    ///
    /// # Errors
    ///
    /// A `rate` outside 0..1 (0 turns the flag off).
    pub fn new(mut distances: Vec<f64>, rate: f64) -> Result<Self, AdaptError> {
        if !(0.0..1.0).contains(&rate) {
            return Err(AdaptError::BadOption {
                name: "unknown rate",
                value: rate.to_string(),
                range: "at least 0 and below 1",
            });
        }
        distances.sort_by(f64::total_cmp);
        let n = distances.len();
        // The tolerance keeps 0.95 · 20 at 19 in binary arithmetic.
        let k = (((n + 1) as f64 * (1.0 - rate)) - 1e-9).ceil().max(1.0) as usize;
        Ok(Self {
            rate,
            n,
            threshold: distances.get(k - 1).copied(),
        })
    }

    /// Whether a frame at this distance from its nearest sample is unknown.
    pub fn is_unknown(&self, distance: f64) -> bool {
        self.threshold
            .is_some_and(|threshold| distance > threshold + ROUNDING)
    }
}

/// Distance `1 - cos` of each sample to the nearest other one of any class, for the samples whose class has another one.
///
/// Cost: N² D multiply-adds; memory: 256 N numbers for each thread.
pub fn leave_one_out_distances(support: &Support) -> Vec<f64> {
    let unit = support.normalised();
    let blocks = blocks::map(support.len(), |rows| {
        let cosines = unit.rows_times_transposed(rows.clone(), &unit);
        rows.enumerate()
            .filter(|(_, sample)| support.evaluable(*sample))
            .map(|(i, sample)| {
                let row = cosines.row(i);
                let others = row[..sample].iter().chain(&row[sample + 1..]);
                f64::from(1.0 - others.copied().fold(f32::NEG_INFINITY, f32::max)).max(0.0)
            })
            .collect::<Vec<_>>()
    });
    blocks.concat()
}
