//! Messages between a station and a device over a serial line.
//!
//! A frame is `0, COBS(version, message, CRC-32 of both), 0`: the message in postcard's wire format, the CRC (ISO-HDLC) little-endian. COBS keeps
//! zeros out of a frame, so that a zero ends whatever came before: a reader that starts in the middle, or that was fed noise, finds the next
//! frame. The zero in front keeps noise on an idle line apart from the frame that follows it.
//!
//! The version stands first and outside the message. A change that older ends would misread raises it; new messages are appended to
//! [`Body`], and an end that does not know one answers [`WireError::Message`](crate::WireError::Message).

mod frame;

pub use frame::{Reader, encode, encoded_length};

use crate::line::Outputs;
use crate::verdict::Verdict;
use serde::{Deserialize, Serialize};

/// Version of the protocol.
pub const VERSION: u8 = 1;

/// A message; answers carry the number of what they answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message<'a> {
    /// Counts the sender's requests.
    pub sequence: u32,
    /// What it says.
    #[serde(borrow)]
    pub body: Body<'a>,
}

/// What a message says. Variants are only appended: their number is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Body<'a> {
    /// Ask who is there.
    Hello,
    /// The answer to it.
    Device {
        /// Number of the job that is loaded.
        job: u16,
        /// Values of an embedding.
        dim: u16,
        /// First bytes of the hash of the encoder that the job was taught with.
        encoder: [u8; 8],
    },
    /// Inspect the part that is in front of the camera.
    Trigger {
        /// The job to inspect it with.
        job: u16,
    },
    /// Inspect a frame whose embedding is here.
    Embedding {
        /// The job to inspect it with.
        job: u16,
        /// `i8` values as bytes.
        values: &'a [u8],
    },
    /// The verdict on a trigger or an embedding.
    Verdict(WireVerdict),
    /// The state of the controller's inputs at a time.
    Inputs {
        /// Time in ticks, which wraps.
        at: u32,
        /// Enable is high.
        enable: bool,
        /// Trigger is high.
        trigger: bool,
    },
    /// The state of the device's outputs.
    Outputs(WireOutputs),
    /// Nothing was done.
    Refused(Refusal),
}

/// A verdict with the job that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireVerdict {
    /// Number of the job.
    pub job: u16,
    /// The class's index.
    pub class: u16,
    /// Its probability in Q15.
    pub score: u16,
    /// The frame is unlike everything taught.
    pub unknown: bool,
    /// From the trigger, or from the last byte of the embedding, to the verdict, in µs.
    pub latency_us: u32,
}

impl WireVerdict {
    /// A head's verdict, ready to be sent.
    pub fn new(job: u16, verdict: &Verdict, latency_us: u32) -> Self {
        Self {
            job,
            class: verdict.class,
            score: verdict.score,
            unknown: verdict.unknown,
            latency_us,
        }
    }
}

/// The device's outputs and counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireOutputs {
    /// The handshake's lines.
    pub lines: Outputs,
    /// The reject gate is driven.
    pub gate: bool,
    /// Triggers that came while the device was not ready.
    pub missed: u32,
    /// Inspections that were not answered in time.
    pub timeouts: u32,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Refusal {
    /// The device has another job loaded.
    OtherJob,
    /// The embedding has another length than the head.
    Length,
    /// The device cannot do what was asked.
    Unsupported,
}
