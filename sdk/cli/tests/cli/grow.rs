//! A job that grows: good parts alone, then names of defects, then what an operator changes.

use crate::support::{Shared, fail, json, succeed, surfaces, text};
use serde_json::Value;
use ssl_edge::vision::Surface;
use std::fs;
use std::path::Path;

/// Folders `good` and, if there are any, one for each of `defects`.
fn teach(folder: &Path, defects: &[Surface], n: usize, seed: u64) {
    let mut kinds = vec![Surface::Clean];
    kinds.extend(defects);
    surfaces(folder, &kinds, n, seed);
    fs::rename(folder.join(Surface::Clean.name()), folder.join("good")).unwrap();
}

fn lines(outcome: &str) -> Vec<Value> {
    outcome
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn from_good_parts_to_classes() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    teach(&at("good-only"), &[], 6, 0);
    let bundle = Shared::get().bundle();
    let (bundle, job) = (text(&bundle).to_owned(), text(&at("job.sslj")).to_owned());
    let report = json(&[
        "calibrate",
        "--bundle",
        &bundle,
        "--samples",
        text(&at("good-only")),
        "--out",
        &job,
        "--by",
        "maria",
    ]);
    assert_eq!(report["surface"], "pixels");
    assert!(
        report["head"].is_null() && report["classes"][0]["good"] == true,
        "{report}"
    );
    let note = report["surface_notes"][0].as_str().unwrap();
    assert!(note.contains("14.286 %"), "{note}");

    teach(&at("fresh"), &[Surface::Crack], 2, 9);
    let outcome = succeed(&[
        "inspect",
        "--bundle",
        &bundle,
        "--job",
        &job,
        "--heat",
        text(&at("heat")),
        text(&at("fresh")),
        "--json",
    ]);
    let verdicts = lines(&outcome.stdout);
    assert_eq!(verdicts.len(), 4);
    for verdict in &verdicts {
        assert!(
            verdict["anomalous"].is_boolean() && verdict["ok"].is_boolean(),
            "{verdict}"
        );
        assert!(
            verdict["surface_p_value"]
                .as_f64()
                .is_some_and(|p| p >= 1.0 / 7.0 - 1e-9)
        );
    }
    let pictures: Vec<_> = fs::read_dir(at("heat")).unwrap().collect();
    assert_eq!(pictures.len(), 4);
    for picture in pictures {
        let picture = ssl_edge::vision::decode_file(&picture.unwrap().path()).unwrap();
        assert_eq!(picture.channels(), 3);
    }

    teach(&at("more"), &[Surface::Crack], 3, 20);
    let report = json(&[
        "job",
        "teach",
        &job,
        "--bundle",
        &bundle,
        "--samples",
        text(&at("more")),
        "--by",
        "paul",
    ]);
    assert_eq!(report["samples"], 12);
    assert!(
        report["loo_interval"].is_array() && report["needs_more"].is_string(),
        "{report}"
    );
    fail(
        &[
            "job", "edit", "rename", &job, "--class", "crack", "--to", "good",
        ],
        &["already has a class `good`"],
    );
    let report = json(&[
        "job", "edit", "rename", &job, "--class", "crack", "--to", "split", "--head", "ridge",
    ]);
    assert_eq!(
        (&report["head"], &report["classes"][1]["name"]),
        (&"ridge".into(), &"split".into())
    );
    let shown = json(&["job", "show", &job]);
    let last = shown["list"][11]["sample"].as_u64().unwrap();
    let report = json(&["job", "edit", "forget", &job, "--sample", &last.to_string()]);
    assert_eq!(report["samples"], 11);
    fail(
        &["job", "edit", "forget", &job, "--sample", &last.to_string()],
        &["no sample with id"],
    );

    let log = succeed(&["job", "log", &job, "--json"]);
    let records = lines(&log.stdout);
    assert!(
        records
            .windows(2)
            .all(|pair| pair[0]["revision"].as_u64() < pair[1]["revision"].as_u64())
    );
    let by = |name: &str| records.iter().filter(|record| record["by"] == name).count();
    assert!(by("maria") >= 8 && by("paul") >= 7, "{records:?}");

    let device = json(&["job", "device", &job, "--out", text(&at("head.bin"))]);
    assert_eq!(
        device["bytes"].as_u64().unwrap(),
        fs::metadata(at("head.bin")).unwrap().len()
    );
}

#[test]
fn unknown_kinds_are_measured() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    surfaces(&at("known"), &[Surface::Clean, Surface::Crack], 4, 0);
    surfaces(&at("unknown"), &[Surface::Scratch], 3, 1);
    let bundle = Shared::get().bundle();
    let report = json(&[
        "eval",
        "openset",
        "--bundle",
        text(&bundle),
        "--known",
        text(&at("known")),
        "--unknown",
        text(&at("unknown")),
        "--shots",
        "2",
        "--draws",
        "3",
        "--heads",
        "lda,knn",
    ]);
    let results = report["results"].as_array().unwrap();
    assert_eq!(results.len(), 6);
    for row in results {
        for key in ["auroc", "fpr95", "accuracy_known"] {
            assert!(
                row[key]
                    .as_f64()
                    .is_some_and(|share| (0.0..=1.0).contains(&share)),
                "{row}"
            );
        }
    }
    fail(
        &[
            "eval",
            "openset",
            "--bundle",
            text(&bundle),
            "--known",
            text(&at("known")),
            "--unknown",
            text(&at("unknown")),
            "--heads",
            "svm",
        ],
        &["prototype or knn"],
    );
}
