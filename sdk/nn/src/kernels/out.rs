//! Where a kernel writes.

use super::tile::{COLUMNS, Kernels};

/// A part of C.
#[derive(Clone, Copy)]
pub(crate) struct Out {
    pub(crate) c: *mut f32,
    /// Distance between rows.
    pub(crate) ldc: usize,
    /// Whether the result is added to what is there.
    pub(crate) add: bool,
}

impl Out {
    /// Calls a kernel for `rows` rows of `width` columns. Kernels write whole panels: a narrower one goes through a buffer.
    ///
    /// # Safety
    /// C has so many rows of `width` values, which nobody else uses meanwhile.
    #[inline]
    pub(crate) unsafe fn panel(self, rows: usize, width: usize, kernel: impl FnOnce(Self)) {
        if width == COLUMNS {
            return kernel(self);
        }
        let mut whole = [[0.0f32; COLUMNS]; Kernels::MOST_ROWS];
        kernel(Self {
            c: whole.as_mut_ptr().cast(),
            ldc: COLUMNS,
            add: false,
        });
        for (r, values) in whole[..rows].iter().enumerate() {
            // SAFETY: the caller's.
            let to = unsafe { std::slice::from_raw_parts_mut(self.c.add(r * self.ldc), width) };
            for (to, value) in to.iter_mut().zip(values) {
                *to = if self.add { *to + value } else { *value };
            }
        }
    }
}
