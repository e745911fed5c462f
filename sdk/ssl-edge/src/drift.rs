//! Watching a line: did the camera change, did the product, is there a new kind of defect, and what is to be done?
//!
//! A [`LineMonitor`] is made from a fitted job and reference frames of the line as it should be. It takes what the job says of each frame that
//! follows, and gives an alarm with its likely cause ([`DriftCause::action`] says what to do). [`DriftMonitor`] has the charts behind it.
//!
//! ```no_run
//! use ssl_edge::drift::{LineMonitor, WatchOptions, inspect_on_line};
//! use ssl_edge::encoder::{Encoder, Options};
//! use ssl_edge::job::Job;
//! use ssl_edge::vision::decode_file;
//!
//! let encoder = Encoder::open("encoder.sslb".as_ref(), &Options::default())?;
//! let job = Job::load("station.sslj".as_ref())?;
//! let inspect = |file: &str| -> Result<_, Box<dyn std::error::Error>> {
//!     Ok(inspect_on_line(&encoder, &job, &decode_file(file.as_ref())?.frame())?)
//! };
//! let reference = ["line/1.png", "line/2.png", "line/3.png", "line/4.png", "line/5.png"].map(inspect);
//! let reference = reference.into_iter().collect::<Result<Vec<_>, _>>()?;
//! let mut monitor = LineMonitor::new(&job, &reference, &WatchOptions::default())?;
//! if let Some(alarm) = monitor.observe(&job, &inspect("line/6.png")?)? {
//!     println!("{:?}: {}", alarm.cause, alarm.cause.action());
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::Error;
use crate::anomaly::Conformal;
use crate::encoder::{Encoder, Limit};
use crate::job::{AdaptError, EncoderId, Job, Seen, Verdict, judge, see_to_judge};
use crate::vision::{Frame, Quality};

pub use ssl_edge_adapt::drift::{
    CameraChange, CameraNumbers, Cusum, DriftAlarm, DriftCause, DriftMonitor,
    MIN_FRAMES as MIN_REFERENCE, Observation,
};

/// Largest share of unknown frames against which a rise can be told ([`DriftMonitor::new`]).
const MOST_UNKNOWN: f64 = 0.2;

/// How a line is watched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WatchOptions {
    /// Frames between two false alarms, on average at least; 10 to 1e8.
    pub run_length: f64,
    /// Share of frames that may be unknown without anything having changed, above 0 and at most 0.2. Where the reference frames have more, theirs
    /// counts.
    pub unknown_rate: f64,
}

impl Default for WatchOptions {
    /// A false alarm in 10,000 frames; 2 % may be unknown.
    fn default() -> Self {
        Self {
            run_length: 10_000.0,
            unknown_rate: 0.02,
        }
    }
}

/// A frame of the line and what the job says of it.
#[derive(Clone, Debug)]
pub struct OnLine {
    /// What the frame says of its camera.
    pub camera: CameraNumbers,
    /// What the job was shown.
    pub feature: Vec<f32>,
    /// What it said.
    pub verdict: Verdict,
}

impl OnLine {
    /// The verdict of `job` on what was seen of `frame`.
    ///
    /// # Errors
    /// As [`judge`].
    pub fn of(job: &Job, frame: &Frame<'_>, seen: Seen) -> Result<Self, Error> {
        Ok(Self {
            camera: camera_numbers(frame),
            verdict: judge(job, &seen)?,
            feature: seen.feature,
        })
    }
}

/// Inspects a frame for a [`LineMonitor`].
///
/// # Errors
/// As [`inspect_frame`](crate::job::inspect_frame).
pub fn inspect_on_line(encoder: &Encoder, job: &Job, frame: &Frame<'_>) -> Result<OnLine, Error> {
    inspect_on_line_within(encoder, job, frame, &Limit::default())
}

/// As [`inspect_on_line`], but gives up when `limit` passes. A monitor that is not shown the frame stays as it is.
///
/// # Errors
/// As [`inspect_frame_within`](crate::job::inspect_frame_within).
pub fn inspect_on_line_within(
    encoder: &Encoder,
    job: &Job,
    frame: &Frame<'_>,
    limit: &Limit,
) -> Result<OnLine, Error> {
    OnLine::of(job, frame, see_to_judge(encoder, job, frame, limit)?)
}

