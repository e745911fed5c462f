//! `calibrate`: a job from class folders.

use crate::data::{EncoderArgs, check_any_left, scan_classes};
use crate::output::Format;
use crate::teaching::{Augment, FitArgs, OperatorArgs, Summary, Surface, ignore_mask};
use anyhow::{Context, Result};
use clap::Args;
use ssl_edge::job::{CalibrateOptions, calibrate};
use std::path::PathBuf;

/// Fit a job from class folders.
#[derive(Args)]
pub(crate) struct CalibrateArgs {
    #[command(flatten)]
    encoder: EncoderArgs,
    /// One folder of images for each class; one folder alone gives a job that tells what is unlike it
    #[arg(long, value_name = "DIR")]
    samples: PathBuf,
    /// The job file to write
    #[arg(long, value_name = "J.sslj")]
    out: PathBuf,
    /// What the job learns of the surface of good parts, so that it tells where a part is unlike them; without this `pixels` for a single class
    /// and `none` otherwise
    #[arg(long, value_enum, value_name = "KIND")]
    surface: Option<Surface>,
    /// A picture in the shape of the frames, of any size, white where they do not count for the surface of good parts; the head sees whole frames
    #[arg(long, value_name = "MASK.png")]
    ignore: Option<PathBuf>,
    #[command(flatten)]
    fit: FitArgs,
    #[command(flatten)]
    operator: OperatorArgs,
}

/// Embeds the samples, fits the head and saves the job.
pub(crate) fn run(args: &CalibrateArgs, format: Format) -> Result<()> {
    let fit = args.fit.options()?;
    let folder = scan_classes(&args.samples)?;
    let encoder = args.encoder.open()?;
    let surface = args.surface.unwrap_or(match folder.classes.len() {
        1 => Surface::Pixels,
        _ => Surface::None,
    });
    let options = CalibrateOptions {
        fit,
        unix_time: args.operator.unix_time(),
        by: args.operator.by.clone(),
        thumbnails: args.operator.thumbnails,
        surface: surface.kind(),
        augment: args.operator.augment == Augment::Auto,
        ignore: args.ignore.as_deref().map(ignore_mask).transpose()?,
    };
    let taught = calibrate(&encoder, &folder, &options)
        .with_context(|| format!("{} cannot become a job", args.samples.display()))?;
    check_any_left(folder.samples.len(), &taught.skipped)?;
    taught.job.save(&args.out)?;
    let summary = Summary::of(&args.out, &taught.job, &taught.report);
    format.print(&summary, Summary::human)
}
