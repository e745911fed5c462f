//! Few-shot jobs: teach classes with a handful of frames, fit in milliseconds, inspect.
//!
//! A [`Job`] holds features, not images, and belongs to the encoder that made them: [`calibrate`], [`sample_frame`] and
//! [`inspect_frame`] check that before they do anything else.
//!
//! ```no_run
//! use ssl_edge::encoder::{Encoder, EngineKind, Options};
//! use ssl_edge::job::{Job, inspect_frame};
//! let encoder = Encoder::open("encoder.sslb".as_ref(), &Options { engine: EngineKind::Native, threads: 1, ..Options::default() })?;
//! let job = Job::load("station.sslj".as_ref())?;
//! let image = ssl_edge::vision::decode_file("part.png".as_ref())?;
//! let verdict = inspect_frame(&encoder, &job, &image.frame())?;
//! println!("{}{}", verdict.name, if verdict.unknown { "?" } else { "" });
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::Error;
use crate::encoder::{Encoder, embed_files, feature_of};
use crate::vision::{ClassFolder, Frame, Skipped};
use std::path::PathBuf;

pub use ssl_edge_adapt::{
    AdaptError, Class, ClassId, Confusion, EncoderId, FitOptions, FitReport, HeadKind, Job, Sample,
    SampleId, SampleMeta, UnknownRule, Verdict,
};

/// A job taught from a folder.
#[derive(Clone, Debug)]
pub struct Calibration {
    /// The fitted job.
    pub job: Job,
    /// What the fit found.
    pub report: FitReport,
    /// Files that are not part of it, with the reason.
    pub skipped: Vec<Skipped>,
}

/// How to teach a job from a folder.
#[derive(Clone, Debug, Default)]
pub struct CalibrateOptions {
    /// How to fit it.
    pub fit: FitOptions,
    /// When it is taught, in seconds since 1970-01-01 UTC, for the records in the job; 0 if that does not matter.
    pub unix_time: i64,
}

/// What a job remembers of its encoder.
pub fn encoder_id(encoder: &Encoder) -> EncoderId {
    EncoderId {
        hash: encoder.hash(),
        dim: encoder.feature_dim(),
    }
}

/// A job without classes for the features of `encoder`.
pub fn job_for(encoder: &Encoder) -> Job {
    Job::new(encoder_id(encoder))
}

/// Teaches one frame. The job must be fitted again.
///
/// # Errors
/// A job of another encoder, no such class, or a frame that cannot be embedded.
pub fn sample_frame(
    encoder: &Encoder,
    job: &mut Job,
    class: ClassId,
    frame: &Frame<'_>,
    meta: SampleMeta,
) -> Result<SampleId, Error> {
    job.check_encoder(&encoder_id(encoder))?;
    job.class(class)?;
    Ok(job.add_sample(class, &feature_of(encoder, frame)?, meta)?)
}

/// The verdict on one frame.
///
/// # Errors
/// A job of another encoder, a job that is not fitted, or a frame that cannot be embedded.
pub fn inspect_frame(encoder: &Encoder, job: &Job, frame: &Frame<'_>) -> Result<Verdict, Error> {
    job.check_encoder(&encoder_id(encoder))?;
    if job.report().is_none() {
        return Err(AdaptError::NotFitted.into());
    }
    Ok(job.inspect(&feature_of(encoder, frame)?)?)
}

/// Teaches a new job all images of `folder`, a class for each of its folders, and fits it. Images that cannot be decoded are left out
/// and listed; the path of each image is its sample's [`SampleMeta::source`].
///
/// # Errors
/// A class without an image that can be read, fewer than two classes, or a frame that cannot be embedded.
pub fn calibrate(
    encoder: &Encoder,
    folder: &ClassFolder,
    options: &CalibrateOptions,
) -> Result<Calibration, Error> {
    let mut job = job_for(encoder);
    let classes = folder
        .classes
        .iter()
        .map(|name| job.add_class(name))
        .collect::<Result<Vec<_>, _>>()?;
    let files: Vec<PathBuf> = folder
        .samples
        .iter()
        .map(|(path, _)| path.clone())
        .collect();
    let mut features = Vec::with_capacity(files.len());
    let broken = embed_files(encoder, &files, |file, embedding| {
        features.push((file, encoder.feature(embedding)))
    })?;
    for (file, feature) in &features {
        let (path, class) = &folder.samples[*file];
        let meta = SampleMeta {
            source: path.display().to_string(),
            unix_time: options.unix_time,
        };
        job.add_sample(classes[*class], feature, meta)?;
    }
    check_every_class_is_taught(folder, &features, &broken)?;
    let report = job.fit(&options.fit)?;
    let skipped = folder.skipped.iter().cloned().chain(broken).collect();
    Ok(Calibration {
        job,
        report,
        skipped,
    })
}

fn check_every_class_is_taught(
    folder: &ClassFolder,
    features: &[(usize, Vec<f32>)],
    broken: &[Skipped],
) -> Result<(), Error> {
    for (class, name) in folder.classes.iter().enumerate() {
        if features
            .iter()
            .any(|(file, _)| folder.samples[*file].1 == class)
        {
            continue;
        }
        let is_of_class =
            |skipped: &&Skipped| folder.samples.contains(&(skipped.path.clone(), class));
        let mut of_class = broken.iter().filter(is_of_class);
        if let Some(first) = of_class.next() {
            let (class, first) = (name.clone(), first.reason.clone());
            return Err(Error::NoReadableImage {
                class,
                broken: 1 + of_class.count(),
                first,
            });
        }
    }
    Ok(())
}
