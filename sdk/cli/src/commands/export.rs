//! `export`: a run, or random weights, as a bundle.

use super::quantize::QuantizeArgs;
use crate::output::{Format, note};
use anyhow::{Context, Result};
use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use serde::Serialize;
use ssl_edge::encoder::{Bundle, Pooling};
use ssl_edge::export::{
    ExportOptions, ExportReport, QuantizeError, export_run, quantize, random_bundle,
};
use ssl_edge::train::VitConfig;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Pack a run, or random weights, into a bundle.
#[derive(Args)]
pub(crate) struct ExportArgs {
    /// The run folder that `pretrain` wrote, or with --quantize a bundle
    #[arg(
        required_unless_present = "random",
        conflicts_with = "random",
        value_name = "RUN"
    )]
    run: Option<PathBuf>,
    /// Pack random weights of this architecture instead, as a baseline
    #[arg(long, value_name = "ARCH", value_parser = PossibleValuesParser::new(VitConfig::NAMES))]
    random: Option<String>,
    /// Key of the random weights
    #[arg(long, default_value_t = 0, requires = "random", value_name = "N")]
    seed: u64,
    /// Side of the input in pixels, with random weights
    #[arg(long, default_value_t = 224, requires = "random", value_name = "PX")]
    size: u32,
    /// Which tokens make the feature that jobs learn from
    #[arg(long, value_enum, default_value = "cls")]
    pooling: PoolingArg,
    /// Licence of the weights, an SPDX expression, for the manifest
    #[arg(long, value_name = "SPDX", conflicts_with = "random")]
    licence: Option<String>,
    /// The bundle to write
    #[arg(long, value_name = "B.sslb")]
    out: PathBuf,
    #[command(flatten)]
    quantize: QuantizeArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum PoolingArg {
    /// The class token
    Cls,
    /// The mean of the patch tokens
    Mean,
    /// Both, one after the other
    ClsMean,
}

#[derive(Serialize)]
struct Report {
    bundle: PathBuf,
    bytes: u64,
    encoder: String,
    /// Largest difference from the golden vectors, by engine.
    engines: BTreeMap<&'static str, f64>,
}

/// Writes the bundle after every engine has reproduced its golden vectors, and a variant in another precision if it was asked for.
pub(crate) fn run(args: &ExportArgs, format: Format) -> Result<()> {
    let Some(options) = args.quantize.options() else {
        let report = pack(args, &args.out)?;
        return format.print(&Report::of(&report), human);
    };
    let bundle = match &args.run {
        Some(file) if file.is_file() => Bundle::open(file)?,
        _ => {
            let folder = tempfile::tempdir()
                .context("cannot make a temporary folder; check TMPDIR and the disk")?;
            let base = folder.path().join("f32.sslb");
            pack(args, &base)?;
            Bundle::open(&base)?
        }
    };
    let result = quantize(&bundle, &options, &args.out, &mut |line| note(line));
    let told = match &result {
        Ok(report) => Some(report),
        Err(QuantizeError::Gate(failure)) => Some(&failure.report),
        Err(_) => None,
    };
    if let (Some(report), Some(folder)) = (told, &args.quantize.report) {
        report.write(folder)?;
        note(format!(
            "the report is {}",
            folder.join("report.html").display()
        ));
    }
    let report = result?;
    format.print(&report, super::quantize::human)
}

fn pack(args: &ExportArgs, out: &Path) -> Result<ExportReport> {
    let pooling = args.pooling.pooling();
    Ok(match (&args.run, &args.random) {
        (Some(run), _) => {
            let options = ExportOptions {
                pooling,
                licence: args.licence.clone(),
            };
            export_run(run, &options, out)?
        }
        (None, arch) => {
            let arch = arch
                .as_deref()
                .context("neither a run nor --random was given")?;
            random_bundle(arch, args.seed, args.size, pooling, out)?
        }
    })
}

impl Report {
    fn of(report: &ExportReport) -> Self {
        Self {
            bundle: report.path.clone(),
            bytes: report.bytes,
            encoder: report
                .encoder_hash
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
            engines: report
                .engines
                .iter()
                .map(|(engine, test)| (engine.name(), f64::from(test.difference)))
                .collect(),
        }
    }
}

fn human(report: &Report) -> String {
    let mut text = format!(
        "{}: {:.1} MB, encoder {}",
        report.bundle.display(),
        report.bytes as f64 / 1e6,
        &report.encoder[..12]
    );
    for (engine, difference) in &report.engines {
        text.push_str(&format!(
            "\n{engine}: off by {difference:.1e} from the golden vectors"
        ));
    }
    text
}

impl PoolingArg {
    pub(super) fn pooling(self) -> Pooling {
        match self {
            PoolingArg::Cls => Pooling::Cls,
            PoolingArg::Mean => Pooling::Mean,
            PoolingArg::ClsMean => Pooling::ClsMean,
        }
    }
}

/// What the feature is, for people.
pub(super) fn describe_pooling(pooling: Pooling) -> &'static str {
    match pooling {
        Pooling::Cls => "the class token",
        Pooling::Mean => "the mean of the patch tokens",
        Pooling::ClsMean => "class token and mean of the patch tokens",
    }
}
