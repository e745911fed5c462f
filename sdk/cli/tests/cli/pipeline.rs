//! From unlabelled images to verdicts through the program, for each method.

use crate::support::{json, program, succeed, surfaces, text};
use safetensors::SafeTensors;
use serde_json::Value;
use ssl_edge::vision::Surface;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const STEPS: usize = 6;

fn pretrain_args<'a>(
    method: &'a str,
    data: &'a Path,
    run: &'a Path,
    every: &'a str,
) -> Vec<&'a str> {
    let mut args = vec![
        "pretrain",
        "--method",
        method,
        "--arch",
        "vit_n16",
        "--data",
        text(data),
        "--out",
        text(run),
    ];
    let mut set = vec![
        "image_size=32",
        "schedule.batch=8",
        "schedule.images=48",
        "checkpoint.keep=9",
        every,
    ];
    if method == "dino" {
        set.extend([
            "local_size=16",
            "dino.head.out_dim=64",
            "dino.head.hidden=64",
            "dino.head.bottleneck=32",
        ]);
    }
    for setting in set {
        args.extend(["--set", setting]);
    }
    args
}

fn checkpoints(run: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(run.join("checkpoints")) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().parse::<u64>().is_ok())
        })
        .collect();
    found.sort_by_key(|path| {
        path.file_name()
            .map(|name| name.to_string_lossy().parse::<u64>().unwrap_or(0))
    });
    found
}

