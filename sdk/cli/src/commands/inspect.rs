//! `inspect`: verdicts on images, one line each.

use crate::data::{EncoderArgs, check_any_left, scan_images};
use crate::output::Format;
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use ssl_edge::encoder::embed_files;
use ssl_edge::job::{Job, encoder_id};
use std::path::{Path, PathBuf};

/// Give verdicts on images.
#[derive(Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    encoder: EncoderArgs,
    /// The job that `calibrate` wrote
    #[arg(long, value_name = "J.sslj")]
    job: PathBuf,
    /// Images, or folders of images
    #[arg(required = true, value_name = "IMAGES")]
    images: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Line<'a> {
    path: String,
    class: &'a str,
    score: f32,
    unknown: bool,
}

/// Prints one verdict an image; an image without one makes the command fail at its end.
pub(crate) fn run(args: &InspectArgs, format: Format) -> Result<()> {
    let files = scan_images(&args.images)?;
    let job = Job::load(&args.job)?;
    let encoder = args.encoder.open()?;
    job.check_encoder(&encoder_id(&encoder)).with_context(|| {
        format!(
            "{} does not fit {}",
            args.job.display(),
            args.encoder.bundle.display()
        )
    })?;
    let mut printed = Ok(());
    let skipped = embed_files(&encoder, &files, |index, embedding| {
        if printed.is_ok() {
            printed = print_verdict(&job, &encoder.feature(embedding), &files[index], format);
        }
    })?;
    printed?;
    check_any_left(files.len(), &skipped)?;
    if !skipped.is_empty() {
        bail!(
            "{} of {} images have no verdict; the reasons are above, replace the files",
            skipped.len(),
            files.len()
        );
    }
    Ok(())
}

fn print_verdict(job: &Job, feature: &[f32], file: &Path, format: Format) -> Result<()> {
    let verdict = job.inspect(feature)?;
    let line = Line {
        path: file.display().to_string(),
        class: &verdict.name,
        score: verdict.score,
        unknown: verdict.unknown,
    };
    format.print(&line, human)
}

fn human(line: &Line) -> String {
    let unknown = if line.unknown { "  unknown" } else { "" };
    format!("{}  {}  {:.3}{unknown}", line.path, line.class, line.score)
}
