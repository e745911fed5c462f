//! The job: what an operator teaches, and the verdicts that follow.
//!
//! `change.rs` has what alters it, `inspect.rs` fitting and verdicts, `merge.rs` what joins jobs and moves them to another encoder.

mod alarms;
mod change;
mod ignore;
mod inspect;
mod merge;
mod surface;

pub use alarms::FalseAlarms;
pub use ignore::IgnoreMask;
pub use inspect::{Explanation, Verdict};
pub use merge::{Migration, Remade};
pub use surface::SampleTokens;

use crate::error::AdaptError;
use crate::fitted::{FitReport, Fitted};
use crate::head::HeadKind;
use crate::history::Record;
use crate::parts::{Layout, Selection};
use change::Undo;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// The encoder that a job's features come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncoderId {
    /// The bundle's encoder hash.
    pub hash: [u8; 32],
    /// Length of the features.
    pub dim: usize,
}

impl EncoderId {
    /// What is said when `what`, which belongs to this encoder, is used with another one or with none.
    pub(crate) fn mismatch(&self, what: &'static str, given: Option<&Self>) -> AdaptError {
        let short = |id: &Self| -> String {
            let bytes = id.hash[..6].iter();
            bytes.map(|byte| format!("{byte:02x}")).collect()
        };
        AdaptError::EncoderMismatch {
            what,
            own: short(self),
            own_dim: self.dim,
            given: match given {
                Some(id) => format!("this is encoder {} ({} values)", short(id), id.dim),
                None => "no encoder is given".into(),
            },
        }
    }
}

/// Names a class within its job; never used again after the class is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClassId(pub u32);

/// Names a sample within its job; never used again after the sample is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SampleId(pub u64);

/// A class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Class {
    /// Its id.
    pub id: ClassId,
    /// Its name, unique in the job.
    pub name: String,
    /// Whether a part of it may pass.
    pub good: bool,
    /// What it costs to take a frame of it for another one, beside the others; above 0.
    pub cost: f64,
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
    /// An encoded picture of the frame, from which a feature of another encoder can be made; empty if none was kept.
    pub thumbnail: Vec<u8>,
    /// Its patch tokens, if the job looks at surfaces.
    pub tokens: Option<SampleTokens>,
    /// Features of turned, mirrored and dimmed copies of the frame, `[K][dim]`; a head may be fitted on them too ([`Augmentation`](crate::Augmentation)).
    #[serde(skip)]
    pub copies: Vec<Vec<f32>>,
}

/// Classes, samples and the head fitted on them. Reading is thread-safe; changing needs exclusive access.
#[derive(Clone, Debug)]
pub struct Job {
    pub(crate) encoder: EncoderId,
    pub(crate) layout: Layout,
    pub(crate) classes: Vec<Class>,
    /// By rising id.
    pub(crate) samples: Vec<Sample>,
    pub(crate) next_class: u32,
    pub(crate) next_sample: u64,
    pub(crate) fitted: Option<Fitted>,
    /// What patch tokens are made of.
    pub(crate) surface: Option<String>,
    /// Where patch tokens do not count.
    pub(crate) ignore: Option<IgnoreMask>,
    /// Head and parts of the last fit.
    pub(crate) choice: Option<(HeadKind, Selection)>,
    pub(crate) revision: u64,
    pub(crate) history: Vec<Record>,
    /// Who works with it, and when.
    operator: (String, i64),
    undo: Vec<(u64, Undo)>,
    /// Samples by a hash of their feature.
    by_feature: HashMap<u64, Vec<SampleId>>,
}

impl Job {
    /// A job without classes for the embeddings of one encoder, which are one part.
    pub fn new(encoder: EncoderId) -> Self {
        Self::empty(encoder, Layout::single(encoder.dim))
    }

    /// A job without classes for features of several parts.
    ///
    /// # Errors
    ///
    /// [`AdaptError::Shape`]: a layout of another length than the encoder's features.
    pub fn with_layout(encoder: EncoderId, layout: Layout) -> Result<Self, AdaptError> {
        if layout.dim() != encoder.dim {
            return Err(AdaptError::Shape {
                what: "values of the layout",
                expected: encoder.dim,
                got: layout.dim(),
            });
        }
        Ok(Self::empty(encoder, layout))
    }

    /// A job without classes that sees what this one sees.
    pub fn clone_empty(&self) -> Self {
        Self {
            surface: self.surface.clone(),
            ignore: self.ignore.clone(),
            ..Self::empty(self.encoder, self.layout.clone())
        }
    }

    pub(crate) fn empty(encoder: EncoderId, layout: Layout) -> Self {
        Self {
            encoder,
            layout,
            classes: Vec::new(),
            samples: Vec::new(),
            next_class: 0,
            next_sample: 0,
            fitted: None,
            surface: None,
            ignore: None,
            choice: None,
            revision: 0,
            history: Vec::new(),
            operator: (String::new(), 0),
            undo: Vec::new(),
            by_feature: HashMap::new(),
        }
    }

    /// The encoder that the embeddings come from.
    pub fn encoder(&self) -> &EncoderId {
        &self.encoder
    }

    /// What each feature consists of.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Number of changes since the job was made: the version that verdicts name.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// All changes, the oldest first.
    pub fn history(&self) -> &[Record] {
        &self.history
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
        Err(self.encoder.mismatch("the job", Some(encoder)))
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
}
