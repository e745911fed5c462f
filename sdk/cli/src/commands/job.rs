//! `job`: look at a job and change it. Each change loads the file, applies, fits and saves; the file is the old one or the new one.

use crate::data::{EncoderArgs, check_any_left, scan_classes};
use crate::output::{Format, Table};
use crate::teaching::{FitArgs, OperatorArgs, Summary, class_named};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde::Serialize;
use ssl_edge::encoder::save;
use ssl_edge::job::{
    CalibrateOptions, DeviceInput, DeviceOptions, FitReport, Job, SampleId, migrate, teach,
};
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
    Edit(EditCommand),
    /// Fit again
    Fit(ChangeArgs),
    /// Add the classes and samples of another job over the same encoder
    Merge(MergeArgs),
    /// Move the job to another encoder, from the pictures that it keeps
    Migrate(MigrateArgs),
    /// Write the fitted head in integers, for a microcontroller
    Device(DeviceArgs),
}

/// A head for a device.
#[derive(Args)]
pub(crate) struct DeviceArgs {
    /// The job
    #[arg(value_name = "J.sslj")]
    job: PathBuf,
    /// The image to write
    #[arg(long, value_name = "HEAD.bin")]
    out: PathBuf,
    /// The number by which a line's controller names the job
    #[arg(long, default_value_t = 0, value_name = "N")]
    number: u16,
    /// Flash for the image; without this as much as all samples need
    #[arg(long, value_name = "BYTES")]
    max_bytes: Option<usize>,
}

#[derive(Serialize)]
struct DeviceReport {
    out: PathBuf,
    bytes: usize,
    samples_kept: usize,
    compared: usize,
    same_class: usize,
    same_unknown: usize,
    score_difference: f64,
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

/// Changes of samples and classes.
#[derive(Subcommand)]
pub(crate) enum EditCommand {
    /// Forget a sample
    Forget {
        #[command(flatten)]
        change: ChangeArgs,
        /// The sample's number, as `job show` lists it
        #[arg(long, value_name = "N")]
        sample: u64,
    },
    /// Give a sample another label
    Relabel {
        #[command(flatten)]
        change: ChangeArgs,
        /// The sample's number, as `job show` lists it
        #[arg(long, value_name = "N")]
        sample: u64,
        /// The label
        #[arg(long, value_name = "CLASS")]
        class: String,
    },
    /// Give a class another name
    Rename {
        #[command(flatten)]
        change: ChangeArgs,
        /// The class
        #[arg(long, value_name = "CLASS")]
        class: String,
        /// Its name from now on
        #[arg(long, value_name = "NAME")]
        to: String,
    },
    /// Give all samples of a class to another one
    MergeClasses {
        #[command(flatten)]
        change: ChangeArgs,
        /// The class that goes
        #[arg(long, value_name = "CLASS")]
        class: String,
        /// The class that stays
        #[arg(long, value_name = "CLASS")]
        into: String,
    },
    /// Remove a class and its samples
    RemoveClass {
        #[command(flatten)]
        change: ChangeArgs,
        /// The class
        #[arg(long, value_name = "CLASS")]
        class: String,
    },
    /// Say whether a part of a class may pass, and what it costs to miss it
    SetClass {
        #[command(flatten)]
        change: ChangeArgs,
        /// The class
        #[arg(long, value_name = "CLASS")]
        class: String,
        /// Whether its parts may pass
        #[arg(long, value_name = "BOOL")]
        good: Option<bool>,
        /// Cost of taking a frame of it for another class, 1 at first
        #[arg(long, value_name = "COST")]
        cost: Option<f64>,
    },
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
    #[serde(flatten)]
    after: Summary,
}

/// Runs one of them.
pub(crate) fn run(command: &JobCommand, format: Format) -> Result<()> {
    match command {
        JobCommand::Show(args) => show(&args.job, format),
        JobCommand::Log(args) => log(&args.job, format),
        JobCommand::Teach(args) => run_teach(args, format),
        JobCommand::Edit(command) => edit(command, format),
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
        JobCommand::Device(args) => device(args, format),
    }
}

fn edit(command: &EditCommand, format: Format) -> Result<()> {
    match command {
        EditCommand::Forget {
            change: args,
            sample,
        } => change(args, format, |job| {
            job.remove_sample(SampleId(*sample))?;
            Ok(())
        }),
        EditCommand::Relabel {
            change: args,
            sample,
            class,
        } => change(args, format, |job| {
            let class = class_named(job, class)?.id;
            Ok(job.relabel_sample(SampleId(*sample), class)?)
        }),
        EditCommand::Rename {
            change: args,
            class,
            to,
        } => change(args, format, |job| {
            let class = class_named(job, class)?.id;
            Ok(job.rename_class(class, to)?)
        }),
        EditCommand::MergeClasses {
            change: args,
            class,
            into,
        } => change(args, format, |job| {
            let (from, into) = (class_named(job, class)?.id, class_named(job, into)?.id);
            Ok(job.merge_classes(from, into)?)
        }),
        EditCommand::RemoveClass {
            change: args,
            class,
        } => change(args, format, |job| {
            let class = class_named(job, class)?.id;
            Ok(job.remove_class(class)?)
        }),
        EditCommand::SetClass {
            change: args,
            class,
            good,
            cost,
        } => {
            if good.is_none() && cost.is_none() {
                bail!("nothing to set; give --good or --cost");
            }
            change(args, format, |job| {
                let class = class_named(job, class)?.id;
                if let Some(good) = good {
                    job.set_good(class, *good)?;
                }
                if let Some(cost) = cost {
                    job.set_cost(class, *cost)?;
                }
                Ok(())
            })
        }
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
    let moved = migrate(&encoder, &job, &args.change.fit.options()?)?;
    moved.job.save(&args.out)?;
    let report = Migrated {
        before: moved
            .before
            .and_then(|before: FitReport| before.loo_accuracy),
        after: Summary::of(&args.out, &moved.job, &moved.after),
    };
    format.print(&report, |report| {
        let before = report
            .before
            .map_or("unknown".into(), |share| format!("{:.1} %", 100.0 * share));
        format!(
            "{}\nwith the old encoder it was {before}",
            report.after.human()
        )
    })
}

fn device(args: &DeviceArgs, format: Format) -> Result<()> {
    let head = Job::load(&args.job)?.device_head(&DeviceOptions {
        job_number: args.number,
        max_bytes: args.max_bytes,
        input: DeviceInput::Fitted,
    })?;
    save(&args.out, &head.image)?;
    let report = DeviceReport {
        out: args.out.clone(),
        bytes: head.image.len(),
        samples_kept: head.rows,
        compared: head.parity.n,
        same_class: head.parity.same_class,
        same_unknown: head.parity.same_unknown,
        score_difference: head.parity.score_difference,
    };
    format.print(&report, |report| {
        format!(
            "{} bytes, {} samples kept; of {} samples compared {} get the same class and {} the same answer to unknown; scores differ by up to {:.3}\nsaved {}",
            report.bytes,
            report.samples_kept,
            report.compared,
            report.same_class,
            report.same_unknown,
            report.score_difference,
            report.out.display()
        )
    })
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
