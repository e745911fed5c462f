//! The region of the frame that does not count.

use crate::frame::{self, ssl_edge_frame};
use crate::guard::guard;
use crate::job::ssl_edge_job;
use crate::pointer::{Output, OutputBuffer, reference};
use crate::status::{Failure, ssl_edge_status};
use sdk::job::AdaptError;
use sdk::surface::{IgnoreMask, ignore_mask_of};
use sdk::vision::{Frame, PixelFormat};

/// Bytes of a mask that was read: what counts, and what does not.
const COUNTS: u8 = 0;
const IGNORED: u8 = 255;

fn invalid(error: &AdaptError) -> Failure {
    Failure::new(ssl_edge_status::InvalidMask, error.to_string())
}

fn mask_of(frame: &Frame<'_>) -> Result<IgnoreMask, Failure> {
    if frame.format() != PixelFormat::Gray8 {
        let text =
            "mask.format is not SSL_EDGE_PIXEL_FORMAT_GRAY8; pass a mask of one byte a pixel";
        return Err(Failure::new(ssl_edge_status::InvalidFrame, text));
    }
    ignore_mask_of(&frame.to_image()).map_err(|error| match &error {
        sdk::Error::Job(of_mask) => invalid(of_mask),
        _ => error.into(),
    })
}

/// Leaves a region of the frame out of the surface of good parts from now on, as `ssl-edge calibrate --ignore` and `job edit ignore` do: clamps,
/// printed numbers, a conveyor behind the part. The head, and whether a frame is unknown, see whole frames. Samples keep all their patches, so that
/// another mask needs no new teaching. The job must be fitted again.
///
/// @param job   a job that looks at surfaces (ssl_edge_job_set_surface)
/// @param mask  SSL_EDGE_PIXEL_FORMAT_GRAY8: above 127 where a pixel does not count. Of any size, in the shape of the frames' region of interest (the
///              ratios of the sides differ by at most 1 %), with at least one pixel for each patch; frames of another shape are refused from then on.
///              Its own region of interest, if it has one, is the mask
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_set_ignore_mask(
    job: *mut ssl_edge_job,
    mask: *const ssl_edge_frame,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (job, frame) = unsafe { (reference(job, "job")?, frame::borrow(mask)?) };
        let mask = mask_of(&frame)?;
        job.change(|job| {
            if job.surface().is_none() {
                let text = "the job looks at no surfaces, and a mask is for them alone; call ssl_edge_job_set_surface first";
                return Err(Failure::new(ssl_edge_status::NoSurface, text));
            }
            job.set_ignore(Some(mask)).map_err(|error| invalid(&error))
        })
    })
}

/// Counts the whole frame again. The job must be fitted again.
///
/// @param job  a job, with a mask or without
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_clear_ignore_mask(job: *mut ssl_edge_job) -> ssl_edge_status {
    guard(|| {
        // SAFETY: NULL or a job, for the time of this call.
        let job = unsafe { reference(job, "job") }?;
        job.change(|job| Ok(job.set_ignore(None)?))
    })
}

/// The size of the job's mask.
///
/// @param job     a job
/// @param width   its columns; 0 without a mask
/// @param height  its rows; 0 without a mask
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_ignore_mask_size(
    job: *const ssl_edge_job,
    width: *mut u32,
    height: *mut u32,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (job, width) = unsafe { (reference(job, "job")?, Output::new(width, "width")?) };
        // SAFETY: as above.
        let height = unsafe { Output::new(height, "height") }?;
        let [rows, columns] = job.read(|job| Ok(job.ignore().map_or([0, 0], IgnoreMask::size)))?;
        width.write(columns as u32);
        height.write(rows as u32);
        Ok(())
    })
}

/// The job's mask.
///
/// @param job       a job
/// @param mask      a buffer for it, row by row without gaps: 255 where a pixel does not count, 0 where it does; nothing is written without a mask
/// @param capacity  bytes of the buffer, at least the width times the height that ssl_edge_job_ignore_mask_size says
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_get_ignore_mask(
    job: *const ssl_edge_job,
    mask: *mut u8,
    capacity: usize,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call; `mask` holds `capacity` bytes.
        let (job, _) = unsafe { (reference(job, "job")?, Output::new(mask, "mask")?) };
        let ignored =
            job.read(|job| Ok(job.ignore().map_or_else(Vec::new, IgnoreMask::ignored)))?;
        // SAFETY: as above.
        let buffer = unsafe { OutputBuffer::new(mask, capacity, ignored.len(), "mask") }?;
        let bytes: Vec<u8> = ignored
            .into_iter()
            .map(|ignored| if ignored { IGNORED } else { COUNTS })
            .collect();
        buffer.write(&bytes);
        Ok(())
    })
}
