//! Few-shot jobs: teach classes with a handful of frames, fit in milliseconds, inspect.
//!
//! A [`Job`] holds features, not images, and belongs to the encoder that made them: [`calibrate`], [`sample_frame`] and
//! [`inspect_frame`] check that before they do anything else. A frame that must not take longer than the line allows goes through
//! [`inspect_frame_within`].
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
use crate::anomaly::FrameTokens;
use crate::augment::LARGEST_CLASS;
use crate::encoder::{Embedding, Encoder, Limit, embed_files};
use crate::error::look;
use crate::feature::{each_copy, feature_of_parts, layout};
use crate::surface::{surface_tokens, surface_tokens_within};
use crate::vision::{ClassFolder, Frame, Image, Skipped, encode_png};
use std::path::PathBuf;

pub use crate::migrate::{Moved, SurfaceMove, migrate};
pub use ssl_edge_adapt::{
    Action, AdaptError, Augmentation, Class, ClassId, Confusion, DeviceHead, DeviceInput,
    DeviceOptions, DeviceParity, EncoderId, Explanation, FalseAlarms, FitOptions, FitReport,
    HeadKind, IgnoreMask, Job, Layout, Migration, Part, Record, Reliability, Sample, SampleId,
    SampleMeta, Tried, UnknownRule, Verdict,
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
#[derive(Clone, Debug)]
pub struct CalibrateOptions {
    /// How to fit it.
    pub fit: FitOptions,
    /// When it is taught, in seconds since 1970-01-01 UTC, for the records in the job; 0 if that does not matter.
    pub unix_time: i64,
    /// Who teaches it, for the records; may be empty.
    pub by: String,
    /// Shorter side of the pictures kept with the samples, so that the job can move to another encoder ([`migrate`]); 0 for none.
    pub thumbnails: u32,
    /// Kind of patch tokens that the job looks at ([`surface`](crate::surface)); `None` for none.
    pub surface: Option<String>,
    /// Whether features of [`copies`](crate::augment::copies) of the frames are kept with the samples, for the head to use unless samples that are left out speak against
    /// them. Classes that begin with more than [`LARGEST_CLASS`](crate::augment::LARGEST_CLASS) frames get none, nor do those that have samples without. So it is
    /// by default.
    pub augment: bool,
    /// Region of the frames that the surface leaves out; [`calibrate`] gives it to the job.
    pub ignore: Option<IgnoreMask>,
}

impl Default for CalibrateOptions {
    fn default() -> Self {
        Self {
            fit: FitOptions::default(),
            unix_time: 0,
            by: String::new(),
            thumbnails: 0,
            surface: None,
            augment: true,
            ignore: None,
        }
    }
}

/// A job without classes for frames: it sees the encoder's poolings and a texture descriptor ([`feature`](crate::feature)).
pub fn job_for(encoder: &Encoder) -> Job {
    let layout = layout(encoder);
    let id = EncoderId {
        hash: encoder.hash(),
        dim: layout.dim(),
    };
    Job::with_layout(id, layout).expect("the id has the layout's length")
}

/// A job without classes for the embeddings that [`Encoder::feature`] gives, where frames are not at hand when it is taught or asked.
pub fn job_for_embeddings(encoder: &Encoder) -> Job {
    Job::new(EncoderId {
        hash: encoder.hash(),
        dim: encoder.feature_dim(),
    })
}

/// A job without classes that sees of this encoder what `job` sees of its own.
pub(crate) fn job_like(job: &Job, encoder: &Encoder) -> Job {
    match takes_embeddings(job) {
        true => job_for_embeddings(encoder),
        false => job_for(encoder),
    }
}

/// Checks that a job was made for this encoder.
///
/// # Errors
/// [`AdaptError::EncoderMismatch`].
pub fn check_encoder(encoder: &Encoder, job: &Job) -> Result<(), AdaptError> {
    let dim = if takes_embeddings(job) {
        encoder.feature_dim()
    } else {
        layout(encoder).dim()
    };
    job.check_encoder(&EncoderId {
        hash: encoder.hash(),
        dim,
    })
}

/// What the job sees of a frame whose embedding is at hand.
///
/// # Errors
/// A job of another encoder, or one whose features this program cannot make.
pub fn feature_for(
    encoder: &Encoder,
    job: &Job,
    embedding: &Embedding,
    frame: &Frame<'_>,
) -> Result<Vec<f32>, Error> {
    check_encoder(encoder, job)?;
    if takes_embeddings(job) {
        return Ok(encoder.feature(embedding));
    }
    feature_of_parts(embedding, frame, job.layout().parts())
}

/// What a job is shown of a frame.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Its feature.
    pub feature: Vec<f32>,
    /// Its patch tokens, for a job that looks at surfaces.
    pub tokens: Option<FrameTokens>,
    /// Features of its [`copies`](crate::augment::copies), if it is taught with them.
    pub copies: Vec<Vec<f32>>,
}

