//! `bench encode`: an encoder on one image after another.

use super::{EncodePrecision, bundle, noise};
use crate::commands::Threads;
use crate::data::Engine;
use crate::output::Format;
use anyhow::{Context, Result, bail};
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde::Serialize;
use ssl_edge::encoder::{
    Bundle, Encoder, EngineKind, GoldenVectors, Options, Place, Precision, Processor, Products,
};
use ssl_edge::train::VitConfig;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Runs before the clock starts, and runs timed.
const WARM: usize = 3;
const RUNS: u32 = 21;

/// Time an encoder: of random weights, or a bundle.
#[derive(Args)]
pub(crate) struct EncodeArgs {
    /// Random weights of this shape
    #[arg(long, value_parser = PossibleValuesParser::new(VitConfig::NAMES), required_unless_present = "bundle", conflicts_with = "bundle")]
    arch: Option<String>,
    /// Side of the input in pixels, with --arch
    #[arg(
        long,
        default_value_t = 224,
        value_name = "PX",
        conflicts_with = "bundle"
    )]
    size: u32,
    /// A bundle instead, as `bench bundle`, `export` and `import` write them
    #[arg(long, value_name = "B.sslb")]
    bundle: Option<PathBuf>,
    /// Bundle whose golden images and f32 embeddings the cosine is taken to; the same one by default
    #[arg(long, value_name = "B.sslb", requires = "bundle")]
    reference: Option<PathBuf>,
    /// Images in a batch
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Runs to time
    #[arg(long, default_value_t = RUNS, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// What runs the encoder; native by default, and onnx for imported graphs
    #[arg(long, value_enum)]
    engine: Option<Engine>,
    /// The library of engine cuda, or its folder; else SSL_EDGE_PLUGIN_PATH and the program's folder are searched
    #[arg(long, value_name = "PATH")]
    plugin: Option<PathBuf>,
    /// What it computes with
    #[arg(long, value_enum, default_value = "f32")]
    precision: EncodePrecision,
    /// Where to compute: cpu, cuda, cuda:N or metal
    #[arg(long, value_name = "DEVICE")]
    device: Option<Processor>,
    #[command(flatten)]
    threads: Threads,
}

#[derive(Serialize)]
struct Report {
    ms: f64,
    img_per_s: f64,
    arch: String,
    batch: usize,
    threads: usize,
    device: String,
    precision: &'static str,
    engine: &'static str,
    /// Bytes of weights and work memory, where the engine knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<usize>,
    /// From the file to the first embedding, self-test included.
    start_ms: f64,
    /// Size of what the engine reads: the weights of the precision, or the graph.
    bytes: u64,
    /// Mean cosine of the class tokens of the golden images to those in f32.
    cosine: f64,
}

/// Times the encoder and prints what it costs.
pub(super) fn run(args: &EncodeArgs, format: Format) -> Result<()> {
    let folder =
        tempfile::tempdir().context("cannot make a temporary folder; check TMPDIR and the disk")?;
    let file = match (&args.bundle, &args.arch) {
        (Some(file), _) => file.clone(),
        (None, arch) => {
            let arch = arch.as_deref().context("neither --arch nor --bundle")?;
            let file = folder.path().join("random.sslb");
            bundle::write(arch, args.size, args.precision.target(), &file)?;
            file
        }
    };
    format.print(&encode(args, &file)?, |report| {
        format!(
            "{} {}: {:.1} ms, {:.2} img/s (median; batch {}, {} threads, {} in {})\n\
             first embedding {:.0} ms after opening; {:.1} MB on disk; cosine to f32 {:.6}",
            report.engine,
            report.arch,
            report.ms,
            report.img_per_s,
            report.batch,
            report.threads,
            report.device,
            report.precision,
            report.start_ms,
            report.bytes as f64 / 1e6,
            report.cosine,
        )
    })
}

fn encode(args: &EncodeArgs, file: &Path) -> Result<Report> {
    let (batch, threads) = (args.batch as usize, args.threads.count());
    let start = Instant::now();
    let bundle = Bundle::open(file)?;
    let encoder = open(args, &bundle, threads)?;
    let input = noise(batch * encoder.preprocess().len());
    let [rows, columns] = encoder.grid();
    let mut cls = vec![0.0; batch * encoder.dim()];
    let mut patches = vec![0.0; rows * columns * cls.len()];
    let mut first = || encoder.tokens_into(&input, batch, &mut cls, &mut patches);
    first()?;
    let start_ms = 1e3 * start.elapsed().as_secs_f64();
    let cosine = cosine(args, &bundle, &encoder)?;
    let bytes = size(&bundle, &encoder);
    // As a program that embeds would hold it.
    drop(bundle);
    let mut times = Vec::with_capacity(args.runs as usize);
    for run in 0..WARM + args.runs as usize {
        let start = Instant::now();
        first()?;
        if run >= WARM {
            times.push(start.elapsed().as_secs_f64());
        }
    }
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    let place = encoder.place();
    Ok(Report {
        ms: 1e3 * median,
        img_per_s: batch as f64 / median,
        arch: encoder.manifest().name().to_owned(),
        batch,
        threads,
        device: place.processor.to_string(),
        precision: match place.precision {
            Products::F32 => encoder.precision().name(),
            products => products.as_str(),
        },
        engine: encoder.engine().name(),
        memory: encoder.memory(),
        start_ms,
        bytes,
        cosine,
    })
}

fn open(args: &EncodeArgs, bundle: &Bundle, threads: usize) -> Result<Encoder> {
    let own = EngineKind::of(bundle.manifest());
    let (precision, products) = args.precision.of_encoder();
    let options = Options {
        engine: args.engine.map_or(own, Engine::kind),
        threads,
        precision,
        plugin: args.plugin.clone(),
    };
    let place = Place {
        processor: args.device.unwrap_or(match options.engine {
            EngineKind::Cuda => Processor::Cuda(0),
            _ => Processor::Cpu,
        }),
        precision: products,
    };
    Ok(Encoder::from_bundle_on(bundle, &options, place)?)
}

/// Size of the member that the engine reads.
fn size(bundle: &Bundle, encoder: &Encoder) -> u64 {
    let manifest = bundle.manifest();
    let variant = manifest.variants.get(encoder.precision().name());
    let member = match (encoder.engine(), variant) {
        (EngineKind::Onnx, _) => "encoder.onnx",
        (_, Some(variant)) => &variant.weights,
        (_, None) => "weights.safetensors",
    };
    bundle.member_size(member).unwrap_or(0)
}

/// Mean cosine of the encoder's class tokens of the golden images to those that the reference has in f32.
fn cosine(args: &EncodeArgs, bundle: &Bundle, encoder: &Encoder) -> Result<f64> {
    let reference = args.reference.as_deref().map(Bundle::open).transpose()?;
    let reference = reference.as_ref().unwrap_or(bundle);
    let golden = GoldenVectors::read(reference, Precision::F32)?;
    let (one, dim) = (encoder.preprocess().len(), encoder.dim());
    if golden.input.len() != golden.count * one || golden.cls.len() != golden.count * dim {
        let path = reference.path().display();
        bail!("{path} is an encoder of another shape; choose the reference of the same encoder");
    }
    let mut sum = 0.0;
    for (input, expected) in golden.input.chunks(one).zip(golden.cls.chunks(dim)) {
        let found = encoder.embed_preprocessed(input, 1)?;
        sum += cosine_of(&found[0].cls, expected);
    }
    Ok(sum / golden.count as f64)
}

fn cosine_of(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
