//! Gates: what goes back to f32 for their sake, and what is said where they do not hold.

use ssl_edge_bundle::{Bundle, GraphFigures};
use ssl_edge_export::{
    Gate, GateFailure, OnnxForm, QuantizeError, QuantizeOptions, QuantizeReport, quantize,
};
use ssl_edge_runtime::Precision;

use super::{made, open, options};

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
    let QuantizeError::Gate(failure) = &error else {
        panic!("{error}")
    };
    let GateFailure {
        layer,
        float_layers,
        loss,
        report,
        ..
    } = &**failure;
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
