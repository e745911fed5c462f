//! `golden learn` and `golden compare`: verdicts, pictures, and what cannot be learned or compared.

use crate::support::{Shared, call, fail, json, succeed, text};
use serde_json::Value;
use std::fs;
use std::path::Path;

const WIDTH: usize = 60;
const HEIGHT: usize = 48;

/// A grey picture of printed bars with some noise; on a bad part one bar is missing. The decoder goes by content, not by name.
fn part(path: &Path, seed: u32, bad: bool) {
    let mut random = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut bytes = format!("P5 {WIDTH} {HEIGHT} 255\n").into_bytes();
    for at in 0..WIDTH * HEIGHT {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (x, y) = (at % WIDTH, at / WIDTH);
        let missing = bad && (20..40).contains(&x) && (16..32).contains(&y);
        let bar = x % 20 < 8 && y % 16 < 10 && !missing;
        bytes.push(if bar { 40 } else { 170 } + (random >> 29) as u8);
    }
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn parts(folder: &Path, n: u32) {
    for seed in 0..n {
        part(&folder.join(format!("{seed}.pgm")), seed, false);
    }
}

fn lines(stdout: &str) -> Vec<Value> {
    let lines = stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn golden_parts_are_learned_and_images_compared() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| text(&dir.path().join(name)).to_owned();
    parts(&dir.path().join("good"), 5);
    fs::copy(
        dir.path().join("good/0.pgm"),
        dir.path().join("good/again.pgm"),
    )
    .unwrap();
    fs::write(dir.path().join("good/broken.png"), "no picture").unwrap();
    let (good, out) = (at("good"), at("parts.sslg"));
    let learn = ["golden", "learn", "--good", &good, "--out", &out];
    let report = json(&[&learn[..], &["--false-alarms", "0.2"]].concat());
    assert_eq!(report["parts"], 5);
    assert_eq!(report["skipped"], 2);
    assert_eq!(report["grid"], serde_json::json!([28, 35]));
    assert_eq!(
        (&report["tokens"], &report["rests_on"]),
        (&"pixels".into(), &"rank".into())
    );
    assert!((report["floor"].as_f64().unwrap() - 1.0 / 6.0).abs() < 1e-9);
    let said = call(&learn).stderr;
    assert!(
        said.contains("again.pgm") && said.contains("broken.png"),
        "{said}"
    );

    part(&dir.path().join("line/a_good.pgm"), 77, false);
    part(&dir.path().join("line/b_bad.pgm"), 78, true);
    let (line, heat) = (at("line"), at("heat"));
    let compare = [
        "golden", "compare", "--golden", &out, "--heat", &heat, &line,
    ];
    let found = lines(&succeed(&[&compare[..], &["--json"]].concat()).stdout);
    assert_eq!(found.len(), 2);
    assert_eq!(found[1]["differs"], true);
    assert!(found[1]["score"].as_f64() > found[0]["score"].as_f64());
    assert!(found[1]["hottest"].as_f64().unwrap() > 1.0 && found[1]["nearest"].is_null());
    assert!((found[1]["p_value"].as_f64().unwrap() - 1.0 / 6.0).abs() < 1e-9);
    assert_eq!(found[0]["shift"], serde_json::json!([0, 0]));
    assert_eq!(fs::read_dir(dir.path().join("heat")).unwrap().count(), 2);
    let said = succeed(&compare).stdout;
    assert!(
        said.contains("b_bad.pgm") && said.contains("differs"),
        "{said}"
    );
}

#[test]
fn one_golden_part_has_no_threshold_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| text(&dir.path().join(name)).to_owned();
    parts(&dir.path().join("good"), 1);
    part(&dir.path().join("bad.pgm"), 9, true);
    let (good, out, bad) = (at("good"), at("one.sslg"), at("bad.pgm"));
    let report = json(&["golden", "learn", "--good", &good, "--out", &out]);
    assert!(report["threshold"].is_null() && report["floor"].is_null());
    assert!(
        report["note"]
            .as_str()
            .unwrap()
            .contains("add a second golden part")
    );
    let found = json(&["golden", "compare", "--golden", &out, &bad]);
    assert!(found["differs"].is_null() && found["p_value"].is_null());
    assert!(found["hottest"].as_f64().unwrap() > 1.0);
    assert!(found["nearest"].as_str().unwrap().ends_with("0.pgm"));
}

