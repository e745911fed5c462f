//! Bundles of imported graphs: what the manifest says, what it must not say, and which schema says it.

use std::path::Path;

use serde_json::{Value, json};
use ssl_edge_bundle::{
    Bundle, BundleError, BundleWriter, ClsSource, EncoderSpec, GraphSpec, MANIFEST, ONNX,
    PatchSource, WEIGHTS,
};

mod common;
use common::{PATH, writer};

fn graph() -> GraphSpec {
    GraphSpec {
        name: "dinov2_s14".to_owned(),
        dim: 8,
        grid: [2, 3],
        input: "pixel_values".to_owned(),
        cls: ClsSource::First {
            output: "last_hidden_state".to_owned(),
        },
        patches: PatchSource::Tokens {
            output: "last_hidden_state".to_owned(),
            skip: 5,
        },
        opset: 17,
        producer: "pytorch 2.11.0".to_owned(),
    }
}

fn imported(graph: GraphSpec) -> BundleWriter {
    BundleWriter {
        encoder: EncoderSpec::Graph(graph),
        weights: Vec::new(),
        ..writer()
    }
}

fn open(writer: &BundleWriter) -> Result<Bundle, BundleError> {
    let path = Path::new(PATH);
    Bundle::from_bytes(path, writer.to_bytes(path)?)
}

fn message(writer: &BundleWriter) -> String {
    open(writer).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn an_imported_graph_is_kept_whole_and_needs_schema_2() {
    let bundle = open(&imported(graph())).unwrap();
    let manifest = bundle.manifest();
    assert_eq!(manifest.schema, 2);
    assert_eq!(manifest.graph(), Some(&graph()));
    assert_eq!(manifest.arch(), None);
    assert_eq!(
        (manifest.name(), manifest.dim(), manifest.grid()),
        ("dinov2_s14", 8, [2, 3])
    );
    assert_eq!(*bundle.member(ONNX).unwrap(), *b"a graph");
    assert!(bundle.member(WEIGHTS).is_err());

    let json: Value = serde_json::from_slice(&bundle.member(MANIFEST).unwrap()).unwrap();
    assert_eq!(
        json["graph"]["patches"],
        json!({"from": "tokens", "output": "last_hidden_state", "skip": 5})
    );
    assert_eq!(json.get("arch"), None);

    let again = BundleWriter::of(&bundle)
        .unwrap()
        .to_bytes(Path::new(PATH))
        .unwrap();
    assert_eq!(again, *bundle.to_bytes().unwrap());
}

#[test]
fn transformers_of_ours_are_still_written_for_readers_of_schema_1() {
    let bundle = open(&writer()).unwrap();
    assert_eq!(bundle.manifest().schema, 1);
    let json: Value = serde_json::from_slice(&bundle.member(MANIFEST).unwrap()).unwrap();
    assert_eq!(json["arch"]["dim"], 8);
    assert_eq!(json.get("graph"), None);
}

#[test]
fn schema_1_has_no_imported_graphs() {
    let mut manifest = imported(graph()).manifest();
    assert_eq!(manifest.validate(), Ok(()));
    manifest.schema = 1;
    let (field, reason) = manifest.validate().unwrap_err();
    assert_eq!(field, "schema");
    assert!(reason.contains("imported"), "{reason}");
}

#[test]
fn the_identity_is_of_the_graph_and_of_how_it_is_read() {
    let hash = |change: fn(&mut BundleWriter, &mut GraphSpec)| {
        let (mut writer, mut graph) = (imported(graph()), graph());
        change(&mut writer, &mut graph);
        writer.encoder = EncoderSpec::Graph(graph);
        open(&writer).unwrap().encoder_hash()
    };
    let base = hash(|_, _| ());
    assert_eq!(base, hash(|writer, _| writer.licence = None));
    assert_ne!(base, hash(|writer, _| writer.onnx.push(0)));
    assert_ne!(
        base,
        hash(|_, graph| {
            graph.cls = ClsSource::Vector {
                output: "pooler_output".to_owned(),
            }
        })
    );
}

#[test]
fn numbers_and_names_that_cannot_be_are_refused() {
    type Change = fn(&mut GraphSpec);
    let cases: [(Change, &str); 7] = [
        (|graph| graph.dim = 0, "graph.dim"),
        (|graph| graph.grid = [0, 3], "graph.grid"),
        (|graph| graph.grid = [1 << 13, 1 << 13], "graph.grid"),
        (|graph| graph.input.clear(), "graph names"),
        (
            |graph| {
                graph.patches = PatchSource::Map {
                    output: "x".repeat(2000),
                }
            },
            "graph names",
        ),
        (|graph| graph.patches = PatchSource::Cls, "graph.grid"),
        (
            |graph| {
                (graph.cls, graph.patches) = (ClsSource::Mean, PatchSource::Cls);
            },
            "graph.cls",
        ),
    ];
    for (change, expected) in cases {
        let mut graph = graph();
        change(&mut graph);
        let message = message(&imported(graph));
        assert!(message.contains(expected), "{expected}: {message}");
    }
}
