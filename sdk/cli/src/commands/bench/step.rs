//! `bench step`: a training step on random data.

use crate::commands::{Compute, Threads};
use crate::output::Format;
use anyhow::Result;
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde::Serialize;
use ssl_edge::train::collective::{TIMEOUT, connect};
use ssl_edge::train::{ComputeConfig, MethodName, VitConfig, bench_step};

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

#[derive(Serialize)]
struct Report {
    ms: f64,
    img_per_s: f64,
    arch: String,
    batch: usize,
    threads: usize,
    device: String,
    precision: &'static str,
    method: String,
    #[serde(flatten)]
    costs: StepCosts,
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

/// Times the step and prints what it costs.
pub(super) fn run(args: &StepArgs, format: Format) -> Result<()> {
    let Some(report) = step(args)? else {
        return Ok(());
    };
    format.print(&report, |report| {
        format!(
            "{} {}: {:.1} ms, {:.2} img/s (median; batch {}, {} threads, {} in {})\n{}",
            report.method,
            report.arch,
            report.ms,
            report.img_per_s,
            report.batch,
            report.threads,
            report.device,
            report.precision,
            describe(&report.costs)
        )
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
        method: args.method.clone(),
        costs: StepCosts {
            forward_ms: time.forward_ms,
            backward_ms: time.backward_ms,
            update_ms: time.update_ms,
            gflops: time.gflops,
            product_gflops: time.product_gflops,
            peak_mib: time.peak_mib,
            ranks: ranks.world(),
        },
    }))
}