/// What to look at in a frame, and for how long.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// Its patch tokens, if the job looks at surfaces.
    pub tokens: bool,
    /// Its [`copies`](crate::augment::copies), ten times the work.
    pub copies: bool,
    /// When to give it up.
    pub limit: Limit,
}

/// Embeds a frame and makes all that `job` is shown of it.
///
/// # Errors
/// As [`feature_for`]; a frame that cannot be embedded, or was given up ([`RuntimeError::Interrupted`](crate::encoder::RuntimeError::Interrupted) or
/// [`Error::Interrupted`]): encoder and job are then as if the call had not been.
pub fn see(encoder: &Encoder, job: &Job, frame: &Frame<'_>, look: &Look) -> Result<Seen, Error> {
    let limit = &look.limit;
    let embedding = encoder.embed_within(frame, limit)?;
    let feature = feature_for(encoder, job, &embedding, frame)?;
    let tokens = match look.tokens {
        true => surface_tokens_within(encoder, job, frame, limit)?,
        false => None,
    };
    let copies = match look.copies {
        true => copies_for(encoder, job, &frame.to_image(), limit)?,
        false => Vec::new(),
    };
    Ok(Seen {
        feature,
        tokens,
        copies,
    })
}

/// What the job sees of each of the copies of a frame.
pub(crate) fn copies_for(
    encoder: &Encoder,
    job: &Job,
    image: &Image,
    limit: &Limit,
) -> Result<Vec<Vec<f32>>, Error> {
    each_copy(encoder, image, limit, |embedding, frame| {
        feature_for(encoder, job, embedding, frame)
    })
}

/// Teaches what was seen of a frame. Patch tokens are kept with samples of good classes, copies with all.
///
/// # Errors
/// As [`Job::add_sample`], [`Job::set_sample_tokens`] and [`Job::set_sample_copies`]; the job is then as before.
pub fn teach_seen(
    job: &mut Job,
    class: ClassId,
    seen: &Seen,
    meta: SampleMeta,
    thumbnail: Vec<u8>,
) -> Result<SampleId, Error> {
    let grid = seen.tokens.as_ref().map(FrameTokens::grid).transpose()?;
    let good = job.class(class)?.good;
    let id = job.add_sample_with_thumbnail(class, &seen.feature, meta, thumbnail)?;
    let kept = match grid.filter(|_| good) {
        Some(grid) => job.set_sample_tokens(id, &grid),
        None => Ok(()),
    };
    let kept = kept.and_then(|()| match seen.copies.is_empty() {
        true => Ok(()),
        false => job.set_sample_copies(id, seen.copies.clone()),
    });
    if let Err(error) = kept {
        job.undo();
        return Err(error.into());
    }
    Ok(id)
}

/// The verdict on what was seen of a frame.
///
/// # Errors
/// As [`Job::inspect_with`].
pub fn judge(job: &Job, seen: &Seen) -> Result<Verdict, Error> {
    let grid = seen.tokens.as_ref().map(FrameTokens::grid).transpose()?;
    Ok(job.inspect_with(&seen.feature, grid.as_ref())?)
}

fn takes_embeddings(job: &Job) -> bool {
    *job.layout() == Layout::single(job.encoder().dim)
}

/// Teaches one frame. The job must be fitted again.
///
/// # Errors
/// A job of another encoder, no such class, a frame that was taught already, or one that cannot be embedded.
pub fn sample_frame(
    encoder: &Encoder,
    job: &mut Job,
    class: ClassId,
    frame: &Frame<'_>,
    meta: SampleMeta,
) -> Result<SampleId, Error> {
    check_encoder(encoder, job)?;
    let look = Look {
        tokens: job.class(class)?.good,
        ..Look::default()
    };
    let seen = see(encoder, job, frame, &look)?;
    teach_seen(job, class, &seen, meta, Vec::new())
}

/// The verdict on one frame.
///
/// # Errors
/// A job of another encoder, a job that is not fitted, or a frame that cannot be embedded.
pub fn inspect_frame(encoder: &Encoder, job: &Job, frame: &Frame<'_>) -> Result<Verdict, Error> {
    inspect_frame_within(encoder, job, frame, &Limit::default())
}

/// As [`inspect_frame`], but gives up when `limit` passes: as [`Encoder::embed_within`], between what is made of the frame, and before it is judged.
///
/// # Errors
/// As [`inspect_frame`] and [`see`]. A frame that was given up leaves nothing behind.
pub fn inspect_frame_within(
    encoder: &Encoder,
    job: &Job,
    frame: &Frame<'_>,
    limit: &Limit,
) -> Result<Verdict, Error> {
    let seen = see_to_judge(encoder, job, frame, limit)?;
    judge(job, &seen)
}

