//! A limit for scores of good frames at a rate of false alarms that their number cannot promise.
//!
//! `n` good scores, none of which its model had learned, promise a rate of `1 / (n + 1)` or more and nothing below (conformal prediction). Below,
//! something must be assumed about how scores go on beyond the largest one, and the limit says what it was:
//!
//! - From [`TAIL_MIN`] scores on, their worst third is the start of an exponential tail. The k largest of n scores exceed the next one by
//!   independent exponential amounts of one mean (Rényi 1953), which is estimated by their own mean; a new score passes `start + m · mean` with
//!   the chance `(k + 1) / (n + 1) · (1 + m / k)^-k`, exactly, the error of the estimate included. `m` is where that is the rate.
//! - With fewer, their logarithms are taken as normal, and the spread of these as known beforehand to the extent of [`PRIOR_FREEDOM`]
//!   observations with a [`Spread`]: the predictive distribution of a new score is then Student's (Gelman et al., Bayesian Data Analysis,
//!   §3.3) with `n - 1 + PRIOR_FREEDOM` degrees of freedom.
//!
//! Neither limit is below the largest score, so that the promise of `1 / (n + 1)` stays whatever is true of the assumption.

use crate::anomaly::ThresholdSource;

/// Fewest scores for the fit of a tail.
const TAIL_MIN: usize = 12;
/// Standard deviation of the logarithms of scores that is assumed before any is seen.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Spread {
    /// Of surfaces: nearest-patch scores of good leather and commutators, each part left out in turn, have 0.1 to 0.4.
    Surface,
    /// Of whole frames, which also say how they were lit. Distances of commutators' frames from taught ones have 0.7; photos of leather taken at another
    /// time lie 6 to 22 times as far from the taught ones as these from each other, and frames of other things more than 100 times. 1.6 is what makes four
    /// taught photos allow for the former.
    Frame,
}

impl Spread {
    fn value(self) -> f64 {
        match self {
            Self::Surface => 0.35,
            Self::Frame => 1.6,
        }
    }
}

/// Number of observations that the assumption counts as.
const PRIOR_FREEDOM: usize = 3;
/// Scores below this share of the largest count as it: the logarithm of a frame that was taught twice would be minus infinity.
const SMALLEST: f64 = 1e-3;

/// The limit that a new score passes with a chance of at most `rate`, and what it rests on. `scores` rise, are not negative, and there is at
/// least one.
pub(crate) fn limit(scores: &[f64], rate: f64, spread: Spread) -> (f64, ThresholdSource) {
    let n = scores.len();
    let largest = scores[n - 1];
    // p <= rate with k of n + 1 ranks; the addition keeps 0.1 * 10 from being 0.99… ranks.
    let ranks = (rate * (n as f64 + 1.0) + 1e-9) as usize;
    if ranks >= 1 {
        return (scores[n - ranks.min(n)], ThresholdSource::Conformal);
    }
    let (value, source) = if n >= TAIL_MIN {
        (
            exponential_tail(scores, rate),
            ThresholdSource::TailExtrapolation,
        )
    } else {
        (
            log_normal(scores, rate, spread.value()),
            ThresholdSource::Prediction,
        )
    };
    if value > largest && value.is_finite() {
        (value, source)
    } else {
        (largest, ThresholdSource::Maximum)
    }
}

fn exponential_tail(scores: &[f64], rate: f64) -> f64 {
    let n = scores.len();
    let k = n / 3;
    let start = scores[n - 1 - k];
    let excess = scores[n - k..].iter().map(|s| s - start).sum::<f64>() / k as f64;
    let k = k as f64;
    let chance = (k + 1.0) / (n as f64 + 1.0);
    start + excess * k * ((chance / rate).powf(1.0 / k) - 1.0)
}

fn log_normal(scores: &[f64], rate: f64, spread: f64) -> f64 {
    let n = scores.len() as f64;
    let largest = scores[scores.len() - 1];
    if largest <= 0.0 {
        return largest;
    }
    let log = |score: &f64| score.max(SMALLEST * largest).ln();
    let mean = scores.iter().map(log).sum::<f64>() / n;
    let squares = scores.iter().map(|s| (log(s) - mean).powi(2)).sum::<f64>();
    let freedom = scores.len() - 1 + PRIOR_FREEDOM;
    let variance = (PRIOR_FREEDOM as f64 * spread * spread + squares) / freedom as f64;
    (mean + student_quantile(rate, freedom) * (variance * (1.0 + 1.0 / n)).sqrt()).exp()
}

