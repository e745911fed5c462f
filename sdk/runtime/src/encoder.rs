//! An open bundle that embeds frames.

use std::path::{Path, PathBuf};

use ssl_edge_bundle::{Bundle, Manifest, PreprocessSpec};
use ssl_edge_nn::compute::{Precision as Products, Processor};
use ssl_edge_vision::{Fit, Frame, Preprocess};

use crate::engines::build;
use crate::{
    Embedding, Engine, EngineKind, GoldenVectors, Limit, Precision, Reached, RuntimeError, SelfTest,
};

/// How to run an encoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// What runs it.
    pub engine: EngineKind,
    /// Threads of the engine's own pool; 0 for one for each CPU that the process may use. Embeddings do not depend on it.
    pub threads: usize,
    /// What it computes with; all but f32 need a bundle that was made with it.
    pub precision: Precision,
    /// The library of the engine where it is one of its own, or its folder; else it is searched for, see [`EngineKind::Cuda`].
    pub plugin: Option<PathBuf>,
}

impl Default for Options {
    /// The native engine in f32, a thread for each CPU.
    fn default() -> Self {
        Self {
            engine: EngineKind::Native,
            threads: 0,
            precision: Precision::F32,
            plugin: None,
        }
    }
}

/// The processor of an encoder and the precision of its matrix products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The processor.
    pub processor: Processor,
    /// What matrix products read. In bf16, and on GPUs with layers in blocks, the golden vectors are met to 0.02 and in f16 to 0.005 instead of the bundle's
    /// tolerance.
    pub precision: Products,
}

impl Default for Place {
    /// The CPU, in f32.
    fn default() -> Self {
        Self {
            processor: Processor::Cpu,
            precision: Products::F32,
        }
    }
}

impl Place {
    /// An engine that runs on GPUs alone takes the first one, in f16, where no place was asked for.
    fn of_engine(self, engine: EngineKind) -> Self {
        if engine == EngineKind::Cuda && self == Self::default() {
            return Self {
                processor: Processor::Cuda(0),
                precision: Products::F16,
            };
        }
        self
    }
}

/// How near an encoder with products in bf16 must come to its golden vectors: 8 bits are kept of each factor.
const BF16_TOLERANCE: f32 = 0.02;
/// The same in f16, which keeps 11 bits.
const F16_TOLERANCE: f32 = 0.005;
/// The same with linear layers in blocks on a GPU, where candle rounds activations to 8 bits as well: half a percent of each. The embedding of a random
/// ViT-S moves by 0.0024 then.
const BLOCKS_TOLERANCE: f32 = BF16_TOLERANCE;

/// An encoder that passed its self-test.
///
/// `Send` and `Sync`: any number of threads may embed through one at once, and each gets the bits that it would get alone. With the native engine the
/// calls take turns, since each uses all threads of the encoder and the one work memory that was reserved; with the onnx engine they run side by side,
/// each with work memory of its own, and share the encoder's threads. Preprocessing runs on the thread that calls.
pub struct Encoder {
    manifest: Manifest,
    hash: [u8; 32],
    preprocess: Preprocess,
    grid: [usize; 2],
    engine: Box<dyn Engine>,
    place: Place,
    self_test: SelfTest,
}

impl Encoder {
    /// Opens a bundle, builds the engine and runs the golden vectors through it.
    ///
    /// # Errors
    /// A bundle that cannot be read, an engine that is not there or cannot load it, or an engine that misses the golden vectors.
    pub fn open(path: &Path, options: &Options) -> Result<Self, RuntimeError> {
        Self::from_bundle(&Bundle::open(path)?, options)
    }

    /// The same from a bundle that is already open.
    ///
    /// # Errors
    /// As [`Encoder::open`].
    pub fn from_bundle(bundle: &Bundle, options: &Options) -> Result<Self, RuntimeError> {
        Self::from_bundle_on(bundle, options, Place::default())
    }

    /// As [`Encoder::open`], on a processor other than the CPU.
    ///
    /// # Errors
    /// As [`Encoder::open`], and [`RuntimeError::Device`] where the processor cannot be used.
    pub fn open_on(path: &Path, options: &Options, place: Place) -> Result<Self, RuntimeError> {
        Self::from_bundle_on(&Bundle::open(path)?, options, place)
    }

