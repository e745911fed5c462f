//! The samples of a job.

use crate::call::{self, ssl_edge_call_options};
use crate::encoder::ssl_edge_encoder;
use crate::frame::{self, ssl_edge_frame};
use crate::guard::guard;
use crate::job::ssl_edge_job;
use crate::pointer::{Output, Sized32, init_struct, read_struct, reference, slice, text};
use crate::status::{Failure, ssl_edge_status};
use sdk::encoder::Limit;
use sdk::job::{ClassId, Look, SampleId, SampleMeta, teach_seen, thumbnail};
use std::ffi::c_char;
use std::mem::offset_of;
use std::ptr;
use std::time::{SystemTime, UNIX_EPOCH};

/// Whether a frame is taught with copies of it; the value of ssl_edge_teach_options.copies.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ssl_edge_copies {
    /// Without.
    Off = 0,
    /// With turned, mirrored, dimmed and brightened copies, as `ssl-edge job teach --augment auto` does: a fit uses them unless samples that are left
    /// out speak against them. Ten times the work of teaching; worth it where parts may lie and be lit otherwise.
    Auto = 1,
}

/// How a frame is taught. Fill it with ssl_edge_teach_options_init before use.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ssl_edge_teach_options {
    /// Size of this struct in bytes; set by ssl_edge_teach_options_init.
    pub struct_size: u32,
    /// A value of ssl_edge_copies; after init SSL_EDGE_COPIES_OFF.
    pub copies: u32,
    /// When to give the call up; NULL, as after init, is never. A frame that was given up is not taught; one that was seen is, however long the call
    /// then waits for another change of the job.
    pub call: *const ssl_edge_call_options,
    /// Shorter side in pixels of the picture that the job keeps of the frame, as a PNG, so that it can move to another encoder
    /// (ssl_edge_job_migrate); 0, as after init, for none. A picture of twice the side that the encoder sees lets the encoder's patches move along, too.
    pub thumbnail_side: u32,
    /// Zero.
    pub reserved: u32,
}

// SAFETY: repr(C), struct_size first, two u32, a raw pointer and two u32: no padding on 32 and 64 bit.
unsafe impl Sized32 for ssl_edge_teach_options {
    const NAME: &'static str = "ssl_edge_teach_options";
    const FIRST_SIZE: usize =
        offset_of!(ssl_edge_teach_options, call) + size_of::<*const ssl_edge_call_options>();

    fn defaults() -> Self {
        Self {
            struct_size: size_of::<Self>() as u32,
            copies: ssl_edge_copies::Off as u32,
            call: ptr::null(),
            thumbnail_side: 0,
            reserved: 0,
        }
    }
}

impl ssl_edge_teach_options {
    fn with_copies(&self) -> Result<bool, Failure> {
        match self.copies {
            copies if copies == ssl_edge_copies::Off as u32 => Ok(false),
            copies if copies == ssl_edge_copies::Auto as u32 => Ok(true),
            copies => {
                let text =
                    format!("options.copies is {copies}; set it to a value of ssl_edge_copies");
                Err(Failure::new(ssl_edge_status::InvalidArgument, text))
            }
        }
    }
}

/// Fills teach options with their defaults: no copies, no limit, no thumbnail.
///
/// @param options      the struct to fill
/// @param struct_size  sizeof(ssl_edge_teach_options)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_teach_options_init(
    options: *mut ssl_edge_teach_options,
    struct_size: usize,
) -> ssl_edge_status {
    // SAFETY: the caller passes NULL or a struct of `struct_size` bytes.
    guard(|| unsafe { init_struct(options, struct_size) })
}

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
    let options = ssl_edge_teach_options::defaults();
    // SAFETY: by the contract of this function.
    guard(|| unsafe { teach(job, encoder, class_id, frame, source, &options, sample_id) })
}

/// As ssl_edge_job_add_sample, with options: with copies of the frame, with a picture of it, or so that it can be given up.
///
/// @param job        a job
/// @param encoder    the job's encoder
/// @param class_id   what the frame shows
/// @param frame      the pixels
/// @param source     where the frame comes from, for records and messages; may be ""
/// @param options    filled by ssl_edge_teach_options_init before
/// @param sample_id  names the sample from now on, also in the file
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_add_sample_with_options(
    job: *mut ssl_edge_job,
    encoder: *const ssl_edge_encoder,
    class_id: u32,
    frame: *const ssl_edge_frame,
    source: *const c_char,
    options: *const ssl_edge_teach_options,
    sample_id: *mut u64,
) -> ssl_edge_status {
    // SAFETY: by the contract of this function.
    guard(|| unsafe {
        let options = read_struct(options)?;
        teach(job, encoder, class_id, frame, source, &options, sample_id)
    })
}

/// # Safety
/// Each pointer is NULL or what its type says, for the time of this call.
unsafe fn teach(
    job: *mut ssl_edge_job,
    encoder: *const ssl_edge_encoder,
    class_id: u32,
    frame: *const ssl_edge_frame,
    source: *const c_char,
    options: &ssl_edge_teach_options,
    sample_id: *mut u64,
) -> Result<(), Failure> {
    // SAFETY: by the contract of this function.
    let (job, encoder) = unsafe { (reference(job, "job")?, reference(encoder, "encoder")?) };
    // SAFETY: as above.
    let (frame, source) = unsafe { (frame::borrow(frame)?, text(source, "source")?) };
    // SAFETY: as above.
    let (output, limit) = unsafe {
        (
            Output::new(sample_id, "sample_id")?,
            call::optional_limit(options.call)?,
        )
    };
    let (class, copies) = (ClassId(class_id), options.with_copies()?);
    let seen = job.see(encoder, &frame, &limit, |job| {
        Ok(Look {
            tokens: job.class(class)?.good,
            copies,
            limit: Limit::default(),
        })
    })?;
    let meta = sample_meta(source);
    let picture = match options.thumbnail_side {
        0 => Vec::new(),
        side => thumbnail(&frame.to_image(), side),
    };
    let id = job.change(|job| Ok(teach_seen(job, class, &seen, meta, picture)?))?;
    output.write(id.0);
    Ok(())
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
