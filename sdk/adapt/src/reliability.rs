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
