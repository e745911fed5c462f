//! A serial line of any bytes: as they are, and as the content of a frame whose coding and CRC hold, so that messages are reached.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ssl_edge_head::wire::{Reader, encode, encoded_length};

const CAPACITY: usize = 512;

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    let mut content = bytes[..bytes.len().min(CAPACITY - 4)].to_vec();
    content.extend(crc32fast::hash(&content).to_le_bytes());
    let mut line = cobs::encode_vec(&content);
    line.push(0);
    read(&line);
});

/// Whatever is a message is the same message when it is sent again.
fn read(line: &[u8]) {
    let mut reader = Reader::<CAPACITY>::new();
    for byte in line {
        let Ok(Some(message)) = reader.push(*byte) else {
            continue;
        };
        let (mut scratch, mut out) = ([0; CAPACITY], [0; encoded_length(CAPACITY)]);
        let frame = encode(&message, &mut scratch, &mut out).expect("what was read fits");
        let mut again = Reader::<CAPACITY>::new();
        let (last, start) = frame.split_last().expect("a frame has bytes");
        for byte in start {
            let _ = again.push(*byte);
        }
        assert_eq!(again.push(*last), Ok(Some(message)));
    }
}
