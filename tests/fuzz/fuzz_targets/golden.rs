//! A file of golden parts of any bytes: as they are, and with length and CRC that hold, so that the content is reached.

#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use ssl_edge_adapt::anomaly::TokenGrid;
use ssl_edge_adapt::golden::GoldenParts;
use ssl_edge_fuzz::with_length_and_crc;

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    if let Some(whole) = with_length_and_crc(bytes) {
        read(&whole);
    }
});

/// What loads compares any frame of its grid, says what it promises, and comes back from a file as it was.
fn read(bytes: &[u8]) {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), bytes).expect("a file can be written");
    let Ok(golden) = GoldenParts::load(file.path()) else {
        return;
    };
    let size = golden.model.report().size;
    assert!(!golden.model.report().note().is_empty());
    for dim in 1..=4 {
        let values = (0..size[0] * size[1] * dim).map(|i| (i as f32).sin());
        let tokens: Vec<f32> = values.collect();
        let frame = TokenGrid::new(&tokens, size, dim).expect("finite tokens");
        if let Ok(score) = golden.model.inspect(&frame) {
            assert!(!score.score.is_nan());
            assert!(score.heat.values.iter().all(|heat| !heat.is_nan()));
        }
    }
    golden
        .save(file.path())
        .expect("golden parts that were read can be written");
    let again = GoldenParts::load(file.path()).expect("what was written can be read");
    assert_eq!(again, golden);
}
