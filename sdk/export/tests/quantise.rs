//! An int8 variant from frames to the engine: what is written, what it promises, and when nothing is written.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ssl_edge_bundle::{Bundle, BundleWriter, GoldenSpec, GraphFigures, Pooling};
use ssl_edge_export::{
    Gate, OnnxForm, QuantizeError, QuantizeOptions, QuantizeReport, quantize, random_bundle,
    round_to_int8,
};
use ssl_edge_runtime::{Encoder, EngineKind, Options, Precision, RuntimeError};
use ssl_edge_vision::{Station, Surface};
use tempfile::TempDir;

const SIZE: u32 = 64;

/// A random encoder, class folders of procedural surfaces, and the bundle with its int8 variant.
struct Made {
    folder: TempDir,
    report: QuantizeReport,
}

impl Made {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn options(frames: &Path) -> QuantizeOptions {
    QuantizeOptions {
        frames: 16,
        eval: Some(frames.to_owned()),
        parts: Some(frames.with_file_name("parts")),
        threads: 2,
        onnx: OnnxForm::ALL.to_vec(),
        ..QuantizeOptions::new(frames)
    }
}

/// Good surfaces and others.
fn parts(folder: &Path, station: &Station) {
    let surfaces = [Surface::Clean, Surface::Crack];
    station.write(folder, &surfaces, 10, SIZE, 1).unwrap();
    std::fs::rename(folder.join("clean"), folder.join("good")).unwrap();
}

fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let (base, frames) = (folder.path().join("f32.sslb"), folder.path().join("frames"));
        random_bundle("vit_n16", 3, SIZE, Pooling::ClsMean, &base).unwrap();
        let surfaces = [Surface::Clean, Surface::Scratch, Surface::Stain];
        let station = Station::new(1);
        station.write(&frames, &surfaces, 14, SIZE, 0).unwrap();
        parts(&folder.path().join("parts"), &station);
        let bundle = Bundle::open(&base).unwrap();
        let mut lines = Vec::new();
        let out = folder.path().join("int8.sslb");
        let mut progress = |line: &str| lines.push(line.to_owned());
        let report = quantize(&bundle, &options(&frames), &out, &mut progress).unwrap();
        assert!(
            lines.iter().any(|line| line.contains("16 frames")),
            "{lines:?}"
        );
        Made { folder, report }
    })
}

fn open(path: &Path, precision: Precision) -> Result<Encoder, RuntimeError> {
    let options = Options {
        threads: 2,
        precision,
        ..Options::default()
    };
    Encoder::open(path, &options)
}

#[test]
fn the_variant_is_near_f32_smaller_and_another_encoder() {
    let made = made();
    let f = &made.report.figures;
    let q = &f.quality;
    assert!(q.cosine_mean > 0.999 && q.cosine_worst > 0.998, "{f:?}");
    assert!(
        f.bytes * 3 < f.f32_bytes && f.memory < f.f32_memory,
        "{f:?}"
    );
    let names: Vec<&str> = q.scores.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["knn", "fewshot-1", "fewshot-5", "fewshot-10"]);
    assert!(q.scores.iter().all(|s| s.ci95 > 0.0 || s.accuracy == 1.0));
    assert!(q.scores.iter().all(|s| s.classes.len() == 3));
    assert_eq!(q.scores[0].classes[0].frames, 7);
    let area = q.anomaly.unwrap();
    assert_eq!((area.learned, area.good, area.bad), (5, 5, 10));
    assert!((area.auroc - area.f32_auroc).abs() < 0.1, "{area:?}");
    assert!(f.ms > 0.0 && f.f32_ms > 0.0);

    let path = made.path("int8.sslb");
    let (float, int8) = (
        open(&path, Precision::F32).unwrap(),
        open(&path, Precision::Int8).unwrap(),
    );
    assert_eq!(int8.precision(), Precision::Int8);
    let written = made.report.written.unwrap();
    assert_eq!(int8.hash(), written.encoder_hash);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), written.bytes);
    assert_ne!(int8.hash(), float.hash(), "jobs are for one precision");
    let before = open(&made.path("f32.sslb"), Precision::F32).unwrap();
    assert_eq!(float.hash(), before.hash(), "and f32 jobs stay valid");

    let frame = Station::new(9).photo(Surface::Crack, SIZE, 4);
    let feature = |encoder: &Encoder| encoder.feature(&encoder.embed(&frame.frame()).unwrap());
    let (a, b) = (feature(&float), feature(&int8));
    let cosine: f32 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
    assert!(cosine > 0.998 && a != b, "{cosine}");
}

