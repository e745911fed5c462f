//! A head image of any bytes: as they are, and with length and CRC that hold, so that the sections are reached.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ssl_edge_head::HeadImage;

const LENGTH_AT: usize = 20;

fuzz_target!(|bytes: &[u8]| {
    inspect(bytes);
    if bytes.len() < LENGTH_AT + 8 {
        return;
    }
    let mut whole = bytes.to_vec();
    let end = whole.len() - 4;
    let length = whole.len() as u32;
    whole[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&length.to_le_bytes());
    let crc = crc32fast::hash(&whole[..end]);
    whole[end..].copy_from_slice(&crc.to_le_bytes());
    inspect(&whole);
});

/// What is a head gives a verdict on frames at the ends of the range, too.
fn inspect(bytes: &[u8]) {
    let Ok(head) = HeadImage::parse(bytes) else {
        return;
    };
    for value in [i8::MIN, -1, 0, i8::MAX] {
        let frame = vec![value; head.dim()];
        let verdict = head.inspect(&frame).expect("a frame of the head's length");
        assert!(usize::from(verdict.class) < head.n_classes());
        let scores = head.scores(&frame).expect("a frame of the head's length");
        assert!(scores.iter().all(|score| *score <= 1 << 15));
        head.nearest(&frame, Some(0))
            .expect("a frame of the head's length");
    }
}
