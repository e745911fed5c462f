//! Which images are learned and which are tested, draw by draw: whole groups of images, so that no part is on both sides.

use super::fewshot::{below, stream_for};
use crate::error::AdaptError;

/// One draw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnomalySplit {
    /// Indices into the pool of good images that are learned, by group, then index.
    pub learned: Vec<usize>,
    /// Their groups. Test images of these groups must be left out.
    pub groups: Vec<u64>,
}

/// Splits for `shots` good parts each: `draws` random choices of `shots` groups of the pool, whose image `i` is of group `groups[i]`. If
/// there are no more than `draws` different choices, each is made once, in lexicographic order.
///
/// # Errors
///
/// No shot, no draw, or fewer groups than shots.
pub fn anomaly_splits(
    groups: &[u64],
    shots: usize,
    draws: usize,
    seed: u64,
) -> Result<Vec<AnomalySplit>, AdaptError> {
    let bad = |name, value: usize, range| AdaptError::BadOption {
        name,
        value: value.to_string(),
        range,
    };
    let mut names = groups.to_vec();
    names.sort_unstable();
    names.dedup();
    if draws == 0 {
        return Err(bad("draws", draws, "at least 1"));
    }
    if shots == 0 || shots > names.len() {
        return Err(bad(
            "shots",
            shots,
            "from 1 to the number of good parts to draw from",
        ));
    }
    let of = |chosen: Vec<usize>| {
        let groups_chosen: Vec<u64> = chosen.into_iter().map(|i| names[i]).collect();
        let learned = groups_chosen
            .iter()
            .flat_map(|g| (0..groups.len()).filter(|&i| groups[i] == *g));
        AnomalySplit {
            learned: learned.collect(),
            groups: groups_chosen,
        }
    };
    if choices(names.len(), shots) <= draws as f64 {
        return Ok(combinations(names.len(), shots)
            .into_iter()
            .map(of)
            .collect());
    }
    Ok((0..draws)
        .map(|draw| {
            let mut rng = stream_for(*b"anomaly\0", seed, shots, draw);
            let mut order: Vec<usize> = (0..names.len()).collect();
            for i in 0..shots {
                let other = i + below(&mut rng, order.len() - i);
                order.swap(i, other);
            }
            order.truncate(shots);
            order.sort_unstable();
            of(order)
        })
        .collect())
}

/// Number of ways to choose `k` of `n`.
fn choices(n: usize, k: usize) -> f64 {
    (0..k.min(n - k))
        .map(|i| (n - i) as f64 / (i + 1) as f64)
        .product()
}

fn combinations(n: usize, k: usize) -> Vec<Vec<usize>> {
    let mut all = Vec::new();
    let mut current: Vec<usize> = (0..k).collect();
    loop {
        all.push(current.clone());
        let Some(i) = (0..k).rev().find(|&i| current[i] < n - k + i) else {
            return all;
        };
        current[i] += 1;
        for j in i + 1..k {
            current[j] = current[j - 1] + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_choices_are_all_made_once() {
        let splits = anomaly_splits(&[0, 1, 2, 3], 2, 30, 0).unwrap();
        let learned: Vec<&[usize]> = splits.iter().map(|s| &s.learned[..]).collect();
        assert_eq!(
            learned,
            [&[0, 1][..], &[0, 2], &[0, 3], &[1, 2], &[1, 3], &[2, 3]]
        );
        assert_eq!(anomaly_splits(&[0, 1, 2, 3], 4, 30, 0).unwrap().len(), 1);
        assert_eq!(choices(50, 8).round(), 536_878_650.0);
    }

    #[test]
    fn groups_are_drawn_whole_and_by_the_seed() {
        let groups: Vec<u64> = (0..80).map(|i| i / 8).collect();
        let splits = anomaly_splits(&groups, 3, 20, 7).unwrap();
        assert_eq!(splits.len(), 20);
        for split in &splits {
            assert_eq!(split.groups.len(), 3);
            assert_eq!(split.learned.len(), 24);
            assert!(
                (0..80).all(|i| split.learned.contains(&i) == split.groups.contains(&groups[i]))
            );
        }
        assert_eq!(splits, anomaly_splits(&groups, 3, 20, 7).unwrap());
        assert_ne!(splits, anomaly_splits(&groups, 3, 20, 8).unwrap());
        let used: std::collections::BTreeSet<u64> =
            splits.iter().flat_map(|s| s.groups.clone()).collect();
        assert_eq!(used.len(), 10);
    }

    #[test]
    fn impossible_draws_are_refused() {
        assert!(anomaly_splits(&[0, 0, 1], 3, 5, 0).is_err());
        assert!(anomaly_splits(&[0], 0, 5, 0).is_err());
        assert!(anomaly_splits(&[0], 1, 0, 0).is_err());
    }
}
