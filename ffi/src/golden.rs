//! Golden parts: frames beside them, position by position.

use crate::encoder::ssl_edge_encoder;
use crate::frame::{self, ssl_edge_frame};
use crate::guard::guard;
use crate::job::change::ssl_edge_surface;
use crate::job::heat::ssl_edge_heat_options;
use crate::pointer::{
    self, Output, OutputBuffer, OutputStruct, Sized32, init_struct, optional, read_struct,
    reference,
};
use crate::status::{Failure, ssl_edge_status};
use sdk::anomaly::{Rates, ThresholdSource};
use sdk::encoder::Encoder;
use sdk::golden::{
    GoldenLearner, GoldenOptions, GoldenParts, GoldenScore, LearnOptions, compare_golden,
};
use sdk::surface::{ENCODER, PIXELS};
use sdk::vision::Frame;
use std::ffi::c_char;
use std::mem::offset_of;

const MAX_SHIFT: u32 = 16;

/// How golden parts are learned. Fill it with ssl_edge_golden_options_init before use.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ssl_edge_golden_options {
    /// Size of this struct in bytes; set by ssl_edge_golden_options_init.
    pub struct_size: u32,
    /// What is compared, a value of ssl_edge_surface; after init SSL_EDGE_SURFACE_PIXELS, which needs no encoder.
    pub surface: u32,
    /// Patches by which a part may lie elsewhere, in each direction, 0 to 16; after init 2.
    pub max_shift: u32,
    /// Share of good parts that may be called different, above 0 and below 1; after init 0.05.
    pub false_alarm_rate: f32,
}

// SAFETY: repr(C), struct_size first, four 4-byte numbers without padding.
unsafe impl Sized32 for ssl_edge_golden_options {
    const NAME: &'static str = "ssl_edge_golden_options";
    const FIRST_SIZE: usize =
        offset_of!(ssl_edge_golden_options, false_alarm_rate) + size_of::<f32>();

    fn defaults() -> Self {
        Self {
            struct_size: size_of::<Self>() as u32,
            surface: ssl_edge_surface::Pixels as u32,
            max_shift: GoldenOptions::default().max_shift as u32,
            false_alarm_rate: Rates::default().frame as f32,
        }
    }
}

/// What the threshold of golden parts rests on; the value of ssl_edge_golden_info.threshold_source.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ssl_edge_threshold_source {
    /// There is none: one golden part does not say how much good parts differ.
    None = 0,
    /// A rank of the scores of the golden parts: the rate is kept on parts like them.
    Rank = 1,
    /// The rate is lower than so few golden parts can promise; it is extrapolated from the worst third of their scores.
    Extrapolation = 2,
    /// As before, with too few golden parts to extrapolate: their largest score.
    LargestScore = 3,
}

/// What golden parts are. Fill it with ssl_edge_golden_info_init before the first use.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ssl_edge_golden_info {
    /// Size of this struct in bytes; set by ssl_edge_golden_info_init.
    pub struct_size: u32,
    /// Golden parts.
    pub parts: u32,
    /// Rows of patches.
    pub rows: u32,
    /// Columns of patches.
    pub columns: u32,
    /// What is compared, a value of ssl_edge_surface.
    pub surface: u32,
    /// A value of ssl_edge_threshold_source.
    pub threshold_source: u32,
    /// Score above which a frame is called different; negative if there is none.
    pub threshold: f32,
    /// Share of good parts that may be called different; negative if there is no threshold.
    pub false_alarm_rate: f32,
    /// The lowest such share that the golden parts can promise, 1 / (parts + 1); negative if there is no threshold.
    pub false_alarm_floor: f32,
}

// SAFETY: repr(C), struct_size first, nine 4-byte numbers: no padding.
unsafe impl Sized32 for ssl_edge_golden_info {
    const NAME: &'static str = "ssl_edge_golden_info";
    const FIRST_SIZE: usize =
        offset_of!(ssl_edge_golden_info, false_alarm_floor) + size_of::<f32>();

    fn defaults() -> Self {
        Self {
            struct_size: size_of::<Self>() as u32,
            parts: 0,
            rows: 0,
            columns: 0,
            surface: 0,
            threshold_source: 0,
            threshold: -1.0,
            false_alarm_rate: -1.0,
            false_alarm_floor: -1.0,
        }
    }
}

/// A frame beside golden parts. Fill it with ssl_edge_golden_verdict_init before the first use.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ssl_edge_golden_verdict {
    /// Size of this struct in bytes; set by ssl_edge_golden_verdict_init.
    pub struct_size: u32,
    /// 1 if the score is above the threshold, 0 if not, -1 if there is none.
    pub differs: i32,
    /// How different the hundredth of the patches is that differs most.
    pub score: f32,
    /// How usual such a score is among golden parts, 0 to 1, never below false_alarm_floor; negative if there is no threshold.
    pub p_value: f32,
    /// Rows of patches by which the golden part lies further down.
    pub shift_rows: i32,
    /// Columns of patches by which it lies further right.
    pub shift_columns: i32,
    /// Index of the golden part that the frame is most like; -1 from three golden parts on, which are summed up.
    pub nearest_part: i32,
}

