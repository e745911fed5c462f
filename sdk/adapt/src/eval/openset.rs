//! Open-set recognition: a job is taught some kinds and must tell frames of others apart from frames of its own.
//!
//! As in [`super::fewshot`], each draw takes `shots` images of each known class; the other known images and all unknown ones are queries. What is
//! measured is the distance that [`crate::UnknownRule`] works with.

use super::LabelledSet;
use super::auroc::auroc;
use super::fewshot::{HeadChoice, LabelledRow, images_of_classes, interval, split, stream};
use crate::choose::Problem;
use crate::error::AdaptError;
use crate::fitted::argmax;
use crate::parts::Layout;
use crate::support::{inverse_norm, normalised_rows};
use rayon::prelude::*;

/// What to measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpensetOptions {
    /// Images of each known class in the support, one result for each.
    pub shots: Vec<usize>,
    /// Random supports for each, at least 2.
    pub draws: usize,
    /// Key of the draws.
    pub seed: u64,
    /// Heads, one result for each.
    pub heads: Vec<HeadChoice>,
}

/// How well a job tells, mean over the draws.
#[derive(Clone, Debug, PartialEq)]
pub struct OpensetScore {
    /// The head.
    pub head: HeadChoice,
    /// Images of each known class in the support.
    pub shots: usize,
    /// Area under the ROC curve of the distance, unknown queries against known ones.
    pub auroc: f64,
    /// 1.96 standard errors of it.
    pub ci95: f64,
    /// Share of the unknown queries that pass for known at the distance that 95 % of the known ones keep.
    pub fpr95: f64,
    /// Balanced accuracy on the known queries, if none is called unknown.
    pub accuracy_known: f64,
}

/// Distances of known and unknown queries, and the balanced accuracy on the known ones.
struct Draw {
    known: Vec<f64>,
    unknown: Vec<f64>,
    accuracy: f64,
}

/// Runs the protocol; results by shots, then heads, in the order of `options`. The rows of `unknown` are of the known ones' layout; their labels
/// do not matter. Draws run in parallel in the current rayon pool.
///
/// # Errors
///
/// Fewer than two known classes; fewer than two draws; 0 shots; a class with no more images than shots; rows of another length; a support whose
/// features are all the same.
pub fn openset(
    known: &LabelledSet,
    unknown: &LabelledSet,
    options: &OpensetOptions,
) -> Result<Vec<OpensetScore>, AdaptError> {
    if unknown.dim != known.dim {
        return Err(AdaptError::Shape {
            what: "values of an unknown feature",
            expected: known.dim,
            got: unknown.dim,
        });
    }
    let classes = images_of_classes(known, &options.shots, options.draws)?;
    let mut scores = Vec::new();
    for &shots in &options.shots {
        let draws: Vec<Vec<Draw>> = (0..options.draws)
            .into_par_iter()
            .map(|draw| {
                let (support, queries) =
                    split(&classes, shots, &mut stream(options.seed, shots, draw));
                let of_head = |head: &HeadChoice| one(known, unknown, &support, &queries, *head);
                options.heads.iter().map(of_head).collect()
            })
            .collect::<Result<_, AdaptError>>()?;
        for (i, &head) in options.heads.iter().enumerate() {
            let of_head = || draws.iter().map(|draw| &draw[i]);
            let (auroc, ci95) =
                interval(of_head().map(Draw::auroc).collect::<Vec<_>>().into_iter());
            let mean = |of: fn(&Draw) -> f64| of_head().map(of).sum::<f64>() / draws.len() as f64;
            scores.push(OpensetScore {
                head,
                shots,
                auroc,
                ci95,
                fpr95: mean(Draw::fpr95),
                accuracy_known: mean(|draw| draw.accuracy),
            });
        }
    }
    Ok(scores)
}

fn one(
    known: &LabelledSet,
    unknown: &LabelledSet,
    support: &[LabelledRow],
    queries: &[LabelledRow],
    head: HeadChoice,
) -> Result<Draw, AdaptError> {
    let (rows, labels): (Vec<&[f32]>, Vec<usize>) = support
        .iter()
        .map(|&(row, label)| (known.row(row), label))
        .unzip();
    let whole = Layout::single(known.dim);
    let layout = known.layout.unwrap_or(&whole);
    let n_classes = known.n_classes();
    let problem = Problem {
        rows: &rows,
        labels: &labels,
        n_classes,
        layout,
        copies: &[],
    };
    let (view, candidate) = head.fit(&problem)?;
    let dim = view.dim(layout.parts());
    let seen = problem.seen(&view);
    let units = normalised_rows(seen.chunks_exact(dim), rows.len(), dim);
    let distance = |seen: &[f32]| {
        let inverse = inverse_norm(seen);
        let cosines = (0..units.rows).map(|i| crate::linalg::dot32(units.row(i), seen) * inverse);
        1.0 - cosines.fold(f64::NEG_INFINITY, f64::max)
    };
    let mut confusion = crate::fitted::Confusion::new(n_classes);
    let mut of_known = Vec::with_capacity(queries.len());
    for &(row, label) in queries {
        let seen = view.of(known.row(row), layout.parts());
        confusion.add(label, argmax(&candidate.head.scores(&seen)));
        of_known.push(distance(&seen));
    }
    let of_unknown = unknown
        .rows()
        .map(|row| distance(&view.of(row, layout.parts())));
    Ok(Draw {
        unknown: of_unknown.collect(),
        known: of_known,
        accuracy: confusion.accuracies().map_or(0.0, |(_, balanced)| balanced),
    })
}

impl Draw {
    fn auroc(&self) -> f64 {
        let scores: Vec<f64> = self.known.iter().chain(&self.unknown).copied().collect();
        let positive: Vec<bool> = (0..scores.len()).map(|i| i >= self.known.len()).collect();
        auroc(&scores, &positive).unwrap_or(f64::NAN)
    }

    fn fpr95(&self) -> f64 {
        let mut known = self.known.clone();
        known.sort_by(f64::total_cmp);
        let kept = (known.len() as f64 * 0.95).ceil() as usize;
        let bound = known[kept.clamp(1, known.len()) - 1];
        let passed = self.unknown.iter().filter(|d| **d <= bound).count();
        passed as f64 / self.unknown.len() as f64
    }
}
