//! Temperature of the scores from their leave-one-out likelihood.

use crate::blocks;
use crate::support::Support;

/// `softmax(scores / temperature)`.
pub(crate) fn softmax(scores: &[f64], temperature: f64) -> Vec<f64> {
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exps: Vec<f64> = scores
        .iter()
        .map(|s| ((s - max) / temperature).exp())
        .collect();
    let sum: f64 = exps.iter().sum();
    exps.iter().map(|e| e / sum).collect()
}

/// Temperature of a head's scores.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Calibration {
    pub(crate) temperature: f64,
    /// Negative log-likelihood at it.
    pub(crate) loss: f64,
}

/// The temperature that maximises the likelihood of the labels under `softmax(scores / T)`, `scores` `[N, C]` being leave-one-out scores,
/// over the `n` samples whose class has another one; `None` when there are none, or when their scores are all the same.
///
/// The targets are Platt's (1999): `(n + 1) / (n + 2)` for the true class, the rest shared by the others. Without them T would go to 0 as soon
/// as every sample is right, and a job of six frames would claim certainty. The loss is convex in `1 / T`: Newton's method, kept inside a
/// bracket, finds its minimum. T stays between 10⁻⁴ and 10⁴ times the largest range of scores in a row.
pub(crate) fn calibrate(scores: &[f64], support: &Support) -> Option<Calibration> {
    let n_classes = support.n_classes();
    let n = support.n_evaluable();
    let rows: Vec<(&[f64], usize)> = scores
        .chunks_exact(n_classes)
        .zip(support.labels())
        .enumerate()
        .filter(|(i, _)| support.evaluable(*i))
        .map(|(_, (row, &label))| (row, label))
        .collect();
    let range = rows.iter().map(|(row, _)| spread(row)).fold(0.0, f64::max);
    if rows.is_empty() || range == 0.0 {
        return None;
    }
    let hit = (n + 1) as f64 / (n + 2) as f64;
    let miss = (1.0 - hit) / (n_classes - 1) as f64;
    let (mut low, mut high) = (1e-4 / range, 1e4 / range);
    let mut inverse = low;
    let mut loss = f64::INFINITY;
    for step in 0..60 {
        let blocks = blocks::map(rows.len(), |block| {
            let terms = rows[block]
                .iter()
                .map(|(row, label)| loss_terms(row, *label, inverse, hit, miss));
            terms.fold([0.0; 3], add)
        });
        let [value, slope, curvature] = blocks.into_iter().fold([0.0; 3], add);
        loss = value;
        if slope < 0.0 {
            low = inverse;
        } else if step == 0 {
            break;
        } else {
            high = inverse;
        }
        let newton = inverse - slope / curvature;
        let next = if newton > low && newton < high {
            newton
        } else {
            (low * high).sqrt()
        };
        // Newton's error after a step is of the order of the square of the step.
        let done = (next - inverse).abs() <= 1e-6 * inverse;
        inverse = next;
        if done {
            break;
        }
    }
    Some(Calibration {
        temperature: 1.0 / inverse,
        loss,
    })
}

fn add(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

/// One sample's loss and its first two derivatives with respect to `inverse` = 1 / T.
fn loss_terms(row: &[f64], label: usize, inverse: f64, hit: f64, miss: f64) -> [f64; 3] {
    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let (mut sum, mut first, mut second, mut total) = (0.0, 0.0, 0.0, 0.0);
    for score in row {
        let below = score - max;
        total += below;
        // Smaller terms vanish in a sum that is at least 1.
        if below * inverse > -45.0 {
            let weight = (below * inverse).exp();
            sum += weight;
            first += weight * below;
            second += weight * below * below;
        }
    }
    let (mean, square) = (first / sum, second / sum);
    let target = miss * total + (hit - miss) * (row[label] - max);
    [
        sum.ln() - inverse * target,
        mean - target,
        square - mean * mean,
    ]
}

fn spread(row: &[f64]) -> f64 {
    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let min = row.iter().copied().fold(f64::INFINITY, f64::min);
    max - min
}

#[cfg(test)]
mod tests {
    use super::*;

    fn support_of(labels: &[usize]) -> Support<'static> {
        Support::new(vec![&[1.0f32]; labels.len()], labels.to_vec(), 2).unwrap()
    }

    /// Negative log-likelihood with Platt's targets, written out on its own.
    fn loss(scores: &[f64], labels: &[usize], temperature: f64) -> f64 {
        let n = labels.len() as f64;
        let target = [(n + 1.0) / (n + 2.0), 1.0 / (n + 2.0)];
        let row = |(row, &label): (&[f64], &usize)| {
            let total: f64 = row.iter().map(|s| (s / temperature).exp()).sum();
            let log = |c: usize| (row[c] / temperature).exp().ln() - total.ln();
            -target[0] * log(label) - target[1] * log(1 - label)
        };
        scores.chunks(2).zip(labels).map(row).sum()
    }

    #[test]
    fn temperature_is_where_a_fine_scan_finds_the_minimum() {
        let labels = [0, 0, 0, 1, 1, 1];
        let scores = [0.9, 0.2, 0.7, 0.1, 0.4, 0.5, 0.0, 0.8, 0.3, 0.6, 0.55, 0.45];
        let found = calibrate(&scores, &support_of(&labels))
            .unwrap()
            .temperature;
        let scan = (0..40_000).map(|i| 0.01 * 1.0002f64.powi(i));
        let best = scan
            .min_by(|a, b| loss(&scores, &labels, *a).total_cmp(&loss(&scores, &labels, *b)))
            .unwrap();
        assert!((found / best - 1.0).abs() < 1e-3, "{found} against {best}");
    }

    #[test]
    fn perfect_scores_do_not_give_certainty() {
        let labels = [0, 0, 1, 1];
        let scores = [1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0];
        let found = calibrate(&scores, &support_of(&labels))
            .unwrap()
            .temperature;
        // All rows alike: the likelihood is at its maximum where softmax gives the target 5/6.
        assert!((softmax(&[1.0, 0.0], found)[0] - 5.0 / 6.0).abs() < 1e-6);
    }

    #[test]
    fn scores_worse_than_chance_give_no_preference() {
        let labels = [0, 0, 1, 1];
        let scores = [0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0];
        let found = calibrate(&scores, &support_of(&labels))
            .unwrap()
            .temperature;
        assert!((softmax(&[1.0, 0.0], found)[0] - 0.5).abs() < 1e-3);
    }

    #[test]
    fn single_samples_say_nothing() {
        assert_eq!(calibrate(&[1.0, 0.0, 0.0, 1.0], &support_of(&[0, 1])), None);
    }
}
