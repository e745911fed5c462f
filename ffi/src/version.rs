//! Versions of the library.

use std::ffi::{CStr, c_char};

/// Version of the binary interface that this header describes. It rises when a program must be compiled anew.
pub const SSL_EDGE_ABI_VERSION: u32 = 1;

const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => panic!("the package version holds a NUL"),
    };

/// The version of the library at run time, such as "0.1.0". Never NULL; valid for ever.
#[unsafe(no_mangle)]
pub extern "C" fn ssl_edge_version() -> *const c_char {
    VERSION.as_ptr()
}

/// The binary interface of the library at run time; compare it with SSL_EDGE_ABI_VERSION.
#[unsafe(no_mangle)]
pub extern "C" fn ssl_edge_abi_version() -> u32 {
    SSL_EDGE_ABI_VERSION
}
