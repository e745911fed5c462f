//! A job file of any bytes: as they are, and with length and CRC that hold, so that the content is reached.

#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use ssl_edge_adapt::{FitOptions, Job};
use ssl_edge_fuzz::with_length_and_crc;

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    if let Some(whole) = with_length_and_crc(bytes) {
        read(&whole);
    }
});

fn read(bytes: &[u8]) {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), bytes).expect("a file can be written");
    let Ok(mut job) = Job::load(file.path()) else {
        return;
    };
    let dim = job.encoder().dim;
    if dim > 4096 || job.samples().len() > 64 {
        return;
    }
    let embedding = vec![1.0; dim];
    let _ = job.inspect(&embedding);
    let _ = job.fit(&FitOptions::default());
    let _ = job.inspect(&embedding);
    job.save(file.path())
        .expect("a job that was read can be written");
    let again = Job::load(file.path()).expect("a job that was written can be read");
    assert_eq!(again.samples().len(), job.samples().len());
}
