//! Verdicts on frames and on embeddings.

use crate::call::{self, ssl_edge_call_options};
use crate::encoder::ssl_edge_encoder;
use crate::frame::{self, ssl_edge_frame};
use crate::guard::guard;
use crate::job::ssl_edge_job;
use crate::pointer::{OutputBuffer, OutputStruct, reference, slice};
use crate::status::{Failure, ssl_edge_status};
use crate::verdict::ssl_edge_verdict;
use sdk::encoder::Limit;
use sdk::job::{AdaptError, Job, Look, Seen, Verdict, judge};
use sdk::vision::Frame;

impl ssl_edge_job {
    /// Sees what a verdict of this job needs.
    pub(crate) fn see_to_judge(
        &self,
        encoder: &ssl_edge_encoder,
        frame: &Frame<'_>,
        limit: &Limit,
    ) -> Result<Seen, Failure> {
        self.see(encoder, frame, limit, |job: &Job| {
            job.report().ok_or(AdaptError::NotFitted)?;
            Ok(Look {
                tokens: job.needs_tokens(),
                ..Look::default()
            })
        })
    }

    pub(crate) fn inspect(
        &self,
        encoder: &ssl_edge_encoder,
        frame: &Frame<'_>,
        limit: &Limit,
    ) -> Result<Verdict, Failure> {
        let seen = self.see_to_judge(encoder, frame, limit)?;
        self.read_within(limit, |job| Ok(judge(job, &seen)?))
    }
}

/// The verdict on a frame.
///
/// @param job      fitted since its last change
/// @param encoder  the job's encoder
/// @param frame    the pixels
/// @param verdict  filled by ssl_edge_verdict_init before
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_inspect(
    job: *const ssl_edge_job,
    encoder: *const ssl_edge_encoder,
    frame: *const ssl_edge_frame,
    verdict: *mut ssl_edge_verdict,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (job, encoder) = unsafe { (reference(job, "job")?, reference(encoder, "encoder")?) };
        // SAFETY: as above.
        let (frame, output) = unsafe { (frame::borrow(frame)?, OutputStruct::new(verdict)?) };
        let found = job.inspect(encoder, &frame, &Limit::default())?;
        output.write(&ssl_edge_verdict::from(&found));
        Ok(())
    })
}

/// As ssl_edge_job_inspect, but can be given up.
///
/// @param job      fitted since its last change
/// @param encoder  the job's encoder
/// @param frame    the pixels
/// @param options  filled by ssl_edge_call_options_init before
/// @param verdict  filled by ssl_edge_verdict_init before
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_inspect_with_options(
    job: *const ssl_edge_job,
    encoder: *const ssl_edge_encoder,
    frame: *const ssl_edge_frame,
    options: *const ssl_edge_call_options,
    verdict: *mut ssl_edge_verdict,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let limit = unsafe { call::limit(options) }?;
        // SAFETY: as above.
        let (job, encoder) = unsafe { (reference(job, "job")?, reference(encoder, "encoder")?) };
        // SAFETY: as above.
        let (frame, output) = unsafe { (frame::borrow(frame)?, OutputStruct::new(verdict)?) };
        let found = job.inspect(encoder, &frame, &limit)?;
        output.write(&ssl_edge_verdict::from(&found));
        Ok(())
    })
}

/// The verdict on a frame, and the score of each class.
///
/// @param job       fitted since its last change
/// @param encoder   the job's encoder
/// @param frame     the pixels
/// @param verdict   filled by ssl_edge_verdict_init before
/// @param scores    a buffer for one score a class, in the order of ssl_edge_job_class_at; they add up to 1
/// @param capacity  floats of the buffer, at least ssl_edge_job_class_count
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_inspect_scores(
    job: *const ssl_edge_job,
    encoder: *const ssl_edge_encoder,
    frame: *const ssl_edge_frame,
    verdict: *mut ssl_edge_verdict,
    scores: *mut f32,
    capacity: usize,
) -> ssl_edge_status {
    // SAFETY: by the contract of this function.
    guard(|| unsafe {
        let limit = Limit::default();
        inspect_scores(job, encoder, frame, &limit, verdict, scores, capacity)
    })
}

/// As ssl_edge_job_inspect_scores, but can be given up.
///
/// @param job       fitted since its last change
/// @param encoder   the job's encoder
/// @param frame     the pixels
/// @param options   filled by ssl_edge_call_options_init before
/// @param verdict   filled by ssl_edge_verdict_init before
/// @param scores    a buffer for one score a class, in the order of ssl_edge_job_class_at; they add up to 1
/// @param capacity  floats of the buffer, at least ssl_edge_job_class_count
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_inspect_scores_with_options(
    job: *const ssl_edge_job,
    encoder: *const ssl_edge_encoder,
    frame: *const ssl_edge_frame,
    options: *const ssl_edge_call_options,
    verdict: *mut ssl_edge_verdict,
    scores: *mut f32,
    capacity: usize,
) -> ssl_edge_status {
    // SAFETY: by the contract of this function.
    guard(|| unsafe {
        let limit = call::limit(options)?;
        inspect_scores(job, encoder, frame, &limit, verdict, scores, capacity)
    })
}

/// # Safety
/// Each pointer is NULL or what its type says, for the time of this call; `scores` has room for `capacity` values.
unsafe fn inspect_scores(
    job: *const ssl_edge_job,
    encoder: *const ssl_edge_encoder,
    frame: *const ssl_edge_frame,
    limit: &Limit,
    verdict: *mut ssl_edge_verdict,
    scores: *mut f32,
    capacity: usize,
) -> Result<(), Failure> {
    // SAFETY: by the contract of this function.
    let (job, encoder) = unsafe { (reference(job, "job")?, reference(encoder, "encoder")?) };
    // SAFETY: as above.
    let (frame, output) = unsafe { (frame::borrow(frame)?, OutputStruct::new(verdict)?) };
    let count = job.read_within(limit, |job| Ok(job.classes().len()))?;
    // SAFETY: as above.
    let buffer = unsafe { OutputBuffer::new(scores, capacity, count, "scores") }?;
    let found = job.inspect(encoder, &frame, limit)?;
    if found.scores.len() != count {
        let text = "the classes changed during the inspection; inspect again";
        return Err(Failure::new(ssl_edge_status::NotFitted, text));
    }
    buffer.write(&found.scores);
    output.write(&ssl_edge_verdict::from(&found));
    Ok(())
}

/// The verdict on an embedding that ssl_edge_encoder_embed gave.
///
/// @param job        fitted since its last change
/// @param embedding  the values
/// @param length     their number
/// @param verdict    filled by ssl_edge_verdict_init before
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_inspect_embedding(
    job: *const ssl_edge_job,
    embedding: *const f32,
    length: usize,
    verdict: *mut ssl_edge_verdict,
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
        let output = unsafe { OutputStruct::new(verdict) }?;
        output.write(&ssl_edge_verdict::from(
            &job.read(|job| Ok(job.inspect(embedding)?))?,
        ));
        Ok(())
    })
}
