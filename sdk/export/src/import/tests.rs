//! Graphs of another program through import and engine beside plain loops, and what is refused.

use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;
use ssl_edge_bundle::{Bundle, PatchSource};
use ssl_edge_runtime::{Encoder, Options, Precision, RuntimeError};
use ssl_edge_vision::{IMAGENET_MEAN, IMAGENET_STD};

use super::*;
use crate::onnx::foreign::{DIM, Gives, PREFIX, SIZE, model, tokens};
use crate::onnx::proto::{DataType, DimensionValue, ModelProto, TensorType};

fn import() -> GraphImport {
    GraphImport {
        name: "foreign".to_owned(),
        size: None,
        choice: GraphChoice::default(),
        fit: Fit::Squash,
        mean: IMAGENET_MEAN,
        std: IMAGENET_STD,
        pooling: None,
        licence: Some("CC0-1.0".to_owned()),
    }
}

/// A folder with the graph, and room for the bundle.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn of(bytes: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("model.onnx"), bytes).unwrap();
        Self { folder }
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("b.sslb")
    }

    fn import(&self, import: &GraphImport) -> Result<ImportReport, ImportError> {
        import_graph(&self.folder.path().join("model.onnx"), import, &self.out())
    }
}

/// What is said of a graph that is refused.
fn refused(model: &ModelProto, import: &GraphImport) -> String {
    let files = Files::of(&model.encode_to_vec());
    let error = files.import(import).unwrap_err().to_string();
    assert!(!files.out().exists(), "{error}");
    error
}

fn options(threads: usize) -> Options {
    Options {
        engine: EngineKind::Onnx,
        threads,
        ..Options::default()
    }
}

fn image(seed: usize) -> Vec<f32> {
    let value = |i: usize| ((i * 31 + seed * 97) % 101) as f32 / 50.0 - 1.0;
    (0..3 * SIZE[0] * SIZE[1]).map(value).collect()
}

fn assert_near(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            (found - expected).abs() < 1e-4,
            "{what}: {found} {expected}"
        );
    }
}

#[test]
fn tokens_are_those_of_plain_loops_in_every_layout() {
    let mean = |rows: &[f32]| -> Vec<f32> {
        let sum = |channel| rows.iter().skip(channel).step_by(DIM).sum::<f32>();
        (0..DIM).map(|channel| sum(channel) / 6.0).collect()
    };
    for gives in [
        &[Gives::Tokens] as &[Gives],
        &[Gives::Map],
        &[Gives::Pooled],
        &[Gives::Map, Gives::Pooled],
    ] {
        let files = Files::of(&model(gives).encode_to_vec());
        let report = files.import(&import()).unwrap();
        let has_patches = gives != [Gives::Pooled];
        let grid = if has_patches { [2, 3] } else { [1, 1] };
        let spec = &report.graph.spec;
        assert_eq!((spec.dim, spec.grid), (DIM, grid));
        assert_eq!((spec.input.as_str(), spec.opset), ("pixel_values", 17));
        assert_eq!(report.graph.size, SIZE);

        let encoder = Encoder::open(&files.out(), &options(2)).unwrap();
        let images = [image(1), image(2), image(3)];
        let found = encoder.embed_preprocessed(&images.concat(), 3).unwrap();
        for (image, found) in images.iter().zip(&found) {
            let (cls, patches) = tokens(image);
            let cls = if gives == [Gives::Tokens] {
                cls
            } else {
                mean(&patches)
            };
            let patches = if has_patches { patches } else { cls.clone() };
            assert_near(&found.cls, &cls, "cls");
            assert_near(&found.patches, &patches, "patches");
            assert_eq!(found.grid, grid);
            let alone = encoder.embed_preprocessed(image, 1).unwrap();
            assert_eq!(alone[0], *found);
        }
        assert!(encoder.self_test().difference <= 1e-6);
        assert_eq!(encoder.hash(), report.bundle.encoder_hash);
    }
}

