//! ssl-edge: self-supervised vision from unlabelled images to a decision on a production line.
//!
//! # Overview
//!
//! | module | what it holds |
//! |---|---|
//! | [`vision`] | frames as cameras deliver them, decoding, data sets, preprocessing, procedural surfaces, hand-made baseline features |
//! | [`encoder`] | open a bundle (`.sslb`), choose an engine, turn frames into embeddings |
//! | [`feature`] | what a job sees of a frame: poolings, and a texture descriptor |
//! | [`job`] | teach classes from a handful of frames, fit, inspect, save (`.sslj`) |
//! | [`anomaly`] | good parts only: anomaly scores, heat maps |
//! | [`surface`] | what a job sees of the surface of good parts |
//! | [`golden`] | frames beside golden parts, position by position (`.sslg`) |
//! | [`drift`] | watches a line: what changed, and what is to be done |
//! | [`eval`] | k-NN and few-shot accuracy of embeddings, baselines beside them |
//! | `train` | feature `train`: pretrain encoders on unlabelled images with DINO or MAE |
//! | `export` | feature `train`: make a bundle from a run, or from random weights |
//!
//! An encoder is trained once, on images without labels, and packed into a bundle. On the line it turns each frame into an embedding,
//! and a job, taught with a few labelled frames, turns the embedding into a [`job::Verdict`].
//!
//! # Example: from nothing to a verdict
//!
//! No camera, no data set, no trained encoder: procedural photos of metal surfaces and random weights stand in for them.
//!
#![cfg_attr(feature = "train", doc = "```")]
#![cfg_attr(not(feature = "train"), doc = "```ignore")]
//! use ssl_edge::encoder::{Encoder, EngineKind, Options, Pooling};
//! use ssl_edge::export::random_bundle;
//! use ssl_edge::job::{CalibrateOptions, calibrate, inspect_frame};
//! use ssl_edge::vision::{ClassFolder, Station, Surface};
//!
//! # let scratch = tempfile::tempdir()?;
//! # let folder = scratch.path();
//! let samples = folder.join("samples");
//! let station = Station::new(0);
//! station.write(&samples, &[Surface::Clean, Surface::Crack], 4, 64, 0)?;
//!
//! let bundle = folder.join("random.sslb");
//! random_bundle("vit_n16", 0, 64, Pooling::Cls, &bundle)?;
//! let encoder = Encoder::open(&bundle, &Options { engine: EngineKind::Native, threads: 1, ..Options::default() })?;
//!
//! let taught = calibrate(&encoder, &ClassFolder::scan(&samples)?, &CalibrateOptions::default())?;
//! taught.job.save(&folder.join("station.sslj"))?;
//!
//! let frame = station.photo(Surface::Clean, 64, 99);
//! let verdict = inspect_frame(&encoder, &taught.job, &frame.frame())?;
//! println!("{} with score {:.2}{}", verdict.name, verdict.score, if verdict.unknown { ", unknown" } else { "" });
//! # assert!(["clean", "crack"].contains(&verdict.name.as_str()));
//! # assert!((0.0..=1.0).contains(&verdict.score));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! - `onnx` (default): the engine that runs a bundle's ONNX graph through tract, beside the native one.
//! - `train` (default): training and export. Without it a program can open, embed, teach and inspect, and compiles in less time.
//! - `cuda`: training and encoders on NVIDIA GPUs; needs the CUDA toolkit to build and NVIDIA's driver to start the program.
//! - `mpi`: training over the processes that `mpirun` or `srun` starts; needs an MPI library with its `mpicc`, and libclang, to build.
//! - `nccl`: the same with sums by NCCL, a GPU for each process; needs the CUDA toolkit and libnccl to build. Type-checked, neither linked nor run.
//!
//! # Threads and reproducibility
//!
//! An [`Encoder`](encoder::Encoder) owns a pool of as many threads as it was opened with. Work on many files uses the current rayon pool.
//! No result depends on the number of threads, and nothing is random but what a seed says.

#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod anomaly;
pub mod augment;
pub mod drift;
pub mod encoder;
mod error;
pub mod eval;
#[cfg(feature = "train")]
pub mod export;
pub mod feature;
pub mod golden;
pub mod job;
mod migrate;
pub mod surface;
#[cfg(feature = "train")]
pub mod train;
pub mod vision;

pub use error::Error;
