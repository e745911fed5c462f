//! The seeds of the fuzz targets through the façade, and every byte of them changed: an error or a value, never a panic.

use ssl_edge::anomaly::TokenGrid;
use ssl_edge::encoder::Bundle;
use ssl_edge::golden::GoldenParts;
use ssl_edge::job::Job;
use ssl_edge_tests::workspace_root;
use std::fs;
use std::path::{Path, PathBuf};

fn seeds(target: &str) -> Vec<PathBuf> {
    files("corpus", target)
}

fn files(kind: &str, target: &str) -> Vec<PathBuf> {
    let folder = workspace_root().join("tests/fuzz").join(kind).join(target);
    let entries = fs::read_dir(&folder).expect("the corpus can be read");
    let mut seeds: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry can be read").path())
        .collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "{} has no files", folder.display());
    seeds
}

#[test]
fn bundles_of_the_corpus_open_and_changed_ones_do_not() {
    for seed in seeds("bundle") {
        let bytes = fs::read(&seed).expect("a seed can be read");
        let name = Path::new("seed.sslb");
        let bundle = Bundle::from_bytes(name, bytes.clone()).expect("a seed opens");
        assert_eq!(bundle.signer().is_some(), seed.ends_with("signed"));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x20;
            assert!(Bundle::from_bytes(name, changed).is_err(), "byte {at}");
        }
    }
}

/// Changes each byte of the seeds, which must not load then.
fn load_and_change<T, E: std::fmt::Debug>(target: &str, load: impl Fn(&Path) -> Result<T, E>) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = folder.path().join("changed");
    for seed in seeds(target) {
        load(&seed).expect("a seed loads");
        let bytes = fs::read(&seed).expect("a seed can be read");
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x20;
            fs::write(&path, changed).expect("a file can be written");
            assert!(load(&path).is_err(), "byte {at}");
        }
    }
}

#[test]
fn jobs_of_the_corpus_load_and_changed_ones_do_not() {
    load_and_change("job", Job::load);
}

#[test]
fn golden_parts_of_the_corpus_load_and_changed_ones_do_not() {
    load_and_change("golden", GoldenParts::load);
}

#[test]
fn found_jobs_load_or_give_an_error() {
    for file in files("found", "job") {
        if let Ok(job) = Job::load(&file) {
            let frame = vec![1.0; job.encoder().dim];
            let verdict = job.inspect(&frame);
            assert_eq!(
                verdict.is_ok(),
                job.report().is_some(),
                "{}",
                file.display()
            );
        }
    }
}

#[test]
fn found_golden_parts_load_or_give_an_error() {
    for file in files("found", "golden") {
        let Ok(golden) = GoldenParts::load(&file) else {
            continue;
        };
        let [rows, cols] = golden.model.report().size;
        let tokens: Vec<f32> = (0..rows * cols * 2).map(|i| (i as f32).sin()).collect();
        let frame = TokenGrid::new(&tokens, [rows, cols], 2).expect("finite tokens");
        if let Ok(score) = golden.model.inspect(&frame) {
            assert!(!score.heat.values.iter().any(|heat| heat.is_nan()));
        }
    }
}

#[test]
fn found_bundles_open_or_give_an_error() {
    for file in files("found", "bundle") {
        let bytes = fs::read(&file).expect("a file can be read");
        if let Ok(bundle) = Bundle::from_bytes(Path::new("found.sslb"), bytes) {
            assert_ne!(bundle.encoder_hash(), [0; 32]);
        }
    }
}
