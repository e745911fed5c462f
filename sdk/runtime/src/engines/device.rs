//! The encoder on the operations that trained it, on a GPU.

use candle_core::{DType, Device, Tensor};
use ssl_edge_bundle::{Bundle, WEIGHTS};
use ssl_edge_nn::compute::{Precision, pooled};
use ssl_edge_nn::{Error, Vit, tensors_from_bytes};

use super::native::config;
use super::{Engine, EngineKind, Shape, Tokens, arch};
use crate::RuntimeError;

/// `ssl-edge-nn` on a device.
pub(super) struct OnDevice {
    vit: Vit,
    shape: Shape,
}

impl OnDevice {
    /// On an opened device. Its precision is a property of the device but for f16, for which the linear layers are rounded here.
    pub(super) fn load(
        bundle: &Bundle,
        device: &Device,
        precision: Precision,
    ) -> Result<Self, String> {
        let manifest = bundle.manifest();
        let config = config(arch(manifest)?);
        let weights = bundle.member(WEIGHTS).map_err(|error| error.to_string())?;
        let tensors = tensors_from_bytes(&weights).map_err(|error| error.to_string())?;
        let there = tensors
            .into_iter()
            .map(|(name, tensor)| Ok((name, tensor.to_device(device)?)))
            .collect::<candle_core::Result<_>>();
        let tensors = there.map_err(|error| error.to_string())?;
        let vit = Vit::load(&config, &tensors).and_then(|vit| match precision {
            Precision::F16 => vit.with_linear_in(DType::F16),
            Precision::F32 | Precision::Bf16 => Ok(vit),
        });
        Ok(Self {
            vit: vit.map_err(|error| error.to_string())?,
            shape: Shape::of(manifest),
        })
    }

    fn forward(&self, input: &[f32], batch: usize) -> Result<Tokens, Error> {
        let Shape {
            height,
            width,
            n_patches,
            ..
        } = self.shape;
        let images = Tensor::from_slice(input, (batch, 3, height, width), self.vit.device())?;
        let tokens = self.vit.forward(&images)?; // [B, 1 + R + N, D]
        let n_prefix = self.vit.config().n_prefix();
        let flat = |start, len| tokens.narrow(1, start, len)?.flatten_all()?.to_vec1();
        Ok(Tokens {
            cls: flat(0, 1)?,
            patches: flat(n_prefix, n_patches)?,
        })
    }
}

impl Engine for OnDevice {
    fn kind(&self) -> EngineKind {
        EngineKind::Native
    }

    fn run(&self, input: &[f32], batch: usize) -> Result<Tokens, RuntimeError> {
        pooled(|| self.forward(input, batch)).map_err(|error| RuntimeError::Run {
            engine: EngineKind::Native,
            reason: error.to_string(),
        })
    }
}
