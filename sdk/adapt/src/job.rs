//! The job: what an operator teaches, and the verdicts that follow.

use crate::error::{AdaptError, check_embedding};
use crate::fitted::{FitOptions, FitReport, Fitted};
use crate::head::statistics::Statistics;
use crate::linalg::dot32;
use crate::support::{Support, inverse_norm};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The encoder that a job's embeddings come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncoderId {
    /// The bundle's encoder hash.
    pub hash: [u8; 32],
    /// Length of its embeddings.
    pub dim: usize,
}

/// Names a class within its job; never used again after the class is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClassId(pub u32);

/// Names a sample within its job; never used again after the sample is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SampleId(pub u64);

/// A class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Class {
    /// Its id.
    pub id: ClassId,
    /// Its name, unique in the job.
    pub name: String,
}

/// Where a sample comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleMeta {
    /// A path, a camera, a person: for messages and records.
    pub source: String,
    /// When it was taught, in seconds since 1970-01-01 UTC; 0 if not known.
    pub unix_time: i64,
}

/// A taught sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Its id.
    pub id: SampleId,
    /// Its label.
    pub class: ClassId,
    /// `[dim]`.
    pub embedding: Vec<f32>,
    /// Its origin.
    pub meta: SampleMeta,
}

/// What a job says about a frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The best class, also when the frame is unknown.
    pub class: ClassId,
    /// Its name.
    pub name: String,
    /// Its probability, 0..1: how sure the job is, given that the frame is of one of its classes.
    pub score: f32,
    /// Whether the frame is unlike everything taught ([`UnknownRule`](crate::UnknownRule)).
    pub unknown: bool,
    /// Probability of each class, in the order of [`Job::classes`]; they sum to 1.
    pub scores: Vec<f32>,
    /// The taught sample that the frame is most like.
    pub nearest: SampleId,
    /// `1 - cos` to it, 0..2.
    pub distance: f32,
}

/// Classes, samples and the head fitted on them. Reading is thread-safe; changing needs exclusive access.
#[derive(Clone, Debug)]
pub struct Job {
    pub(crate) encoder: EncoderId,
    pub(crate) classes: Vec<Class>,
    /// By rising id.
    pub(crate) samples: Vec<Sample>,
    pub(crate) next_class: u32,
    pub(crate) next_sample: u64,
    pub(crate) fitted: Option<Fitted>,
    /// Kept up to date from the first fit in feature space on.
    statistics: Option<Statistics>,
}

impl Job {
    /// A job without classes for the embeddings of one encoder.
    pub fn new(encoder: EncoderId) -> Self {
        Self::restore(encoder, Vec::new(), Vec::new(), (0, 0), None)
    }

    pub(crate) fn restore(
        encoder: EncoderId,
        classes: Vec<Class>,
        samples: Vec<Sample>,
        next: (u32, u64),
        fitted: Option<Fitted>,
    ) -> Self {
        Self {
            encoder,
            classes,
            samples,
            next_class: next.0,
            next_sample: next.1,
            fitted,
            statistics: None,
        }
    }

    /// The encoder that the embeddings come from.
    pub fn encoder(&self) -> &EncoderId {
        &self.encoder
    }