/// The `t` that Student's variable with `freedom` degrees of freedom passes with the chance `rate`, 0 < `rate` <= ½, by bisection.
fn student_quantile(rate: f64, freedom: usize) -> f64 {
    let (mut low, mut high) = (0.0f64, 1.0f64);
    while student_tail(high, freedom) > rate && high < 1e12 {
        (low, high) = (high, 2.0 * high);
    }
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if student_tail(middle, freedom) > rate {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// Chance that Student's variable passes `t` >= 0 (Abramowitz and Stegun, 26.7.3 and 26.7.4).
fn student_tail(t: f64, freedom: usize) -> f64 {
    let root = (freedom as f64).sqrt();
    let angle = t.atan2(root);
    let (sin, cos) = angle.sin_cos();
    // Even: 1 + 1/2 cos² + (1·3)/(2·4) cos⁴ …; odd: cos + 2/3 cos³ + (2·4)/(3·5) cos⁵ …; the last power is freedom - 2.
    let odd = freedom % 2;
    let mut term = if odd == 1 { cos } else { 1.0 };
    let mut sum = 0.0;
    let mut power = odd;
    while power + 2 <= freedom {
        sum += term;
        term *= cos * cos * (power as f64 + 1.0) / (power as f64 + 2.0);
        power += 2;
    }
    let within = if odd == 1 {
        std::f64::consts::FRAC_2_PI * (angle + sin * sum)
    } else {
        sin * sum
    };
    0.5 * (1.0 - within)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    fn uniform(rng: &mut ChaCha8Rng) -> f64 {
        ((rng.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    fn normal(rng: &mut ChaCha8Rng) -> f64 {
        (-2.0 * uniform(rng).ln()).sqrt() * (std::f64::consts::TAU * uniform(rng)).cos()
    }

    /// Share of new scores above the limit of `n`, and the 4.5 standard deviations that counting leaves open.
    fn alarms(n: usize, rate: f64, seed: u8, draw: impl Fn(&mut ChaCha8Rng) -> f64) -> (f64, f64) {
        alarms_of(n, rate, seed, Spread::Surface, draw)
    }

    fn alarms_of(
        n: usize,
        rate: f64,
        seed: u8,
        spread: Spread,
        draw: impl Fn(&mut ChaCha8Rng) -> f64,
    ) -> (f64, f64) {
        let mut rng = ChaCha8Rng::from_seed([seed; 32]);
        let trials = 40_000;
        let mut count = 0;
        for _ in 0..trials {
            let mut scores: Vec<f64> = (0..n).map(|_| draw(&mut rng)).collect();
            scores.sort_by(f64::total_cmp);
            count += usize::from(draw(&mut rng) > limit(&scores, rate, spread).0);
        }
        let share = f64::from(count as u32) / f64::from(trials);
        (
            share,
            4.5 * (rate * (1.0 - rate) / f64::from(trials)).sqrt(),
        )
    }

    #[test]
    fn students_quantiles_are_those_of_the_tables() {
        for (freedom, rate, t) in [
            (1, 0.025, 12.7062),
            (2, 0.025, 4.30265),
            (3, 0.05, 2.35336),
            (4, 0.005, 4.60409),
            (7, 0.025, 2.36462),
            (12, 0.001, 3.92963),
            (13, 0.1, 1.35017),
        ] {
            let found = student_quantile(rate, freedom);
            assert!((found / t - 1.0).abs() < 1e-5, "{freedom} {rate}: {found}");
        }
        assert!(student_quantile(1e-9, 3) > 100.0);
    }

    /// Scores with exponential tails: the rate is kept exactly, but for the largest score, below which no limit lies.
    #[test]
    fn a_tail_keeps_the_rate_of_exponential_scores() {
        for (seed, n, rate) in [(1, 12, 0.01), (2, 20, 0.025), (3, 60, 0.002)] {
            let (share, band) = alarms(n, rate, seed, |rng| 3.0 - uniform(rng).ln());
            assert!(
                share <= rate + band && share >= 0.6 * rate - band,
                "{n} {rate}: {share}"
            );
        }
    }

    /// Log-normal scores with the spread that is assumed, less and twice that: with the first two the rate is kept whatever the number.
    /// The wider assumption holds for narrower scores too, and for distances of frames from several sessions.
    #[test]
    fn few_distances_keep_the_rate() {
        for (seed, n) in [(21u8, 2usize), (22, 4), (23, 8), (24, 11)] {
            for spread in [0.3, 0.7, 1.6] {
                let draw = |rng: &mut ChaCha8Rng| (spread * normal(rng) - 6.0).exp();
                let (share, band) = alarms_of(n, 0.025, seed, Spread::Frame, draw);
                assert!(share <= 0.025 + band, "{n} {spread}: {share}");
            }
        }
    }

    #[test]
    fn few_scores_keep_the_rate_if_their_spread_is_as_assumed() {
        for (seed, n) in [(4u8, 1usize), (5, 2), (6, 4), (7, 8), (8, 11)] {
            for (spread, factor) in [(0.35, 1.0), (0.15, 1.0), (0.7, 4.0)] {
                let rate = 0.025;
                let (share, band) = alarms(n, rate, seed, |rng| (spread * normal(rng) - 6.0).exp());
                assert!(share <= factor * rate + band, "{n} {spread}: {share}");
            }
        }
    }

    /// Whatever the scores are, the rate is at most `1 / (n + 1)`.
    #[test]
    fn the_floor_holds_without_assumptions() {
        for (seed, n) in [(9, 2usize), (10, 5), (11, 14)] {
            let heavy = |rng: &mut ChaCha8Rng| uniform(rng).powi(-4);
            let floor = 1.0 / (n as f64 + 1.0);
            let (share, _) = alarms(n, 0.02, seed, heavy);
            let band = 4.5 * (floor * (1.0 - floor) / 40_000.0).sqrt();
            assert!(share <= floor + band, "{n}: {share}");
        }
    }

    #[test]
    fn zeros_and_equal_scores_give_a_limit() {
        assert_eq!(
            limit(&[0.0, 0.0], 0.01, Spread::Surface),
            (0.0, ThresholdSource::Maximum)
        );
        assert_eq!(
            limit(&[2.0; 40], 1e-4, Spread::Surface),
            (2.0, ThresholdSource::Maximum)
        );
        let (value, source) = limit(&[0.0, 1.0, 1.0], 0.01, Spread::Surface);
        assert!(value > 1.0 && value.is_finite() && source == ThresholdSource::Prediction);
        // A larger rate, a lower limit.
        let limits: Vec<f64> = [0.01, 0.05, 0.1]
            .map(|rate| limit(&[1.0, 1.2, 1.5], rate, Spread::Surface).0)
            .into();
        assert!(limits.is_sorted_by(|a, b| a > b), "{limits:?}");
    }
}