/// Starts a run and kills it as soon as it has written a checkpoint, unless it ends before.
fn interrupted(method: &str, data: &Path, run: &Path) {
    let mut child = Command::new(program())
        .args(pretrain_args(method, data, run, "checkpoint.every_steps=1"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let deadline = Instant::now() + Duration::from_secs(120);
    while checkpoints(run).is_empty() {
        assert!(Instant::now() < deadline, "no checkpoint after two minutes");
        assert!(
            child
                .try_wait()
                .unwrap()
                .is_none_or(|status| status.success()),
            "the run failed"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    let _ = child.kill();
    child.wait().expect("the run ends");
}

fn weights(run: &Path) -> Vec<Vec<u8>> {
    let last = checkpoints(run).pop().expect("a checkpoint");
    assert!(
        last.ends_with(STEPS.to_string()) || text(&last).ends_with(&format!("{STEPS}")),
        "{last:?}"
    );
    [
        "model.safetensors",
        "teacher.safetensors",
        "optim.safetensors",
    ]
    .iter()
    .map(|name| last.join(name))
    .filter(|path| path.exists())
    .map(|path| std::fs::read(path).expect("a checkpoint's file can be read"))
    .collect()
}

fn whole_path(method: &str) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (photos, val, samples) = (at("photos"), at("val"), at("samples"));
    surfaces(&photos, &Surface::ALL, 6, 0);
    surfaces(&val, &Surface::ALL, 3, 1);
    surfaces(&samples, &Surface::ALL, 3, 2);

    let (whole, cut) = (at("whole"), at("cut"));
    let report = json(&pretrain_args(
        method,
        &photos,
        &whole,
        "checkpoint.every_steps=4",
    ));
    assert_eq!(report["step"], STEPS);
    assert_eq!(report["images_seen"], 48);
    assert!(
        report["loss"].as_f64().is_some_and(f64::is_finite),
        "{report}"
    );
    interrupted(method, &photos, &cut);
    let mut resume = pretrain_args(method, &photos, &cut, "checkpoint.every_steps=1");
    resume.push("--resume");
    assert_eq!(json(&resume)["step"], STEPS);
    assert_eq!(
        weights(&whole),
        weights(&cut),
        "an interrupted run ends with other bits"
    );

    let bundle = at("encoder.sslb");
    let exported = json(&["export", text(&whole), "--out", text(&bundle)]);
    for engine in ["native", "onnx"] {
        assert!(
            exported["engines"][engine]
                .as_f64()
                .is_some_and(|difference| difference <= 1e-4),
            "{exported}"
        );
    }
    embeds(&bundle, &photos, &at("embeddings.safetensors"));

    let knn = json(&[
        "eval",
        "knn",
        "--bundle",
        text(&bundle),
        "--train",
        text(&photos),
        "--val",
        text(&val),
    ]);
    assert!(
        knn["knn20"]
            .as_f64()
            .is_some_and(|accuracy| (0.0..=1.0).contains(&accuracy)),
        "{knn}"
    );
    fewshot(&bundle, &photos);
    verdicts(&bundle, &samples, &val, &at("station.sslj"));
}

fn embeds(bundle: &Path, photos: &Path, out: &Path) {
    let args = [
        "embed",
        "--bundle",
        text(bundle),
        "--images",
        text(photos),
        "--out",
        text(out),
    ];
    let report = json(&args);
    assert_eq!(
        (&report["images"], &report["dim"]),
        (&Value::from(30), &Value::from(192))
    );
    let bytes = std::fs::read(out).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for name in ["cls", "mean"] {
        assert_eq!(file.tensor(name).unwrap().shape(), [30, 192]);
    }
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let paths: Vec<String> =
        serde_json::from_str(&metadata.metadata().as_ref().unwrap()["paths"]).unwrap();
    assert_eq!(paths.len(), 30);
    assert!(
        paths.iter().all(|path| photos.join(path).is_file()),
        "{paths:?}"
    );
    assert!(paths.is_sorted());

    succeed(&[&args[..], &["--engine", "onnx"]].concat());
    let other = std::fs::read(out).unwrap();
    let other = SafeTensors::deserialize(&other).unwrap();
    let values = |file: &SafeTensors| -> Vec<f32> {
        let tensor = file.tensor("cls").unwrap();
        tensor
            .data()
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
            .collect()
    };
    for (native, onnx) in values(&file)
        .chunks_exact(192)
        .zip(values(&other).chunks_exact(192))
    {
        let norm = native.iter().map(|value| value * value).sum::<f32>().sqrt();
        let furthest = native
            .iter()
            .zip(onnx)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(
            furthest / norm <= 1e-4,
            "the engines differ by {}",
            furthest / norm
        );
    }
}

fn fewshot(bundle: &Path, photos: &Path) {
    let report = json(&[
        "eval",
        "fewshot",
        "--bundle",
        text(bundle),
        "--data",
        text(photos),
        "--shots",
        "1,2",
        "--draws",
        "3",
        "--pooling",
        "all",
    ]);
    let results = report["results"].as_array().unwrap();
    let all = [
        "discriminant",
        "lda",
        "ridge",
        "logistic",
        "prototype",
        "knn",
    ];
    for (features, n_poolings, heads) in [
        ("encoder", 4, &all[..]),
        ("encoder+texture", 4, &all[..]),
        ("auto", 1, &["auto"][..]),
        ("raw_pixels", 1, &all[..]),
        ("hog_lbp", 1, &all[..]),
    ] {
        for shots in [1, 2] {
            for &head in heads {
                let found: Vec<&Value> = results
                    .iter()
                    .filter(|row| {
                        row["features"] == features && row["shots"] == shots && row["head"] == head
                    })
                    .collect();
                assert_eq!(found.len(), n_poolings, "{features} {head} {shots}");
                for row in found {
                    assert!(
                        row["mean"]
                            .as_f64()
                            .is_some_and(|mean| (0.0..=1.0).contains(&mean)),
                        "{row}"
                    );
                    assert!(
                        row["ci95"].as_f64().is_some_and(|ci95| ci95 >= 0.0),
                        "{row}"
                    );
                    for (key, most) in [("ece", 1.0), ("brier", 2.0)] {
                        assert!(
                            row[key].as_f64().is_some_and(|v| (0.0..=most).contains(&v)),
                            "{key} of {row}"
                        );
                    }
                    let baseline = ["raw_pixels", "hog_lbp"].contains(&features);
                    assert_eq!(row["pooling"].is_string(), !baseline, "{row}");
                }
            }
        }
    }
}

fn verdicts(bundle: &Path, samples: &Path, val: &Path, job: &Path) {
    let report = json(&[
        "calibrate",
        "--bundle",
        text(bundle),
        "--samples",
        text(samples),
        "--out",
        text(job),
    ]);
    assert_eq!(report["samples"], 15);
    assert!(report["loo_accuracy"].is_number(), "{report}");
    let names: Vec<&str> = Surface::ALL.iter().map(|surface| surface.name()).collect();

    let inspect = [
        "inspect",
        "--bundle",
        text(bundle),
        "--job",
        text(job),
        text(val),
        "--json",
    ];
    let outcome = succeed(&inspect);
    let lines: Vec<Value> = outcome
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 15);
    for line in &lines {
        assert!(
            Path::new(line["path"].as_str().unwrap()).is_file(),
            "{line}"
        );
        assert!(names.contains(&line["class"].as_str().unwrap()), "{line}");
        assert!(
            line["score"]
                .as_f64()
                .is_some_and(|score| (0.0..=1.0).contains(&score)),
            "{line}"
        );
        assert!(line["unknown"].is_boolean(), "{line}");
    }
    let one_thread = succeed(&[&inspect[..], &["--threads", "1"]].concat());
    let three_threads = succeed(&[&inspect[..], &["--threads", "3"]].concat());
    assert_eq!(
        one_thread.stdout, three_threads.stdout,
        "verdicts depend on the number of threads"
    );
}

#[test]
fn dino_from_photos_to_verdicts() {
    whole_path("dino");
}

#[test]
fn mae_from_photos_to_verdicts() {
    whole_path("mae");
}

#[test]
fn quickstart_keeps_what_it_made() {
    let folder = tempfile::tempdir().unwrap();
    let report = json(&["quickstart", "--images", "64", "--out", text(folder.path())]);
    assert!(
        report["seconds"]
            .as_f64()
            .is_some_and(|seconds| seconds > 0.0),
        "{report}"
    );
    for features in ["job", "encoder", "random", "texture", "raw_pixels"] {
        let accuracy = report["accuracy"][features].as_f64();
        assert!(
            accuracy.is_some_and(|accuracy| (0.0..=1.0).contains(&accuracy)),
            "{report}"
        );
    }
    let at = |name: &str| folder.path().join(name);
    succeed(&[
        "inspect",
        "--bundle",
        text(&at("encoder.sslb")),
        "--job",
        text(&at("station.sslj")),
        text(&at("fresh")),
    ]);
}

#[test]
fn a_probe_scores_while_it_trains() {
    let folder = tempfile::tempdir().unwrap();
    let (photos, run) = (folder.path().join("photos"), folder.path().join("run"));
    surfaces(&photos, &Surface::ALL, 10, 0);
    let mut args = pretrain_args("mae", &photos, &run, "checkpoint.every_steps=9");
    args.extend(["--probe", text(&photos)]);
    let report = json(&args);
    assert!(
        report["knn20"]
            .as_f64()
            .is_some_and(|accuracy| (0.0..=1.0).contains(&accuracy)),
        "{report}"
    );
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    assert!(
        metrics.lines().any(|line| line.contains("knn20")),
        "{metrics}"
    );
    assert_eq!(
        metrics
            .lines()
            .filter(|line| line.contains("\"loss\""))
            .count(),
        STEPS
    );
}

#[test]
fn bf16_is_offered_where_the_cpu_multiplies_it() {
    let folder = tempfile::tempdir().unwrap();
    let (photos, run) = (folder.path().join("photos"), |name| {
        folder.path().join(name)
    });
    surfaces(&photos, &Surface::ALL, 2, 0);
    let features = json(&["doctor"])["cpu"]["features"].clone();
    let has_it = |feature: &Value| feature["name"] == "avx512bf16" && feature["found"] == true;
    let multiplies = features.as_array().unwrap().iter().any(has_it);

    let (plain, fast) = (run("plain"), run("fast"));
    let offered = succeed(&pretrain_args("mae", &photos, &plain, "schedule.images=8")).stderr;
    assert!(offered.contains("products in f32"), "{offered}");
    assert_eq!(
        offered.contains("--precision bf16"),
        multiplies,
        "{offered}"
    );

    let mut args = pretrain_args("mae", &photos, &fast, "schedule.images=8");
    args.extend(["--precision", "bf16"]);
    let taken = succeed(&args).stderr;
    assert!(taken.contains("products in bf16"), "{taken}");
    assert!(!taken.contains("--precision bf16"), "{taken}");
    assert_eq!(taken.contains("no instructions"), !multiplies, "{taken}");
    let config = std::fs::read_to_string(fast.join("config.toml")).unwrap();
    assert!(config.contains("precision = \"bf16\""), "{config}");
}
