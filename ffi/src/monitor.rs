//! Watching a line: what changed, and what is to be done.

use crate::call::{self, ssl_edge_call_options};
use crate::encoder::ssl_edge_encoder;
use crate::frame::{self, ssl_edge_frame};
use crate::guard::guard;
use crate::job::ssl_edge_job;
use crate::pointer::{Output, OutputStruct, Sized32, init_struct, read_struct, reference};
use crate::status::{Failure, ssl_edge_status};
use crate::verdict::ssl_edge_verdict;
use sdk::drift::{
    CameraChange, DriftAlarm, DriftCause, LineMonitor, MIN_REFERENCE, OnLine, WatchOptions,
};
use sdk::encoder::Limit;
use std::ffi::{CString, c_char};
use std::mem::offset_of;
use std::ptr;
use std::sync::{LazyLock, Mutex};

/// What changed on a line; the value of ssl_edge_drift.cause.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ssl_edge_drift_cause {
    /// Nothing, as far as can be told.
    None = 0,
    /// The camera: brighter or darker.
    CameraBrightness = 1,
    /// The camera: sharper or more blurred.
    CameraFocus = 2,
    /// The camera: more or fewer overexposed pixels.
    CameraSaturation = 3,
    /// The product: most parts look different.
    Product = 4,
    /// Some parts are unlike anything taught.
    NewKindOfDefect = 5,
}

impl ssl_edge_drift_cause {
    const ALL: [(Self, DriftCause); 5] = [
        (
            Self::CameraBrightness,
            DriftCause::CameraChanged(CameraChange::Brightness),
        ),
        (
            Self::CameraFocus,
            DriftCause::CameraChanged(CameraChange::Focus),
        ),
        (
            Self::CameraSaturation,
            DriftCause::CameraChanged(CameraChange::Saturation),
        ),
        (Self::Product, DriftCause::ProductChanged),
        (Self::NewKindOfDefect, DriftCause::NewKindOfDefect),
    ];

    fn of(cause: DriftCause) -> Self {
        let known = Self::ALL.iter().find(|(_, known)| *known == cause);
        known.map_or(Self::None, |(number, _)| *number)
    }
}

/// How a line is watched. Fill it with ssl_edge_monitor_options_init before use.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ssl_edge_monitor_options {
    /// Size of this struct in bytes; set by ssl_edge_monitor_options_init.
    pub struct_size: u32,
    /// Share of frames that may be unknown without anything having changed, above 0 and at most 0.2; after init 0.02. Where the reference frames have
    /// more, theirs counts.
    pub unknown_rate: f32,
    /// Frames between two false alarms, on average at least, 10 to 1e8; after init 10000.
    pub run_length: f64,
    /// When to give the making of the monitor up; NULL, as after init, is never.
    pub call: *const ssl_edge_call_options,
    /// Zero.
    pub reserved_end: usize,
}

// SAFETY: repr(C), struct_size first, two 4-byte numbers, one of eight bytes at offset 8, a raw pointer and a usize: no padding on 32 and 64 bit.
unsafe impl Sized32 for ssl_edge_monitor_options {
    const NAME: &'static str = "ssl_edge_monitor_options";
    const FIRST_SIZE: usize = offset_of!(ssl_edge_monitor_options, run_length) + size_of::<f64>();

    fn defaults() -> Self {
        let WatchOptions {
            run_length,
            unknown_rate,
        } = WatchOptions::default();
        Self {
            struct_size: size_of::<Self>() as u32,
            unknown_rate: unknown_rate as f32,
            run_length,
            call: ptr::null(),
            reserved_end: 0,
        }
    }
}

