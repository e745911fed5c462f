//! Fitting a job, and its verdicts.

use super::surface::judge;
use super::{ClassId, Job, Sample, SampleId};
use crate::anomaly::{NormalReport, NormalVerdict, TokenGrid};
use crate::calibrate::softmax;
use crate::choose::Problem;
use crate::error::{AdaptError, check_embedding};
use crate::fitted::{FitOptions, FitReport, Fitted, argmax};
use crate::head::HeadKind;
use crate::history::Action;
use crate::linalg::dot32;
use crate::support::inverse_norm;

/// What a job says about a frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The class with the largest probability times cost, also when the frame is unknown.
    pub class: ClassId,
    /// Its name.
    pub name: String,
    /// Its probability, 0..1: how sure the job is, given that the frame is of one of its classes.
    pub score: f32,
    /// Whether the part may pass: the class is good, the frame not unknown and its surface not anomalous. `None` for a job without a good class.
    pub ok: Option<bool>,
    /// Whether the frame is unlike everything taught ([`UnknownRule`](crate::UnknownRule)).
    pub unknown: bool,
    /// How typical the frame is of what was taught: small if unlike ([`UnknownRule::p_value`](crate::UnknownRule::p_value)).
    pub p_value: f32,
    /// Probability of each class, in the order of [`Job::classes`]; they sum to 1.
    pub scores: Vec<f32>,
    /// The taught sample that the frame is most like.
    pub nearest: SampleId,
    /// `1 - cos` to it in what the head sees, 0..2.
    pub distance: f32,
    /// What the surface of the good samples says of the frame's, for a job that looks at surfaces.
    pub anomaly: Option<NormalVerdict>,
    /// The job's revision that gave the verdict.
    pub revision: u64,
}

/// Why a verdict is what it is, for records.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The job's revision.
    pub revision: u64,
    /// The encoder's hash, in hexadecimal.
    pub encoder: String,
    /// The head; `None` for a job of one class.
    pub head: Option<HeadKind>,
    /// The parts of the feature that it sees.
    pub parts: Vec<String>,
    /// Where the sample that the frame is most like comes from.
    pub nearest_source: String,
    /// When it was taught, in seconds since 1970-01-01 UTC.
    pub nearest_unix_time: i64,
    /// Its label.
    pub nearest_class: String,
}

impl Job {
    /// Fits the head, its temperature and the unknown rule on all samples. A job of one class has no head to fit: it tells what is unlike it.
    ///
    /// # Errors
    ///
    /// No class; a class without a sample (named); features that are all the same; an option out of range; a part that the features do not have.
    pub fn fit(&mut self, options: &FitOptions) -> Result<FitReport, AdaptError> {
        let labels = self.labels()?;
        let rows: Vec<&[f32]> = self
            .samples
            .iter()
            .map(|s| s.embedding.as_slice())
            .collect();
        let copies: Vec<&[Vec<f32>]> = self.samples.iter().map(|s| s.copies.as_slice()).collect();
        let problem = Problem {
            rows: &rows,
            labels: &labels,
            n_classes: self.classes.len(),
            layout: &self.layout,
            copies: &copies,
        };
        let ids: Vec<SampleId> = self.samples.iter().map(|sample| sample.id).collect();
        let tests = if self.has_good_tokens() { 2.0 } else { 1.0 };
        let options = FitOptions {
            unknown_rate: options.unknown_rate / tests,
            ..options.clone()
        };
        let fitted = Fitted::fit(&problem, &ids, &options, self.choice.as_ref())?;
        let fitted = Fitted {
            normal: self.fit_surface(options.unknown_rate)?,
            ..fitted
        };
        self.choice = fitted.choice();
        let report = fitted.report.clone();
        self.record(Action::Fit {
            head: report.head,
            parts: report.parts.clone(),
            samples: report.n,
        });
        self.fitted = Some(fitted);
        Ok(report)
    }

    fn labels(&self) -> Result<Vec<usize>, AdaptError> {
        if self.classes.is_empty() {
            return Err(AdaptError::TooFewClasses {
                found: "none".into(),
            });
        }
        let labels = self
            .samples
            .iter()
            .map(|sample| self.class_index(sample.class))
            .collect::<Result<Vec<_>, _>>()?;
        let mut counts = vec![0usize; self.classes.len()];
        labels.iter().for_each(|&label| counts[label] += 1);
        match counts.iter().position(|&n| n == 0) {
            Some(empty) => Err(AdaptError::EmptyClass {
                class: self.classes[empty].name.clone(),
            }),
            None => Ok(labels),
        }
    }

