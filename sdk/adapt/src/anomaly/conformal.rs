//! What a score means when only scores of good frames are known: conformal p-values and thresholds for an allowed false-alarm rate.

use crate::error::AdaptError;
use crate::extrapolate::{Spread, limit};
use serde::{Deserialize, Serialize};

/// Scores of good frames that were not learned when they were scored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conformal {
    /// Rising.
    scores: Vec<f64>,
}

/// Where a threshold comes from, and so what it promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ThresholdSource {
    /// A rank of the good scores: the rate is kept if good frames to come are like those that were scored.
    Conformal,
    /// The rate is below `1 / (n + 1)`, which `n` good frames cannot promise; an exponential tail was fitted to the worst third of them.
    TailExtrapolation,
    /// The largest good score, where an extrapolation would lie below it.
    Maximum,
    /// The rate is below `1 / (n + 1)`, and there are too few frames to fit a tail: scores are taken as log-normal, and their spread as known in part
    /// beforehand.
    Prediction,
}

/// A limit that good scores seldom pass.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    /// Scores above it are alarms.
    pub value: f64,
    /// False-alarm rate asked for.
    pub rate: f64,
    /// What the value rests on.
    pub source: ThresholdSource,
}

impl Conformal {
    /// Takes scores in any order.
    ///
    /// # Errors
    ///
    /// No score, or one that is not finite.
    pub fn new(mut scores: Vec<f64>) -> Result<Self, AdaptError> {
        if scores.is_empty() {
            return Err(AdaptError::NoGoodFrame);
        }
        if let Some(index) = scores.iter().position(|score| !score.is_finite()) {
            return Err(AdaptError::NotFinite {
                what: "scores of good frames".into(),
                index,
                value: scores[index] as f32,
            });
        }
        scores.sort_by(f64::total_cmp);
        Ok(Self { scores })
    }

    pub(crate) fn is_whole(&self) -> bool {
        let rising = self.scores.is_sorted_by(|a, b| a <= b);
        rising && !self.scores.is_empty() && self.scores.iter().all(|s| s.is_finite())
    }

    /// Number of good scores.
    pub fn len(&self) -> usize {
        self.scores.len()
    }

    /// Never: there is at least one score.
    pub fn is_empty(&self) -> bool {
        self.scores.is_empty()
    }

    /// The good scores, rising.
    pub fn scores(&self) -> &[f64] {
        &self.scores
    }

    /// Smallest p-value that can be given, `1 / (n + 1)`: no lower false-alarm rate can be promised.
    pub fn floor(&self) -> f64 {
        1.0 / (self.len() as f64 + 1.0)
    }

    /// `(1 + #{s_i >= score}) / (n + 1)` (Vovk, Gammerman and Shafer 2005): at most α with probability α or less, for a good frame that is
    /// exchangeable with the `n` scored ones.
    pub fn p_value(&self, score: f64) -> f64 {
        let below = self.scores.partition_point(|s| *s < score);
        (1 + self.len() - below) as f64 * self.floor()
    }

