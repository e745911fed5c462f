//! Why a graph cannot be an encoder.

use super::GraphPort;

/// Why a graph cannot be an encoder. Every message says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// The bytes are no ONNX model.
    #[error(
        "it is no ONNX model, or cut short ({reason}); export it again, and copy the whole file"
    )]
    NotOnnx {
        /// What gave it away.
        reason: String,
    },
    /// Weights lie in another file.
    #[error(
        "its tensor {tensor} lies in another file, and a bundle holds all weights; save it in one file: \
         `torch.onnx.export(..., external_data=False)`, or `onnx.save(onnx.load(old), new)`"
    )]
    ExternalData {
        /// The first such tensor.
        tensor: String,
    },
    /// A tensor's bytes are not what its shape needs.
    #[error("its tensor {tensor} is damaged ({reason}); export it again, and copy the whole file")]
    Tensor {
        /// The tensor.
        tensor: String,
        /// What does not hold.
        reason: String,
    },
    /// The engine does not have an operator.
    #[error(
        "it uses what the engine does not have: {operators}; export it with opset 17, in evaluation mode, without custom operators, \
         and fold constants (onnxsim)"
    )]
    Operators {
        /// Names, comma-separated.
        operators: String,
    },
    /// It does not take one image.
    #[error(
        "it takes {inputs}, and an encoder takes one f32 image [1, 3, height, width] or with any batch: {reason}"
    )]
    Input {
        /// What it takes.
        inputs: String,
        /// What is wrong with it, and the remedy.
        reason: String,
    },
    /// The size of the image is not settled.
    #[error("{reason}")]
    Size {
        /// Why not, and the remedy.
        reason: String,
    },
    /// No rule says which outputs are tokens.
    #[error(
        "its outputs cannot be read as tokens: {reason}; they are {outputs}; name them with `--outputs cls=NAME,patches=NAME`, or export others"
    )]
    Outputs {
        /// What is missing or ambiguous.
        reason: String,
        /// All outputs with their shapes.
        outputs: String,
    },
    /// The engine cannot load or run it.
    #[error(
        "the engine cannot run it: {reason}; export it with opset 17, with a fixed image size, and fold constants (onnxsim)"
    )]
    Engine {
        /// The engine's reason.
        reason: String,
    },
}

impl std::fmt::Display for GraphPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sizes = self.shape.iter().map(|size| match size {
            Some(size) => size.to_string(),
            None => "?".to_owned(),
        });
        let sizes: Vec<String> = sizes.collect();
        write!(f, "{} {} [{}]", self.name, self.element, sizes.join(", "))
    }
}
