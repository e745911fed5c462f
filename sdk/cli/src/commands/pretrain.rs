//! `pretrain`: an encoder from unlabelled images.

use super::{Compute, Threads};
use crate::output::{Format, note};
use crate::progress::observer;
use anyhow::{Context, Result};
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde::Serialize;
use ssl_edge::train::collective::{Collective, TIMEOUT, connect};
use ssl_edge::train::{
    MethodName, Precision, Processor, Request, RunOptions, RunSummary, TrainConfig, VitConfig,
    multiplies_bf16, pretrain_over,
};
use std::path::PathBuf;
use std::time::Duration;

/// Train an encoder on unlabelled images.
#[derive(Args)]
pub(crate) struct PretrainArgs {
    /// How to train
    #[arg(long, value_parser = PossibleValuesParser::new(MethodName::ALL.map(MethodName::as_str)))]
    method: String,
    /// The encoder's shape; the number at its end is the patch side in pixels
    #[arg(long, value_parser = PossibleValuesParser::new(VitConfig::NAMES))]
    arch: String,
    /// Folders of images, searched in depth
    #[arg(long, required = true, num_args = 1.., value_name = "DIR")]
    data: Vec<PathBuf>,
    /// The run folder to write
    #[arg(long, value_name = "RUN")]
    out: PathBuf,
    /// Settings that differ from the preset
    #[arg(long, value_name = "F.toml")]
    config: Option<PathBuf>,
    /// One setting that differs from the preset and the file, such as `schedule.images=20000`; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Class folders to score while training, by 20 nearest neighbours
    #[arg(long, value_name = "DIR")]
    probe: Option<PathBuf>,
    /// Go on from the newest checkpoint in the run folder
    #[arg(long)]
    resume: bool,
    /// Under mpirun or srun: how long a process waits for the others before it stops
    #[arg(long, value_name = "SECONDS", default_value_t = TIMEOUT.as_secs(), value_parser = clap::value_parser!(u64).range(1..))]
    rank_timeout: u64,
    #[command(flatten)]
    compute: Compute,
    #[command(flatten)]
    threads: Threads,
}

#[derive(Serialize)]
struct Report {
    run: PathBuf,
    checkpoint: PathBuf,
    step: u64,
    images_seen: u64,
    loss: Option<f64>,
    seconds: f64,
    knn20: Option<f64>,
    skipped: usize,
}

/// Trains to the end and says where the result is; as one of several processes where a launcher started them.
pub(crate) fn run(args: &PretrainArgs, format: Format) -> Result<()> {
    args.threads.apply();
    let ranks = connect(Duration::from_secs(args.rank_timeout))?;
    let summary = train(args, ranks.as_ref()).with_context(|| {
        let place = match ranks.world() {
            1 => String::new(),
            world => format!("rank {} of {world}: ", ranks.rank()),
        };
        format!("{place}the run {} did not finish", args.out.display())
    })?;
    if ranks.rank() > 0 {
        return Ok(());
    }
    note(format_args!(
        "next: ssl-edge export {} --out encoder.sslb",
        args.out.display()
    ));
    format.print(&report(summary), human)
}

fn train(args: &PretrainArgs, ranks: &dyn Collective) -> Result<RunSummary> {
    let config = configuration(args).inspect_err(|error| ranks.fail(&format!("{error:#}")))?;
    if ranks.rank() == 0 && could_be_faster(args, &config) {
        note("this CPU multiplies bf16: --precision bf16 trains faster");
    }
    let options = RunOptions {
        folder: args.out.clone(),
        resume: args.resume,
    };
    Ok(pretrain_over(
        &config,
        &options,
        observer(&config).as_ref(),
        ranks,
    )?)
}

/// Whether a new run has products in f32 that it was not asked for, and the CPU has instructions for less.
fn could_be_faster(args: &PretrainArgs, config: &TrainConfig) -> bool {
    let by_default = args.compute.precision.is_none() && !args.resume;
    let in_f32 = config.compute.precision() == Precision::F32;
    by_default && in_f32 && config.compute.device == Processor::Cpu && multiplies_bf16()
}

fn configuration(args: &PretrainArgs) -> Result<TrainConfig> {
    let mut set = args.set.clone();
    if !set.iter().any(|text| text.starts_with("threads=")) {
        set.push(format!("threads={}", args.threads.count()));
    }
    if let Some(device) = args.compute.device {
        set.push(format!("compute.device=\"{device}\""));
    }
    if let Some(precision) = args.compute.precision {
        set.push(format!("compute.precision=\"{precision}\""));
    }
    let request = Request {
        method: args.method.parse()?,
        arch: args.arch.clone(),
        data: args.data.clone(),
        config: args.config.clone(),
        set,
        probe: args.probe.clone(),
    };
    Ok(request.resolve()?)
}

fn report(summary: RunSummary) -> Report {
    Report {
        run: summary.run,
        checkpoint: summary.checkpoint,
        step: summary.step,
        images_seen: summary.images_seen,
        loss: summary.loss,
        seconds: summary.seconds,
        knn20: summary.probes.last().map(|score| score.knn20),
        skipped: summary.skipped.len(),
    }
}

fn human(report: &Report) -> String {
    let mut text = format!(
        "{} steps, {} images seen, {:.0} s",
        report.step, report.images_seen, report.seconds
    );
    if let Some(loss) = report.loss {
        text.push_str(&format!(", last loss {loss:.4}"));
    }
    if let Some(knn20) = report.knn20 {
        text.push_str(&format!(
            ", 20-NN accuracy {}",
            crate::output::percent(knn20)
        ));
    }
    format!("{text}\n{}", report.checkpoint.display())
}