/// What a fitted job must be shown of a frame for its verdict.
pub(crate) fn see_to_judge(
    encoder: &Encoder,
    job: &Job,
    frame: &Frame<'_>,
    limit: &Limit,
) -> Result<Seen, Error> {
    check_encoder(encoder, job)?;
    if job.report().is_none() {
        return Err(AdaptError::NotFitted.into());
    }
    let what = Look {
        tokens: job.needs_tokens(),
        copies: false,
        limit: limit.clone(),
    };
    let seen = see(encoder, job, frame, &what)?;
    look(limit)?;
    Ok(seen)
}

/// Teaches a new job all images of `folder`, a class for each of its folders, and fits it. Images that cannot be decoded, and those that are
/// the same as one before in the same folder, are left out and listed; the path of each image is its sample's [`SampleMeta::source`].
///
/// # Errors
/// A class without an image that can be read, the same image in two classes, or a frame that cannot be embedded.
pub fn calibrate(
    encoder: &Encoder,
    folder: &ClassFolder,
    options: &CalibrateOptions,
) -> Result<Calibration, Error> {
    let mut job = job_for(encoder);
    job.set_operator(&options.by, options.unix_time);
    job.set_surface(options.surface.as_deref())?;
    if let Some(mask) = &options.ignore {
        job.set_ignore(Some(mask.clone()))?;
    }
    let skipped = teach(encoder, &mut job, folder, options)?;
    let report = job.fit(&options.fit)?;
    Ok(Calibration {
        job,
        report,
        skipped,
    })
}

/// Teaches a job all images of `folder`, as [`calibrate`] does; classes that it has already get more samples. The job must be fitted again.
///
/// # Errors
/// As [`calibrate`]; what was taught before the error stays.
pub fn teach(
    encoder: &Encoder,
    job: &mut Job,
    folder: &ClassFolder,
    options: &CalibrateOptions,
) -> Result<Vec<Skipped>, Error> {
    check_encoder(encoder, job)?;
    let mut classes = Vec::new();
    for name in &folder.classes {
        let known = job.class_named(name).map(|class| class.id);
        classes.push(match known {
            Some(id) => id,
            None => job.add_class(name)?,
        });
    }
    let files: Vec<PathBuf> = folder
        .samples
        .iter()
        .map(|(path, _)| path.clone())
        .collect();
    // A class goes on as it began: of samples with copies and samples without, the former would outweigh the latter.
    let augmented = |class: usize| {
        let mut known = job
            .samples()
            .iter()
            .filter(|sample| sample.class == classes[class]);
        let first = known.next().map(|sample| !sample.copies.is_empty());
        let new = || folder.samples.iter().filter(|(_, of)| *of == class).count();
        options.augment && first.unwrap_or_else(|| new() <= LARGEST_CLASS)
    };
    let augmented: Vec<bool> = (0..classes.len()).map(augmented).collect();
    let mut taught = vec![0usize; classes.len()];
    let mut twice = Vec::new();
    let broken = embed_files(encoder, &files, |file, image, embedding| {
        let (path, class) = &folder.samples[file];
        let frame = image.frame();
        let good = job.class(classes[*class])?.good;
        let seen = Seen {
            feature: feature_for(encoder, job, embedding, &frame)?,
            tokens: match good {
                true => surface_tokens(encoder, job, &frame)?,
                false => None,
            },
            copies: Vec::new(),
        };
        let meta = SampleMeta {
            source: path.display().to_string(),
            unix_time: options.unix_time,
        };
        let thumbnail = thumbnail(image, options.thumbnails);
        match teach_seen(job, classes[*class], &seen, meta, thumbnail) {
            Ok(id) => {
                taught[*class] += 1;
                // After the sample, so that frames that were taught already cost no copies.
                if augmented[*class] {
                    let copies = copies_for(encoder, job, image, &Limit::default())?;
                    job.set_sample_copies(id, copies)?;
                }
            }
            Err(error @ Error::Job(AdaptError::Duplicate { .. })) => {
                taught[*class] += 1;
                twice.push(Skipped {
                    path: path.clone(),
                    reason: error.to_string(),
                });
            }
            Err(error) => return Err(error),
        }
        Ok(())
    })?;
    check_every_class_is_taught(folder, &taught, &broken)?;
    let skipped = folder.skipped.iter().cloned();
    Ok(skipped.chain(broken).chain(twice).collect())
}

/// The picture that a job keeps of a frame with its sample, for [`migrate`]: a PNG whose shorter side has at most `side` pixels, or nothing if that is 0.
pub fn thumbnail(image: &Image, side: u32) -> Vec<u8> {
    if side == 0 {
        return Vec::new();
    }
    encode_png(&image.clone().shrink(side))
}

fn check_every_class_is_taught(
    folder: &ClassFolder,
    taught: &[usize],
    broken: &[Skipped],
) -> Result<(), Error> {
    for (class, name) in folder.classes.iter().enumerate() {
        if taught[class] > 0 {
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
