//! The boundary that every engine fills: input tensor in, tokens out.

use std::fmt;
use std::str::FromStr;
#[cfg(feature = "onnx")]
use std::sync::Arc;

#[cfg(feature = "onnx")]
use rayon::{ThreadPool, ThreadPoolBuilder};
use ssl_edge_bundle::{ArchSpec, Bundle, Manifest};
use ssl_edge_nn::compute::Processor;
use ssl_edge_nn::infer::{BlockFormat, Isa};

pub use cuda::{PluginReport, inspect_plugin};
pub use load::vit_config;

use load::{Unfit, weights};

use crate::{Limit, Options, Place, Reached, RuntimeError};

mod cuda;
mod device;
mod load;
mod native;
#[cfg(feature = "onnx")]
pub(crate) mod onnx;

/// What runs the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EngineKind {
    /// The operations of `ssl-edge-nn`, on the CPU; transformers of ours only.
    Native,
    /// The ONNX graph through tract, on the CPU; ours and imported ones. Needs feature `onnx`.
    Onnx,
    /// NVIDIA GPUs through the plug-in `libssl_edge_cuda`: [`Options::plugin`], or the first that is found in the folders of `SSL_EDGE_PLUGIN_PATH`, beside
    /// this library or beside the program. It runs the f32 variant with weights and products in f16 and sums in f32, on the first GPU, unless a
    /// [`Place`] says otherwise.
    Cuda,
}

/// Which numbers the encoder's linear layers are computed with. Features of different precisions are not mixed: each has a hash of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Precision {
    /// f32, in every bundle.
    #[default]
    F32,
    /// int8 weights and activations, where the bundle was made with them; native engine on the CPU only.
    Int8,
    /// Linear layers in GGML's Q8_0, where the bundle was made with them; native engine only. On the CPU they are made f32 when the bundle is opened, which
    /// saves no time and no memory; on GPUs they stay as they are.
    Q8_0,
    /// The same with the MLP's layers in Q4_0.
    Q4_0,
}

/// Tokens of a batch after the final norm.
#[derive(Debug, Clone, PartialEq)]
pub struct Tokens {
    /// CLS tokens, `[B, D]`.
    pub cls: Vec<f32>,
    /// Patch tokens, `[B, N, D]`.
    pub patches: Vec<f32>,
}

/// Runs an encoder on preprocessed input. May be called from several threads at once.
pub trait Engine: Send + Sync {
    /// Which engine this is.
    fn kind(&self) -> EngineKind;

    /// What it computes with.
    fn precision(&self) -> Precision {
        Precision::F32
    }

    /// Bytes of weights and work memory, where the engine knows.
    fn memory(&self) -> Option<usize> {
        None
    }

    /// Threads that work on a frame, where the engine has its own.
    fn threads(&self) -> Option<usize> {
        None
    }

    /// Instruction set of its kernels, where they are ours.
    fn isa(&self) -> Option<Isa> {
        None
    }

    /// Values of the class token and of the patch tokens of one image, D and N · D.
    fn lengths(&self) -> [usize; 2];

    /// Tokens of `input [B, 3, H, W]`, with H and W those of the bundle's preprocessing.
    ///
    /// # Errors
    /// [`RuntimeError::Run`] with the engine's reason.
    fn run(&self, input: &[f32], batch: usize) -> Result<Tokens, RuntimeError> {
        let [cls, patches] = self.lengths().map(|one| vec![0.0; batch * one]);
        let mut tokens = Tokens { cls, patches };
        self.run_into(input, batch, &mut tokens.cls, &mut tokens.patches)?;
        Ok(tokens)
    }

    /// The same into `cls [B, D]` and `patches [B, N, D]`; the native engine on the CPU allocates nothing for it.
    ///
    /// # Errors
    /// As [`Engine::run`]; also slices of other lengths.
    fn run_into(
        &self,
        input: &[f32],
        batch: usize,
        cls: &mut [f32],
        patches: &mut [f32],
    ) -> Result<(), RuntimeError>;

