//! Where a kernel writes.

use super::tile::Kernels;

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
    /// Calls one of `kernels` for `rows` rows of `width` columns. They write whole panels: a narrower one goes through a buffer.
    ///
    /// # Safety
    /// C has so many rows of `width` values, which nobody else uses meanwhile.
    #[inline]
    pub(crate) unsafe fn panel(
        self,
        kernels: &Kernels,
        [rows, width]: [usize; 2],
        call: impl FnOnce(Self),
    ) {
        if width == kernels.columns {
            return call(self);
        }
        let mut whole = [[0.0f32; Kernels::MOST_COLUMNS]; Kernels::MOST_ROWS];
        call(Self {
            c: whole.as_mut_ptr().cast(),
            ldc: Kernels::MOST_COLUMNS,
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
