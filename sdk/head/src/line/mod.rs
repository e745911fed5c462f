//! Between a verdict and a machine: decisions, the trigger handshake, votes, the reject gate.
//!
//! Nothing here knows hardware or an operating system: inputs come in with a time in ticks, outputs are returned. Times are `u32` that wrap;
//! differences up to half of the range are understood.

mod gate;
mod handshake;
mod vote;

pub use gate::{GateQueue, GateTiming, Late};
pub use handshake::{Counters, Handshake, HandshakeTiming, Inputs, Outputs};
pub use vote::Vote;

use crate::MAX_CLASSES;
use crate::verdict::Verdict;
use serde::{Deserialize, Serialize};

/// What happens to a part, from the most harmless to the most cautious.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Decision {
    /// Good.
    Accept,
    /// Unlike everything taught: for a person to look at.
    Unknown,
    /// Bad.
    Reject,
    /// There was no verdict in time; treated as bad.
    Timeout,
}

/// Turns verdicts into decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Bit `c % 32` of word `c / 32`: class `c` is good. No class is good by default.
    pub good: [u32; MAX_CLASSES / 32],
    /// A good class with a lower score (Q15) is [`Decision::Unknown`].
    pub least_score: u16,
}

impl Policy {
    /// The policy under which the classes with these indices are good.
    pub fn accepting(classes: &[u16], least_score: u16) -> Self {
        let mut good = [0; MAX_CLASSES / 32];
        for class in classes {
            if let Some(word) = good.get_mut(usize::from(class / 32)) {
                *word |= 1 << (class % 32);
            }
        }
        Self { good, least_score }
    }

    /// The decision on a part.
    pub fn decide(&self, verdict: &Verdict) -> Decision {
        let word = self.good.get(usize::from(verdict.class / 32));
        let good = word.is_some_and(|word| word >> (verdict.class % 32) & 1 == 1);
        match (verdict.unknown, good) {
            (true, _) => Decision::Unknown,
            (false, false) => Decision::Reject,
            (false, true) if verdict.score < self.least_score => Decision::Unknown,
            (false, true) => Decision::Accept,
        }
    }
}

/// Whether `time` is at or behind `due`, on a clock that wraps.
pub(crate) fn is_due(time: u32, due: u32) -> bool {
    time.wrapping_sub(due) <= u32::MAX / 2
}
