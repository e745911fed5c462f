//! DINO's projection head: an MLP, L2 normalisation, and a weight-normalised last layer.

use candle_core::Tensor;
use rand_chacha::ChaCha8Rng;
use ssl_edge_nn::{Gelu, Init, Params, ops};

use super::HeadConfig;
use crate::checkpoint::Tensors;
use crate::error::Result;
use crate::ops::l2_normalize;

/// DINO's projection head: three linear layers with GELU between, an L2-normalised bottleneck and a linear layer
/// without bias whose rows have unit length (weight normalisation with `weight_g` fixed at 1, so that only `weight_v`
/// is a parameter).
pub(super) struct Head {
    layers: [(Tensor, Tensor); 3],
    weight_v: Tensor,
    gelu: Gelu,
}

pub(super) const LAST_LAYER: &str = "head.last_layer.weight_v";

const LAYERS: [&str; 3] = ["head.mlp.0", "head.mlp.2", "head.mlp.4"];

impl Head {
    /// New parameters, weights normal 0.02 and biases 0.
    pub(super) fn init(
        dim: usize,
        config: &HeadConfig,
        params: &mut Params,
        rng: &mut ChaCha8Rng,
    ) -> Result<()> {
        let widths = [dim, config.hidden, config.hidden, config.bottleneck];
        for (name, width) in LAYERS.iter().zip(widths.windows(2)) {
            let weight = format!("{name}.weight");
            params.create(&weight, &[width[1], width[0]], Init::Normal(0.02), rng)?;
            params.create(&format!("{name}.bias"), &[width[1]], Init::Const(0.0), rng)?;
        }
        params.create(
            LAST_LAYER,
            &[config.out_dim, config.bottleneck],
            Init::Normal(0.02),
            rng,
        )?;
        Ok(())
    }

    /// The head over given tensors.
    pub(super) fn over(tensors: &Tensors, gelu: Gelu) -> Self {
        let tensor = |name: &str| tensors[name].clone();
        let layer = |name: &str| {
            (
                tensor(&format!("{name}.weight")),
                tensor(&format!("{name}.bias")),
            )
        };
        Self {
            layers: LAYERS.map(layer),
            weight_v: tensor(LAST_LAYER),
            gelu,
        }
    }

    /// `[R, D]` to logits `[R, K]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [first, second, third] = &self.layers;
        let x = ops::linear(x, &first.0, Some(&first.1))?;
        let x = ops::linear(&ops::gelu(&x, self.gelu)?, &second.0, Some(&second.1))?;
        let x = ops::linear(&ops::gelu(&x, self.gelu)?, &third.0, Some(&third.1))?;
        let weight = l2_normalize(&self.weight_v)?;
        Ok(ops::linear(&l2_normalize(&x)?, &weight, None)?)
    }
}
