//! A job's way to another encoder.

use crate::call::{self, ssl_edge_call_options};
use crate::encoder::ssl_edge_encoder;
use crate::guard::guard;
use crate::job::ssl_edge_job;
use crate::pointer::{Output, OutputStruct, Sized32, init_struct, reference};
use crate::status::{Failure, ssl_edge_status};
use sdk::encoder::Limit;
use sdk::job::{FitOptions, FitReport, Moved, migrate};
use std::mem::offset_of;

/// A job for another encoder beside the old one. Fill it with ssl_edge_migration_init before the first use.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ssl_edge_migration {
    /// Size of this struct in bytes; set by ssl_edge_migration_init.
    pub struct_size: u32,
    /// ssl_edge_fit_report.loo_accuracy of the old job's last fit; negative if it is not fitted or none is known.
    pub loo_accuracy_before: f32,
    /// The same of the new job, which is fitted.
    pub loo_accuracy_after: f32,
    /// Samples that keep their patches, which do not depend on the encoder.
    pub surface_kept: u32,
    /// Samples whose patches were made anew of their thumbnails.
    pub surface_remade: u32,
    /// Samples without patches from now on, because their thumbnails are too small for the encoder's: teach good parts again.
    pub surface_dropped: u32,
    /// Pixels that the shorter side of a thumbnail needs for the encoder's patches.
    pub needed_side: u32,
    /// Pixels of the shorter side of the smallest thumbnail that is too small; 0 if none is.
    pub smallest_side: u32,
}

// SAFETY: repr(C), struct_size first, eight 4-byte numbers: no padding.
unsafe impl Sized32 for ssl_edge_migration {
    const NAME: &'static str = "ssl_edge_migration";
    const FIRST_SIZE: usize = offset_of!(ssl_edge_migration, smallest_side) + size_of::<u32>();

    fn defaults() -> Self {
        Self {
            struct_size: size_of::<Self>() as u32,
            loo_accuracy_before: -1.0,
            loo_accuracy_after: -1.0,
            surface_kept: 0,
            surface_remade: 0,
            surface_dropped: 0,
            needed_side: 0,
            smallest_side: 0,
        }
    }
}

impl From<&Moved> for ssl_edge_migration {
    fn from(moved: &Moved) -> Self {
        let share = |report: Option<&FitReport>| {
            let accuracy = report.and_then(|report| report.loo_accuracy);
            accuracy.map_or(-1.0, |share| share as f32)
        };
        let (migration, surface) = (&moved.migration, &moved.surface);
        Self {
            loo_accuracy_before: share(migration.before.as_ref()),
            loo_accuracy_after: share(Some(&migration.after)),
            surface_kept: surface.kept as u32,
            surface_remade: surface.remade as u32,
            surface_dropped: surface.dropped as u32,
            needed_side: surface.needed,
            smallest_side: surface.smallest,
            ..Self::defaults()
        }
    }
}

/// Fills a migration with defaults and its size.
///
/// @param migration    the struct to fill
/// @param struct_size  sizeof(ssl_edge_migration)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_migration_init(
    migration: *mut ssl_edge_migration,
    struct_size: usize,
) -> ssl_edge_status {
    // SAFETY: the caller passes NULL or a struct of `struct_size` bytes.
    guard(|| unsafe { init_struct(migration, struct_size) })
}

/// Makes the job that another encoder needs, of the thumbnails that were kept with all samples (ssl_edge_teach_options.thumbnail_side): the same classes,
/// samples, records and mask, fitted. The old job stays as it is and may be used meanwhile; compare the two before the new one takes its place. As much
/// work as teaching all samples.
///
/// @param job        a job of whatever encoder
/// @param encoder    the encoder that the new job is for
/// @param moved      the new job; free it with ssl_edge_job_free
/// @param migration  filled by ssl_edge_migration_init before
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_migrate(
    job: *const ssl_edge_job,
    encoder: *const ssl_edge_encoder,
    moved: *mut *mut ssl_edge_job,
    migration: *mut ssl_edge_migration,
) -> ssl_edge_status {
    // SAFETY: by the contract of this function.
    guard(|| unsafe { to_encoder(job, encoder, &Limit::default(), moved, migration) })
}

/// As ssl_edge_job_migrate, but can be given up.
///
/// @param job        a job of whatever encoder
/// @param encoder    the encoder that the new job is for
/// @param options    filled by ssl_edge_call_options_init before
/// @param moved      the new job; free it with ssl_edge_job_free
/// @param migration  filled by ssl_edge_migration_init before
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_job_migrate_with_options(
    job: *const ssl_edge_job,
    encoder: *const ssl_edge_encoder,
    options: *const ssl_edge_call_options,
    moved: *mut *mut ssl_edge_job,
    migration: *mut ssl_edge_migration,
) -> ssl_edge_status {
    // SAFETY: by the contract of this function.
    guard(|| unsafe {
        let limit = call::limit(options)?;
        to_encoder(job, encoder, &limit, moved, migration)
    })
}

/// # Safety
/// Each pointer is NULL or what its type says, for the time of this call.
unsafe fn to_encoder(
    job: *const ssl_edge_job,
    encoder: *const ssl_edge_encoder,
    limit: &Limit,
    moved: *mut *mut ssl_edge_job,
    migration: *mut ssl_edge_migration,
) -> Result<(), Failure> {
    // SAFETY: by the contract of this function.
    let (job, encoder) = unsafe { (reference(job, "job")?, reference(encoder, "encoder")?) };
    // SAFETY: as above.
    let (output, report) = unsafe { (Output::new(moved, "moved")?, OutputStruct::new(migration)?) };
    let old = job.read_within(limit, |job| Ok(job.clone()))?;
    let new = encoder.with(|encoder| Ok(migrate(encoder, &old, &FitOptions::default(), limit)?))?;
    report.write(&ssl_edge_migration::from(&new));
    output.write(ssl_edge_job::handle(new.migration.job));
    Ok(())
}
