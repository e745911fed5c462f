//! `drift`: watches the images of a line in their order.

use crate::data::{EncoderArgs, scan_images};
use crate::output::{Format, note, note_skipped};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use ssl_edge::drift::{
    CameraChange, DriftAlarm, DriftCause, LineMonitor, OnLine, WatchOptions, inspect_on_line,
};
use ssl_edge::encoder::Encoder;
use ssl_edge::job::{Job, check_encoder};
use ssl_edge::vision::{Skipped, decode_file};
use std::io::BufRead;
use std::path::{Path, PathBuf};

/// Watch the images of a line in their order.
#[derive(Args)]
#[command(group = clap::ArgGroup::new("usual").required(true))]
pub(crate) struct DriftArgs {
    #[command(flatten)]
    encoder: EncoderArgs,
    /// The line's job
    #[arg(long, value_name = "J.sslj")]
    job: PathBuf,
    /// Images of the line as it should be, at least 5 that were not taught
    #[arg(long, group = "usual", value_name = "DIR")]
    reference: Option<PathBuf>,
    /// Take the first N images of the line as it should be
    #[arg(long, group = "usual", value_name = "N", value_parser = clap::value_parser!(u32).range(5..=100_000))]
    first: Option<u32>,
    /// Images between two false alarms, on average at least
    #[arg(long, default_value_t = 10_000.0, value_name = "N")]
    run_length: f64,
    /// Share of images that may be unknown without anything having changed
    #[arg(long, default_value_t = 0.02, value_name = "SHARE")]
    unknown_rate: f64,
    /// Images in the order of their names, or folders of images; `-` takes file names from stdin, one a line, as they come
    #[arg(required = true, value_name = "IMAGES")]
    images: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Alarm {
    event: &'static str,
    /// Number of the image that gave it, from 1 on; those of the reference count too if they were of the line.
    image: usize,
    path: String,
    /// `camera_changed`, `product_changed` or `new_kind_of_defect`.
    cause: &'static str,
    /// `brightness`, `focus` or `saturation` of a camera that changed.
    camera: Option<&'static str>,
    /// Images since the change began, as far as can be told.
    images_since: u32,
    /// Share of them whose embedding is unlike the reference.
    unlike: f64,
    action: &'static str,
}

#[derive(Serialize)]
struct Summary {
    event: &'static str,
    /// Images watched, without those of the reference.
    images: usize,
    reference: usize,
    skipped: usize,
    alarms: usize,
    levels: Levels,
}

/// How near each chart is to an alarm, which it gives above 1.
#[derive(Serialize)]
struct Levels {
    brightness: f64,
    focus: f64,
    saturation: f64,
    embedding: f64,
    typicality: f64,
    unknown: f64,
}

/// What is known while images come.
struct Watch<'a> {
    args: &'a DriftArgs,
    encoder: Encoder,
    job: Job,
    reference: Vec<OnLine>,
    monitor: Option<LineMonitor>,
    /// Images that came, and of these the ones that were watched.
    came: usize,
    watched: usize,
    skipped: usize,
    alarms: usize,
}

/// Prints one line an alarm and a summary at the end.
pub(crate) fn run(args: &DriftArgs, format: Format) -> Result<()> {
    let from_stdin = args.images == [PathBuf::from("-")];
    let files = match from_stdin {
        true => Vec::new(),
        false => scan_images(&args.images)?,
    };
    let mut watch = Watch::begin(args)?;
    if from_stdin {
        for line in std::io::stdin().lock().lines() {
            let name = line.context("cannot read file names from stdin")?;
            if !name.is_empty() {
                watch.take(Path::new(&name), format)?;
            }
        }
    }
    for file in &files {
        watch.take(file, format)?;
    }
    watch.end(format)
}

impl<'a> Watch<'a> {
    fn begin(args: &'a DriftArgs) -> Result<Self> {
        let job = Job::load(&args.job)?;
        let encoder = args.encoder.open()?;
        check_encoder(&encoder, &job).with_context(|| {
            format!(
                "{} does not fit {}",
                args.job.display(),
                args.encoder.bundle.display()
            )
        })?;
        let mut watch = Self {
            args,
            encoder,
            job,
            reference: Vec::new(),
            monitor: None,
            came: 0,
            watched: 0,
            skipped: 0,
            alarms: 0,
        };
        if let Some(folder) = &args.reference {
            for file in scan_images(std::slice::from_ref(folder))? {
                let frame = watch.look(&file)?;
                watch.reference.extend(frame);
            }
            watch.learn()?;
        }
        Ok(watch)
    }

