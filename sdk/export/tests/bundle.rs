//! What an export refuses, and what opening its bundle refuses.

mod support;

use std::fs;
use std::path::Path;

use ssl_edge_bundle::{
    Bundle, BundleError, BundleWriter, EncoderSpec, GOLDEN, ONNX, Pooling, WEIGHTS,
};
use ssl_edge_export::{ExportError, export_encoder, random_bundle};
use ssl_edge_nn::candle::{Device, Tensor};
use ssl_edge_nn::{Gelu, tensors_from_bytes, tensors_to_bytes};
use ssl_edge_runtime::{Encoder, EngineKind, Options, RuntimeError};
use support::{Trained, preprocess};

#[test]
fn exports_are_equal_to_the_last_byte_and_pass_on_every_engine() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| folder.path().join(name));
    let report = random_bundle("vit_n16", 7, 64, Pooling::Mean, &a).unwrap();
    random_bundle("vit_n16", 7, 64, Pooling::Mean, &b).unwrap();
    let other = random_bundle("vit_n16", 8, 64, Pooling::Mean, &c).unwrap();
    assert_eq!(fs::read(&a).unwrap(), fs::read(&b).unwrap());
    assert_ne!(report.encoder_hash, other.encoder_hash);
    assert_eq!(report.bytes, fs::metadata(&a).unwrap().len());

    let engines: Vec<_> = report.engines.iter().map(|(engine, _)| *engine).collect();
    assert_eq!(engines, EngineKind::available());
    assert!(engines.contains(&EngineKind::Onnx));
    for (engine, test) in &report.engines {
        assert!(test.passed(), "{engine}: {test:?}");
    }
    let encoder = Encoder::open(&a, &native()).unwrap();
    assert_eq!(encoder.hash(), report.encoder_hash);
    assert_eq!(encoder.manifest().provenance.method, "random");
    assert_eq!(
        (encoder.dim(), encoder.feature_dim(), encoder.grid()),
        (192, 192, [4, 4])
    );
}

#[test]
fn a_refused_export_leaves_the_old_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.sslb");
    fs::write(&path, "before").unwrap();
    let trained = Trained::new([64, 64], 0, Gelu::Tanh);
    let tensor = |values: Vec<f32>| Tensor::new(values, &Device::Cpu).unwrap();
    let export = |name: &str, value: Option<Tensor>| {
        let mut tensors = trained.tensors();
        match value {
            Some(value) => tensors.insert(name.to_owned(), value),
            None => tensors.remove(name),
        };
        let request = trained.export(&tensors, &preprocess([64, 64]));
        export_encoder(&request.view(), &path).unwrap_err()
    };

    let mut values = vec![0.0; 192];
    values[100] = f32::NAN;
    let error = export("norm.bias", Some(tensor(values)));
    assert!(
        matches!(&error, ExportError::NonFinite { tensor } if tensor == "norm.bias"),
        "{error}"
    );
    let error = export("head.mlp.0.weight", Some(tensor(vec![0.0])));
    assert!(
        matches!(&error, ExportError::Unexpected { tensor } if tensor == "head.mlp.0.weight"),
        "{error}"
    );
    let error = export("blocks.6.norm1.weight", Some(tensor(vec![0.0])));
    assert!(matches!(&error, ExportError::Unexpected { .. }), "{error}");
    let error = export("blocks.3.mlp.fc1.weight", None);
    assert!(
        error.to_string().contains("blocks.3.mlp.fc1.weight"),
        "{error}"
    );
    let error = export("cls_token", Some(tensor(vec![0.0])));
    assert!(error.to_string().contains("cls_token"), "{error}");

    let error = random_bundle("vit_n16", 0, 100, Pooling::Cls, &path).unwrap_err();
    assert!(error.to_string().contains("100"), "{error}");
    let error = random_bundle("vit_x16", 0, 64, Pooling::Cls, &path).unwrap_err();
    assert!(error.to_string().contains("vit_n16"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "before");
}

#[test]
fn sizes_that_cannot_be_are_refused_before_any_work() {
    let trained = Trained::new([64, 64], 0, Gelu::Tanh);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.sslb");
    for (size, word) in [
        ([64, 72], "72"),
        ([64, 8192], "8192"),
        ([0, 64], "height"),
        ([8, 8], "8"),
    ] {
        let request = trained.export(&trained.tensors(), &preprocess(size));
        let error = export_encoder(&request.view(), &path).unwrap_err();
        assert!(error.to_string().contains(word), "{size:?}: {error}");
    }
    assert!(!path.exists());
}

#[test]
fn the_smallest_input_is_one_patch() {
    let folder = tempfile::tempdir().unwrap();
    let report =
        random_bundle("vit_n8", 0, 8, Pooling::Cls, &folder.path().join("b.sslb")).unwrap();
    assert!(report.engines.iter().all(|(_, test)| test.passed()));
}

#[test]
fn an_engine_that_misses_the_golden_vectors_is_refused() {
    let bundle = random();
    let changed = rewritten(&bundle, |writer| {
        let mut golden = tensors_from_bytes(&writer.golden_vectors).unwrap();
        let cls = &golden["cls"];
        let nudge = Tensor::arange(0.0_f32, 192.0, &Device::Cpu).unwrap();
        let cls = cls.broadcast_add(&(nudge * 1e-3).unwrap()).unwrap();
        golden.insert("cls".to_owned(), cls);
        writer.golden_vectors = tensors_to_bytes(&golden).unwrap();
    });
    for engine in [EngineKind::Native, EngineKind::Onnx] {
        let error = open(&changed, engine).unwrap_err();
        assert!(
            matches!(error, RuntimeError::SelfTest { difference, .. } if difference > 1e-4),
            "{error}"
        );
        assert!(
            error.to_string().contains("b.sslb") && error.to_string().contains("ssl-edge export"),
            "{error}"
        );
    }
}

