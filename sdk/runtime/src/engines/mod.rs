//! The boundary that every engine fills: input tensor in, tokens out.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use rayon::{ThreadPool, ThreadPoolBuilder};
use ssl_edge_bundle::{Bundle, Manifest};

use crate::{Options, Place, RuntimeError};

mod native;
#[cfg(feature = "onnx")]
mod onnx;

/// What runs the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EngineKind {
    /// The operations of `ssl-edge-nn`, on the CPU or (feature `cuda`) an NVIDIA GPU.
    Native,
    /// The ONNX graph through tract, on the CPU. Needs feature `onnx`.
    Onnx,
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

    /// Tokens of `input [B, 3, H, W]`, with H and W those of the bundle's preprocessing.
    ///
    /// # Errors
    /// [`RuntimeError::Run`] with the engine's reason.
    fn run(&self, input: &[f32], batch: usize) -> Result<Tokens, RuntimeError>;
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

/// Builds the engine that `options` ask for, on a processor.
pub(crate) fn build(
    bundle: &Bundle,
    options: &Options,
    place: Place,
) -> Result<Box<dyn Engine>, RuntimeError> {
    if options.engine != EngineKind::Native && place != Place::default() {
        return Err(RuntimeError::Device {
            reason: format!(
                "engine {} runs on the CPU in f32 only; use engine native",
                options.engine
            ),
        });
    }
    let load = |reason: String| RuntimeError::Load {
        path: bundle.path().to_owned(),
        engine: options.engine,
        reason,
    };
    match options.engine {
        EngineKind::Native => {
            let device = place.processor.open(place.precision, false);
            let device = device.map_err(|error| RuntimeError::Device {
                reason: error.to_string(),
            })?;
            let pool = pool(options.threads)?;
            let engine = native::Native::load(bundle, pool, &device).map_err(load)?;
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

/// A pool of `threads` threads, or of one for each CPU that the process may use where `threads` is 0.
fn pool(threads: usize) -> Result<Arc<ThreadPool>, RuntimeError> {
    let threads = match threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
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
    height: usize,
    width: usize,
    n_patches: usize,
    dim: usize,
}

impl Shape {
    fn of(manifest: &Manifest) -> Self {
        let [height, width] = manifest.arch.image_size;
        let [rows, columns] = manifest.arch.grid(height, width);
        Self {
            height,
            width,
            n_patches: rows * columns,
            dim: manifest.arch.dim,
        }
    }
}
