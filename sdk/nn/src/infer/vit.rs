//! The packed encoder: what is loaded, and the call that runs it.

use std::io::Read;
use std::sync::{Mutex, PoisonError};

use super::Stop;
use super::attention::Heads;
use super::layer::Layer;
use super::parts::Parts;
use super::plan::{Outputs, Workspace};
use super::read::each_tensor;
use super::team::Team;
use super::turn::Turns;
use super::weights::EncoderWeights;
use crate::kernels::Isa;
use crate::kernels::Kernels;
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
    /// Packs the weights, each given up once it is packed, reserves all memory and starts the threads.
    ///
    /// # Errors
    /// A tensor that is missing or of another shape, an int8 tensor where none may be, memory that is refused, or threads that cannot be started.
    pub fn new(
        config: &VitConfig,
        weights: EncoderWeights,
        options: &PackedOptions,
    ) -> Result<Self, Error> {
        let mut parts = Parts::new(config, options)?;
        for (name, stored) in weights.0 {
            parts.take(name, stored)?;
        }
        Self::of(parts.model(config)?, options)
    }

    /// The same from safetensors of `len` bytes, each tensor packed when it is read, so that no more than one is in memory as it was stored.
    ///
    /// # Errors
    /// As [`EncoderWeights::read`] and [`PackedVit::new`].
    pub fn read(
        config: &VitConfig,
        reader: impl Read,
        len: u64,
        options: &PackedOptions,
    ) -> Result<Self, Error> {
        let mut parts = Parts::new(config, options)?;
        each_tensor(reader, len, |name, stored| parts.take(name, stored))?;
        Self::of(parts.model(config)?, options)
    }

    fn of(model: Model, options: &PackedOptions) -> Result<Self, Error> {
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