/// What a monitor says after a frame. Fill it with ssl_edge_drift_init before the first use; it can be used again and again.
///
/// The levels say how near each chart is to an alarm, which it gives above 1. After an alarm all begin at 0 again.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ssl_edge_drift {
    /// Size of this struct in bytes; set by ssl_edge_drift_init.
    pub struct_size: u32,
    /// A value of ssl_edge_drift_cause; not SSL_EDGE_DRIFT_CAUSE_NONE is an alarm. ssl_edge_drift_action says what to do.
    pub cause: u32,
    /// Frames since the change began, as far as can be told; 0 without an alarm.
    pub frames: u32,
    /// Share of these frames whose embedding is unlike the reference frames'; 0 without an alarm.
    pub unlike: f32,
    /// Level of the picture's brightness.
    pub brightness: f32,
    /// Level of its focus.
    pub focus: f32,
    /// Level of its overexposure.
    pub saturation: f32,
    /// Level of the embedding.
    pub embedding: f32,
    /// Level of how typical frames are.
    pub typicality: f32,
    /// Level of the share of unknown frames.
    pub unknown: f32,
}

// SAFETY: repr(C), struct_size first, ten 4-byte numbers: no padding.
unsafe impl Sized32 for ssl_edge_drift {
    const NAME: &'static str = "ssl_edge_drift";
    const FIRST_SIZE: usize = offset_of!(ssl_edge_drift, unknown) + size_of::<f32>();

    fn defaults() -> Self {
        Self {
            struct_size: size_of::<Self>() as u32,
            cause: ssl_edge_drift_cause::None as u32,
            frames: 0,
            unlike: 0.0,
            brightness: 0.0,
            focus: 0.0,
            saturation: 0.0,
            embedding: 0.0,
            typicality: 0.0,
            unknown: 0.0,
        }
    }
}

impl ssl_edge_drift {
    fn of(alarm: Option<DriftAlarm>, levels: [f64; 6]) -> Self {
        let [
            brightness,
            focus,
            saturation,
            embedding,
            typicality,
            unknown,
        ] = levels.map(|level| level as f32);
        let cause = alarm.map_or(ssl_edge_drift_cause::None, |alarm| {
            ssl_edge_drift_cause::of(alarm.cause)
        });
        Self {
            cause: cause as u32,
            frames: alarm.map_or(0, |alarm| alarm.frames),
            unlike: alarm.map_or(0.0, |alarm| alarm.unlike as f32),
            brightness,
            focus,
            saturation,
            embedding,
            typicality,
            unknown,
            ..Self::defaults()
        }
    }
}

/// Watches what a job says of the frames of a line.
///
/// Thread safety: all functions may be called on one monitor from many threads at once, except ssl_edge_monitor_free, which must be the last. Frames
/// of several threads count in the order in which their inspections end; observe from one thread where the order matters. No function starts a
/// thread of its own.
pub struct ssl_edge_monitor {
    inner: Mutex<LineMonitor>,
}

impl ssl_edge_monitor {
    fn change<T>(
        &self,
        body: impl FnOnce(&mut LineMonitor) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut inner = self.inner.lock().map_err(|_| {
            let text = "the monitor panicked in an earlier call; free it and make a new one";
            Failure::new(ssl_edge_status::Panicked, text)
        })?;
        body(&mut inner)
    }
}

/// Fills monitor options with their defaults and their size.
///
/// @param options      the struct to fill
/// @param struct_size  sizeof(ssl_edge_monitor_options)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_monitor_options_init(
    options: *mut ssl_edge_monitor_options,
    struct_size: usize,
) -> ssl_edge_status {
    // SAFETY: the caller passes NULL or a struct of `struct_size` bytes.
    guard(|| unsafe { init_struct(options, struct_size) })
}

/// Fills a drift with zeros and its size.
///
/// @param drift        the struct to fill
/// @param struct_size  sizeof(ssl_edge_drift)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_drift_init(
    drift: *mut ssl_edge_drift,
    struct_size: usize,
) -> ssl_edge_status {
    // SAFETY: the caller passes NULL or a struct of `struct_size` bytes.
    guard(|| unsafe { init_struct(drift, struct_size) })
}

