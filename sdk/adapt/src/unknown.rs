//! When a frame is unlike everything that was taught.
//!
//! The distance of a frame is `1 - cos` to the nearest sample of any class, in what the head sees of it (parts scaled to vary alike over the
//! samples, which is what makes it tell). For each taught sample whose class has another one the same is computed with the sample itself left
//! out; call these `d_1 … d_n`. Were a new frame of the taught kinds exchangeable with them, `p = (1 + #{d_i ≥ d}) / (n + 1)` would be at most
//! `rate` with a chance of at most `rate` (split conformal prediction; with leave-one-out distances it holds approximately). A frame whose
//! distance exceeds the k-th smallest of them, `k = ⌈(n + 1)(1 - rate)⌉`, is unknown.
//!
//! With few samples, `n + 1 < 1 / rate`, no rank can promise the rate. The threshold is then extrapolated beyond the largest distance
//! ([`UnknownRule::source`] says how), and what is certain is no more than the floor `1 / (n + 1)` ([`UnknownRule::promised`]). Where no class has
//! two samples there is no threshold: nothing is unknown.
//!
//! A job of more samples leaves [`MOST`] of them out, evenly spread in the order in which they were taught; the distance is still to all others.
//!
//! Confidence and energy of the head's scores are not used: on textures they tell less than a coin does (`eval openset` measures the distance).

use crate::anomaly::ThresholdSource;
use crate::blocks;
use crate::error::AdaptError;
use crate::extrapolate::{Spread, limit};
use crate::linalg::Matrix;
use crate::support::Support;
use serde::{Deserialize, Serialize};

/// Leave-one-out distances beyond this number would take longer and hardly move the threshold.
const MOST: usize = 8192;
/// Cosines computed in `f32` and `f64` differ by less than this.
const ROUNDING: f64 = 1e-6;

/// The distance beyond which a frame is unknown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnknownRule {
    /// Share of frames of the taught kinds that may be called unknown: what was asked for, or half of it where the job looks at surfaces too
    /// ([`FitOptions::unknown_rate`](crate::FitOptions::unknown_rate)); 0 turns the flag off.
    pub rate: f64,
    /// Share that the threshold promises whatever distances are like: the rate, or the floor `1 / (n + 1)` where that is larger; `None` without a
    /// threshold.
    pub promised: Option<f64>,
    /// The threshold; `None` where nothing can be left out, or the flag is off.
    pub threshold: Option<f64>,
    /// Leave-one-out distances, rising.
    pub(crate) distances: Vec<f64>,
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
        let on = rate > 0.0 && n > 0;
        Ok(Self {
            rate,
            promised: on.then(|| rate.max(1.0 / (n + 1) as f64)),
            threshold: on.then(|| limit(&distances, rate, Spread::Frame).0),
            distances,
        })
    }

    /// What the threshold rests on; `None` without one.
    pub fn source(&self) -> Option<ThresholdSource> {
        let threshold = self.threshold?;
        let (value, source) = limit(&self.distances, self.rate, Spread::Frame);
        // Rules in older files stop at the largest distance.
        Some(if value == threshold {
            source
        } else {
            ThresholdSource::Maximum
        })
    }

    /// Number n of leave-one-out distances.
    pub fn n(&self) -> usize {
        self.distances.len()
    }

    /// Whether a frame at this distance from its nearest sample is unknown.
    pub fn is_unknown(&self, distance: f64) -> bool {
        self.threshold
            .is_some_and(|threshold| distance > threshold + ROUNDING)
    }

    /// `(1 + #{d_i ≥ d}) / (n + 1)`: small for a frame unlike what was taught, never below `1 / (n + 1)`.
    pub fn p_value(&self, distance: f64) -> f64 {
        let below = self.distances.partition_point(|d| *d < distance - ROUNDING);
        (1 + self.n() - below) as f64 / (self.n() + 1) as f64
    }

    /// Whether the numbers are ones that [`Self::new`] gives.
    pub(crate) fn is_sound(&self) -> bool {
        let finite = |x: Option<f64>| x.is_none_or(f64::is_finite);
        self.distances.iter().all(|d| d.is_finite())
            && self.distances.is_sorted()
            && finite(self.threshold)
            && finite(self.promised)
    }
}

/// Distance `1 - cos` of each sample to the nearest other one of any class, for the samples whose class has another one.
///
/// Cost: N² D multiply-adds; memory: 256 N numbers for each thread.
pub fn leave_one_out_distances(support: &Support) -> Vec<f64> {
    let all: Vec<usize> = (0..support.len())
        .filter(|&i| support.evaluable(i))
        .collect();
    nearest_others(&support.normalised(), &all)
}

/// The same for rows of norm 1 and those that `counts`, but of no more than [`MOST`] of them.
pub(crate) fn some_nearest_others(unit: &Matrix<f32>, counts: impl Fn(usize) -> bool) -> Vec<f64> {
    let all: Vec<usize> = (0..unit.rows).filter(|&i| counts(i)).collect();
    let n = all.len().min(MOST);
    let some: Vec<usize> = (0..n).map(|i| all[i * all.len() / n]).collect();
    nearest_others(unit, &some)
}

fn nearest_others(unit: &Matrix<f32>, samples: &[usize]) -> Vec<f64> {
    let blocks = blocks::map(samples.len(), |block| {
        let samples = &samples[block];
        let cosines = unit
            .picked(samples.iter().copied())
            .rows_times_transposed(0..samples.len(), unit);
        samples
            .iter()
            .enumerate()
            .map(|(i, &sample)| {
                let row = cosines.row(i);
                let others = row[..sample].iter().chain(&row[sample + 1..]);
                f64::from(1.0 - others.copied().fold(f32::NEG_INFINITY, f32::max)).max(0.0)
            })
            .collect::<Vec<_>>()
    });
    blocks.concat()
}