#[test]
fn the_feature_is_the_class_token_or_what_stands_for_it() {
    let pooling = |gives: &[Gives], pooling| {
        let files = Files::of(&model(gives).encode_to_vec());
        let import = GraphImport {
            pooling,
            ..import()
        };
        files.import(&import).map(|report| report.pooling)
    };
    assert_eq!(pooling(&[Gives::Tokens], None).unwrap(), Pooling::Cls);
    assert_eq!(pooling(&[Gives::Map], None).unwrap(), Pooling::Mean);
    let both = Some(Pooling::ClsMean);
    assert_eq!(pooling(&[Gives::Tokens], both).unwrap(), Pooling::ClsMean);
    let error = pooling(&[Gives::Map], both).unwrap_err();
    assert!(matches!(error, ImportError::NoClassToken { .. }), "{error}");
}

#[test]
fn the_caller_chooses_outputs() {
    let all = model(&[Gives::Map, Gives::Tokens, Gives::Pooled]);
    let choice = |cls: &str, patches: &str| GraphImport {
        choice: GraphChoice {
            cls: Some(cls.to_owned()),
            patches: Some(patches.to_owned()),
            prefix: None,
        },
        ..import()
    };
    let files = Files::of(&all.encode_to_vec());
    let report = files
        .import(&choice("pooled", "last_hidden_state"))
        .unwrap();
    let skipped = PatchSource::Tokens {
        output: "last_hidden_state".to_owned(),
        skip: PREFIX,
    };
    assert_eq!(report.graph.spec.patches, skipped);
    let (cls, patches) = tokens(&image(4));
    let encoder = Encoder::open(&files.out(), &options(1)).unwrap();
    let found = encoder.embed_preprocessed(&image(4), 1).unwrap().remove(0);
    assert_near(&found.patches, &patches, "patches");
    assert!(cls.iter().zip(&found.cls).any(|(a, b)| (a - b).abs() > 0.1));
    assert!(refused(&all, &choice("absent", "feature_map")).contains("none is called absent"));
}

#[test]
fn other_engines_and_precisions_say_why_not() {
    let files = Files::of(&model(&[Gives::Tokens]).encode_to_vec());
    files.import(&import()).unwrap();
    let bundle = Bundle::open(&files.out()).unwrap();
    assert_eq!(EngineKind::of(bundle.manifest()), EngineKind::Onnx);
    let open = |options: &Options| {
        let opened = Encoder::from_bundle(&bundle, options);
        opened.map(|_| ()).unwrap_err()
    };
    let native = open(&Options::default());
    assert!(matches!(native, RuntimeError::Load { .. }), "{native}");
    assert!(
        native.to_string().contains("engine onnx alone runs"),
        "{native}"
    );
    let int8 = open(&Options {
        precision: Precision::Int8,
        ..options(1)
    });
    assert!(matches!(int8, RuntimeError::PrecisionUnavailable { .. }));
    let quantised = crate::round_to(crate::Target::Int8, &bundle, Path::new("unused"));
    let message = quantised.unwrap_err().to_string();
    assert!(message.contains("imported graph"), "{message}");
}

/// Sets the sizes of the input's axes; `None` for any.
fn resize(model: &mut ModelProto, sizes: [Option<i64>; 4]) {
    let axes = input(model).shape.as_mut().unwrap();
    for (axis, size) in axes.dim.iter_mut().zip(sizes) {
        axis.value = Some(match size {
            Some(size) => DimensionValue::Value(size),
            None => DimensionValue::Param("any".to_owned()),
        });
    }
}

fn input(model: &mut ModelProto) -> &mut TensorType {
    let input = &mut model.graph.as_mut().unwrap().input[0];
    input.r#type.as_mut().unwrap().tensor_type.as_mut().unwrap()
}

#[test]
fn sizes_that_are_open_must_be_said_and_fixed_ones_hold() {
    let mut open = model(&[Gives::Map]);
    resize(&mut open, [None, Some(3), None, None]);
    assert!(refused(&open, &import()).contains("--size PX"));
    let files = Files::of(&open.encode_to_vec());
    let asked = |size| GraphImport {
        size: Some(size),
        ..import()
    };
    let report = files.import(&asked([16, 16])).unwrap();
    assert_eq!(
        (report.graph.size, report.graph.spec.grid),
        ([16, 16], [4, 4])
    );
    assert!(refused(&open, &asked([5000, 16])).contains("5000"));

    let fixed = model(&[Gives::Map]);
    let message = refused(&fixed, &asked([16, 16]));
    assert!(
        message.contains("[?, 3, 8, 12]") && message.contains("not of 16"),
        "{message}"
    );
    let mut one = model(&[Gives::Map]);
    resize(&mut one, [Some(1), Some(3), Some(8), Some(12)]);
    assert!(Files::of(&one.encode_to_vec()).import(&import()).is_ok());
}

