//! What a job's good parts look like, patch by patch: a job that looks at surfaces tells where a part is unlike all good ones.
//!
//! A job looks at one kind of patch tokens ([`Job::set_surface`]): the grey pixels of small squares ([`PIXELS`]), which need no encoder, or the
//! encoder's own patch tokens ([`ENCODER`]). `eval anomaly` measures both, and which is better depends on the encoder and the parts.

use crate::Error;
use crate::anomaly::{FrameTokens, TILES, frame_tokens_within, tile_grid};
use crate::encoder::{Encoder, Limit};
use crate::error::look;
use crate::job::Job;
use crate::vision::{Frame, Image, Pixels, decode_file, raw_grid};
use std::path::Path;

pub use ssl_edge_adapt::IgnoreMask;

/// Tokens are the grey pixels of squares of 8 x 8, of a frame whose shorter side is scaled to 224.
pub const PIXELS: &str = "pixels";
/// Tokens are the encoder's patch tokens, of two tiles along the shorter side.
pub const ENCODER: &str = "encoder";

/// Squares along the shorter side of a frame.
const SQUARES: u32 = 28;
/// Side of a square after scaling.
const SIDE: usize = 8;

/// An ignore mask from a picture: pixels brighter than half do not count.
///
/// # Errors
/// A picture that cannot be decoded; as [`IgnoreMask::new`].
pub fn read_ignore_mask(file: &Path) -> Result<IgnoreMask, Error> {
    ignore_mask_of(&decode_file(file)?)
}

/// The same from a picture in memory.
///
/// # Errors
/// As [`IgnoreMask::new`].
pub fn ignore_mask_of(picture: &Image) -> Result<IgnoreMask, Error> {
    let channels = picture.channels();
    let ignored: Vec<bool> = match picture.pixels() {
        Pixels::Gray8(v) | Pixels::Rgb8(v) => bright(v, channels, u32::from(u8::MAX)),
        Pixels::Gray16(v) | Pixels::Rgb16(v) => bright(v, channels, u32::from(u16::MAX)),
    };
    let size = [picture.height() as usize, picture.width() as usize];
    Ok(IgnoreMask::new(&ignored, size)?)
}

/// Whether the mean of each pixel's channels is above half of `white`.
fn bright<T: Copy + Into<u32>>(values: &[T], channels: usize, white: u32) -> Vec<bool> {
    let pixels = values.chunks_exact(channels);
    let sums = pixels.map(|pixel| pixel.iter().map(|v| (*v).into()).sum::<u32>());
    sums.map(|sum| 2 * sum > white * channels as u32).collect()
}

/// Patch tokens of the kind that `job` looks at; `None` for a job that looks at none.
///
/// # Errors
/// A region of interest of another shape than the job's ignore mask ([`IgnoreMask::check_frame`]); as [`tokens_of_kind`].
pub fn surface_tokens(
    encoder: &Encoder,
    job: &Job,
    frame: &Frame<'_>,
) -> Result<Option<FrameTokens>, Error> {
    surface_tokens_within(encoder, job, frame, &Limit::default())
}

/// As [`surface_tokens`], but gives up when `limit` passes.
pub(crate) fn surface_tokens_within(
    encoder: &Encoder,
    job: &Job,
    frame: &Frame<'_>,
    limit: &Limit,
) -> Result<Option<FrameTokens>, Error> {
    if let Some(mask) = job.ignore() {
        let region = frame.region();
        mask.check_frame([region.height as usize, region.width as usize])?;
    }
    let kind = job.surface();
    kind.map(|kind| tokens_of_kind_within(kind, Some(encoder), frame, limit))
        .transpose()
}

/// Patch tokens of a frame's region of interest, of the kind [`PIXELS`] or [`ENCODER`].
///
/// # Errors
/// [`Error::UnknownPart`] for a kind that this program does not make; [`Error::NoEncoder`]; as [`frame_tokens`](crate::anomaly::frame_tokens).
pub fn tokens_of_kind(
    kind: &str,
    encoder: Option<&Encoder>,
    frame: &Frame<'_>,
) -> Result<FrameTokens, Error> {
    tokens_of_kind_within(kind, encoder, frame, &Limit::default())
}

/// As [`tokens_of_kind`], but gives up when `limit` passes.
pub(crate) fn tokens_of_kind_within(
    kind: &str,
    encoder: Option<&Encoder>,
    frame: &Frame<'_>,
    limit: &Limit,
) -> Result<FrameTokens, Error> {
    match kind {
        PIXELS => {
            look(limit)?;
            pixels(frame)
        }
        ENCODER => frame_tokens_within(encoder.ok_or(Error::NoEncoder)?, frame, TILES, limit),
        other => Err(Error::UnknownPart { name: other.into() }),
    }
}

/// Rows and columns of the tokens that [`tokens_of_kind`] gives, from the frame's size alone.
///
/// # Errors
/// As [`tokens_of_kind`].
pub fn grid_of_kind(
    kind: &str,
    encoder: Option<&Encoder>,
    frame: &Frame<'_>,
) -> Result<[usize; 2], Error> {
    match kind {
        PIXELS => Ok(squares(frame)),
        ENCODER => {
            let [rows, cols] = encoder.ok_or(Error::NoEncoder)?.grid();
            let region = frame.region();
            let [down, across] = tile_grid(region.width, region.height, TILES);
            Ok([down * rows, across * cols])
        }
        other => Err(Error::UnknownPart { name: other.into() }),
    }
}

fn pixels(frame: &Frame<'_>) -> Result<FrameTokens, Error> {
    let size = squares(frame);
    Ok(FrameTokens {
        values: raw_grid(frame, size, SIDE)?,
        size,
        dim: SIDE * SIDE,
    })
}

fn squares(frame: &Frame<'_>) -> [usize; 2] {
    let region = frame.region();
    let shorter = region.width.min(region.height);
    let squares = SQUARES.min(shorter);
    let along = |side: u32| {
        let squares = u64::from(side) * u64::from(squares) / u64::from(shorter);
        squares.max(1) as usize
    };
    [along(region.height), along(region.width)]
}
