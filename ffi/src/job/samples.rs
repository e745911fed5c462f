//! The samples of a job.

use crate::encoder::ssl_edge_encoder;
use crate::frame::{self, ssl_edge_frame};
use crate::guard::guard;
use crate::job::ssl_edge_job;
use crate::pointer::{Output, reference, slice, text};
use crate::status::ssl_edge_status;
use sdk::job::{ClassId, SampleId, SampleMeta, teach_seen};
use std::ffi::c_char;
use std::time::{SystemTime, UNIX_EPOCH};

/// Teaches a frame. The job keeps its embedding and must be fitted again.
///
/// @param job        a job
/// @param encoder    the job's encoder
/// @param class_id   what the frame shows
/// @param frame      the pixels
/// @param source     where the frame comes from, for records and messages; may be ""
/// @param sample_id  names the sample from now on, also in the file
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_add_sample(
    job: *mut ssl_edge_job,
    encoder: *const ssl_edge_encoder,
    class_id: u32,
    frame: *const ssl_edge_frame,
    source: *const c_char,
    sample_id: *mut u64,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (job, encoder) = unsafe { (reference(job, "job")?, reference(encoder, "encoder")?) };
        // SAFETY: as above.
        let (frame, source) = unsafe { (frame::borrow(frame)?, text(source, "source")?) };
        // SAFETY: as above.
        let output = unsafe { Output::new(sample_id, "sample_id") }?;
        let class = ClassId(class_id);
        let seen = job.see(encoder, &frame, |job| Ok(job.class(class)?.good))?;
        let meta = sample_meta(source);
        let id = job.change(|job| Ok(teach_seen(job, class, &seen, meta, Vec::new())?))?;
        output.write(id.0);
        Ok(())
    })
}

/// Teaches an embedding that ssl_edge_encoder_embed gave. The job must be fitted again.
///
/// @param job        a job
/// @param class_id   what the frame showed
/// @param embedding  the values
/// @param length     their number
/// @param source     where the frame came from, for records and messages; may be ""
/// @param sample_id  names the sample from now on, also in the file
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_add_embedding(
    job: *mut ssl_edge_job,
    class_id: u32,
    embedding: *const f32,
    length: usize,
    source: *const c_char,
    sample_id: *mut u64,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call; `embedding` holds `length` values.
        let (job, embedding) = unsafe {
            (
                reference(job, "job")?,
                slice(embedding, length, "embedding")?,
            )
        };
        // SAFETY: as above.
        let (source, output) = unsafe {
            (
                text(source, "source")?,
                Output::new(sample_id, "sample_id")?,
            )
        };
        let meta = sample_meta(source);
        output.write(
            job.change(|job| Ok(job.add_sample(ClassId(class_id), embedding, meta)?))?
                .0,
        );
        Ok(())
    })
}

/// Forgets a sample; a later fit is as if it had never been there. The job must be fitted again.
///
/// @param job        a job
/// @param sample_id  a sample
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_remove_sample(
    job: *mut ssl_edge_job,
    sample_id: u64,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: NULL or a job, for the time of this call.
        let job = unsafe { reference(job, "job") }?;
        job.change(|job| {
            job.remove_sample(SampleId(sample_id))?;
            Ok(())
        })
    })
}

fn sample_meta(source: &str) -> SampleMeta {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    SampleMeta {
        source: source.into(),
        unix_time: since_epoch.as_secs().cast_signed(),
    }
}