// SAFETY: repr(C), struct_size first, seven 4-byte numbers: no padding.
unsafe impl Sized32 for ssl_edge_golden_verdict {
    const NAME: &'static str = "ssl_edge_golden_verdict";
    const FIRST_SIZE: usize = offset_of!(ssl_edge_golden_verdict, nearest_part) + size_of::<i32>();

    fn defaults() -> Self {
        Self {
            struct_size: size_of::<Self>() as u32,
            differs: -1,
            score: 0.0,
            p_value: -1.0,
            shift_rows: 0,
            shift_columns: 0,
            nearest_part: -1,
        }
    }
}

impl From<&GoldenScore> for ssl_edge_golden_verdict {
    fn from(found: &GoldenScore) -> Self {
        Self {
            differs: found.differs.map_or(-1, i32::from),
            score: found.score as f32,
            p_value: found.p_value.map_or(-1.0, |p| p as f32),
            shift_rows: found.shift[0] as i32,
            shift_columns: found.shift[1] as i32,
            nearest_part: found.nearest.map_or(-1, |part| part as i32),
            ..Self::defaults()
        }
    }
}

/// Golden parts: what is where, and how much good parts differ. Where a job tells what no good part looks like anywhere, they tell what is not
/// where it should be. Parts must lie alike in front of the camera.
///
/// Thread safety: it never changes. All functions may be called on it from many threads at once, except ssl_edge_golden_free, which must be the
/// last. No function starts a thread of its own.
pub struct ssl_edge_golden {
    inner: GoldenParts,
}

impl ssl_edge_golden {
    fn handle(inner: GoldenParts) -> *mut Self {
        Box::into_raw(Box::new(Self { inner }))
    }

    fn compare(
        &self,
        encoder: Option<&ssl_edge_encoder>,
        frame: &Frame<'_>,
    ) -> Result<GoldenScore, Failure> {
        if self.inner.encoder.is_some() && encoder.is_none() {
            return Err(needs_encoder());
        }
        with(encoder, |encoder| {
            Ok(compare_golden(encoder, &self.inner, frame)?)
        })
    }

    fn info(&self) -> ssl_edge_golden_info {
        let report = self.inner.model.report();
        let share = |of: Option<f64>| of.map_or(-1.0, |share| share as f32);
        let surface = match self.inner.encoder {
            None => ssl_edge_surface::Pixels,
            Some(_) => ssl_edge_surface::Encoder,
        };
        let source = report.frame.map(|frame| match frame.source {
            ThresholdSource::Conformal => ssl_edge_threshold_source::Rank,
            ThresholdSource::TailExtrapolation => ssl_edge_threshold_source::Extrapolation,
            ThresholdSource::Maximum => ssl_edge_threshold_source::LargestScore,
        });
        ssl_edge_golden_info {
            parts: report.parts as u32,
            rows: report.size[0] as u32,
            columns: report.size[1] as u32,
            surface: surface as u32,
            threshold_source: source.unwrap_or(ssl_edge_threshold_source::None) as u32,
            threshold: share(report.frame.map(|frame| frame.value)),
            false_alarm_rate: share(report.frame.map(|frame| frame.rate)),
            false_alarm_floor: share(report.floor),
            ..ssl_edge_golden_info::defaults()
        }
    }
}

impl ssl_edge_golden_options {
    fn resolve(&self) -> Result<LearnOptions, Failure> {
        let invalid = |text: String| Failure::new(ssl_edge_status::InvalidArgument, text);
        let kinds = [
            (ssl_edge_surface::Pixels, PIXELS),
            (ssl_edge_surface::Encoder, ENCODER),
        ];
        let kind = kinds
            .iter()
            .find(|(kind, _)| *kind as u32 == self.surface)
            .map(|(_, name)| *name);
        let tokens = kind.ok_or_else(|| {
            invalid(format!(
                "options.surface is {}; set it to SSL_EDGE_SURFACE_PIXELS or SSL_EDGE_SURFACE_ENCODER",
                self.surface
            ))
        })?;
        if self.max_shift > MAX_SHIFT {
            return Err(invalid(format!(
                "options.max_shift is {}; set it to 0 to {MAX_SHIFT}",
                self.max_shift
            )));
        }
        Ok(LearnOptions {
            tokens: tokens.into(),
            compare: GoldenOptions {
                max_shift: self.max_shift as usize,
                ..GoldenOptions::default()
            },
            rates: Rates {
                // As the caller wrote it: 0.05f32 is not 0.05.
                frame: (f64::from(self.false_alarm_rate) * 1e6).round() / 1e6,
                ..Rates::default()
            },
        })
    }
}

