//! `bench bundle`: something to measure with.

use crate::output::Format;
use anyhow::Result;
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde::Serialize;
use ssl_edge::encoder::{Bundle, Pooling};
use ssl_edge::export::{Target, random_bundle, round_to};
use ssl_edge::train::VitConfig;
use std::path::{Path, PathBuf};

/// Write random weights in f32 and rounded to int8, with a graph of each: to measure time and memory, not to be used.
#[derive(Args)]
pub(crate) struct BundleArgs {
    /// The encoder's shape
    #[arg(long, value_parser = PossibleValuesParser::new(VitConfig::NAMES))]
    arch: String,
    /// Side of the input in pixels
    #[arg(long, default_value_t = 224, value_name = "PX")]
    size: u32,
    /// The bundle to write
    #[arg(long, value_name = "B.sslb")]
    out: PathBuf,
}

#[derive(Serialize)]
struct Report<'a> {
    bundle: &'a Path,
    bytes: u64,
}

/// Writes the bundle.
pub(super) fn run(args: &BundleArgs, format: Format) -> Result<()> {
    write(&args.arch, args.size, Some(Target::Int8), &args.out)?;
    let report = Report {
        bundle: &args.out,
        bytes: Bundle::open(&args.out)?.size(),
    };
    format.print(&report, |report| {
        let megabytes = report.bytes as f64 / 1e6;
        format!("{}: {megabytes:.1} MB", report.bundle.display())
    })
}

/// Random weights, with a variant if asked for.
pub(super) fn write(arch: &str, size: u32, target: Option<Target>, out: &Path) -> Result<()> {
    random_bundle(arch, 0, size, Pooling::Cls, out)?;
    if let Some(target) = target {
        round_to(target, &Bundle::open(out)?, out)?;
    }
    Ok(())
}
