//! A production line with everything that goes wrong on one, as bytes; and the replay of it on this machine.

use crate::image;
use gate::{CONTENT, FRAME, Gate, LAST};
use ssl_edge_head::HeadImage;
use ssl_edge_head::vectors::{DIM, Vectors};
use ssl_edge_head::wire::{Body, Message, Reader, encode};
use std::fmt::Write;

const PARTS: usize = 120;
/// Ticks between two looks at the controller's lines.
const POLL: u32 = 25;

struct Recording {
    bytes: Vec<u8>,
    sequence: u32,
}

impl Recording {
    fn send(&mut self, body: Body) -> std::ops::Range<usize> {
        let start = self.bytes.len();
        let (mut scratch, mut out) = ([0; CONTENT], [0; FRAME]);
        let message = Message {
            sequence: self.sequence,
            body,
        };
        self.bytes.extend(
            encode(&message, &mut scratch, &mut out).expect("requests fit the gate's buffers"),
        );
        self.sequence = self.sequence.wrapping_add(1);
        start..self.bytes.len()
    }
}

/// Requests of a shift: parts every 700 to 1200 ticks, most answered in time, some late, some never; noise, cut and flipped frames, another job's
/// embeddings, embeddings of another length, double triggers, an enable that falls.
pub fn requests(seed: u64) -> Vec<u8> {
    let vectors = Vectors::new(seed, false);
    let image = image(false);
    let head = HeadImage::parse(&image).expect("an image that was just made");
    let mut recording = Recording {
        bytes: Vec::new(),
        sequence: 1,
    };
    let mut random = Mixer(seed);
    recording.bytes.extend([0x55, 0xaa, 0x13]);
    recording.send(Body::Hello);
    let mut now = u32::MAX - 20_000;
    for part in 0..PARTS {
        let period = 700 + random.below(500);
        let latency = if part % 9 == 4 {
            650
        } else {
            60 + random.below(400)
        };
        let (mut answered, enable_falls, bounces) =
            (part % 23 == 7, part % 31 == 30, part % 13 == 5);
        for tick in (0..period).step_by(POLL as usize) {
            let trigger = (25..300).contains(&tick) && !(bounces && tick == 100);
            let enable = !(enable_falls && (75..200).contains(&tick));
            recording.send(Body::Inputs {
                at: now.wrapping_add(tick),
                enable,
                trigger,
            });
            if tick >= latency && !answered {
                answered = true;
                answer(&mut recording, &head, &vectors, part, &mut random);
            }
        }
        now = now.wrapping_add(period);
    }
    recording.send(Body::Trigger { job: 1 });
    recording.sequence = LAST;
    recording.send(Body::Hello);
    recording.bytes
}

fn answer(
    recording: &mut Recording,
    head: &HeadImage,
    vectors: &Vectors,
    part: usize,
    random: &mut Mixer,
) {
    let mut frame = [0; DIM];
    head.quantise(&vectors.frame(part), &mut frame)
        .expect("frames of the head's length");
    let values = frame.map(|value| value as u8);
    match part % 11 {
        3 => drop(recording.send(Body::Embedding {
            job: 99,
            values: &values,
        })),
        5 => drop(recording.send(Body::Embedding {
            job: 1,
            values: &values[..40],
        })),
        _ => {}
    }
    if part % 7 == 2 {
        let noise: Vec<u8> = (0..random.below(900))
            .map(|_| random.below(256) as u8)
            .collect();
        recording.bytes.extend(noise);
    }
    if part % 10 == 6 {
        // The station sends again what got no reply.
        let sent = recording.send(Body::Embedding {
            job: 1,
            values: &values,
        });
        let at = sent.start + 1 + random.below(sent.len() as u32 - 2) as usize;
        recording.bytes[at] ^= 1 << random.below(8);
    }
    recording.send(Body::Embedding {
        job: 1,
        values: &values,
    });
}

/// What the gate answers to `requests` on this machine, and its counters as text.
pub fn replay(requests: &[u8]) -> (Vec<u8>, String) {
    let image = image(false);
    let mut gate = Gate::new(HeadImage::parse(&image).expect("an image that was just made"));
    let (mut reader, mut scratch, mut out) = (Reader::new(), [0; CONTENT], [0; FRAME]);
    let (mut replies, mut pulses, mut was_driven, mut n, mut ended) =
        (Vec::new(), 0, false, 0, false);
    for byte in requests {
        if let Some(reply) = gate.push(*byte, &mut reader, &mut scratch, &mut out) {
            replies.extend(reply.frame);
            n += 1;
            ended = reply.last;
        }
        pulses += u32::from(gate.driven() && !was_driven);
        was_driven = gate.driven();
    }
    assert!(ended, "the recording's last message was lost");
    let (dropped, late) = gate.dropped_and_late();
    let mut summary = String::new();
    writeln!(
        summary,
        "replies {n} pulses {pulses} dropped {dropped} late {late}"
    )
    .expect("a string grows");
    (replies, summary)
}

/// Sebastiano Vigna's SplitMix64.
struct Mixer(u64);

impl Mixer {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) % u64::from(bound)) as u32
    }
}