#[test]
fn the_manifest_and_the_report_say_what_was_measured() {
    let made = made();
    let bundle = Bundle::open(&made.path("int8.sslb")).unwrap();
    let variant = &bundle.manifest().variants["int8"];
    let (kept, told) = (variant.figures.as_ref().unwrap(), &made.report.figures);
    assert_eq!(
        (kept.bytes, kept.quality.frames, kept.graphs.len()),
        (told.bytes, told.quality.frames, 3)
    );
    let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
    assert!(near(kept.quality.cosine_worst, told.quality.cosine_worst));
    let [kept_area, told_area] = [kept, told].map(|f| f.quality.anomaly.unwrap().auroc);
    assert!(near(kept_area, told_area));
    for (kept, told) in kept.quality.scores.iter().zip(&told.quality.scores) {
        assert!(kept.name == told.name && near(kept.accuracy, told.accuracy));
        assert!(near(kept.classes[2].recall, told.classes[2].recall));
    }
    assert!(variant.float_layers.is_empty());
    assert_eq!(made.report.layers.len(), 24);
    assert!(
        made.report
            .layers
            .iter()
            .all(|layer| layer.precision == "int8")
    );
    assert!(made.report.layers.iter().all(|layer| layer.error < 1e-2));

    let folder = made.path("report");
    made.report.write(&folder).unwrap();
    let json = std::fs::read_to_string(folder.join("report.json")).unwrap();
    let html = std::fs::read_to_string(folder.join("report.html")).unwrap();
    for text in [&json, &html] {
        assert!(text.contains("blocks.5.mlp.fc2") && text.contains("=0.995"));
    }
    assert!(json.contains(&format!(
        "\"cosine_mean\": {}",
        made.report.figures.quality.cosine_mean
    )));
    let graphs: Vec<&str> = told.graphs.iter().map(|g| g.member.as_str()).collect();
    assert_eq!(
        graphs,
        ["encoder.int8.onnx", "encoder.qdq.onnx", "encoder.f16.onnx"]
    );
    for graph in &told.graphs {
        let run = graph.run.as_ref().unwrap();
        assert_eq!(run.engine, "tract");
        assert!(run.quality.cosine_mean > 0.995 && run.quality.cosine_mean < 1.0);
        assert_eq!(run.quality.scores.len(), 4);
        assert!(run.quality.anomaly.is_some() && run.ms > 0.0);
        assert!(html.contains(&graph.member));
    }
    assert_eq!(made.report.gates.len(), 2 * 4);
    assert!(
        made.report
            .gates
            .iter()
            .all(|gate| gate.holds == Some(true))
    );
    assert_eq!(made.report.class_names, ["clean", "scratch", "stain"]);
    assert!(html.contains("<td>scratch</td>"));
    let manifest = serde_json::to_string(bundle.manifest()).unwrap();
    assert!(
        !manifest.contains("scratch"),
        "classes are counted, not named"
    );
}

/// Nothing is fetched, and every element that is opened is closed.
#[test]
fn the_page_stands_alone() {
    let html = made().report.html();
    for word in [
        "<script", "<link", "<img", "src=", "url(", "@import", "http",
    ] {
        assert!(!html.contains(word), "{word}");
    }
    for tag in ["table", "section", "p", "main", "td", "tr", "div"] {
        let opened =
            html.matches(&format!("<{tag}>")).count() + html.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, html.matches(&format!("</{tag}>")).count(), "{tag}");
        assert!(opened > 0, "{tag}");
    }
}

/// The graphs through tract, which has an interpreter of its own for all of their operators.
#[test]
fn every_graph_is_near_the_golden_vectors() {
    let made = made();
    let bundle = Bundle::open(&made.path("int8.sslb")).unwrap();
    let path = Path::new("b.sslb");
    let float_size = BundleWriter::of(&bundle).onnx.len();
    for (form, tolerance, share) in [
        (OnnxForm::Dynamic, 2e-2, 3),
        (OnnxForm::Qdq, 2e-2, 3),
        (OnnxForm::F16, 2e-3, 2),
    ] {
        let mut writer = BundleWriter::of(&bundle);
        writer.onnx = bundle.member(form.member()).unwrap().to_vec();
        assert!(writer.onnx.len() * share < float_size * 11 / 10, "{form:?}");
        writer.golden = GoldenSpec {
            tolerance,
            ..writer.golden
        };
        let bundle = Bundle::from_bytes(path, writer.to_bytes(path).unwrap()).unwrap();
        let options = Options {
            engine: EngineKind::Onnx,
            threads: 2,
            ..Options::default()
        };
        let encoder = Encoder::from_bundle(&bundle, &options);
        let difference = encoder.map(|e| e.self_test().difference);
        let difference = difference.unwrap_or_else(|error| panic!("{form:?}: {error}"));
        assert!(difference > 0.0, "{form:?} rounds");
    }
}

