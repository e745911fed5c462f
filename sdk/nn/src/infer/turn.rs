//! Whose turn it is: calls that share memory wait for each other, asleep, and may give up waiting.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Stop;

/// How often a call that may give up asks whether to, while another has the turn.
const ASK_EVERY: Duration = Duration::from_millis(1);

/// One call at a time.
#[derive(Default)]
pub(super) struct Turns {
    taken: Mutex<bool>,
    free: Condvar,
}

/// Ends the turn when it is dropped, also by a panic.
pub(super) struct Turn<'a>(&'a Turns);

impl Turns {
    /// Sleeps until it is this call's turn; `None` once `stop` says so.
    pub(super) fn take(&self, stop: Option<&Stop<'_>>) -> Option<Turn<'_>> {
        let mut taken = self.lock();
        while *taken {
            taken = match stop {
                None => self
                    .free
                    .wait(taken)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(stop) if stop() => return None,
                Some(_) => {
                    let woken = self.free.wait_timeout(taken, ASK_EVERY);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        *taken = true;
        Some(Turn(self))
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.lock() = false;
        self.0.free.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn no_two_calls_have_the_turn_at_once() {
        let (turns, inside) = (Turns::default(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (turns, inside) = (&turns, &inside);
                scope.spawn(move || {
                    let never: &Stop<'_> = &|| false;
                    for _ in 0..200 {
                        let turn = turns.take((thread % 2 == 0).then_some(never));
                        assert!(turn.is_some());
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
    }

    #[test]
    fn who_gives_up_leaves_the_turn_to_others() {
        let turns = Turns::default();
        let first = turns.take(None);
        let asked = AtomicUsize::new(0);
        let gave_up = turns.take(Some(&|| asked.fetch_add(1, Ordering::SeqCst) == 3));
        assert!(gave_up.is_none());
        drop(first);
        assert!(turns.take(None).is_some());
    }
}
