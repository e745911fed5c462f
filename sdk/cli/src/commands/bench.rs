//! `bench`: median times on random data.

use super::{Compute, Threads};
use crate::data::{Engine, PrecisionArg};
use crate::output::Format;
use anyhow::{Context, Result};
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use ssl_edge::encoder::{Bundle, Encoder, Options, Place, Pooling, Processor, Products};
use ssl_edge::export::{random_bundle, round_to_int8};
use ssl_edge::train::collective::{TIMEOUT, connect};
use ssl_edge::train::{ComputeConfig, MethodName, VitConfig, bench_step};
use std::time::Instant;

/// Runs before the clock starts, and runs timed.
const WARM: usize = 3;
const RUNS: usize = 21;

/// What to time.
#[derive(Subcommand)]
pub(crate) enum BenchCommand {
    /// A training step at the papers' sizes: forward, backward, update
    Step(StepArgs),
    /// An encoder on one image after another
    Encode(EncodeArgs),
}

/// Time a training step.
#[derive(Args)]
pub(crate) struct StepArgs {
    /// The method whose step is timed
    #[arg(long, value_parser = PossibleValuesParser::new(MethodName::ALL.map(MethodName::as_str)))]
    method: String,
    /// The encoder's shape
    #[arg(long, value_parser = PossibleValuesParser::new(VitConfig::NAMES))]
    arch: String,
    /// Images in a batch
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Side of the image in pixels, of DINO's global crops
    #[arg(long, default_value_t = 224, value_name = "PX")]
    size: u32,
    /// On a GPU: compute activations again in the backward instead of keeping them
    #[arg(long)]
    recompute: bool,
    #[command(flatten)]
    compute: Compute,
    #[command(flatten)]
    threads: Threads,
}

/// Time an encoder.
#[derive(Args)]
pub(crate) struct EncodeArgs {
    /// The encoder's shape
    #[arg(long, value_parser = PossibleValuesParser::new(VitConfig::NAMES))]
    arch: String,
    /// Side of the input in pixels
    #[arg(long, default_value_t = 224, value_name = "PX")]
    size: u32,
    /// Images in a batch
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// What runs the encoder
    #[arg(long, value_enum, default_value = "native")]
    engine: Engine,
    /// What it computes with
    #[arg(long, value_enum, default_value = "f32")]
    precision: EncodePrecision,
    /// Where to compute: cpu, cuda, cuda:N or metal
    #[arg(long, value_name = "DEVICE")]
    device: Option<Processor>,
    #[command(flatten)]
    threads: Threads,
}

/// What an encoder computes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum EncodePrecision {
    /// f32
    F32,
    /// int8 weights and activations, on the CPU
    Int8,
    /// bf16 products, on an NVIDIA GPU
    Bf16,
    /// f16 products, on an Apple GPU
    F16,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    engine: Option<&'static str>,
    /// Bytes of weights and work memory, where the engine knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<usize>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    step: Option<StepCosts>,
}

/// What a training step's time is made of.
#[derive(Serialize)]
struct StepCosts {
    forward_ms: f64,
    backward_ms: f64,
    update_ms: f64,
    gflops: f64,
    product_gflops: f64,
    peak_mib: Option<f64>,
    /// Processes that share the batch.
    ranks: usize,
}

/// Runs the benchmark that was asked for.
pub(crate) fn run(command: &BenchCommand, format: Format) -> Result<()> {
    let report = match command {
        BenchCommand::Step(args) => step(args)?,
        BenchCommand::Encode(args) => Some(encode(args)?),
    };
    let Some(report) = report else {
        return Ok(());
    };
    format.print(&report, |report| {
        let what = report
            .method
            .as_deref()
            .or(report.engine)
            .unwrap_or_default();
        let total = format!(
            "{what} {}: {:.1} ms, {:.2} img/s (median; batch {}, {} threads, {} in {})",
            report.arch,
            report.ms,
            report.img_per_s,
            report.batch,
            report.threads,
            report.device,
            report.precision
        );
        match &report.step {
            Some(costs) => format!("{total}\n{}", describe(costs)),
            None => total,
        }
    })
}

fn describe(costs: &StepCosts) -> String {
    let memory = costs
        .peak_mib
        .map(|mib| format!("; at most {mib:.0} MiB"))
        .unwrap_or_default();
    format!(
        "forward {:.0} ms, backward {:.0} ms, update {:.0} ms; {:.0} GFLOP/s, {:.0} % of a large product's {:.0}{memory}",
        costs.forward_ms,
        costs.backward_ms,
        costs.update_ms,
        costs.gflops,
        100.0 * costs.gflops / costs.product_gflops,
        costs.product_gflops,
    )
}