/// Makes a monitor from frames of the line as it should be, which were not taught to the job. It knows the job as it is now: after a change of the
/// job a new monitor is needed.
///
/// @param job        fitted since its last change
/// @param encoder    the job's encoder
/// @param reference  pointers to the frames
/// @param count      their number, at least 5; with 20 or more, changes are found sooner
/// @param options    filled by ssl_edge_monitor_options_init before
/// @param monitor    the new monitor; free it with ssl_edge_monitor_free
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_monitor_new(
    job: *const ssl_edge_job,
    encoder: *const ssl_edge_encoder,
    reference: *const *const ssl_edge_frame,
    count: usize,
    options: *const ssl_edge_monitor_options,
    monitor: *mut *mut ssl_edge_monitor,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call; `reference` holds `count` pointers to frames.
        let (job, encoder) = unsafe {
            (
                self::reference(job, "job")?,
                self::reference(encoder, "encoder")?,
            )
        };
        // SAFETY: as above.
        let (frames, options) =
            unsafe { (frame::borrow_all(reference, count)?, read_struct(options)?) };
        // SAFETY: as above.
        let (output, limit) = unsafe {
            (
                Output::new(monitor, "monitor")?,
                call::optional_limit(options.call)?,
            )
        };
        if options.reserved_end != 0 {
            let text = "options.reserved_end is not 0; fill the options with ssl_edge_monitor_options_init";
            return Err(Failure::new(ssl_edge_status::InvalidStruct, text));
        }
        if frames.len() < MIN_REFERENCE {
            let text = format!("count is {count}; pass at least {MIN_REFERENCE} reference frames");
            return Err(Failure::new(ssl_edge_status::InvalidArgument, text));
        }
        let options = WatchOptions {
            run_length: options.run_length,
            // As the caller wrote it: 0.02f32 is not 0.02.
            unknown_rate: (f64::from(options.unknown_rate) * 1e6).round() / 1e6,
        };
        let seen = frames
            .iter()
            .map(|frame| job.see_to_judge(encoder, frame, &limit))
            .collect::<Result<Vec<_>, _>>()?;
        let inner = job.read(|job| {
            let on_line = frames
                .iter()
                .zip(seen)
                .map(|(frame, seen)| OnLine::of(job, frame, seen))
                .collect::<Result<Vec<_>, _>>()?;
            Ok(LineMonitor::new(job, &on_line, &options)?)
        })?;
        output.write(Box::into_raw(Box::new(ssl_edge_monitor {
            inner: Mutex::new(inner),
        })));
        Ok(())
    })
}

/// Frees a monitor. NULL does nothing.
///
/// @param monitor  not used by any thread, now or later
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_monitor_free(monitor: *mut ssl_edge_monitor) {
    if monitor.is_null() {
        return;
    }
    guard(|| {
        // SAFETY: it came from ssl_edge_monitor_new, and the caller frees it once.
        drop(unsafe { Box::from_raw(monitor) });
        Ok(())
    });
}

/// Inspects a frame as ssl_edge_job_inspect does, and lets the monitor see it: in place of that function, for each frame of the line.
///
/// @param monitor  made with this job
/// @param job      unchanged since the monitor was made
/// @param encoder  the job's encoder
/// @param frame    the pixels
/// @param verdict  filled by ssl_edge_verdict_init before
/// @param drift    filled by ssl_edge_drift_init before
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_monitor_observe(
    monitor: *mut ssl_edge_monitor,
    job: *const ssl_edge_job,
    encoder: *const ssl_edge_encoder,
    frame: *const ssl_edge_frame,
    verdict: *mut ssl_edge_verdict,
    drift: *mut ssl_edge_drift,
) -> ssl_edge_status {
    // SAFETY: by the contract of this function.
    guard(|| unsafe {
        observe(
            monitor,
            job,
            encoder,
            frame,
            &Limit::default(),
            verdict,
            drift,
        )
    })
}

