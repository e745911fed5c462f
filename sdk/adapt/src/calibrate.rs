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
/// As Platt (1999) the targets leave something for what was not seen: `(n + ½) / (n + 1)` for the true class, the rest for the best other one.
/// Without that T would go to 0 as soon as every sample is right, and a job of six frames would claim certainty. The rest is not for all other classes alike:
/// a head takes a frame for the next class, not for the farthest, whose scores would decide T. The loss is convex in
/// `1 / T`: Newton's method, kept inside a bracket, finds its minimum. T stays between 10⁻⁴ and 10⁴ times the largest range of scores in a row.
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
    let miss = 0.5 / (n + 1) as f64;
    let (mut low, mut high) = (1e-4 / range, 1e4 / range);
    let mut inverse = low;
    let mut loss = f64::INFINITY;
    for step in 0..60 {
        let blocks = blocks::map(rows.len(), |block| {
            let terms = rows[block]
                .iter()
                .map(|(row, label)| loss_terms(row, *label, inverse, miss));
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

/// One sample's loss and its first two derivatives with respect to `inverse` = 1 / T; `miss` is the target of the best other class.
fn loss_terms(row: &[f64], label: usize, inverse: f64, miss: f64) -> [f64; 3] {
    let others = row.iter().enumerate().filter(|(class, _)| *class != label);
    let other = others
        .map(|(_, score)| *score)
        .fold(f64::NEG_INFINITY, f64::max);
    let max = other.max(row[label]);
    let (mut sum, mut first, mut second) = (0.0, 0.0, 0.0);
    for score in row {
        let below = score - max;
        // Smaller terms vanish in a sum that is at least 1.
        if below * inverse > -45.0 {
            let weight = (below * inverse).exp();
            sum += weight;
            first += weight * below;
            second += weight * below * below;
        }
    }
    let (mean, square) = (first / sum, second / sum);
    let target = (1.0 - miss) * (row[label] - max) + miss * (other - max);
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
        let classes = labels.iter().max().unwrap() + 1;
        Support::new(vec![&[1.0f32]; labels.len()], labels.to_vec(), classes).unwrap()
    }

    /// Negative log-likelihood with targets for the true class and the best other one, written out on its own.
    fn loss(scores: &[f64], labels: &[usize], temperature: f64) -> f64 {
        let n = labels.len() as f64;
        let row = |(row, &label): (&[f64], &usize)| {
            let total: f64 = row.iter().map(|s| (s / temperature).exp()).sum();
            let log = |c: usize| row[c] / temperature - total.ln();
            let mut order: Vec<usize> = (0..row.len()).filter(|&c| c != label).collect();
            order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
            -(n + 0.5) / (n + 1.0) * log(label) - 0.5 / (n + 1.0) * log(order[0])
        };
        scores
            .chunks(scores.len() / labels.len())
            .zip(labels)
            .map(row)
            .sum()
    }

    #[test]
    fn temperature_is_where_a_fine_scan_finds_the_minimum() {
        let two = [0.9, 0.2, 0.7, 0.1, 0.4, 0.5, 0.0, 0.8, 0.3, 0.6, 0.55, 0.45];
        let three = [
            0.9, 0.2, -7.0, 0.1, 0.4, -5.0, 0.0, -9.0, 0.8, 0.3, 0.6, -6.0, -4.0, 0.1, 0.5, 0.2,
            0.0, 0.7,
        ];
        for (scores, labels) in [
            (&two[..], [0, 0, 0, 1, 1, 1]),
            (&three[..], [0, 0, 2, 1, 1, 2]),
        ] {
            let found = calibrate(scores, &support_of(&labels)).unwrap().temperature;
            let scan = (0..40_000).map(|i| 0.01 * 1.0002f64.powi(i));
            let best = scan
                .min_by(|a, b| loss(scores, &labels, *a).total_cmp(&loss(scores, &labels, *b)))
                .unwrap();
            assert!((found / best - 1.0).abs() < 1e-3, "{found} against {best}");
        }
    }

    #[test]
    fn perfect_scores_do_not_give_certainty() {
        let labels = [0, 0, 1, 1];
        let scores = [1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0];
        let found = calibrate(&scores, &support_of(&labels))
            .unwrap()
            .temperature;
        // All rows alike: the likelihood is at its maximum where softmax gives the target 9/10.
        assert!((softmax(&[1.0, 0.0], found)[0] - 0.9).abs() < 1e-6);
    }

    #[test]
    fn a_class_far_from_all_others_changes_nothing() {
        let labels = [0, 0, 1, 1, 2, 2];
        let row = |label: usize, far: f64| match label {
            0 => [1.0, 0.0, -far],
            1 => [0.0, 1.0, -far],
            _ => [-far, 1.0 - far, 2.0 - far],
        };
        let temperature = |far: f64| {
            let scores: Vec<f64> = labels.iter().flat_map(|&label| row(label, far)).collect();
            calibrate(&scores, &support_of(&labels))
                .unwrap()
                .temperature
        };
        let (near, far) = (temperature(100.0), temperature(1000.0));
        assert!((near / far - 1.0).abs() < 1e-3, "{near} {far}");
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