#[test]
fn golden_parts_of_an_encoder_need_it() {
    let dir = tempfile::tempdir().unwrap();
    let shared = Shared::get();
    let (bundle, other) = (shared.bundle(), shared.other_bundle());
    let at = |name: &str| text(&dir.path().join(name)).to_owned();
    parts(&dir.path().join("good"), 3);
    let (good, out) = (at("good"), at("encoder.sslg"));
    let learn = [
        "golden", "learn", "--good", &good, "--out", &out, "--tokens", "encoder",
    ];
    let refused = call(&learn);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("--bundle"), "{}", refused.stderr);
    let report = json(&[&learn[..], &["--bundle", text(&bundle)]].concat());
    // Two tiles of two by two patches down, three across.
    assert_eq!(report["grid"], serde_json::json!([4, 6]));
    let compare = ["golden", "compare", "--golden", &out, &good];
    fail(&compare, &["encoder.sslg", "--bundle"]);
    fail(
        &[&compare[..], &["--bundle", text(&other)]].concat(),
        &["the golden file was taught with encoder"],
    );
    succeed(&[&compare[..], &["--bundle", text(&bundle)]].concat());
}

#[test]
fn what_cannot_be_learned_or_compared_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| text(&dir.path().join(name)).to_owned();
    parts(&dir.path().join("good"), 3);
    let (good, out, line) = (at("good"), at("parts.sslg"), at("good/1.pgm"));
    succeed(&["golden", "learn", "--good", &good, "--out", &out]);
    let whole = fs::read(&out).unwrap();

    for rate in ["0", "1", "NaN", "-1"] {
        let rate = format!("--false-alarms={rate}");
        fail(
            &["golden", "learn", "--good", &good, "--out", &out, &rate],
            &["frame rate"],
        );
    }
    let square = dir.path().join("good/square.pgm");
    fs::write(&square, [&b"P5 48 48 255\n"[..], &[7; 48 * 48]].concat()).unwrap();
    fail(
        &["golden", "learn", "--good", &good, "--out", &out],
        &["square.pgm", "same size"],
    );
    assert_eq!(
        fs::read(&out).unwrap(),
        whole,
        "a failed command leaves the file as it was"
    );
    fail(
        &["golden", "compare", "--golden", &out, text(&square)],
        &["square.pgm cannot be compared", "same size"],
    );
    let broken = at("broken.png");
    fs::write(&broken, "no picture").unwrap();
    let outcome = call(&["golden", "compare", "--golden", &out, &line, &broken]);
    outcome.assert_failure(&["1 of 2 images were not compared", "broken.png"]);
    assert_eq!(outcome.stdout.lines().count(), 1);

    let cut = at("cut.sslg");
    for len in [0, 7, 8, 19, whole.len() / 2, whole.len() - 1] {
        fs::write(&cut, &whole[..len]).unwrap();
        fail(
            &["golden", "compare", "--golden", &cut, &line],
            &["cut.sslg"],
        );
    }
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    fs::write(&cut, flipped).unwrap();
    fail(
        &["golden", "compare", "--golden", &cut, &line],
        &["cut.sslg", "restore a backup"],
    );
    fail(
        &[
            "golden",
            "compare",
            "--golden",
            text(&Shared::get().job()),
            &line,
        ],
        &["station.sslj", "not a golden file"],
    );
    fail(
        &["golden", "compare", "--golden", &at("none.sslg"), &line],
        &["none.sslg"],
    );
}
