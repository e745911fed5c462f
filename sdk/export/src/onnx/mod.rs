//! The ONNX writer: message types, a graph builder, and the one graph that we write.

#[cfg(test)]
pub(crate) mod foreign;
mod graph;
mod numbers;
pub(crate) mod proto;
mod vit;

pub use numbers::{ActivationScales, OnnxForm, encoder_onnx_as};
pub use vit::encoder_onnx;
