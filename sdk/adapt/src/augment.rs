//! Whether features of turned, mirrored and dimmed copies of the samples make the head better.
//!
//! Copies belong to their sample: they have its label, are left out with it, and go when it goes. Head and parts are chosen without them. The chosen
//! head is then fitted with and without copies, and asked about samples that were left out, never about copies; the only sample of a
//! class cannot be left out and is asked of the head that has seen it. Discriminants leave out each sample in turn, in closed form: the rest keeps the
//! scatter that the head has, so that the scores have its scale. Other heads are fitted anew on folds (of each class, sample `i` is in fold `i mod F`, `F` being
//! the samples of the largest class, at most [`FOLDS`]).
//!
//! Copies are kept unless so many more samples speak against them than for them that a fair coin would do so with a chance below [`DOUBT`]: two against
//! none. A sample that the head has seen and gets wrong is no chance: there one more suffices. That asks less of copies than of another head
//! (`choose.rs`): that a part may lie and be lit otherwise is known beforehand, and a handful of samples cannot prove it, but they do contradict it where the
//! way a part lies is what tells its class. Dropping copies as soon as one more sample speaks against them costs accuracy: that is chance more often than not.

use crate::blocks;
use crate::calibrate::calibrate;
use crate::candidate::{self, Candidate};
use crate::choose::{Problem, sign_test};
use crate::error::AdaptError;
use crate::fitted::argmax;
use crate::head::{Head, HeadKind};
use crate::parts::View;
use crate::support::Support;
use serde::{Deserialize, Serialize};

/// Chance below which samples contradict copies.
const DOUBT: f64 = 0.3;
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
    /// Rows of each sample, itself and its copies.
    sizes: Vec<usize>,
}

impl Rows {
    fn of(problem: &Problem, view: &View, samples: &[usize], with_copies: bool) -> Self {
        let parts = problem.layout.parts();
        let (mut values, mut labels, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
        for &sample in samples {
            let copies = match with_copies {
                true => problem.copies_of(sample),
                false => &[],
            };
            values.push(view.of(problem.rows[sample], parts));
            values.extend(copies.iter().map(|copy| view.of(copy, parts)));
            labels.resize(values.len(), problem.labels[sample]);
            sizes.push(1 + copies.len());
        }
        Self {
            values,
            labels,
            sizes,
        }
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

/// What both fits say of samples that they have not seen, `[N, C]`.
struct LeftOut {
    plain: Vec<f64>,
    with_copies: Vec<f64>,
}

impl Fit<'_> {
    /// λ for `rows`: discriminants by shrinkage find it anew; scatter, and with it λ of the other closed forms, grows with the number of rows.
    fn lambda(&self, rows: &Rows) -> Option<f64> {
        let grown = rows.labels.len() as f64 / rows.sizes.len() as f64;
        match self.kind {
            HeadKind::Lda => None,
            HeadKind::Discriminant | HeadKind::Ridge => self.lambda.map(|lambda| lambda * grown),
            HeadKind::Logistic | HeadKind::Prototype | HeadKind::Knn => self.lambda,
        }
    }

    fn head(&self, rows: &Rows) -> Result<(Head, Option<f64>), AdaptError> {
        let support = rows.support(self.problem.n_classes)?;
        candidate::head_alone(self.kind, &support, self.lambda(rows))
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

    /// The head on all samples with their copies, its λ, and the scores of samples left out.
    fn with_copies(
        &self,
        reference: &Candidate,
    ) -> Result<(Head, Option<f64>, LeftOut), AdaptError> {
        let all: Vec<usize> = (0..self.problem.rows.len()).collect();
        let rows = Rows::of(self.problem, self.view, &all, true);
        if matches!(self.kind, HeadKind::Lda | HeadKind::Discriminant) {
            let support = rows.support(self.problem.n_classes)?;
            let lambda = self.lambda(&rows);
            let (head, lambda, with_copies) = candidate::in_groups(&support, &rows.sizes, lambda)?;
            let plain = reference.loo_scores.clone();
            return Ok((head, Some(lambda), LeftOut { plain, with_copies }));
        }
        let (head, lambda) = self.head(&rows)?;
        let left_out = LeftOut {
            plain: self.folded(false)?,
            with_copies: self.folded(true)?,
        };
        Ok((head, lambda, left_out))
    }

    /// Scores `[N, C]` of the samples by heads that have seen neither them nor their copies; minus infinity for the only ones of their classes.
    fn folded(&self, copies: bool) -> Result<Vec<f64>, AdaptError> {
        let n_classes = self.problem.n_classes;
        let folds = folds(self.problem);
        let n_folds = folds.iter().flatten().max().map_or(0, |last| last + 1);
        let heads = blocks::each(n_folds, |fold| {
            let kept: Vec<usize> = (0..folds.len())
                .filter(|&sample| folds[sample] != Some(fold))
                .collect();
            let rows = Rows::of(self.problem, self.view, &kept, copies);
            self.head(&rows).map(|(head, _)| head)
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

    /// Whether each sample is right: when it is left out, or, for the only one of its class, by the head that has seen it.
    fn right(&self, left_out: &[f64], head: &Head, samples: &Support) -> Vec<bool> {
        let rows = left_out.chunks_exact(self.problem.n_classes).enumerate();
        let hit = |(sample, row): (usize, &[f64])| {
            let label = self.problem.labels[sample];
            match samples.evaluable(sample) {
                true => argmax(row) == label,
                false => argmax(&head.scores(&self.seen(sample))) == label,
            }
        };
        rows.map(hit).collect()
    }
}

/// The head of `reference` fitted with copies, and what speaks for it; `None` without copies.
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
    let (head, lambda, left_out) = fit.with_copies(reference)?;
    let seen = problem.seen(view);
    let samples = problem.support(&seen)?;
    let without = fit.right(&left_out.plain, &reference.head, &samples);
    let with = fit.right(&left_out.with_copies, &head, &samples);
    let only = |first: &[bool], second: &[bool], left_out: bool| {
        let pairs = first.iter().zip(second).enumerate();
        let samples = pairs.filter(|(i, _)| samples.evaluable(*i) == left_out);
        samples.filter(|(_, pair)| *pair == (&true, &false)).count()
    };
    let [gained, seen_gained] = [true, false].map(|left_out| only(&with, &without, left_out));
    let [lost, seen_lost] = [true, false].map(|left_out| only(&without, &with, left_out));
    // Copies make scores wider. Where nothing can be left out, they must not make the head surer than it would be without.
    let prior = reference.prior * (fit.margin(&head) / fit.margin(&reference.head)).max(1.0);
    let found = Augmentation {
        copies,
        gained: gained + seen_gained,
        lost: lost + seen_lost,
        kept: sign_test(lost, gained) >= DOUBT && seen_lost <= seen_gained,
    };
    let candidate = Candidate {
        kind: reference.kind,
        head,
        lambda,
        calibration: calibrate(&left_out.with_copies, &samples),
        loo_scores: left_out.with_copies,
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
