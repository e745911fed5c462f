//! What alters a job. Every change is recorded, and the last ones can be taken back; a fit after it is a fresh fit of what is there.

use super::{Class, ClassId, IgnoreMask, Job, Sample, SampleId, SampleMeta};
use crate::error::{AdaptError, check_embedding};
use crate::history::{Action, Record};

/// Changes that [`Job::undo`] can take back; they are not saved.
const UNDO: usize = 64;

/// How to take a change back.
#[derive(Clone, Debug)]
pub(crate) enum Undo {
    AddClass(ClassId),
    Class(Class),
    /// A class that was removed or merged: its index, itself, and its samples (removed ones whole, merged ones by id).
    RemovedClass(usize, Class, Vec<Sample>),
    MergedClass(usize, Class, Vec<SampleId>),
    AddSample(SampleId),
    Relabel(SampleId, ClassId),
    RemovedSample(Sample),
    Ignore(Option<IgnoreMask>),
}

impl Job {
    /// Says who works with the job from now on, and when, for its records.
    pub fn set_operator(&mut self, by: &str, unix_time: i64) {
        self.operator = (by.into(), unix_time);
    }

    /// Adds a class. It is good if its name says so (`good`, `ok`, `pass`, `normal`, in any case); see [`Job::set_good`]. The job must be fitted
    /// again.
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
            good: ["good", "ok", "pass", "normal"].contains(&name.trim().to_lowercase().as_str()),
            cost: 1.0,
        });
        let action = Action::AddClass {
            class: id,
            name: name.into(),
        };
        self.changed(action, Undo::AddClass(id));
        self.fitted = None;
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
        let before = self.classes[index].clone();
        self.classes[index].name = name.into();
        let action = Action::RenameClass {
            class: id,
            from: before.name.clone(),
            to: name.into(),
        };
        self.changed(action, Undo::Class(before));
        Ok(())
    }

    /// Says whether a part of the class may pass. A fitted head stays fitted.
    ///
    /// # Errors
    ///
    /// [`AdaptError::UnknownClass`].
    pub fn set_good(&mut self, id: ClassId, good: bool) -> Result<(), AdaptError> {
        let index = self.class_index(id)?;
        let before = self.classes[index].clone();
        self.classes[index].good = good;
        self.changed(Action::SetGood { class: id, good }, Undo::Class(before));
        Ok(())
    }

    /// Sets what it costs to take a frame of the class for another one, beside the other classes (1 at first): a verdict is the class with the
    /// largest probability times cost. A fitted head stays fitted.
    ///
    /// # Errors
    ///
    /// No such class; a cost that is not above 0 and finite.
    pub fn set_cost(&mut self, id: ClassId, cost: f64) -> Result<(), AdaptError> {
        let index = self.class_index(id)?;
        if !(cost > 0.0 && cost.is_finite()) {
            return Err(AdaptError::BadOption {
                name: "cost",
                value: cost.to_string(),
                range: "above 0 and finite",
            });
        }
        let before = self.classes[index].clone();
        self.classes[index].cost = cost;
        self.changed(Action::SetCost { class: id, cost }, Undo::Class(before));
        Ok(())
    }

    /// Removes a class and its samples. The job must be fitted again.
    ///
    /// # Errors
    ///
    /// [`AdaptError::UnknownClass`].
    pub fn remove_class(&mut self, id: ClassId) -> Result<(), AdaptError> {
        let index = self.class_index(id)?;
        let class = self.classes.remove(index);
        let (gone, kept) = std::mem::take(&mut self.samples)
            .into_iter()
            .partition(|sample| sample.class == id);
        self.samples = kept;
        let gone: Vec<Sample> = gone;
        gone.iter().for_each(|sample| self.drop_feature(sample));
        let action = Action::RemoveClass {
            class: id,
            name: class.name.clone(),
            samples: gone.len(),
        };
        self.changed(action, Undo::RemovedClass(index, class, gone));
        self.fitted = None;
        Ok(())
    }

    /// Gives all samples of `from` the label `into` and removes `from`. The job must be fitted again.
    ///
    /// # Errors
    ///
    /// No such class; a class with itself.
    pub fn merge_classes(&mut self, from: ClassId, into: ClassId) -> Result<(), AdaptError> {
        let index = self.class_index(from)?;
        self.class_index(into)?;
        if from == into {
            return Err(AdaptError::BadOption {
                name: "class to merge with",
                value: self.classes[index].name.clone(),
                range: "another class",
            });
        }
        let class = self.classes.remove(index);
        let mut moved = Vec::new();
        for sample in self.samples.iter_mut().filter(|s| s.class == from) {
            sample.class = into;
            moved.push(sample.id);
        }
        let action = Action::MergeClasses {
            from,
            into,
            samples: moved.len(),
        };
        self.changed(action, Undo::MergedClass(index, class, moved));
        self.fitted = None;
        Ok(())
    }

    /// Adds a sample with its feature `[dim]`. The job must be fitted again.
    ///
    /// # Errors
    ///
    /// No such class; a feature of another length or with a value that is not finite (the message names the source); a frame that was taught
    /// already, with this label ([`AdaptError::Duplicate`]) or with another one ([`AdaptError::Contradiction`]).
    pub fn add_sample(
        &mut self,
        class: ClassId,
        embedding: &[f32],
        meta: SampleMeta,
    ) -> Result<SampleId, AdaptError> {
        self.add_sample_with_thumbnail(class, embedding, meta, Vec::new())
    }

    /// The same with an encoded picture of the frame, for [`Job::migrate`].
    ///
    /// # Errors
    ///
    /// As [`Job::add_sample`].
    pub fn add_sample_with_thumbnail(
        &mut self,
        class: ClassId,
        embedding: &[f32],
        meta: SampleMeta,
        thumbnail: Vec<u8>,
    ) -> Result<SampleId, AdaptError> {
        self.class_index(class)?;
        check_embedding(
            || format!("sample {} (`{}`)", self.next_sample, meta.source),
            embedding,
            self.encoder.dim,
        )?;
        if let Some(other) = self.taught(embedding) {
            return Err(self.taught_already(other, class, &meta));
        }
        let id = SampleId(self.next_sample);
        self.next_sample += 1;
        let action = Action::AddSample {
            sample: id,
            class,
            source: meta.source.clone(),
        };
        self.insert(Sample {
            id,
            class,
            embedding: embedding.to_vec(),
            meta,
            thumbnail,
            tokens: None,
            copies: Vec::new(),
        });
        self.changed(action, Undo::AddSample(id));
        self.fitted = None;
        Ok(id)
    }

    /// Keeps features of copies of a sample's frame, each `[dim]`, in place of those that it has. The job must be fitted again, and takes copies for
    /// the head where they prove to help.
    ///
    /// # Errors
    ///
    /// No such sample; a feature of another length or with a value that is not finite.
    pub fn set_sample_copies(
        &mut self,
        id: SampleId,
        copies: Vec<Vec<f32>>,
    ) -> Result<(), AdaptError> {
        let index = self.sample_index(id)?;
        for (copy, feature) in copies.iter().enumerate() {
            let what = || format!("copy {copy} of sample {}", id.0);
            check_embedding(what, feature, self.encoder.dim)?;
        }
        self.samples[index].copies = copies;
        self.fitted = None;
        Ok(())
    }

    /// Gives a sample another label. The job must be fitted again.
    ///
    /// # Errors
    ///
    /// No such sample or class.
    pub fn relabel_sample(&mut self, id: SampleId, class: ClassId) -> Result<(), AdaptError> {
        let index = self.sample_index(id)?;
        self.class_index(class)?;
        let from = std::mem::replace(&mut self.samples[index].class, class);
        let action = Action::Relabel {
            sample: id,
            from,
            to: class,
        };
        self.changed(action, Undo::Relabel(id, from));
        self.fitted = None;
        Ok(())
    }

    /// Removes a sample; a later fit is as if it had never been there. The job must be fitted again.
    ///
    /// # Errors
    ///
    /// [`AdaptError::UnknownSample`].
    pub fn remove_sample(&mut self, id: SampleId) -> Result<Sample, AdaptError> {
        let index = self.sample_index(id)?;
        let sample = self.samples.remove(index);
        self.drop_feature(&sample);
        let action = Action::RemoveSample {
            sample: id,
            class: sample.class,
            source: sample.meta.source.clone(),
        };
        self.changed(action, Undo::RemovedSample(sample.clone()));
        self.fitted = None;
        Ok(sample)
    }

    /// Takes the last change of classes or samples back, up to 64 of them since the job was made or loaded; fits are no changes. The job must be
    /// fitted again. Returns the revision whose change it was, or `None` if there is nothing to take back.
    pub fn undo(&mut self) -> Option<u64> {
        let (revision, undo) = self.undo.pop()?;
        match undo {
            Undo::AddClass(id) => self.classes.retain(|class| class.id != id),
            Undo::Class(class) => {
                if let Ok(index) = self.class_index(class.id) {
                    self.classes[index] = class;
                }
            }
            Undo::RemovedClass(index, class, samples) => {
                self.classes.insert(index, class);
                samples.into_iter().for_each(|sample| self.insert(sample));
            }
            Undo::MergedClass(index, class, samples) => {
                let id = class.id;
                self.classes.insert(index, class);
                for sample in samples {
                    if let Ok(index) = self.sample_index(sample) {
                        self.samples[index].class = id;
                    }
                }
            }
            Undo::AddSample(id) => {
                if let Ok(index) = self.sample_index(id) {
                    let sample = self.samples.remove(index);
                    self.drop_feature(&sample);
                }
            }
            Undo::Relabel(id, class) => {
                if let Ok(index) = self.sample_index(id) {
                    self.samples[index].class = class;
                }
            }
            Undo::RemovedSample(sample) => self.insert(sample),
            Undo::Ignore(mask) => self.ignore = mask,
        }
        self.record(Action::Undo { revision });
        self.fitted = None;
        Some(revision)
    }

    /// Puts samples, by rising id, into a job without any.
    pub(crate) fn set_samples(&mut self, samples: Vec<Sample>) {
        self.by_feature.clear();
        for sample in &samples {
            let ids = self.by_feature.entry(hash(&sample.embedding));
            ids.or_default().push(sample.id);
        }
        self.samples = samples;
    }

    pub(super) fn insert(&mut self, sample: Sample) {
        self.by_feature
            .entry(hash(&sample.embedding))
            .or_default()
            .push(sample.id);
        let index = self.samples.partition_point(|other| other.id < sample.id);
        self.samples.insert(index, sample);
    }

    /// The sample with this feature, bit for bit.
    pub(super) fn taught(&self, embedding: &[f32]) -> Option<&Sample> {
        let same = |sample: &&Sample| {
            let bits = sample.embedding.iter().zip(embedding);
            bits.into_iter().all(|(a, b)| a.to_bits() == b.to_bits())
        };
        let candidates = self.by_feature.get(&hash(embedding))?;
        candidates
            .iter()
            .filter_map(|id| self.sample(*id).ok())
            .find(same)
    }

    pub(super) fn taught_already(
        &self,
        other: &Sample,
        class: ClassId,
        meta: &SampleMeta,
    ) -> AdaptError {
        let name = |id: ClassId| {
            self.class(id)
                .map_or(String::new(), |class| class.name.clone())
        };
        let (frame, sample) = (meta.source.clone(), other.id.0);
        if other.class == class {
            return AdaptError::Duplicate {
                frame,
                sample,
                source_of_sample: other.meta.source.clone(),
            };
        }
        AdaptError::Contradiction {
            frame,
            class: name(class),
            sample,
            source_of_sample: other.meta.source.clone(),
            class_of_sample: name(other.class),
        }
    }

    pub(super) fn record(&mut self, action: Action) {
        self.revision += 1;
        self.history.push(Record {
            revision: self.revision,
            unix_time: self.operator.1,
            by: self.operator.0.clone(),
            action,
        });
    }

    pub(super) fn changed(&mut self, action: Action, undo: Undo) {
        self.record(action);
        if self.undo.len() == UNDO {
            self.undo.remove(0);
        }
        self.undo.push((self.revision, undo));
    }

    /// What cannot be taken back ends what can.
    pub(super) fn forget_undo(&mut self) {
        self.undo.clear();
    }

    fn drop_feature(&mut self, sample: &Sample) {
        if let Some(ids) = self.by_feature.get_mut(&hash(&sample.embedding)) {
            ids.retain(|id| *id != sample.id);
        }
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

/// FNV-1a over the bits.
fn hash(feature: &[f32]) -> u64 {
    feature.iter().fold(0xcbf2_9ce4_8422_2325, |hash, x| {
        (hash ^ u64::from(x.to_bits())).wrapping_mul(0x0100_0000_01b3)
    })
}
