//! Whether features of turned, mirrored and dimmed copies of the samples make the head better.
//!
//! Copies belong to their sample: they have its label, are left out with it, and go when it goes. Head and parts are chosen without them. The chosen
//! head is then fitted with and without copies on samples left out in folds (of each class, sample `i` is in fold `i mod F`, `F` being the samples of
//! the largest class, at most [`FOLDS`]), and asked about the samples that were left out, never about copies; the only sample of a
//! class cannot be left out and is asked of the head that has seen it.
//!
//! Copies are kept unless more samples speak against them than for them. That asks less of them than of another head (`choose.rs`): that a part may
//! lie and be lit otherwise is known beforehand, and a handful of samples cannot prove it, but they do contradict it where the way a part lies is what
//! tells its class.

use crate::blocks;
use crate::calibrate::calibrate;
use crate::candidate::{self, Candidate};
use crate::choose::Problem;
use crate::error::AdaptError;
use crate::fitted::argmax;
use crate::head::{Head, HeadKind};
use crate::parts::View;
use crate::support::Support;
use serde::{Deserialize, Serialize};

/// Most folds.
const FOLDS: usize = 16;

/// What was found of the samples' copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Augmentation {
    /// Copies of all samples.
    pub copies: usize,
    /// Samples that the head gets right only with copies, when they are left out where they can be.
    pub gained: usize,
    /// Samples that it gets right only without.
    pub lost: usize,
    /// Whether the head was fitted with copies.
    pub kept: bool,
}

/// Rows of some samples, with or without their copies, as the head sees them.
struct Rows {
    values: Vec<Vec<f32>>,
    labels: Vec<usize>,
}

impl Rows {
    fn of(problem: &Problem, view: &View, samples: &[usize], with_copies: bool) -> Self {
        let parts = problem.layout.parts();
        let (mut values, mut labels) = (Vec::new(), Vec::new());
        for &sample in samples {
            let copies = match with_copies {
                true => problem.copies_of(sample),
                false => &[],
            };
            values.push(view.of(problem.rows[sample], parts));
            values.extend(copies.iter().map(|copy| view.of(copy, parts)));
            labels.resize(values.len(), problem.labels[sample]);
        }
        Self { values, labels }
    }

    fn support(&self, n_classes: usize) -> Result<Support<'_>, AdaptError> {
        let rows = self.values.iter().map(Vec::as_slice).collect();
        Support::new(rows, self.labels.clone(), n_classes)
    }
}

/// One head with its λ in the units of plain samples.
struct Fit<'a> {
    problem: &'a Problem<'a>,
    view: &'a View,
    kind: HeadKind,
    lambda: Option<f64>,
}

impl Fit<'_> {
    /// The head on some samples, and its λ. Discriminants by shrinkage find λ anew; scatter, and with it λ of the other closed forms, grows with the
    /// number of rows.
    fn head(&self, samples: &[usize], copies: bool) -> Result<(Head, Option<f64>), AdaptError> {
        let rows = Rows::of(self.problem, self.view, samples, copies);
        let support = rows.support(self.problem.n_classes)?;
        let grown = rows.labels.len() as f64 / samples.len() as f64;
        let lambda = match self.kind {
            HeadKind::Lda => None,
            HeadKind::Discriminant | HeadKind::Ridge => self.lambda.map(|lambda| lambda * grown),
            HeadKind::Logistic | HeadKind::Prototype | HeadKind::Knn => self.lambda,
        };
        candidate::head_alone(self.kind, &support, lambda)
    }

    /// A sample as the head sees it.
    fn seen(&self, sample: usize) -> Vec<f32> {
        self.view
            .of(self.problem.rows[sample], self.problem.layout.parts())
    }

    /// How far the score of its own class is above the best other one, the mean over all samples.
    fn margin(&self, head: &Head) -> f64 {
        let labels = self.problem.labels.iter().enumerate();
        let margins = labels.map(|(sample, &label)| {
            let scores = head.scores(&self.seen(sample));
            let others = scores
                .iter()
                .enumerate()
                .filter(|(class, _)| *class != label);
            let best = others
                .map(|(_, score)| *score)
                .fold(f64::NEG_INFINITY, f64::max);
            scores[label] - best
        });
        margins.sum::<f64>() / self.problem.labels.len() as f64
    }

    /// Scores `[N, C]` of the samples by heads that have seen neither them nor their copies; minus infinity for the only ones of their classes.
    fn left_out(&self, folds: &[Option<usize>], copies: bool) -> Result<Vec<f64>, AdaptError> {
        let n_classes = self.problem.n_classes;
        let n_folds = folds.iter().flatten().max().map_or(0, |last| last + 1);
        let heads = blocks::each(n_folds, |fold| {
            let kept: Vec<usize> = (0..folds.len())
                .filter(|&sample| folds[sample] != Some(fold))
                .collect();
            self.head(&kept, copies).map(|(head, _)| head)
        });
        let heads = heads.into_iter().collect::<Result<Vec<Head>, _>>()?;
        let mut scores = Vec::with_capacity(folds.len() * n_classes);
        for (sample, fold) in folds.iter().enumerate() {
            match fold {
                Some(fold) => {
                    scores.extend(heads[*fold].scores(&self.seen(sample)));
                }
                None => scores.extend(vec![f64::NEG_INFINITY; n_classes]),
            }
        }
        Ok(scores)
    }
}

