//! An int8 variant from frames to the engine: what is written, what it promises, and when nothing is written.

mod blocks;
mod gates;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ssl_edge_bundle::{Bundle, BundleWriter, GoldenSpec, Pooling};
use ssl_edge_export::{
    OnnxForm, QuantizeOptions, QuantizeReport, Target, quantize, random_bundle, round_to,
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
        ..QuantizeOptions::new(Target::Int8, frames)
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
    let float_size = BundleWriter::of(&bundle).unwrap().onnx.len();
    for (form, tolerance, share) in [
        (OnnxForm::Dynamic, 2e-2, 3),
        (OnnxForm::Qdq, 2e-2, 3),
        (OnnxForm::F16, 2e-3, 2),
    ] {
        let mut writer = BundleWriter::of(&bundle).unwrap();
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
        ..Options::default()
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
        let mut writer = BundleWriter::of(&bundle).unwrap();
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
    round_to(
        Target::Int8,
        &Bundle::open(&made.path("f32.sslb")).unwrap(),
        &out,
    )
    .unwrap();
    let encoder = open(&out, Precision::Int8).unwrap();
    assert_eq!(encoder.self_test().difference, 0.0);
    assert!(
        Bundle::open(&out).unwrap().manifest().variants["int8"]
            .figures
            .is_none()
    );
}
