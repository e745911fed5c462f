use proptest::prelude::*;
use ssl_edge_head::WireError;
use ssl_edge_head::line::Outputs;
use ssl_edge_head::wire::{
    Body, Message, Reader, Refusal, VERSION, WireOutputs, WireVerdict, encode, encoded_length,
};

const CAPACITY: usize = 512;

/// A message that owns its embedding.
type Owned = (u32, u8, [u32; 4], Vec<u8>);

fn owned() -> impl Strategy<Value = Owned> {
    (
        any::<u32>(),
        0u8..8,
        any::<[u32; 4]>(),
        prop::collection::vec(any::<u8>(), 0..420),
    )
}

fn message((sequence, kind, n, values): &Owned) -> Message<'_> {
    let flag = |i: usize| n[3] >> i & 1 == 1;
    let lines = Outputs {
        ready: flag(0),
        busy: flag(1),
        result_valid: flag(2),
        result_ok: flag(3),
        result_unknown: flag(4),
        fault: flag(5),
    };
    let body = match kind {
        0 => Body::Hello,
        1 => Body::Device {
            job: n[0] as u16,
            dim: n[1] as u16,
            encoder: (u64::from(n[2]) << 32 | u64::from(n[3])).to_le_bytes(),
        },
        2 => Body::Trigger { job: n[0] as u16 },
        3 => Body::Embedding {
            job: n[0] as u16,
            values,
        },
        4 => Body::Verdict(WireVerdict {
            job: n[0] as u16,
            class: n[1] as u16,
            score: n[2] as u16,
            unknown: flag(0),
            latency_us: n[3],
        }),
        5 => Body::Inputs {
            at: n[0],
            enable: flag(0),
            trigger: flag(1),
        },
        6 => Body::Outputs(WireOutputs {
            lines,
            gate: flag(6),
            missed: n[0],
            timeouts: n[1],
        }),
        _ => Body::Refused(
            [Refusal::OtherJob, Refusal::Length, Refusal::Unsupported][n[0] as usize % 3],
        ),
    };
    Message {
        sequence: *sequence,
        body,
    }
}

fn frame(message: &Message) -> Vec<u8> {
    let (mut scratch, mut out) = ([0; CAPACITY], [0; encoded_length(CAPACITY)]);
    encode(message, &mut scratch, &mut out).unwrap().to_vec()
}