    /// The verdict on a frame's feature `[dim]`.
    ///
    /// # Errors
    ///
    /// A job that was not fitted since its last change; a feature of another length or with a value that is not finite.
    pub fn inspect(&self, embedding: &[f32]) -> Result<Verdict, AdaptError> {
        self.inspect_with(embedding, None)
    }

    /// Whether verdicts need the frame's patch tokens: the job learned the surface of good samples.
    pub fn needs_tokens(&self) -> bool {
        self.fitted
            .as_ref()
            .is_some_and(|fitted| fitted.normal.is_some())
    }

    /// What the surface of the good samples can promise, if the job learned it.
    pub fn surface_report(&self) -> Option<&NormalReport> {
        Some(self.fitted.as_ref()?.normal.as_ref()?.report())
    }

    /// The verdict on a frame's feature `[dim]` and, where [`Job::needs_tokens`], its patch tokens.
    ///
    /// # Errors
    ///
    /// As [`Job::inspect`]; [`AdaptError::TokensNeeded`]; tokens of another length than those that were taught.
    pub fn inspect_with(
        &self,
        embedding: &[f32],
        tokens: Option<&TokenGrid<'_>>,
    ) -> Result<Verdict, AdaptError> {
        let fitted = self.fitted.as_ref().ok_or(AdaptError::NotFitted)?;
        check_embedding(
            || "the frame to inspect".into(),
            embedding,
            self.encoder.dim,
        )?;
        let seen = fitted.view.of(embedding, self.layout.parts());
        let probabilities = softmax(&fitted.head.scores(&seen), fitted.report.temperature);
        let weighed: Vec<f64> = probabilities
            .iter()
            .zip(&self.classes)
            .map(|(p, class)| p * class.cost)
            .collect();
        let best = argmax(&weighed);
        let (nearest, distance) = self.nearest(fitted, &seen).ok_or(AdaptError::NotFitted)?;
        let class = &self.classes[best];
        let unknown = fitted.report.unknown.is_unknown(distance);
        let anomaly = match (&fitted.normal, tokens) {
            (None, _) => None,
            (Some(_), None) => return Err(AdaptError::TokensNeeded),
            (Some(normal), Some(tokens)) => Some(judge(normal, self.ignore.as_ref(), tokens)?),
        };
        let anomalous = anomaly.as_ref().is_some_and(|anomaly| anomaly.anomalous);
        let any_good = self.classes.iter().any(|class| class.good);
        Ok(Verdict {
            class: class.id,
            name: class.name.clone(),
            score: probabilities[best] as f32,
            ok: any_good.then_some(class.good && !unknown && !anomalous),
            unknown,
            p_value: fitted.report.unknown.p_value(distance) as f32,
            scores: probabilities.iter().map(|p| *p as f32).collect(),
            nearest,
            distance: distance as f32,
            anomaly,
            revision: self.revision,
        })
    }

    /// What stands behind a verdict of this job.
    ///
    /// # Errors
    ///
    /// A job that changed since the verdict, so that the sample may be gone.
    pub fn explain(&self, verdict: &Verdict) -> Result<Explanation, AdaptError> {
        let fitted = self.fitted.as_ref().ok_or(AdaptError::NotFitted)?;
        let nearest = self.sample(verdict.nearest)?;
        let hex = |hash: &[u8]| hash.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Explanation {
            revision: verdict.revision,
            encoder: hex(&self.encoder.hash),
            head: fitted.report.head,
            parts: fitted.report.parts.clone(),
            nearest_source: nearest.meta.source.clone(),
            nearest_unix_time: nearest.meta.unix_time,
            nearest_class: self.class(nearest.class)?.name.clone(),
        })
    }

    /// The sample with the largest cosine in what the head sees, the first among equals, and `1 - cos`.
    fn nearest(&self, fitted: &Fitted, seen: &[f32]) -> Option<(SampleId, f64)> {
        let inverse = inverse_norm(seen);
        let mut best: Option<(&Sample, f64)> = None;
        for (sample, unit) in self
            .samples
            .iter()
            .zip(fitted.units.chunks_exact(seen.len()))
        {
            let distance = (1.0 - dot32(seen, unit) * inverse).max(0.0);
            if best.is_none_or(|(_, smallest)| distance < smallest) {
                best = Some((sample, distance));
            }
        }
        best.map(|(sample, distance)| (sample.id, distance))
    }
}
