//! `inspect`: verdicts on images, one line each.

use crate::data::{EncoderArgs, check_any_left, scan_images};
use crate::heat::draw_heat;
use crate::output::Format;
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use ssl_edge::encoder::embed_files;
use ssl_edge::job::{Job, Seen, Verdict, check_encoder, feature_for, judge};
use ssl_edge::surface::surface_tokens;
use ssl_edge::vision::Image;
use std::path::{Path, PathBuf};

/// Give verdicts on images.
#[derive(Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    encoder: EncoderArgs,
    /// The job that `calibrate` wrote
    #[arg(long, value_name = "J.sslj")]
    job: PathBuf,
    /// Folder for pictures that show where surfaces are unlike good parts
    #[arg(long, value_name = "DIR")]
    heat: Option<PathBuf>,
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
    /// Whether the part may pass; null for a job without a good class.
    ok: Option<bool>,
    /// How typical the frame is of what was taught.
    p_value: f32,
    /// The taught frame that it is most like.
    nearest: &'a str,
    distance: f32,
    revision: u64,
    /// Whether the surface has patches unlike all good parts; null for a job that looks at no surfaces.
    anomalous: Option<bool>,
    surface_p_value: Option<f64>,
}

/// Prints one verdict an image; an image without one makes the command fail at its end.
pub(crate) fn run(args: &InspectArgs, format: Format) -> Result<()> {
    let files = scan_images(&args.images)?;
    let job = Job::load(&args.job)?;
    let encoder = args.encoder.open()?;
    check_encoder(&encoder, &job).with_context(|| {
        format!(
            "{} does not fit {}",
            args.job.display(),
            args.encoder.bundle.display()
        )
    })?;
    let mut printed = Ok(());
    let skipped = embed_files(&encoder, &files, |index, image, embedding| {
        if printed.is_ok() {
            let frame = image.frame();
            let seen = Seen {
                feature: feature_for(&encoder, &job, embedding, &frame)?,
                tokens: match job.needs_tokens() {
                    true => surface_tokens(&encoder, &job, &frame)?,
                    false => None,
                },
                copies: Vec::new(),
            };
            printed = print_verdict(&job, &seen, &files[index], format)
                .and_then(|verdict| args.draw(&verdict, image, &files[index]));
        }
        Ok(())
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

impl InspectArgs {
    /// Writes the heat of a surface beside its picture.
    fn draw(&self, verdict: &Verdict, image: &Image, file: &Path) -> Result<()> {
        match (&self.heat, &verdict.anomaly) {
            (Some(folder), Some(anomaly)) => draw_heat(folder, file, image, &anomaly.heat),
            _ => Ok(()),
        }
    }
}

fn print_verdict(job: &Job, seen: &Seen, file: &Path, format: Format) -> Result<Verdict> {
    let verdict = judge(job, seen)?;
    let line = Line {
        path: file.display().to_string(),
        class: &verdict.name,
        score: verdict.score,
        unknown: verdict.unknown,
        ok: verdict.ok,
        p_value: verdict.p_value,
        nearest: &job.sample(verdict.nearest)?.meta.source,
        distance: verdict.distance,
        revision: verdict.revision,
        anomalous: verdict.anomaly.as_ref().map(|found| found.anomalous),
        surface_p_value: verdict.anomaly.as_ref().map(|found| found.p_value),
    };
    format.print(&line, human)?;
    Ok(verdict)
}

fn human(line: &Line) -> String {
    let unknown = match (line.unknown, line.anomalous) {
        (true, _) => "  unknown",
        (false, Some(true)) => "  surface unlike good parts",
        _ => "",
    };
    let ok = match line.ok {
        Some(true) => "  OK",
        Some(false) => "  NG",
        None => "",
    };
    format!(
        "{}  {}  {:.3}{ok}{unknown}",
        line.path, line.class, line.score
    )
}
