//! From a training run to a bundle: ONNX writer, golden vectors
