//! The encoder for running only, with the linear layers of its blocks kept in GGML's block formats in the device's memory.
//!
//! Their products are candle's, on any of its devices: on NVIDIA GPUs and the CPU it rounds activations to 8 bits, each 32 of a row with a scale of their
//! own, and adds up integers; on Apple GPUs it takes them in f32. Everything else is this crate's operations.

use std::borrow::Cow;
use std::collections::BTreeMap;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{DType, Device, Tensor};

use super::{Source, Vit, VitConfig};
use crate::infer::{BlockFormat, EncoderWeights, LINEAR_LAYERS, Stored};
use crate::ops::{self, Affine};
use crate::{Error, Gelu};

/// An encoder over [`EncoderWeights`] of which linear layers may be [`Stored::Blocks`].
pub struct QuantisedVit {
    /// Patches, tokens, positions and the final norm.
    stem: Vit,
    blocks: Vec<QuantisedBlock>,
    /// What attention reads.
    dtype: DType,
}

struct QuantisedBlock {
    norm1: Affine,
    qkv: Linear,
    proj: Linear,
    norm2: Affine,
    fc1: Linear,
    fc2: Linear,
    heads: usize,
    gelu: Gelu,
    eps: f64,
}

/// `y = x Wᵀ + b`.
enum Linear {
    Dense(Affine),
    Blocks { weight: QTensor, bias: Tensor },
}

impl QuantisedVit {
    /// Moves the weights to `device`. Layers that are in no block format, the patch embedding and attention's factors are of type `dense`; norms,
    /// residuals and positions are f32.
    ///
    /// # Errors
    /// A tensor that is missing, of another shape, or in int8.
    pub fn load(
        config: &VitConfig,
        weights: &EncoderWeights,
        device: &Device,
        dense: DType,
    ) -> Result<Self, Error> {
        config.validate()?;
        let blocks = (0..config.depth).map(|i| {
            let name = |part: &str| format!("blocks.{i}.{part}");
            QuantisedBlock::load(config, weights, &name, (device, dense))
        });
        let blocks = blocks.collect::<Result<_, Error>>()?;
        let others = weights
            .0
            .iter()
            .filter(|(name, _)| !name.starts_with("blocks."));
        let others = others.map(|(name, stored)| Ok((name.clone(), floats(name, stored, device)?)));
        let others = others.collect::<Result<BTreeMap<_, _>, Error>>()?;
        let stem = VitConfig {
            depth: 0,
            ..config.clone()
        };
        let stem = Vit::build(&stem, &mut Source::Map(&others), "")?.with_linear_in(dense)?;
        Ok(Self {
            stem,
            blocks,
            dtype: dense,
        })
    }

    /// All tokens after the final norm: `images [B, 3, H, W]` to `[B, 1 + R + N, D]`.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor, Error> {
        let patches = self.stem.embed_patches(images)?;
        let prefix = self.stem.prefix_tokens(images.dim(0)?)?;
        let mut x = Tensor::cat(&[&prefix, &patches], 1)?;
        for block in &self.blocks {
            x = block.forward(&x, self.dtype)?;
        }
        self.stem.forward_norm(&x)
    }

    /// Where its parameters are and its input is expected.
    pub fn device(&self) -> &Device {
        self.stem.device()
    }
}

impl QuantisedBlock {
    fn load(
        config: &VitConfig,
        weights: &EncoderWeights,
        name: &dyn Fn(&str) -> String,
        (device, dense): (&Device, DType),
    ) -> Result<Self, Error> {
        let (d, hidden) = (config.dim, config.dim * config.mlp_ratio);
        let vector = |name: &str, n: usize| floats(name, weights.get(name, &[n])?, device);
        let norm = |part: &str| {
            Ok::<_, Error>(Affine {
                weight: vector(&name(&format!("{part}.weight")), d)?,
                bias: vector(&name(&format!("{part}.bias")), d)?,
            })
        };
        let linear = |part: &str, n: usize, k: usize| {
            let bias = vector(&name(&format!("{part}.bias")), n)?;
            let name = name(&format!("{part}.weight"));
            match weights.get(&name, &[n, k])? {
                Stored::Blocks { format, bytes, .. } => Ok::<_, Error>(Linear::Blocks {
                    weight: on_device(*format, bytes, [n, k], device)?,
                    bias,
                }),
                stored => {
                    let weight = floats(&name, stored, device)?;
                    Ok(Linear::Dense(Affine { weight, bias }.to_dtype(dense)?))
                }
            }
        };
        let [qkv, proj, fc1, fc2] = LINEAR_LAYERS;
        Ok(Self {
            norm1: norm("norm1")?,
            qkv: linear(qkv, 3 * d, d)?,
            proj: linear(proj, d, d)?,
            norm2: norm("norm2")?,
            fc1: linear(fc1, hidden, d)?,
            fc2: linear(fc2, d, hidden)?,
            heads: config.heads,
            gelu: config.gelu,
            eps: config.eps,
        })
    }

    /// `[B, T, D]` to `[B, T, D]`, in f32.
    fn forward(&self, x: &Tensor, dtype: DType) -> Result<Tensor, Error> {
        let qkv = self.qkv.forward(&self.norm1.norm(x, self.eps)?)?;
        let attended = ops::attention(&qkv.to_dtype(dtype)?, self.heads)?;
        let x = (x + self.proj.forward(&attended)?.to_dtype(DType::F32)?)?;
        let hidden = self.fc1.forward(&self.norm2.norm(&x, self.eps)?)?;
        let mlp = self.fc2.forward(&ops::gelu(&hidden, self.gelu)?)?;
        Ok((x + mlp.to_dtype(DType::F32)?)?)
    }
}

impl Linear {
    fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        Ok(match self {
            Self::Dense(affine) => affine.linear(x)?,
            Self::Blocks { weight, bias } => {
                // candle's Metal kernels assert f32.
                let x = x.to_dtype(DType::F32)?.contiguous()?;
                x.apply_op1_no_bwd(weight)?.broadcast_add(bias)?
            }
        })
    }
}

fn floats(name: &str, stored: &Stored, device: &Device) -> Result<Tensor, Error> {
    let Stored::F32 { dims, values } = stored else {
        let reason = format!("tensor {name} is quantised in a way that devices do not run");
        return Err(Error::Config { reason });
    };
    Ok(Tensor::from_slice(values, dims.as_slice(), device)?)
}

fn on_device(
    format: BlockFormat,
    bytes: &[u8],
    dims: [usize; 2],
    device: &Device,
) -> Result<QTensor, Error> {
    let dtype = match format {
        BlockFormat::Q8_0 => GgmlDType::Q8_0,
        BlockFormat::Q4_0 => GgmlDType::Q4_0,
    };
    // candle asserts the alignment of a block's f16.
    let mut room = vec![0; bytes.len() + 1];
    let start = room.as_ptr().align_offset(align_of::<u16>()).min(1);
    let room = &mut room[start..][..bytes.len()];
    room.copy_from_slice(bytes);
    let storage = QStorage::from_data(Cow::Borrowed(room), device, dtype)?;
    Ok(QTensor::new(storage, &dims)?)
}

#[cfg(test)]
mod tests;