    /// The threshold for an allowed rate of false alarms. From [`Conformal::floor`] upwards, scores above it are those with a p-value of at
    /// most `rate`; below, [`ThresholdSource`] says what was done.
    ///
    /// # Errors
    ///
    /// A rate that is not above 0 and below 1.
    pub fn threshold(&self, rate: f64) -> Result<Threshold, AdaptError> {
        if !(rate > 0.0 && rate < 1.0) {
            return Err(AdaptError::BadOption {
                name: "false-alarm rate",
                value: rate.to_string(),
                range: "above 0 and below 1",
            });
        }
        let (value, source) = limit(&self.scores, rate, Spread::Surface);
        Ok(Threshold {
            value,
            rate,
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    fn uniform(rng: &mut ChaCha8Rng) -> f64 {
        (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    #[test]
    fn p_values_count_the_scores_that_are_as_large() {
        let good = Conformal::new(vec![3.0, 1.0, 2.0, 2.0]).unwrap();
        for (score, p) in [
            (0.5, 1.0),
            (1.0, 1.0),
            (1.5, 0.8),
            (2.0, 0.8),
            (2.5, 0.4),
            (3.0, 0.4),
            (3.1, 0.2),
        ] {
            assert!((good.p_value(score) - p).abs() < 1e-12, "{score}");
        }
        assert_eq!(good.floor(), 0.2);
    }

    #[test]
    fn a_threshold_is_where_the_p_value_passes_the_rate() {
        let mut rng = ChaCha8Rng::from_seed([1; 32]);
        for n in [1, 4, 9, 19, 50] {
            let good = Conformal::new((0..n).map(|_| uniform(&mut rng)).collect()).unwrap();
            for percent in 1..100 {
                let rate = f64::from(percent) / 100.0;
                let threshold = good.threshold(rate).unwrap();
                if threshold.source != ThresholdSource::Conformal {
                    assert!(rate < good.floor());
                    assert!(threshold.value >= good.scores()[n - 1]);
                    continue;
                }
                for step in 0..=200 {
                    let score = f64::from(step) / 200.0;
                    assert_eq!(
                        score > threshold.value,
                        good.p_value(score) <= rate + 1e-9,
                        "{n} {rate} {score}"
                    );
                }
            }
        }
        let good = Conformal::new(vec![1.0]).unwrap();
        for rate in [0.0, 1.0, -0.1, f64::NAN] {
            assert!(good.threshold(rate).is_err());
        }
    }

    /// With continuous scores the rate of alarms is exactly `floor(rate (n + 1)) / (n + 1)`, so the count over independent trials is
    /// binomial. The band is 4.5 standard deviations.
    #[test]
    fn the_false_alarm_rate_is_the_promised_one() {
        let mut rng = ChaCha8Rng::from_seed([2; 32]);
        for (n, rate) in [(9, 0.1), (19, 0.05), (8, 0.25), (30, 0.1)] {
            let trials = 20_000;
            let mut alarms = 0;
            for _ in 0..trials {
                let good =
                    Conformal::new((0..n).map(|_| uniform(&mut rng).ln()).collect()).unwrap();
                let threshold = good.threshold(rate).unwrap();
                alarms += usize::from(uniform(&mut rng).ln() > threshold.value);
            }
            let expected = ((n + 1) as f64 * rate + 1e-9).floor() / (n + 1) as f64;
            let deviation = (trials as f64 * expected * (1.0 - expected)).sqrt();
            assert!(
                (alarms as f64 - trials as f64 * expected).abs() < 4.5 * deviation,
                "{n} {rate}: {alarms}"
            );
            assert!(expected <= rate + 1e-12);
        }
    }

    #[test]
    fn below_the_floor_a_threshold_is_extrapolated_and_said_to_be() {
        let source = |n: usize, rate| {
            let scores = (0..n).map(|i| 1.0 + (i as f64 / 7.0).sin().abs()).collect();
            let threshold = Conformal::new(scores).unwrap().threshold(rate).unwrap();
            (threshold.source, threshold.value)
        };
        assert_eq!(source(60, 0.001).0, ThresholdSource::TailExtrapolation);
        assert_eq!(source(3, 0.01).0, ThresholdSource::Prediction);
        assert!(source(3, 0.01).1 > source(3, 0.2).1 && source(3, 0.2).1 > source(3, 0.3).1);
        assert_eq!(source(3, 0.25).0, ThresholdSource::Conformal);
    }

    #[test]
    fn scores_must_be_finite_and_there() {
        assert!(matches!(
            Conformal::new(vec![]),
            Err(AdaptError::NoGoodFrame)
        ));
        assert!(matches!(
            Conformal::new(vec![1.0, f64::NAN]),
            Err(AdaptError::NotFinite { index: 1, .. })
        ));
    }
}
