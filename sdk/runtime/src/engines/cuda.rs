//! NVIDIA GPUs through the plug-in `libssl_edge_cuda`.

use std::path::{Path, PathBuf};

use ssl_edge_bundle::{Bundle, WEIGHTS};
use ssl_edge_nn::compute::{Precision as Products, Processor};
use ssl_edge_nn::infer::{EncoderWeights, Stored};
use ssl_edge_plugin::{
    Device, Encoder, Options as OpenOptions, Plugin, PluginError, Precision, Shape as Sizes,
};

use super::{Engine, EngineKind, Shape, arch, vit_config};
use crate::{Options, Place, RuntimeError};

/// Name of the engine in the file name of its plug-in.
const NAME: &str = "cuda";

/// Memory for activations that images which go through together may take, where they are several.
const WORK_BYTES: usize = 128 << 20;
const MOST_IMAGES: usize = 16;

/// What the plug-in of an engine says of itself and of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginReport {
    /// Its file.
    pub path: PathBuf,
    /// What it is, in words.
    pub about: String,
    /// The devices that it can use, or why there are none.
    pub devices: Result<Vec<Device>, String>,
}

/// Opens the plug-in of [`EngineKind::Cuda`] and asks what it finds. `path` is as [`Options::plugin`].
///
/// # Errors
/// [`RuntimeError::Plugin`] where there is none, or one that does not fit; [`RuntimeError::EngineUnavailable`] for an engine that has none.
pub fn inspect_plugin(
    engine: EngineKind,
    path: Option<&Path>,
) -> Result<PluginReport, RuntimeError> {
    if engine != EngineKind::Cuda {
        return Err(RuntimeError::EngineUnavailable {
            engine,
            reason: "it is part of this library, not a plug-in".to_owned(),
            available: EngineKind::Cuda.to_string(),
        });
    }
    let plugin = Plugin::find(NAME, path).map_err(unusable)?;
    Ok(PluginReport {
        path: plugin.path().to_owned(),
        about: plugin.about(),
        devices: plugin.devices().map_err(|error| error.to_string()),
    })
}

fn unusable(source: PluginError) -> RuntimeError {
    RuntimeError::Plugin {
        engine: EngineKind::Cuda,
        source,
    }
}

/// An encoder of the plug-in.
pub(super) struct Cuda {
    encoder: Encoder,
    shape: Shape,
}

impl Cuda {
    pub(super) fn load(
        bundle: &Bundle,
        options: &Options,
        place: Place,
    ) -> Result<Self, RuntimeError> {
        let load = |reason: String| RuntimeError::Load {
            path: bundle.path().to_owned(),
            engine: EngineKind::Cuda,
            reason,
        };
        let (device, precision) = device(place)?;
        let plugin = Plugin::find(NAME, options.plugin.as_deref()).map_err(unusable)?;
        let manifest = bundle.manifest();
        let shape = Shape::of(manifest);
        let config = vit_config(arch(manifest).map_err(load)?);
        let bytes = bundle.member(WEIGHTS)?;
        let weights =
            EncoderWeights::from_bytes(&bytes).map_err(|error| load(error.to_string()))?;
        let mut tensors = Vec::with_capacity(weights.0.len());
        for (name, stored) in &weights.0 {
            match stored {
                Stored::F32 { values, .. } => tensors.push((name.as_str(), values.as_slice())),
                Stored::I8 { .. } | Stored::Blocks { .. } => {
                    return Err(load(format!("tensor {name} is not f32")));
                }
            }
        }
        let sizes = Sizes {
            dim: config.dim,
            depth: config.depth,
            heads: config.heads,
            patch: config.patch,
            registers: config.registers,
            hidden: config.dim * config.mlp_ratio,
            image_size: config.image_size,
            erf: config.gelu == ssl_edge_nn::Gelu::Erf,
            eps: config.eps as f32,
        };
        // Tokens in f32 twice, normed ones and hidden ones in f16.
        let image =
            (shape.n_patches + config.n_prefix()) * config.dim * (10 + 2 * config.mlp_ratio);
        let options = OpenOptions {
            device,
            precision,
            images: (WORK_BYTES / image).clamp(1, MOST_IMAGES) as u32,
        };
        let encoder = plugin
            .encoder(&sizes, &tensors, &options)
            .map_err(unusable)?;
        Ok(Self { encoder, shape })
    }
}

fn device(place: Place) -> Result<(u32, Precision), RuntimeError> {
    let refused = |reason: String| RuntimeError::Device { reason };
    let Processor::Cuda(device) = place.processor else {
        let processor = place.processor;
        return Err(refused(format!(
            "engine cuda does not run on {processor}; choose cuda or cuda:N as the device, or engine native"
        )));
    };
    let device = u32::try_from(device).map_err(|_| refused(format!("there is no GPU {device}")))?;
    match place.precision {
        Products::F16 => Ok((device, Precision::F16)),
        Products::F32 => Ok((device, Precision::F32)),
        other => Err(refused(format!(
            "engine cuda computes in f16 and f32, not {other}"
        ))),
    }
}

impl Engine for Cuda {
    fn kind(&self) -> EngineKind {
        EngineKind::Cuda
    }

    fn memory(&self) -> Option<usize> {
        usize::try_from(self.encoder.memory()).ok()
    }

    fn lengths(&self) -> [usize; 2] {
        self.shape.lengths()
    }

    fn run_into(
        &self,
        input: &[f32],
        batch: usize,
        cls: &mut [f32],
        patches: &mut [f32],
    ) -> Result<(), RuntimeError> {
        self.encoder
            .run(input, batch, cls, patches)
            .map_err(|error| RuntimeError::Run {
                engine: EngineKind::Cuda,
                reason: error.to_string(),
            })
    }
}