/// The head of `reference` fitted with copies, and what speaks for it; `None` without copies. The scores of the head are those of samples left out in
/// folds.
pub(crate) fn with_copies(
    problem: &Problem,
    view: &View,
    reference: &Candidate,
) -> Result<Option<(Candidate, Augmentation)>, AdaptError> {
    let n_copies = (0..problem.rows.len()).map(|sample| problem.copies_of(sample).len());
    let copies: usize = n_copies.sum();
    if copies == 0 {
        return Ok(None);
    }
    let fit = Fit {
        problem,
        view,
        kind: reference.kind,
        lambda: reference.lambda,
    };
    let folds = folds(problem);
    let (plain, scores) = (fit.left_out(&folds, false)?, fit.left_out(&folds, true)?);
    let all: Vec<usize> = (0..problem.rows.len()).collect();
    let (head, lambda) = fit.head(&all, true)?;
    let right = |scores: &[f64], seen_all: &Head| -> Vec<bool> {
        let rows = scores.chunks_exact(problem.n_classes).zip(&folds);
        let hit = |(sample, (row, fold)): (usize, (&[f64], &Option<usize>))| {
            let label = problem.labels[sample];
            match fold {
                Some(_) => argmax(row) == label,
                None => argmax(&seen_all.scores(&fit.seen(sample))) == label,
            }
        };
        rows.enumerate().map(hit).collect()
    };
    let without = right(&plain, &reference.head);
    let with = right(&scores, &head);
    let count = |a: bool, b: bool| {
        let pairs = without.iter().zip(&with);
        pairs.filter(|pair| *pair == (&a, &b)).count()
    };
    // Copies make scores wider. Where nothing can be left out, they must not make the head surer than it would be without.
    let prior = reference.prior * (fit.margin(&head) / fit.margin(&reference.head)).max(1.0);
    let samples = Rows::of(problem, view, &all, false);
    let calibration = calibrate(&scores, &samples.support(problem.n_classes)?);
    let found = Augmentation {
        copies,
        gained: count(false, true),
        lost: count(true, false),
        kept: count(false, true) >= count(true, false),
    };
    let candidate = Candidate {
        kind: reference.kind,
        head,
        lambda,
        loo_scores: scores,
        calibration,
        prior,
    };
    Ok(Some((candidate, found)))
}

/// The fold of each sample; `None` for the only one of its class.
fn folds(problem: &Problem) -> Vec<Option<usize>> {
    let mut counts = vec![0usize; problem.n_classes];
    problem.labels.iter().for_each(|&label| counts[label] += 1);
    let n_folds = counts.iter().copied().max().unwrap_or(0).clamp(1, FOLDS);
    let mut seen = vec![0usize; problem.n_classes];
    let fold = |&label: &usize| {
        seen[label] += 1;
        (counts[label] > 1).then(|| (seen[label] - 1) % n_folds)
    };
    problem.labels.iter().map(fold).collect()
}