    /// As [`Engine::run_into`], but gives up when `limit` passes. The native engine looks between the tasks of a block, tract between operations; an
    /// engine that says nothing else looks before and after the batch. A call that was given up leaves nothing behind that a later one could see.
    ///
    /// # Errors
    /// [`RuntimeError::Interrupted`]; what the slices hold then is unfinished. Also as [`Engine::run_into`].
    fn run_until(
        &self,
        input: &[f32],
        batch: usize,
        cls: &mut [f32],
        patches: &mut [f32],
        limit: &Limit,
    ) -> Result<(), RuntimeError> {
        let look = |frames| match limit.passed() {
            None => Ok(()),
            Some(reason) => Err(RuntimeError::Interrupted {
                engine: self.kind(),
                reason,
                reached: Reached {
                    frames,
                    of_frames: batch,
                    ..Reached::default()
                },
            }),
        };
        look(0)?;
        self.run_into(input, batch, cls, patches)?;
        look(batch)
    }
}

/// Each length is `batch` times the size of one, input, class tokens and patches in this order.
fn check_lengths(
    engine: EngineKind,
    batch: usize,
    lengths: [(usize, usize); 3],
) -> Result<(), RuntimeError> {
    for (what, (len, one)) in ["input", "cls", "patches"].into_iter().zip(lengths) {
        if one.checked_mul(batch) != Some(len) {
            let reason = format!("{what} has {len} values where {batch} times {one} are needed");
            return Err(RuntimeError::Run { engine, reason });
        }
    }
    Ok(())
}

impl Precision {
    /// All.
    pub const ALL: [Self; 4] = [Self::F32, Self::Int8, Self::Q8_0, Self::Q4_0];

    /// `f32`, `int8`, `q8_0` or `q4_0`, also the name of the variant in a bundle.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Int8 => "int8",
            Self::Q8_0 => BlockFormat::Q8_0.name(),
            Self::Q4_0 => BlockFormat::Q4_0.name(),
        }
    }

    /// Whether its linear layers are in GGML's blocks.
    pub fn is_blocks(self) -> bool {
        matches!(self, Self::Q8_0 | Self::Q4_0)
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|precision| precision.name() == name)
            .ok_or_else(|| format!("unknown precision {name:?}; use f32, int8, q8_0 or q4_0"))
    }
}

impl EngineKind {
    /// The engines of this build. Those of plug-ins are not among them: whether they are there shows when they are opened, or in [`inspect_plugin`].
    pub fn available() -> &'static [Self] {
        if cfg!(feature = "onnx") {
            &[Self::Native, Self::Onnx]
        } else {
            &[Self::Native]
        }
    }

    /// The engine that an encoder is for: native for transformers of ours, onnx for imported graphs.
    pub fn of(manifest: &Manifest) -> Self {
        match manifest.graph() {
            None => Self::Native,
            Some(_) => Self::Onnx,
        }
    }

    /// `native`, `onnx` or `cuda`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Onnx => "onnx",
            Self::Cuda => "cuda",
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for EngineKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Self::Native, Self::Onnx, Self::Cuda]
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| format!("unknown engine {name:?}; use native, onnx or cuda"))
    }
}

/// Builds the engine that `options` ask for.
pub(crate) fn build(
    bundle: &Bundle,
    options: &Options,
    place: Place,
) -> Result<Box<dyn Engine>, RuntimeError> {
    let load = |unfit: Unfit| unfit.of(bundle, options.engine);
    check_precision(bundle, options)?;
    if options.engine != EngineKind::Cuda && place != Place::default() {
        return on_device(bundle, options, place);
    }
    match options.engine {
        EngineKind::Native => {
            let threads = count(options.threads);
            let engine = native::Native::load(bundle, options.precision, threads).map_err(load)?;
            Ok(Box::new(engine))
        }
        #[cfg(feature = "onnx")]
        EngineKind::Onnx => {
            let engine = onnx::Onnx::load(bundle, pool(options.threads)?).map_err(load)?;
            Ok(Box::new(engine))
        }
        #[cfg(not(feature = "onnx"))]
        EngineKind::Onnx => Err(unavailable(EngineKind::Onnx)),
        EngineKind::Cuda => Ok(Box::new(cuda::Cuda::load(bundle, options, place)?)),
    }
}

