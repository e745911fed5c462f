//! `job`: look at a job and change it. Each change loads the file, applies, fits and saves; the file is the old one or the new one.

mod device;
mod edit;

use crate::data::{EncoderArgs, check_any_left, scan_classes};
use crate::output::{Format, Table};
use crate::teaching::{Augment, FitArgs, OperatorArgs, Summary};
use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use serde::Serialize;
use ssl_edge::encoder::Limit;
use ssl_edge::job::{CalibrateOptions, FitReport, Job, SurfaceMove, migrate, teach};
use std::path::{Path, PathBuf};

/// What can be done with a job.
#[derive(Subcommand)]
pub(crate) enum JobCommand {
    /// Classes, samples and the last fit
    Show(ShowArgs),
    /// All changes, by whom and when
    Log(ShowArgs),
    /// Teach more images, one folder for each class
    Teach(TeachArgs),
    /// Change samples and classes
    #[command(subcommand)]
    Edit(edit::EditCommand),
    /// Fit again
    Fit(ChangeArgs),
    /// Add the classes and samples of another job over the same encoder
    Merge(MergeArgs),
    /// Move the job to another encoder, from the pictures that it keeps
    Migrate(MigrateArgs),
    /// Write the fitted head in integers, for a microcontroller
    Device(device::DeviceArgs),
}

/// A job to look at.
#[derive(Args)]
pub(crate) struct ShowArgs {
    /// The job
    #[arg(value_name = "J.sslj")]
    job: PathBuf,
}

/// A job to change.
#[derive(Args)]
pub(crate) struct ChangeArgs {
    /// The job
    #[arg(value_name = "J.sslj")]
    job: PathBuf,
    #[command(flatten)]
    fit: FitArgs,
    #[command(flatten)]
    operator: OperatorArgs,
}

/// Images to add.
#[derive(Args)]
pub(crate) struct TeachArgs {
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    encoder: EncoderArgs,
    /// One folder of images for each class
    #[arg(long, value_name = "DIR")]
    samples: PathBuf,
}

/// Another job.
#[derive(Args)]
pub(crate) struct MergeArgs {
    #[command(flatten)]
    change: ChangeArgs,
    /// The job whose samples are added
    #[arg(long, value_name = "J.sslj")]
    other: PathBuf,
}

/// Another encoder.
#[derive(Args)]
pub(crate) struct MigrateArgs {
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    encoder: EncoderArgs,
    /// The job to write; the old one stays
    #[arg(long, value_name = "J.sslj")]
    out: PathBuf,
}

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    summary: Option<Summary>,
    encoder: String,
    fitted: bool,
    list: Vec<SampleLine>,
}

#[derive(Serialize)]
struct SampleLine {
    sample: u64,
    class: String,
    source: String,
    unix_time: i64,
}

#[derive(Serialize)]
struct LogLine {
    revision: u64,
    unix_time: i64,
    by: String,
    action: String,
}

#[derive(Serialize)]
struct Migrated {
    before: Option<f64>,
    /// Samples whose patches moved along, and those whose patches are gone.
    surface_samples_kept: usize,
    surface_samples_dropped: usize,
    surface_move: Option<String>,
    #[serde(flatten)]
    after: Summary,
}

/// Runs one of them.
pub(crate) fn run(command: &JobCommand, format: Format) -> Result<()> {
    match command {
        JobCommand::Show(args) => show(&args.job, format),
        JobCommand::Log(args) => log(&args.job, format),
        JobCommand::Teach(args) => run_teach(args, format),
        JobCommand::Edit(command) => edit::run(command, format),
        JobCommand::Fit(args) => change(args, format, |_| Ok(())),
        JobCommand::Merge(args) => {
            let other = Job::load(&args.other)?;
            change(&args.change, format, |job| {
                job.merge(&other).with_context(|| {
                    format!(
                        "{} cannot be added to {}",
                        args.other.display(),
                        args.change.job.display()
                    )
                })?;
                Ok(())
            })
        }
        JobCommand::Migrate(args) => run_migrate(args, format),
        JobCommand::Device(args) => device::run(args, format),
    }
}

/// Applies `apply` to the job file, fits and prints; nothing is saved if either fails.
fn change(
    args: &ChangeArgs,
    format: Format,
    apply: impl FnOnce(&mut Job) -> Result<()>,
) -> Result<()> {
    let options = args.fit.options()?;
    let summary = Job::edit(&args.job, |job| -> Result<Summary> {
        job.set_operator(&args.operator.by, args.operator.unix_time());
        apply(job)?;
        let report = job.fit(&options)?;
        Ok(Summary::of(&args.job, job, &report))
    })?;
    format.print(&summary, Summary::human)
}