fn with<T>(
    encoder: Option<&ssl_edge_encoder>,
    body: impl FnOnce(Option<&Encoder>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    match encoder {
        Some(encoder) => encoder.with(|encoder| body(Some(encoder))),
        None => body(None),
    }
}

fn needs_encoder() -> Failure {
    let text = "encoder is NULL, and the golden parts are an encoder's patches; pass that encoder";
    Failure::new(ssl_edge_status::NullPointer, text)
}

/// Fills golden options with their defaults and their size.
///
/// @param options      the struct to fill
/// @param struct_size  sizeof(ssl_edge_golden_options)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_golden_options_init(
    options: *mut ssl_edge_golden_options,
    struct_size: usize,
) -> ssl_edge_status {
    // SAFETY: the caller passes NULL or a struct of `struct_size` bytes.
    guard(|| unsafe { init_struct(options, struct_size) })
}

/// Fills a golden info with defaults and its size.
///
/// @param info         the struct to fill
/// @param struct_size  sizeof(ssl_edge_golden_info)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_golden_info_init(
    info: *mut ssl_edge_golden_info,
    struct_size: usize,
) -> ssl_edge_status {
    // SAFETY: the caller passes NULL or a struct of `struct_size` bytes.
    guard(|| unsafe { init_struct(info, struct_size) })
}

/// Fills a golden verdict with defaults and its size.
///
/// @param verdict      the struct to fill
/// @param struct_size  sizeof(ssl_edge_golden_verdict)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_golden_verdict_init(
    verdict: *mut ssl_edge_golden_verdict,
    struct_size: usize,
) -> ssl_edge_status {
    // SAFETY: the caller passes NULL or a struct of `struct_size` bytes.
    guard(|| unsafe { init_struct(verdict, struct_size) })
}

/// Learns golden parts from frames of one shape, one frame of each part. From two parts on they say how much good parts differ, and from three on
/// what varies among them counts less.
///
/// @param frames   pointers to the frames
/// @param count    their number, at least 1
/// @param encoder  the encoder whose patches are compared; may be NULL for SSL_EDGE_SURFACE_PIXELS
/// @param options  filled by ssl_edge_golden_options_init before
/// @param golden   the golden parts; free them with ssl_edge_golden_free
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_golden_learn(
    frames: *const *const ssl_edge_frame,
    count: usize,
    encoder: *const ssl_edge_encoder,
    options: *const ssl_edge_golden_options,
    golden: *mut *mut ssl_edge_golden,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call; `frames` holds `count` such pointers.
        let (frames, options) =
            unsafe { (frame::borrow_all(frames, count)?, read_struct(options)?) };
        // SAFETY: as above.
        let (encoder, output) =
            unsafe { (optional(encoder, "encoder")?, Output::new(golden, "golden")?) };
        let options = options.resolve()?;
        if options.tokens == ENCODER && encoder.is_none() {
            return Err(needs_encoder());
        }
        let learned = with(encoder, |encoder| {
            let mut learner = GoldenLearner::new(&options);
            for (index, frame) in frames.iter().enumerate() {
                learner.add(encoder, frame, &format!("frame {index}"))?;
            }
            Ok(learner.learn()?)
        })?;
        output.write(ssl_edge_golden::handle(learned));
        Ok(())
    })
}

/// Frees golden parts without saving them. NULL does nothing.
///
/// @param golden  not used by any thread, now or later
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_golden_free(golden: *mut ssl_edge_golden) {
    if golden.is_null() {
        return;
    }
    guard(|| {
        // SAFETY: it came from ssl_edge_golden_learn or ssl_edge_golden_load, and the caller frees it once.
        drop(unsafe { Box::from_raw(golden) });
        Ok(())
    });
}

/// What golden parts are, and what their threshold promises.
///
/// @param golden  golden parts
/// @param info    filled by ssl_edge_golden_info_init before
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_golden_get_info(
    golden: *const ssl_edge_golden,
    info: *mut ssl_edge_golden_info,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (golden, output) = unsafe { (reference(golden, "golden")?, OutputStruct::new(info)?) };
        output.write(&golden.info());
        Ok(())
    })
}

