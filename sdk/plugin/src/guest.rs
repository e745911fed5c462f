//! The side of the plug-in: a trait to fill in, and the table of functions over it.

use std::any::Any;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::Refusal;
use crate::abi::{self, Api, DeviceInfo, Model, OpenOptions, Text};

/// What an engine can say no with.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which kind.
    pub refusal: Refusal,
    /// Why, and what helps, for people.
    pub reason: String,
}

impl Failure {
    /// A failure of a kind.
    pub fn new(refusal: Refusal, reason: impl Into<String>) -> Self {
        Self {
            refusal,
            reason: reason.into(),
        }
    }
}

/// A device and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestDevice {
    /// Its name.
    pub name: String,
    /// Version of its instruction set.
    pub version: [u32; 2],
    /// Bytes of its memory.
    pub memory: u64,
}

/// A tensor as it came over.
#[derive(Clone, Copy, Debug)]
pub struct GuestTensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its values, row-major.
    pub values: &'a [f32],
}

/// An engine.
pub trait Engine {
    /// An encoder on a device.
    type Encoder: Send;

    /// What the plug-in is, in words.
    fn about() -> String;

    /// Number of devices.
    ///
    /// # Errors
    /// What keeps any from being used.
    fn device_count() -> Result<u32, Failure>;

    /// A device.
    ///
    /// # Errors
    /// There is none of this number.
    fn device(device: u32) -> Result<GuestDevice, Failure>;

    /// Makes an encoder ready.
    ///
    /// # Errors
    /// Why it cannot be.
    fn open(
        model: &Model,
        tensors: &[GuestTensor<'_>],
        options: &OpenOptions,
    ) -> Result<Self::Encoder, Failure>;

    /// Values of an image, of its CLS token and of its patch tokens.
    fn sizes(encoder: &Self::Encoder) -> [usize; 3];

    /// Tokens of `images`.
    ///
    /// # Errors
    /// What failed.
    fn run(
        encoder: &mut Self::Encoder,
        images: &[f32],
        batch: usize,
        cls: &mut [f32],
        patches: &mut [f32],
    ) -> Result<(), Failure>;

    /// Bytes of the device's memory.
    fn memory(encoder: &Self::Encoder) -> u64;
}

/// The table over an engine.
pub const fn api<E: Engine>() -> Api {
    Api {
        struct_size: size_of::<Api>(),
        version: abi::VERSION,
        reserved: 0,
        about: about::<E>,
        device_count: device_count::<E>,
        device: device::<E>,
        open: open::<E>,
        run: run::<E>,
        memory: memory::<E>,
        close: close::<E>,
    }
}

/// Exports the two functions of a plug-in for a type that is an [`Engine`].
#[macro_export]
macro_rules! export_engine {
    ($engine:ty) => {
        /// See `ssl_edge_plugin::abi::Versions`.
        ///
        /// # Safety
        /// Both pointers are NULL or can be written.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn ssl_edge_engine_versions(oldest: *mut u32, newest: *mut u32) {
            for version in [oldest, newest] {
                if !version.is_null() {
                    // SAFETY: the caller's contract.
                    unsafe { version.write($crate::abi::VERSION) };
                }
            }
        }

        /// See `ssl_edge_plugin::abi::GetApi`.
        #[unsafe(no_mangle)]
        pub extern "C" fn ssl_edge_engine_get_api(version: u32) -> *const $crate::abi::Api {
            static API: $crate::abi::Api = $crate::guest::api::<$engine>();
            if version == $crate::abi::VERSION {
                &raw const API
            } else {
                std::ptr::null()
            }
        }
    };
}

/// Writes what fits.
///
/// # Safety
/// `text` is NULL or a room of `capacity` bytes.
unsafe fn write(text: *mut Text, value: &str) {
    // SAFETY: the caller's contract.
    let Some(text) = (unsafe { text.as_mut() }) else {
        return;
    };
    if text.data.is_null() {
        text.len = 0;
        return;
    }
    let mut len = value.len().min(text.capacity);
    while !value.is_char_boundary(len) {
        len -= 1;
    }
    // SAFETY: there is room for `capacity` bytes, and `len` is no more.
    unsafe { std::ptr::copy_nonoverlapping(value.as_ptr(), text.data, len) };
    text.len = len;
}

/// Runs `body`; what it says no with, or panics with, becomes a number and a text.
///
/// # Safety
/// `error` is NULL or a room of `capacity` bytes.
unsafe fn guard(error: *mut Text, body: impl FnOnce() -> Result<(), Failure>) -> u32 {
    let failure = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return abi::OK,
        Ok(Err(failure)) => failure,
        Err(panic) => {
            let reason = format!("the plug-in panicked: {}", message(&*panic));
            // What the panic carries may panic when it is dropped; what that carries is left alone.
            if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
                std::mem::forget(second);
            }
            Failure::new(Refusal::Panicked, reason)
        }
    };
    // SAFETY: the caller's contract.
    unsafe { write(error, &failure.reason) };
    failure.refusal.status()
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

fn null(what: &str) -> Failure {
    Failure::new(Refusal::Invalid, format!("{what} is NULL"))
}

unsafe extern "C" fn about<E: Engine>(about: *mut Text) -> u32 {
    let body = || {
        // SAFETY: the table's contract: NULL or a room.
        unsafe { write(about, &E::about()) };
        Ok(())
    };
    // SAFETY: NULL.
    unsafe { guard(std::ptr::null_mut(), body) }
}

