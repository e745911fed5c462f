//! A fitted head with all that leave-one-out says about it.

use crate::calibrate::{calibrate, softmax};
use crate::error::AdaptError;
use crate::head::prototype::Prototype;
use crate::head::ridge::Ridge;
use crate::head::statistics::Statistics;
use crate::job::SampleId;
use crate::linear::{self, LinearKind};
use crate::support::Support;
use crate::unknown::{UnknownRule, leave_one_out_distances};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Which head to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeadKind {
    /// [`crate::head::discriminant`]: the best one as a rule; classes count alike, however many samples they have.
    Discriminant,
    /// [`crate::head::ridge`]: classes with more samples are favoured in doubt.
    Ridge,
    /// [`crate::head::prototype`]: nothing to choose; good at one sample a class.
    Prototype,
}

/// How to fit a job.
#[derive(Clone, Debug, PartialEq)]
pub struct FitOptions {
    /// The head.
    pub head: HeadKind,
    /// λ of the linear heads; `None` chooses it by leave-one-out.
    pub lambda: Option<f64>,
    /// Share of frames of the taught kinds that may be called unknown; 0 turns the flag off.
    pub unknown_rate: f64,
}

impl Default for FitOptions {
    /// Discriminant, λ by leave-one-out, an unknown rate of 0.05.
    fn default() -> Self {
        Self {
            head: HeadKind::Discriminant,
            lambda: None,
            unknown_rate: 0.05,
        }
    }
}

/// What a fit found. Leave-one-out is over the samples whose class has another one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FitReport {
    /// Samples fitted on.
    pub n: usize,
    /// Samples left out in turn; 0 when no class has two.
    pub loo_n: usize,
    /// Share of them that the head fitted without them gets right; `None` when there are none.
    pub loo_accuracy: Option<f64>,
    /// Mean over their classes of the share that is right.
    pub loo_balanced_accuracy: Option<f64>,
    /// λ of the linear head; `None` for prototypes.
    pub lambda: Option<f64>,
    /// Scores are `softmax(head scores / temperature)`.
    pub temperature: f64,
    /// Leave-one-out predictions.
    pub confusion: Confusion,
    /// Samples that the head fitted without them gets wrong: look at their labels first.
    pub suspects: Vec<SampleId>,
    /// When a frame is unknown.
    pub unknown: UnknownRule,
}

/// Counts of (true class, predicted class), classes in the job's order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    /// Number of classes.
    pub n_classes: usize,
    /// `[C, C]` row-major, a row for each true class.
    pub counts: Vec<u32>,
}

impl Confusion {
    /// Samples of class `truth` predicted as `predicted`.
    ///
    /// # Panics
    ///
    /// On an index out of range.
    pub fn get(&self, truth: usize, predicted: usize) -> u32 {
        assert!(
            truth < self.n_classes && predicted < self.n_classes,
            "class index out of range"
        );
        self.counts[truth * self.n_classes + predicted]
    }

    /// Share on the diagonal, and the mean of the rows' shares on the diagonal (rows without counts left out); `None` without counts.
    pub fn accuracies(&self) -> Option<(f64, f64)> {
        let rows: Vec<(f64, f64)> = (0..self.n_classes)
            .map(|c| {
                (
                    f64::from(self.get(c, c)),
                    (0..self.n_classes).map(|p| f64::from(self.get(c, p))).sum(),
                )
            })
            .filter(|(_, total)| *total > 0.0)
            .collect();
        let total: f64 = rows.iter().map(|(_, total)| total).sum();
        let balanced =
            rows.iter().map(|(hits, total)| hits / total).sum::<f64>() / rows.len() as f64;
        (total > 0.0).then(|| {
            (
                rows.iter().map(|(hits, _)| hits).sum::<f64>() / total,
                balanced,
            )
        })
    }

    pub(crate) fn new(n_classes: usize) -> Self {
        Self {
            n_classes,
            counts: vec![0; n_classes * n_classes],
        }
    }

    pub(crate) fn add(&mut self, truth: usize, predicted: usize) {
        self.counts[truth * self.n_classes + predicted] += 1;
    }
}

/// A head of either kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Head {
    Linear(Ridge),
    Prototype(Prototype),
}

impl Head {
    pub(crate) fn scores(&self, embedding: &[f32]) -> Vec<f64> {
        match self {
            Self::Linear(head) => head.scores(embedding),
            Self::Prototype(head) => head.scores(embedding),
        }
    }
}

/// A head, its calibration and its report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Fitted {
    pub(crate) head: Head,
    pub(crate) report: FitReport,
}

impl Fitted {
    /// Fits on `support`, whose samples are `ids`; `statistics` are asked for only in feature space.
    pub(crate) fn fit<'s>(
        support: &Support,
        ids: &[SampleId],
        statistics: impl FnOnce() -> Cow<'s, Statistics>,
        options: &FitOptions,
    ) -> Result<Self, AdaptError> {
        let unknown = UnknownRule::new(leave_one_out_distances(support), options.unknown_rate)?;
        let kind = match options.head {
            HeadKind::Discriminant => Some(LinearKind::Discriminant),
            HeadKind::Ridge => Some(LinearKind::Ridge),
            HeadKind::Prototype => None,
        };
        let (head, lambda, scores, calibration) = match kind {
            Some(kind) => {
                let fit = linear::fit(kind, support, statistics, options.lambda)?;
                (
                    Head::Linear(fit.head),
                    Some(fit.lambda),
                    fit.loo_scores,
                    fit.calibration,
                )
            }
            None => {
                let scores = Prototype::leave_one_out(support);
                let calibration = calibrate(&scores, support);
                (
                    Head::Prototype(Prototype::fit(support)),
                    None,
                    scores,
                    calibration,
                )
            }
        };
        let temperature = calibration.map_or(default_temperature(options.head), |c| c.temperature);
        let mut confusion = Confusion::new(support.n_classes());
        let mut suspects = Vec::new();
        for (i, row) in scores.chunks_exact(support.n_classes()).enumerate() {
            if support.evaluable(i) {
                let (label, predicted) = (support.labels()[i], argmax(row));
                confusion.add(label, predicted);
                if label != predicted {
                    suspects.push(ids[i]);
                }
            }
        }
        let (accuracy, balanced) = confusion.accuracies().unzip();
        let report = FitReport {
            n: support.len(),
            loo_n: support.n_evaluable(),
            loo_accuracy: accuracy,
            loo_balanced_accuracy: balanced,
            lambda,
            temperature,
            confusion,
            suspects,
            unknown,
        };
        Ok(Self { head, report })
    }

    /// Probabilities of the classes for an embedding, and the index of the best.
    pub(crate) fn classify(&self, embedding: &[f32]) -> (usize, Vec<f64>) {
        let scores = self.head.scores(embedding);
        (argmax(&scores), softmax(&scores, self.report.temperature))
    }
}

/// Index of the largest score, the first among equals.
pub(crate) fn argmax(scores: &[f64]) -> usize {
    let mut best = 0;
    for (i, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = i;
        }
    }
    best
}

/// Used when no class has two samples, so that nothing is known about the scores' reliability: for the linear heads, whose scores differ by
/// about 1 between a sample's own class and another one, a quarter of that; for cosines DINO's 0.07.
fn default_temperature(head: HeadKind) -> f64 {
    match head {
        HeadKind::Discriminant | HeadKind::Ridge => 0.25,
        HeadKind::Prototype => 0.07,
    }
}
