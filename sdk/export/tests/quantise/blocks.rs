//! Variants in GGML's blocks: without calibration, by the same yardstick and gates.

use std::path::Path;

use ssl_edge_bundle::Bundle;
use ssl_edge_export::{
    BlockFormat, Gate, QuantizeError, QuantizeOptions, QuantizeReport, Target, quantize, round_to,
};
use ssl_edge_nn::infer::{EncoderWeights, Stored};
use ssl_edge_runtime::{Encoder, Precision};
use ssl_edge_vision::{Station, Surface};

use super::{Made, SIZE, made, open};

const Q8_0: Target = Target::Blocks(BlockFormat::Q8_0);
const Q4_0: Target = Target::Blocks(BlockFormat::Q4_0);

fn block_options(target: Target, frames: &Path) -> QuantizeOptions {
    QuantizeOptions {
        eval: Some(frames.to_owned()),
        threads: 2,
        ..QuantizeOptions::new(target, frames)
    }
}

fn run(
    made: &Made,
    options: &QuantizeOptions,
    (from, to): (&str, &str),
) -> Result<QuantizeReport, QuantizeError> {
    let bundle = Bundle::open(&made.path(from)).unwrap();
    quantize(&bundle, options, &made.path(to), &mut |_| ())
}

/// How many layers are in which precision, as the report has it.
fn count(report: &QuantizeReport, precision: &str) -> usize {
    let layers = report.layers.iter();
    layers.filter(|l| l.precision == precision).count()
}

#[test]
fn blocks_are_near_f32_small_and_encoders_of_their_own_beside_the_others() {
    let made = made();
    let frames = made.path("frames");
    let eight = run(
        made,
        &block_options(Q8_0, &frames),
        ("int8.sslb", "q8.sslb"),
    )
    .unwrap();
    let lenient = QuantizeOptions {
        gates: vec![
            "cosine>=0.97".parse().unwrap(),
            "worst>=0.9".parse().unwrap(),
        ],
        ..block_options(Q4_0, &frames)
    };
    let four = run(made, &lenient, ("q8.sslb", "q4.sslb")).unwrap();

    assert_eq!((eight.precision, four.precision), ("q8_0", "q4_0"));
    assert_eq!((eight.calibration_frames, count(&eight, "q8_0")), (0, 24));
    assert_eq!((count(&four, "q8_0"), count(&four, "q4_0")), (12, 12));
    assert!(eight.layers.iter().all(|layer| layer.error < 1e-4));
    for (report, least, shrinks) in [(&eight, 0.9995, 3.5), (&four, 0.97, 4.9)] {
        let (f, q) = (&report.figures, &report.figures.quality);
        assert!(
            q.cosine_mean > least && q.cosine_worst > least - 0.02,
            "{f:?}"
        );
        assert!(f.bytes as f64 * shrinks < f.f32_bytes as f64, "{f:?}");
        let names: Vec<&str> = q.scores.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["knn", "fewshot-1", "fewshot-5", "fewshot-10"]);
        assert!(
            report
                .html()
                .contains(&format!("{} beside f32", report.precision))
        );
        assert!(!report.html().contains("int8"), "{}", report.precision);
    }

    let path = made.path("q4.sslb");
    let bundle = Bundle::open(&path).unwrap();
    assert_eq!(bundle.manifest().schema, 1);
    let names: Vec<&String> = bundle.manifest().variants.keys().collect();
    assert_eq!(names, ["int8", "q4_0", "q8_0"], "others stay");
    assert!(
        bundle.member("encoder.int8.onnx").is_ok(),
        "and int8's graphs"
    );
    let variant = &bundle.manifest().variants["q4_0"];
    assert_eq!(variant.weights, "encoder.q4_0.gguf");
    let figures = variant.figures.as_ref().unwrap();
    assert_eq!(
        figures.bytes,
        bundle.member(&variant.weights).unwrap().len() as u64
    );

    let frame = Station::new(9).photo(Surface::Crack, SIZE, 4);
    let all = Precision::ALL.map(|precision| open(&path, precision).unwrap());
    let feature = |encoder: &Encoder| encoder.feature(&encoder.embed(&frame.frame()).unwrap());
    let float = feature(&all[0]);
    for (encoder, least) in all.iter().zip([0.999_999, 0.998, 0.999, 0.97]) {
        let precision = encoder.precision();
        let cosine: f32 = float.iter().zip(feature(encoder)).map(|(a, b)| a * b).sum();
        assert!(cosine > least, "{precision}: {cosine}");
        let same = all
            .iter()
            .filter(|other| other.hash() == encoder.hash())
            .count();
        assert_eq!(same, 1, "a job is for {precision} alone");
    }
    assert_eq!(all[2].hash(), eight.written.unwrap().encoder_hash);
}

