//! Status codes and the last error of each thread.

use std::cell::RefCell;
use std::ffi::{CString, c_char};

/// What a function returns. Numbers never change their meaning; new ones are appended, so a program must expect numbers it does not know.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ssl_edge_status {
    /// Success: the outputs are written.
    Ok = 0,
    /// A pointer is NULL. The error text names the parameter.
    NullPointer = 1,
    /// A parameter is out of its range.
    InvalidArgument = 2,
    /// A struct was not filled by its init function, or comes from a newer header and uses what this library does not know.
    InvalidStruct = 3,
    /// A text is not UTF-8.
    InvalidUtf8 = 4,
    /// The caller's buffer is too small. The error text says what is needed.
    BufferTooSmall = 5,
    /// The frame's stride, size, pixel format or region of interest does not fit.
    InvalidFrame = 6,
    /// An embedding holds a NaN or an infinity, or has the wrong length.
    InvalidEmbedding = 7,
    /// A file cannot be read or written.
    Io = 8,
    /// The bundle is damaged or is none.
    InvalidBundle = 9,
    /// The job file is damaged or is none.
    InvalidJob = 10,
    /// The job or the golden parts were taught with another encoder.
    WrongEncoder = 11,
    /// The engine is not built into this library, or cannot run the bundle in the precision asked for.
    EngineUnavailable = 12,
    /// The engine does not reproduce the bundle's golden vectors.
    GoldenMismatch = 13,
    /// The job has no class of that id or index.
    UnknownClass = 14,
    /// The job has no sample of that id.
    UnknownSample = 15,
    /// The class name is empty or taken.
    InvalidClassName = 16,
    /// The samples do not allow a fit: no class, a class without a sample, or all embeddings equal; no golden part; reference frames that are unknown.
    CannotFit = 17,
    /// The job was changed since its last fit, or never fitted.
    NotFitted = 18,
    /// The library failed inside: report it with the error text.
    Internal = 19,
    /// The library panicked inside: report it with the error text, and free the object that was in use.
    Panicked = 20,
    /// The frame was taught already, bit for bit: with the same label, with another one, or as another golden part; or it is to be a reference.
    AlreadyTaught = 21,
    /// The bundle is not signed by the key that was required, or its signature does not hold.
    UntrustedBundle = 22,
    /// The job looks at no surfaces, so there is no heat, and nothing that an ignore mask could leave out.
    NoSurface = 23,
    /// The job's head cannot run on a device.
    NoDeviceHead = 24,
    /// The golden file is damaged or is none.
    InvalidGolden = 25,
    /// The job was changed since the monitor was made.
    JobChanged = 26,
    /// The time given for the frame was over before it was done. The error text says how far it came; the encoder is ready for other frames.
    TimedOut = 27,
    /// The call's ssl_edge_cancel was triggered before it was done. The error text says how far it came; the encoder is ready for other frames.
    Cancelled = 28,
    /// The ignore mask ignores nothing, or leaves nothing of a frame, or has fewer pixels than a frame has patches.
    InvalidMask = 29,
    /// A sample was taught without a thumbnail (ssl_edge_teach_options.thumbnail_side), so its job cannot move to another encoder.
    NoThumbnail = 30,
}

/// A failed call: the status that it returns and the text that it leaves.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: ssl_edge_status,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(status: ssl_edge_status, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
        }
    }
}

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

/// Keeps `text` for [`ssl_edge_last_error`] of this thread. A thread that is ending has nobody left to ask.
pub(crate) fn set_last_error(text: &str) {
    let printable: Vec<u8> = text.bytes().filter(|&byte| byte != 0).collect();
    let text = CString::new(printable).unwrap_or_default();
    let _ = LAST_ERROR.try_with(|last| last.replace(text));
}

/// What went wrong in the last call that failed in this thread, and what to do about it: UTF-8, never NULL, "" before the first failure.
/// A call that succeeds leaves the text as it is. The pointer is valid until the next ssl_edge call in the same thread.
#[unsafe(no_mangle)]
pub extern "C" fn ssl_edge_last_error() -> *const c_char {
    LAST_ERROR
        .try_with(|last| last.borrow().as_ptr())
        .unwrap_or(c"".as_ptr())
}
