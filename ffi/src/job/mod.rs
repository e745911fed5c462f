//! Jobs: making, fitting, inspecting, saving and loading them.

use crate::encoder::ssl_edge_encoder;
use crate::fit::ssl_edge_fit_options;
use crate::frame::{self, ssl_edge_frame};
use crate::guard::guard;
use crate::pointer::{self, Output, OutputBuffer, OutputStruct, read_struct, reference, slice};
use crate::status::{Failure, ssl_edge_status};
use crate::verdict::{ssl_edge_fit_report, ssl_edge_verdict};
use sdk::job::{
    AdaptError, FitOptions, Job, Seen, Verdict, check_encoder, job_for, job_for_embeddings, judge,
    see,
};
use sdk::vision::Frame;
use std::ffi::c_char;
use std::sync::RwLock;

pub mod change;
pub mod classes;
pub mod device;
pub mod heat;
pub mod samples;

/// What an operator teaches (classes, and samples of them) and the classifier that is fitted on it.
///
/// Thread safety: all functions may be called on one job from many threads at once, except ssl_edge_job_free, which must be the
/// last. Inspections run side by side; a change waits for them and they for it. No function starts a thread of its own.
pub struct ssl_edge_job {
    inner: RwLock<Job>,
}

impl ssl_edge_job {
    fn handle(job: Job) -> *mut Self {
        Box::into_raw(Box::new(Self {
            inner: RwLock::new(job),
        }))
    }

    pub(crate) fn read<T>(
        &self,
        body: impl FnOnce(&Job) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        body(&*self.inner.read().map_err(|_| poisoned())?)
    }

    /// Sees a frame with the job's own encoder, after `check`, which says whether patch tokens are needed, and without keeping other threads from
    /// the job meanwhile.
    pub(crate) fn see(
        &self,
        encoder: &ssl_edge_encoder,
        frame: &Frame<'_>,
        check: impl FnOnce(&Job) -> Result<bool, Failure>,
    ) -> Result<Seen, Failure> {
        encoder.with(|encoder| {
            let (empty, tokens) = self.read(|job| {
                check_encoder(encoder, job)?;
                let tokens = check(job)?;
                Ok((job.clone_empty(), tokens))
            })?;
            Ok(see(encoder, &empty, frame, tokens)?)
        })
    }

    pub(crate) fn inspect(
        &self,
        encoder: &ssl_edge_encoder,
        frame: &Frame<'_>,
    ) -> Result<Verdict, Failure> {
        let seen = self.see(encoder, frame, |job| {
            job.report().ok_or(AdaptError::NotFitted)?;
            Ok(job.needs_tokens())
        })?;
        self.read(|job| Ok(judge(job, &seen)?))
    }

    fn fit(&self, options: &FitOptions) -> Result<ssl_edge_fit_report, Failure> {
        self.change(|job| {
            let found = job.fit(options)?;
            Ok(ssl_edge_fit_report::of(job, &found))
        })
    }

    pub(crate) fn change<T>(
        &self,
        body: impl FnOnce(&mut Job) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        body(&mut *self.inner.write().map_err(|_| poisoned())?)
    }
}

fn poisoned() -> Failure {
    let text =
        "the job panicked while it was changed; free it and load the file that was saved last";
    Failure::new(ssl_edge_status::Panicked, text)
}

/// Makes a job without classes for frames. It sees the encoder's embedding of a frame and a texture descriptor beside it, and keeps the encoder's
/// hash, not the encoder.
///
/// @param encoder  the encoder
/// @param job      the new job; free it with ssl_edge_job_free
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_new(
    encoder: *const ssl_edge_encoder,
    job: *mut *mut ssl_edge_job,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (encoder, output) =
            unsafe { (reference(encoder, "encoder")?, Output::new(job, "job")?) };
        output.write(ssl_edge_job::handle(
            encoder.with(|encoder| Ok(job_for(encoder)))?,
        ));
        Ok(())
    })
}

/// Makes a job without classes for the embeddings that ssl_edge_encoder_embed gives, where frames are not at hand when it is taught or asked: for
/// ssl_edge_job_add_embedding and ssl_edge_job_inspect_embedding. It does without the texture descriptor.
///
/// @param encoder  the encoder
/// @param job      the new job; free it with ssl_edge_job_free
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_new_for_embeddings(
    encoder: *const ssl_edge_encoder,
    job: *mut *mut ssl_edge_job,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (encoder, output) =
            unsafe { (reference(encoder, "encoder")?, Output::new(job, "job")?) };
        let made = encoder.with(|encoder| Ok(job_for_embeddings(encoder)))?;
        output.write(ssl_edge_job::handle(made));
        Ok(())
    })
}