#[test]
fn quantising_twice_gives_the_same_weights() {
    let made = made();
    let bundle = Bundle::open(&made.path("int8.sslb")).unwrap();
    let out = made.path("again.sslb");
    quantize(&bundle, &options(&made.path("frames")), &out, &mut |_| ()).unwrap();
    let again = Bundle::open(&out).unwrap();
    assert_eq!(
        again.manifest().variant_hash("int8"),
        bundle.manifest().variant_hash("int8")
    );
    assert_eq!(again.manifest().variants.len(), 1);
}

#[test]
fn a_gate_that_does_not_hold_names_the_worst_layer_and_writes_nothing() {
    let made = made();
    let bundle = Bundle::open(&made.path("f32.sslb")).unwrap();
    let out = made.path("never.sslb");
    std::fs::write(&out, "what was there").unwrap();
    let impossible = QuantizeOptions {
        gates: vec!["cosine>=0.9999999".parse::<Gate>().unwrap()],
        float_layers: Some(2),
        ..options(&made.path("frames"))
    };
    let mut lines = Vec::new();
    let mut progress = |line: &str| lines.push(line.to_owned());
    let error = quantize(&bundle, &impossible, &out, &mut progress).unwrap_err();
    let QuantizeError::Gate {
        layer,
        float_layers,
        loss,
        report,
        ..
    } = &error
    else {
        panic!("{error}")
    };
    assert_eq!(*float_layers, 2);
    assert!(layer.starts_with("blocks.") && *loss > 0.0);
    assert!(error.to_string().contains(layer), "{error}");
    let page = report.html();
    assert!(page.contains("Not written: cosine&gt;=0.9999999 does not hold for int8"));
    assert!(page.contains(&format!("{layer} hurts most")), "{layer}");
    assert!(report.written.is_none() && report.figures.quality.scores.len() == 4);
    let json = serde_json::to_value(report).unwrap();
    assert!(json.get("encoder_hash").is_none() && json.get("bytes").is_none());
    let failed = report.gates.iter().filter(|gate| gate.holds == Some(false));
    assert!(
        failed
            .map(|gate| &gate.gate)
            .all(|gate| gate == "cosine>=0.9999999")
    );
    let back: Vec<_> = lines
        .iter()
        .filter(|l| l.contains("goes back to f32"))
        .collect();
    assert_eq!(back.len(), 2, "{lines:?}");
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "what was there");
}

#[test]
fn layers_go_back_to_f32_until_the_gate_holds() {
    let made = made();
    let bundle = Bundle::open(&made.path("f32.sslb")).unwrap();
    let plain = made.report.figures.quality.cosine_mean;
    let out = made.path("mixed.sslb");
    let gate = Gate {
        bound: 1.0 - (1.0 - plain) * 0.6,
        ..Gate::DEFAULT[0]
    };
    let strict = QuantizeOptions {
        gates: vec![gate],
        float_layers: Some(23),
        onnx: Vec::new(),
        ..options(&made.path("frames"))
    };
    let report = quantize(&bundle, &strict, &out, &mut |_| ()).unwrap();
    assert!(report.figures.quality.cosine_mean >= gate.bound);
    let variant = Bundle::open(&out).unwrap().manifest().variants["int8"].clone();
    let float: Vec<&str> = report
        .layers
        .iter()
        .filter(|layer| layer.precision == "f32")
        .map(|layer| layer.name.as_str())
        .collect();
    assert!(!float.is_empty() && float.len() < 24);
    assert!(
        float
            .iter()
            .all(|name| variant.float_layers.iter().any(|l| l == name))
    );
    assert!(open(&out, Precision::Int8).is_ok());
}

