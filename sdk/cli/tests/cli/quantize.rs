//! `export --quantize int8`, and the precision of commands that open a bundle.

use crate::support::{fail, json, succeed, text};
use ssl_edge::vision::{Station, Surface};
use std::path::{Path, PathBuf};

fn frames(folder: &Path) -> PathBuf {
    let frames = folder.join("frames");
    let surfaces = [Surface::Clean, Surface::Scratch];
    let station = Station::new(1);
    station
        .write(&frames, &surfaces, 20, 64, 0)
        .expect("surfaces are written");
    frames
}

#[test]
fn an_int8_bundle_is_made_opened_and_told_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let (frames, base, out) = (frames(folder.path()), path("f32.sslb"), path("int8.sslb"));
    succeed(&[
        "export",
        "--random",
        "vit_n16",
        "--size",
        "64",
        "--out",
        text(&base),
    ]);
    let report = path("report");
    let quantize = [
        "export",
        text(&base),
        "--quantize",
        "int8",
        "--calibrate",
        text(&frames),
        "--frames",
        "16",
        "--eval",
        text(&frames),
        "--gate",
        "knn<=50",
        "--onnx",
        "dynamic",
        "--report",
        text(&report),
        "--out",
        text(&out),
    ];
    let made = json(&quantize);
    assert!(
        made["figures"]["cosine_mean"].as_f64().expect("a cosine") > 0.999,
        "{made}"
    );
    assert!(
        made["gates"]
            .as_array()
            .expect("gates")
            .iter()
            .all(|gate| gate["holds"] == true)
    );
    assert!(report.join("report.html").exists() && report.join("report.json").exists());

    let (job, tables) = (path("int8.sslj"), path("embeddings.safetensors"));
    let int8 = ["--bundle", text(&out), "--precision", "int8"];
    succeed(
        &[
            &["calibrate", "--samples", text(&frames), "--out", text(&job)],
            &int8[..],
        ]
        .concat(),
    );
    let clean = frames.join("clean");
    let inspect = ["inspect", "--job", text(&job), text(&clean)];
    succeed(&[&inspect[..], &int8[..]].concat());
    fail(&[&inspect[..], &int8[..2]].concat(), &["encoder"]);
    let embed = [
        "embed",
        "--images",
        text(&frames),
        "--out",
        text(&tables),
        "--precision",
        "int8",
    ];
    fail(
        &[&embed[..], &["--bundle", text(&base)]].concat(),
        &["int8", "--quantize int8"],
    );
    succeed(&[&embed[..], &["--bundle", text(&out)]].concat());
}

#[test]
fn a_gate_that_does_not_hold_fails_and_names_a_layer() {
    let folder = tempfile::tempdir().expect("a folder");
    let (frames, out) = (frames(folder.path()), folder.path().join("int8.sslb"));
    let quantize = [
        "export",
        "--random",
        "vit_n16",
        "--size",
        "64",
        "--quantize",
        "int8",
        "--calibrate",
        text(&frames),
        "--frames",
        "16",
        "--gate",
        "cosine>=0.9999999",
        "--float-layers",
        "1",
        "--out",
        text(&out),
    ];
    fail(
        &quantize,
        &[
            "cosine>=0.9999999 does not hold",
            "layer blocks.",
            "was not written",
        ],
    );
    assert!(!out.exists());
}
