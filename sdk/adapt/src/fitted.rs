//! A fitted head with all that leave-one-out says about it.

use crate::anomaly::Normal;
use crate::augment::{self, Augmentation};
use crate::calibrate::softmax;
use crate::candidate::Candidate;
use crate::choose::{Problem, Tried};
use crate::error::AdaptError;
use crate::head::{Head, HeadKind};
use crate::job::SampleId;
use crate::parts::{Part, Selection, View};
use crate::reliability::{Reliability, wilson};
use crate::support::{Support, normalised_rows};
use crate::unknown::{UnknownRule, some_nearest_others};
use serde::{Deserialize, Serialize};

/// How to fit a job.
#[derive(Clone, Debug, PartialEq)]
pub struct FitOptions {
    /// The head; `None` for the one chosen before, or at first the shrinkage discriminant.
    pub head: Option<HeadKind>,
    /// Names of the parts of the features that the head sees; `None` for those chosen before, or at first the preferred ones.
    pub parts: Option<Vec<String>>,
    /// Whether to compare heads and parts by leave-one-out and change to others where they prove better; `head` and `parts` must be `None`.
    /// Takes tens of milliseconds with few samples and classes, a quarter of a second with 100 samples of 10 classes: logistic regression is the slow one.
    pub search: bool,
    /// λ of the linear heads; `None` chooses it: by shrinkage for [`HeadKind::Lda`], by leave-one-out for the others.
    pub lambda: Option<f64>,
    /// Share of frames of the taught kinds that may be called unlike what was taught, by all tests together ([`Job::false_alarms`]); below 1, and 0
    /// turns the tests off. Where the job looks at surfaces too, each of its two tests gets half.
    ///
    /// [`Job::false_alarms`]: crate::Job::false_alarms
    pub unknown_rate: f64,
}

impl Default for FitOptions {
    /// What was chosen before, or the shrinkage discriminant on the preferred parts; an unknown rate of 0.05.
    fn default() -> Self {
        Self {
            head: None,
            parts: None,
            search: false,
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
    /// The head; `None` for a job of one class.
    pub head: Option<HeadKind>,
    /// Names of the parts of the features that it sees.
    pub parts: Vec<String>,
    /// Samples left out in turn; 0 when no class has two.
    pub loo_n: usize,
    /// Share of them that the head fitted without them gets right; `None` when there are none.
    pub loo_accuracy: Option<f64>,
    /// 95 % interval of it (Wilson), as far as the samples stand for the line.
    pub loo_interval: Option<(f64, f64)>,
    /// Mean over their classes of the share that is right.
    pub loo_balanced_accuracy: Option<f64>,
    /// How far probabilities can be believed, by leave-one-out.
    pub reliability: Option<Reliability>,
    /// λ of the linear head; `None` for the others.
    pub lambda: Option<f64>,
    /// Scores are `softmax(head scores / temperature)`.
    pub temperature: f64,
    /// Leave-one-out predictions.
    pub confusion: Confusion,
    /// Samples that the head fitted without them gets wrong, the surest mistakes first: look at their labels.
    pub suspects: Vec<SampleId>,
    /// Index of the class of which more samples would help most: the one whose share of right ones may be the lowest (lower end of its Wilson
    /// interval), or the smallest one when nothing can be left out. `None` for a job of one class.
    pub needs_more: Option<usize>,
    /// When a frame is unknown.
    pub unknown: UnknownRule,
    /// What [`FitOptions::search`] compared, the reference first.
    pub tried: Vec<Tried>,
    /// Whether copies of the samples make the head better; `None` if there are none.
    #[serde(skip)]
    pub augmentation: Option<Augmentation>,
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

    /// Right ones and all of class `truth`.
    pub fn row(&self, truth: usize) -> (u32, u32) {
        let all = (0..self.n_classes).map(|p| self.get(truth, p)).sum();
        (self.get(truth, truth), all)
    }

    /// Share on the diagonal, and the mean of the rows' shares on the diagonal (rows without counts left out); `None` without counts.
    pub fn accuracies(&self) -> Option<(f64, f64)> {
        let rows: Vec<(f64, f64)> = (0..self.n_classes)
            .map(|c| self.row(c))
            .map(|(hits, total)| (f64::from(hits), f64::from(total)))
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

    /// Adds the counts of another one over the same classes.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (own, other) in self.counts.iter_mut().zip(&other.counts) {
            *own += other;
        }
    }
}

/// A head, what it sees, and its report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Fitted {
    pub(crate) view: View,
    pub(crate) head: Head,
    pub(crate) report: FitReport,
    /// The surface of the good samples.
    pub(crate) normal: Option<Normal>,
    /// What the head sees of the samples, of norm 1, `[N, D]`; made again when a job is loaded.
    #[serde(skip)]
    pub(crate) units: Vec<f32>,
}

