//! The handshake between a controller (PLC) and an inspection: enable, trigger → ready, busy, result valid, result OK.
//!
//! ```text
//!             enable           trigger rises            result or timeout
//!  disabled ────────► ready ───────────────► busy ───────────────────────► result valid
//!      ▲                ▲                                                     │
//!      └── enable falls └─ trigger is low and the result was shown long enough ┘
//! ```
//!
//! With these lines a controller can tell "the device never answered" (busy does not come), "the inspection never ended" (busy stays) and "the
//! part is bad" (result valid without result OK) apart.

use super::Decision;
use serde::{Deserialize, Serialize};

/// The controller's lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs {
    /// The controller wants inspections.
    pub enable: bool,
    /// Rises when a part is in place.
    pub trigger: bool,
}

/// The device's lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {
    /// A trigger will be taken.
    pub ready: bool,
    /// An inspection is running.
    pub busy: bool,
    /// The lines below hold the result of the last trigger.
    pub result_valid: bool,
    /// The part is good. Never true without `result_valid`.
    pub result_ok: bool,
    /// The part is unlike everything taught.
    pub result_unknown: bool,
    /// The inspection was not answered in time.
    pub fault: bool,
}

/// Times in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeTiming {
    /// From a trigger to the fault, if there is no result.
    pub timeout: u32,
    /// How long a result is shown at least, for controllers that send trigger pulses; otherwise it stays until the trigger falls.
    pub hold: u32,
}

/// What happened since the start; they wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Inspections started.
    pub started: u32,
    /// Triggers that rose with enable while the device was not ready: parts that nobody looked at.
    pub missed: u32,
    /// Inspections that were not answered in time.
    pub timeouts: u32,
    /// Results that came too late, or that belong to no running inspection.
    pub stale: u32,
    /// Inspections that ended because enable fell.
    pub abandoned: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Disabled,
    Ready,
    Busy { since: u32 },
    Valid { since: u32, decision: Decision },
}

/// The state of the handshake. Call [`Handshake::poll`] for every change of the inputs and at least once a tick.
#[derive(Clone, Copy, Debug)]
pub struct Handshake {
    timing: HandshakeTiming,
    state: State,
    trigger: bool,
    sequence: u32,
    counters: Counters,
}

impl Handshake {
    /// A handshake that is disabled. The trigger counts as high, so that one that is high at the start must fall before it can rise.
    pub const fn new(timing: HandshakeTiming) -> Self {
        Self {
            timing,
            state: State::Disabled,
            trigger: true,
            sequence: 0,
            counters: Counters {
                started: 0,
                missed: 0,
                timeouts: 0,
                stale: 0,
                abandoned: 0,
            },
        }
    }

    /// Takes the inputs at time `now`; the number of the inspection to start, if one starts.
    pub fn poll(&mut self, now: u32, inputs: Inputs) -> Option<u32> {
        let rises = inputs.trigger && !self.trigger;
        self.trigger = inputs.trigger;
        if !inputs.enable {
            if matches!(self.state, State::Busy { .. }) {
                self.counters.abandoned = self.counters.abandoned.wrapping_add(1);
            }
            self.state = State::Disabled;
            return None;
        }
        self.pass_time(now);
        match self.state {
            State::Ready if rises => {
                self.sequence = self.sequence.wrapping_add(1);
                self.counters.started = self.counters.started.wrapping_add(1);
                self.state = State::Busy { since: now };
                Some(self.sequence)
            }
            other => {
                if rises {
                    self.counters.missed = self.counters.missed.wrapping_add(1);
                }
                if other == State::Disabled {
                    self.state = State::Ready;
                }
                None
            }
        }
    }

    /// What ends by itself: an inspection that takes too long, a result that was shown long enough.
    fn pass_time(&mut self, now: u32) {
        match self.state {
            State::Busy { since } if now.wrapping_sub(since) >= self.timing.timeout => {
                self.counters.timeouts = self.counters.timeouts.wrapping_add(1);
                self.state = State::Valid {
                    since: now,
                    decision: Decision::Timeout,
                };
            }
            State::Valid { since, .. }
                if !self.trigger && now.wrapping_sub(since) >= self.timing.hold =>
            {
                self.state = State::Ready;
            }
            _ => {}
        }
    }

    /// Takes the decision on inspection `sequence` at time `now`; whether it was the one that runs, in time.
    pub fn finish(&mut self, now: u32, sequence: u32, decision: Decision) -> bool {
        self.pass_time(now);
        let runs = matches!(self.state, State::Busy { .. }) && sequence == self.sequence;
        if runs {
            self.state = State::Valid {
                since: now,
                decision,
            };
        } else {
            self.counters.stale = self.counters.stale.wrapping_add(1);
        }
        runs
    }

    /// The lines to drive.
    pub fn outputs(&self) -> Outputs {
        let shown = match self.state {
            State::Valid { decision, .. } => Some(decision),
            _ => None,
        };
        Outputs {
            ready: self.state == State::Ready,
            busy: matches!(self.state, State::Busy { .. }),
            result_valid: shown.is_some(),
            result_ok: shown == Some(Decision::Accept),
            result_unknown: shown == Some(Decision::Unknown),
            fault: shown == Some(Decision::Timeout),
        }
    }

    /// The decision that the lines show.
    pub fn shown(&self) -> Option<Decision> {
        match self.state {
            State::Valid { decision, .. } => Some(decision),
            _ => None,
        }
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }
}
