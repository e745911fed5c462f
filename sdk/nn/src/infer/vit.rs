//! The packed encoder: what is loaded, and the call that runs it.

use std::sync::{Mutex, PoisonError};

use super::Stop;
use super::attention::Heads;
use super::isa::Isa;
use super::layer::Layer;
use super::plan::{Outputs, Workspace};
use super::team::Team;
use super::tile::Kernels;
use super::turn::Turns;
use super::weights::{EncoderWeights, Stored};
use crate::{Error, Gelu, VitConfig};

/// How to run a packed encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedOptions {
    /// Threads that work on a frame, the caller's among them; at least one.
    pub threads: usize,
    /// Images that go through the blocks together; memory is reserved for so many, larger batches take several passes.
    pub images: usize,
    /// Whose kernels to use; it must be available.
    pub isa: Isa,
}

/// Weight and bias of a norm.
pub(super) struct Norm {
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
}

pub(super) struct Block {
    pub(super) norm1: Norm,
    pub(super) qkv: Layer,
    pub(super) proj: Layer,
    pub(super) norm2: Norm,
    pub(super) fc1: Layer,
    pub(super) fc2: Layer,
}

/// Everything that does not change from frame to frame.
pub(super) struct Model {
    pub(super) kernels: Kernels,
    pub(super) heads: Heads,
    /// Token width D.
    pub(super) dim: usize,
    /// Hidden width of the MLP.
    pub(super) hidden: usize,
    pub(super) patch: usize,
    /// Height and width of the image in pixels.
    pub(super) size: [usize; 2],
    /// CLS and registers.
    pub(super) n_prefix: usize,
    pub(super) gelu: Gelu,
    pub(super) eps: f32,
    /// What the product of the patches is added to, `[T, D]`: CLS with its position, registers, positions.
    pub(super) table: Vec<f32>,
    pub(super) embed: Layer,
    pub(super) blocks: Vec<Block>,
    pub(super) norm: Norm,
}

/// An encoder for running only.
///
/// May be called from several threads; the calls take turns, since each uses all threads. [`PackedVit::run`] allocates nothing.
///
/// ```
/// use ssl_edge_nn::infer::{EncoderWeights, PackedOptions, PackedVit, Stored};
/// use ssl_edge_nn::{Params, Vit, VitConfig};
/// # use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
/// let config = VitConfig { image_size: [32, 32], ..VitConfig::named("vit_n16")? };
/// let mut params = Params::new();
/// Vit::init(&config, &mut params, "", &mut ChaCha8Rng::seed_from_u64(1))?;
/// let weights = EncoderWeights::from_tensors(&params.to_map())?;
/// let encoder = PackedVit::new(&config, weights, &PackedOptions::default())?;
/// let (mut cls, mut patches) = (vec![0.0; 192], vec![0.0; 4 * 192]);
/// encoder.run(&vec![0.5; 3 * 32 * 32], 1, &mut cls, &mut patches)?;
/// # Ok::<(), ssl_edge_nn::Error>(())
/// ```
pub struct PackedVit {
    model: Model,
    team: Team,
    turns: Turns,
    workspace: Mutex<Workspace>,
    work_bytes: usize,
    isa: Isa,
}

/// How far a call of [`PackedVit::run_until`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// To the end.
    Done,
    /// It was stopped; the tokens of the images that are not done hold anything.
    Stopped {
        /// Images that are done.
        images: usize,
        /// Blocks that the next images have behind them.
        blocks: usize,
    },
}

impl Default for PackedOptions {
    /// One thread, one image, the best kernels of this CPU.
    fn default() -> Self {
        Self {
            threads: 1,
            images: 1,
            isa: Isa::detect(),
        }
    }
}

impl Model {
    pub(super) fn n_patches(&self) -> usize {
        self.heads.tokens - self.n_prefix
    }

    fn layers(&self) -> impl Iterator<Item = &Layer> {
        let blocks = self.blocks.iter();
        std::iter::once(&self.embed).chain(blocks.flat_map(|b| [&b.qkv, &b.proj, &b.fc1, &b.fc2]))
    }
}

impl PackedVit {
    /// Packs the weights, each of which is given up once it is packed, reserves all memory and starts the threads.
    ///
    /// # Errors
    /// A tensor that is missing or of another shape, an int8 tensor where none may be, memory that is refused, or threads that cannot be started.
    pub fn new(
        config: &VitConfig,
        weights: EncoderWeights,
        options: &PackedOptions,
    ) -> Result<Self, Error> {
        config.validate()?;
        if !options.isa.is_available() {
            return Err(Error::Config {
                reason: format!("this CPU has no {}", options.isa),
            });
        }
        let model = load(config, weights, Kernels::of(options.isa))?;
        let team = Team::new(options.threads).map_err(|error| Error::Config {
            reason: format!("{} threads cannot be started: {error}", options.threads),
        })?;
        let workspace = Workspace::new(&model, options.images.max(1), team.members())?;
        Ok(Self {
            model,
            team,
            turns: Turns::default(),
            work_bytes: workspace.bytes(),
            workspace: Mutex::new(workspace),
            isa: options.isa,
        })
    }

    /// Tokens after the final norm of `images [B, 3, H, W]`: CLS into `cls [B, D]`, patches into `patches [B, N, D]`.
    ///
    /// # Errors
    /// Slices of other lengths.
    pub fn run(
        &self,
        images: &[f32],
        batch: usize,
        cls: &mut [f32],
        patches: &mut [f32],
    ) -> Result<(), Error> {
        // Nothing stops it.
        let _ = self.work(images, batch, Outputs { cls, patches }, None)?;
        Ok(())
    }

