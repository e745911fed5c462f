//! `eval anomaly`: its report, its splits, its masks, and what it says of folders that it cannot use.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{Shared, call, fail, json, succeed, text};

const SIDE: usize = 48;

/// A grey photo of a fine texture; with a `defect`, a bright square of 16 pixels. The decoder goes by content, not by name.
fn photo(path: &Path, part: usize, defect: bool) {
    let mut bytes = format!("P5 {SIDE} {SIDE} 255\n").into_bytes();
    for at in 0..SIDE * SIDE {
        let (y, x) = (at / SIDE, at % SIDE);
        let inside = defect && (16..32).contains(&y) && (16..32).contains(&x);
        let texture = 100 + (x * 7 + y * 13 + part * 5) % 23;
        bytes.push(if inside { 250 } else { texture as u8 });
    }
    write(path, &bytes);
}

fn mask(path: &Path, side: usize) {
    let mut bytes = format!("P5 {side} {side} 255\n").into_bytes();
    let is_defect = |at: usize| (16..32).contains(&(at / side)) && (16..32).contains(&(at % side));
    bytes.extend((0..side * side).map(|at| if is_defect(at) { 255 } else { 0 }));
    write(path, &bytes);
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// `train`: 6 good parts; `test/good` and `test/dent`: 4 each; `masks/dent` for 3 of them.
fn folders(root: &Path) {
    for part in 0..6 {
        photo(&root.join(format!("train/{part}.pgm")), part, false);
    }
    for part in 0..4 {
        photo(&root.join(format!("test/good/{part}.pgm")), part + 6, false);
        photo(&root.join(format!("test/dent/{part}.pgm")), part + 6, true);
        if part > 0 {
            mask(&root.join(format!("masks/dent/{part}_mask.png")), SIDE);
        }
    }
}

fn arguments<'a>(
    bundle: &'a str,
    good: &'a str,
    test_good: &'a str,
    test_bad: &'a str,
) -> Vec<&'a str> {
    vec![
        "eval",
        "anomaly",
        "--bundle",
        bundle,
        "--good",
        good,
        "--test-good",
        test_good,
        "--test-bad",
        test_bad,
    ]
}

#[test]
fn every_method_is_reported_with_the_agreed_keys() {
    let dir = tempfile::tempdir().unwrap();
    folders(dir.path());
    let at = |name: &str| text(&dir.path().join(name)).to_owned();
    let (train, good, bad, masks) = (at("train"), at("test/good"), at("test"), at("masks"));
    let bundle = Shared::get().bundle();
    let mut args = arguments(text(&bundle), &train, &good, &bad);
    args.extend(["--masks", &masks, "--shots", "1,4", "--draws", "3"]);
    let report = json(&args);
    assert_eq!(
        (
            &report["good"],
            &report["test_good"],
            &report["test_bad"],
            &report["masks"]
        ),
        (
            &Value::from(6),
            &Value::from(4),
            &Value::from(4),
            &Value::from(3),
        )
    );
    let results = report["results"].as_array().unwrap();
    assert_eq!(results.len(), 2 * 6 * 2);
    for row in results {
        for key in ["image_auroc", "pixel_auroc", "aupro"] {
            assert!(
                row[key].as_f64().is_some_and(|v| (0.0..=1.0).contains(&v)),
                "{key} of {row}"
            );
        }
        for key in ["false_alarm_rate", "false_alarm_promised", "detection_rate"] {
            assert!(
                row[key].as_f64().is_some_and(|v| (0.0..=1.0).contains(&v)),
                "{key} of {row}"
            );
        }
        assert_eq!(row["false_alarm_allowed"], 0.05);
        // Binomial(4, 0.05): P(X <= 1) = 0.986
        assert_eq!(row["false_alarm_band"], serde_json::json!([0.0, 0.25]));
        let within = row["false_alarm_rate"].as_f64().unwrap() <= 0.25;
        assert_eq!(row["false_alarm_in_band"], within, "{row}");
        assert_eq!(row["threshold"], "extrapolated");
        assert!(row["ci95"].as_f64().is_some_and(|v| v >= 0.0), "{row}");
    }
    // A bright square in a fine texture is seen in the pixels themselves.
    let raw = results
        .iter()
        .find(|r| r["method"] == "raw_pixels_pca" && r["shots"] == 4)
        .unwrap();
    assert_eq!(raw["image_auroc"], 1.0);
    assert!(raw["aupro"].as_f64().unwrap() > 0.7, "{raw}");
    assert!(call(&args).stderr.contains("no mask for"));
    assert_eq!(without_times(&report), without_times(&json(&args)));
}

