//! What the library says about a frame, and about a fit.

use crate::fit::ssl_edge_head;
use crate::guard::guard;
use crate::pointer::{Sized32, init_struct};
use crate::status::ssl_edge_status;
use sdk::job::{FitReport, Job, Verdict};
use std::mem::offset_of;

/// What a job says about one frame. Fill it with ssl_edge_verdict_init before the first use; it can be used again and again.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ssl_edge_verdict {
    /// Size of this struct in bytes; set by ssl_edge_verdict_init.
    pub struct_size: u32,
    /// The class with the highest score; ssl_edge_job_class_name gives its name.
    pub class_id: u32,
    /// How sure the job is of that class, from 0 to 1. The scores of all classes add up to 1.
    pub score: f32,
    /// How far the frame is from the sample that it is most like: 1 - cosine of their embeddings, 0 to 2.
    pub distance: f32,
    /// That sample.
    pub nearest_sample_id: u64,
    /// 1 if the frame is too far from all samples, so that class_id and score mean little; otherwise 0.
    pub unknown: u32,
    /// Zero.
    pub reserved: u32,
    /// How typical the frame is of what was taught, 0 to 1: small for a frame unlike it, never below 1 / (samples + 1).
    pub p_value: f32,
    /// 1 if the part may pass (its class is good and the frame not unknown), 0 if not, -1 for a job without a good class.
    pub ok: i32,
    /// The job's revision that gave the verdict: the number of its changes.
    pub revision: u64,
    /// How typical the frame's surface is of good parts, 0 to 1: small if it has patches unlike theirs. Negative for a job that looks at no
    /// surfaces.
    pub surface_p_value: f32,
    /// 1 if the surface has patches unlike all good parts, 0 if not, -1 for a job that looks at no surfaces.
    pub anomalous: i32,
}

// SAFETY: repr(C), struct_size first, 4-byte numbers and, at offsets 16 and 40, one of eight bytes, 56 bytes in all: no padding.
unsafe impl Sized32 for ssl_edge_verdict {
    const NAME: &'static str = "ssl_edge_verdict";
    const FIRST_SIZE: usize = offset_of!(ssl_edge_verdict, reserved) + size_of::<u32>();

    fn defaults() -> Self {
        let struct_size = size_of::<Self>() as u32;
        Self {
            struct_size,
            class_id: 0,
            score: 0.0,
            distance: 0.0,
            nearest_sample_id: 0,
            unknown: 0,
            reserved: 0,
            p_value: 0.0,
            ok: -1,
            revision: 0,
            surface_p_value: -1.0,
            anomalous: -1,
        }
    }
}

/// What a fit found out about its samples. Fill it with ssl_edge_fit_report_init before the first use.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ssl_edge_fit_report {
    /// Size of this struct in bytes; set by ssl_edge_fit_report_init.
    pub struct_size: u32,
    /// Samples that were fitted.
    pub n_samples: u32,
    /// Classes that were fitted.
    pub n_classes: u32,
    /// Samples that a fit without them gets wrong: look at their labels first.
    pub n_suspects: u32,
    /// The share of samples, 0 to 1, that are classified right by a fit without them: the accuracy to expect on the line.
    /// Negative if no class has two samples, so that nothing can be left out.
    pub loo_accuracy: f32,
    /// Lower end of the 95 % interval of loo_accuracy; negative as that.
    pub loo_low: f32,
    /// Upper end of it.
    pub loo_high: f32,
    /// Expected calibration error of the scores, by leave-one-out; negative as loo_accuracy.
    pub calibration_error: f32,
    /// Share of frames of the taught kinds that may be called unknown, as far as the samples can promise; negative if none is.
    pub unknown_rate: f32,
    /// A value of ssl_edge_head: the head that was fitted; 0 for a job of one class.
    pub head: u32,
    /// The class of which more samples would help most; the first class for a job of one class.
    pub needs_more_class_id: u32,
    /// Copies that the samples were taught with (ssl_edge_teach_options.copies).
    pub n_copies: u32,
    /// 1 if the head was fitted with them, 0 if samples that were left out spoke against it, -1 without copies or without a head.
    pub copies_used: i32,
}

