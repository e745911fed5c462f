//! How long a call may take, and who may end it.

use crate::guard::guard;
use crate::pointer::{Output, Sized32, init_struct, optional, read_struct, reference};
use crate::status::{Failure, ssl_edge_status};
use sdk::encoder::{CancelToken, Limit};
use std::mem::offset_of;
use std::ptr;
use std::time::Duration;

/// A switch that ends calls early, from any thread: those that were given it (ssl_edge_call_options.cancel) and have not ended, and those that begin
/// while it is triggered.
///
/// Where several threads hold the switch, each takes a handle of its own with ssl_edge_cancel_share and frees it when it is done: none has to know
/// which is the last, and a handle that is freed disturbs neither the others nor the calls that were given them.
///
/// Thread safety: all functions may be called on one handle from many threads at once, except ssl_edge_cancel_free, which must be the last on that
/// handle. None of them waits.
pub struct ssl_edge_cancel {
    inner: CancelToken,
}

impl ssl_edge_cancel {
    fn handle(inner: CancelToken) -> *mut Self {
        Box::into_raw(Box::new(Self { inner }))
    }
}

/// When to give up a call that sees frames. Fill it with ssl_edge_call_options_init before use.
///
/// A call that is given up returns SSL_EDGE_STATUS_TIMED_OUT or SSL_EDGE_STATUS_CANCELLED. Its outputs are as they were, and so is all that it worked
/// on: later calls give what they would have given without it. Calls are given up while they wait for calls of other threads or for a change of the
/// job, and while the engine runs: the native engine looks every few dozen tokens of a block, the onnx engine between operations, the cuda engine
/// before and after a pass. The comparison of patches and the verdict, the last milliseconds of a call, are not cut short.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ssl_edge_call_options {
    /// Size of this struct in bytes; set by ssl_edge_call_options_init.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Microseconds from the beginning of the call; after init UINT64_MAX, which is no limit. 0 gives up at once.
    pub timeout_us: u64,
    /// Ends the call when it is triggered; NULL, as after init, for none.
    pub cancel: *const ssl_edge_cancel,
    /// Zero.
    pub reserved_end: usize,
}

// SAFETY: repr(C), struct_size first, two u32, a u64 at offset 8, a raw pointer and a usize: no padding on 32 and 64 bit.
unsafe impl Sized32 for ssl_edge_call_options {
    const NAME: &'static str = "ssl_edge_call_options";
    const FIRST_SIZE: usize = offset_of!(ssl_edge_call_options, reserved_end) + size_of::<usize>();

    fn defaults() -> Self {
        Self {
            struct_size: size_of::<Self>() as u32,
            reserved: 0,
            timeout_us: u64::MAX,
            cancel: ptr::null(),
            reserved_end: 0,
        }
    }
}

/// The limit that begins now.
///
/// # Safety
/// If it is not NULL, `options` points to as many bytes as its `struct_size` says, and its `cancel` is NULL or a handle, for the time of this call.
pub(crate) unsafe fn limit(options: *const ssl_edge_call_options) -> Result<Limit, Failure> {
    // SAFETY: the same contract.
    let options = unsafe { read_struct(options) }?;
    if options.reserved != 0 || options.reserved_end != 0 {
        let text = "ssl_edge_call_options: reserved or reserved_end is not 0; fill the options with ssl_edge_call_options_init";
        return Err(Failure::new(ssl_edge_status::InvalidStruct, text));
    }
    let limit = match options.timeout_us {
        u64::MAX => Limit::default(),
        us => Limit::within(Duration::from_micros(us)),
    };
    // SAFETY: the same contract.
    let cancel = unsafe { optional(options.cancel, "ssl_edge_call_options.cancel") }?;
    Ok(match cancel {
        Some(cancel) => limit.or_when(&cancel.inner),
        None => limit,
    })
}

/// As [`limit`]; none for NULL, where options of another kind point to it.
///
/// # Safety
/// As [`limit`].
pub(crate) unsafe fn optional_limit(
    options: *const ssl_edge_call_options,
) -> Result<Limit, Failure> {
    if options.is_null() {
        return Ok(Limit::default());
    }
    // SAFETY: the same contract.
    unsafe { limit(options) }
}

/// Fills call options with their defaults: no limit.
///
/// @param options      the struct to fill
/// @param struct_size  sizeof(ssl_edge_call_options)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_call_options_init(
    options: *mut ssl_edge_call_options,
    struct_size: usize,
) -> ssl_edge_status {
    // SAFETY: the caller passes NULL or a struct of `struct_size` bytes.
    guard(|| unsafe { init_struct(options, struct_size) })
}

/// Makes a switch that is not triggered.
///
/// @param cancel  its handle; free it with ssl_edge_cancel_free
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_cancel_new(cancel: *mut *mut ssl_edge_cancel) -> ssl_edge_status {
    guard(|| {
        // SAFETY: NULL or a place for a pointer, for the time of this call.
        let output = unsafe { Output::new(cancel, "cancel") }?;
        output.write(ssl_edge_cancel::handle(CancelToken::default()));
        Ok(())
    })
}

/// Makes one more handle to the same switch, for another thread to keep.
///
/// @param cancel  a switch
/// @param shared  the new handle; free it with ssl_edge_cancel_free, before or after the other
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_cancel_share(
    cancel: *const ssl_edge_cancel,
    shared: *mut *mut ssl_edge_cancel,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (cancel, output) =
            unsafe { (reference(cancel, "cancel")?, Output::new(shared, "shared")?) };
        output.write(ssl_edge_cancel::handle(cancel.inner.clone()));
        Ok(())
    })
}

/// Ends the calls that were given the switch, and those that will be, until it is reset.
///
/// @param cancel  a switch
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_cancel_trigger(
    cancel: *const ssl_edge_cancel,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: NULL or a handle, for the time of this call.
        unsafe { reference(cancel, "cancel") }?.inner.cancel();
        Ok(())
    })
}

/// Makes the switch as new, for calls that begin from here on. A call that was being ended may go on if it had not noticed yet: reset when all have
/// returned.
///
/// @param cancel  a switch
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_cancel_reset(cancel: *const ssl_edge_cancel) -> ssl_edge_status {
    guard(|| {
        // SAFETY: NULL or a handle, for the time of this call.
        unsafe { reference(cancel, "cancel") }?.inner.reset();
        Ok(())
    })
}

/// Frees a handle. NULL does nothing. Other handles to the switch stay valid, and calls that have begun can still be ended through them.
///
/// @param cancel  not used by any thread, now or later, and not in call options that will be used
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_cancel_free(cancel: *mut ssl_edge_cancel) {
    if cancel.is_null() {
        return;
    }
    guard(|| {
        // SAFETY: it came from ssl_edge_cancel_new or ssl_edge_cancel_share, and the caller frees it once.
        drop(unsafe { Box::from_raw(cancel) });
        Ok(())
    });
}
