//! How far shares and probabilities can be believed.

use serde::{Deserialize, Serialize};

/// Bins of confidence in the calibration error.
const BINS: usize = 10;
/// Two-sided 95 % of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// How well probabilities agree with what is true.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reliability {
    /// Expected calibration error (Guo et al. 2017): mean difference between confidence and share of right answers, over ten bins of equal width,
    /// weighted by their counts. 0 is best. With few samples it is mostly noise.
    pub ece: f64,
    /// Brier score: mean of `Σ_c (p_c - y_c)²`, 0 (best) to 2.
    pub brier: f64,
}

impl Reliability {
    /// Of probabilities with the true class of each; `None` without any.
    pub fn of(probabilities: impl IntoIterator<Item = (Vec<f64>, usize)>) -> Option<Self> {
        let mut n = 0.0;
        let mut bins = [(0.0f64, 0.0f64); BINS];
        let mut brier = 0.0;
        for (p, label) in probabilities {
            n += 1.0;
            let best = crate::fitted::argmax(&p);
            let bin = ((p[best] * BINS as f64) as usize).min(BINS - 1);
            bins[bin].0 += p[best];
            bins[bin].1 += f64::from(u8::from(best == label));
            let terms = p.iter().enumerate();
            brier += terms
                .map(|(c, p)| (p - f64::from(u8::from(c == label))).powi(2))
                .sum::<f64>();
        }
        // count · |mean confidence - share right| is the difference of the sums.
        let ece = bins
            .iter()
            .map(|(sum, hits)| (sum - hits).abs())
            .sum::<f64>()
            / n;
        (n > 0.0).then_some(Self {
            ece,
            brier: brier / n,
        })
    }
}

/// 95 % score interval of a share of `hits` among `n` > 0 (Wilson 1927).
pub fn wilson(hits: f64, n: f64) -> (f64, f64) {
    let share = hits / n;
    let z2 = Z * Z / n;
    let middle = (share + 0.5 * z2) / (1.0 + z2);
    let half = Z / (1.0 + z2) * (share * (1.0 - share) / n + z2 / (4.0 * n)).sqrt();
    // At 0 and 1 the share is an end, but for rounding.
    let (low, high) = (middle - half, middle + half);
    (low.clamp(0.0, share), high.clamp(share, 1.0))
}

/// Shares of `n` >= 1 independent trials of chance `rate` between which the share of hits lies with a probability of at least 95 %: the 2.5 % and the
/// 97.5 % quantile of the binomial distribution, over `n`.
pub fn binomial_band(rate: f64, n: usize) -> (f64, f64) {
    let rate = rate.clamp(0.0, 1.0);
    // The largest term is 1 before the sum is known; the others follow from it by the ratio of neighbours.
    let mode = ((n as f64 + 1.0) * rate).min(n as f64) as usize;
    let odds = rate / (1.0 - rate);
    let mut terms = vec![0.0; n + 1];
    terms[mode] = 1.0;
    for k in mode..n {
        terms[k + 1] = terms[k] * odds * (n - k) as f64 / (k + 1) as f64;
    }
    for k in (0..mode).rev() {
        terms[k] = terms[k + 1] * (k + 1) as f64 / ((n - k) as f64 * odds);
    }
    let all: f64 = terms.iter().sum();
    let quantile = |share: f64| {
        let mut sum = 0.0;
        let reached = terms.iter().position(|term| {
            sum += term;
            sum >= share * all
        });
        reached.unwrap_or(n) as f64 / n as f64
    };
    (quantile(0.025), quantile(0.975))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilsons_interval_solves_its_equation() {
        // The ends are the shares p for which |hits/n - p| = z √(p (1 - p) / n).
        for (hits, n) in [(0.0, 5.0), (3.0, 7.0), (10.0, 10.0), (81.0, 263.0)] {
            let (low, high) = wilson(hits, n);
            for p in [low, high]
                .into_iter()
                .filter(|p| *p > 1e-12 && *p < 1.0 - 1e-12)
            {
                let z = (hits / n - p).abs() / (p * (1.0 - p) / n).sqrt();
                assert!((z - Z).abs() < 1e-9, "{hits} of {n}: {p}");
            }
            assert!(low <= hits / n && hits / n <= high);
        }
    }

    #[test]
    fn the_band_holds_95_of_100_counts() {
        // Binomial(10, 0.3): P(X <= 0) = 0.0282, P(X <= 5) = 0.9527, P(X <= 6) = 0.9894
        assert_eq!(binomial_band(0.3, 10), (0.0, 0.6));
        // Binomial(100, 0.05): P(X <= 0) = 0.0059, P(X <= 1) = 0.0371, P(X <= 9) = 0.9718, P(X <= 10) = 0.9885
        assert_eq!(binomial_band(0.05, 100), (0.01, 0.1));
        assert_eq!(binomial_band(0.0, 7), (0.0, 0.0));
        assert_eq!(binomial_band(1.0, 7), (1.0, 1.0));
        let (low, high) = binomial_band(0.1, 100_000);
        let half = 1.96 * (0.09f64 / 1e5).sqrt();
        assert!((low - 0.1 + half).abs() < 1e-4 && (high - 0.1 - half).abs() < 1e-4);
    }

    #[test]
    fn calibration_error_and_brier_score_by_hand() {
        let sure = |p: f64| vec![p, 1.0 - p];
        // bin 9: 0.95 and 0.91, one right; bin 6: 0.65, right
        let of = [(sure(0.95), 0), (sure(0.91), 1), (sure(0.65), 0)];
        let found = Reliability::of(of).unwrap();
        let ece = ((0.95 + 0.91 - 1.0) + (1.0 - 0.65)) / 3.0;
        let brier = 2.0 * (0.05f64.powi(2) + 0.91f64.powi(2) + 0.35f64.powi(2)) / 3.0;
        assert!((found.ece - ece).abs() < 1e-12 && (found.brier - brier).abs() < 1e-12);
        assert_eq!(Reliability::of([]), None);
    }
}
