//! The wall between Rust and C: no panic crosses it, and nothing is printed on the way.

use crate::status::{Failure, set_last_error, ssl_edge_status};
use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::sync::Once;

thread_local! {
    static PANIC_PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs the body of an exported function. A failure or a panic becomes a status and the thread's last error.
pub(crate) fn guard(body: impl FnOnce() -> Result<(), Failure>) -> ssl_edge_status {
    silence_panics();
    // What the body could leave half changed is behind a lock that a panic poisons, so a later call finds out.
    let outcome = catch_unwind(AssertUnwindSafe(body))
        .unwrap_or_else(|payload| Err(panicked(payload.as_ref())));
    match outcome {
        Ok(()) => ssl_edge_status::Ok,
        Err(failure) => {
            set_last_error(&failure.text);
            failure.status
        }
    }
}

/// The default hook writes to stderr, which belongs to the host program. The hook set here is this library's own copy, not the host's.
fn silence_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string);
            let _ = PANIC_PLACE.try_with(|last| last.replace(place));
        }));
    });
}

fn panicked(payload: &(dyn Any + Send)) -> Failure {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    let place = PANIC_PLACE.try_with(RefCell::take).ok().flatten();
    let place = place.unwrap_or_else(|| "a worker thread".into());
    Failure::new(
        ssl_edge_status::Panicked,
        format!(
            "ssl_edge panicked at {place}: {text}; free the object in use, and report this with the text"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::ssl_edge_last_error;
    use std::ffi::CStr;

    fn last_error() -> String {
        // SAFETY: the pointer is valid until the next call in this thread, and is copied at once.
        unsafe { CStr::from_ptr(ssl_edge_last_error()) }
            .to_str()
            .expect("UTF-8")
            .to_owned()
    }

    #[test]
    fn a_panic_becomes_a_status_with_place_and_text() {
        assert_eq!(
            guard(|| panic!("seven of {}", 9)),
            ssl_edge_status::Panicked
        );
        assert!(last_error().contains("guard.rs"), "{}", last_error());
        assert!(last_error().contains("seven of 9"), "{}", last_error());
    }

    #[test]
    fn errors_belong_to_their_thread_and_outlive_success() {
        let fail = |text: &str| guard(|| Err(Failure::new(ssl_edge_status::Io, text)));
        assert_eq!(fail("here\0!"), ssl_edge_status::Io);
        assert_eq!(guard(|| Ok(())), ssl_edge_status::Ok);
        std::thread::spawn(move || {
            assert_eq!(last_error(), "");
            fail("there");
            assert_eq!(last_error(), "there");
        })
        .join()
        .expect("the thread's assertions hold");
        assert_eq!(last_error(), "here!");
    }
}