#[test]
fn graphs_that_are_no_encoders_of_images_are_refused_by_name() {
    type Change = fn(&mut ModelProto);
    let cases: [(Change, &str); 12] = [
        (
            |m| resize(m, [Some(8), Some(3), Some(8), Some(12)]),
            "its batch is fixed",
        ),
        (
            |m| resize(m, [None, Some(1), Some(8), Some(12)]),
            "other channels",
        ),
        (
            |m| resize(m, [None, Some(8), Some(12), Some(3)]),
            "channels come last",
        ),
        (
            |m| input(m).elem_type = DataType::Float16.into(),
            "export it in f32",
        ),
        (
            |m| input(m).shape.as_mut().unwrap().dim.truncate(2),
            "number of axes",
        ),
        (
            |m| {
                let graph = m.graph.as_mut().unwrap();
                let mut second = graph.input[0].clone();
                second.name = "mask".to_owned();
                graph.input.push(second);
            },
            "only input",
        ),
        (|m| m.graph.as_mut().unwrap().input.clear(), "takes nothing"),
        (
            |m| m.graph.as_mut().unwrap().node[0].op_type = "DeformConv".to_owned(),
            "does not have: DeformConv",
        ),
        (
            |m| m.graph.as_mut().unwrap().initializer[0].data_location = 1,
            "embed.weight lies in another file",
        ),
        (
            |m| {
                m.graph.as_mut().unwrap().initializer[0]
                    .raw_data
                    .truncate(64)
            },
            "16 values where its shape needs 384",
        ),
        (
            |m| m.graph.as_mut().unwrap().initializer[1].dims = vec![1 << 40, 1 << 40],
            "its shape is",
        ),
        (
            |m| m.graph.as_mut().unwrap().output[0].name = "gone".to_owned(),
            "output gone",
        ),
    ];
    for (change, expected) in cases {
        let mut changed = model(&[Gives::Tokens]);
        change(&mut changed);
        let message = refused(&changed, &import());
        assert!(
            message.contains(expected) && message.contains("model.onnx"),
            "{expected}: {message}"
        );
    }
}

#[test]
fn weights_that_are_no_numbers_are_refused() {
    let mut nan = model(&[Gives::Tokens]);
    let bias = &mut nan.graph.as_mut().unwrap().initializer[1];
    bias.raw_data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(refused(&nan, &import()).contains("NaN or infinity"));
}

#[test]
fn a_graph_with_any_byte_changed_is_read_or_refused() {
    let bytes = model(&[Gives::Tokens]).encode_to_vec();
    let weights = bytes.len() - 4 * DIM * 3 * 16;
    let mut refused = 0;
    // Most bytes are weights, of which some will do.
    let step = |at: usize| if at < weights / 2 { 1 } else { 3 };
    let mut at = 0;
    while at < bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] ^= flip;
            let read = read_graph(&changed, "changed", None, &GraphChoice::default());
            refused += usize::from(read.is_err());
        }
        at += step(at);
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn files_that_are_cut_or_something_else_leave_the_old_bundle() {
    let bytes = model(&[Gives::Tokens]).encode_to_vec();
    let files = Files::of(&bytes);
    files.import(&import()).unwrap();
    let before = fs::read(files.out()).unwrap();
    let graph = files.folder.path().join("model.onnx");
    for len in (0..bytes.len()).step_by(17) {
        fs::write(&graph, &bytes[..len]).unwrap();
        let error = files.import(&import()).unwrap_err();
        assert!(matches!(error, ImportError::Graph { .. }), "{len}: {error}");
    }
    for other in [&b"PK\x03\x04"[..], &[0xff; 64], b"not a graph"] {
        fs::write(&graph, other).unwrap();
        let error = files.import(&import()).unwrap_err().to_string();
        assert!(error.contains("no ONNX model"), "{error}");
    }
    fs::remove_file(&graph).unwrap();
    let error = files.import(&import()).unwrap_err();
    assert!(matches!(error, ImportError::Read { .. }), "{error}");
    let folder = import_graph(files.folder.path(), &import(), &files.out());
    assert!(folder.unwrap_err().to_string().contains("regular file"));
    assert_eq!(fs::read(files.out()).unwrap(), before);
}
