//! The reject gate as an application without hardware: bytes come in, frames to send and a gate to drive come out.
//!
//! A station sends the state of the controller's lines ([`Body::Inputs`], with the time) and, for each part, the embedding of its frame. The
//! device decides, shows the result on the handshake's lines and opens the gate when a bad part has travelled to it. Time is the station's, so
//! that a recording gives the same bytes on every machine; one tick is a µs.

#![no_std]

use ssl_edge_head::HeadImage;
use ssl_edge_head::line::{
    Decision, GateQueue, GateTiming, Handshake, HandshakeTiming, Inputs, Policy,
};
use ssl_edge_head::wire::{
    Body, Message, Reader, Refusal, WireOutputs, WireVerdict, encode, encoded_length,
};

/// Longest version, message and checksum: an embedding of 400 values.
pub const CONTENT: usize = 416;
/// Longest frame.
pub const FRAME: usize = encoded_length(CONTENT);
/// A message with this number is a recording's last.
pub const LAST: u32 = u32::MAX;

/// The inspection's time, ticks.
pub const HANDSHAKE: HandshakeTiming = HandshakeTiming {
    timeout: 600,
    hold: 60,
};
/// The gate's times, ticks.
pub const GATE: GateTiming = GateTiming {
    travel: 900,
    pulse: 150,
};

/// The state of the application.
pub struct Gate<'a> {
    head: HeadImage<'a>,
    policy: Policy,
    handshake: Handshake,
    queue: GateQueue<8>,
    now: u32,
    running: Option<(u32, u32)>,
    driven: bool,
    late: u32,
    dropped: u32,
}

/// What a request led to.
pub struct Reply<'f> {
    /// The frame to send back.
    pub frame: &'f [u8],
    /// The recording ends here.
    pub last: bool,
}

impl<'a> Gate<'a> {
    /// The application over a head; classes 0 and 1 are good.
    pub fn new(head: HeadImage<'a>) -> Self {
        Self {
            head,
            policy: Policy::accepting(&[0, 1], 19_661),
            handshake: Handshake::new(HANDSHAKE),
            queue: GateQueue::new(GATE),
            now: 0,
            running: None,
            driven: false,
            late: 0,
            dropped: 0,
        }
    }

    /// Takes a byte from the line; a reply when it ends a request. Frames that cannot be read are counted and get no reply.
    pub fn push<'f>(
        &mut self,
        byte: u8,
        reader: &mut Reader<CONTENT>,
        scratch: &mut [u8; CONTENT],
        out: &'f mut [u8; FRAME],
    ) -> Option<Reply<'f>> {
        let message = match reader.push(byte) {
            Ok(message) => message?,
            Err(_) => {
                self.dropped = self.dropped.wrapping_add(1);
                return None;
            }
        };
        let sequence = message.sequence;
        let reply = Message {
            sequence,
            body: self.answer(&message.body),
        };
        // Answers are short; one that did not fit would be a silent device, which the station's timeout finds.
        let frame = encode(&reply, scratch, out).ok()?;
        Some(Reply {
            frame,
            last: sequence == LAST,
        })
    }

    fn answer(&mut self, request: &Body) -> Body<'static> {
        match request {
            Body::Hello => {
                let mut encoder = [0; 8];
                encoder.copy_from_slice(&self.head.encoder()[..8]);
                Body::Device {
                    job: self.head.job(),
                    dim: self.head.dim() as u16,
                    encoder,
                }
            }
            Body::Inputs {
                at,
                enable,
                trigger,
            } => self.inputs(
                *at,
                Inputs {
                    enable: *enable,
                    trigger: *trigger,
                },
            ),
            Body::Embedding { job, values } => self.embedding(*job, values),
            _ => Body::Refused(Refusal::Unsupported),
        }
    }

    fn inputs(&mut self, at: u32, inputs: Inputs) -> Body<'static> {
        self.now = at;
        if let Some(sequence) = self.handshake.poll(at, inputs) {
            self.running = Some((sequence, at));
        }
        if self.handshake.shown() == Some(Decision::Timeout) {
            self.end(Decision::Timeout);
        }
        self.driven = self.queue.drive(at);
        let counters = self.handshake.counters();
        Body::Outputs(WireOutputs {
            lines: self.handshake.outputs(),
            gate: self.driven,
            missed: counters.missed,
            timeouts: counters.timeouts,
        })
    }

    fn embedding(&mut self, job: u16, values: &[u8]) -> Body<'static> {
        if job != self.head.job() {
            return Body::Refused(Refusal::OtherJob);
        }
        let mut embedding = heapless::Vec::<i8, CONTENT>::new();
        for value in values {
            if embedding.push(*value as i8).is_err() {
                return Body::Refused(Refusal::Length);
            }
        }
        let Ok(verdict) = self.head.inspect(&embedding) else {
            return Body::Refused(Refusal::Length);
        };
        let decision = self.policy.decide(&verdict);
        let (sequence, triggered) = self.running.unwrap_or((0, self.now));
        if self.handshake.finish(self.now, sequence, decision) {
            self.end(decision);
        }
        Body::Verdict(WireVerdict::new(
            job,
            &verdict,
            self.now.wrapping_sub(triggered),
        ))
    }

    /// Ends the running inspection: its part goes to the gate's queue.
    fn end(&mut self, decision: Decision) {
        if let Some((_, triggered)) = self.running.take() {
            let late = self.queue.decide(self.now, triggered, decision).is_err();
            self.late = self.late.wrapping_add(u32::from(late));
        }
    }

    /// Whether the gate is driven.
    pub fn driven(&self) -> bool {
        self.driven
    }

    /// Frames that could not be read, and decisions that came too late for their part.
    pub fn dropped_and_late(&self) -> (u32, u32) {
        (self.dropped, self.late)
    }
}