#[test]
fn residuals_of_the_calibrated_graph_go_back_to_f32_until_the_gate_holds() {
    let made = made();
    let bundle = Bundle::open(&made.path("f32.sslb")).unwrap();
    let graph = |report: &QuantizeReport, index: usize| report.figures.graphs[index].clone();
    let cosine = |graph: &GraphFigures| graph.run.as_ref().unwrap().quality.cosine_mean;
    let plain = graph(&made.report, 1);
    assert!(!plain.float_residuals);
    let gate = Gate {
        bound: 1.0 - (1.0 - cosine(&plain)) * 0.6,
        ..Gate::DEFAULT[0]
    };
    let strict = QuantizeOptions {
        gates: vec![gate],
        onnx: vec![OnnxForm::Qdq],
        eval: None,
        parts: None,
        ..options(&made.path("frames"))
    };
    let out = made.path("residuals.sslb");
    let report = quantize(&bundle, &strict, &out, &mut |_| ()).unwrap();
    let found = graph(&report, 0);
    assert!(found.float_residuals && cosine(&found) >= gate.bound);
    assert!(found.bytes < plain.bytes, "12 pairs less");
    assert!(
        report
            .html()
            .contains("the tokens that skip a branch stayed f32")
    );
}

#[test]
fn what_is_missing_is_named() {
    let made = made();
    let bundle = Bundle::open(&made.path("f32.sslb")).unwrap();
    let out = made.path("never2.sslb");
    let run = |options: &QuantizeOptions| {
        let error = quantize(&bundle, options, &out, &mut |_| ()).unwrap_err();
        error.to_string()
    };
    let unlabelled = QuantizeOptions {
        gates: vec!["knn<=0.5".parse().unwrap()],
        eval: None,
        ..options(&made.path("frames"))
    };
    let message = run(&unlabelled);
    assert!(
        message.contains("knn<=0.5") && message.contains("--eval"),
        "{message}"
    );
    let partless = QuantizeOptions {
        gates: vec!["auroc<=0.5".parse().unwrap()],
        parts: None,
        ..options(&made.path("frames"))
    };
    let message = run(&partless);
    assert!(
        message.contains("auroc<=0.5") && message.contains("--parts"),
        "{message}"
    );
    let few = run(&options(&made.path("frames").join("clean")));
    assert!(
        few.contains("clean has 14 usable images") && few.contains("32"),
        "{few}"
    );
    assert!(!out.exists());
}

#[test]
fn a_precision_that_is_not_there_is_an_error_with_the_reason() {
    let made = made();
    let error = open(&made.path("f32.sslb"), Precision::Int8)
        .map(|_| ())
        .unwrap_err();
    assert!(
        matches!(error, RuntimeError::PrecisionUnavailable { .. }),
        "{error}"
    );
    let message = error.to_string();
    assert!(
        message.contains("f32.sslb") && message.contains("--quantize int8"),
        "{message}"
    );

    let options = Options {
        engine: EngineKind::Onnx,
        threads: 1,
        precision: Precision::Int8,
    };
    let error = Encoder::open(&made.path("int8.sslb"), &options)
        .map(|_| ())
        .unwrap_err();
    assert!(
        error.to_string().contains("engine onnx runs f32 only"),
        "{error}"
    );
}

#[test]
fn damaged_int8_weights_do_not_open() {
    let made = made();
    let bundle = Bundle::open(&made.path("int8.sslb")).unwrap();
    let path = Path::new("b.sslb");
    let int8 = Options {
        precision: Precision::Int8,
        ..Options::default()
    };
    let reopen = |change: &dyn Fn(&mut BundleWriter)| {
        let mut writer = BundleWriter::of(&bundle);
        change(&mut writer);
        let bundle = Bundle::from_bytes(path, writer.to_bytes(path).unwrap()).unwrap();
        Encoder::from_bundle(&bundle, &int8).map(|_| ())
    };
    assert!(reopen(&|_| ()).is_ok());
    let cut = reopen(&|writer| writer.variants[0].weights.truncate(1000)).unwrap_err();
    assert!(matches!(cut, RuntimeError::Load { .. }), "{cut}");
    let flipped = reopen(&|writer| {
        let weights = &mut writer.variants[0].weights;
        let half = weights.len() / 2;
        weights[half..].iter_mut().for_each(|byte| *byte ^= 0x15);
    });
    assert!(
        matches!(flipped, Err(RuntimeError::SelfTest { .. })),
        "{flipped:?}"
    );
}

#[test]
fn rounding_alone_gives_a_bundle_that_opens() {
    let made = made();
    let out = made.path("rounded.sslb");
    round_to_int8(&Bundle::open(&made.path("f32.sslb")).unwrap(), &out).unwrap();
    let encoder = open(&out, Precision::Int8).unwrap();
    assert_eq!(encoder.self_test().difference, 0.0);
    assert!(
        Bundle::open(&out).unwrap().manifest().variants["int8"]
            .figures
            .is_none()
    );
}