/// Watches what a job says of the frames of a line.
///
/// What counts as usual is what the reference frames show, also where it is not what was taught: a frame is untypical if its p-value is small
/// beside theirs. For a job that was taught good parts alone that is the p-value of the surface, if it looks at surfaces, and frames with an
/// anomalous surface count as unknown.
#[derive(Clone, Debug)]
pub struct LineMonitor {
    charts: DriftMonitor,
    /// Of the negated p-values of the reference frames.
    usual: Conformal,
    encoder: EncoderId,
    revision: u64,
}

impl LineMonitor {
    /// Learns what is usual from at least 5 reference frames that were not taught.
    ///
    /// # Errors
    /// [`Error::ReferenceTaught`]; [`Error::ReferenceUnknown`]; fewer than 5 frames; an option out of range.
    pub fn new(job: &Job, reference: &[OnLine], options: &WatchOptions) -> Result<Self, Error> {
        if !(10.0..=1e8).contains(&options.run_length) {
            return Err(AdaptError::BadOption {
                name: "run_length",
                value: options.run_length.to_string(),
                range: "from 10 to 1e8 frames",
            }
            .into());
        }
        for (index, frame) in reference.iter().enumerate() {
            let is_sample = |sample: &crate::job::Sample| sample.embedding == frame.feature;
            if job.samples().iter().any(is_sample) {
                return Err(Error::ReferenceTaught { index });
            }
            check_revision(job.revision(), frame.verdict.revision)?;
        }
        let camera: Vec<CameraNumbers> = reference.iter().map(|frame| frame.camera).collect();
        let features: Vec<&[f32]> = reference
            .iter()
            .map(|frame| frame.feature.as_slice())
            .collect();
        let said: Vec<(f64, bool)> = reference.iter().map(|f| said(job, &f.verdict)).collect();
        let (n, unknown) = (
            said.len(),
            said.iter().filter(|(_, unknown)| *unknown).count(),
        );
        if n >= MIN_REFERENCE && unknown as f64 > MOST_UNKNOWN * n as f64 {
            return Err(Error::ReferenceUnknown { unknown, frames: n });
        }
        // Laplace's rule: no unknown frame among few does not say that there are none.
        let seen = (unknown as f64 + 1.0) / (n as f64 + 2.0);
        let rate = match options.unknown_rate > 0.0 && options.unknown_rate < seen {
            true => seen.min(MOST_UNKNOWN),
            false => options.unknown_rate,
        };
        let charts = DriftMonitor::new(&camera, &features, rate, options.run_length)?;
        Ok(Self {
            charts,
            usual: Conformal::new(said.iter().map(|(p, _)| -p).collect())?,
            encoder: *job.encoder(),
            revision: job.revision(),
        })
    }

    /// Takes the next frame; an alarm when something changed, after which all charts begin anew.
    ///
    /// # Errors
    /// [`Error::JobChanged`]: a job or a verdict of another revision than the monitor was made with; a job of another encoder. The charts are then as
    /// before.
    pub fn observe(&mut self, job: &Job, frame: &OnLine) -> Result<Option<DriftAlarm>, Error> {
        job.check_encoder(&self.encoder)?;
        check_revision(job.revision(), self.revision)?;
        check_revision(frame.verdict.revision, self.revision)?;
        let (p_value, unknown) = said(job, &frame.verdict);
        let observation = Observation {
            camera: frame.camera,
            embedding: &frame.feature,
            p_value: self.usual.p_value(-p_value),
            unknown,
        };
        Ok(self.charts.observe(&observation)?)
    }

    /// Begins all charts anew, after a cause was dealt with.
    pub fn reset(&mut self) {
        self.charts.reset();
    }

    /// As [`DriftMonitor::levels`].
    pub fn levels(&self) -> [f64; 6] {
        self.charts.levels()
    }
}

/// What a frame says of its camera.
pub fn camera_numbers(frame: &Frame<'_>) -> CameraNumbers {
    let Quality {
        brightness,
        focus,
        saturated,
    } = Quality::of(frame);
    CameraNumbers {
        brightness,
        focus,
        saturated,
    }
}

fn check_revision(job: u64, monitor: u64) -> Result<(), Error> {
    match job == monitor {
        true => Ok(()),
        false => Err(Error::JobChanged { job, monitor }),
    }
}

/// How typical a frame is, and whether it is unlike everything taught.
fn said(job: &Job, verdict: &Verdict) -> (f64, bool) {
    let only_good = job.classes().iter().all(|class| class.good);
    match &verdict.anomaly {
        Some(surface) if only_good => (surface.p_value, verdict.unknown || surface.anomalous),
        _ => (f64::from(verdict.p_value), verdict.unknown),
    }
}
