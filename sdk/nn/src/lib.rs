//! Differentiable ops, vision transformers, optimisers and schedules on candle.
//!
//! candle-nn's fused norms and softmax record no gradient, so the ops here are our own: each with a backward, each tested against a
//! reference in f64. Randomness comes from generators that the caller keys; nothing here depends on the number of threads.

#![deny(missing_docs)]

#[cfg(all(feature = "metal", not(target_os = "macos")))]
compile_error!("feature `metal` is for macOS; build without it");

pub mod compute;
pub mod ema;
mod error;
#[cfg(any(feature = "cuda", all(test, target_os = "linux")))]
mod gpu;
mod grads;
pub mod infer;
mod kernels;
pub mod ops;
pub mod optim;
mod params;
pub mod pos;
pub mod schedule;
mod vit;

pub use candle_core as candle;
pub use error::Error;
pub use grads::backward;
pub use ops::Gelu;
pub use params::{Init, Param, Params, load_tensors, tensors_from_bytes, tensors_to_bytes};
pub use vit::{Block, QuantisedVit, Vit, VitConfig, resize_positions};
