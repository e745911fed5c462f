//! Jobs: making, fitting, inspecting, saving and loading them.

use crate::encoder::ssl_edge_encoder;
use crate::fit::ssl_edge_fit_options;
use crate::guard::guard;
use crate::pointer::{self, Output, OutputStruct, read_struct, reference};
use crate::status::{Failure, ssl_edge_status};
use crate::verdict::ssl_edge_fit_report;
use sdk::encoder::Limit;
use sdk::job::{FitOptions, Job, Look, Seen, check_encoder, job_for, job_for_embeddings, see};
use sdk::vision::Frame;
use std::ffi::c_char;
use std::sync::{RwLock, TryLockError};
use std::thread::sleep;
use std::time::Duration;

pub mod change;
pub mod classes;
pub mod device;
pub mod heat;
pub mod ignore;
pub mod inspect;
pub mod migrate;
pub mod samples;

/// How often a call with a limit looks whether a change of the job is over.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

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

    /// As [`read`](Self::read), but gives up when `limit` passes before the job can be read.
    pub(crate) fn read_within<T>(
        &self,
        limit: &Limit,
        body: impl FnOnce(&Job) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        if limit.is_never() {
            return self.read(body);
        }
        loop {
            if let Some(reason) = limit.passed() {
                return Err(sdk::Error::Interrupted { reason }.into());
            }
            match self.inner.try_read() {
                Ok(job) => return body(&job),
                Err(TryLockError::Poisoned(_)) => return Err(poisoned()),
                Err(TryLockError::WouldBlock) => sleep(LOOK_AGAIN),
            }
        }
    }

    /// Sees a frame with the job's own encoder, after `check`, which says what to look at, and without keeping other threads from the job meanwhile.
    pub(crate) fn see(
        &self,
        encoder: &ssl_edge_encoder,
        frame: &Frame<'_>,
        limit: &Limit,
        check: impl FnOnce(&Job) -> Result<Look, Failure>,
    ) -> Result<Seen, Failure> {
        encoder.with(|encoder| {
            let (empty, look) = self.read_within(limit, |job| {
                check_encoder(encoder, job)?;
                let look = Look {
                    limit: limit.clone(),
                    ..check(job)?
                };
                Ok((job.clone_empty(), look))
            })?;
            Ok(see(encoder, &empty, frame, &look)?)
        })
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
    use sdk::encoder::CancelToken;
    use sdk::job::EncoderId;
    use std::sync::mpsc::channel;

    fn job() -> ssl_edge_job {
        ssl_edge_job {
            inner: RwLock::new(Job::new(EncoderId {
                hash: [0; 32],
                dim: 2,
            })),
        }
    }

    #[test]
    fn a_change_is_waited_for_no_longer_than_the_limit() {
        let (job, token) = (job(), CancelToken::default());
        let limits = [
            (
                Limit::within(Duration::from_millis(5)),
                ssl_edge_status::TimedOut,
            ),
            (Limit::default().or_when(&token), ssl_edge_status::Cancelled),
        ];
        std::thread::scope(|scope| {
            let (changing, begun) = channel();
            let (done, wait) = channel::<()>();
            let (job, limits) = (&job, &limits);
            scope.spawn(move || {
                job.change(|_| {
                    changing.send(()).expect("the test waits");
                    wait.recv().expect("the test says when");
                    Ok(())
                })
            });
            begun.recv().expect("the change begins");
            token.cancel();
            for (limit, status) in limits {
                assert_eq!(guard(|| job.read_within(limit, |_| Ok(()))), *status);
            }
            done.send(()).expect("the change waits");
            let hour = Limit::within(Duration::from_secs(3600));
            let read = guard(|| job.read_within(&hour, |_| Ok(())));
            assert_eq!(read, ssl_edge_status::Ok);
        });
    }

    #[test]
    fn a_job_that_panicked_while_changing_refuses_to_work() {
        let job = job();
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
