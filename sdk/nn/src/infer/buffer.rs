//! Memory on cache lines, and memory that several threads write to in parts of their own.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};

use crate::Error;

/// Numbers for which all bytes zero is a value.
pub(super) trait Number: Copy + Send + Sync + 'static {}

impl Number for f32 {}
impl Number for i32 {}
impl Number for i8 {}
impl Number for u8 {}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// A zeroed slice that begins on a cache line.
pub(super) struct Aligned<T> {
    lines: Vec<Line>,
    len: usize,
    _numbers: PhantomData<T>,
}

impl<T: Number> Aligned<T> {
    /// # Errors
    /// [`Error::Memory`] where the system refuses it.
    pub(super) fn zeroed(len: usize) -> Result<Self, Error> {
        let bytes = len.saturating_mul(size_of::<T>());
        let count = bytes.div_ceil(size_of::<Line>());
        let mut lines = Vec::new();
        let reserved = lines.try_reserve_exact(count);
        reserved.map_err(|_| Error::Memory { bytes })?;
        lines.resize(count, Line([0; 64]));
        Ok(Self {
            lines,
            len,
            _numbers: PhantomData,
        })
    }

    /// The same memory for threads that write to parts of it.
    pub(super) fn share(&mut self) -> Shared<'_, T> {
        Shared {
            start: self.as_mut_ptr(),
            len: self.len,
            _memory: PhantomData,
        }
    }
}

impl<T: Number> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the lines hold at least `len` numbers, aligned, and any bytes are a number.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl<T: Number> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

/// A slice that threads hold together; each borrows the parts it needs.
#[derive(Clone, Copy)]
pub(super) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    _memory: PhantomData<&'a mut [T]>,
}

// SAFETY: it is a slice of numbers; whoever borrows parts answers for their being disjoint.
unsafe impl<T: Number> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Number> Sync for Shared<'_, T> {}

impl<'a, T: Number> Shared<'a, T> {
    pub(super) fn of(slice: &'a mut [T]) -> Self {
        Self {
            start: slice.as_mut_ptr(),
            len: slice.len(),
            _memory: PhantomData,
        }
    }

    /// # Safety
    /// No other thread writes to the range while the result lives.
    pub(super) unsafe fn read(&self, range: Range<usize>) -> &[T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: inside the slice, as just checked; the caller answers for other threads.
        unsafe { std::slice::from_raw_parts(self.start.add(range.start), range.len()) }
    }

    /// # Safety
    /// No one else uses the range while the result lives.
    #[expect(
        clippy::mut_from_ref,
        reason = "disjoint parts are the purpose of the type"
    )]
    pub(super) unsafe fn write(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_refused_is_an_error_with_its_size() {
        assert!(
            Aligned::<f32>::zeroed(100)
                .unwrap()
                .iter()
                .all(|v| *v == 0.0)
        );
        let error = Aligned::<f32>::zeroed(1 << 60).err().unwrap().to_string();
        assert!(error.contains("GiB") && error.contains("batch"), "{error}");
        assert!(Aligned::<f32>::zeroed(usize::MAX).is_err());
    }
}