/// As one of several processes where a launcher started them; the first alone reports.
fn step(args: &StepArgs) -> Result<Option<Report>> {
    args.threads.apply();
    let method: MethodName = args.method.parse()?;
    let (batch, threads) = (args.batch as usize, args.threads.count());
    let compute = ComputeConfig {
        device: args.compute.device.unwrap_or_default(),
        precision: args.compute.precision,
        recompute: args.recompute,
    };
    let ranks = connect(TIMEOUT)?;
    let time = bench_step(
        method,
        &args.arch,
        args.size,
        batch,
        threads,
        &compute,
        ranks.as_ref(),
    )
    .inspect_err(|error| ranks.fail(&error.to_string()))?;
    if ranks.rank() > 0 {
        return Ok(None);
    }
    Ok(Some(Report {
        ms: time.ms,
        img_per_s: time.img_per_s,
        arch: args.arch.clone(),
        batch,
        threads,
        device: compute.device.to_string(),
        precision: compute.precision().as_str(),
        method: Some(args.method.clone()),
        engine: None,
        memory: None,
        step: Some(StepCosts {
            forward_ms: time.forward_ms,
            backward_ms: time.backward_ms,
            update_ms: time.update_ms,
            gflops: time.gflops,
            product_gflops: time.product_gflops,
            peak_mib: time.peak_mib,
            ranks: ranks.world(),
        }),
    }))
}

fn encode(args: &EncodeArgs) -> Result<Report> {
    let threads = args.threads.count();
    let folder =
        tempfile::tempdir().context("cannot make a temporary folder; check TMPDIR and the disk")?;
    let bundle = folder.path().join("random.sslb");
    random_bundle(&args.arch, 0, args.size, Pooling::Cls, &bundle)?;
    if args.precision == EncodePrecision::Int8 {
        round_to_int8(&Bundle::open(&bundle)?, &bundle)?;
    }
    let options = Options {
        engine: args.engine.kind(),
        threads,
        precision: match args.precision {
            EncodePrecision::Int8 => PrecisionArg::Int8.precision(),
            EncodePrecision::F32 | EncodePrecision::Bf16 | EncodePrecision::F16 => {
                PrecisionArg::F32.precision()
            }
        },
    };
    let place = Place {
        processor: args.device.unwrap_or_default(),
        precision: match args.precision {
            EncodePrecision::Bf16 => Products::Bf16,
            EncodePrecision::F16 => Products::F16,
            EncodePrecision::F32 | EncodePrecision::Int8 => Products::F32,
        },
    };
    let encoder = Encoder::open_on(&bundle, &options, place)?;
    let batch = args.batch as usize;
    let input = noise(batch * encoder.preprocess().len());
    let (mut cls, mut patches) = outputs(&encoder, batch);
    let mut times = Vec::with_capacity(RUNS);
    for run in 0..WARM + RUNS {
        let start = Instant::now();
        encoder.tokens_into(&input, batch, &mut cls, &mut patches)?;
        if run >= WARM {
            times.push(start.elapsed().as_secs_f64());
        }
    }
    times.sort_by(f64::total_cmp);
    let median = times[RUNS / 2];
    Ok(Report {
        ms: 1e3 * median,
        img_per_s: batch as f64 / median,
        arch: args.arch.clone(),
        batch,
        threads,
        device: place.processor.to_string(),
        method: None,
        engine: Some(args.engine.kind().name()),
        precision: match args.precision {
            EncodePrecision::Bf16 | EncodePrecision::F16 => place.precision.as_str(),
            EncodePrecision::F32 | EncodePrecision::Int8 => encoder.precision().name(),
        },
        memory: encoder.memory(),
        step: None,
    })
}

/// Room for the tokens of a batch.
fn outputs(encoder: &Encoder, batch: usize) -> (Vec<f32>, Vec<f32>) {
    let [rows, columns] = encoder.grid();
    let tokens = batch * encoder.dim();
    (vec![0.0; tokens], vec![0.0; tokens * rows * columns])
}

/// Values in -2..2 from a fixed linear congruential generator: arithmetic is timed, what the image shows does not matter.
fn noise(len: usize) -> Vec<f32> {
    let mut state = 1_u32;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 22) as f32 - 2.0
        })
        .collect()
}
