//! What an encoder can be quantised to.

use ssl_edge_nn::infer::{BlockFormat, EncoderWeights};
use ssl_edge_nn::{Error, VitConfig};
use ssl_edge_runtime::Precision;

use super::blocks::BlockMixture;
use super::mixture::Mixture;
use super::search::rounded;
use crate::export::TOLERANCE as FLOAT_TOLERANCE;

/// Largest difference of an int8 embedding from the golden one. Kernels differ in no bit where products are fused; where they are not, values on the
/// edge between two steps fall on either side, and the embedding of a trained encoder moves by up to 1e-3.
const INT8_TOLERANCE: f32 = 5e-3;

/// The variant to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// int8 weights and activations, calibrated on frames, in safetensors.
    Int8,
    /// Weights in GGML's blocks, without calibration, in GGUF. With [`BlockFormat::Q4_0`] the layers of attention are in Q8_0.
    Blocks(BlockFormat),
}

impl Target {
    /// The precision that opens it.
    pub fn precision(self) -> Precision {
        match self {
            Self::Int8 => Precision::Int8,
            Self::Blocks(BlockFormat::Q8_0) => Precision::Q8_0,
            Self::Blocks(BlockFormat::Q4_0) => Precision::Q4_0,
        }
    }

    /// `int8`, `q8_0` or `q4_0`.
    pub fn name(self) -> &'static str {
        self.precision().name()
    }

    /// What a layer is in that is not quantised.
    pub(super) fn float(self) -> &'static str {
        match self {
            Self::Int8 => "f32",
            Self::Blocks(_) => "f16",
        }
    }

    /// What helps where a gate does not hold.
    pub(super) fn remedy(self) -> &'static str {
        match self {
            Self::Int8 => "allow more f32 layers, widen the gate or calibrate with more frames",
            Self::Blocks(BlockFormat::Q8_0) => "allow more f16 layers or widen the gate",
            Self::Blocks(BlockFormat::Q4_0) => {
                "allow more f16 layers, widen the gate or quantise to q8_0"
            }
        }
    }

    /// Largest difference that is allowed from the golden embedding, on the CPU. Blocks are computed in f32 there.
    pub(super) fn tolerance(self) -> f32 {
        match self {
            Self::Int8 => INT8_TOLERANCE,
            Self::Blocks(_) => FLOAT_TOLERANCE,
        }
    }

    /// The member with the weights.
    pub(super) fn encode(self, weights: &EncoderWeights) -> Result<Vec<u8>, Error> {
        match self {
            Self::Int8 => weights.to_bytes(),
            Self::Blocks(_) => weights.to_gguf(),
        }
    }

    /// All linear layers rounded, without frames.
    pub(super) fn round(
        self,
        config: &VitConfig,
        weights: &EncoderWeights,
    ) -> Result<EncoderWeights, Error> {
        if let Self::Blocks(format) = self {
            let mixture = BlockMixture::new(config, weights, format)?;
            return Ok(mixture.weights(&vec![0; mixture.layers().len()]));
        }
        let mut weights = weights.clone();
        for layer in EncoderWeights::layer_names(config) {
            if let Some(stored) = weights.0.get_mut(&format!("{layer}.weight")) {
                *stored = rounded(stored);
            }
        }
        Ok(weights)
    }
}
