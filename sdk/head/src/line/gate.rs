//! The reject gate: it opens a fixed time after the trigger, however long the inspection took.

use super::{Decision, is_due};
use heapless::Deque;

/// Times in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateTiming {
    /// From the trigger until the part is at the gate.
    pub travel: u32,
    /// How long the gate is driven for a part.
    pub pulse: u32,
}

/// A decision that came when its part had passed the gate, or while more parts were on their way than the queue holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the decision came too late for its part, or the gate's queue is full; stop the line or take the part out by hand"
)]
pub struct Late;

/// Up to `N` parts on their way to the gate that it must push out.
#[derive(Clone, Debug)]
pub struct GateQueue<const N: usize> {
    timing: GateTiming,
    /// When the gate is to be driven for each, in the order of the triggers.
    due: Deque<u32, N>,
}

impl<const N: usize> GateQueue<N> {
    /// A queue without parts.
    pub const fn new(timing: GateTiming) -> Self {
        Self {
            timing,
            due: Deque::new(),
        }
    }

    /// Takes the decision on the part that triggered at `triggered`; the time is `now`. Decisions come in the order of their triggers. Everything
    /// but [`Decision::Accept`] drives the gate.
    ///
    /// # Errors
    ///
    /// [`Late`]: the part cannot be pushed out by the gate any more.
    pub fn decide(&mut self, now: u32, triggered: u32, decision: Decision) -> Result<(), Late> {
        if decision == Decision::Accept {
            return Ok(());
        }
        let due = triggered.wrapping_add(self.timing.travel);
        if is_due(now, due.wrapping_add(1)) {
            return Err(Late);
        }
        self.due.push_back(due).map_err(|_| Late)
    }

    /// Whether the gate is driven at time `now`. Call it at least once a tick.
    pub fn drive(&mut self, now: u32) -> bool {
        while let Some(due) = self.due.front() {
            if !is_due(now, due.wrapping_add(self.timing.pulse)) {
                return is_due(now, *due);
            }
            self.due.pop_front();
        }
        false
    }
}
