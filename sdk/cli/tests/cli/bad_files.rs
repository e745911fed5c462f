//! Bad bundles, jobs and runs: a clear error that names the file and the remedy, and what was there before is still there.

use crate::bad_input::Kept;
use crate::support::{Shared, fail, succeed, text};
use ssl_edge::encoder::Bundle;
use std::fs;

#[test]
fn a_bundle_cut_anywhere() {
    let shared = Shared::get();
    let whole = fs::read(shared.bundle()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let cut = folder.path().join("cut.sslb");
    let n = whole.len();
    for len in [
        0,
        1,
        30,
        100,
        n / 7,
        n / 3,
        n / 2,
        2 * n / 3,
        n - 1000,
        n - 22,
        n - 1,
    ] {
        fs::write(&cut, &whole[..len]).unwrap();
        let kept = Kept::new();
        let (samples, out) = (shared.samples(), kept.out());
        let args = [
            "calibrate",
            "--bundle",
            text(&cut),
            "--samples",
            text(&samples),
            "--out",
            text(&out),
        ];
        fail(&args, &["cut.sslb", "ssl-edge export"]);
        kept.assert_unchanged();
    }
}

/// A changed byte is found by whoever reads the member that it is in, and by `bundle verify` wherever it is.
#[test]
fn a_bundle_changed_anywhere() {
    let shared = Shared::get();
    let whole = fs::read(shared.bundle()).unwrap();
    let bundle = Bundle::open(&shared.bundle()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (changed, out) = (
        folder.path().join("cut.sslb"),
        folder.path().join("e.safetensors"),
    );
    let samples = shared.samples();
    let embed = [
        "embed",
        "--bundle",
        text(&changed),
        "--images",
        text(&samples),
        "--out",
        text(&out),
    ];
    let verify = ["bundle", "verify", text(&changed)];
    for member in [
        "manifest.json",
        "weights.safetensors",
        "encoder.onnx",
        "golden.safetensors",
    ] {
        let contents = bundle.member(member).unwrap();
        let at = whole.windows(64).position(|part| part == &contents[..64]);
        let mut bytes = whole.clone();
        bytes[at.unwrap() + contents.len() / 2] ^= 1;
        fs::write(&changed, bytes).unwrap();
        fail(&verify, &["cut.sslb", "ssl-edge export"]);
        if member == "encoder.onnx" {
            // The native engine does not read the graph.
            succeed(&embed);
            fs::remove_file(&out).unwrap();
        } else {
            fail(&embed, &["cut.sslb", "ssl-edge export"]);
            assert!(!out.exists());
        }
    }
}

#[test]
fn a_job_cut_anywhere() {
    let shared = Shared::get();
    let whole = fs::read(shared.job()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let cut = folder.path().join("cut.sslj");
    let (bundle, samples) = (shared.bundle(), shared.samples());
    let n = whole.len();
    for len in [0, 1, 7, 8, 12, 20, n / 5, n / 2, n - 5, n - 1] {
        fs::write(&cut, &whole[..len]).unwrap();
        fail(
            &[
                "inspect",
                "--bundle",
                text(&bundle),
                "--job",
                text(&cut),
                text(&samples),
            ],
            &["cut.sslj"],
        );
    }
    let mut flipped = whole.clone();
    flipped[n / 2] ^= 1;
    fs::write(&cut, flipped).unwrap();
    let args = [
        "inspect",
        "--bundle",
        text(&bundle),
        "--job",
        text(&cut),
        text(&samples),
    ];
    fail(&args, &["cut.sslj", "copy it again or restore a backup"]);
}

#[test]
fn a_job_for_another_encoder() {
    let shared = Shared::get();
    let (other, job, samples) = (shared.other_bundle(), shared.job(), shared.samples());
    let args = [
        "inspect",
        "--bundle",
        text(&other),
        "--job",
        text(&job),
        text(&samples),
    ];
    fail(
        &args,
        &[
            "station.sslj",
            "other.sslb",
            "open the bundle that the job was taught with",
        ],
    );
}

#[test]
fn a_run_folder_that_holds_a_run_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let samples = Shared::get().samples();
    let args = [
        "pretrain",
        "--method",
        "mae",
        "--arch",
        "vit_n16",
        "--data",
        text(&samples),
        "--out",
        text(&run),
        "--set",
        "image_size=32",
        "--set",
        "schedule.batch=4",
        "--set",
        "schedule.images=4",
    ];
    succeed(&args);
    let config = fs::read(run.join("config.toml")).unwrap();
    fail(&args, &["run", "already holds a run", "--resume"]);
    fail(
        &[&args[..], &["--resume", "--set", "seed=9"]].concat(),
        &["seed: 0 -> 9"],
    );
    assert_eq!(fs::read(run.join("config.toml")).unwrap(), config);
}

#[test]
fn settings_that_do_not_exist_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (run, config) = (
        folder.path().join("run"),
        folder.path().join("settings.toml"),
    );
    let samples = Shared::get().samples();
    let args = [
        "pretrain",
        "--method",
        "dino",
        "--arch",
        "vit_n16",
        "--data",
        text(&samples),
        "--out",
        text(&run),
    ];
    fail(
        &[&args[..], &["--set", "schedule.epochs=3"]].concat(),
        &["--set schedule.epochs=3", "epochs"],
    );
    fs::write(&config, "[schedule]\nbtach = 3\n").unwrap();
    fail(
        &[&args[..], &["--config", text(&config)]].concat(),
        &["settings.toml", "btach"],
    );
    assert!(!run.exists());
}

#[test]
fn a_run_that_is_none_is_not_exported() {
    let kept = Kept::new();
    let folder = tempfile::tempdir().unwrap();
    fail(
        &["export", text(folder.path()), "--out", text(&kept.out())],
        &[text(folder.path()), "pretrain"],
    );
    fail(
        &[
            "export",
            "--random",
            "vit_n16",
            "--size",
            "33",
            "--out",
            text(&kept.out()),
        ],
        &["33", "16"],
    );
    kept.assert_unchanged();
}