/// Compares a frame with golden parts.
///
/// @param golden   golden parts
/// @param encoder  the encoder that they were learned with; may be NULL for SSL_EDGE_SURFACE_PIXELS
/// @param frame    the pixels, of the golden parts' shape
/// @param verdict  filled by ssl_edge_golden_verdict_init before
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_golden_compare(
    golden: *const ssl_edge_golden,
    encoder: *const ssl_edge_encoder,
    frame: *const ssl_edge_frame,
    verdict: *mut ssl_edge_golden_verdict,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (golden, encoder) =
            unsafe { (reference(golden, "golden")?, optional(encoder, "encoder")?) };
        // SAFETY: as above.
        let (frame, output) = unsafe { (frame::borrow(frame)?, OutputStruct::new(verdict)?) };
        let found = golden.compare(encoder, &frame)?;
        output.write(&ssl_edge_golden_verdict::from(&found));
        Ok(())
    })
}

/// The size of the heat map of a comparison.
///
/// @param golden   golden parts
/// @param frame    the pixels, of the golden parts' shape
/// @param options  filled by ssl_edge_heat_options_init before
/// @param rows     rows of the map
/// @param columns  columns of the map
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_golden_heat_size(
    golden: *const ssl_edge_golden,
    frame: *const ssl_edge_frame,
    options: *const ssl_edge_heat_options,
    rows: *mut usize,
    columns: *mut usize,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (golden, frame) = unsafe { (reference(golden, "golden")?, frame::borrow(frame)?) };
        // SAFETY: as above.
        let (options, rows) = unsafe { (read_struct(options)?, Output::new(rows, "rows")?) };
        // SAFETY: as above.
        let columns = unsafe { Output::new(columns, "columns") }?;
        let size = options.size(&frame, || Ok(golden.inner.model.report().size))?;
        rows.write(size[0]);
        columns.write(size[1]);
        Ok(())
    })
}

/// Compares a frame with golden parts, and shows where it differs: SSL_EDGE_HEAT_THRESHOLD is the heat from which at most one in a thousand patches
/// of golden parts differs from the others. Of a single golden part, it is the difference that its sharpest edges make between neighbouring patches.
///
/// @param golden    golden parts
/// @param encoder   the encoder that they were learned with; may be NULL for SSL_EDGE_SURFACE_PIXELS
/// @param frame     the pixels, of the golden parts' shape
/// @param options   filled by ssl_edge_heat_options_init before
/// @param verdict   filled by ssl_edge_golden_verdict_init before
/// @param heat      a buffer for the map, row by row; 0 also where a shift leaves nothing to compare with
/// @param capacity  floats of the buffer, at least the rows times the columns that ssl_edge_golden_heat_size says
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_golden_compare_heat(
    golden: *const ssl_edge_golden,
    encoder: *const ssl_edge_encoder,
    frame: *const ssl_edge_frame,
    options: *const ssl_edge_heat_options,
    verdict: *mut ssl_edge_golden_verdict,
    heat: *mut f32,
    capacity: usize,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (golden, encoder) =
            unsafe { (reference(golden, "golden")?, optional(encoder, "encoder")?) };
        // SAFETY: as above.
        let (frame, options) = unsafe { (frame::borrow(frame)?, read_struct(options)?) };
        let [rows, columns] = options.size(&frame, || Ok(golden.inner.model.report().size))?;
        // SAFETY: as above; `heat` is NULL or a buffer of `capacity` floats.
        let (output, buffer) = unsafe {
            (
                OutputStruct::new(verdict)?,
                OutputBuffer::new(heat, capacity, rows * columns, "heat")?,
            )
        };
        let found = golden.compare(encoder, &frame)?;
        let values = options.draw(&frame, found.heat.clone())?;
        buffer.write(&values);
        output.write(&ssl_edge_golden_verdict::from(&found));
        Ok(())
    })
}

/// Saves golden parts. Power may fail at any time: the file is the old one or the new one.
///
/// @param golden  golden parts
/// @param path    the .sslg file
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_golden_save(
    golden: *const ssl_edge_golden,
    path: *const c_char,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (golden, path) = unsafe { (reference(golden, "golden")?, pointer::path(path, "path")?) };
        Ok(golden.inner.save(&path)?)
    })
}

/// Loads golden parts. They compare as they did when they were saved; whether they belong to an encoder is checked when they are used with one.
///
/// @param path    the .sslg file
/// @param golden  the golden parts; free them with ssl_edge_golden_free
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_golden_load(
    path: *const c_char,
    golden: *mut *mut ssl_edge_golden,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (path, output) = unsafe { (pointer::path(path, "path")?, Output::new(golden, "golden")?) };
        let loaded = GoldenParts::load(&path).map_err(|error| match Failure::from(error) {
            // What job files and golden files have in common is reported alike by the façade.
            Failure {
                status: ssl_edge_status::InvalidJob,
                text,
            } => Failure::new(ssl_edge_status::InvalidGolden, text),
            other => other,
        })?;
        output.write(ssl_edge_golden::handle(loaded));
        Ok(())
    })
}
