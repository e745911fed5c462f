//! `job edit`: samples, classes and the region that does not count.

use super::{ChangeArgs, change};
use crate::output::Format;
use crate::teaching::{class_named, ignore_mask};
use anyhow::{Result, bail};
use clap::Subcommand;
use ssl_edge::job::SampleId;
use std::path::PathBuf;

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
    /// Leave a region of the frame out when the surface is judged, or count all of it again
    Ignore {
        #[command(flatten)]
        change: ChangeArgs,
        /// A picture in the shape of the frames, of any size, white where they do not count
        #[arg(long, value_name = "MASK.png", required_unless_present = "all_counts")]
        mask: Option<PathBuf>,
        /// Count the whole frame
        #[arg(long, conflicts_with = "mask")]
        all_counts: bool,
    },
}

/// Applies one of them.
pub(super) fn run(command: &EditCommand, format: Format) -> Result<()> {
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
        EditCommand::Ignore {
            change: args,
            mask,
            all_counts: _,
        } => {
            let mask = mask.as_deref().map(ignore_mask).transpose()?;
            change(args, format, |job| Ok(job.set_ignore(mask)?))
        }
    }
}