    /// As [`PackedVit::run`], but gives up when `stop` says so. It is asked between the tasks of a block, some dozen rows each, by every thread, and
    /// while other calls have their turn. A call that was stopped leaves nothing behind that a later one could see.
    ///
    /// # Errors
    /// Slices of other lengths.
    pub fn run_until(
        &self,
        images: &[f32],
        batch: usize,
        cls: &mut [f32],
        patches: &mut [f32],
        stop: &Stop<'_>,
    ) -> Result<Progress, Error> {
        self.work(images, batch, Outputs { cls, patches }, Some(stop))
    }

    fn work(
        &self,
        images: &[f32],
        batch: usize,
        Outputs { cls, patches }: Outputs<'_>,
        stop: Option<&Stop<'_>>,
    ) -> Result<Progress, Error> {
        let [height, width] = self.model.size;
        let (dim, n) = (self.model.dim, self.model.n_patches());
        let image = 3 * height * width;
        for (what, len, one) in [
            ("images", images.len(), image),
            ("cls", cls.len(), dim),
            ("patches", patches.len(), n * dim),
        ] {
            if one.checked_mul(batch) != Some(len) {
                return Err(Error::Config {
                    reason: format!("{what} has {len} values where {batch} times {one} are needed"),
                });
            }
        }
        let stopped = |images, blocks| Ok(Progress::Stopped { images, blocks });
        let Some(_turn) = self.turns.take(stop) else {
            return stopped(0, 0);
        };
        // A panic inside leaves numbers of an unfinished frame behind, which the next frame overwrites.
        let mut workspace = self
            .workspace
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let at_once = workspace.images();
        let passes = images
            .chunks(at_once * image)
            .zip(cls.chunks_mut(at_once * dim))
            .zip(patches.chunks_mut(at_once * n * dim));
        for (pass, ((images, cls), patches)) in passes.enumerate() {
            let out = Outputs { cls, patches };
            if let Err(blocks) = workspace.run(&self.model, &self.team, images, out, stop) {
                return stopped(pass * at_once, blocks);
            }
        }
        Ok(Progress::Done)
    }

    /// Bytes of packed weights.
    pub fn weight_bytes(&self) -> usize {
        self.model.layers().map(Layer::bytes).sum()
    }

    /// Bytes reserved for the work on frames.
    pub fn work_bytes(&self) -> usize {
        self.work_bytes
    }

    /// Threads that work on a frame.
    pub fn threads(&self) -> usize {
        self.team.members()
    }

    /// Blocks of the encoder.
    pub fn blocks(&self) -> usize {
        self.model.blocks.len()
    }

    /// Whose kernels it uses.
    pub fn isa(&self) -> Isa {
        self.isa
    }
}

fn load(config: &VitConfig, mut weights: EncoderWeights, kernels: Kernels) -> Result<Model, Error> {
    let (dim, patch) = (config.dim, config.patch);
    let [rows, columns] = config.grid(config.image_size)?;
    let n_patches = rows * columns;
    let weights = &mut weights;
    let blocks = (0..config.depth).map(|i| block(config, weights, i, &kernels));
    let blocks = blocks.collect::<Result<_, _>>()?;
    let inputs = 3 * patch * patch;
    let embed = Stored::F32 {
        dims: vec![dim, inputs],
        values: weights.take_floats("patch_embed.proj.weight", &[dim, 3, patch, patch])?,
    };
    let embed_bias = weights.take_floats("patch_embed.proj.bias", &[dim])?;
    Ok(Model {
        kernels,
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
        table: table(config, weights, n_patches)?,
        embed: Layer::new(&embed, &embed_bias, inputs, &kernels)?,
        blocks,
        norm: norm(weights, "norm", dim)?,
    })
}

fn block(
    config: &VitConfig,
    weights: &mut EncoderWeights,
    index: usize,
    kernels: &Kernels,
) -> Result<Block, Error> {
    let (dim, hidden) = (config.dim, config.dim * config.mlp_ratio);
    let name = |part: &str| format!("blocks.{index}.{part}");
    let mut linear = |part: &str, n: usize, k: usize| {
        let bias = weights.take_floats(&name(&format!("{part}.bias")), &[n])?;
        let weight = weights.take(&name(&format!("{part}.weight")), &[n, k])?;
        Layer::new(&weight, &bias, k, kernels)
    };
    let [qkv, proj, fc1, fc2] = [
        linear("attn.qkv", 3 * dim, dim)?,
        linear("attn.proj", dim, dim)?,
        linear("mlp.fc1", hidden, dim)?,
        linear("mlp.fc2", dim, hidden)?,
    ];
    Ok(Block {
        norm1: norm(weights, &name("norm1"), dim)?,
        qkv,
        proj,
        norm2: norm(weights, &name("norm2"), dim)?,
        fc1,
        fc2,
    })
}

fn norm(weights: &mut EncoderWeights, name: &str, dim: usize) -> Result<Norm, Error> {
    Ok(Norm {
        weight: weights.take_floats(&format!("{name}.weight"), &[dim])?,
        bias: weights.take_floats(&format!("{name}.bias"), &[dim])?,
    })
}

fn table(config: &VitConfig, weights: &mut EncoderWeights, n: usize) -> Result<Vec<f32>, Error> {
    let dim = config.dim;
    let positions = weights.take_floats("pos_embed", &[1, 1 + n, dim])?;
    let cls = weights.take_floats("cls_token", &[1, 1, dim])?;
    let mut table: Vec<f32> = cls.iter().zip(&positions).map(|(c, p)| c + p).collect();
    if config.registers > 0 {
        table.extend(weights.take_floats("register_tokens", &[1, config.registers, dim])?);
    }
    table.extend(&positions[dim..]);
    Ok(table)
}
