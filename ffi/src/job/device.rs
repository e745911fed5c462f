//! The fitted head in integers, for a microcontroller.

use crate::guard::guard;
use crate::job::ssl_edge_job;
use crate::pointer::{
    Output, OutputBuffer, OutputStruct, Sized32, init_struct, read_struct, reference,
};
use crate::status::{Failure, ssl_edge_status};
use sdk::job::{AdaptError, DeviceHead, DeviceInput, DeviceOptions};
use std::mem::offset_of;

/// How a head is made for a device. Fill it with ssl_edge_device_options_init before use.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ssl_edge_device_options {
    /// Size of this struct in bytes; set by ssl_edge_device_options_init.
    pub struct_size: u32,
    /// The number by which a line's controller names the job, 0 to 65535; after init 0.
    pub job_number: u32,
    /// Flash for the image in bytes; after init 0, as much as all samples need. With less, samples that cover the others are kept.
    pub max_bytes: u64,
}

// SAFETY: repr(C), struct_size first, two u32 and a u64 at offset 8: no padding.
unsafe impl Sized32 for ssl_edge_device_options {
    const NAME: &'static str = "ssl_edge_device_options";
    const FIRST_SIZE: usize = offset_of!(ssl_edge_device_options, max_bytes) + size_of::<u64>();

    fn defaults() -> Self {
        Self {
            struct_size: size_of::<Self>() as u32,
            job_number: 0,
            max_bytes: 0,
        }
    }
}

/// A head for a device beside the job that it was made from. Fill it with ssl_edge_device_report_init before the first use.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ssl_edge_device_report {
    /// Size of this struct in bytes; set by ssl_edge_device_report_init.
    pub struct_size: u32,
    /// Bytes of the image.
    pub bytes: u32,
    /// Samples that the image holds.
    pub samples_kept: u32,
    /// Samples whose verdicts in integers were held against the job's.
    pub compared: u32,
    /// Those of them with the same class.
    pub same_class: u32,
    /// Those of them with the same answer to unknown.
    pub same_unknown: u32,
    /// Largest difference of the best class's score.
    pub score_difference: f32,
    /// Largest difference of the distance to the nearest sample.
    pub distance_difference: f32,
}

// SAFETY: repr(C), struct_size first, eight 4-byte numbers: no padding.
unsafe impl Sized32 for ssl_edge_device_report {
    const NAME: &'static str = "ssl_edge_device_report";
    const FIRST_SIZE: usize =
        offset_of!(ssl_edge_device_report, distance_difference) + size_of::<f32>();

    fn defaults() -> Self {
        Self {
            struct_size: size_of::<Self>() as u32,
            bytes: 0,
            samples_kept: 0,
            compared: 0,
            same_class: 0,
            same_unknown: 0,
            score_difference: 0.0,
            distance_difference: 0.0,
        }
    }
}

impl From<&DeviceHead> for ssl_edge_device_report {
    fn from(head: &DeviceHead) -> Self {
        Self {
            bytes: head.image.len() as u32,
            samples_kept: head.rows as u32,
            compared: head.parity.n as u32,
            same_class: head.parity.same_class as u32,
            same_unknown: head.parity.same_unknown as u32,
            score_difference: head.parity.score_difference as f32,
            distance_difference: head.parity.distance_difference as f32,
            ..Self::defaults()
        }
    }
}

impl ssl_edge_job {
    fn device_head(&self, options: &ssl_edge_device_options) -> Result<DeviceHead, Failure> {
        let job_number = u16::try_from(options.job_number).map_err(|_| {
            let text = format!(
                "options.job_number is {}; set it to 0 to 65535",
                options.job_number
            );
            Failure::new(ssl_edge_status::InvalidArgument, text)
        })?;
        let options = DeviceOptions {
            job_number,
            // More than memory can hold is no limit.
            max_bytes: (options.max_bytes > 0)
                .then(|| usize::try_from(options.max_bytes).unwrap_or(usize::MAX)),
            input: DeviceInput::Fitted,
        };
        self.read(|job| job.device_head(&options).map_err(refused))
    }
}

/// The options are checked before, so what the job refuses is about its head or its classes.
fn refused(error: AdaptError) -> Failure {
    match error {
        AdaptError::BadOption { .. } => {
            Failure::new(ssl_edge_status::NoDeviceHead, error.to_string())
        }
        other => other.into(),
    }
}

/// Fills device options with their defaults and their size.
///
/// @param options      the struct to fill
/// @param struct_size  sizeof(ssl_edge_device_options)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_device_options_init(
    options: *mut ssl_edge_device_options,
    struct_size: usize,
) -> ssl_edge_status {
    // SAFETY: the caller passes NULL or a struct of `struct_size` bytes.
    guard(|| unsafe { init_struct(options, struct_size) })
}

/// Fills a device report with zeros and its size.
///
/// @param report       the struct to fill
/// @param struct_size  sizeof(ssl_edge_device_report)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_device_report_init(
    report: *mut ssl_edge_device_report,
    struct_size: usize,
) -> ssl_edge_status {
    // SAFETY: the caller passes NULL or a struct of `struct_size` bytes.
    guard(|| unsafe { init_struct(report, struct_size) })
}

/// What the job's head would be on a device: its size, and how far its verdicts in integers are from the job's.
///
/// @param job      fitted since its last change
/// @param options  filled by ssl_edge_device_options_init before
/// @param report   filled by ssl_edge_device_report_init before
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_device_report(
    job: *const ssl_edge_job,
    options: *const ssl_edge_device_options,
    report: *mut ssl_edge_device_report,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (job, options) = unsafe { (reference(job, "job")?, read_struct(options)?) };
        // SAFETY: as above.
        let output = unsafe { OutputStruct::new(report) }?;
        output.write(&ssl_edge_device_report::from(&job.device_head(&options)?));
        Ok(())
    })
}

/// The fitted head in integers, byte for byte what `ssl-edge job device` writes: an image for a device's flash, which the Rust crate ssl-edge-head
/// runs without floating point.
///
/// @param job       fitted since its last change
/// @param options   filled by ssl_edge_device_options_init before
/// @param image     a buffer for the image
/// @param capacity  bytes of the buffer, at least what ssl_edge_job_device_report says
/// @param size      bytes of the image
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_device_head(
    job: *const ssl_edge_job,
    options: *const ssl_edge_device_options,
    image: *mut u8,
    capacity: usize,
    size: *mut usize,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (job, options) = unsafe { (reference(job, "job")?, read_struct(options)?) };
        // SAFETY: as above.
        let (_, output) = unsafe { (Output::new(image, "image")?, Output::new(size, "size")?) };
        let head = job.device_head(&options)?;
        // SAFETY: NULL or a buffer of `capacity` bytes.
        let buffer = unsafe { OutputBuffer::new(image, capacity, head.image.len(), "image") }?;
        buffer.write(&head.image);
        output.write(head.image.len());
        Ok(())
    })
}
