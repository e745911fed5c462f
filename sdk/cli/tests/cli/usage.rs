//! Exit status, help and lists of what is valid.

use crate::support::{call, json};

fn misuse(args: &[&str], words: &[&str]) {
    let outcome = call(args);
    assert_eq!(outcome.code, 2, "{args:?}: {}", outcome.stderr);
    assert_eq!(outcome.stdout, "");
    for word in words {
        assert!(
            outcome.stderr.contains(word),
            "`{word}` is not in:\n{}",
            outcome.stderr
        );
    }
}

#[test]
fn a_wrong_command_lists_the_commands() {
    misuse(
        &["trian"],
        &[
            "quickstart",
            "pretrain",
            "eval fewshot",
            "bench step",
            "doctor",
        ],
    );
    misuse(
        &["eval", "linear"],
        &["eval knn", "eval fewshot", "eval anomaly"],
    );
}

#[test]
fn a_wrong_method_lists_the_methods() {
    misuse(
        &[
            "pretrain", "--method", "simclr", "--arch", "vit_n16", "--data", ".", "--out", "run",
        ],
        &["simclr", "mae", "dino"],
    );
}

#[test]
fn a_wrong_architecture_lists_the_architectures() {
    let names = ["vit_n16", "vit_n8", "vit_t16", "vit_s16", "vit_b16"];
    misuse(
        &[
            "pretrain", "--method", "mae", "--arch", "resnet", "--data", ".", "--out", "run",
        ],
        &names,
    );
    misuse(&["export", "--random", "resnet", "--out", "b.sslb"], &names);
    misuse(
        &["bench", "step", "--method", "mae", "--arch", "resnet"],
        &names,
    );
}

#[test]
fn a_missing_argument_is_named() {
    misuse(&["embed", "--bundle", "b.sslb"], &["--images", "--out"]);
    misuse(&["export", "--out", "b.sslb"], &["RUN"]);
    let blocks = ["export", "b.sslb", "--out", "c.sslb", "--quantize", "q8_0"];
    misuse(&blocks, &["--calibrate", "--eval"]);
    let int8 = ["export", "b.sslb", "--out", "c.sslb", "--quantize", "int8"];
    misuse(&[&int8[..], &["--eval", "."]].concat(), &["--calibrate"]);
    misuse(
        &["export", "run", "--random", "vit_n16", "--out", "b.sslb"],
        &["--random"],
    );
    misuse(
        &[
            "bench", "step", "--method", "mae", "--arch", "vit_n16", "--batch", "0",
        ],
        &["--batch"],
    );
}

#[test]
fn no_command_shows_help_as_misuse() {
    misuse(&[], &["Usage", "quickstart"]);
}

#[test]
fn help_and_version_succeed_on_stdout() {
    for (args, word) in [
        (["--help"], "quickstart"),
        (["--version"], env!("CARGO_PKG_VERSION")),
    ] {
        let outcome = call(&args);
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        assert!(outcome.stdout.contains(word), "{}", outcome.stdout);
        assert_eq!(outcome.stderr, "");
    }
}

#[test]
fn doctor_says_what_is_built_in() {
    let report = json(&["doctor"]);
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
    assert!(
        report["threads"]
            .as_u64()
            .is_some_and(|threads| threads >= 1),
        "{report}"
    );
    let backends = report["backends"].as_array().unwrap();
    let backend = |name: &str| {
        backends
            .iter()
            .find(|backend| backend["name"] == name)
            .unwrap()
    };
    assert_eq!(backend("cpu")["built_in"], true);
    for name in ["cuda", "metal"] {
        let built_in = match name {
            "cuda" => cfg!(feature = "cuda"),
            _ => cfg!(feature = "metal"),
        };
        assert_eq!(backend(name)["built_in"], built_in);
        assert!(backend(name)["found"].is_boolean());
        if built_in {
            continue;
        }
        assert!(
            backend(name)["detail"]
                .as_str()
                .is_some_and(|detail| detail.contains("the CPU is used"))
        );
    }
    assert!(call(&["doctor"]).stdout.contains("cuda"));
}

#[test]
fn bench_measures_an_encoder_on_each_engine() {
    for engine in ["native", "onnx"] {
        let args = [
            "bench",
            "encode",
            "--arch",
            "vit_n16",
            "--size",
            "32",
            "--threads",
            "1",
            "--engine",
            engine,
        ];
        let report = json(&args);
        let (ms, img_per_s) = (
            report["ms"].as_f64().unwrap(),
            report["img_per_s"].as_f64().unwrap(),
        );
        assert!(ms > 0.0 && (ms * img_per_s - 1e3).abs() < 1.0, "{report}");
        assert_eq!(report["engine"], engine);
    }
}

#[test]
fn bench_measures_a_training_step() {
    let report = json(&[
        "bench",
        "step",
        "--method",
        "mae",
        "--arch",
        "vit_n16",
        "--batch",
        "1",
        "--threads",
        "1",
    ]);
    let (ms, img_per_s) = (
        report["ms"].as_f64().unwrap(),
        report["img_per_s"].as_f64().unwrap(),
    );
    assert!(ms > 0.0 && (ms * img_per_s - 1e3).abs() < 1.0, "{report}");
    let of = |key: &str| {
        report[key]
            .as_f64()
            .unwrap_or_else(|| panic!("{key}: {report}"))
    };
    let parts = of("forward_ms") + of("backward_ms") + of("update_ms");
    assert!((parts - ms).abs() < 0.01 * ms + 0.1, "{report}");
    assert!(of("gflops") > 0.0 && of("product_gflops") > 0.0, "{report}");
    assert!(
        cfg!(not(target_os = "linux")) || of("peak_mib") > 10.0,
        "{report}"
    );
}
