//! Opens a bundle, builds the engine that was asked for, proves it on the golden vectors, embeds frames.
//!
//! # Engines
//! - [`EngineKind::Native`]: the operations that trained the encoder, on a thread pool of its own.
//! - [`EngineKind::Onnx`]: the graph of the bundle through tract, with feature `onnx`.
//!
//! Asking for an engine that this build does not have is an error. So is an engine that misses the golden vectors.
//!
//! # Example
//! ```no_run
//! use ssl_edge_runtime::{Encoder, EngineKind, Options};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let encoder = Encoder::open("encoder.sslb".as_ref(), &Options { engine: EngineKind::Native, threads: 2 })?;
//! let image = ssl_edge_vision::decode_file("part.png".as_ref())?;
//! let feature = encoder.feature(&encoder.embed(&image.frame())?);
//! # Ok(())
//! # }
//! ```
//!
//! Architecture Invariant: this crate knows nothing of training. It reads bundles and runs them.

#![deny(missing_docs)]

mod embedding;
mod encoder;
mod engines;
mod error;
mod golden;

pub use embedding::{Embedding, l2_normalize};
pub use encoder::{Encoder, Options, Place};
pub use engines::{Engine, EngineKind, Tokens};
pub use error::RuntimeError;
pub use golden::{GoldenVectors, SelfTest};
pub use ssl_edge_nn::compute::{Precision, Processor};
