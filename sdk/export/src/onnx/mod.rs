//! The ONNX writer: message types, a graph builder, and the one graph that we write.

mod graph;
pub(crate) mod proto;
mod vit;

pub use vit::encoder_onnx;
