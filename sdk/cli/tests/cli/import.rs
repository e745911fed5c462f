//! `import`, `report`, `bench soak`: a graph of another program on the whole path, and how an encoder runs here.

use crate::support::{Shared, fail, json, succeed, text};
use ssl_edge::encoder::Bundle;
use std::fs;
use std::path::{Path, PathBuf};

/// The graph of a bundle as a file of its own: input `image`, outputs `cls` and `patches`.
fn graph(folder: &Path) -> PathBuf {
    let bundle = Bundle::open(&Shared::get().bundle()).expect("the bundle opens");
    let path = folder.join("model.onnx");
    fs::write(&path, bundle.member("encoder.onnx").expect("a graph")).expect("a file");
    path
}

#[test]
fn an_imported_graph_embeds_teaches_and_inspects_as_any_bundle() {
    let shared = Shared::get();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (graph, bundle) = (graph(folder.path()), at("imported.sslb"));
    let imported = json(&["import", text(&graph), "--out", text(&bundle)]);
    assert_eq!(imported["graph"]["name"], "model");
    assert_eq!(imported["graph"]["cls"]["from"], "vector");
    assert_eq!(imported["graph"]["patches"]["output"], "patches");
    assert_eq!(imported["input"]["name"], "image");
    assert_eq!(imported["height"], 32);
    assert_eq!(imported["outputs"][1]["shape"][2], 192);

    let inspected = json(&["bundle", "inspect", text(&bundle)]);
    assert_eq!(inspected["manifest"]["schema"], 2);
    assert_eq!(inspected["encoder"], imported["encoder"]);
    let human = succeed(&["bundle", "inspect", text(&bundle)]).stdout;
    assert!(human.contains("imported graph (opset 17"), "{human}");

    // Without --engine: the one engine that it has.
    let embedded = |bundle: &Path, out: &str, engine: &[&str]| {
        let out = at(out);
        let samples = shared.samples();
        let args = [
            "embed",
            "--bundle",
            text(bundle),
            "--images",
            text(&samples),
        ];
        succeed(&[&args[..], &["--out", text(&out)], engine].concat());
        fs::read(out).unwrap()
    };
    let ours = embedded(&shared.bundle(), "ours.safetensors", &["--engine", "onnx"]);
    assert!(embedded(&bundle, "theirs.safetensors", &[]) == ours);

    let (job, samples) = (at("station.sslj"), shared.samples());
    let with = ["--bundle", text(&bundle)];
    let calibrate = [
        "calibrate",
        "--samples",
        text(&samples),
        "--out",
        text(&job),
    ];
    succeed(&[&calibrate[..], &with].concat());
    let frame = fs::read_dir(samples.join("clean")).unwrap().next().unwrap();
    let frame = frame.unwrap().path();
    let inspect = ["inspect", "--job", text(&job), text(&frame)];
    assert_eq!(json(&[&inspect[..], &with].concat())["class"], "clean");
    let other = shared.bundle();
    fail(
        &[
            "inspect",
            "--job",
            text(&job),
            "--bundle",
            text(&other),
            text(&frame),
        ],
        &["encoder"],
    );
    fail(
        &["report", "--bundle", text(&bundle), "--engine", "native"],
        &["imported graph", "engine onnx"],
    );
    fail(
        &["report", "--bundle", text(&bundle), "--precision", "int8"],
        &["does not hold it"],
    );
}

#[test]
fn what_cannot_be_imported_is_said_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (graph, out) = (graph(folder.path()), at("b.sslb"));
    let import = |args: &[&str], words: &[&str]| {
        fail(
            &[&["import", text(&graph), "--out", text(&out)], args].concat(),
            words,
        );
        assert!(!out.exists());
    };
    import(&["--size", "64"], &["model.onnx", "not of 64 pixels"]);
    import(
        &["--outputs", "cls=tokens"],
        &["none is called tokens", "patches [1, 4, 192]"],
    );
    import(&["--outputs", "cls=cls,cls=cls"], &["twice"]);
    import(&["--std", "0.2,0,0.2"], &["std"]);
    let bytes = fs::read(&graph).unwrap();
    fs::write(&graph, &bytes[..bytes.len() / 3]).unwrap();
    import(&[], &["model.onnx", "cut short"]);
    fs::write(&graph, "a text").unwrap();
    import(&[], &["no ONNX model"]);
    fs::remove_file(&graph).unwrap();
    import(&[], &["model.onnx", "check the path"]);
}

