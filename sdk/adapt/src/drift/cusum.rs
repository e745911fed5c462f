//! CUSUM on p-values (Page 1954), with a limit for a wanted number of frames between false alarms.

use crate::error::AdaptError;

/// Mean of `-ln p` under the change that is looked for; 1 without a change.
const CHANGED_MEAN: f64 = 2.0;
/// Cells of the Markov chain that gives the limit.
const CELLS: usize = 120;

/// Sum of log-likelihood ratios of `-ln p`, exponential of mean 1 without a change, against mean 2, cut off at 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Cusum {
    level: f64,
    limit: f64,
    frames: u32,
}

impl Cusum {
    /// A chart that gives on average one false alarm in `run_length` frames if p-values are uniform, and fewer if they are larger, as
    /// conformal ones are. The limit is found with the Markov chain of Brook and Evans (1972) on 120 cells.
    ///
    /// # Errors
    ///
    /// A run length that is not from 10 to 1e9.
    pub fn new(run_length: f64) -> Result<Self, AdaptError> {
        if !(10.0..=1e9).contains(&run_length) {
            return Err(AdaptError::BadOption {
                name: "run_length",
                value: run_length.to_string(),
                range: "from 10 to 1e9 frames",
            });
        }
        // By Lorden (1971) the run length is at least e^limit, so the limit is at most its logarithm.
        let (mut low, mut high) = (0.01, run_length.ln());
        for _ in 0..40 {
            let middle = (low + high) / 2.0;
            if average_run_length(middle) < run_length {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(Self {
            level: 0.0,
            limit: high,
            frames: 0,
        })
    }

    /// Takes the next p-value; whether the chart is above its limit. A p-value that is no number counts as 1.
    pub fn push(&mut self, p_value: f64) -> bool {
        let p = if p_value.is_nan() {
            1.0
        } else {
            p_value.clamp(1e-12, 1.0)
        };
        self.step(gain(-p.ln()))
    }

    pub(super) fn step(&mut self, gain: f64) -> bool {
        self.level = (self.level + gain).max(0.0);
        self.frames = if self.level > 0.0 { self.frames + 1 } else { 0 };
        self.level > self.limit
    }

    /// A chart with another kind of gain and this limit.
    pub(super) fn with_limit(limit: f64) -> Self {
        Self {
            level: 0.0,
            limit,
            frames: 0,
        }
    }

    /// Level in units of the limit: above 1 is an alarm.
    pub fn level(&self) -> f64 {
        self.level / self.limit
    }

    /// Frames since the level was last 0: since the change, if there is one.
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// Back to 0.
    pub fn reset(&mut self) {
        self.level = 0.0;
        self.frames = 0;
    }
}

/// Log-likelihood ratio of `w = -ln p`.
fn gain(w: f64) -> f64 {
    w * (1.0 - 1.0 / CHANGED_MEAN) - CHANGED_MEAN.ln()
}

/// Probability that a gain is at most `t` when `w` is exponential of mean 1.
fn gain_below(t: f64) -> f64 {
    let w = (t + CHANGED_MEAN.ln()) / (1.0 - 1.0 / CHANGED_MEAN);
    if w > 0.0 { 1.0 - (-w).exp() } else { 0.0 }
}

/// Average number of frames until the level first passes `limit`, from 0.
fn average_run_length(limit: f64) -> f64 {
    let width = limit / CELLS as f64;
    // State 0 is the level 0, state i the middle of cell i - 1.
    let level = |state: usize| {
        if state == 0 {
            0.0
        } else {
            (state as f64 - 0.5) * width
        }
    };
    let n = CELLS + 1;
    let mut rows = vec![vec![0.0; n + 1]; n];
    for (from, row) in rows.iter_mut().enumerate() {
        let below = |to: f64| gain_below(to - level(from));
        row[0] = -below(0.0);
        for cell in 0..CELLS {
            row[cell + 1] = below(cell as f64 * width) - below((cell + 1) as f64 * width);
        }
        row[from] += 1.0;
        row[n] = 1.0;
    }
    // I - Q is diagonally dominant, so elimination needs no pivots.
    for pivot in (0..n).rev() {
        let (above, rest) = rows.split_at_mut(pivot);
        let solved = &mut rest[0];
        let scale = 1.0 / solved[pivot];
        solved.iter_mut().for_each(|v| *v *= scale);
        for row in above {
            let factor = row[pivot];
            for (v, s) in row.iter_mut().zip(solved.iter()) {
                *v -= factor * s;
            }
        }
    }
    rows[0][n]
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    fn uniform(rng: &mut ChaCha8Rng) -> f64 {
        ((rng.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    fn mean_run(runs: usize, length: f64, mut p: impl FnMut() -> f64) -> f64 {
        let mut chart = Cusum::new(length).unwrap();
        let mut frames = 0u64;
        for _ in 0..runs {
            chart.reset();
            loop {
                frames += 1;
                if chart.push(p()) {
                    break;
                }
            }
        }
        frames as f64 / runs as f64
    }

    /// Run lengths are nearly exponential, so that their mean over 2,000 runs has a standard error of 2.2 %; the chain's own error is 2 %.
    #[test]
    fn false_alarms_are_as_far_apart_as_designed() {
        for length in [100.0, 1000.0, 5000.0] {
            let mut rng = ChaCha8Rng::from_seed([5; 32]);
            let mean = mean_run(2000, length, || uniform(&mut rng));
            assert!((mean / length - 1.0).abs() < 0.09, "{mean} for {length}");
        }
    }

    #[test]
    fn conformal_p_values_of_few_frames_give_fewer_alarms() {
        let mut rng = ChaCha8Rng::from_seed([6; 32]);
        let mean = mean_run(200, 1000.0, || (uniform(&mut rng) * 10.0).ceil() / 10.0);
        assert!(mean > 1000.0, "{mean}");
    }

    #[test]
    fn a_change_is_found_soon_and_the_limit_rises_with_the_run_length() {
        let mut rng = ChaCha8Rng::from_seed([7; 32]);
        let mean = mean_run(500, 10_000.0, || uniform(&mut rng).powi(4));
        assert!(mean < 12.0, "{mean}");
        let limits = [10.0, 1e3, 1e6, 1e9].map(|l| Cusum::new(l).unwrap().limit);
        assert!(limits.windows(2).all(|w| w[0] < w[1]), "{limits:?}");
        for bad in [9.0, 2e9, f64::NAN] {
            assert!(Cusum::new(bad).is_err());
        }
    }

    #[test]
    fn frames_since_the_change_are_counted() {
        let mut chart = Cusum::new(1000.0).unwrap();
        for p in [0.9, 0.8, f64::NAN, 1.0] {
            assert!(!chart.push(p));
        }
        assert_eq!((chart.frames(), chart.level()), (0, 0.0));
        while !chart.push(0.01) {}
        assert!(chart.frames() >= 3 && chart.level() > 1.0);
    }
}
