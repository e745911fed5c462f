//! The file of golden parts: what is saved is loaded, and nothing else is.

use ssl_edge_adapt::anomaly::{Rates, TokenGrid};
use ssl_edge_adapt::golden::{GoldenModel, GoldenOptions, GoldenParts};
use ssl_edge_adapt::{AdaptError, EncoderId};
use std::fs;
use std::path::PathBuf;

fn tokens(part: usize) -> Vec<f32> {
    (0..4 * 5 * 3)
        .map(|i| ((i * 7) as f32).sin() + 0.01 * ((i * 5 + part * 11) % 13) as f32)
        .collect()
}

fn golden(n: usize) -> GoldenParts {
    let parts: Vec<_> = (0..n).map(tokens).collect();
    let grids: Vec<_> = parts
        .iter()
        .map(|part| TokenGrid::new(part, [4, 5], 3).unwrap())
        .collect();
    GoldenParts {
        tokens: "encoder".into(),
        encoder: Some(EncoderId {
            hash: [9; 32],
            dim: 3,
        }),
        sources: (0..n).map(|part| format!("gut/{part}.png")).collect(),
        model: GoldenModel::fit(&grids, &GoldenOptions::default(), &Rates::default()).unwrap(),
    }
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cover.sslg");
    (folder, path)
}

fn with_length_and_crc(mut content: Vec<u8>) -> Vec<u8> {
    let end = content.len() - 4;
    content.truncate(end);
    content[12..20].copy_from_slice(&((end - 20) as u64).to_le_bytes());
    let crc = crc32fast::hash(&content);
    content.extend_from_slice(&crc.to_le_bytes());
    content
}

#[test]
fn loaded_golden_parts_are_the_saved_ones() {
    let (folder, path) = folder();
    for n in 1..5 {
        let saved = golden(n);
        saved.save(&path).unwrap();
        let loaded = GoldenParts::load(&path).unwrap();
        assert_eq!(loaded, saved);
        let frame = tokens(40);
        let frame = TokenGrid::new(&frame, [4, 5], 3).unwrap();
        assert_eq!(
            loaded.model.inspect(&frame).unwrap(),
            saved.model.inspect(&frame).unwrap()
        );
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let error = golden(1).save(&folder.path().join("no/where.sslg"));
    assert!(matches!(error, Err(AdaptError::Io { .. })));
}

#[test]
fn another_encoder_is_refused() {
    let own = golden(2);
    let id = own.encoder.unwrap();
    own.check_encoder(Some(&id)).unwrap();
    for other in [
        Some(EncoderId {
            hash: [8; 32],
            dim: 3,
        }),
        Some(EncoderId { dim: 4, ..id }),
        None,
    ] {
        let error = own.check_encoder(other.as_ref()).unwrap_err().to_string();
        assert!(
            error.contains("the golden file was taught with encoder 090909090909 (3 values)"),
            "{error}"
        );
    }
    let without = GoldenParts {
        encoder: None,
        ..own
    };
    without.check_encoder(None).unwrap();
    without.check_encoder(Some(&id)).unwrap();
}

/// Every byte changed, every length, with a sum that tells and with one that holds: an error or golden parts that work, never a panic.
#[test]
fn a_file_cut_or_changed_at_any_byte_is_refused() {
    let (_folder, path) = folder();
    for n in [1, 3] {
        golden(n).save(&path).unwrap();
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            fs::write(&path, &whole[..at]).unwrap();
            assert!(GoldenParts::load(&path).is_err(), "cut at {at}");
            for flip in [0x01, 0x80] {
                let mut changed = whole.clone();
                changed[at] ^= flip;
                fs::write(&path, &changed).unwrap();
                assert!(GoldenParts::load(&path).is_err(), "byte {at}");
                fs::write(&path, with_length_and_crc(changed)).unwrap();
                let Ok(loaded) = GoldenParts::load(&path) else {
                    continue;
                };
                let [rows, cols] = loaded.model.report().size;
                let frame = vec![1.0; rows * cols * 3];
                let _ = loaded
                    .model
                    .inspect(&TokenGrid::new(&frame, [rows, cols], 3).unwrap());
            }
        }
    }
}

#[test]
fn other_files_are_named_for_what_they_are() {
    let (_folder, path) = folder();
    fs::write(&path, "a text file of some length, not of golden parts").unwrap();
    let error = GoldenParts::load(&path).unwrap_err().to_string();
    assert!(error.contains("not a golden file"), "{error}");
    golden(2).save(&path).unwrap();
    let mut later = fs::read(&path).unwrap();
    later[8] = 2;
    fs::write(&path, with_length_and_crc(later)).unwrap();
    let error = GoldenParts::load(&path).unwrap_err().to_string();
    assert!(
        error.contains("version 2") && error.contains("update the program"),
        "{error}"
    );
}
