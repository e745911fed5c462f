//! The commands, one file each: its arguments, what it does, what it prints.

mod bench;
mod bundle;
mod calibrate;
mod doctor;
mod drift;
mod embed;
mod eval;
mod export;
mod golden;
mod import;
mod inspect;
mod job;
mod pretrain;
mod quantize;
mod quickstart;
mod report;

use crate::output::Format;
use anyhow::Result;
use clap::{Args, Subcommand};
use ssl_edge::encoder::{Processor, Products};

/// What the program can do.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// The whole path on procedural metal surfaces: train, export, calibrate, inspect
    Quickstart(quickstart::QuickstartArgs),
    /// Train an encoder on unlabelled images
    Pretrain(Box<pretrain::PretrainArgs>),
    /// Pack a run, or random weights, into a bundle
    Export(Box<export::ExportArgs>),
    /// Make a bundle of an ONNX graph that another program wrote
    Import(Box<import::ImportArgs>),
    /// Inspect, verify and sign bundles
    #[command(subcommand)]
    Bundle(bundle::BundleCommand),
    /// Write the embeddings of a folder of images
    Embed(embed::EmbedArgs),
    /// Measure an encoder on labelled images
    #[command(subcommand)]
    Eval(eval::EvalCommand),
    /// Fit a job from class folders
    Calibrate(calibrate::CalibrateArgs),
    /// Look at a job and change it
    #[command(subcommand)]
    Job(job::JobCommand),
    /// Give verdicts on images
    Inspect(inspect::InspectArgs),
    /// Compare images with golden parts, position by position
    #[command(subcommand)]
    Golden(golden::GoldenCommand),
    /// Watch the images of a line in their order: what changed, and what to do
    Drift(Box<drift::DriftArgs>),
    /// Time training steps and encoders on random data
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Say how an encoder runs here: engine, speed, memory, self-test
    Report(report::ReportArgs),
    /// Show what this machine offers
    Doctor(doctor::DoctorArgs),
}

impl Command {
    /// Runs the command to its end.
    pub(crate) fn run(&self, format: Format) -> Result<()> {
        match self {
            Command::Quickstart(args) => quickstart::run(args, format),
            Command::Pretrain(args) => pretrain::run(args, format),
            Command::Export(args) => export::run(args, format),
            Command::Import(args) => import::run(args, format),
            Command::Bundle(command) => bundle::run(command, format),
            Command::Embed(args) => embed::run(args, format),
            Command::Eval(command) => eval::run(command, format),
            Command::Calibrate(args) => calibrate::run(args, format),
            Command::Job(command) => job::run(command, format),
            Command::Inspect(args) => inspect::run(args, format),
            Command::Golden(command) => golden::run(command, format),
            Command::Drift(args) => drift::run(args, format),
            Command::Bench(command) => bench::run(command, format),
            Command::Report(args) => report::run(args, format),
            Command::Doctor(args) => doctor::run(args, format),
        }
    }
}

/// Where a command computes.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Compute {
    /// Where to compute: cpu, cuda, cuda:N or metal
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<Processor>,
    /// What matrix products read: f32 or bf16; an encoder that only runs takes bf16 on NVIDIA GPUs alone
    #[arg(long, value_name = "PRECISION")]
    pub(crate) precision: Option<Products>,
}

/// How many threads a command may use.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct Threads {
    /// Threads to use; 0 is one for each core
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
}

impl Threads {
    /// The number of threads, at least one.
    pub(crate) fn count(self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        }
    }

    /// Makes decoding, augmentation and evaluation use this many threads. The first call in a process decides.
    pub(crate) fn apply(self) {
        // A second call fails, and leaves the pool of the first, which is what this command asked for.
        let _ = rayon::ThreadPoolBuilder::new()
            .num_threads(self.count())
            .build_global();
    }
}