unsafe extern "C" fn device_count<E: Engine>(count: *mut u32, error: *mut Text) -> u32 {
    let body = || {
        // SAFETY: the table's contract: NULL or a number that can be written.
        let to = unsafe { count.as_mut() }.ok_or_else(|| null("count"))?;
        *to = E::device_count()?;
        Ok(())
    };
    // SAFETY: the table's contract.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn device<E: Engine>(
    device: u32,
    info: *mut DeviceInfo,
    name: *mut Text,
    error: *mut Text,
) -> u32 {
    let body = || {
        // SAFETY: the table's contract: NULL or a struct of the size that it says.
        let to = unsafe { info.as_mut() }.ok_or_else(|| null("info"))?;
        if to.struct_size < size_of::<DeviceInfo>() {
            return Err(Failure::new(Refusal::Invalid, "info is too small"));
        }
        let found = E::device(device)?;
        [to.major, to.minor] = found.version;
        to.memory = found.memory;
        // SAFETY: the table's contract: NULL or a room.
        unsafe { write(name, &found.name) };
        Ok(())
    };
    // SAFETY: the table's contract.
    unsafe { guard(error, body) }
}

/// The tensors of a model.
///
/// # Safety
/// The pointers are those of a model that is alive.
unsafe fn tensors(model: &Model) -> Result<Vec<GuestTensor<'_>>, Failure> {
    if model.tensors.is_null() {
        return Err(null("model.tensors"));
    }
    // SAFETY: the caller's contract.
    let tensors = unsafe { std::slice::from_raw_parts(model.tensors, model.n_tensors) };
    tensors
        .iter()
        .map(|tensor| {
            if tensor.name.is_null() || tensor.values.is_null() {
                return Err(null("a tensor"));
            }
            // SAFETY: the caller's contract.
            let name = unsafe { std::slice::from_raw_parts(tensor.name, tensor.name_len) };
            let name = std::str::from_utf8(name)
                .map_err(|_| Failure::new(Refusal::Invalid, "a tensor's name is not UTF-8"))?;
            // SAFETY: the caller's contract.
            let values = unsafe { std::slice::from_raw_parts(tensor.values, tensor.len) };
            Ok(GuestTensor { name, values })
        })
        .collect()
}

unsafe extern "C" fn open<E: Engine>(
    model: *const Model,
    options: *const OpenOptions,
    encoder: *mut *mut c_void,
    error: *mut Text,
) -> u32 {
    let body = || {
        // SAFETY: the table's contract: NULL or structs of the sizes that they say, and a pointer that can be written.
        let (model, options, to) = unsafe { (model.as_ref(), options.as_ref(), encoder.as_mut()) };
        let model = model.ok_or_else(|| null("model"))?;
        let options = options.ok_or_else(|| null("options"))?;
        let to = to.ok_or_else(|| null("encoder"))?;
        if model.struct_size < size_of::<Model>() || options.struct_size < size_of::<OpenOptions>()
        {
            return Err(Failure::new(
                Refusal::Invalid,
                "model or options are too small",
            ));
        }
        // SAFETY: the table's contract.
        let tensors = unsafe { tensors(model) }?;
        let opened = E::open(model, &tensors, options)?;
        *to = Box::into_raw(Box::new(opened)).cast();
        Ok(())
    };
    // SAFETY: the table's contract.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn run<E: Engine>(
    encoder: *mut c_void,
    images: *const f32,
    batch: usize,
    cls: *mut f32,
    patches: *mut f32,
    error: *mut Text,
) -> u32 {
    let body = || {
        // SAFETY: the table's contract: NULL or from `open`, used by this call alone.
        let encoder = unsafe { encoder.cast::<E::Encoder>().as_mut() };
        let encoder = encoder.ok_or_else(|| null("encoder"))?;
        if images.is_null() || cls.is_null() || patches.is_null() {
            return Err(null("images, cls or patches"));
        }
        let lens = E::sizes(encoder).map(|one| one.checked_mul(batch));
        let [Some(image), Some(class), Some(rest)] = lens else {
            return Err(Failure::new(Refusal::Invalid, "the batch is too large"));
        };
        // SAFETY: the table's contract: arrays of these sizes.
        let (images, cls, patches) = unsafe {
            (
                std::slice::from_raw_parts(images, image),
                std::slice::from_raw_parts_mut(cls, class),
                std::slice::from_raw_parts_mut(patches, rest),
            )
        };
        E::run(encoder, images, batch, cls, patches)
    };
    // SAFETY: the table's contract.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn memory<E: Engine>(encoder: *const c_void, bytes: *mut u64) -> u32 {
    let body = || {
        // SAFETY: the table's contract: NULL or from `open`, and a number that can be written.
        let (encoder, to) = unsafe { (encoder.cast::<E::Encoder>().as_ref(), bytes.as_mut()) };
        let encoder = encoder.ok_or_else(|| null("encoder"))?;
        *to.ok_or_else(|| null("bytes"))? = E::memory(encoder);
        Ok(())
    };
    // SAFETY: NULL.
    unsafe { guard(std::ptr::null_mut(), body) }
}

unsafe extern "C" fn close<E: Engine>(encoder: *mut c_void) {
    if encoder.is_null() {
        return;
    }
    let body = || {
        // SAFETY: the table's contract: from `open`, and used no more.
        drop(unsafe { Box::from_raw(encoder.cast::<E::Encoder>()) });
        Ok(())
    };
    // SAFETY: NULL. What fails while it is freed has nobody to be told.
    unsafe { guard(std::ptr::null_mut(), body) };
}
