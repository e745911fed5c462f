//! From weights to a checked bundle.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use ssl_edge_bundle::{
    ArchSpec, Bundle, BundleWriter, EncoderSpec, GoldenSpec, Pooling, PreprocessSpec, Provenance,
    save,
};
use ssl_edge_nn::{Gelu, Params, Vit, VitConfig, resize_positions, tensors_to_bytes};
use ssl_edge_runtime::{Encoder, EngineKind, Options, SelfTest};
use ssl_edge_vision::{Fit, Preprocess, stream};

use crate::golden::{COUNT, golden_vectors};
use crate::{ExportError, encoder_onnx};

pub(crate) const TOLERANCE: f32 = 1e-4;
const PURPOSE_INIT: u64 = 0x696e_6974;

/// What to export.
#[derive(Debug, Clone)]
pub struct EncoderExport<'a> {
    /// Name of the architecture, for people.
    pub arch: &'a str,
    /// Shape of the encoder as it was trained.
    pub config: &'a VitConfig,
    /// The encoder's tensors under their plain names (`cls_token`, `blocks.0.norm1.weight` …), and nothing else.
    pub params: &'a BTreeMap<String, Tensor>,
    /// From a frame to the input. Where its size is not the one of training, positions are resampled once, here.
    pub preprocess: &'a Preprocess,
    /// The feature that heads will see.
    pub pooling: Pooling,
    /// Where the weights come from.
    pub provenance: Provenance,
    /// Licence of the weights, an SPDX expression.
    pub licence: Option<String>,
    /// Key of the golden inputs.
    pub golden_seed: u64,
}

/// What was written.
#[derive(Debug, Clone)]
pub struct ExportReport {
    /// The bundle.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Identity of the encoder.
    pub encoder_hash: [u8; 32],
    /// How near each engine of this build came to the golden vectors.
    pub engines: Vec<(EngineKind, SelfTest)>,
}

/// Writes a bundle after every engine of this build has reproduced the golden vectors from it.
///
/// # Errors
/// [`ExportError`]; a file that was there before is then unchanged.
pub fn export_encoder(export: &EncoderExport<'_>, out: &Path) -> Result<ExportReport, ExportError> {
    let config = export_config(export)?;
    let mut writer = BundleWriter {
        encoder: EncoderSpec::Arch(arch_spec(export.arch, &config)),
        preprocess: preprocess_spec(export.preprocess),
        pooling: export.pooling,
        provenance: export.provenance.clone(),
        licence: export.licence.clone(),
        golden: GoldenSpec {
            count: COUNT,
            tolerance: TOLERANCE,
        },
        weights: Vec::new(),
        onnx: Vec::new(),
        golden_vectors: Vec::new(),
        variants: Vec::new(),
        extra: Vec::new(),
    };
    writer
        .manifest()
        .validate()
        .map_err(|(field, reason)| ExportError::Unsupported { field, reason })?;
    let mut tensors = plain_tensors(export)?;
    let vit = Vit::load(export.config, &tensors)?;
    writer.golden_vectors = golden_vectors(&vit, export.preprocess, export.golden_seed)?;
    resize_positions(export.config, &mut tensors, config.image_size)?;
    writer.weights = tensors_to_bytes(&tensors)?;
    writer.onnx = encoder_onnx(&config, &tensors)?;
    save_checked(writer, EngineKind::available(), out)
}

/// Saves the bundle after `engines` have reproduced its golden vectors.
pub(crate) fn save_checked(
    writer: BundleWriter,
    engines: &[EngineKind],
    out: &Path,
) -> Result<ExportReport, ExportError> {
    let bytes = writer.to_bytes(out)?;
    drop(writer);
    let bundle = Bundle::from_bytes(out, bytes)?;
    let engines = check(&bundle, engines)?;
    save(out, &bundle.to_bytes()?)?;
    Ok(ExportReport {
        path: out.to_owned(),
        bytes: bundle.size(),
        encoder_hash: bundle.encoder_hash(),
        engines,
    })
}

