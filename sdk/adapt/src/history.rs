//! What was done to a job, by whom and when.

use crate::head::HeadKind;
use crate::job::{ClassId, SampleId};
use serde::{Deserialize, Serialize};

/// One change of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The job's revision after it.
    pub revision: u64,
    /// When, in seconds since 1970-01-01 UTC; 0 if nobody said.
    pub unix_time: i64,
    /// Who; empty if nobody said.
    pub by: String,
    /// What.
    pub action: Action,
}

/// What can be done to a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Action {
    /// A class was added.
    AddClass {
        /// The class.
        class: ClassId,
        /// Its name.
        name: String,
    },
    /// A class got another name.
    RenameClass {
        /// The class.
        class: ClassId,
        /// Its name before.
        from: String,
        /// Its name now.
        to: String,
    },
    /// The samples of a class went to another one, and the class is gone.
    MergeClasses {
        /// The class that is gone.
        from: ClassId,
        /// The one that holds its samples.
        into: ClassId,
        /// Their number.
        samples: usize,
    },
    /// A class was removed with its samples.
    RemoveClass {
        /// The class.
        class: ClassId,
        /// Its name.
        name: String,
        /// Number of its samples.
        samples: usize,
    },
    /// A class was marked as good or not.
    SetGood {
        /// The class.
        class: ClassId,
        /// The mark.
        good: bool,
    },
    /// The cost of missing a class was set.
    SetCost {
        /// The class.
        class: ClassId,
        /// The cost.
        cost: f64,
    },
    /// A sample was taught.
    AddSample {
        /// The sample.
        sample: SampleId,
        /// Its label.
        class: ClassId,
        /// Where it comes from.
        source: String,
    },
    /// A sample got another label.
    Relabel {
        /// The sample.
        sample: SampleId,
        /// Its label before.
        from: ClassId,
        /// Its label now.
        to: ClassId,
    },
    /// A sample was forgotten.
    RemoveSample {
        /// The sample.
        sample: SampleId,
        /// Its label.
        class: ClassId,
        /// Where it came from.
        source: String,
    },
    /// A head was fitted.
    Fit {
        /// The head; `None` for a job of one class.
        head: Option<HeadKind>,
        /// The parts of the feature that it sees.
        parts: Vec<String>,
        /// Samples that it was fitted on.
        samples: usize,
    },
    /// The samples of another job were added.
    MergeJob {
        /// Samples that were new.
        samples: usize,
    },
    /// The features of all samples were replaced by those of another encoder.
    NewEncoder {
        /// Hash of the encoder before.
        from: [u8; 32],
        /// Hash of the encoder now.
        to: [u8; 32],
    },
    /// The last change was taken back.
    Undo {
        /// The revision whose change it was.
        revision: u64,
    },
    /// A region of the frame does not count from then on.
    SetIgnore {
        /// Its share of the frame; `None` if all of the frame counts again.
        share: Option<f64>,
    },
}
