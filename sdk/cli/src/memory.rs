//! The program's allocator. Training allocates and frees the same large buffers at every step; memory that goes back to the
//! kernel in between comes again page by page and zeroed, which costs a tenth of a step.

use libmimalloc_sys::{mi_option_large_os_pages, mi_option_set_default, mi_option_t};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// mimalloc's `mi_option_purge_delay`, milliseconds until free memory is given back, -1 for never.
const PURGE_DELAY: mi_option_t = 15;

/// Keeps freed memory for the next step. What `MIMALLOC_PURGE_DELAY` and `MIMALLOC_ALLOW_LARGE_OS_PAGES` say goes first.
pub(crate) fn keep_freed_memory() {
    // SAFETY: both calls store an integer in the allocator's own table and may come at any time.
    unsafe {
        mi_option_set_default(PURGE_DELAY, -1);
        mi_option_set_default(mi_option_large_os_pages, 1);
    }
}