fn run_teach(args: &TeachArgs, format: Format) -> Result<()> {
    let folder = scan_classes(&args.samples)?;
    let encoder = args.encoder.open()?;
    let operator = &args.change.operator;
    let options = CalibrateOptions {
        unix_time: operator.unix_time(),
        by: operator.by.clone(),
        thumbnails: operator.thumbnails,
        augment: operator.augment == Augment::Auto,
        ..CalibrateOptions::default()
    };
    change(&args.change, format, |job| {
        let skipped = teach(&encoder, job, &folder, &options)
            .with_context(|| format!("{} cannot be taught", args.samples.display()))?;
        check_any_left(folder.samples.len(), &skipped)
    })
}

fn run_migrate(args: &MigrateArgs, format: Format) -> Result<()> {
    let mut job = Job::load(&args.change.job)?;
    job.set_operator(&args.change.operator.by, args.change.operator.unix_time());
    let encoder = args.encoder.open()?;
    let options = args.change.fit.options()?;
    let moved = migrate(&encoder, &job, &options, &Limit::default())?;
    let (migration, surface) = (moved.migration, moved.surface);
    migration.job.save(&args.out)?;
    let report = Migrated {
        before: migration
            .before
            .and_then(|before: FitReport| before.loo_accuracy),
        surface_samples_kept: surface.kept + surface.remade,
        surface_samples_dropped: surface.dropped,
        surface_move: surface_move(&surface),
        after: Summary::of(&args.out, &migration.job, &migration.after),
    };
    format.print(&report, |report| {
        let before = report
            .before
            .map_or("unknown".into(), |share| format!("{:.1} %", 100.0 * share));
        let surface = report.surface_move.as_deref();
        let surface = surface.map_or(String::new(), |text| format!("\nsurface: {text}"));
        format!(
            "{}{surface}\nwith the old encoder it was {before}",
            report.after.human()
        )
    })
}

/// What became of the surface of good parts; `None` for a job that had none.
fn surface_move(surface: &SurfaceMove) -> Option<String> {
    let SurfaceMove {
        kept,
        remade,
        dropped,
        needed,
        smallest,
    } = *surface;
    if dropped > 0 {
        return Some(format!(
            "the patches of {dropped} of {} good samples are gone: the new encoder looks at {needed} pixels along the shorter side of a frame, and the \
             smallest picture kept of them has {smallest}; teach good parts again with `job teach`, with --thumbnails {needed} if the job is to move once more",
            kept + remade + dropped
        ));
    }
    match (kept, remade) {
        (0, 0) => None,
        (_, 0) => Some(format!(
            "kept as {kept} good samples taught it, since pixels do not depend on the encoder"
        )),
        _ => Some(format!(
            "learned anew from the pictures of {remade} good samples"
        )),
    }
}

fn show(path: &Path, format: Format) -> Result<()> {
    let job = Job::load(path)?;
    let list = job.samples().iter().map(|sample| {
        let class = job.class(sample.class)?.name.clone();
        Ok(SampleLine {
            sample: sample.id.0,
            class,
            source: sample.meta.source.clone(),
            unix_time: sample.meta.unix_time,
        })
    });
    let shown = Shown {
        summary: job.report().map(|report| Summary::of(path, &job, report)),
        encoder: job
            .encoder()
            .hash
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
        fitted: job.report().is_some(),
        list: list.collect::<Result<_>>()?,
    };
    format.print(&shown, |shown| {
        let mut table = Table::new(&["source", "sample", "class"]);
        for line in &shown.list {
            table.row(vec![
                line.source.clone(),
                line.sample.to_string(),
                line.class.clone(),
            ]);
        }
        let fit = shown
            .summary
            .as_ref()
            .map_or("not fitted since its last change".into(), Summary::human);
        format!("{}\n{fit}", table.render())
    })
}

fn log(path: &Path, format: Format) -> Result<()> {
    for record in Job::load(path)?.history() {
        let line = LogLine {
            revision: record.revision,
            unix_time: record.unix_time,
            by: record.by.clone(),
            action: format!("{:?}", record.action),
        };
        format.print(&line, |line| {
            format!(
                "{:>5}  {}  {}  {}",
                line.revision, line.unix_time, line.by, line.action
            )
        })?;
    }
    Ok(())
}
