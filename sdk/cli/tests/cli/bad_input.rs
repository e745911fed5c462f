//! Bad folders and images: a clear error that names the thing and the remedy, and what was there before is still there.

use crate::support::{Shared, call, fail, json, succeed, surfaces, text};
use serde_json::Value;
use ssl_edge::vision::{Surface, decode_file};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A folder with a file that a failing command must not touch.
pub(crate) struct Kept {
    folder: TempDir,
}

impl Kept {
    pub(crate) fn new() -> Self {
        let kept = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        fs::write(kept.out(), "what was there before").unwrap();
        kept
    }

    pub(crate) fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    pub(crate) fn assert_unchanged(&self) {
        assert_eq!(
            fs::read_to_string(self.out()).unwrap(),
            "what was there before"
        );
        let names: Vec<_> = fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["out"], "something was left behind");
    }
}

fn embed_fails(images: &Path, words: &[&str]) {
    let kept = Kept::new();
    let bundle = Shared::get().bundle();
    fail(
        &[
            "embed",
            "--bundle",
            text(&bundle),
            "--images",
            text(images),
            "--out",
            text(&kept.out()),
        ],
        words,
    );
    kept.assert_unchanged();
}

fn calibrate_fails(samples: &Path, words: &[&str]) {
    let kept = Kept::new();
    let bundle = Shared::get().bundle();
    fail(
        &[
            "calibrate",
            "--bundle",
            text(&bundle),
            "--samples",
            text(samples),
            "--out",
            text(&kept.out()),
        ],
        words,
    );
    kept.assert_unchanged();
}

fn pretrain_fails(data: &Path, words: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    fail(
        &[
            "pretrain",
            "--method",
            "mae",
            "--arch",
            "vit_n16",
            "--data",
            text(data),
            "--out",
            text(&run),
        ],
        words,
    );
    assert!(!run.exists(), "a run folder was made for nothing");
}

fn pgm(path: &Path, width: u32, height: u32, max: u32, samples: &[u8]) {
    let mut bytes = format!("P5\n{width} {height}\n{max}\n").into_bytes();
    bytes.extend_from_slice(samples);
    fs::write(path, bytes).unwrap();
}

/// A PNG that ends after its header.
fn png_header(path: &Path, width: u32, height: u32) {
    let mut chunk = b"IHDR".to_vec();
    chunk.extend(width.to_be_bytes());
    chunk.extend(height.to_be_bytes());
    chunk.extend([8, 0, 0, 0, 0]);
    let mut crc = u32::MAX;
    for byte in &chunk {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0xEDB8_8320
            } else {
                crc >> 1
            };
        }
    }
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    bytes.extend(&chunk);
    bytes.extend((!crc).to_be_bytes());
    fs::write(path, bytes).unwrap();
}

#[test]
fn an_empty_folder() {
    let folder = tempfile::tempdir().unwrap();
    let words = [text(folder.path()), "empty", "name another folder"];
    embed_fails(folder.path(), &words);
    pretrain_fails(folder.path(), &words);
    calibrate_fails(folder.path(), &[text(folder.path()), "class folders"]);
}

#[test]
fn a_folder_of_text_files() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.txt", "b.md"] {
        fs::write(folder.path().join(name), "not an image").unwrap();
    }
    let words = [
        text(folder.path()),
        "2 files",
        "convert them or name another folder",
    ];
    embed_fails(folder.path(), &words);
    pretrain_fails(folder.path(), &words);
}

#[test]
fn text_under_the_name_of_an_image() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.png"), "not an image").unwrap();
    embed_fails(
        folder.path(),
        &["a.png", "not a JPEG, PNG, BMP, TIFF or PGM/PPM"],
    );
    pretrain_fails(
        folder.path(),
        &["a.png", "not a JPEG, PNG, BMP, TIFF or PGM/PPM"],
    );
}

#[test]
fn a_missing_folder() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    embed_fails(&missing, &["missing", "does not exist", "check the path"]);
    pretrain_fails(&missing, &["missing", "does not exist", "check the path"]);
    calibrate_fails(&missing, &["missing", "does not exist", "check the path"]);
}

#[test]
fn an_image_of_20000_by_20000() {
    let folder = tempfile::tempdir().unwrap();
    pgm(
        &folder.path().join("huge.pgm"),
        20_000,
        20_000,
        255,
        &[0; 64],
    );
    png_header(&folder.path().join("huge.png"), 20_000, 20_000);
    let words = [
        "huge.pgm",
        "huge.png",
        "20000x20000",
        "scale the image down or cut it into tiles",
    ];
    embed_fails(folder.path(), &words);
    pretrain_fails(folder.path(), &["huge.pgm", "20000x20000"]);
}

