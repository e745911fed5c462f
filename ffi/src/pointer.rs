//! From C pointers to Rust values: NULL, alignment, UTF-8 and struct sizes are checked here and nowhere else.

use crate::status::{Failure, ssl_edge_status as Status};
use std::ffi::{CStr, c_char};
use std::path::{Path, PathBuf};

/// A public struct whose first field is its size in bytes as the caller's header knows it.
///
/// # Safety
/// `repr(C)`, first field `struct_size: u32`, no padding, and every bit pattern of every field is valid.
pub(crate) unsafe trait Sized32: Copy {
    /// Name in the header.
    const NAME: &'static str;
    /// Size in the first version of the header: fields after it were appended later.
    const FIRST_SIZE: usize;
    /// The defaults; `struct_size` is that of this library.
    fn defaults() -> Self;
}

/// No header will ever grow a struct beyond this; a larger size is an uninitialised field.
const MAX_STRUCT_SIZE: usize = 4096;

fn null(name: &str) -> Failure {
    Failure::new(
        Status::NullPointer,
        format!("{name} is NULL; pass a valid pointer"),
    )
}

fn check<T>(pointer: *const T, name: &str) -> Result<(), Failure> {
    if pointer.is_null() {
        return Err(null(name));
    }
    if !pointer.is_aligned() {
        let text = format!(
            "{name} is not aligned to {} bytes; pass a pointer to an object of its type",
            align_of::<T>()
        );
        return Err(Failure::new(Status::InvalidArgument, text));
    }
    Ok(())
}

/// Borrows what `pointer` points to.
///
/// # Safety
/// If it is not NULL, it points to a `T` that lives and is not changed during `'a`.
pub(crate) unsafe fn reference<'a, T>(pointer: *const T, name: &str) -> Result<&'a T, Failure> {
    check(pointer, name)?;
    // SAFETY: not NULL and aligned; alive and unchanged by this function's contract.
    Ok(unsafe { &*pointer })
}

/// Borrows what `pointer` points to; nothing for NULL, where a caller may leave it out.
///
/// # Safety
/// As [`reference`].
pub(crate) unsafe fn optional<'a, T>(
    pointer: *const T,
    name: &str,
) -> Result<Option<&'a T>, Failure> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: the same contract.
    unsafe { reference(pointer, name) }.map(Some)
}

/// A checked place for an output, so that it can be refused before any work is done and written after all of it.
pub(crate) struct Output<T>(*mut T);

impl<T> Output<T> {
    /// # Safety
    /// If `pointer` is not NULL, a `T` may be written to it until this value is dropped.
    pub(crate) unsafe fn new(pointer: *mut T, name: &str) -> Result<Self, Failure> {
        check(pointer, name)?;
        Ok(Self(pointer))
    }

    pub(crate) fn write(self, value: T) {
        // SAFETY: checked and writable by the contract of `new`; what was there needs no drop, C owns it.
        unsafe { self.0.write(value) }
    }
}

/// A text that ends with NUL.
///
/// # Safety
/// If it is not NULL, `pointer` points to bytes up to a NUL that are not changed during `'a`.
pub(crate) unsafe fn text<'a>(pointer: *const c_char, name: &str) -> Result<&'a str, Failure> {
    check(pointer, name)?;
    // SAFETY: not NULL; ended by NUL and unchanged by this function's contract.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map_err(|error| {
        Failure::new(
            Status::InvalidUtf8,
            format!("{name} is not UTF-8: {error}; encode it as UTF-8"),
        )
    })
}

/// A path that ends with NUL: any bytes on Unix, UTF-8 elsewhere.
///
/// # Safety
/// As [`text`].
pub(crate) unsafe fn path(pointer: *const c_char, name: &str) -> Result<PathBuf, Failure> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        check(pointer, name)?;
        // SAFETY: not NULL; ended by NUL and unchanged by this function's contract.
        let bytes = unsafe { CStr::from_ptr(pointer) }.to_bytes();
        Ok(Path::new(std::ffi::OsStr::from_bytes(bytes)).to_path_buf())
    }
    #[cfg(not(unix))]
    {
        // SAFETY: the same contract.
        Ok(Path::new(unsafe { text(pointer, name) }?).to_path_buf())
    }
}

