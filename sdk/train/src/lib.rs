//! Self-supervised pretraining: methods, trainer, checkpoints.
//!
//! # Overview
//!
//! [`Request`] turns a method, an architecture, folders of images, a TOML file and overrides into a checked
//! [`TrainConfig`]; [`pretrain`] runs it and tells an [`Observer`] what happens; [`encoder_of`] reads the trained
//! encoder back. Methods are one file each behind [`methods::Method`]: [`methods::Mae`] and [`methods::Dino`].
//!
//! [`pretrain_over`] does the same with several ranks, each with its part of every batch; [`collective`] has the engines.
//!
//! A run is a folder: `config.toml` (resolved), `metrics.jsonl`, `checkpoints/STEP/`. It can be stopped anywhere and
//! resumed: batches are functions of seed and step, and a checkpoint holds weights, teacher, centre, moments and step,
//! so that the weights come out bit for bit as without the interruption, for any number of threads.
//!
//! **Architecture invariant:** this crate writes run folders and nothing else; it knows neither bundles nor engines.

#![deny(missing_docs)]

mod bench;
mod cache;
mod checkpoint;
pub mod collective;
mod config;
mod data;
mod error;
mod flops;
mod learner;
mod loader;
mod memory;
pub mod methods;
mod metrics;
mod observer;
mod ops;
mod pace;
mod preset;
mod probe;
mod resolve;
mod run;
mod start;
mod trainer;

pub use bench::{BenchStep, bench_step};
pub use checkpoint::{Checkpoint, State, Tensors, latest_checkpoint, read_state};
pub use config::{
    CheckpointConfig, ComputeConfig, DataConfig, MethodName, OptimizerConfig, ProbeConfig,
    ScheduleConfig, TrainConfig,
};
pub use error::{Result, TrainError};
pub use observer::{Observer, ProbeScore, Progress, RunInfo, RunSummary};
pub use resolve::Request;
pub use run::{Provenance, RunEncoder, encoder_of};
pub use trainer::{RunOptions, pretrain, pretrain_over};