#[test]
fn a_truncated_jpeg_is_named_and_the_others_are_used() {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images");
    surfaces(&images, &[Surface::Clean], 2, 0);
    let jpeg = include_bytes!("data/grey.jpg");
    fs::write(images.join("whole.jpg"), jpeg).unwrap();
    fs::write(images.join("cut.jpg"), &jpeg[..jpeg.len() / 2]).unwrap();
    let (bundle, out) = (Shared::get().bundle(), folder.path().join("e.safetensors"));
    let args = [
        "embed",
        "--bundle",
        text(&bundle),
        "--images",
        text(&images),
        "--out",
        text(&out),
    ];
    let outcome = succeed(&args);
    assert!(
        outcome.stderr.contains("cut.jpg is truncated"),
        "{}",
        outcome.stderr
    );
    assert!(
        outcome.stderr.contains("copy it again or remove it"),
        "{}",
        outcome.stderr
    );
    assert_eq!(json(&args)["images"], 3);

    let (bundle, job) = (Shared::get().bundle(), Shared::get().job());
    let inspect = call(&[
        "inspect",
        "--bundle",
        text(&bundle),
        "--job",
        text(&job),
        text(&images),
        "--json",
    ]);
    inspect.assert_failure(&["cut.jpg", "1 of 4 images have no verdict"]);
    assert_eq!(
        inspect.stdout.lines().count(),
        3,
        "the whole images have verdicts"
    );
}

#[test]
fn an_image_of_one_pixel() {
    let folder = tempfile::tempdir().unwrap();
    pgm(&folder.path().join("tiny.pgm"), 1, 1, 255, &[7]);
    embed_fails(folder.path(), &["tiny.pgm", "1x1"]);
    pretrain_fails(folder.path(), &["tiny.pgm", "1x1"]);
}

#[test]
fn a_16_bit_image_has_the_verdict_of_its_8_bit_twin() {
    let folder = tempfile::tempdir().unwrap();
    let shared = Shared::get();
    let source = shared.samples().join(Surface::Crack.name());
    let source = fs::read_dir(source)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let image = decode_file(&source).unwrap();
    let ssl_edge::vision::Pixels::Gray8(samples) = image.pixels() else {
        panic!("surfaces are grey");
    };
    let doubled: Vec<u8> = samples.iter().flat_map(|&value| [value, value]).collect();
    let (eight, sixteen) = (folder.path().join("8.pgm"), folder.path().join("16.pgm"));
    pgm(&eight, image.width(), image.height(), 255, samples);
    pgm(&sixteen, image.width(), image.height(), 65_535, &doubled);
    let verdict = |path: &Path| {
        let (bundle, job) = (shared.bundle(), shared.job());
        json(&[
            "inspect",
            "--bundle",
            text(&bundle),
            "--job",
            text(&job),
            text(path),
        ])
    };
    let (eight, sixteen) = (verdict(&eight), verdict(&sixteen));
    assert_eq!(eight["class"], sixteen["class"]);
    let score = |verdict: &Value| verdict["score"].as_f64().unwrap();
    assert!(
        (score(&eight) - score(&sixteen)).abs() < 0.02,
        "{eight} {sixteen}"
    );
}

#[test]
fn one_class_only() {
    let folder = tempfile::tempdir().unwrap();
    surfaces(folder.path(), &[Surface::Clean], 2, 0);
    let bundle = Shared::get().bundle();
    fail(
        &[
            "eval",
            "fewshot",
            "--bundle",
            text(&bundle),
            "--data",
            text(folder.path()),
            "--shots",
            "1",
        ],
        &["at least two classes"],
    );
}

#[test]
fn a_class_without_an_image() {
    let folder = tempfile::tempdir().unwrap();
    surfaces(folder.path(), &[Surface::Clean, Surface::Pit], 2, 0);
    fs::create_dir(folder.path().join("dent")).unwrap();
    calibrate_fails(
        folder.path(),
        &["class `dent`", "add images or remove the folder"],
    );
    fs::write(folder.path().join("dent/broken.png"), "not an image").unwrap();
    calibrate_fails(folder.path(), &["class `dent`", "broken.png"]);
}

#[test]
fn more_shots_than_images() {
    let shared = Shared::get();
    let (bundle, samples) = (shared.bundle(), shared.samples());
    let args = [
        "eval",
        "fewshot",
        "--bundle",
        text(&bundle),
        "--data",
        text(&samples),
        "--shots",
        "4",
    ];
    fail(&args, &[text(&samples), "4 shots", "lower the shots"]);
}

#[test]
fn knn_with_too_few_images_or_other_classes() {
    let folder = tempfile::tempdir().unwrap();
    let (train, val) = (folder.path().join("train"), folder.path().join("val"));
    surfaces(&train, &[Surface::Clean, Surface::Pit], 3, 0);
    surfaces(&val, &[Surface::Clean, Surface::Pit], 1, 1);
    let bundle = Shared::get().bundle();
    let args = [
        "eval",
        "knn",
        "--bundle",
        text(&bundle),
        "--train",
        text(&train),
        "--val",
        text(&val),
    ];
    fail(&args, &[text(&train), "6 images", "add images"]);
    surfaces(&val, &[Surface::Stain], 1, 1);
    fail(&args, &["class `stain`", text(&train)]);
}
