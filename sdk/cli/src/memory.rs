//! The program's allocator. Training allocates and frees the same large buffers at every step; memory that goes back to the
//! kernel in between comes again page by page and zeroed, which costs a tenth of a step.
//!
//! Where memory is refused in the middle of work whose size the user has chosen, the program says what to lower and ends; without that
//! it would be aborted with a number of bytes for all words.

use std::alloc::{GlobalAlloc, Layout};
use std::io::Write;
use std::sync::OnceLock;

use libmimalloc_sys::{mi_option_large_os_pages, mi_option_set_default, mi_option_t};
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: Telling = Telling;

/// mimalloc, with words for what is refused.
struct Telling;

/// What is being done, and what to lower if memory does not suffice for it.
static WORDS: OnceLock<String> = OnceLock::new();

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

/// From now on memory that is refused ends the program with these words and status 1. The first call in a process decides.
pub(crate) fn end_with_words(words: String) {
    let _ = WORDS.set(words);
}

/// Says that `bytes` were refused and ends the program, where there are words for it. Allocates nothing.
#[cold]
fn refused(bytes: usize) {
    if let Some(words) = WORDS.get() {
        let _ = writeln!(
            std::io::stderr(),
            "error: the system refuses {bytes} bytes more memory; {words}"
        );
        std::process::exit(1);
    }
}

// SAFETY: every call is mimalloc's own; nothing unwinds.
unsafe impl GlobalAlloc for Telling {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on, here and below.
        let start = unsafe { MiMalloc.alloc(layout) };
        if start.is_null() {
            refused(layout.size());
        }
        start
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let start = unsafe { MiMalloc.alloc_zeroed(layout) };
        if start.is_null() {
            refused(layout.size());
        }
        start
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        let start = unsafe { MiMalloc.realloc(old, layout, size) };
        if start.is_null() {
            refused(size);
        }
        start
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { MiMalloc.dealloc(start, layout) }
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::process::Command;

    use super::*;

    const CHILD: &str = "SSL_EDGE_TEST_REFUSED_MEMORY";

    /// Runs this very test in a child whose address space ends at 3 GiB.
    #[test]
    fn refused_memory_ends_the_program_with_words_and_status_1() {
        if std::env::var_os(CHILD).is_some() {
            end_with_words("lower schedule.batch".into());
            let large = vec![1u8; 8 << 30];
            unreachable!("{} bytes were given", large.len());
        }
        let this = std::env::current_exe().unwrap();
        let test = "memory::tests::refused_memory_ends_the_program_with_words_and_status_1";
        let child = Command::new("sh")
            .args(["-c", "ulimit -v 3145728 && exec \"$@\"", "sh"])
            .arg(&this)
            .args(["--exact", test])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&child.stderr);
        assert_eq!(child.status.code(), Some(1), "{text}");
        assert!(
            text.contains("8589934592 bytes") && text.contains("lower schedule.batch"),
            "{text}"
        );
    }
}