/// A bundle of a named architecture with random weights, the baseline that training must beat.
///
/// Images of `size` × `size` pixels, squashed, with the statistics of ImageNet.
///
/// # Errors
/// An unknown architecture, a size that is no multiple of its patch, or as [`export_encoder`].
pub fn random_bundle(
    arch: &str,
    seed: u64,
    size: u32,
    pooling: Pooling,
    out: &Path,
) -> Result<ExportReport, ExportError> {
    let config = VitConfig {
        image_size: [size as usize; 2],
        ..VitConfig::named(arch)?
    };
    let mut params = Params::new();
    Vit::init(
        &config,
        &mut params,
        "",
        &mut stream(seed, 0, 0, PURPOSE_INIT),
    )?;
    let export = EncoderExport {
        arch,
        config: &config,
        params: &params.to_map(),
        preprocess: &Preprocess::imagenet(size, size, Fit::Squash),
        pooling,
        provenance: Provenance {
            method: "random".to_owned(),
            seed,
            ..Provenance::default()
        },
        licence: None,
        golden_seed: seed,
    };
    export_encoder(&export, out)
}

/// The encoder as it will run: the trained one with positions for the size of the preprocessing.
fn export_config(export: &EncoderExport<'_>) -> Result<VitConfig, ExportError> {
    export.config.validate()?;
    export.preprocess.validate()?;
    let size = [export.preprocess.height, export.preprocess.width];
    Ok(VitConfig {
        image_size: size.map(|side| side as usize),
        ..export.config.clone()
    })
}

/// The tensors as f32 on the CPU, without gradient, all finite, and no other than the encoder's.
fn plain_tensors(export: &EncoderExport<'_>) -> Result<BTreeMap<String, Tensor>, ExportError> {
    let mut tensors = BTreeMap::new();
    for (name, tensor) in export.params {
        if !is_encoder_tensor(name, export.config) {
            return Err(ExportError::Unexpected {
                tensor: name.clone(),
            });
        }
        let tensor = tensor
            .detach()
            .to_device(&Device::Cpu)?
            .to_dtype(DType::F32)?
            .contiguous()?;
        let values = tensor.flatten_all()?.to_vec1::<f32>()?;
        if !values.iter().all(|value| value.is_finite()) {
            return Err(ExportError::NonFinite {
                tensor: name.clone(),
            });
        }
        tensors.insert(name.clone(), tensor);
    }
    Ok(tensors)
}

fn is_encoder_tensor(name: &str, config: &VitConfig) -> bool {
    let whole = [
        "cls_token",
        "pos_embed",
        "patch_embed.proj.weight",
        "patch_embed.proj.bias",
        "norm.weight",
        "norm.bias",
    ];
    let parts = [
        "norm1",
        "attn.qkv",
        "attn.proj",
        "norm2",
        "mlp.fc1",
        "mlp.fc2",
    ];
    let in_block = |rest: &str| {
        let Some((block, rest)) = rest.split_once('.') else {
            return false;
        };
        let part = rest.strip_suffix(".weight").or(rest.strip_suffix(".bias"));
        block
            .parse::<usize>()
            .is_ok_and(|block| block < config.depth)
            && part.is_some_and(|part| parts.contains(&part))
    };
    whole.contains(&name)
        || (name == "register_tokens" && config.registers > 0)
        || name.strip_prefix("blocks.").is_some_and(in_block)
}

fn check(
    bundle: &Bundle,
    engines: &[EngineKind],
) -> Result<Vec<(EngineKind, SelfTest)>, ExportError> {
    engines
        .iter()
        .map(|&engine| {
            let encoder = Encoder::from_bundle(
                bundle,
                &Options {
                    engine,
                    ..Options::default()
                },
            );
            let encoder = encoder.map_err(|source| ExportError::Check {
                path: bundle.path().to_owned(),
                source,
            })?;
            Ok((engine, encoder.self_test()))
        })
        .collect()
}

fn arch_spec(name: &str, config: &VitConfig) -> ArchSpec {
    ArchSpec {
        name: name.to_owned(),
        dim: config.dim,
        depth: config.depth,
        heads: config.heads,
        patch: config.patch,
        registers: config.registers,
        mlp_ratio: config.mlp_ratio,
        image_size: config.image_size,
        gelu: match config.gelu {
            Gelu::Tanh => "tanh".to_owned(),
            Gelu::Erf => "erf".to_owned(),
        },
        eps: config.eps,
    }
}

pub(crate) fn preprocess_spec(preprocess: &Preprocess) -> PreprocessSpec {
    PreprocessSpec {
        height: preprocess.height,
        width: preprocess.width,
        fit: preprocess.fit.to_string(),
        mean: preprocess.mean,
        std: preprocess.std,
    }
}
