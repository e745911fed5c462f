//! `export --quantize`, and the precision of commands that open a bundle.

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

/// Without unlabelled frames those of the labelled folder are measured on.
#[test]
fn bundles_in_blocks_are_made_opened_and_listed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let (frames, base, out) = (frames(folder.path()), path("f32.sslb"), path("blocks.sslb"));
    succeed(&[
        "export",
        "--random",
        "vit_n16",
        "--size",
        "64",
        "--out",
        text(&base),
    ]);
    let eval = ["--eval", text(&frames), "--gate", "knn<=50"];
    let eight = [
        "export",
        text(&base),
        "--quantize",
        "q8_0",
        "--out",
        text(&out),
    ];
    let made = json(&[&eight[..], &eval[..]].concat());
    assert_eq!(made["precision"], "q8_0");
    let cosine = made["figures"]["cosine_mean"].as_f64().expect("a cosine");
    assert!(cosine > 0.999, "{made}");
    let four = [
        "export",
        text(&out),
        "--quantize",
        "q4_0",
        "--out",
        text(&out),
    ];
    let lenient = [
        "--calibrate",
        text(&frames),
        "--gate",
        "cosine>=0.97",
        "--gate",
        "worst>=0.9",
    ];
    let told = succeed(&[&four[..], &lenient[..]].concat()).stdout;
    assert!(
        told.contains("linear layers: 12 in q4_0, 12 in q8_0"),
        "{told}"
    );

    let inspected = succeed(&["bundle", "inspect", text(&out)]).stdout;
    for part in [
        "also in q8_0: 3.",
        "also in q4_0: 2.",
        "encoder.q4_0.gguf",
        "on 40 frames",
    ] {
        assert!(inspected.contains(part), "{part} is not in {inspected}");
    }
    for precision in ["q8_0", "q4_0"] {
        let opened = ["--bundle", text(&out), "--precision", precision];
        let tables = path(precision);
        let embed = ["embed", "--images", text(&frames), "--out", text(&tables)];
        succeed(&[&embed[..], &opened[..]].concat());
        let report = json(&[&["report"], &opened[..]].concat());
        assert_eq!(report["precision"], precision);
        let bench = json(&[&["bench", "encode", "--runs", "1"], &opened[..]].concat());
        assert!(
            bench["cosine"].as_f64().expect("a cosine") > 0.97,
            "{bench}"
        );
        let missing = [&["report", "--bundle", text(&base)], &opened[2..]].concat();
        fail(&missing, &[&format!("--quantize {precision}")]);
        let doctor = json(&["doctor"]);
        let precisions = doctor["precisions"].as_array().expect("a list");
        assert!(precisions.iter().any(|name| name == precision));
    }
    let random = [
        "bench", "encode", "--arch", "vit_n16", "--size", "64", "--runs", "1",
    ];
    let bench = json(&[&random[..], &["--precision", "q4_0"]].concat());
    assert!(
        bench["bytes"].as_u64().expect("bytes") < 3_000_000,
        "{bench}"
    );
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