#[test]
fn weights_and_graph_are_each_proven_by_their_own_engine() {
    let (bundle, other) = (random(), other());
    let graph = rewritten(&bundle, |writer| {
        writer.onnx = other.member(ONNX).unwrap().to_vec()
    });
    assert!(open(&graph, EngineKind::Native).is_ok());
    assert!(matches!(
        open(&graph, EngineKind::Onnx),
        Err(RuntimeError::SelfTest { .. })
    ));

    let weights = rewritten(&bundle, |writer| {
        writer.weights = other.member(WEIGHTS).unwrap().to_vec()
    });
    assert!(open(&weights, EngineKind::Onnx).is_ok());
    assert!(matches!(
        open(&weights, EngineKind::Native),
        Err(RuntimeError::SelfTest { .. })
    ));
}

#[test]
fn members_that_cannot_be_decoded_are_named_errors() {
    let bundle = random();
    type Change = fn(&mut BundleWriter);
    let cases: [(EngineKind, &str, Change); 7] = [
        (EngineKind::Native, "", |writer| {
            writer.weights.truncate(1000)
        }),
        (EngineKind::Native, "norm.weight", |writer| {
            without(&mut writer.weights, "norm.weight")
        }),
        (EngineKind::Native, "register_tokens", |writer| {
            let EncoderSpec::Arch(arch) = &mut writer.encoder else {
                panic!("not imported")
            };
            arch.registers = 1
        }),
        (EngineKind::Onnx, "", |writer| writer.onnx.truncate(1000)),
        (EngineKind::Onnx, "", |writer| {
            writer.onnx = b"PK not a graph".to_vec()
        }),
        (EngineKind::Native, GOLDEN, |writer| {
            writer.golden_vectors.truncate(50)
        }),
        (EngineKind::Onnx, "patch_mean", |writer| {
            without(&mut writer.golden_vectors, "patch_mean")
        }),
    ];
    for (index, (engine, word, change)) in cases.into_iter().enumerate() {
        let error = open(&rewritten(&bundle, change), engine).unwrap_err();
        let message = error.to_string();
        let golden = matches!(word, GOLDEN | "patch_mean");
        assert!(
            match &error {
                RuntimeError::Load { .. } => !golden,
                RuntimeError::Bundle(BundleError::Member { member, .. }) =>
                    golden && member == GOLDEN,
                _ => false,
            },
            "case {index}: {message}"
        );
        assert!(
            message.contains("b.sslb") && message.contains(word),
            "case {index}: {message}"
        );
    }
}

/// A byte of a member is changed in the file: whoever needs the member names it, and whoever does not runs.
#[test]
fn a_damaged_member_is_named_by_the_engines_that_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.sslb");
    let whole = random().to_bytes().unwrap().into_owned();
    for damaged in [WEIGHTS, ONNX, GOLDEN] {
        let contents = random().member(damaged).unwrap().into_owned();
        let mut bytes = whole.clone();
        let at = bytes.windows(64).position(|part| part == &contents[..64]);
        bytes[at.unwrap() + contents.len() - 1] ^= 1;
        fs::write(&path, bytes).unwrap();
        let bundle = Bundle::open(&path).unwrap();
        for (engine, reads) in [(EngineKind::Native, WEIGHTS), (EngineKind::Onnx, ONNX)] {
            match open(&bundle, engine) {
                Ok(()) => assert!(damaged != reads && damaged != GOLDEN),
                Err(RuntimeError::Bundle(BundleError::Member { member, .. })) => {
                    assert!(member == damaged && (damaged == reads || damaged == GOLDEN));
                }
                Err(other) => panic!("{damaged}, {engine}: {other}"),
            }
        }
    }
}

#[test]
fn a_nan_in_the_weights_does_not_pass() {
    let bundle = rewritten(&random(), |writer| {
        let mut weights = tensors_from_bytes(&writer.weights).unwrap();
        let nan = Tensor::full(f32::NAN, 192, &Device::Cpu).unwrap();
        weights.insert("norm.bias".to_owned(), nan);
        writer.weights = tensors_to_bytes(&weights).unwrap();
    });
    let error = open(&bundle, EngineKind::Native).unwrap_err();
    assert!(
        matches!(error, RuntimeError::SelfTest { difference, .. } if difference.is_nan()),
        "{error}"
    );
}

fn native() -> Options {
    Options {
        engine: EngineKind::Native,
        threads: 1,
        ..Options::default()
    }
}

fn open(bundle: &Bundle, engine: EngineKind) -> Result<(), RuntimeError> {
    Encoder::from_bundle(
        bundle,
        &Options {
            engine,
            threads: 1,
            ..Options::default()
        },
    )
    .map(|_| ())
}

fn random() -> Bundle {
    random_with_seed(1)
}

fn other() -> Bundle {
    random_with_seed(2)
}

fn random_with_seed(seed: u64) -> Bundle {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.sslb");
    random_bundle("vit_n16", seed, 32, Pooling::Cls, &path).unwrap();
    Bundle::open(&path).unwrap()
}

/// A well-formed bundle, sizes, hashes and seal right, with other contents.
fn rewritten(bundle: &Bundle, change: impl Fn(&mut BundleWriter)) -> Bundle {
    let mut writer = BundleWriter::of(bundle).unwrap();
    change(&mut writer);
    let path = Path::new("b.sslb");
    Bundle::from_bytes(path, writer.to_bytes(path).unwrap()).unwrap()
}

fn without(member: &mut Vec<u8>, name: &str) {
    let mut tensors = tensors_from_bytes(member).unwrap();
    tensors.remove(name).unwrap();
    *member = tensors_to_bytes(&tensors).unwrap();
}