/// Teaching a folder and inspecting the others by hand gives the same counts.
#[test]
fn a_job_passes_and_finds_what_one_of_calibrate_does() {
    let dir = tempfile::tempdir().unwrap();
    folders(dir.path());
    let at = |name: &str| text(&dir.path().join(name)).to_owned();
    // A part that differs a little, so that not every count is all or nothing.
    for part in 0..3 {
        let mut bytes = format!("P5 {SIDE} {SIDE} 255\n").into_bytes();
        bytes.extend(
            (0..SIDE * SIDE).map(|at| 100 + ((at % 7) * (part + 3) + at / SIDE) as u8 % 29),
        );
        write(
            &dir.path().join(format!("test/good/other{part}.pgm")),
            &bytes,
        );
    }
    let bundle = Shared::get().bundle();
    let (train, good, bad) = (at("train"), at("test/good"), at("test/dent"));
    let mut args = arguments(text(&bundle), &train, &good, &bad);
    args.extend(["--shots", "2,6", "--draws", "3", "--no-baselines"]);
    let report = json(&args);
    let rows = report["job"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(
        (&rows[0]["draws"], &rows[1]["draws"]),
        (&3.into(), &1.into())
    );
    assert_eq!(rows[0]["good_tested"], 3 * 7);
    assert_eq!(rows[1]["false_alarm_allowed"], 0.05);
    assert_eq!(rows[1]["extrapolated"], true);

    let job = at("good.sslj");
    fs::create_dir(dir.path().join("samples")).unwrap();
    fs::rename(dir.path().join("train"), dir.path().join("samples/good")).unwrap();
    let samples = at("samples");
    let bundle = text(&bundle);
    json(&[
        "calibrate",
        "--bundle",
        bundle,
        "--samples",
        &samples,
        "--out",
        &job,
    ]);
    let passed = |folder: &str| {
        let done = succeed(&[
            "inspect", "--bundle", bundle, "--job", &job, folder, "--json",
        ]);
        let lines = done.stdout.lines();
        let verdicts: Vec<Value> = lines.map(|l| serde_json::from_str(l).unwrap()).collect();
        let passed = verdicts.iter().filter(|verdict| verdict["ok"] == true);
        (verdicts.len(), passed.count())
    };
    let count = |key: &str| rows[1][key].as_u64().unwrap() as usize;
    assert_eq!(passed(&good), (count("good_tested"), count("good_passed")));
    let (tested, missed) = passed(&bad);
    assert_eq!(
        (tested, tested - missed),
        (count("defects_tested"), count("defects_found"))
    );
    assert!(count("defects_found") > 0 && count("good_passed") > 0);
}

fn without_times(report: &Value) -> Value {
    let mut report = report.clone();
    for row in report["results"].as_array_mut().unwrap() {
        let row = row.as_object_mut().unwrap();
        row.remove("fit_ms");
        row.remove("score_ms");
    }
    report
}

/// Good and defective photos of one part share numbers: what is learned is not tested.
#[test]
fn parts_are_kept_together() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..12 {
        let folder = if n % 4 == 3 { "bad" } else { "good" };
        photo(
            &dir.path().join(format!("{folder}/{n:03}.pgm")),
            n,
            n % 4 == 3,
        );
    }
    let (good, bad) = (dir.path().join("good"), dir.path().join("bad"));
    let bundle = Shared::get().bundle();
    let mut args = arguments(text(&bundle), text(&good), text(&good), text(&bad));
    args.extend(["--group", "4", "--no-baselines", "--draws", "9", "--shots"]);
    let two = json(&[&args[..], &["2"]].concat());
    for row in two["results"].as_array().unwrap() {
        // Three choices of two parts out of three.
        assert_eq!(row["draws"], 3);
        assert!(row["pixel_auroc"].is_null() && row["aupro"].is_null());
    }
    assert_eq!(two["results"].as_array().unwrap().len(), 2);
    fail(
        &[&args[..], &["3"]].concat(),
        &["no good or no defective image is left", "lower --shots"],
    );
    fail(
        &[&args[..], &["4"]].concat(),
        &["4 good parts cannot be drawn", "shots is 4"],
    );
}

#[test]
fn folders_and_masks_that_do_not_fit_are_named() {
    let dir = tempfile::tempdir().unwrap();
    folders(dir.path());
    let at = |name: &str| text(&dir.path().join(name)).to_owned();
    let (train, good, bad, masks) = (at("train"), at("test/good"), at("test"), at("masks"));
    let bundle = Shared::get().bundle();
    let bundle = text(&bundle);
    fail(
        &arguments(bundle, &train, &good, &good),
        &["--good or --test-good"],
    );
    fail(
        &arguments(bundle, &at("nowhere"), &good, &bad),
        &["nowhere", "does not exist"],
    );
    fail(
        &[
            &arguments(bundle, &train, &good, &bad)[..],
            &["--tiles", "0"],
        ]
        .concat(),
        &["--tiles is 0"],
    );
    let with_masks = |masks: &str| {
        let mut args = arguments(bundle, &train, &good, &bad);
        args.extend(["--no-baselines", "--shots", "1", "--masks", masks]);
        args.iter().map(|a| a.to_string()).collect::<Vec<_>>()
    };
    let failing = |masks: &str, words: &[&str]| {
        let args = with_masks(masks);
        fail(&args.iter().map(String::as_str).collect::<Vec<_>>(), words);
    };
    failing(
        &train,
        &["no defective image has a mask below", "STEM_mask.png"],
    );
    mask(&dir.path().join("masks/dent/1_mask.png"), SIDE - 1);
    failing(&masks, &["1_mask.png is 47x47", "48x48"]);
    photo(&dir.path().join("train/cam.pgm"), 0, false);
    let mut args = arguments(bundle, &train, &good, &bad);
    args.extend(["--group", "2"]);
    fail(&args, &["cam.pgm has no number", "--group"]);
}
