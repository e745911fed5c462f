//! The encoder on the operations that trained it, or with linear layers in blocks on candle's quantised products, on a GPU.

use candle_core::{DType, Device, Tensor};
use ssl_edge_bundle::Bundle;
use ssl_edge_nn::compute::{Precision as Products, pooled};
use ssl_edge_nn::infer::EncoderWeights;
use ssl_edge_nn::{Error, QuantisedVit, Vit, VitConfig, tensors_from_bytes};

use super::{Engine, EngineKind, Shape, Unfit, arch, check_lengths, vit_config, weights};
use crate::{Precision, RuntimeError};

/// `ssl-edge-nn` on a device.
pub(super) struct OnDevice {
    model: Model,
    precision: Precision,
    /// Tokens before the patches.
    n_prefix: usize,
    shape: Shape,
}

enum Model {
    Dense(Vit),
    Quantised(QuantisedVit),
}

impl OnDevice {
    /// On an opened device. What its products read is a property of the device but for f16, for which dense linear layers are rounded here.
    pub(super) fn load(
        bundle: &Bundle,
        precision: Precision,
        device: &Device,
        products: Products,
    ) -> Result<Self, Unfit> {
        let manifest = bundle.manifest();
        let config = vit_config(arch(manifest)?);
        let bytes = &*bundle.member(weights(manifest, precision)?)?;
        let dense = match products {
            Products::F16 => DType::F16,
            Products::F32 | Products::Bf16 => DType::F32,
        };
        let model = match precision.is_blocks() {
            true => EncoderWeights::from_bytes(bytes)
                .and_then(|weights| QuantisedVit::load(&config, &weights, device, dense))
                .map(Model::Quantised),
            false => dense_vit(&config, bytes, device, dense).map(Model::Dense),
        };
        Ok(Self {
            model: model?,
            precision,
            n_prefix: config.n_prefix(),
            shape: Shape::of(manifest),
        })
    }

    /// CLS tokens `[B, D]` and patch tokens `[B, N, D]`.
    fn forward(&self, input: &[f32], batch: usize) -> Result<[Vec<f32>; 2], Error> {
        let Shape {
            height,
            width,
            n_patches,
            ..
        } = self.shape;
        let images = |device| Tensor::from_slice(input, (batch, 3, height, width), device);
        let tokens = match &self.model {
            Model::Dense(vit) => vit.forward(&images(vit.device())?)?,
            Model::Quantised(vit) => vit.forward(&images(vit.device())?)?,
        }; // [B, 1 + R + N, D]
        let flat = |start, len| tokens.narrow(1, start, len)?.flatten_all()?.to_vec1();
        Ok([flat(0, 1)?, flat(self.n_prefix, n_patches)?])
    }
}

fn dense_vit(
    config: &VitConfig,
    weights: &[u8],
    device: &Device,
    dense: DType,
) -> Result<Vit, Error> {
    let tensors = tensors_from_bytes(weights)?.into_iter();
    let there = tensors.map(|(name, tensor)| Ok((name, tensor.to_device(device)?)));
    let vit = Vit::load(config, &there.collect::<Result<_, Error>>()?)?;
    match dense {
        DType::F32 => Ok(vit),
        dense => vit.with_linear_in(dense),
    }
}

impl Engine for OnDevice {
    fn kind(&self) -> EngineKind {
        EngineKind::Native
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn lengths(&self) -> [usize; 2] {
        self.shape.lengths()
    }

    fn run_into(
        &self,
        input: &[f32],
        batch: usize,
        cls: &mut [f32],
        patches: &mut [f32],
    ) -> Result<(), RuntimeError> {
        let Shape { height, width, .. } = self.shape;
        let [cls_len, patches_len] = self.lengths();
        let lengths = [
            (input.len(), 3 * height * width),
            (cls.len(), cls_len),
            (patches.len(), patches_len),
        ];
        check_lengths(self.kind(), batch, lengths)?;
        let found = pooled(|| self.forward(input, batch)).map_err(|error| RuntimeError::Run {
            engine: self.kind(),
            reason: error.to_string(),
        })?;
        cls.copy_from_slice(&found[0]);
        patches.copy_from_slice(&found[1]);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