/// The native engine on a processor other than the CPU.
fn on_device(
    bundle: &Bundle,
    options: &Options,
    place: Place,
) -> Result<Box<dyn Engine>, RuntimeError> {
    let (engine, precision) = (options.engine, options.precision);
    if engine != EngineKind::Native || precision == Precision::Int8 {
        return Err(RuntimeError::Device {
            reason: format!(
                "engine {engine} in {precision} runs on the CPU only; choose engine native in f32, q8_0 or q4_0 for {}, or the CPU",
                place.processor
            ),
        });
    }
    if place.processor == Processor::Cpu {
        return Err(RuntimeError::Device {
            reason: format!(
                "products of an encoder on the CPU are in f32, not {}; for less, open it in int8",
                place.precision
            ),
        });
    }
    let opened = place.processor.open(place.precision, false);
    let opened = opened.map_err(|error| RuntimeError::Device {
        reason: error.to_string(),
    })?;
    let loaded = device::OnDevice::load(bundle, precision, &opened, place.precision);
    let engine = loaded.map_err(|unfit| unfit.of(bundle, engine))?;
    Ok(Box::new(engine))
}

#[cfg(not(feature = "onnx"))]
fn unavailable(engine: EngineKind) -> RuntimeError {
    let names: Vec<_> = EngineKind::available()
        .iter()
        .map(|kind| kind.name())
        .collect();
    RuntimeError::EngineUnavailable {
        engine,
        reason: format!("this build is without feature `{engine}`"),
        available: names.join(", "),
    }
}

fn check_precision(bundle: &Bundle, options: &Options) -> Result<(), RuntimeError> {
    let refuse = |reason: String| {
        Err(RuntimeError::PrecisionUnavailable {
            path: bundle.path().to_owned(),
            precision: options.precision,
            reason,
        })
    };
    let precision = options.precision;
    if precision == Precision::F32 {
        return Ok(());
    }
    if !bundle.manifest().variants.contains_key(precision.name()) {
        return refuse(format!(
            "the bundle does not hold it; make one that does with `ssl-edge export --quantize {precision}`, or open it in f32"
        ));
    }
    let engine = options.engine;
    match engine {
        EngineKind::Native => Ok(()),
        EngineKind::Onnx => refuse(format!(
            "engine {engine} runs f32 only; choose engine native"
        )),
        EngineKind::Cuda => refuse(format!(
            "engine {engine} runs the f32 variant, in f16 or f32; open it in f32, or choose engine native"
        )),
    }
}

/// `threads`, or one for each CPU that the process may use where it is 0.
fn count(threads: usize) -> usize {
    match threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    }
}

/// A pool of [`count`] threads.
#[cfg(feature = "onnx")]
fn pool(threads: usize) -> Result<Arc<ThreadPool>, RuntimeError> {
    let threads = count(threads);
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|index| format!("ssl-edge-{index}"))
        .build()
        .map(Arc::new)
        .map_err(|error| RuntimeError::Threads {
            threads,
            reason: error.to_string(),
        })
}

/// Sizes that an engine of ours needs at every run.
#[derive(Debug, Clone, Copy)]
struct Shape {
    height: usize,
    width: usize,
    n_patches: usize,
    dim: usize,
}

impl Shape {
    fn of(manifest: &Manifest) -> Self {
        let ([height, width], [rows, columns]) = (manifest.input_size(), manifest.grid());
        Self {
            height,
            width,
            n_patches: rows * columns,
            dim: manifest.dim(),
        }
    }

    /// As [`Engine::lengths`].
    fn lengths(self) -> [usize; 2] {
        [self.dim, self.n_patches * self.dim]
    }
}

/// The shape of a transformer of ours.
fn arch(manifest: &Manifest) -> Result<&ArchSpec, String> {
    manifest.arch().ok_or_else(|| {
        format!(
            "{} is an imported graph, which engine {} alone runs, on the CPU",
            manifest.name(),
            EngineKind::Onnx
        )
    })
}
