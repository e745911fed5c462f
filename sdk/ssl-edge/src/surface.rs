//! What a job's good parts look like, patch by patch: a job that looks at surfaces tells where a part is unlike all good ones.
//!
//! A job looks at one kind of patch tokens ([`Job::set_surface`]): the grey pixels of small squares ([`PIXELS`]), which need no encoder, or the
//! encoder's own patch tokens ([`ENCODER`]). `eval anomaly` measures both, and which is better depends on the encoder and the parts.

use crate::Error;
use crate::anomaly::{FrameTokens, TILES, frame_tokens};
use crate::encoder::Encoder;
use crate::job::Job;
use crate::vision::{Frame, raw_grid};

/// Tokens are the grey pixels of squares of 8 x 8, of a frame whose shorter side is scaled to 224.
pub const PIXELS: &str = "pixels";
/// Tokens are the encoder's patch tokens, of two tiles along the shorter side.
pub const ENCODER: &str = "encoder";

/// Squares along the shorter side of a frame.
const SQUARES: u32 = 28;
/// Side of a square after scaling.
const SIDE: usize = 8;

/// Patch tokens of the kind that `job` looks at; `None` for a job that looks at none.
///
/// # Errors
/// [`Error::UnknownPart`] for a kind that this program does not make; as [`frame_tokens`].
pub fn surface_tokens(
    encoder: &Encoder,
    job: &Job,
    frame: &Frame<'_>,
) -> Result<Option<FrameTokens>, Error> {
    match job.surface() {
        None => Ok(None),
        Some(PIXELS) => pixels(frame).map(Some),
        Some(ENCODER) => frame_tokens(encoder, frame, TILES).map(Some),
        Some(other) => Err(Error::UnknownPart { name: other.into() }),
    }
}

fn pixels(frame: &Frame<'_>) -> Result<FrameTokens, Error> {
    let region = frame.region();
    let shorter = region.width.min(region.height);
    let squares = SQUARES.min(shorter);
    let along = |side: u32| {
        let squares = u64::from(side) * u64::from(squares) / u64::from(shorter);
        squares.max(1) as usize
    };
    let size = [along(region.height), along(region.width)];
    Ok(FrameTokens {
        values: raw_grid(frame, size, SIDE)?,
        size,
        dim: SIDE * SIDE,
    })
}
