//! Few-shot accuracy: for each draw, `shots` images of each class at random are the support, all others are queries; the score of a draw is the
//! balanced accuracy on its queries, and the result is the mean over the draws with a normal 95 % interval, 1.96 standard errors.
//!
//! The same seed draws the same supports for any features with the same labels, so that encoders are compared on equal terms.

use super::LabelledSet;
use crate::augment::with_copies;
use crate::calibrate::softmax;
use crate::candidate::Candidate;
use crate::choose::Problem;
use crate::error::AdaptError;
use crate::fitted::{Confusion, argmax};
use crate::head::HeadKind;
use crate::parts::{Layout, View};
use crate::reliability::Reliability;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;

/// What is fitted on the support of each draw, never on its queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadChoice {
    /// The head and the parts that a job chooses by leave-one-out on the support.
    Auto,
    /// One head, on the preferred parts.
    One(HeadKind),
    /// One head, on the preferred parts, with copies of the support.
    Augmented {
        /// The head.
        kind: HeadKind,
        /// Whether copies are used in any case, or where a job would keep them.
        always: bool,
    },
}

impl HeadChoice {
    /// Name in tables and JSON.
    pub fn name(self) -> String {
        match self {
            Self::Auto => "auto".into(),
            Self::One(kind) => kind.name().into(),
            Self::Augmented { kind, always: true } => format!("{}+copies", kind.name()),
            Self::Augmented {
                kind,
                always: false,
            } => format!("{}+copies if kept", kind.name()),
        }
    }

    pub(super) fn fit(self, problem: &Problem) -> Result<(View, Candidate), AdaptError> {
        match self {
            Self::Auto => problem
                .choose()
                .map(|choice| (choice.view, choice.candidate)),
            Self::One(kind) => problem.fit(kind, problem.layout.preferred(), None),
            Self::Augmented { kind, always } => {
                let (view, plain) = problem.fit(kind, problem.layout.preferred(), None)?;
                let candidate = match with_copies(problem, &view, &plain)? {
                    Some((candidate, found)) if always || found.kept => candidate,
                    _ => plain,
                };
                Ok((view, candidate))
            }
        }
    }
}

/// What to measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FewshotOptions {
    /// Images of each class in the support, one result for each.
    pub shots: Vec<usize>,
    /// Random supports for each, at least 2.
    pub draws: usize,
    /// Key of the draws.
    pub seed: u64,
    /// Heads, one result for each.
    pub heads: Vec<HeadChoice>,
}

/// Accuracy of one head at one number of shots.
#[derive(Clone, Debug, PartialEq)]
pub struct FewshotScore {
    /// The head.
    pub head: HeadChoice,
    /// Images of each class in the support.
    pub shots: usize,
    /// Mean balanced accuracy, 0..1.
    pub mean: f64,
    /// 1.96 standard errors of the mean.
    pub ci95: f64,
    /// Mean expected calibration error on the queries, of scores with the temperature that leave-one-out on the support gives.
    pub ece: f64,
    /// Mean Brier score of the same, 0 (best) to 2.
    pub brier: f64,
    /// What every class was taken for, over all draws.
    pub confusion: Confusion,
}

/// One head on the queries of one draw.
struct Drawn {
    confusion: Confusion,
    reliability: Reliability,
}

/// A row's index and class.
pub(super) type LabelledRow = (usize, usize);

/// Runs the protocol; results by shots, then heads, in the order of `options`. Draws run in parallel in the current rayon pool.
///
/// # Errors
///
/// Fewer than two classes; fewer than two draws; 0 shots; a class with no more images than shots; a support whose features are all the same.
pub fn fewshot(
    set: &LabelledSet,
    options: &FewshotOptions,
) -> Result<Vec<FewshotScore>, AdaptError> {
    let classes = images_of_classes(set, &options.shots, options.draws)?;
    let mut scores = Vec::new();
    for &shots in &options.shots {
        let draws: Vec<Vec<Drawn>> = (0..options.draws)
            .into_par_iter()
            .map(|draw| {
                let (support, queries) =
                    split(&classes, shots, &mut stream(options.seed, shots, draw));
                options
                    .heads
                    .iter()
                    .map(|&head| drawn(set, &support, &queries, head))
                    .collect()
            })
            .collect::<Result<_, AdaptError>>()?;
        for (i, &head) in options.heads.iter().enumerate() {
            let balanced = |heads: &Vec<Drawn>| {
                let accuracies = heads[i].confusion.accuracies();
                accuracies.map_or(0.0, |(_, balanced)| balanced)
            };
            let (mean, ci95) = interval(draws.iter().map(balanced));
            let mut confusion = Confusion::new(set.n_classes());
            let of_draws = draws.iter().map(|heads| &heads[i].confusion);
            of_draws.for_each(|of_draw| confusion.merge(of_draw));
            let over_draws = |f: fn(&Reliability) -> f64| {
                let sum: f64 = draws.iter().map(|heads| f(&heads[i].reliability)).sum();
                sum / draws.len() as f64
            };
            scores.push(FewshotScore {
                head,
                shots,
                mean,
                ci95,
                ece: over_draws(|of| of.ece),
                brier: over_draws(|of| of.brier),
                confusion,
            });
        }
    }
    Ok(scores)
}