    /// Checks that `encoder` is the job's own.
    ///
    /// # Errors
    ///
    /// [`AdaptError::EncoderMismatch`], which names both.
    pub fn check_encoder(&self, encoder: &EncoderId) -> Result<(), AdaptError> {
        if self.encoder == *encoder {
            return Ok(());
        }
        let short = |id: &EncoderId| {
            id.hash[..6]
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        Err(AdaptError::EncoderMismatch {
            job: short(&self.encoder),
            job_dim: self.encoder.dim,
            given: short(encoder),
            given_dim: encoder.dim,
        })
    }

    /// The classes, in the order they were added.
    pub fn classes(&self) -> &[Class] {
        &self.classes
    }

    /// The samples, in the order they were added.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// The class with this id.
    ///
    /// # Errors
    ///
    /// [`AdaptError::UnknownClass`].
    pub fn class(&self, id: ClassId) -> Result<&Class, AdaptError> {
        Ok(&self.classes[self.class_index(id)?])
    }

    /// The class with this name.
    pub fn class_named(&self, name: &str) -> Option<&Class> {
        self.classes.iter().find(|class| class.name == name)
    }

    /// The sample with this id.
    ///
    /// # Errors
    ///
    /// [`AdaptError::UnknownSample`].
    pub fn sample(&self, id: SampleId) -> Result<&Sample, AdaptError> {
        Ok(&self.samples[self.sample_index(id)?])
    }

    /// The report of the last fit, if nothing changed since.
    pub fn report(&self) -> Option<&FitReport> {
        self.fitted.as_ref().map(|fitted| &fitted.report)
    }

    /// Adds a class. The job must be fitted again.
    ///
    /// # Errors
    ///
    /// An empty name, or one that the job has.
    pub fn add_class(&mut self, name: &str) -> Result<ClassId, AdaptError> {
        self.check_name(name, None)?;
        let id = ClassId(self.next_class);
        self.next_class += 1;
        self.classes.push(Class {
            id,
            name: name.into(),
        });
        self.fitted = None;
        if let Some(statistics) = &mut self.statistics {
            statistics.add_class();
        }
        Ok(id)
    }

    /// Gives a class another name. A fitted head stays fitted.
    ///
    /// # Errors
    ///
    /// No such class; an empty name, or one that another class has.
    pub fn rename_class(&mut self, id: ClassId, name: &str) -> Result<(), AdaptError> {
        let index = self.class_index(id)?;
        self.check_name(name, Some(id))?;
        self.classes[index].name = name.into();
        Ok(())
    }

    /// Removes a class and its samples. The job must be fitted again.
    ///
    /// # Errors
    ///
    /// [`AdaptError::UnknownClass`].
    pub fn remove_class(&mut self, id: ClassId) -> Result<(), AdaptError> {
        let index = self.class_index(id)?;
        if let Some(statistics) = &mut self.statistics {
            for sample in self.samples.iter().filter(|sample| sample.class == id) {
                statistics.remove(index, &sample.embedding)?;
            }
            statistics.remove_class(index)?;
        }
        self.samples.retain(|sample| sample.class != id);
        self.classes.remove(index);
        self.fitted = None;
        Ok(())
    }

    /// Adds a sample with its embedding `[dim]`. The job must be fitted again.
    ///
    /// # Errors
    ///
    /// No such class; an embedding of another length or with a value that is not finite (the message names the source).
    pub fn add_sample(
        &mut self,
        class: ClassId,
        embedding: &[f32],
        meta: SampleMeta,
    ) -> Result<SampleId, AdaptError> {
        let index = self.class_index(class)?;
        check_embedding(
            || format!("sample {} (`{}`)", self.next_sample, meta.source),
            embedding,
            self.encoder.dim,
        )?;
        if let Some(statistics) = &mut self.statistics {
            statistics.add(index, embedding)?;
        }
        let id = SampleId(self.next_sample);
        self.next_sample += 1;
        self.samples.push(Sample {
            id,
            class,
            embedding: embedding.to_vec(),
            meta,
        });
        self.fitted = None;
        Ok(id)
    }

    /// Removes a sample; a later fit is as if it had never been there. The job must be fitted again.
    ///
    /// # Errors
    ///
    /// [`AdaptError::UnknownSample`].
    pub fn remove_sample(&mut self, id: SampleId) -> Result<Sample, AdaptError> {
        let index = self.sample_index(id)?;
        let class = self.class_index(self.samples[index].class)?;
        if let Some(statistics) = &mut self.statistics {
            statistics.remove(class, &self.samples[index].embedding)?;
        }
        self.fitted = None;
        Ok(self.samples.remove(index))
    }

    /// Fits the head, its temperature and the unknown rule on all samples.
    ///
    /// # Errors
    ///
    /// Fewer than two classes; a class without a sample (named); embeddings that are all the same; an option out of range.
    pub fn fit(&mut self, options: &FitOptions) -> Result<FitReport, AdaptError> {
        if self.classes.len() < 2 {
            let found = self
                .classes
                .first()
                .map_or("none".into(), |class| format!("only `{}`", class.name));
            return Err(AdaptError::TooFewClasses { found });
        }
        let labels = self
            .samples
            .iter()
            .map(|sample| self.class_index(sample.class))
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(empty) = (0..self.classes.len()).find(|class| !labels.contains(class)) {
            return Err(AdaptError::EmptyClass {
                class: self.classes[empty].name.clone(),
            });
        }
        let embeddings = self
            .samples
            .iter()
            .map(|sample| sample.embedding.as_slice())
            .collect();
        let support = Support::new(embeddings, labels, self.classes.len())?;
        let ids: Vec<SampleId> = self.samples.iter().map(|sample| sample.id).collect();
        let statistics = &mut self.statistics;
        let fitted = Fitted::fit(
            &support,
            &ids,
            || Cow::Borrowed(&*statistics.get_or_insert_with(|| Statistics::of(&support))),
            options,
        )?;
        Ok(self.fitted.insert(fitted).report.clone())
    }

    /// The verdict on a frame's embedding `[dim]`.
    ///
    /// # Errors
    ///
    /// A job that was not fitted since its last change; an embedding of another length or with a value that is not finite.
    pub fn inspect(&self, embedding: &[f32]) -> Result<Verdict, AdaptError> {
        let fitted = self.fitted.as_ref().ok_or(AdaptError::NotFitted)?;
        check_embedding(
            || "the frame to inspect".into(),
            embedding,
            self.encoder.dim,
        )?;
        let (best, scores) = fitted.classify(embedding);
        let (nearest, distance) = self.nearest(embedding).ok_or(AdaptError::NotFitted)?;
        let class = &self.classes[best];
        Ok(Verdict {
            class: class.id,
            name: class.name.clone(),
            score: scores[best] as f32,
            unknown: fitted.report.unknown.is_unknown(distance),
            scores: scores.iter().map(|score| *score as f32).collect(),
            nearest,
            distance: distance as f32,
        })
    }

    /// The sample with the largest cosine, the first among equals, and `1 - cos`.
    fn nearest(&self, embedding: &[f32]) -> Option<(SampleId, f64)> {
        let inverse = inverse_norm(embedding);
        let mut best: Option<(SampleId, f64)> = None;
        for sample in &self.samples {
            let cosine =
                dot32(embedding, &sample.embedding) * inverse * inverse_norm(&sample.embedding);
            let distance = (1.0 - cosine).max(0.0);
            if best.is_none_or(|(_, smallest)| distance < smallest) {
                best = Some((sample.id, distance));
            }
        }
        best
    }

    fn class_index(&self, id: ClassId) -> Result<usize, AdaptError> {
        self.classes
            .binary_search_by_key(&id, |class| class.id)
            .map_err(|_| AdaptError::UnknownClass { id: id.0 })
    }

    fn sample_index(&self, id: SampleId) -> Result<usize, AdaptError> {
        self.samples
            .binary_search_by_key(&id, |sample| sample.id)
            .map_err(|_| AdaptError::UnknownSample { id: id.0 })
    }

    fn check_name(&self, name: &str, except: Option<ClassId>) -> Result<(), AdaptError> {
        if name.trim().is_empty() {
            return Err(AdaptError::EmptyClassName);
        }
        match self.class_named(name) {
            Some(class) if Some(class.id) != except => {
                Err(AdaptError::DuplicateClass { name: name.into() })
            }
            _ => Ok(()),
        }
    }
}
