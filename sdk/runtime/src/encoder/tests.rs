//! What an encoder does with an engine that misbehaves.

use ssl_edge_bundle::{ArchSpec, BundleWriter, EncoderSpec, GoldenSpec, Pooling, Provenance};
use ssl_edge_vision::PixelFormat;

use super::*;

/// An engine whose second frame of a batch is broken.
struct Broken;

impl Engine for Broken {
    fn kind(&self) -> EngineKind {
        EngineKind::Native
    }

    fn lengths(&self) -> [usize; 2] {
        [2, 2]
    }

    fn run_into(
        &self,
        _input: &[f32],
        batch: usize,
        cls: &mut [f32],
        patches: &mut [f32],
    ) -> Result<(), RuntimeError> {
        cls.fill(1.0);
        patches.fill(1.0);
        if batch > 1 {
            patches[3] = f32::NAN;
        }
        Ok(())
    }
}

fn writer() -> BundleWriter {
    BundleWriter {
        encoder: EncoderSpec::Arch(ArchSpec {
            name: "tiny".to_owned(),
            dim: 2,
            depth: 1,
            heads: 1,
            patch: 4,
            registers: 0,
            mlp_ratio: 4,
            image_size: [4, 4],
            gelu: "tanh".to_owned(),
            eps: 1e-6,
        }),
        preprocess: PreprocessSpec {
            height: 4,
            width: 4,
            fit: "squash".to_owned(),
            mean: [0.0; 3],
            std: [1.0; 3],
        },
        pooling: Pooling::ClsMean,
        provenance: Provenance::default(),
        licence: None,
        golden: GoldenSpec {
            count: 1,
            tolerance: 1e-4,
        },
        weights: Vec::new(),
        onnx: Vec::new(),
        golden_vectors: Vec::new(),
        variants: Vec::new(),
        extra: Vec::new(),
    }
}

fn encoder() -> Encoder {
    let manifest = writer().manifest();
    Encoder {
        hash: manifest.encoder_hash(),
        preprocess: preprocess(&manifest.preprocess).unwrap(),
        grid: [1, 1],
        manifest,
        engine: Box::new(Broken),
        place: Place::default(),
        self_test: SelfTest {
            difference: 0.0,
            tolerance: 1e-4,
        },
    }
}

#[test]
fn a_non_finite_embedding_is_an_error_that_names_the_frame() {
    let encoder = encoder();
    let pixels = [7; 16];
    let frame = Frame::new(&pixels, 4, 4, 4, PixelFormat::Gray8, None).unwrap();
    let good = encoder.embed(&frame).unwrap();
    assert_eq!(encoder.feature(&good), [0.5; 4]);
    assert_eq!(encoder.feature_dim(), 4);

    let error = encoder.embed_batch(&[frame, frame]).unwrap_err();
    assert!(
        matches!(error, RuntimeError::NonFinite { frame: 1, .. }),
        "{error}"
    );
}

#[test]
fn a_batch_of_another_length_is_refused() {
    let encoder = encoder();
    assert!(encoder.embed_batch(&[]).unwrap().is_empty());
    for (values, batch) in [(48, 2), (47, 1), (0, 0), (48, usize::MAX)] {
        let error = encoder
            .embed_preprocessed(&vec![0.0; values], batch)
            .unwrap_err();
        assert!(error.to_string().contains("48"), "{error}");
    }
}

#[test]
fn a_precision_that_the_cpu_does_not_run_is_an_error() {
    let path = Path::new("b.sslb");
    let bundle = Bundle::from_bytes(path, writer().to_bytes(path).unwrap()).unwrap();
    for precision in [Products::Bf16, Products::F16] {
        let place = Place {
            processor: Processor::Cpu,
            precision,
        };
        let opened = Encoder::from_bundle_on(&bundle, &Options::default(), place);
        let error = opened.map(|_| ()).unwrap_err();
        assert!(matches!(error, RuntimeError::Device { .. }), "{error}");
        let message = error.to_string();
        assert!(
            message.contains(precision.as_str()) && message.contains("int8"),
            "{message}"
        );
    }
}

#[cfg(not(feature = "onnx"))]
#[test]
fn an_engine_that_was_not_built_is_an_error_with_the_reason() {
    let path = Path::new("b.sslb");
    let bundle = Bundle::from_bytes(path, writer().to_bytes(path).unwrap()).unwrap();
    let options = Options {
        engine: EngineKind::Onnx,
        threads: 1,
        ..Options::default()
    };
    let error = Encoder::from_bundle(&bundle, &options)
        .map(|_| ())
        .unwrap_err();
    assert!(
        matches!(error, RuntimeError::EngineUnavailable { .. }),
        "{error}"
    );
    let message = error.to_string();
    assert!(
        message.contains("without feature `onnx`") && message.contains("choose one of: native"),
        "{message}"
    );
}
