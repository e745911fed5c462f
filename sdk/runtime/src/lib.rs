//! Opens a bundle, builds the engine that was asked for, proves it on the golden vectors, embeds frames.
//!
//! # Engines
//! - [`EngineKind::Native`]: our own kernels in f32 or int8 ([`Precision`]), on threads of its own that sleep when there is nothing to do. All memory is
//!   reserved when a bundle is opened; [`Encoder::tokens_into`] allocates nothing. Layers in GGML's blocks become f32 then, and stay blocks on a GPU.
//! - [`EngineKind::Onnx`]: the graph of the bundle through tract, with feature `onnx`; also graphs that this project did not write ([`read_graph`]).
//! - [`EngineKind::Cuda`]: NVIDIA GPUs through a library of its own, which is opened when the engine is asked for ([`ssl_edge_plugin`]).
//!
//! Asking for an engine that this build does not have, or a precision that the bundle does not hold, is an error. So is an engine that misses the golden vectors.
//!
//! # Example
//! ```no_run
//! use ssl_edge_runtime::{Encoder, Options};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let encoder = Encoder::open("encoder.sslb".as_ref(), &Options { threads: 2, ..Options::default() })?;
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
mod graph;
mod interrupt;
mod report;

pub use embedding::{Embedding, l2_normalize};
pub use encoder::{Encoder, Options, Place};
pub use engines::{
    Engine, EngineKind, PluginReport, Precision, Tokens, inspect_plugin, vit_config,
};
pub use error::RuntimeError;
pub use golden::{GoldenVectors, SelfTest};
pub use graph::{GraphChoice, GraphError, GraphPort, ReadGraph, graph_tokens, read_graph};
pub use interrupt::{CancelToken, Interruption, Limit, Reached};
pub use report::{Latency, RuntimeReport, resident_memory};
pub use ssl_edge_nn::compute::{Precision as Products, Processor};
pub use ssl_edge_plugin::{Device as PluginDevice, PATH_VARIABLE, PluginError, Refusal};