    /// What the job says of an image; nothing, and a note, for one that cannot be decoded.
    fn look(&mut self, file: &Path) -> Result<Option<OnLine>> {
        let image = match decode_file(file) {
            Ok(image) => image,
            Err(error) => {
                self.skipped += 1;
                note_skipped(&[Skipped {
                    path: file.to_owned(),
                    reason: error.to_string(),
                }]);
                return Ok(None);
            }
        };
        let seen = inspect_on_line(&self.encoder, &self.job, &image.frame());
        let seen = seen.with_context(|| format!("{} has no verdict", file.display()))?;
        Ok(Some(seen))
    }

    fn learn(&mut self) -> Result<()> {
        let options = WatchOptions {
            run_length: self.args.run_length,
            unknown_rate: self.args.unknown_rate,
        };
        let monitor = LineMonitor::new(&self.job, &self.reference, &options)
            .context("the reference images do not say what is usual")?;
        self.monitor = Some(monitor);
        Ok(())
    }

    fn take(&mut self, file: &Path, format: Format) -> Result<()> {
        self.came += 1;
        let Some(frame) = self.look(file)? else {
            return Ok(());
        };
        let Some(monitor) = &mut self.monitor else {
            self.reference.push(frame);
            if self.args.first == u32::try_from(self.reference.len()).ok() {
                self.learn()?;
                note(format_args!(
                    "the line is as it should be in the first {} images",
                    self.reference.len()
                ));
            }
            return Ok(());
        };
        self.watched += 1;
        let Some(alarm) = monitor.observe(&self.job, &frame)? else {
            return Ok(());
        };
        self.alarms += 1;
        format.print(&Alarm::of(&alarm, self.came, file), Alarm::human)
    }

    fn end(&self, format: Format) -> Result<()> {
        let Some(monitor) = &self.monitor else {
            bail!(
                "{} images are no {} from which to tell what is usual; give more, or lower --first",
                self.reference.len(),
                self.args.first.unwrap_or_default()
            );
        };
        let of_line = self.args.first.map_or(0, |_| self.reference.len());
        if self.watched + of_line == 0 {
            bail!("none of the {} images could be watched", self.came);
        }
        let [
            brightness,
            focus,
            saturation,
            embedding,
            typicality,
            unknown,
        ] = monitor.levels();
        let summary = Summary {
            event: "summary",
            images: self.watched,
            reference: self.reference.len(),
            skipped: self.skipped,
            alarms: self.alarms,
            levels: Levels {
                brightness,
                focus,
                saturation,
                embedding,
                typicality,
                unknown,
            },
        };
        format.print(&summary, |summary| {
            format!(
                "{} images watched against {}, {} skipped: {} alarms",
                summary.images, summary.reference, summary.skipped, summary.alarms
            )
        })
    }
}

impl Alarm {
    fn of(alarm: &DriftAlarm, image: usize, file: &Path) -> Self {
        let (cause, camera) = match alarm.cause {
            DriftCause::CameraChanged(change) => ("camera_changed", Some(change)),
            DriftCause::ProductChanged => ("product_changed", None),
            DriftCause::NewKindOfDefect => ("new_kind_of_defect", None),
        };
        Self {
            event: "alarm",
            image,
            path: file.display().to_string(),
            cause,
            camera: camera.map(|change| match change {
                CameraChange::Brightness => "brightness",
                CameraChange::Focus => "focus",
                CameraChange::Saturation => "saturation",
            }),
            images_since: alarm.frames,
            unlike: alarm.unlike,
            action: alarm.cause.action(),
        }
    }

    fn human(&self) -> String {
        let camera = self.camera.map_or(String::new(), |of| format!(" ({of})"));
        format!(
            "image {}, {}: {}{camera}, for about {} images\n  {}",
            self.image,
            self.path,
            self.cause.replace('_', " "),
            self.images_since,
            self.action
        )
    }
}