impl Fitted {
    /// Fits on the problem's rows, which are the samples `ids`; `before` is what was chosen before.
    pub(crate) fn fit(
        problem: &Problem,
        ids: &[SampleId],
        options: &FitOptions,
        before: Option<&(HeadKind, Selection)>,
    ) -> Result<Self, AdaptError> {
        let selection = match (&options.parts, before) {
            (Some(names), _) => problem.layout.named(names)?,
            (None, Some((_, selection))) => selection.clone(),
            (None, None) => problem.layout.preferred().to_vec(),
        };
        if problem.n_classes == 1 {
            return Self::of_one_class(problem, selection, options.unknown_rate);
        }
        let (view, candidate, tried) = if options.search {
            if options.head.is_some() || options.parts.is_some() || options.lambda.is_some() {
                return Err(AdaptError::BadOption {
                    name: "search",
                    value: "true".into(),
                    range: "false where head, parts or lambda are given",
                });
            }
            let choice = problem.choose()?;
            (choice.view, choice.candidate, choice.tried)
        } else {
            let kind = options.head.or(before.map(|(kind, _)| *kind));
            let kind = kind.unwrap_or(HeadKind::Lda);
            let (view, candidate) = problem.fit(kind, &selection, options.lambda)?;
            (view, candidate, Vec::new())
        };
        let (candidate, augmentation) = match augment::with_copies(problem, &view, &candidate)? {
            Some((with, found)) if found.kept => (with, Some(found)),
            found => (candidate, found.map(|(_, found)| found)),
        };
        let seen = problem.seen(&view);
        let support = problem.support(&seen)?;
        let unit = support.normalised();
        let distances = some_nearest_others(&unit, |sample| support.evaluable(sample));
        let unknown = UnknownRule::new(distances, options.unknown_rate)?;
        let parts = problem.layout.parts();
        let report = FitReport {
            tried,
            augmentation,
            ..report(&support, ids, &candidate, &view, parts, unknown)
        };
        Ok(Self {
            units: unit.data,
            view,
            head: candidate.head,
            report,
            normal: None,
        })
    }

    fn of_one_class(
        problem: &Problem,
        selection: Selection,
        unknown_rate: f64,
    ) -> Result<Self, AdaptError> {
        let parts = problem.layout.parts();
        let view = View::new(problem.rows, parts, selection);
        let seen = problem.seen(&view);
        let (n, dim) = (problem.rows.len(), view.dim(parts));
        let unit = normalised_rows(seen.chunks_exact(dim), n, dim);
        let distances = some_nearest_others(&unit, |_| n > 1);
        let report = FitReport {
            n,
            head: None,
            parts: view.names(parts),
            loo_n: 0,
            loo_accuracy: None,
            loo_interval: None,
            loo_balanced_accuracy: None,
            reliability: None,
            lambda: None,
            temperature: 1.0,
            confusion: Confusion::new(1),
            suspects: Vec::new(),
            needs_more: None,
            unknown: UnknownRule::new(distances, unknown_rate)?,
            tried: Vec::new(),
            augmentation: None,
        };
        Ok(Self {
            units: unit.data,
            view,
            head: Head::One,
            report,
            normal: None,
        })
    }

    /// Head and parts, for the next fit; `None` for a job of one class.
    pub(crate) fn choice(&self) -> Option<(HeadKind, Selection)> {
        Some((self.report.head?, self.view.selection.clone()))
    }

    /// Makes [`Self::units`] of the samples' features.
    pub(crate) fn see<'r>(&mut self, rows: impl Iterator<Item = &'r [f32]>, parts: &[Part]) {
        let dim = self.view.dim(parts);
        let seen: Vec<Vec<f32>> = rows.map(|row| self.view.of(row, parts)).collect();
        self.units = normalised_rows(seen.iter().map(Vec::as_slice), seen.len(), dim).data;
    }
}

fn report(
    support: &Support,
    ids: &[SampleId],
    candidate: &Candidate,
    view: &View,
    parts: &[Part],
    unknown: UnknownRule,
) -> FitReport {
    let n_classes = support.n_classes();
    let temperature = candidate.temperature();
    let mut confusion = Confusion::new(n_classes);
    let mut suspects: Vec<(f64, SampleId)> = Vec::new();
    for (i, row) in candidate.loo_scores.chunks_exact(n_classes).enumerate() {
        if support.evaluable(i) {
            let (label, predicted) = (support.labels()[i], argmax(row));
            confusion.add(label, predicted);
            if label != predicted {
                let p = softmax(row, temperature);
                suspects.push((p[label] - p[predicted], ids[i]));
            }
        }
    }
    let rows = candidate.loo_scores.chunks_exact(n_classes).enumerate();
    let probabilities = rows
        .filter(|(i, _)| support.evaluable(*i))
        .map(|(i, row)| (softmax(row, temperature), support.labels()[i]));
    let reliability = Reliability::of(probabilities);
    suspects.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (accuracy, balanced) = confusion.accuracies().unzip();
    let loo_n = support.n_evaluable();
    FitReport {
        n: support.len(),
        head: Some(candidate.kind),
        parts: view.names(parts),
        loo_n,
        loo_accuracy: accuracy,
        loo_interval: accuracy.map(|share| wilson((share * loo_n as f64).round(), loo_n as f64)),
        loo_balanced_accuracy: balanced,
        reliability,
        lambda: candidate.lambda,
        temperature,
        needs_more: Some(needs_more(support, &confusion)),
        confusion,
        suspects: suspects.into_iter().map(|(_, id)| id).collect(),
        unknown,
        tried: Vec::new(),
        augmentation: None,
    }
}

fn needs_more(support: &Support, confusion: &Confusion) -> usize {
    let worst = |class: usize| match confusion.row(class) {
        (_, 0) => 0.0,
        (hits, all) => wilson(f64::from(hits), f64::from(all)).0,
    };
    let key = |class: &usize| (worst(*class), support.counts()[*class]);
    let mut best = 0;
    for class in 1..support.n_classes() {
        if key(&class) < key(&best) {
            best = class;
        }
    }
    best
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