/// What a reader finds in `bytes`, messages as their frames.
fn read(reader: &mut Reader<CAPACITY>, bytes: &[u8]) -> Vec<Result<Vec<u8>, WireError>> {
    let mut found = Vec::new();
    for byte in bytes {
        match reader.push(*byte) {
            Ok(None) => {}
            Ok(Some(message)) => found.push(Ok(frame(&message))),
            Err(error) => found.push(Err(error)),
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn messages_come_back_from_one_stream(all in prop::collection::vec(owned(), 1..6)) {
        let frames: Vec<Vec<u8>> = all.iter().map(|owned| frame(&message(owned))).collect();
        for frame in &frames {
            prop_assert!(frame[1..frame.len() - 1].iter().all(|byte| *byte != 0));
        }
        let mut reader = Reader::<CAPACITY>::new();
        let mut n = 0;
        for byte in frames.concat() {
            if let Some(found) = reader.push(byte).unwrap() {
                prop_assert_eq!(found, message(&all[n]));
                n += 1;
            }
        }
        prop_assert_eq!(n, all.len());
    }

    #[test]
    fn a_frame_is_found_behind_any_garbage(garbage in prop::collection::vec(any::<u8>(), 0..1500), owned in owned()) {
        let frame = frame(&message(&owned));
        let mut reader = Reader::new();
        prop_assert!(read(&mut reader, &garbage).iter().all(Result::is_err));
        prop_assert_eq!(read(&mut reader, &frame).pop(), Some(Ok(frame)));
    }

    /// A cut frame is lost, alone, and with it no other.
    #[test]
    fn a_cut_frame_harms_no_other(first in owned(), second in owned(), cut in any::<prop::sample::Index>()) {
        let (first, second) = (frame(&message(&first)), frame(&message(&second)));
        let mut reader = Reader::new();
        let cut = cut.index(first.len() - 1);
        prop_assert_eq!(read(&mut reader, &first[..cut]), vec![]);
        let found = read(&mut reader, &second);
        prop_assert_eq!(found.last(), Some(&Ok(second)));
        prop_assert!(found.len() == 1 || (found.len() == 2 && found[0].is_err()));
    }

    #[test]
    fn a_flipped_bit_never_makes_another_message(owned in owned()) {
        let (sent, next) = (frame(&message(&owned)), frame(&Message { sequence: 5, body: Body::Hello }));
        for bit in 0..8 * sent.len() {
            let mut changed = sent.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let mut reader = Reader::new();
            let mut found = read(&mut reader, &changed);
            found.extend(read(&mut reader, &next));
            prop_assert_eq!(found.pop(), Some(Ok(next.clone())), "bit {}", bit);
            prop_assert!(found.iter().all(|found| found.as_ref().is_ok_and(|f| *f == sent) || found.is_err()), "bit {}", bit);
        }
    }
}

#[test]
fn the_wire_has_not_changed() {
    let verdict = WireVerdict {
        job: 2,
        class: 1,
        score: 32_768,
        unknown: true,
        latency_us: 300,
    };
    let outputs = WireOutputs {
        lines: Outputs {
            ready: false,
            busy: false,
            result_valid: true,
            result_ok: true,
            result_unknown: false,
            fault: false,
        },
        gate: true,
        missed: 1,
        timeouts: 0,
    };
    let golden: [(Body, &[u8]); 9] = [
        (Body::Hello, &[7, 0]),
        (
            Body::Device {
                job: 1,
                dim: 384,
                encoder: [8; 8],
            },
            &[7, 1, 1, 0x80, 3, 8, 8, 8, 8, 8, 8, 8, 8],
        ),
        (Body::Trigger { job: 300 }, &[7, 2, 0xac, 2]),
        (
            Body::Embedding {
                job: 1,
                values: &[1, 0xff, 0],
            },
            &[7, 3, 1, 3, 1, 0xff, 0],
        ),
        (
            Body::Verdict(verdict),
            &[7, 4, 2, 1, 0x80, 0x80, 2, 1, 0xac, 2],
        ),
        (
            Body::Inputs {
                at: 128,
                enable: true,
                trigger: false,
            },
            &[7, 5, 0x80, 1, 1, 0],
        ),
        (Body::Outputs(outputs), &[7, 6, 0, 0, 1, 1, 0, 0, 1, 1, 0]),
        (Body::Refused(Refusal::OtherJob), &[7, 7, 0]),
        (Body::Refused(Refusal::Unsupported), &[7, 7, 2]),
    ];
    for (body, content) in golden {
        let mut scratch = [0; CAPACITY];
        let coded = encode(&Message { sequence: 7, body }, &mut scratch, &mut [0; 600])
            .unwrap()
            .len();
        assert_eq!(scratch[0], VERSION);
        assert_eq!(&scratch[1..1 + content.len()], content, "{body:?}");
        assert!(coded <= encoded_length(content.len() + 5));
    }
    let bytes = frame(&Message {
        sequence: 7,
        body: Body::Hello,
    });
    assert_eq!(bytes, [0, 3, 1, 7, 5, 226, 37, 194, 177, 0]);
}

#[test]
fn another_version_and_unknown_messages_are_named() {
    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
    let send = |content: &[u8]| {
        let sealed = [content, &crc.checksum(content).to_le_bytes()].concat();
        let mut coded = [vec![0], cobs_of(&sealed), vec![0]].concat();
        coded.extend(frame(&Message {
            sequence: 1,
            body: Body::Hello,
        }));
        let mut found = read(&mut Reader::new(), &coded);
        assert!(found.pop().unwrap().is_ok());
        found.pop().unwrap().unwrap_err()
    };
    assert_eq!(
        send(&[9, 7, 0]),
        WireError::Version {
            found: 9,
            supported: VERSION
        }
    );
    assert_eq!(send(&[VERSION, 7, 200]), WireError::Message);
    assert_eq!(send(&[VERSION, 7, 0, 0]), WireError::Message);
    assert_eq!(send(&[VERSION]), WireError::Message);
    assert_eq!(send(&[]), WireError::Coding);
}

/// COBS, written out on its own.
fn cobs_of(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for run in bytes.split(|byte| *byte == 0) {
        assert!(run.len() < 254);
        out.push(run.len() as u8 + 1);
        out.extend(run);
    }
    out
}

#[test]
fn a_frame_longer_than_the_reader_is_dropped_once() {
    let long = frame(&Message {
        sequence: 0,
        body: Body::Embedding {
            job: 0,
            values: &[3; 300],
        },
    });
    let short = frame(&Message {
        sequence: 9,
        body: Body::Hello,
    });
    let mut reader = Reader::<32>::new();
    let mut found = Vec::new();
    for byte in [long, short].concat() {
        match reader.push(byte) {
            Ok(None) => {}
            Ok(Some(message)) => found.push(Ok(message.sequence)),
            Err(error) => found.push(Err(error)),
        }
    }
    assert_eq!(found, [Err(WireError::TooLong), Ok(9)]);
}

#[test]
fn buffers_that_are_too_small_are_named() {
    let message = Message {
        sequence: 0,
        body: Body::Embedding {
            job: 0,
            values: &[3; 300],
        },
    };
    for (scratch, out) in [(0, 400), (1, 400), (305, 400), (400, 300), (400, 0)] {
        let error = encode(&message, &mut vec![0; scratch], &mut vec![0; out]).map(<[u8]>::len);
        assert_eq!(error, Err(WireError::Buffer), "{scratch} {out}");
    }
}
