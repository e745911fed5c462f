//! A vote over the last frames of one part or of a moving web.

use super::Decision;
use heapless::Deque;

/// The last `N` decisions.
#[derive(Clone, Debug)]
pub struct Vote<const N: usize> {
    last: Deque<Decision, N>,
}

impl<const N: usize> Vote<N> {
    /// A vote without decisions.
    pub const fn new() -> Self {
        const { assert!(N > 0, "a vote needs a window") }
        Self { last: Deque::new() }
    }

    /// Adds a decision, forgetting the oldest of `N`. The one with the most votes once there are `N`; among equals the most cautious.
    pub fn push(&mut self, decision: Decision) -> Option<Decision> {
        if self.last.is_full() {
            self.last.pop_front();
        }
        // There is room: one was removed.
        let _ = self.last.push_back(decision);
        if !self.last.is_full() {
            return None;
        }
        let votes = |decision: &Decision| self.last.iter().filter(|x| *x == decision).count();
        let all = [
            Decision::Accept,
            Decision::Unknown,
            Decision::Reject,
            Decision::Timeout,
        ];
        all.into_iter().max_by_key(votes)
    }

    /// Forgets all: for the next part, or after the job was changed.
    pub fn clear(&mut self) {
        self.last.clear();
    }
}

impl<const N: usize> Default for Vote<N> {
    fn default() -> Self {
        Self::new()
    }
}