/// `length` values to read.
///
/// # Safety
/// If it is not NULL, `pointer` points to `length` values that are not changed during `'a`.
pub(crate) unsafe fn slice<'a, T>(
    pointer: *const T,
    length: usize,
    name: &str,
) -> Result<&'a [T], Failure> {
    check(pointer, name)?;
    check_length::<T>(length, name)?;
    // SAFETY: not NULL, aligned, of a size that fits; readable and unchanged by this function's contract.
    Ok(unsafe { std::slice::from_raw_parts(pointer, length) })
}

/// A caller's buffer of `capacity` values, of which `needed` will be written.
pub(crate) struct OutputBuffer<T> {
    start: *mut T,
    needed: usize,
}

impl<T: Copy> OutputBuffer<T> {
    /// # Safety
    /// If `pointer` is not NULL, `capacity` values may be written to it until this value is dropped.
    pub(crate) unsafe fn new(
        pointer: *mut T,
        capacity: usize,
        needed: usize,
        name: &str,
    ) -> Result<Self, Failure> {
        check(pointer, name)?;
        check_length::<T>(capacity, name)?;
        if capacity < needed {
            let text = format!(
                "{name} has room for {capacity} values and {needed} are needed; pass a larger buffer"
            );
            return Err(Failure::new(Status::BufferTooSmall, text));
        }
        Ok(Self {
            start: pointer,
            needed,
        })
    }

    /// Writes `values`, which are as many as were announced.
    pub(crate) fn write(self, values: &[T]) {
        assert_eq!(
            values.len(),
            self.needed,
            "an output has another length than announced"
        );
        // SAFETY: `needed` values fit by `new`; a caller's buffer does not overlap memory of ours.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), self.start, values.len()) }
    }
}

fn check_length<T>(length: usize, name: &str) -> Result<(), Failure> {
    if length
        .checked_mul(size_of::<T>())
        .is_none_or(|bytes| bytes > isize::MAX as usize)
    {
        let text = format!(
            "{name}: {length} values are more than memory can hold; pass the number of values"
        );
        return Err(Failure::new(Status::InvalidArgument, text));
    }
    Ok(())
}

fn struct_error<T: Sized32>(size: usize) -> Failure {
    let name = T::NAME;
    Failure::new(
        Status::InvalidStruct,
        format!("{name} has struct_size {size}; fill it with {name}_init(&x, sizeof x) before use"),
    )
}

/// Reads the size that the caller's struct announces.
///
/// # Safety
/// If it is not NULL, `pointer` points to at least a `u32`.
unsafe fn announced_size<T: Sized32>(pointer: *const T) -> Result<usize, Failure> {
    check(pointer, T::NAME)?;
    // SAFETY: not NULL, aligned as T and so as u32; readable by this function's contract.
    let size = unsafe { pointer.cast::<u32>().read() } as usize;
    if size < T::FIRST_SIZE || size > MAX_STRUCT_SIZE {
        Err(struct_error::<T>(size))
    } else {
        Ok(size)
    }
}

/// Copies a caller's struct: what an older header lacks gets its default; what a newer header has must be zero.
///
/// # Safety
/// If it is not NULL, `pointer` points to as many bytes as its `struct_size` says.
pub(crate) unsafe fn read_struct<T: Sized32>(pointer: *const T) -> Result<T, Failure> {
    // SAFETY: the same contract.
    let size = unsafe { announced_size(pointer) }?;
    let known = size.min(size_of::<T>());
    let mut value = T::defaults();
    // SAFETY: both sides hold `known` bytes and every bit pattern is a valid T (contract of Sized32).
    unsafe {
        std::ptr::copy_nonoverlapping(pointer.cast::<u8>(), (&raw mut value).cast::<u8>(), known)
    };
    // SAFETY: the bytes from `known` to `size` belong to the caller's struct.
    let beyond =
        unsafe { std::slice::from_raw_parts(pointer.cast::<u8>().add(known), size - known) };
    if beyond.iter().any(|&byte| byte != 0) {
        let text = format!(
            "{} uses fields of a newer header than this library knows; update the library",
            T::NAME
        );
        return Err(Failure::new(Status::InvalidStruct, text));
    }
    Ok(value)
}

/// A caller's initialised struct that will be written.
pub(crate) struct OutputStruct<T> {
    start: *mut T,
    size: usize,
}

impl<T: Sized32> OutputStruct<T> {
    /// # Safety
    /// If it is not NULL, as many bytes as its `struct_size` says may be written to `pointer` until this value is dropped.
    pub(crate) unsafe fn new(pointer: *mut T) -> Result<Self, Failure> {
        // SAFETY: the same contract.
        let size = unsafe { announced_size(pointer) }?;
        Ok(Self {
            start: pointer,
            size,
        })
    }

