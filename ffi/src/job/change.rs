//! Changes of a job's classes and samples, beside those that teach.

use crate::guard::guard;
use crate::job::ssl_edge_job;
use crate::pointer::{Output, reference, text};
use crate::status::{Failure, ssl_edge_status};
use sdk::job::{ClassId, SampleId};
use sdk::surface::{ENCODER, PIXELS};
use std::ffi::c_char;

/// Says who works with the job from now on, and when, for its records.
///
/// @param job        a job
/// @param name       who; may be ""
/// @param unix_time  when, in seconds since 1970-01-01 UTC; 0 if that does not matter
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_set_operator(
    job: *mut ssl_edge_job,
    name: *const c_char,
    unix_time: i64,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (job, name) = unsafe { (reference(job, "job")?, text(name, "name")?) };
        job.change(|job| {
            job.set_operator(name, unix_time);
            Ok(())
        })
    })
}

/// What patch tokens of good samples are made of; the value for ssl_edge_job_set_surface.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ssl_edge_surface {
    /// The job looks at no patches.
    None = 0,
    /// Grey pixels of small squares.
    Pixels = 1,
    /// The encoder's patch tokens.
    Encoder = 2,
}

/// Makes a job look at surfaces: from then on samples of good classes keep their patches, and a verdict is not OK where a frame has patches unlike
/// all of them. To be set before samples are taught.
///
/// @param job      a job without samples that keep patches of another kind
/// @param surface  a value of ssl_edge_surface
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_set_surface(
    job: *mut ssl_edge_job,
    surface: u32,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: NULL or a job, for the time of this call.
        let job = unsafe { reference(job, "job") }?;
        let kind = [None, Some(PIXELS), Some(ENCODER)]
            .get(surface as usize)
            .copied();
        let kind = kind.ok_or_else(|| {
            let text = format!("surface is {surface}; it must be a value of ssl_edge_surface");
            Failure::new(ssl_edge_status::InvalidArgument, text)
        })?;
        job.change(|job| Ok(job.set_surface(kind)?))
    })
}

/// Gives a class another name. The job stays fitted.
///
/// @param job       a job
/// @param class_id  a class
/// @param name      its name from now on, UTF-8, neither empty nor taken
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_rename_class(
    job: *mut ssl_edge_job,
    class_id: u32,
    name: *const c_char,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (job, name) = unsafe { (reference(job, "job")?, text(name, "name")?) };
        job.change(|job| Ok(job.rename_class(ClassId(class_id), name)?))
    })
}

/// Says whether a part of a class may pass; a new class may if its name is good, ok, pass or normal. The job stays fitted.
///
/// @param job       a job
/// @param class_id  a class
/// @param good      1 if its parts may pass, 0 if not
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_set_good(
    job: *mut ssl_edge_job,
    class_id: u32,
    good: u32,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: NULL or a job, for the time of this call.
        let job = unsafe { reference(job, "job") }?;
        job.change(|job| Ok(job.set_good(ClassId(class_id), good != 0)?))
    })
}

/// Sets what it costs to take a frame of a class for another one, beside the other classes (1 at first): a verdict is the class with the
/// largest score times cost. The job stays fitted.
///
/// @param job       a job
/// @param class_id  a class
/// @param cost      above 0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_set_cost(
    job: *mut ssl_edge_job,
    class_id: u32,
    cost: f64,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: NULL or a job, for the time of this call.
        let job = unsafe { reference(job, "job") }?;
        job.change(|job| Ok(job.set_cost(ClassId(class_id), cost)?))
    })
}

/// Removes a class and its samples. The job must be fitted again.
///
/// @param job       a job
/// @param class_id  a class
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_remove_class(
    job: *mut ssl_edge_job,
    class_id: u32,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: NULL or a job, for the time of this call.
        let job = unsafe { reference(job, "job") }?;
        job.change(|job| Ok(job.remove_class(ClassId(class_id))?))
    })
}

/// Gives all samples of a class to another one, and removes it. The job must be fitted again.
///
/// @param job       a job
/// @param class_id  the class that goes
/// @param into      the class that stays
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_merge_classes(
    job: *mut ssl_edge_job,
    class_id: u32,
    into: u32,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: NULL or a job, for the time of this call.
        let job = unsafe { reference(job, "job") }?;
        job.change(|job| Ok(job.merge_classes(ClassId(class_id), ClassId(into))?))
    })
}

/// Gives a sample another label. The job must be fitted again.
///
/// @param job        a job
/// @param sample_id  a sample
/// @param class_id   what it shows
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_relabel_sample(
    job: *mut ssl_edge_job,
    sample_id: u64,
    class_id: u32,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: NULL or a job, for the time of this call.
        let job = unsafe { reference(job, "job") }?;
        job.change(|job| Ok(job.relabel_sample(SampleId(sample_id), ClassId(class_id))?))
    })
}

/// Takes the last change of classes or samples back, up to 64 of them since the job was made or loaded. The job must be fitted again.
///
/// @param job       a job
/// @param revision  the revision whose change it was; 0 if there is nothing to take back
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_undo(
    job: *mut ssl_edge_job,
    revision: *mut u64,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (job, output) = unsafe { (reference(job, "job")?, Output::new(revision, "revision")?) };
        output.write(job.change(|job| Ok(job.undo().unwrap_or(0)))?);
        Ok(())
    })
}
