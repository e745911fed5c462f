//! How to fit a job.

use crate::guard::guard;
use crate::pointer::{Sized32, init_struct};
use crate::status::{Failure, ssl_edge_status};
use sdk::job::{FitOptions, HeadKind};
use std::mem::offset_of;

/// What separates the classes; the value of ssl_edge_fit_options.head.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ssl_edge_head {
    /// Linear discriminant, its regularisation by leave-one-out.
    Discriminant = 1,
    /// Linear discriminant with a shrunk covariance: the one that jobs begin with.
    Lda = 2,
    /// Least squares.
    Ridge = 3,
    /// Logistic regression; the slowest to fit.
    Logistic = 4,
    /// Nearest class mean.
    Prototype = 5,
    /// Nearest samples.
    Knn = 6,
}

impl From<HeadKind> for ssl_edge_head {
    fn from(kind: HeadKind) -> Self {
        match kind {
            HeadKind::Discriminant => Self::Discriminant,
            HeadKind::Lda => Self::Lda,
            HeadKind::Ridge => Self::Ridge,
            HeadKind::Logistic => Self::Logistic,
            HeadKind::Prototype => Self::Prototype,
            HeadKind::Knn => Self::Knn,
        }
    }
}

/// How to fit a job. Fill it with ssl_edge_fit_options_init before use.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ssl_edge_fit_options {
    /// Size of this struct in bytes; set by ssl_edge_fit_options_init.
    pub struct_size: u32,
    /// A value of ssl_edge_head; after init 0, the head of the last fit.
    pub head: u32,
    /// 1 to compare heads and features by leave-one-out and change to others where they prove better (a few hundred milliseconds; head must be 0);
    /// after init 0.
    pub search: u32,
    /// Share of frames of the taught kinds that may be called unlike what was taught (unknown, or with a surface unlike that of good parts), 0 to below
    /// 1; after init 0.05. 0 turns that off.
    pub unknown_rate: f32,
}

// SAFETY: repr(C), struct_size first, four 4-byte numbers without padding.
unsafe impl Sized32 for ssl_edge_fit_options {
    const NAME: &'static str = "ssl_edge_fit_options";
    const FIRST_SIZE: usize = offset_of!(ssl_edge_fit_options, unknown_rate) + size_of::<f32>();

    fn defaults() -> Self {
        Self {
            struct_size: size_of::<Self>() as u32,
            head: 0,
            search: 0,
            unknown_rate: FitOptions::default().unknown_rate as f32,
        }
    }
}

impl ssl_edge_fit_options {
    /// The façade's options.
    pub(crate) fn resolve(&self) -> Result<FitOptions, Failure> {
        let known = HeadKind::ALL.into_iter();
        let head = known.map(|kind| (ssl_edge_head::from(kind) as u32, kind));
        let head = head.into_iter().find(|(number, _)| *number == self.head);
        if self.head != 0 && head.is_none() {
            let text = format!(
                "head is {}; it must be 0 or a value of ssl_edge_head",
                self.head
            );
            return Err(Failure::new(ssl_edge_status::InvalidArgument, text));
        }
        Ok(FitOptions {
            head: head.map(|(_, kind)| kind),
            search: self.search != 0,
            // As the caller wrote it: 0.05f32 is not 0.05.
            unknown_rate: f64::from((self.unknown_rate * 1e6).round()) / 1e6,
            ..FitOptions::default()
        })
    }
}

/// Fills fit options with their defaults and their size.
///
/// @param options      the struct to fill
/// @param struct_size  sizeof(ssl_edge_fit_options)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_fit_options_init(
    options: *mut ssl_edge_fit_options,
    struct_size: usize,
) -> ssl_edge_status {
    // SAFETY: the caller passes NULL or a struct of `struct_size` bytes.
    guard(|| unsafe { init_struct(options, struct_size) })
}