    /// The same from a bundle that is already open.
    ///
    /// # Errors
    /// As [`Encoder::open_on`].
    pub fn from_bundle_on(
        bundle: &Bundle,
        options: &Options,
        place: Place,
    ) -> Result<Self, RuntimeError> {
        let load = |reason: String| RuntimeError::Load {
            path: bundle.path().to_owned(),
            engine: options.engine,
            reason,
        };
        let place = place.of_engine(options.engine);
        let manifest = bundle.manifest().clone();
        let preprocess = preprocess(&manifest.preprocess).map_err(load)?;
        let engine = build(bundle, options, place)?;
        let golden = GoldenVectors::read(bundle, options.precision)?;
        let mut self_test = golden.run(engine.as_ref(), &manifest)?;
        let rounding = match place.precision {
            _ if options.precision.is_blocks() && place != Place::default() => BLOCKS_TOLERANCE,
            Products::F32 => 0.0,
            Products::Bf16 => BF16_TOLERANCE,
            Products::F16 => F16_TOLERANCE,
        };
        self_test.tolerance = self_test.tolerance.max(rounding);
        if !self_test.passed() {
            return Err(RuntimeError::SelfTest {
                path: bundle.path().to_owned(),
                engine: options.engine,
                difference: self_test.difference,
                tolerance: self_test.tolerance,
            });
        }
        let hash = match options.precision {
            Precision::F32 => bundle.encoder_hash(),
            precision => manifest
                .variant_hash(precision.name())
                .ok_or_else(|| load(format!("it has no {precision} variant")))?,
        };
        Ok(Self {
            hash,
            grid: manifest.grid(),
            manifest,
            preprocess,
            engine,
            place,
            self_test,
        })
    }

    /// Embeds one frame.
    ///
    /// # Errors
    /// [`RuntimeError::Run`] or [`RuntimeError::NonFinite`].
    pub fn embed(&self, frame: &Frame<'_>) -> Result<Embedding, RuntimeError> {
        self.embed_within(frame, &Limit::default())
    }

    /// Embeds one frame, or gives up when `limit` passes: while other calls have their turn, before and after preprocessing, and while the engine runs
    /// ([`Engine::run_until`]). The encoder is then as if the call had not been.
    ///
    /// ```no_run
    /// # use ssl_edge_runtime::{Encoder, Limit, RuntimeError};
    /// # fn inspect(encoder: &Encoder, frame: &ssl_edge_vision::Frame<'_>) -> Result<(), RuntimeError> {
    /// match encoder.embed_within(frame, &Limit::within(std::time::Duration::from_millis(40))) {
    ///     Ok(embedding) => println!("{:?}", encoder.feature(&embedding)),
    ///     Err(RuntimeError::Interrupted { reached, .. }) => println!("too late: {reached}"),
    ///     Err(other) => return Err(other),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`RuntimeError::Interrupted`] with how far it came; also as [`Encoder::embed`].
    pub fn embed_within(
        &self,
        frame: &Frame<'_>,
        limit: &Limit,
    ) -> Result<Embedding, RuntimeError> {
        self.look(limit, 1)?;
        let mut input = vec![0.0; self.preprocess.len()];
        self.preprocess.apply(frame, &mut input)?;
        let mut embeddings = self.embed_preprocessed_within(&input, 1, limit)?;
        Ok(embeddings.remove(0))
    }

    fn look(&self, limit: &Limit, frames: usize) -> Result<(), RuntimeError> {
        match limit.passed() {
            None => Ok(()),
            Some(reason) => Err(RuntimeError::Interrupted {
                engine: self.engine.kind(),
                reason,
                reached: Reached {
                    of_frames: frames,
                    ..Reached::default()
                },
            }),
        }
    }