#[test]
fn the_report_says_what_runs_and_how_fast() {
    let bundle = Shared::get().bundle();
    let args = [
        "report",
        "--bundle",
        text(&bundle),
        "--threads",
        "1",
        "--frames",
        "3",
    ];
    for engine in ["native", "onnx"] {
        let report = json(&[&args[..], &["--engine", engine]].concat());
        assert_eq!(
            (&report["engine"], &report["precision"]),
            (&engine.into(), &"f32".into())
        );
        assert_eq!(
            (&report["threads"], &report["device"]),
            (&1.into(), &"cpu".into())
        );
        assert_eq!(report["isa"].is_string(), engine == "native", "{report}");
        let ms = |key: &str| report["latency_ms"][key].as_f64().unwrap();
        assert!(0.0 < ms("p50") && ms("p50") <= ms("p99") && ms("p99") <= ms("max"));
        let golden = |key: &str| report["golden"][key].as_f64().unwrap();
        assert!(golden("difference") <= golden("tolerance"));
    }
    let human = succeed(&args).stdout;
    assert!(
        human.contains("engine native in f32 on cpu, 1 threads"),
        "{human}"
    );
}

#[test]
fn a_soak_embeds_gives_up_and_samples_memory() {
    let bundle = Shared::get().bundle();
    let args = [
        "bench",
        "soak",
        "--bundle",
        text(&bundle),
        "--minutes",
        "0.02",
    ];
    let report = json(&[&args[..], &["--allow", "100"]].concat());
    assert_eq!(report["flat"], true);
    assert!(report["frames"].as_u64().unwrap() > 0, "{report}");
    assert!(report["samples"].as_array().unwrap().len() > 10, "{report}");
    fail(
        &["bench", "soak", "--bundle", text(&bundle), "--minutes", "0"],
        &["--minutes"],
    );
}

#[test]
fn a_bundle_to_measure_with_has_both_precisions() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("bench.sslb");
    json(&[
        "bench",
        "bundle",
        "--arch",
        "vit_n16",
        "--size",
        "32",
        "--out",
        text(&bundle),
    ]);
    let encode = ["bench", "encode", "--bundle", text(&bundle), "--runs", "3"];
    let float = json(&encode);
    let int8 = json(&[&encode[..], &["--precision", "int8"]].concat());
    assert!(float["cosine"].as_f64().unwrap() > 0.999_99, "{float}");
    let cosine = int8["cosine"].as_f64().unwrap();
    assert!(cosine > 0.98 && cosine < 1.0, "{int8}");
    assert!(int8["bytes"].as_u64() < float["bytes"].as_u64());
    assert!(float["start_ms"].as_f64() > Some(0.0));

    // The int8 graph through tract is an imported one.
    let graph = folder.path().join("int8.onnx");
    let member = Bundle::open(&bundle).unwrap();
    fs::write(&graph, member.member("encoder.int8.onnx").unwrap()).unwrap();
    let imported = folder.path().join("int8.sslb");
    json(&["import", text(&graph), "--out", text(&imported)]);
    let through_tract = json(&[
        "bench",
        "encode",
        "--bundle",
        text(&imported),
        "--reference",
        text(&bundle),
        "--runs",
        "2",
    ]);
    assert_eq!(through_tract["engine"], "onnx");
    assert!(
        through_tract["cosine"].as_f64().unwrap() > 0.95,
        "{through_tract}"
    );
}
