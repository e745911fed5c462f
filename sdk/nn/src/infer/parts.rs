//! From stored tensors to a packed model, one tensor after another.

use std::collections::HashMap;

use super::attention::Heads;
use super::layer::{Layer, Packed};
use super::vit::{Block, Model, Norm, PackedOptions};
use super::weights::{EncoderWeights, Stored};
use crate::kernels::Kernels;
use crate::{Error, VitConfig};

/// The tensors of an encoder: weights of linear layers packed, all else as it was stored.
pub(super) struct Parts {
    kernels: Kernels,
    /// Outputs and inputs of the weights that are packed.
    linear: HashMap<String, [usize; 2]>,
    packed: HashMap<String, Packed>,
    others: EncoderWeights,
}

impl Parts {
    /// None yet.
    ///
    /// # Errors
    /// A shape that cannot be, kernels that this CPU cannot run.
    pub(super) fn new(config: &VitConfig, options: &PackedOptions) -> Result<Self, Error> {
        config.validate()?;
        if !options.isa.is_available() {
            return Err(Error::Config {
                reason: format!("this CPU has no {}", options.isa),
            });
        }
        let (dim, hidden) = (config.dim, config.dim * config.mlp_ratio);
        let sizes = [[3 * dim, dim], [dim, dim], [hidden, dim], [dim, hidden]];
        let names = EncoderWeights::layer_names(config).into_iter();
        let linear = names
            .zip(sizes.into_iter().cycle())
            .map(|(name, size)| (format!("{name}.weight"), size))
            .collect();
        Ok(Self {
            kernels: Kernels::of(options.isa),
            linear,
            packed: HashMap::new(),
            others: EncoderWeights::default(),
        })
    }

    /// Packs a tensor or keeps it.
    ///
    /// # Errors
    /// A weight of another shape or that cannot be packed; memory that is refused.
    pub(super) fn take(&mut self, name: String, stored: Stored) -> Result<(), Error> {
        let Some(size) = self.linear.get(&name) else {
            self.others.0.insert(name, stored);
            return Ok(());
        };
        if stored.dims() != size {
            return Err(Error::TensorShape {
                expected: size.to_vec(),
                found: stored.dims().to_vec(),
                name,
            });
        }
        let packed = Packed::new(&stored, *size, &self.kernels)?;
        self.packed.insert(name, packed);
        Ok(())
    }

    /// All that were taken, put together.
    ///
    /// # Errors
    /// A tensor that is missing or of another shape, an int8 tensor where none may be, memory that is refused.
    pub(super) fn model(mut self, config: &VitConfig) -> Result<Model, Error> {
        let (dim, patch) = (config.dim, config.patch);
        let [rows, columns] = config.grid(config.image_size)?;
        let n_patches = rows * columns;
        let blocks = (0..config.depth).map(|index| self.block(config, index));
        let blocks = blocks.collect::<Result<_, _>>()?;
        let inputs = 3 * patch * patch;
        let embed = Stored::F32 {
            dims: vec![dim, inputs],
            values: self.floats("patch_embed.proj.weight", &[dim, 3, patch, patch])?,
        };
        let embed = Packed::new(&embed, [dim, inputs], &self.kernels)?;
        let embed_bias = self.floats("patch_embed.proj.bias", &[dim])?;
        Ok(Model {
            kernels: self.kernels,
            heads: Heads {
                count: config.heads,
                width: dim / config.heads,
                tokens: config.n_prefix() + n_patches,
            },
            dim,
            hidden: dim * config.mlp_ratio,
            patch,
            size: config.image_size,
            n_prefix: config.n_prefix(),
            gelu: config.gelu,
            eps: config.eps as f32,
            table: self.table(config, n_patches)?,
            embed: Layer::new(embed, &embed_bias, inputs)?,
            blocks,
            norm: self.norm("norm", dim)?,
        })
    }

    fn block(&mut self, config: &VitConfig, index: usize) -> Result<Block, Error> {
        let dim = config.dim;
        let name = |part: &str| format!("blocks.{index}.{part}");
        Ok(Block {
            norm1: self.norm(&name("norm1"), dim)?,
            qkv: self.layer(&name("attn.qkv"))?,
            proj: self.layer(&name("attn.proj"))?,
            norm2: self.norm(&name("norm2"), dim)?,
            fc1: self.layer(&name("mlp.fc1"))?,
            fc2: self.layer(&name("mlp.fc2"))?,
        })
    }

    fn layer(&mut self, name: &str) -> Result<Layer, Error> {
        let weight = format!("{name}.weight");
        let packed = self.packed.remove(&weight);
        let (Some(packed), Some(&[n, k])) = (packed, self.linear.get(&weight)) else {
            return Err(Error::MissingTensor { name: weight });
        };
        Layer::new(packed, &self.floats(&format!("{name}.bias"), &[n])?, k)
    }

    fn norm(&mut self, name: &str, dim: usize) -> Result<Norm, Error> {
        Ok(Norm {
            weight: self.floats(&format!("{name}.weight"), &[dim])?,
            bias: self.floats(&format!("{name}.bias"), &[dim])?,
        })
    }

    fn table(&mut self, config: &VitConfig, n: usize) -> Result<Vec<f32>, Error> {
        let dim = config.dim;
        let positions = self.floats("pos_embed", &[1, 1 + n, dim])?;
        let cls = self.floats("cls_token", &[1, 1, dim])?;
        let mut table: Vec<f32> = cls.iter().zip(&positions).map(|(c, p)| c + p).collect();
        if config.registers > 0 {
            table.extend(self.floats("register_tokens", &[1, config.registers, dim])?);
        }
        table.extend(&positions[dim..]);
        Ok(table)
    }

    /// Takes out the values of a tensor that must be f32.
    fn floats(&mut self, name: &str, dims: &[usize]) -> Result<Vec<f32>, Error> {
        let missing = || Error::MissingTensor {
            name: name.to_owned(),
        };
        match self.others.0.remove(name).ok_or_else(missing)? {
            stored if stored.dims() != dims => Err(Error::TensorShape {
                name: name.to_owned(),
                expected: dims.to_vec(),
                found: stored.dims().to_vec(),
            }),
            Stored::F32 { values, .. } => Ok(values),
            Stored::I8 { .. } | Stored::Blocks { .. } => Err(Error::Config {
                reason: format!("tensor {name} is quantised; only weights of linear layers may be"),
            }),
        }
    }
}
