//! The boundary that every engine fills: input tensor in, tokens out.

use std::fmt;
use std::str::FromStr;
#[cfg(feature = "onnx")]
use std::sync::Arc;

#[cfg(feature = "onnx")]
use rayon::{ThreadPool, ThreadPoolBuilder};
use ssl_edge_bundle::{Bundle, Manifest};

use crate::{Options, Place, RuntimeError};

mod device;
mod native;
#[cfg(feature = "onnx")]
mod onnx;

/// What runs the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EngineKind {
    /// The operations of `ssl-edge-nn`, on the CPU.
    Native,
    /// The ONNX graph through tract, on the CPU. Needs feature `onnx`.
    Onnx,
}

/// Which numbers the encoder's linear layers are computed with. Features of different precisions are not mixed: each has a hash of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Precision {
    /// f32, in every bundle.
    #[default]
    F32,
    /// int8 weights and activations, where the bundle was made with them; native engine only.
    Int8,
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

    /// Tokens of `input [B, 3, H, W]`, with H and W those of the bundle's preprocessing.
    ///
    /// # Errors
    /// [`RuntimeError::Run`] with the engine's reason.
    fn run(&self, input: &[f32], batch: usize) -> Result<Tokens, RuntimeError>;

    /// The same into `cls [B, D]` and `patches [B, N, D]`; the native engine allocates nothing for it.
    ///
    /// # Errors
    /// As [`Engine::run`]; also slices of other lengths.
    fn run_into(
        &self,
        input: &[f32],
        batch: usize,
        cls: &mut [f32],
        patches: &mut [f32],
    ) -> Result<(), RuntimeError> {
        let tokens = self.run(input, batch)?;
        if (tokens.cls.len(), tokens.patches.len()) != (cls.len(), patches.len()) {
            return Err(RuntimeError::Run {
                engine: self.kind(),
                reason: format!(
                    "there are {} and {} values, and room for {} and {}",
                    tokens.cls.len(),
                    tokens.patches.len(),
                    cls.len(),
                    patches.len()
                ),
            });
        }
        cls.copy_from_slice(&tokens.cls);
        patches.copy_from_slice(&tokens.patches);
        Ok(())
    }
}

impl Precision {
    /// All.
    pub const ALL: [Self; 2] = [Self::F32, Self::Int8];

    /// `f32` or `int8`, also the name of the variant in a bundle.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Int8 => "int8",
        }
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
            .ok_or_else(|| format!("unknown precision {name:?}; use f32 or int8"))
    }
}

impl EngineKind {
    /// The engines of this build.
    pub fn available() -> &'static [Self] {
        if cfg!(feature = "onnx") {
            &[Self::Native, Self::Onnx]
        } else {
            &[Self::Native]
        }
    }

    /// `native` or `onnx`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Onnx => "onnx",
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
        [Self::Native, Self::Onnx]
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| format!("unknown engine {name:?}; use native or onnx"))
    }
}

/// Builds the engine that `options` ask for.
pub(crate) fn build(
    bundle: &Bundle,
    options: &Options,
    place: Place,
) -> Result<Box<dyn Engine>, RuntimeError> {
    let load = |reason: String| RuntimeError::Load {
        path: bundle.path().to_owned(),
        engine: options.engine,
        reason,
    };
    check_precision(bundle, options)?;
    if place != Place::default() {
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
    }
}

/// The native engine on a processor other than the CPU.
fn on_device(
    bundle: &Bundle,
    options: &Options,
    place: Place,
) -> Result<Box<dyn Engine>, RuntimeError> {
    let (engine, precision) = (options.engine, options.precision);
    if engine != EngineKind::Native || precision != Precision::F32 {
        return Err(RuntimeError::Device {
            reason: format!(
                "engine {engine} in {precision} runs on the CPU only; choose engine native in f32 for {}, or the CPU",
                place.processor
            ),
        });
    }
    let opened = place.processor.open(place.precision, false);
    let opened = opened.map_err(|error| RuntimeError::Device {
        reason: error.to_string(),
    })?;
    let loaded = device::OnDevice::load(bundle, &opened, place.precision);
    let engine = loaded.map_err(|reason| RuntimeError::Load {
        path: bundle.path().to_owned(),
        engine,
        reason,
    })?;
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
    if options.engine != EngineKind::Native {
        let engine = options.engine;
        return refuse(format!(
            "engine {engine} runs f32 only; choose engine native"
        ));
    }
    Ok(())
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

/// Sizes that an engine needs at every run.
#[derive(Debug, Clone, Copy)]
struct Shape {
    #[cfg(feature = "onnx")]
    height: usize,
    #[cfg(feature = "onnx")]
    width: usize,
    n_patches: usize,
    dim: usize,
}

impl Shape {
    fn of(manifest: &Manifest) -> Self {
        let [height, width] = manifest.arch.image_size;
        let [rows, columns] = manifest.arch.grid(height, width);
        Self {
            #[cfg(feature = "onnx")]
            height,
            #[cfg(feature = "onnx")]
            width,
            n_patches: rows * columns,
            dim: manifest.arch.dim,
        }
    }
}
