//! How golden parts are learned, what they are, and what is said of a frame beside them.

use crate::call::ssl_edge_call_options;
use crate::guard::guard;
use crate::job::change::ssl_edge_surface;
use crate::pointer::{Sized32, init_struct};
use crate::status::{Failure, ssl_edge_status};
use sdk::anomaly::{Rates, ThresholdSource};
use sdk::golden::{GoldenOptions, GoldenParts, GoldenScore, LearnOptions};
use sdk::surface::{ENCODER, PIXELS};
use std::mem::offset_of;
use std::ptr;

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
    /// When to give the call up; NULL, as after init, is never.
    pub call: *const ssl_edge_call_options,
}

// SAFETY: repr(C), struct_size first, four 4-byte numbers and a raw pointer: no padding on 32 and 64 bit.
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
            call: ptr::null(),
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

impl ssl_edge_golden_info {
    /// What golden parts are.
    pub(crate) fn of(golden: &GoldenParts) -> Self {
        let report = golden.model.report();
        let share = |of: Option<f64>| of.map_or(-1.0, |share| share as f32);
        let surface = match golden.encoder {
            None => ssl_edge_surface::Pixels,
            Some(_) => ssl_edge_surface::Encoder,
        };
        let source = report.frame.map(|frame| match frame.source {
            ThresholdSource::Conformal => ssl_edge_threshold_source::Rank,
            ThresholdSource::TailExtrapolation | ThresholdSource::Prediction => {
                ssl_edge_threshold_source::Extrapolation
            }
            ThresholdSource::Maximum => ssl_edge_threshold_source::LargestScore,
        });
        Self {
            parts: report.parts as u32,
            rows: report.size[0] as u32,
            columns: report.size[1] as u32,
            surface: surface as u32,
            threshold_source: source.unwrap_or(ssl_edge_threshold_source::None) as u32,
            threshold: share(report.frame.map(|frame| frame.value)),
            false_alarm_rate: share(report.frame.map(|frame| frame.rate)),
            false_alarm_floor: share(report.floor),
            ..Self::defaults()
        }
    }
}

impl ssl_edge_golden_options {
    /// The façade's options.
    pub(crate) fn resolve(&self) -> Result<LearnOptions, Failure> {
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
        let mut options = LearnOptions::of(tokens);
        options.compare.max_shift = self.max_shift as usize;
        // As the caller wrote it: 0.05f32 is not 0.05.
        options.rates.frame = (f64::from(self.false_alarm_rate) * 1e6).round() / 1e6;
        Ok(options)
    }
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
