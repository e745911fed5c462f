//! `drift`: alarms with their causes, a summary, and what cannot be watched.

use crate::support::{Outcome, Shared, call, fail, program, succeed, text};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

const SIDE: usize = 40;

/// A grey photo of brushed metal under a light of so many hundredths, which varies by some percent.
fn photo(path: &Path, seed: u32, light: u32) {
    // Neighbouring seeds must not give neighbouring lights (the finaliser of MurmurHash3).
    let mut random = (seed ^ seed >> 16).wrapping_mul(0x85eb_ca6b);
    random = (random ^ random >> 13).wrapping_mul(0xc2b2_ae35);
    random ^= random >> 16;
    let mut next = || {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        random >> 28
    };
    let light = f64::from(light) * (0.97 + 0.004 * f64::from(next()));
    let mut bytes = format!("P5 {SIDE} {SIDE} 255\n").into_bytes();
    for _ in 0..SIDE {
        let brush = next();
        bytes.extend((0..SIDE).map(|_| (f64::from(120 + brush + next()) * light / 100.0) as u8));
    }
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn photos(folder: &Path, seeds: std::ops::Range<u32>, light: u32) {
    for seed in seeds {
        photo(&folder.join(format!("{seed:04}.pgm")), seed, light);
    }
}

/// A job of good parts, 20 more of them, and a line of 20 good ones and 25 dark ones.
fn station(root: &Path) {
    photos(&root.join("taught/good"), 0..8, 100);
    photos(&root.join("usual"), 100..120, 100);
    photos(&root.join("line"), 200..220, 100);
    photos(&root.join("line"), 220..245, 60);
    let bundle = Shared::get().bundle();
    succeed(&[
        "calibrate",
        "--bundle",
        text(&bundle),
        "--samples",
        text(&root.join("taught")),
        "--out",
        text(&root.join("job.sslj")),
    ]);
}

fn lines(outcome: &Outcome) -> Vec<Value> {
    let lines = outcome.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn with<'a>(bundle: &'a str, job: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let begin = [
        "drift",
        "--bundle",
        bundle,
        "--job",
        job,
        "--run-length",
        "1000",
    ];
    [&begin[..], more].concat()
}

#[test]
fn a_dark_line_gives_an_alarm_with_its_cause() {
    let dir = tempfile::tempdir().unwrap();
    station(dir.path());
    let at = |name: &str| text(&dir.path().join(name)).to_owned();
    let (bundle, job) = (Shared::get().bundle(), at("job.sslj"));
    let (usual, line) = (at("usual"), at("line"));
    let args = with(text(&bundle), &job, &["--reference", &usual, &line]);
    let found = lines(&succeed(&[&args[..], &["--json"]].concat()));
    let (alarm, summary) = (&found[0], found.last().unwrap());
    assert_eq!(alarm["event"], "alarm");
    assert_eq!(
        (&alarm["cause"], &alarm["camera"]),
        (&"camera_changed".into(), &"brightness".into())
    );
    assert!(alarm["action"].as_str().unwrap().contains("light"));
    let image = alarm["image"].as_u64().unwrap();
    assert!((21..=35).contains(&image), "{alarm}");
    assert!(
        alarm["path"]
            .as_str()
            .unwrap()
            .ends_with(&format!("{:04}.pgm", 199 + image))
    );
    assert_eq!(summary["event"], "summary");
    assert_eq!(
        (&summary["images"], &summary["reference"]),
        (&45.into(), &20.into())
    );
    assert_eq!(
        summary["alarms"].as_u64().unwrap() as usize,
        found.len() - 1
    );
    for level in [
        "brightness",
        "focus",
        "saturation",
        "embedding",
        "typicality",
        "unknown",
    ] {
        assert!(
            summary["levels"][level]
                .as_f64()
                .is_some_and(|level| (0.0..=1.0).contains(&level))
        );
    }
    let said = succeed(&args).stdout;
    assert!(
        said.contains("camera changed (brightness)") && said.contains("45 images watched"),
        "{said}"
    );

    let first = with(text(&bundle), &job, &["--first", "20", "--json", &line]);
    let found = lines(&succeed(&first));
    assert_eq!(found[0]["camera"], "brightness");
    assert_eq!(found.last().unwrap()["images"], 25);
}

#[test]
fn names_come_from_stdin_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    station(dir.path());
    let at = |name: &str| text(&dir.path().join(name)).to_owned();
    let (bundle, job, usual) = (Shared::get().bundle(), at("job.sslj"), at("usual"));
    let args = with(text(&bundle), &job, &["--reference", &usual, "--json", "-"]);
    let watch = |names: &str| -> Outcome {
        let mut child = Command::new(program())
            .args(&args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(names.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap().into()
    };
    let names: Vec<String> = (200..245)
        .map(|seed| at(&format!("line/{seed:04}.pgm")))
        .collect();
    let outcome = watch(&format!("{}\nmissing.png\n", names.join("\n")));
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("missing.png"), "{}", outcome.stderr);
    let found = lines(&outcome);
    assert_eq!(found[0]["camera"], "brightness");
    let summary = found.last().unwrap();
    assert_eq!(
        (&summary["images"], &summary["skipped"]),
        (&45.into(), &1.into())
    );
    watch("missing.png\n").assert_failure(&["none of the 1 images could be watched"]);
    watch("").assert_failure(&["none of the 0 images could be watched"]);
}

#[test]
fn what_cannot_be_watched_is_named() {
    let dir = tempfile::tempdir().unwrap();
    station(dir.path());
    let at = |name: &str| text(&dir.path().join(name)).to_owned();
    let shared = Shared::get();
    let (bundle, other) = (shared.bundle(), shared.other_bundle());
    let (bundle, job, usual, line) = (text(&bundle), at("job.sslj"), at("usual"), at("line"));
    let refused = |more: &[&str], words: &[&str]| {
        fail(&with(bundle, &job, more), words);
    };
    refused(
        &["--first", "50", &line],
        &["45 images are no 50", "lower --first"],
    );
    refused(
        &["--reference", &at("taught"), &line],
        &["reference frame 0", "sample of the job"],
    );
    photos(&dir.path().join("few"), 300..304, 100);
    refused(&["--reference", &at("few"), &line], &["at least 5"]);
    refused(&["--reference", &at("nowhere"), &line], &["nowhere"]);
    refused(
        &["--reference", &usual, "--unknown-rate", "0.5", &line],
        &["unknown_rate is 0.5"],
    );
    refused(
        &["--reference", &usual, "--unknown-rate", "NaN", &line],
        &["unknown_rate is NaN"],
    );
    let long = [
        "drift", "--bundle", bundle, "--job", &job, "--first", "20", &line,
    ];
    fail(
        &[&long[..], &["--run-length", "3"]].concat(),
        &["run_length"],
    );
    fail(
        &with(text(&other), &job, &["--reference", &usual, &line]),
        &["job.sslj does not fit", "other.sslb"],
    );
    for more in [
        &["--reference", &usual, "--first", "20", &line][..],
        &[&line[..]],
        &["--first", "4", &line],
    ] {
        let outcome = call(&with(bundle, &job, more));
        assert_eq!(outcome.code, 2, "{more:?}: {}", outcome.stderr);
    }
}
