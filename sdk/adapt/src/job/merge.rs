//! Joining jobs, and moving a job to another encoder.

use super::{Class, EncoderId, Job, Sample, SampleTokens};
use crate::error::AdaptError;
use crate::fitted::{FitOptions, FitReport};
use crate::history::Action;
use crate::parts::Layout;

/// A job for another encoder, not in use yet: compare the reports, then take it or leave it.
#[derive(Clone, Debug)]
pub struct Migration {
    /// The same classes and samples with features of the other encoder, fitted.
    pub job: Job,
    /// The job's own report, if it was fitted.
    pub before: Option<FitReport>,
    /// What the fit of the new features found.
    pub after: FitReport,
}

/// What another encoder sees of a sample.
#[derive(Clone, Debug)]
pub struct Remade {
    /// Its feature.
    pub feature: Vec<f32>,
    /// Its patch tokens, if the job looks at surfaces: those that it has where they do not depend on the encoder, or new ones; `None` if there are
    /// none to be had.
    pub tokens: Option<SampleTokens>,
    /// Features of copies of the frame.
    pub copies: Vec<Vec<f32>>,
}

impl Job {
    /// Adds the classes (by name) and samples of a job over the same encoder. Samples that both have are added once. The job must be fitted again;
    /// the order of merging changes nothing but ids. A class of both is good if both say so, and costs what it costs in the job where it costs
    /// more. Returns the number of samples that were new.
    ///
    /// # Errors
    ///
    /// [`AdaptError::EncoderMismatch`]; features of other parts; another ignore mask; [`AdaptError::Contradiction`]: a frame that the jobs label
    /// differently. The job is then as before.
    pub fn merge(&mut self, other: &Job) -> Result<usize, AdaptError> {
        self.check_encoder(&other.encoder)?;
        if self.layout != other.layout {
            return Err(AdaptError::Shape {
                what: "parts of the other job's features",
                expected: self.layout.parts().len(),
                got: other.layout.parts().len(),
            });
        }
        let tokens = |job: &Job| job.samples.iter().any(|sample| sample.tokens.is_some());
        if tokens(self) && tokens(other) && self.surface != other.surface {
            return Err(AdaptError::BadOption {
                name: "surface of the other job",
                value: other.surface.clone().unwrap_or_default(),
                range: "this job's own",
            });
        }
        let mut merged = self.clone();
        let same_surface = self.surface.is_none() || self.surface == other.surface;
        if self.samples.is_empty() && self.ignore.is_none() && same_surface {
            merged.surface.clone_from(&other.surface);
            merged.ignore.clone_from(&other.ignore);
        }
        if merged.ignore != other.ignore && !other.samples.is_empty() {
            return Err(AdaptError::BadOption {
                name: "ignore mask of the other job",
                value: "another one".into(),
                range: "this job's own; give both jobs the same mask, or none",
            });
        }
        if tokens(other) {
            merged.surface.clone_from(&other.surface);
        }
        for class in &other.classes {
            merged.merge_class(class)?;
        }
        let mut added = 0;
        for sample in &other.samples {
            let name = &other.class(sample.class)?.name;
            let class = match merged.class_named(name) {
                Some(class) => class.id,
                None => merged.add_class(name)?,
            };
            match merged.taught(&sample.embedding) {
                Some(known) if known.class == class => continue,
                Some(known) => return Err(merged.taught_already(known, class, &sample.meta)),
                None => {}
            }
            let id = merged.add_sample_with_thumbnail(
                class,
                &sample.embedding,
                sample.meta.clone(),
                sample.thumbnail.clone(),
            )?;
            let index = merged.sample_index(id)?;
            merged.samples[index].tokens.clone_from(&sample.tokens);
            merged.samples[index].copies.clone_from(&sample.copies);
            added += 1;
        }
        merged.record(Action::MergeJob { samples: added });
        merged.forget_undo();
        merged.fitted = None;
        *self = merged;
        Ok(added)
    }

    /// Adds a class of another job, or joins it with the one of that name.
    fn merge_class(&mut self, theirs: &Class) -> Result<(), AdaptError> {
        let (id, good, cost) = match self.class_named(&theirs.name) {
            Some(ours) => (
                ours.id,
                ours.good && theirs.good,
                ours.cost.max(theirs.cost),
            ),
            None => (self.add_class(&theirs.name)?, theirs.good, theirs.cost),
        };
        let now = self.class(id)?.clone();
        if now.good != good {
            self.set_good(id, good)?;
        }
        if now.cost != cost {
            self.set_cost(id, cost)?;
        }
        Ok(())
    }

    /// The job with features and patch tokens of another encoder, which `remake` makes of each sample, from its thumbnail as a rule. This job stays as
    /// it is. The other one looks at the same surface, as far as its samples have tokens, with the same ignore mask.
    ///
    /// # Errors
    ///
    /// What `remake` returns; features of another length than `layout`; as [`Job::fit`].
    pub fn migrate<E: From<AdaptError>>(
        &self,
        encoder: EncoderId,
        layout: Layout,
        options: &FitOptions,
        mut remake: impl FnMut(&Sample) -> Result<Remade, E>,
    ) -> Result<Migration, E> {
        let mut job = Job::with_layout(encoder, layout)?;
        job.classes = self.classes.clone();
        job.next_class = self.next_class;
        job.next_sample = self.next_sample;
        job.surface = self.surface.clone();
        job.ignore = self.ignore.clone();
        job.revision = self.revision;
        job.history = self.history.clone();
        job.operator = self.operator.clone();
        for sample in &self.samples {
            let Remade {
                feature,
                tokens,
                copies,
            } = remake(sample)?;
            for values in std::iter::once(&feature).chain(&copies) {
                crate::error::check_embedding(
                    || format!("sample {} (`{}`)", sample.id.0, sample.meta.source),
                    values,
                    encoder.dim,
                )?;
            }
            job.insert(Sample {
                embedding: feature,
                tokens,
                copies,
                ..sample.clone()
            });
        }
        job.record(Action::NewEncoder {
            from: self.encoder.hash,
            to: encoder.hash,
        });
        let after = job.fit(options)?;
        Ok(Migration {
            job,
            before: self.report().cloned(),
            after,
        })
    }
}
