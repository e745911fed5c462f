//! Few-shot heads over embeddings, and the job file.
//!
//! # Overview
//!
//! A [`Job`] holds what an operator teaches: classes, and samples (embeddings with a label, a source and a time). Fitting it takes
//! milliseconds, because its heads have closed forms: [`head::discriminant`] (linear discriminant, regularised by shrinkage or by leave-one-out),
//! [`head::ridge`] (least squares on one-hot targets), [`head::prototype`] (nearest class mean) and [`head::knn`] (nearest samples);
//! [`head::logistic`] has none and is slower. Leave-one-out gives the regularisation, the accuracy to expect, the temperature of the scores and
//! the distance beyond which a frame is unknown, all without a validation set. [`eval`] measures encoders: weighted k-NN and few-shot episodes.
//!
//! **Architecture invariant:** this crate knows `f32` embeddings only; it sees no image, no engine and no training.
//!
//! # Example
//!
//! ```
//! use ssl_edge_adapt::{EncoderId, FitOptions, Job, SampleMeta};
//!
//! let mut job = Job::new(EncoderId { hash: [7; 32], dim: 2 });
//! let good = job.add_class("good")?;
//! let scratch = job.add_class("scratch")?;
//! for (class, embedding) in [(good, [1.0, 0.1]), (good, [0.9, 0.0]), (scratch, [0.0, 1.0]), (scratch, [0.1, 0.8])] {
//!     job.add_sample(class, &embedding, SampleMeta { source: "camera 1".into(), unix_time: 1_767_225_600 })?;
//! }
//! let report = job.fit(&FitOptions::default())?;
//! assert_eq!(report.loo_accuracy, Some(1.0));
//! assert_eq!(job.inspect(&[0.2, 0.9])?.name, "scratch");
//! # Ok::<(), ssl_edge_adapt::AdaptError>(())
//! ```
//!
//! # Threads and reproducibility
//!
//! [`Job`] starts no threads: it works on the calling thread, or, when that belongs to a rayon pool, in that pool. [`eval`] uses the current
//! rayon pool. No result depends on the number of threads.

#![deny(missing_docs)]

pub mod anomaly;
mod augment;
mod blocks;
mod calibrate;
mod candidate;
mod choose;
mod container;
mod device;
pub mod drift;
mod error;
pub mod eval;
mod extrapolate;
mod file;
mod fitted;
pub mod golden;
pub mod head;
mod history;
mod job;
mod linalg;
mod parts;
mod reliability;
mod safe_write;
mod support;
mod unknown;

pub use augment::Augmentation;
pub use choose::Tried;
pub use device::{DeviceHead, DeviceInput, DeviceOptions, DeviceParity};
pub use error::AdaptError;
pub use fitted::{Confusion, FitOptions, FitReport};
pub use head::HeadKind;
pub use history::{Action, Record};
pub use job::{
    Class, ClassId, EncoderId, Explanation, FalseAlarms, IgnoreMask, Job, Migration, Remade,
    Sample, SampleId, SampleMeta, SampleTokens, Verdict,
};
pub use parts::{Layout, Part};
pub use reliability::{Reliability, binomial_band, wilson};
pub use support::Support;
pub use unknown::{UnknownRule, leave_one_out_distances};
