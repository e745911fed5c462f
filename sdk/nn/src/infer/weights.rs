//! Tensors of an encoder as they are stored: f32, int8 with one scale for each output, or GGML's blocks.
//!
//! In a safetensors file an int8 weight `X.weight` is an I8 tensor `[N, K]` beside its scales `X.scale`, F32 `[N]`. Blocks are in GGUF files.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Tensor};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::blocks::BlockFormat;
use super::gguf;
use crate::{Error, VitConfig};

/// Linear layers of a block, in the order in which they run.
pub const LINEAR_LAYERS: [&str; 4] = ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"];

/// One stored tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Stored {
    /// Values as they are.
    F32 {
        /// Sizes of the axes.
        dims: Vec<usize>,
        /// Row-major.
        values: Vec<f32>,
    },
    /// `value = scale[row] * values`.
    I8 {
        /// Outputs and inputs.
        dims: [usize; 2],
        /// Row-major, in -127..=127.
        values: Vec<i8>,
        /// One for each output.
        scale: Vec<f32>,
    },
    /// Whole blocks.
    Blocks {
        /// Outputs and inputs; the inputs are a multiple of [`super::BLOCK`].
        dims: [usize; 2],
        /// What a block is.
        format: BlockFormat,
        /// Row-major.
        bytes: Vec<u8>,
    },
}

impl Stored {
    /// Sizes of the axes.
    pub fn dims(&self) -> &[usize] {
        match self {
            Self::F32 { dims, .. } => dims,
            Self::I8 { dims, .. } | Self::Blocks { dims, .. } => dims,
        }
    }

    /// The values that it stands for.
    pub fn to_f32(&self) -> Vec<f32> {
        match self {
            Self::F32 { values, .. } => values.clone(),
            Self::I8 {
                dims,
                values,
                scale,
            } => values
                .chunks_exact(dims[1])
                .zip(scale)
                .flat_map(|(row, scale)| row.iter().map(move |value| f32::from(*value) * scale))
                .collect(),
            Self::Blocks { format, bytes, .. } => format.dequantise(bytes),
        }
    }
}

/// All tensors of an encoder by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EncoderWeights(pub BTreeMap<String, Stored>);

impl EncoderWeights {
    /// Reads safetensors, or GGUF, as the bytes begin.
    ///
    /// # Errors
    /// Bytes that are neither, a tensor of a type that is none of ours, an I8 tensor without scales, or a block without a finite one.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.starts_with(gguf::MAGIC) {
            return gguf::read(bytes);
        }
        Self::read(bytes, bytes.len() as u64)
    }

    /// The same tensors as GGUF, for linear layers in blocks.
    ///
    /// # Errors
    /// An int8 tensor.
    pub fn to_gguf(&self) -> Result<Vec<u8>, Error> {
        gguf::write(self)
    }

    /// The same tensors as safetensors, for those without blocks.
    ///
    /// # Errors
    /// Values that do not fill their shape, or a tensor in blocks.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut parts: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
        for (name, stored) in &self.0 {
            let dims = stored.dims().to_vec();
            match stored {
                Stored::F32 { values, .. } => {
                    parts.push((name.clone(), Dtype::F32, dims, float_bytes(values)));
                }
                Stored::I8 { values, scale, .. } => {
                    let bytes = values.iter().map(|value| *value as u8).collect();
                    parts.push((name.clone(), Dtype::I8, dims.clone(), bytes));
                    parts.push((
                        scale_name(name),
                        Dtype::F32,
                        vec![dims[0]],
                        float_bytes(scale),
                    ));
                }
                Stored::Blocks { format, .. } => {
                    let reason = format!("tensor {name} is in {format}, which safetensors lack");
                    return Err(Error::Config { reason });
                }
            }
        }
        let views = parts
            .iter()
            .map(|(name, dtype, dims, bytes)| {
                Ok((name, TensorView::new(*dtype, dims.clone(), bytes)?))
            })
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>();
        views
            .and_then(|views| safetensors::serialize(views, None::<HashMap<String, String>>))
            .map_err(|error| Error::Config {
                reason: format!("weights that cannot be written: {error}"),
            })
    }

    /// f32 tensors on the CPU, as they are.
    ///
    /// # Errors
    /// A tensor that cannot be read.
    pub fn from_tensors(tensors: &BTreeMap<String, Tensor>) -> Result<Self, Error> {
        let stored = tensors.iter().map(|(name, tensor)| {
            let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
            let dims = tensor.dims().to_vec();
            Ok((name.clone(), Stored::F32 { dims, values }))
        });
        Ok(Self(stored.collect::<Result<_, Error>>()?))
    }

    /// Whether any tensor is int8.
    pub fn has_int8(&self) -> bool {
        self.0
            .values()
            .any(|stored| matches!(stored, Stored::I8 { .. }))
    }

    /// The tensor of a name, of the given shape.
    pub(crate) fn get(&self, name: &str, dims: &[usize]) -> Result<&Stored, Error> {
        let stored = self.0.get(name).ok_or_else(|| Error::MissingTensor {
            name: name.to_owned(),
        })?;
        if stored.dims() != dims {
            return Err(Error::TensorShape {
                name: name.to_owned(),
                expected: dims.to_vec(),
                found: stored.dims().to_vec(),
            });
        }
        Ok(stored)
    }

    /// Names of the linear layers of all blocks, `blocks.0.attn.qkv` and so on, first to last.
    pub fn layer_names(config: &VitConfig) -> Vec<String> {
        (0..config.depth)
            .flat_map(|block| LINEAR_LAYERS.map(|layer| format!("blocks.{block}.{layer}")))
            .collect()
    }
}

pub(super) fn scale_name(weight: &str) -> String {
    format!("{}.scale", weight.strip_suffix(".weight").unwrap_or(weight))
}

pub(super) fn floats(bytes: &[u8]) -> Vec<f32> {
    let (words, _) = bytes.as_chunks::<4>();
    words.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

fn float_bytes(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> EncoderWeights {
        let int8 = Stored::I8 {
            dims: [2, 3],
            values: vec![1, -127, 0, 127, 5, -6],
            scale: vec![0.5, 2.0],
        };
        let float = Stored::F32 {
            dims: vec![2],
            values: vec![1.5, -2.25],
        };
        EncoderWeights(BTreeMap::from([
            ("a.weight".to_owned(), int8),
            ("a.bias".to_owned(), float),
        ]))
    }

    #[test]
    fn both_kinds_survive_the_file() {
        let weights = some();
        let read = EncoderWeights::from_bytes(&weights.to_bytes().unwrap()).unwrap();
        assert_eq!(read, weights);
        assert_eq!(
            read.0["a.weight"].to_f32(),
            [0.5, -63.5, 0.0, 254.0, 10.0, -12.0]
        );
    }

    #[test]
    fn int8_without_scales_is_named() {
        let data = [1_u8, 2];
        let view = TensorView::new(Dtype::I8, vec![1, 2], &data).unwrap();
        let none: Option<HashMap<String, String>> = None;
        let bytes = safetensors::serialize([("x.weight", view)], none).unwrap();
        let error = EncoderWeights::from_bytes(&bytes).unwrap_err();
        assert!(matches!(error, Error::MissingTensor { name } if name == "x.scale"));
    }
}