/// Rows of each class, after checking that the protocol can run.
pub(super) fn images_of_classes(
    set: &LabelledSet,
    shots: &[usize],
    draws: usize,
) -> Result<Vec<Vec<usize>>, AdaptError> {
    if draws < 2 {
        return Err(AdaptError::BadOption {
            name: "draws",
            value: draws.to_string(),
            range: "at least 2, to give an interval",
        });
    }
    let mut classes = vec![Vec::new(); set.n_classes()];
    for (i, &label) in set.labels.iter().enumerate() {
        classes[label].push(i);
    }
    if classes.len() < 2 {
        return Err(AdaptError::TooFewClasses {
            found: "only one".into(),
        });
    }
    for &shots in shots {
        if shots == 0 {
            return Err(AdaptError::BadOption {
                name: "shots",
                value: "0".into(),
                range: "at least 1",
            });
        }
        if let Some((class, rows)) = classes
            .iter()
            .enumerate()
            .find(|(_, rows)| rows.len() <= shots)
        {
            return Err(AdaptError::ClassTooSmall {
                class,
                n: rows.len(),
                shots,
            });
        }
    }
    Ok(classes)
}

/// Generator of one draw, keyed by all that names it.
pub(super) fn stream(seed: u64, shots: usize, draw: usize) -> ChaCha8Rng {
    stream_for(*b"fewshot\0", seed, shots, draw)
}

/// As [`stream`], for another `purpose`.
pub(super) fn stream_for(purpose: [u8; 8], seed: u64, shots: usize, draw: usize) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, word) in
        key.chunks_exact_mut(8)
            .zip([seed, shots as u64, draw as u64, u64::from_le_bytes(purpose)])
    {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// `shots` rows of each class for the support (with labels), the others as queries, by a partial Fisher–Yates shuffle.
pub(super) fn split(
    classes: &[Vec<usize>],
    shots: usize,
    rng: &mut ChaCha8Rng,
) -> (Vec<LabelledRow>, Vec<LabelledRow>) {
    let (mut support, mut queries) = (Vec::new(), Vec::new());
    for (label, rows) in classes.iter().enumerate() {
        let mut rows = rows.clone();
        for i in 0..shots {
            let other = i + below(rng, rows.len() - i);
            rows.swap(i, other);
        }
        support.extend(rows[..shots].iter().map(|&row| (row, label)));
        queries.extend(rows[shots..].iter().map(|&row| (row, label)));
    }
    (support, queries)
}

/// Uniform in `0..n`, by rejection.
pub(super) fn below(rng: &mut ChaCha8Rng, n: usize) -> usize {
    let n = n as u64;
    let limit = u64::MAX - u64::MAX % n;
    loop {
        let word = rng.next_u64();
        if word < limit {
            return (word % n) as usize;
        }
    }
}

/// A head fitted on the support, on the queries.
fn drawn(
    set: &LabelledSet,
    support: &[LabelledRow],
    queries: &[LabelledRow],
    head: HeadChoice,
) -> Result<Drawn, AdaptError> {
    let (rows, labels): (Vec<&[f32]>, Vec<usize>) = support
        .iter()
        .map(|&(row, label)| (set.row(row), label))
        .unzip();
    let copies: Vec<&[Vec<f32>]> = match set.copies {
        [] => Vec::new(),
        all => support
            .iter()
            .map(|&(row, _)| all[row].as_slice())
            .collect(),
    };
    let whole = Layout::single(set.dim);
    let layout = set.layout.unwrap_or(&whole);
    let n_classes = set.n_classes();
    let problem = Problem {
        rows: &rows,
        labels: &labels,
        n_classes,
        layout,
        copies: &copies,
    };
    let (view, candidate) = head.fit(&problem)?;
    let temperature = candidate.temperature();
    let mut confusion = Confusion::new(n_classes);
    let mut probabilities = Vec::with_capacity(queries.len());
    for &(row, label) in queries {
        let seen = view.of(set.row(row), layout.parts());
        let scores = candidate.head.scores(&seen);
        confusion.add(label, argmax(&scores));
        probabilities.push((softmax(&scores, temperature), label));
    }
    // Every class has more images than shots, so that there are queries.
    let nothing = Reliability {
        ece: 0.0,
        brier: 0.0,
    };
    Ok(Drawn {
        confusion,
        reliability: Reliability::of(probabilities).unwrap_or(nothing),
    })
}

/// Mean and 1.96 standard errors.
pub(super) fn interval(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let n = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / n;
    let variance = values.map(|v| (v - mean) * (v - mean)).sum::<f64>() / (n - 1.0);
    (mean, 1.96 * (variance / n).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_takes_each_row_once() {
        let classes = [vec![0, 3, 6, 9], vec![1, 4, 7], vec![2, 5, 8, 10, 11]];
        let mut supports = std::collections::BTreeSet::new();
        for draw in 0..200 {
            let (support, queries) = split(&classes, 2, &mut stream(1, 2, draw));
            let mut all: Vec<_> = support.iter().chain(&queries).copied().collect();
            all.sort();
            let mut want: Vec<_> = classes
                .iter()
                .enumerate()
                .flat_map(|(label, rows)| rows.iter().map(move |&row| (row, label)))
                .collect();
            want.sort();
            assert_eq!(all, want);
            assert!((0..3).all(|c| support.iter().filter(|(_, label)| *label == c).count() == 2));
            supports.extend(support.iter().map(|(row, _)| *row));
        }
        assert_eq!(supports.len(), 12);
    }

    #[test]
    fn the_interval_is_1_96_standard_errors() {
        let (mean, ci95) = interval([0.0, 1.0].into_iter());
        assert_eq!(mean, 0.5);
        assert!((ci95 - 0.98).abs() < 1e-12);
    }
}