    /// Embeds frames in one pass of the engine; the embeddings are in the order of the frames and equal those of [`Encoder::embed`].
    ///
    /// # Errors
    /// As [`Encoder::embed`]; no embedding is returned if any frame fails.
    pub fn embed_batch(&self, frames: &[Frame<'_>]) -> Result<Vec<Embedding>, RuntimeError> {
        self.embed_batch_within(frames, &Limit::default())
    }

    /// As [`Encoder::embed_batch`], but gives up all frames when `limit` passes, as [`Encoder::embed_within`] does.
    ///
    /// # Errors
    /// [`RuntimeError::Interrupted`]; also as [`Encoder::embed_batch`].
    pub fn embed_batch_within(
        &self,
        frames: &[Frame<'_>],
        limit: &Limit,
    ) -> Result<Vec<Embedding>, RuntimeError> {
        if frames.is_empty() {
            return Ok(Vec::new());
        }
        let mut input = vec![0.0; frames.len() * self.preprocess.len()];
        for (frame, image) in frames
            .iter()
            .zip(input.chunks_exact_mut(self.preprocess.len()))
        {
            self.look(limit, frames.len())?;
            self.preprocess.apply(frame, image)?;
        }
        self.embed_preprocessed_within(&input, frames.len(), limit)
    }

    /// Embeds a batch that [`Preprocess::apply`] has already made, `[B, 3, H, W]`.
    ///
    /// # Errors
    /// [`RuntimeError::Run`], also where `input` has another length, or [`RuntimeError::NonFinite`].
    pub fn embed_preprocessed(
        &self,
        input: &[f32],
        batch: usize,
    ) -> Result<Vec<Embedding>, RuntimeError> {
        self.embed_preprocessed_within(input, batch, &Limit::default())
    }

    /// As [`Encoder::embed_preprocessed`], but gives up when `limit` passes.
    ///
    /// # Errors
    /// [`RuntimeError::Interrupted`]; also as [`Encoder::embed_preprocessed`].
    pub fn embed_preprocessed_within(
        &self,
        input: &[f32],
        batch: usize,
        limit: &Limit,
    ) -> Result<Vec<Embedding>, RuntimeError> {
        self.look(limit, batch)?;
        let expected = self.preprocess.len().checked_mul(batch);
        if batch == 0 || expected != Some(input.len()) {
            return Err(RuntimeError::Run {
                engine: self.engine.kind(),
                reason: format!(
                    "an input of {} values is not {batch} images of {}",
                    input.len(),
                    self.preprocess.len()
                ),
            });
        }
        let dim = self.dim();
        let n_patches = self.grid[0] * self.grid[1];
        let mut cls = vec![0.0; batch * dim];
        let mut patches = vec![0.0; batch * n_patches * dim];
        self.engine
            .run_until(input, batch, &mut cls, &mut patches, limit)?;
        let frames = cls
            .chunks_exact(dim)
            .zip(patches.chunks_exact(n_patches * dim));
        frames
            .enumerate()
            .map(|(frame, (cls, patches))| {
                let embedding = Embedding::new(cls, patches, self.grid);
                if embedding.is_finite() {
                    return Ok(embedding);
                }
                Err(RuntimeError::NonFinite {
                    engine: self.engine.kind(),
                    frame,
                })
            })
            .collect()
    }

    /// Tokens of `input [B, 3, H, W]` as [`Preprocess::apply`] makes it, into `cls [B, D]` and `patches [B, N, D]`. The native engine allocates nothing
    /// here; calls from several threads take turns.
    ///
    /// # Errors
    /// [`RuntimeError::Run`], also where a slice has another length. Values are not checked for being finite.
    pub fn tokens_into(
        &self,
        input: &[f32],
        batch: usize,
        cls: &mut [f32],
        patches: &mut [f32],
    ) -> Result<(), RuntimeError> {
        self.engine.run_into(input, batch, cls, patches)
    }

    /// As [`Encoder::tokens_into`], but gives up when `limit` passes.
    ///
    /// # Errors
    /// [`RuntimeError::Interrupted`], and then the slices hold anything; also as [`Encoder::tokens_into`].
    pub fn tokens_until(
        &self,
        input: &[f32],
        batch: usize,
        cls: &mut [f32],
        patches: &mut [f32],
        limit: &Limit,
    ) -> Result<(), RuntimeError> {
        self.engine.run_until(input, batch, cls, patches, limit)
    }

    /// The feature that heads see: the pooling that the manifest asks for, of norm 1.
    pub fn feature(&self, embedding: &Embedding) -> Vec<f32> {
        embedding.feature(self.manifest.pooling)
    }

    /// Width D of a token.
    pub fn dim(&self) -> usize {
        self.manifest.dim()
    }

    /// Length of [`Encoder::feature`].
    pub fn feature_dim(&self) -> usize {
        match self.manifest.pooling {
            ssl_edge_bundle::Pooling::ClsMean => 2 * self.dim(),
            _ => self.dim(),
        }
    }

    /// Rows and columns of the grid of patches.
    pub fn grid(&self) -> [usize; 2] {
        self.grid
    }

    /// What the engine computes with.
    pub fn precision(&self) -> Precision {
        self.engine.precision()
    }

    /// Threads that work on a frame, where the engine has its own.
    pub fn threads(&self) -> Option<usize> {
        self.engine.threads()
    }

    /// Instruction set of the engine's kernels, where they are ours.
    pub fn isa(&self) -> Option<&'static str> {
        self.engine.isa().map(|isa| isa.name())
    }

    /// The processor, and what matrix products read there.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Bytes of weights and work memory, where the engine knows.
    pub fn memory(&self) -> Option<usize> {
        self.engine.memory()
    }

    /// Identity of the encoder in its precision; see [`Manifest::encoder_hash`] and [`Manifest::variant_hash`].
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// What the bundle says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// From a frame to the encoder's input.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// The engine that runs.
    pub fn engine(&self) -> EngineKind {
        self.engine.kind()
    }

    /// How near the engine came to the golden vectors when the bundle was opened.
    pub fn self_test(&self) -> SelfTest {
        self.self_test
    }
}

fn preprocess(spec: &PreprocessSpec) -> Result<Preprocess, String> {
    let fit: Fit = spec.fit.parse().map_err(|error| format!("{error}"))?;
    let preprocess = Preprocess {
        height: spec.height,
        width: spec.width,
        fit,
        mean: spec.mean,
        std: spec.std,
    };
    preprocess.validate().map_err(|error| error.to_string())?;
    Ok(preprocess)
}

#[cfg(test)]
mod tests;
