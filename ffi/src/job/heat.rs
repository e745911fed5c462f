//! Where a frame's surface is unlike good parts.

use crate::call::{self, ssl_edge_call_options};
use crate::encoder::ssl_edge_encoder;
use crate::frame::{self, ssl_edge_frame};
use crate::guard::guard;
use crate::job::ssl_edge_job;
use crate::pointer::{
    Output, OutputBuffer, OutputStruct, Sized32, init_struct, read_struct, reference,
};
use crate::status::{Failure, ssl_edge_status};
use crate::verdict::ssl_edge_verdict;
use sdk::anomaly::{TokenMap, region_heat};
use sdk::encoder::Limit;
use sdk::job::{AdaptError, check_encoder};
use sdk::surface::grid_of_kind;
use sdk::vision::Frame;
use std::mem::offset_of;
use std::ptr;

/// The heat from which a place is unlike good parts. The scale is the same for all frames of a job or of golden parts: heat is never stretched to
/// the frame at hand. Draw nothing below it, and full colour from twice its value on.
pub const SSL_EDGE_HEAT_THRESHOLD: f32 = 1.0;

/// What a heat map has a value for; the value of ssl_edge_heat_options.resolution.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ssl_edge_heat_resolution {
    /// Each patch of the surface: as it was measured.
    Grid = 1,
    /// Each pixel of the frame's region of interest: interpolated between the patches, and blurred.
    Pixels = 2,
}

/// How a heat map is drawn. Fill it with ssl_edge_heat_options_init before use.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ssl_edge_heat_options {
    /// Size of this struct in bytes; set by ssl_edge_heat_options_init.
    pub struct_size: u32,
    /// A value of ssl_edge_heat_resolution; after init SSL_EDGE_HEAT_RESOLUTION_PIXELS.
    pub resolution: u32,
    /// Standard deviation of the blur in pixels, 0 to 1000; after init 4, as `ssl-edge inspect --heat` draws. 0 is none. Does not count for a grid.
    pub blur: f32,
    /// Zero.
    pub reserved: u32,
    /// When to give the call up; NULL, as after init, is never. Does not count where only a size is asked for.
    pub call: *const ssl_edge_call_options,
}

const MAX_BLUR: f32 = 1000.0;

// SAFETY: repr(C), struct_size first, four 4-byte numbers and a raw pointer: no padding on 32 and 64 bit.
unsafe impl Sized32 for ssl_edge_heat_options {
    const NAME: &'static str = "ssl_edge_heat_options";
    const FIRST_SIZE: usize = offset_of!(ssl_edge_heat_options, reserved) + size_of::<u32>();

    fn defaults() -> Self {
        Self {
            struct_size: size_of::<Self>() as u32,
            resolution: ssl_edge_heat_resolution::Pixels as u32,
            blur: 4.0,
            reserved: 0,
            call: ptr::null(),
        }
    }
}

impl ssl_edge_heat_options {
    /// The resolution, after all fields were checked.
    pub(crate) fn resolve(&self) -> Result<ssl_edge_heat_resolution, Failure> {
        if self.reserved != 0 {
            let text =
                "options.reserved is not 0; fill the options with ssl_edge_heat_options_init";
            return Err(Failure::new(ssl_edge_status::InvalidStruct, text));
        }
        let known = [
            ssl_edge_heat_resolution::Grid,
            ssl_edge_heat_resolution::Pixels,
        ];
        let found = known
            .into_iter()
            .find(|&kind| kind as u32 == self.resolution);
        let resolution = found.ok_or_else(|| {
            let text = format!(
                "options.resolution is {}; set it to a value of ssl_edge_heat_resolution",
                self.resolution
            );
            Failure::new(ssl_edge_status::InvalidArgument, text)
        })?;
        if resolution == ssl_edge_heat_resolution::Pixels && !(0.0..=MAX_BLUR).contains(&self.blur)
        {
            let text = format!("options.blur is {}; set it to 0 to {MAX_BLUR}", self.blur);
            return Err(Failure::new(ssl_edge_status::InvalidArgument, text));
        }
        Ok(resolution)
    }

    /// Rows and columns of a map of `frame` whose patches are `grid`.
    pub(crate) fn size(
        &self,
        frame: &Frame<'_>,
        grid: impl FnOnce() -> Result<[usize; 2], Failure>,
    ) -> Result<[usize; 2], Failure> {
        match self.resolve()? {
            ssl_edge_heat_resolution::Grid => grid(),
            ssl_edge_heat_resolution::Pixels => {
                let region = frame.region();
                Ok([region.height as usize, region.width as usize])
            }
        }
    }

    /// The map, as many values as [`size`](Self::size) says.
    pub(crate) fn draw(&self, frame: &Frame<'_>, heat: TokenMap) -> Result<Vec<f32>, Failure> {
        match self.resolve()? {
            ssl_edge_heat_resolution::Grid => Ok(heat.values),
            ssl_edge_heat_resolution::Pixels => {
                Ok(region_heat(frame, &heat, f64::from(self.blur))?)
            }
        }
    }
}

