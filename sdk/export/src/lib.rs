//! From encoder weights to a bundle: weights, an ONNX graph of the same encoder, golden vectors, manifest.
//!
//! [`import_graph`] makes a bundle of an ONNX graph that somebody else wrote.
//!
//! [`export_encoder`] writes nothing before every engine of this build has reproduced the golden vectors from the finished file.
//!
//! # Example
//! ```no_run
//! use ssl_edge_bundle::Pooling;
//! # fn main() -> Result<(), ssl_edge_export::ExportError> {
//! let report = ssl_edge_export::random_bundle("vit_n16", 7, 64, Pooling::Cls, "random.sslb".as_ref())?;
//! for (engine, test) in &report.engines {
//!     println!("{engine}: off by {:e}", test.difference);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Architecture Invariant: the ONNX graph holds no interpolation. Positions are resampled before the graph is written.

#![deny(missing_docs)]

mod error;
mod export;
mod golden;
mod import;
mod onnx;
mod quantise;

pub use error::ExportError;
pub use export::{EncoderExport, ExportReport, export_encoder, random_bundle};
pub use import::{GraphImport, ImportError, ImportReport, import_graph};
pub use onnx::{ActivationScales, OnnxForm, encoder_onnx, encoder_onnx_as};
pub use ssl_edge_nn::infer::BlockFormat;

pub use quantise::{
    Gate, GateFailure, GateMetric, GateReport, LayerReport, QuantizeError, QuantizeOptions,
    QuantizeReport, Target, Written, quantize, round_to,
};