    /// Writes what the caller's header knows, and leaves its size as it is.
    pub(crate) fn write(self, value: &T) {
        let skip = size_of::<u32>();
        let known = self.size.min(size_of::<T>());
        let from = (&raw const *value).cast::<u8>();
        // SAFETY: both sides hold `known` bytes, of which the first four are the size.
        unsafe {
            std::ptr::copy_nonoverlapping(
                from.add(skip),
                self.start.cast::<u8>().add(skip),
                known - skip,
            )
        }
    }
}

/// Fills a caller's struct of `struct_size` bytes with the defaults, and with zeros beyond what this library knows.
///
/// # Safety
/// If it is not NULL, `struct_size` bytes may be written to `pointer`.
pub(crate) unsafe fn init_struct<T: Sized32>(
    pointer: *mut T,
    struct_size: usize,
) -> Result<(), Failure> {
    check(pointer, T::NAME)?;
    if !(T::FIRST_SIZE..=MAX_STRUCT_SIZE).contains(&struct_size) {
        return Err(struct_error::<T>(struct_size));
    }
    let defaults = T::defaults();
    let known = struct_size.min(size_of::<T>());
    // SAFETY: `struct_size` bytes are writable, `known` of them also readable at the defaults; the size is the aligned first field.
    unsafe {
        pointer.cast::<u8>().write_bytes(0, struct_size);
        std::ptr::copy_nonoverlapping(
            (&raw const defaults).cast::<u8>(),
            pointer.cast::<u8>(),
            known,
        );
        pointer.cast::<u32>().write(struct_size as u32);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Options {
        struct_size: u32,
        first: u32,
        appended: u32,
    }

    // SAFETY: repr(C), struct_size first, three u32 without padding.
    unsafe impl Sized32 for Options {
        const NAME: &'static str = "options";
        const FIRST_SIZE: usize = 8;
        fn defaults() -> Self {
            Self {
                struct_size: size_of::<Self>() as u32,
                first: 1,
                appended: 7,
            }
        }
    }

    #[test]
    fn a_struct_of_an_older_header_keeps_its_size_and_gets_defaults() {
        let mut words = [9u32; 3];
        // SAFETY: the array holds twelve bytes.
        unsafe { init_struct(words.as_mut_ptr().cast::<Options>(), 8) }
            .expect("the first size is valid");
        assert_eq!(words, [8, 1, 9]);
        // SAFETY: the array holds the eight bytes that it announces.
        let read = unsafe { read_struct(words.as_ptr().cast::<Options>()) }
            .expect("the first size is valid");
        assert_eq!((read.first, read.appended), (1, 7));
        // SAFETY: as above.
        let output = unsafe { OutputStruct::new(words.as_mut_ptr().cast::<Options>()) }
            .expect("the first size is valid");
        output.write(&Options {
            struct_size: 12,
            first: 5,
            appended: 6,
        });
        assert_eq!(words, [8, 5, 9]);
    }

    #[test]
    fn a_struct_of_a_newer_header_must_leave_the_unknown_at_zero() {
        let mut words = [9u32; 5];
        // SAFETY: the array holds twenty bytes.
        unsafe { init_struct(words.as_mut_ptr().cast::<Options>(), 20) }.expect("larger is valid");
        assert_eq!(words, [20, 1, 7, 0, 0]);
        // SAFETY: the array holds the bytes that it announces, here and below.
        assert!(unsafe { read_struct(words.as_ptr().cast::<Options>()) }.is_ok());
        words[4] = 1;
        // SAFETY: as above.
        let error = unsafe { read_struct(words.as_ptr().cast::<Options>()) }
            .expect_err("an unknown field is in use");
        assert!(error.text.contains("update the library"), "{}", error.text);
    }

    #[test]
    fn a_struct_without_its_size_is_refused() {
        for size in [0u32, 7, 5000, u32::MAX] {
            let words = [size, 0, 0];
            // SAFETY: the size is refused before more than the first word is read.
            let error = unsafe { read_struct(words.as_ptr().cast::<Options>()) }
                .expect_err("the size is wrong");
            assert_eq!(error.status, Status::InvalidStruct);
            assert!(error.text.contains("options_init"), "{}", error.text);
        }
    }
}
