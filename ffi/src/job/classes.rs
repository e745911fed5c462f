//! The classes of a job.

use crate::guard::guard;
use crate::job::ssl_edge_job;
use crate::pointer::{Output, OutputBuffer, reference, text};
use crate::status::{Failure, ssl_edge_status};
use sdk::job::ClassId;
use std::ffi::c_char;

/// Adds a class. The job must be fitted again.
///
/// @param job       a job
/// @param name      its name, UTF-8, neither empty nor taken
/// @param class_id  names the class from now on, also in the file
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_add_class(
    job: *mut ssl_edge_job,
    name: *const c_char,
    class_id: *mut u32,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (job, name, output) = unsafe {
            (
                reference(job, "job")?,
                text(name, "name")?,
                Output::new(class_id, "class_id")?,
            )
        };
        output.write(job.change(|job| Ok(job.add_class(name)?))?.0);
        Ok(())
    })
}

/// The number of classes.
///
/// @param job    a job
/// @param count  the number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_class_count(
    job: *const ssl_edge_job,
    count: *mut usize,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (job, output) = unsafe { (reference(job, "job")?, Output::new(count, "count")?) };
        output.write(job.read(|job| Ok(job.classes().len()))?);
        Ok(())
    })
}

/// The id of the class at a position, in the order in which they were added.
///
/// @param job       a job
/// @param index     0 to ssl_edge_job_class_count - 1
/// @param class_id  the class
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_class_at(
    job: *const ssl_edge_job,
    index: usize,
    class_id: *mut u32,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (job, output) = unsafe { (reference(job, "job")?, Output::new(class_id, "class_id")?) };
        let id = job.read(|job| {
            let count = job.classes().len();
            let class = job.classes().get(index).ok_or_else(|| {
                let text = format!("there is no class at index {index}; the job has {count} classes, counted from 0");
                Failure::new(ssl_edge_status::UnknownClass, text)
            })?;
            Ok(class.id.0)
        })?;
        output.write(id);
        Ok(())
    })
}

/// The length of a class's name in bytes, without the NUL.
///
/// @param job       a job
/// @param class_id  a class
/// @param length    the length
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_class_name_length(
    job: *const ssl_edge_job,
    class_id: u32,
    length: *mut usize,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (job, output) = unsafe { (reference(job, "job")?, Output::new(length, "length")?) };
        output.write(job.read(|job| Ok(job.class(ClassId(class_id))?.name.len()))?);
        Ok(())
    })
}

/// A class's name, UTF-8, ended by NUL.
///
/// @param job       a job
/// @param class_id  a class
/// @param name      a buffer
/// @param capacity  bytes of the buffer, more than ssl_edge_job_class_name_length says
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_class_name(
    job: *const ssl_edge_job,
    class_id: u32,
    name: *mut c_char,
    capacity: usize,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: NULL or a job, for the time of this call.
        let job = unsafe { reference(job, "job") }?;
        job.read(|job| {
            let mut text = job.class(ClassId(class_id))?.name.clone().into_bytes();
            text.push(0);
            // SAFETY: NULL or a buffer of `capacity` bytes.
            let output =
                unsafe { OutputBuffer::new(name.cast::<u8>(), capacity, text.len(), "name") }?;
            output.write(&text);
            Ok(())
        })
    })
}

/// The number of samples of a class.
///
/// @param job       a job
/// @param class_id  a class
/// @param count     the number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_sample_count(
    job: *const ssl_edge_job,
    class_id: u32,
    count: *mut usize,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (job, output) = unsafe { (reference(job, "job")?, Output::new(count, "count")?) };
        let count = job.read(|job| {
            let class = job.class(ClassId(class_id))?.id;
            Ok(job
                .samples()
                .iter()
                .filter(|sample| sample.class == class)
                .count())
        })?;
        output.write(count);
        Ok(())
    })
}