/// Frees a job without saving it. NULL does nothing.
///
/// @param job  not used by any thread, now or later
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_free(job: *mut ssl_edge_job) {
    if job.is_null() {
        return;
    }
    guard(|| {
        // SAFETY: it came from ssl_edge_job_new or ssl_edge_job_load, and the caller frees it once.
        drop(unsafe { Box::from_raw(job) });
        Ok(())
    });
}

/// Fits the classifier on all samples, as the last fit did or at first with the defaults: milliseconds. A job of one class has nothing to separate;
/// it tells what is unlike it.
///
/// @param job     each of its classes has a sample
/// @param report  filled by ssl_edge_fit_report_init before
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_fit(
    job: *mut ssl_edge_job,
    report: *mut ssl_edge_fit_report,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (job, output) = unsafe { (reference(job, "job")?, OutputStruct::new(report)?) };
        output.write(&job.fit(&FitOptions::default())?);
        Ok(())
    })
}

/// As ssl_edge_job_fit, with options.
///
/// @param job      each of its classes has a sample
/// @param options  filled by ssl_edge_fit_options_init before
/// @param report   filled by ssl_edge_fit_report_init before
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_fit_with_options(
    job: *mut ssl_edge_job,
    options: *const ssl_edge_fit_options,
    report: *mut ssl_edge_fit_report,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (job, options) = unsafe { (reference(job, "job")?, read_struct(options)?) };
        // SAFETY: as above.
        let output = unsafe { OutputStruct::new(report) }?;
        output.write(&job.fit(&options.resolve()?)?);
        Ok(())
    })
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
        output.write(&ssl_edge_verdict::from(&job.inspect(encoder, &frame)?));
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
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (job, encoder) = unsafe { (reference(job, "job")?, reference(encoder, "encoder")?) };
        // SAFETY: as above.
        let (frame, output) = unsafe { (frame::borrow(frame)?, OutputStruct::new(verdict)?) };
        let count = job.read(|job| Ok(job.classes().len()))?;
        // SAFETY: NULL or a buffer of `capacity` floats.
        let buffer = unsafe { OutputBuffer::new(scores, capacity, count, "scores") }?;
        let found = job.inspect(encoder, &frame)?;
        if found.scores.len() != count {
            let text = "the classes changed during the inspection; inspect again";
            return Err(Failure::new(ssl_edge_status::NotFitted, text));
        }
        buffer.write(&found.scores);
        output.write(&ssl_edge_verdict::from(&found));
        Ok(())
    })
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

/// Saves the job. Power may fail at any time: the file is the old one or the new one.
///
/// @param job   a job, fitted or not
/// @param path  the .sslj file
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_save(
    job: *const ssl_edge_job,
    path: *const c_char,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (job, path) = unsafe { (reference(job, "job")?, pointer::path(path, "path")?) };
        job.read(|job| Ok(job.save(&path)?))
    })
}

/// Loads a job. Whether it belongs to an encoder is checked when it is used with one.
///
/// @param path  the .sslj file
/// @param job   the job, fitted if it was saved so; free it with ssl_edge_job_free
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_load(
    path: *const c_char,
    job: *mut *mut ssl_edge_job,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (path, output) = unsafe { (pointer::path(path, "path")?, Output::new(job, "job")?) };
        output.write(ssl_edge_job::handle(Job::load(&path)?));
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdk::job::EncoderId;

    #[test]
    fn a_job_that_panicked_while_changing_refuses_to_work() {
        let job = ssl_edge_job {
            inner: RwLock::new(Job::new(EncoderId {
                hash: [0; 32],
                dim: 2,
            })),
        };
        assert_eq!(
            guard(|| job.read(|_| panic!("while reading"))),
            ssl_edge_status::Panicked
        );
        assert_eq!(
            guard(|| job.change(|job| Ok(job.add_class("a").map(|_| ())?))),
            ssl_edge_status::Ok
        );
        assert_eq!(
            guard(|| job.change(|_| panic!("while changing"))),
            ssl_edge_status::Panicked
        );
        assert_eq!(guard(|| job.read(|_| Ok(()))), ssl_edge_status::Panicked);
        assert_eq!(guard(|| job.change(|_| Ok(()))), ssl_edge_status::Panicked);
    }
}