#[test]
fn layers_go_to_finer_blocks_first_and_then_to_f16() {
    let made = made();
    let strict = |bound: f64, float_layers| QuantizeOptions {
        gates: vec![Gate {
            bound,
            ..Gate::DEFAULT[0]
        }],
        float_layers: Some(float_layers),
        eval: None,
        ..block_options(Q4_0, &made.path("frames"))
    };
    let pair = ("f32.sslb", "finer.sslb");
    // With both kinds of the MLP's layers in Q8_0 at the latest.
    let finer = run(made, &strict(0.9999, 0), pair).unwrap();
    assert!(finer.figures.quality.cosine_mean >= 0.9999);
    assert!(
        count(&finer, "q4_0") < 12 && count(&finer, "f16") == 0,
        "{:?}",
        finer.layers
    );
    let variant = &Bundle::open(&made.path("finer.sslb"))
        .unwrap()
        .manifest()
        .variants["q4_0"]
        .clone();
    assert!(variant.float_layers.is_empty());

    let error = run(made, &strict(0.999_999_9, 3), pair).unwrap_err();
    let QuantizeError::Gate(failure) = &error else {
        panic!("{error}")
    };
    assert_eq!((failure.float_layers, failure.precision), (3, "q8_0"));
    assert_eq!(count(&failure.report, "f16"), 3);
    assert_eq!(count(&failure.report, "q4_0"), 0);
    let message = error.to_string();
    for part in [
        "3 layers in f16",
        "alone in q8_0",
        "quantise to q8_0",
        &failure.layer,
    ] {
        assert!(message.contains(part), "{message}");
    }
}

/// Every layer in f16 is still a variant in GGUF, which opens.
#[test]
fn a_variant_whose_layers_all_went_back_opens() {
    let made = made();
    let all = QuantizeOptions {
        gates: vec!["cosine>=0.9999998".parse().unwrap()],
        float_layers: Some(24),
        eval: None,
        ..block_options(Q8_0, &made.path("frames"))
    };
    let report = run(made, &all, ("f32.sslb", "f16.sslb")).unwrap();
    assert!(report.figures.quality.cosine_mean >= 0.999_999_8);
    let bundle = Bundle::open(&made.path("f16.sslb")).unwrap();
    let variant = &bundle.manifest().variants["q8_0"];
    assert_eq!(variant.float_layers.len(), count(&report, "f16"));
    let encoder = open(&made.path("f16.sslb"), Precision::Q8_0).unwrap();
    assert!(encoder.self_test().difference < 1e-5);
}

#[test]
fn the_member_holds_whole_blocks_as_they_were_rounded() {
    let made = made();
    let base = Bundle::open(&made.path("f32.sslb")).unwrap();
    let out = made.path("rounded_q4.sslb");
    round_to(Q4_0, &base, &out).unwrap();
    let bundle = Bundle::open(&out).unwrap();
    assert!(bundle.manifest().variants["q4_0"].figures.is_none());
    let float = EncoderWeights::from_bytes(&base.member("weights.safetensors").unwrap()).unwrap();
    let member = bundle.member("encoder.q4_0.gguf").unwrap();
    let blocks = EncoderWeights::from_bytes(&member).unwrap();
    assert_eq!(blocks.0.len(), float.0.len());
    for (name, wanted) in [
        ("blocks.5.attn.qkv.weight", BlockFormat::Q8_0),
        ("blocks.5.mlp.fc2.weight", BlockFormat::Q4_0),
    ] {
        let Stored::Blocks {
            dims,
            format,
            bytes,
        } = &blocks.0[name]
        else {
            panic!("{name} is in blocks")
        };
        assert_eq!(*format, wanted);
        let values = float.0[name].to_f32();
        assert_eq!(*bytes, format.quantise(&values, dims[1]).unwrap(), "{name}");
    }
    assert!(open(&out, Precision::Q4_0).unwrap().self_test().difference < 1e-5);
}

#[test]
fn what_blocks_do_not_go_with_is_named() {
    let made = made();
    let pair = ("f32.sslb", "never3.sslb");
    let graphs = QuantizeOptions {
        onnx: vec![ssl_edge_export::OnnxForm::F16],
        ..block_options(Q8_0, &made.path("frames"))
    };
    let message = run(made, &graphs, pair).unwrap_err().to_string();
    assert!(
        message.contains("not with q8_0") && message.contains("--onnx"),
        "{message}"
    );
    let few = made.path("few");
    Station::new(2)
        .write(&few, &[Surface::Clean], 3, SIZE, 0)
        .unwrap();
    let options = QuantizeOptions::new(Q8_0, &few);
    let message = run(made, &options, pair).unwrap_err().to_string();
    assert!(
        message.contains("few has 3 usable images") && message.contains("at least 8"),
        "{message}"
    );
    assert!(!made.path(pair.1).exists());
}
