//! The seeds of the fuzz targets through the façade, and every byte of them changed: an error or a value, never a panic.

use ssl_edge::encoder::Bundle;
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
    assert!(seeds.len() > 1, "{} has no files", folder.display());
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

#[test]
fn jobs_of_the_corpus_load_and_changed_ones_do_not() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = folder.path().join("changed.sslj");
    for seed in seeds("job") {
        Job::load(&seed).expect("a seed loads");
        let bytes = fs::read(&seed).expect("a seed can be read");
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x20;
            fs::write(&path, changed).expect("a file can be written");
            assert!(Job::load(&path).is_err(), "byte {at}");
        }
    }
}

#[test]
fn what_fuzzing_found_gives_an_error_or_a_value() {
    for file in files("found", "bundle") {
        let bytes = fs::read(&file).expect("a file can be read");
        if let Ok(bundle) = Bundle::from_bytes(Path::new("found.sslb"), bytes) {
            assert_ne!(bundle.encoder_hash(), [0; 32]);
        }
    }
}