// SAFETY: repr(C), struct_size first, thirteen 4-byte numbers: no padding.
unsafe impl Sized32 for ssl_edge_fit_report {
    const NAME: &'static str = "ssl_edge_fit_report";
    const FIRST_SIZE: usize = offset_of!(ssl_edge_fit_report, loo_accuracy) + size_of::<f32>();

    fn defaults() -> Self {
        Self {
            struct_size: size_of::<Self>() as u32,
            n_samples: 0,
            n_classes: 0,
            n_suspects: 0,
            loo_accuracy: -1.0,
            loo_low: -1.0,
            loo_high: -1.0,
            calibration_error: -1.0,
            unknown_rate: -1.0,
            head: 0,
            needs_more_class_id: 0,
            n_copies: 0,
            copies_used: -1,
        }
    }
}

impl From<&Verdict> for ssl_edge_verdict {
    fn from(verdict: &Verdict) -> Self {
        Self {
            class_id: verdict.class.0,
            score: verdict.score,
            distance: verdict.distance,
            nearest_sample_id: verdict.nearest.0,
            unknown: u32::from(verdict.unknown),
            p_value: verdict.p_value,
            ok: verdict.ok.map_or(-1, i32::from),
            revision: verdict.revision,
            surface_p_value: verdict
                .anomaly
                .as_ref()
                .map_or(-1.0, |found| found.p_value as f32),
            anomalous: verdict
                .anomaly
                .as_ref()
                .map_or(-1, |found| i32::from(found.anomalous)),
            ..Self::defaults()
        }
    }
}

impl ssl_edge_fit_report {
    /// What a fit of `job` found.
    pub(crate) fn of(job: &Job, report: &FitReport) -> Self {
        let share = |of: Option<f64>| of.map_or(-1.0, |share| share as f32);
        let needs_more = report.needs_more.and_then(|class| job.classes().get(class));
        Self {
            n_samples: report.n as u32,
            n_classes: report.confusion.n_classes as u32,
            n_suspects: report.suspects.len() as u32,
            loo_accuracy: share(report.loo_accuracy),
            loo_low: share(report.loo_interval.map(|(low, _)| low)),
            loo_high: share(report.loo_interval.map(|(_, high)| high)),
            calibration_error: share(report.reliability.map(|of| of.ece)),
            unknown_rate: share(report.unknown.promised),
            head: report
                .head
                .map_or(0, |kind| ssl_edge_head::from(kind) as u32),
            needs_more_class_id: needs_more.map_or(0, |class| class.id.0),
            n_copies: job.samples().iter().map(|of| of.copies.len() as u32).sum(),
            copies_used: report.augmentation.map_or(-1, |of| i32::from(of.kept)),
            ..Self::defaults()
        }
    }
}

/// Fills a verdict with zeros and its size.
///
/// @param verdict      the struct to fill
/// @param struct_size  sizeof(ssl_edge_verdict)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_verdict_init(
    verdict: *mut ssl_edge_verdict,
    struct_size: usize,
) -> ssl_edge_status {
    // SAFETY: the caller passes NULL or a struct of `struct_size` bytes.
    guard(|| unsafe { init_struct(verdict, struct_size) })
}

/// Fills a fit report with defaults and its size.
///
/// @param report       the struct to fill
/// @param struct_size  sizeof(ssl_edge_fit_report)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_fit_report_init(
    report: *mut ssl_edge_fit_report,
    struct_size: usize,
) -> ssl_edge_status {
    // SAFETY: the caller passes NULL or a struct of `struct_size` bytes.
    guard(|| unsafe { init_struct(report, struct_size) })
}