impl ssl_edge_job {
    /// Rows and columns of a heat map, or why the job gives none.
    fn heat_size(
        &self,
        encoder: &ssl_edge_encoder,
        frame: &Frame<'_>,
        options: &ssl_edge_heat_options,
        limit: &Limit,
    ) -> Result<[usize; 2], Failure> {
        encoder.with(|encoder| {
            self.read_within(limit, |job| {
                check_encoder(encoder, job)?;
                job.report().ok_or(AdaptError::NotFitted)?;
                let kind = job.surface().filter(|_| job.needs_tokens());
                let kind = kind.ok_or_else(no_surface)?;
                options.size(frame, || Ok(grid_of_kind(kind, Some(encoder), frame)?))
            })
        })
    }
}

fn no_surface() -> Failure {
    let text = "the job looks at no surfaces; call ssl_edge_job_set_surface before good samples are taught, then fit";
    Failure::new(ssl_edge_status::NoSurface, text)
}

/// Fills heat options with their defaults and their size.
///
/// @param options      the struct to fill
/// @param struct_size  sizeof(ssl_edge_heat_options)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_heat_options_init(
    options: *mut ssl_edge_heat_options,
    struct_size: usize,
) -> ssl_edge_status {
    // SAFETY: the caller passes NULL or a struct of `struct_size` bytes.
    guard(|| unsafe { init_struct(options, struct_size) })
}

/// The size of a heat map, without running the encoder. It depends on the frame's size and region of interest, not on its pixels.
///
/// @param job      fitted since its last change; it looks at surfaces (ssl_edge_job_set_surface) and has good samples
/// @param encoder  the job's encoder
/// @param frame    the pixels
/// @param options  filled by ssl_edge_heat_options_init before
/// @param rows     rows of the map
/// @param columns  columns of the map
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_heat_size(
    job: *const ssl_edge_job,
    encoder: *const ssl_edge_encoder,
    frame: *const ssl_edge_frame,
    options: *const ssl_edge_heat_options,
    rows: *mut usize,
    columns: *mut usize,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (job, encoder) = unsafe { (reference(job, "job")?, reference(encoder, "encoder")?) };
        // SAFETY: as above.
        let (frame, options) = unsafe { (frame::borrow(frame)?, read_struct(options)?) };
        // SAFETY: as above.
        let outputs = unsafe { (Output::new(rows, "rows")?, Output::new(columns, "columns")?) };
        let [n_rows, n_columns] = job.heat_size(encoder, &frame, &options, &Limit::default())?;
        outputs.0.write(n_rows);
        outputs.1.write(n_columns);
        Ok(())
    })
}

/// The verdict on a frame, and where its surface is unlike good parts. A heat above SSL_EDGE_HEAT_THRESHOLD is one that at most one in a thousand
/// patches of good parts has, as far as those that were taught can tell; it may show small places also on a part whose verdict is OK.
///
/// @param job       fitted since its last change; it looks at surfaces (ssl_edge_job_set_surface) and has good samples
/// @param encoder   the job's encoder
/// @param frame     the pixels
/// @param options   filled by ssl_edge_heat_options_init before
/// @param verdict   filled by ssl_edge_verdict_init before
/// @param heat      a buffer for the map, row by row, each value 0 or more
/// @param capacity  floats of the buffer, at least the rows times the columns that ssl_edge_job_heat_size says
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_inspect_heat(
    job: *const ssl_edge_job,
    encoder: *const ssl_edge_encoder,
    frame: *const ssl_edge_frame,
    options: *const ssl_edge_heat_options,
    verdict: *mut ssl_edge_verdict,
    heat: *mut f32,
    capacity: usize,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (job, encoder) = unsafe { (reference(job, "job")?, reference(encoder, "encoder")?) };
        // SAFETY: as above.
        let (frame, options) = unsafe { (frame::borrow(frame)?, read_struct(options)?) };
        // SAFETY: as above.
        let limit = unsafe { call::optional_limit(options.call) }?;
        // SAFETY: as above.
        let (output, _) = unsafe { (OutputStruct::new(verdict)?, Output::new(heat, "heat")?) };
        let [rows, columns] = job.heat_size(encoder, &frame, &options, &limit)?;
        // SAFETY: NULL or a buffer of `capacity` floats.
        let buffer = unsafe { OutputBuffer::new(heat, capacity, rows * columns, "heat") }?;
        let found = job.inspect(encoder, &frame, &limit)?;
        let values = match &found.anomaly {
            Some(anomaly) => options.draw(&frame, anomaly.heat.clone())?,
            None => return Err(no_surface()),
        };
        if values.len() != rows * columns {
            let text = "the job's surface changed during the inspection; inspect again";
            return Err(Failure::new(ssl_edge_status::NotFitted, text));
        }
        buffer.write(&values);
        output.write(&ssl_edge_verdict::from(&found));
        Ok(())
    })
}
