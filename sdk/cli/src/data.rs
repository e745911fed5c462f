//! Bundles and folders that a command line names, and what is said when a part of them cannot be used.

use crate::commands::Threads;
use crate::output::{note, note_skipped};
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use ssl_edge::encoder::{Bundle, Encoder, EngineKind, Options, Precision, PublicKey};
use ssl_edge::vision::{ClassFolder, Image, ImageFolder, Skipped, decode_all};
use std::path::{Path, PathBuf};

/// Which bundle to open, and how to run it.
#[derive(Args)]
pub(crate) struct EncoderArgs {
    /// The encoder's bundle
    #[arg(long, value_name = "B.sslb")]
    pub(crate) bundle: PathBuf,
    #[command(flatten)]
    engine: EngineArgs,
}

/// How to run a bundle.
#[derive(Args)]
pub(crate) struct EngineArgs {
    /// What runs the encoder; native by default, and onnx for imported graphs, which it alone runs
    #[arg(long, value_enum)]
    engine: Option<Engine>,
    /// The library of engine cuda, or its folder; else SSL_EDGE_PLUGIN_PATH and the program's folder are searched
    #[arg(long, value_name = "PATH")]
    plugin: Option<PathBuf>,
    /// Refuse the bundle unless this public key signed it
    #[arg(long, value_name = "KEY.pub.pem")]
    require_signature: Option<PathBuf>,
    /// What the encoder computes with; a job taught in one precision is for that one
    #[arg(long, value_enum, default_value = "f32")]
    precision: PrecisionArg,
    #[command(flatten)]
    threads: Threads,
}

/// The engines that can be asked for.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Engine {
    /// Our own operations on the CPU
    Native,
    /// The bundle's ONNX graph through tract, on the CPU
    Onnx,
    /// An NVIDIA GPU through the plug-in libssl_edge_cuda, in f16
    Cuda,
}

/// The precisions that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrecisionArg {
    /// In every bundle
    F32,
    /// In bundles made with `export --quantize int8`
    Int8,
    /// In bundles made with `export --quantize q8_0`
    #[value(name = "q8_0")]
    Q8_0,
    /// In bundles made with `export --quantize q4_0`
    #[value(name = "q4_0")]
    Q4_0,
}

impl PrecisionArg {
    /// The precision in the library.
    pub(crate) fn precision(self) -> Precision {
        match self {
            PrecisionArg::F32 => Precision::F32,
            PrecisionArg::Int8 => Precision::Int8,
            PrecisionArg::Q8_0 => Precision::Q8_0,
            PrecisionArg::Q4_0 => Precision::Q4_0,
        }
    }
}

impl Engine {
    /// The engine's name in the library.
    pub(crate) fn kind(self) -> EngineKind {
        match self {
            Engine::Native => EngineKind::Native,
            Engine::Onnx => EngineKind::Onnx,
            Engine::Cuda => EngineKind::Cuda,
        }
    }
}

impl EncoderArgs {
    /// Opens the bundle; this runs its golden vectors.
    pub(crate) fn open(&self) -> Result<Encoder> {
        self.engine.open(&self.bundle)
    }
}

impl EngineArgs {
    /// Opens a bundle; this runs its golden vectors.
    pub(crate) fn open(&self, bundle: &Path) -> Result<Encoder> {
        self.threads.apply();
        let bundle = match &self.require_signature {
            Some(key) => Bundle::open_signed(bundle, &PublicKey::read(key)?)?,
            None => Bundle::open(bundle)?,
        };
        let own = EngineKind::of(bundle.manifest());
        let options = Options {
            engine: self.engine.map_or(own, Engine::kind),
            threads: self.threads.count(),
            precision: self.precision.precision(),
            plugin: self.plugin.clone(),
        };
        Ok(Encoder::from_bundle(&bundle, &options)?)
    }
}

/// Class folders with what they skip named on stderr.
///
/// # Errors
/// The folder has no classes, or a class has no image.
pub(crate) fn scan_classes(root: &Path) -> Result<ClassFolder> {
    let mut folder = ClassFolder::scan(root)?;
    note_skipped(&std::mem::take(&mut folder.skipped));
    Ok(folder)
}

/// Images below `roots` with what they skip named on stderr.
///
/// # Errors
/// A root is missing or has no image.
pub(crate) fn scan_images(roots: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let folder = ImageFolder::scan(roots)?;
    note_skipped(&folder.skipped);
    Ok(folder.files)
}

/// Decodes `files`, some of them at a time, and calls `visit` with the index of each and its image, in order. Returns those that cannot be decoded.
///
/// # Errors
/// What `visit` returns.
pub(crate) fn decode_each(
    files: &[PathBuf],
    mut visit: impl FnMut(usize, &Image) -> Result<()>,
) -> Result<Vec<Skipped>> {
    const AT_ONCE: usize = 32;
    let mut skipped = Vec::new();
    for (chunk, some) in files.chunks(AT_ONCE).enumerate() {
        let (images, broken) = decode_all(some, None);
        skipped.extend(broken);
        for (index, image) in &images {
            visit(chunk * AT_ONCE + index, image)?;
        }
    }
    Ok(skipped)
}

/// Names the files that could not be used on stderr.
///
/// # Errors
/// There were `n_files`, and none is left.
pub(crate) fn check_any_left(n_files: usize, skipped: &[Skipped]) -> Result<()> {
    note_skipped(skipped);
    if skipped.len() == n_files {
        bail!("none of the {n_files} images can be used; the reasons are above, replace the files");
    }
    if !skipped.is_empty() {
        note(format_args!(
            "{} of {n_files} images were skipped",
            skipped.len()
        ));
    }
    Ok(())
}

/// As [`check_any_left`] for the images of a class folder, of which those with `labels` are left.
///
/// # Errors
/// Also when a class has none left.
pub(crate) fn check_classes_left(
    folder: &ClassFolder,
    labels: &[usize],
    skipped: &[Skipped],
) -> Result<()> {
    check_any_left(folder.samples.len(), skipped)?;
    for (index, class) in folder.classes.iter().enumerate() {
        if !labels.contains(&index) {
            let path = folder.root.join(class);
            bail!(
                "class `{class}` has no image that can be used ({}); replace its files or remove the folder",
                path.display()
            );
        }
    }
    Ok(())
}
