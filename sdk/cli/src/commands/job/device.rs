//! `job device`: the head in integers.

use crate::output::Format;
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use ssl_edge::encoder::save;
use ssl_edge::job::{DeviceInput, DeviceOptions, Job};
use std::path::PathBuf;

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

/// Writes the head's image.
pub(super) fn run(args: &DeviceArgs, format: Format) -> Result<()> {
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
