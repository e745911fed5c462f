//! A job's way to another encoder: features, and patch tokens where they can be had, of the pictures that were kept with its samples.

use crate::Error;
use crate::anomaly::{TILES, frame_tokens};
use crate::encoder::{Encoder, Limit};
use crate::job::{copies_for, feature_for, job_like};
use crate::surface::ENCODER;
use crate::vision::{Image, decode_bytes};
use ssl_edge_adapt::{FitOptions, Job, Migration, Remade, Sample, SampleTokens};
use std::path::Path;

/// A job for another encoder beside the old one.
#[derive(Clone, Debug)]
pub struct Moved {
    /// Its job and both reports.
    pub migration: Migration,
    /// What became of the surface of good parts.
    pub surface: SurfaceMove,
}

/// What became of the patch tokens of samples that had some.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SurfaceMove {
    /// Samples that keep their tokens, which do not depend on the encoder.
    pub kept: usize,
    /// Samples whose tokens were made anew of their pictures.
    pub remade: usize,
    /// Samples without tokens from now on, because their pictures are too small for the encoder's patches.
    pub dropped: usize,
    /// Pixels that the shorter side of a picture needs for the encoder's patches.
    pub needed: u32,
    /// Pixels of the shorter side of the smallest picture that is too small; 0 if none is.
    pub smallest: u32,
}

/// The job with features of another encoder, made of the pictures that were kept with its samples. Compare the reports of the result before
/// using its job.
///
/// The surface of good parts moves along: tokens of pixels are kept as they were taught; tokens of the encoder are made anew of pictures whose shorter
/// side has at least as many pixels as the encoder looks at in a whole frame ([`SurfaceMove::needed`]), and dropped with the others, which
/// would show it less than it sees on the line.
///
/// # Errors
/// [`Error::NoThumbnail`]: a sample without a picture; a picture that cannot be decoded or embedded; [`Error::Interrupted`] when `limit` passes before
/// all are; as [`Job::fit`].
pub fn migrate(
    encoder: &Encoder,
    job: &Job,
    options: &FitOptions,
    limit: &Limit,
) -> Result<Moved, Error> {
    let like = job_like(job, encoder);
    let preprocess = encoder.preprocess();
    let mut surface = SurfaceMove {
        needed: TILES as u32 * preprocess.width.max(preprocess.height),
        ..SurfaceMove::default()
    };
    let migration = job.migrate(*like.encoder(), like.layout().clone(), options, |sample| {
        let picture = picture(sample)?;
        let embedding = encoder.embed_within(&picture.frame(), limit)?;
        Ok::<_, Error>(Remade {
            feature: feature_for(encoder, &like, &embedding, &picture.frame())?,
            tokens: tokens(encoder, job, sample, &picture, &mut surface)?,
            copies: match sample.copies.is_empty() {
                true => Vec::new(),
                false => copies_for(encoder, &like, &picture, limit)?,
            },
        })
    })?;
    Ok(Moved { migration, surface })
}

fn picture(sample: &Sample) -> Result<Image, Error> {
    if sample.thumbnail.is_empty() {
        return Err(Error::NoThumbnail {
            sample: sample.id.0,
            source_of_sample: sample.meta.source.clone(),
        });
    }
    Ok(decode_bytes(
        &sample.thumbnail,
        Path::new(&sample.meta.source),
    )?)
}

fn tokens(
    encoder: &Encoder,
    job: &Job,
    sample: &Sample,
    picture: &Image,
    surface: &mut SurfaceMove,
) -> Result<Option<SampleTokens>, Error> {
    if sample.tokens.is_none() {
        return Ok(None);
    }
    if job.surface() != Some(ENCODER) {
        surface.kept += 1;
        return Ok(sample.tokens.clone());
    }
    let side = picture.width().min(picture.height());
    if side < surface.needed {
        surface.smallest = match surface.dropped {
            0 => side,
            _ => surface.smallest.min(side),
        };
        surface.dropped += 1;
        return Ok(None);
    }
    surface.remade += 1;
    let tokens = frame_tokens(encoder, &picture.frame(), TILES)?;
    Ok(Some(SampleTokens::new(&tokens.grid()?)?))
}