/// As ssl_edge_monitor_observe, but can be given up. The monitor has then not seen the frame.
///
/// @param monitor  made with this job
/// @param job      unchanged since the monitor was made
/// @param encoder  the job's encoder
/// @param frame    the pixels
/// @param options  filled by ssl_edge_call_options_init before
/// @param verdict  filled by ssl_edge_verdict_init before
/// @param drift    filled by ssl_edge_drift_init before
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_monitor_observe_with_options(
    monitor: *mut ssl_edge_monitor,
    job: *const ssl_edge_job,
    encoder: *const ssl_edge_encoder,
    frame: *const ssl_edge_frame,
    options: *const ssl_edge_call_options,
    verdict: *mut ssl_edge_verdict,
    drift: *mut ssl_edge_drift,
) -> ssl_edge_status {
    // SAFETY: by the contract of this function.
    guard(|| unsafe {
        let limit = call::limit(options)?;
        observe(monitor, job, encoder, frame, &limit, verdict, drift)
    })
}

/// # Safety
/// Each pointer is NULL or what its type says, for the time of this call.
unsafe fn observe(
    monitor: *mut ssl_edge_monitor,
    job: *const ssl_edge_job,
    encoder: *const ssl_edge_encoder,
    frame: *const ssl_edge_frame,
    limit: &Limit,
    verdict: *mut ssl_edge_verdict,
    drift: *mut ssl_edge_drift,
) -> Result<(), Failure> {
    // SAFETY: by the contract of this function.
    let (monitor, job) = unsafe { (reference(monitor, "monitor")?, reference(job, "job")?) };
    // SAFETY: as above.
    let (encoder, frame) = unsafe { (reference(encoder, "encoder")?, frame::borrow(frame)?) };
    // SAFETY: as above.
    let (verdict_out, drift_out) =
        unsafe { (OutputStruct::new(verdict)?, OutputStruct::new(drift)?) };
    let seen = job.see_to_judge(encoder, &frame, limit)?;
    let (found, state) = job.read_within(limit, |job| {
        let on_line = OnLine::of(job, &frame, seen)?;
        let state = monitor.change(|monitor| {
            let alarm = monitor.observe(job, &on_line)?;
            Ok(ssl_edge_drift::of(alarm, monitor.levels()))
        })?;
        Ok((on_line.verdict, state))
    })?;
    verdict_out.write(&ssl_edge_verdict::from(&found));
    drift_out.write(&state);
    Ok(())
}

/// Begins all charts anew, after a cause was dealt with. An alarm does so by itself.
///
/// @param monitor  a monitor
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_monitor_reset(monitor: *mut ssl_edge_monitor) -> ssl_edge_status {
    guard(|| {
        // SAFETY: NULL or a monitor, for the time of this call.
        let monitor = unsafe { reference(monitor, "monitor") }?;
        monitor.change(|monitor| {
            monitor.reset();
            Ok(())
        })
    })
}

/// What an operator should do about a cause: UTF-8, valid for ever, never NULL; "" for SSL_EDGE_DRIFT_CAUSE_NONE and numbers that are none.
///
/// @param cause  a value of ssl_edge_drift_cause
#[unsafe(no_mangle)]
pub extern "C" fn ssl_edge_drift_action(cause: u32) -> *const c_char {
    static TEXTS: LazyLock<Vec<CString>> = LazyLock::new(|| {
        let texts = ssl_edge_drift_cause::ALL.iter();
        texts
            .map(|(_, cause)| CString::new(cause.action()).unwrap_or_default())
            .collect()
    });
    let known = ssl_edge_drift_cause::ALL.iter();
    let index = known
        .into_iter()
        .position(|(number, _)| *number as u32 == cause);
    index.map_or(c"".as_ptr(), |index| TEXTS[index].as_ptr())
}
