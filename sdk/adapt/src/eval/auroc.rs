//! Area under the ROC curve, and how far it may be from that of all images.

/// Probability that a positive scores above a negative, ties counted half (mid-ranks; Mann and Whitney 1947). `None` without both kinds.
///
/// # Panics
/// If the lengths differ or a score is NaN.
pub fn auroc(scores: &[f64], positive: &[bool]) -> Option<f64> {
    let ranks = mid_ranks(scores);
    assert_eq!(scores.len(), positive.len(), "one label for each score");
    let (n, m) = counts(positive)?;
    let sum: f64 = ranks
        .iter()
        .zip(positive)
        .filter(|(_, p)| **p)
        .map(|(r, _)| r)
        .sum();
    Some((sum - n * (n + 1.0) / 2.0) / (n * m))
}

/// Standard error of [`auroc`] over images (DeLong, DeLong and Clarke-Pearson 1988, with mid-ranks after Sun and Xu 2014); `None` with
/// fewer than two of either kind.
///
/// # Panics
/// As [`auroc`].
pub fn auroc_standard_error(scores: &[f64], positive: &[bool]) -> Option<f64> {
    let all = mid_ranks(scores);
    assert_eq!(scores.len(), positive.len(), "one label for each score");
    let (n, m) = counts(positive)?;
    if n < 2.0 || m < 2.0 {
        return None;
    }
    // The share of the other kind that a score lies above (or below): its rank among all less that among its own.
    let variance = |kind: bool, others: f64| {
        let own: Vec<usize> = (0..scores.len()).filter(|&i| positive[i] == kind).collect();
        let ranks = mid_ranks(&own.iter().map(|&i| scores[i]).collect::<Vec<_>>());
        let share: Vec<f64> = own
            .iter()
            .zip(&ranks)
            .map(|(&i, r)| (all[i] - r) / others)
            .collect();
        let count = share.len() as f64;
        let mean = share.iter().sum::<f64>() / count;
        share.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / (count - 1.0) / count
    };
    Some((variance(true, m) + variance(false, n)).sqrt())
}

fn counts(positive: &[bool]) -> Option<(f64, f64)> {
    let n = positive.iter().filter(|p| **p).count();
    let m = positive.len() - n;
    (n > 0 && m > 0).then_some((n as f64, m as f64))
}

/// Rank of each score from 1; equal scores share the mean of their ranks.
fn mid_ranks(scores: &[f64]) -> Vec<f64> {
    assert!(scores.iter().all(|s| !s.is_nan()), "scores are numbers");
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let mut ranks = vec![0.0; scores.len()];
    let mut first = 0;
    for tied in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        for &i in tied {
            ranks[i] = first as f64 + (tied.len() as f64 + 1.0) / 2.0;
        }
        first += tied.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive(scores: &[f64], positive: &[bool]) -> Option<f64> {
        let (mut sum, mut pairs) = (0.0, 0.0);
        for (_, a) in scores.iter().enumerate().filter(|(i, _)| positive[*i]) {
            for (_, b) in scores.iter().enumerate().filter(|(j, _)| !positive[*j]) {
                sum += if a > b {
                    1.0
                } else if a == b {
                    0.5
                } else {
                    0.0
                };
                pairs += 1.0;
            }
        }
        (pairs > 0.0).then(|| sum / pairs)
    }

    proptest! {
        #[test]
        fn it_is_the_share_of_pairs_in_order(rows in prop::collection::vec((0u8..12, any::<bool>()), 0..60)) {
            let scores: Vec<f64> = rows.iter().map(|r| f64::from(r.0) - 3.0).collect();
            let positive: Vec<bool> = rows.iter().map(|r| r.1).collect();
            match (auroc(&scores, &positive), naive(&scores, &positive)) {
                (Some(a), Some(b)) => prop_assert!((a - b).abs() < 1e-12),
                (a, b) => prop_assert_eq!(a, b),
            }
        }

        /// The variance of DeLong from its definition over all pairs.
        #[test]
        fn the_standard_error_is_that_of_the_pair_shares(rows in prop::collection::vec((0u8..12, any::<bool>()), 4..40)) {
            let scores: Vec<f64> = rows.iter().map(|r| f64::from(r.0)).collect();
            let positive: Vec<bool> = rows.iter().map(|r| r.1).collect();
            let Some(got) = auroc_standard_error(&scores, &positive) else { return Ok(()) };
            let share = |i: usize| {
                let others: Vec<f64> = (0..rows.len()).filter(|&j| positive[j] != positive[i]).map(|j| scores[j]).collect();
                let above = |o: &f64| if scores[i] > *o { 1.0 } else if scores[i] == *o { 0.5 } else { 0.0 };
                others.iter().map(above).sum::<f64>() / others.len() as f64
            };
            let variance = |kind: bool| {
                let v: Vec<f64> = (0..rows.len()).filter(|&i| positive[i] == kind).map(share).collect();
                let mean = v.iter().sum::<f64>() / v.len() as f64;
                v.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (v.len() as f64 - 1.0) / v.len() as f64
            };
            prop_assert!((got - (variance(true) + variance(false)).sqrt()).abs() < 1e-12);
        }
    }

    /// `sklearn.metrics.roc_auc_score` 1.7 gives 0.75 and 0.71875.
    #[test]
    fn golden_values() {
        let y = [false, false, true, true];
        assert_eq!(auroc(&[0.1, 0.4, 0.35, 0.8], &y), Some(0.75));
        let y = [false, false, false, false, true, true, true, true];
        assert_eq!(
            auroc(&[0.1, 0.2, 0.3, 0.6, 0.3, 0.6, 0.7, 0.2], &y),
            Some(0.71875)
        );
        assert_eq!(auroc(&[1.0, 2.0], &[true, true]), None);
    }
}
