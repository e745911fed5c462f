//! The engine of GPUs on candle's CPU device, which rounds activations to 8 bits as its CUDA kernels do.

use std::collections::BTreeMap;
use std::path::Path;

use ssl_edge_bundle::{
    ArchSpec, BundleWriter, EncoderSpec, GoldenSpec, Pooling, PreprocessSpec, Provenance, Variant,
    VariantSpec,
};
use ssl_edge_nn::infer::{BlockFormat, PackedOptions, PackedVit, Stored};
use ssl_edge_nn::{Gelu, Params, tensors_to_bytes};
use ssl_edge_vision::stream;

use super::*;
use crate::{Encoder, GoldenVectors, Options, Place};

const SIZE: usize = 32;
const N_PATCHES: usize = 16;
const COUNT: usize = 3;
const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Q8_0, Precision::Q4_0];

fn vit_config() -> VitConfig {
    VitConfig {
        dim: 64,
        depth: 4,
        heads: 2,
        patch: 8,
        registers: 1,
        mlp_ratio: 4,
        image_size: [SIZE; 2],
        gelu: Gelu::Tanh,
        eps: 1e-6,
    }
}

fn input() -> Vec<f32> {
    let count = COUNT * 3 * SIZE * SIZE;
    (0..count).map(|i| (i as f32 * 0.37).sin() * 1.5).collect()
}

/// `input [G, 3, H, W]` where it is wanted, and what the native engine's kernels make of it.
fn golden(weights: &EncoderWeights, with_input: bool) -> Vec<u8> {
    let vit = PackedVit::new(&vit_config(), weights.clone(), &PackedOptions::default()).unwrap();
    let dim = vit_config().dim;
    let (mut cls, mut patches) = (vec![0.0; COUNT * dim], vec![0.0; COUNT * N_PATCHES * dim]);
    vit.run(&input(), COUNT, &mut cls, &mut patches).unwrap();
    let tensor = |values: Vec<f32>, dims: &[usize]| Tensor::from_vec(values, dims, &Device::Cpu);
    let patches = tensor(patches, &[COUNT, N_PATCHES, dim]).unwrap();
    let mut tensors = BTreeMap::from([
        ("cls".to_owned(), tensor(cls, &[COUNT, dim]).unwrap()),
        ("patch_mean".to_owned(), patches.mean(1).unwrap()),
    ]);
    if with_input {
        let input = tensor(input(), &[COUNT, 3, SIZE, SIZE]).unwrap();
        tensors.insert("input".to_owned(), input);
    }
    tensors_to_bytes(&tensors).unwrap()
}

fn in_blocks(weights: &EncoderWeights, format: BlockFormat) -> EncoderWeights {
    let mut weights = weights.clone();
    for layer in EncoderWeights::layer_names(&vit_config()) {
        let stored = weights.0.get_mut(&format!("{layer}.weight")).unwrap();
        let dims = [stored.dims()[0], stored.dims()[1]];
        let bytes = format.quantise(&stored.to_f32(), dims[1]).unwrap();
        *stored = Stored::Blocks {
            dims,
            format,
            bytes,
        };
    }
    weights
}

fn variant(precision: Precision, weights: &EncoderWeights) -> Variant {
    Variant {
        name: precision.name().to_owned(),
        weights: weights.to_gguf().unwrap(),
        golden_vectors: golden(weights, false),
        spec: VariantSpec {
            weights: String::new(),
            golden: String::new(),
            tolerance: 1e-4,
            float_layers: Vec::new(),
            figures: None,
        },
    }
}

/// Random weights in f32, Q8_0 and Q4_0.
fn writer() -> BundleWriter {
    let config = vit_config();
    let mut params = Params::new();
    Vit::init(&config, &mut params, "", &mut stream(1, 0, 0, 0)).unwrap();
    let weights = EncoderWeights::from_tensors(&params.to_map()).unwrap();
    let blocks = |format| in_blocks(&weights, format);
    BundleWriter {
        encoder: EncoderSpec::Arch(ArchSpec {
            name: "tiny".to_owned(),
            dim: config.dim,
            depth: config.depth,
            heads: config.heads,
            patch: config.patch,
            registers: config.registers,
            mlp_ratio: config.mlp_ratio,
            image_size: config.image_size,
            gelu: "tanh".to_owned(),
            eps: config.eps,
        }),
        preprocess: PreprocessSpec {
            height: SIZE as u32,
            width: SIZE as u32,
            fit: "squash".to_owned(),
            mean: [0.5; 3],
            std: [0.25; 3],
        },
        pooling: Pooling::Cls,
        provenance: Provenance::default(),
        licence: None,
        golden: GoldenSpec {
            count: COUNT,
            tolerance: 1e-4,
        },
        weights: weights.to_bytes().unwrap(),
        onnx: b"not for this engine".to_vec(),
        golden_vectors: golden(&weights, true),
        variants: vec![
            variant(Precision::Q8_0, &blocks(BlockFormat::Q8_0)),
            variant(Precision::Q4_0, &blocks(BlockFormat::Q4_0)),
        ],
        extra: Vec::new(),
    }
}

fn bundle(writer: &BundleWriter) -> Bundle {
    let path = Path::new("tiny.sslb");
    Bundle::from_bytes(path, writer.to_bytes(path).unwrap()).unwrap()
}

#[test]
fn every_precision_meets_its_golden_vectors_on_the_device_and_on_the_packed_kernels() {
    let bundle = bundle(&writer());
    for precision in PRECISIONS {
        let engine = OnDevice::load(&bundle, precision, &Device::Cpu, Products::F32).unwrap();
        assert_eq!(engine.precision(), precision);
        let golden = GoldenVectors::read(&bundle, precision).unwrap();
        let test = golden.run(&engine, bundle.manifest()).unwrap();
        // What `Encoder` allows of layers in blocks on a GPU.
        let allowed = if precision.is_blocks() { 0.02 } else { 1e-4 };
        assert!(test.difference < allowed, "{precision}: {test:?}");
        let rounds = precision.is_blocks();
        assert_eq!(test.difference > 1e-4, rounds, "{precision}: {test:?}");

        let options = Options {
            precision,
            threads: 2,
            ..Options::default()
        };
        let packed = Encoder::from_bundle(&bundle, &options).unwrap();
        assert_eq!(packed.precision(), precision);
        assert!(
            packed.self_test().difference < 1e-5,
            "the same kernels made them"
        );
    }
}

#[test]
fn a_batch_is_its_images_and_other_lengths_are_errors() {
    let bundle = bundle(&writer());
    let engine = OnDevice::load(&bundle, Precision::Q8_0, &Device::Cpu, Products::F32).unwrap();
    let input = input();
    let batch = engine.run(&input, COUNT).unwrap();
    for (image, cls) in input.chunks(3 * SIZE * SIZE).zip(batch.cls.chunks(64)) {
        let alone = engine.run(image, 1).unwrap();
        let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-4;
        assert!(alone.cls.iter().zip(cls).all(near));
        assert_eq!(alone.patches.len(), N_PATCHES * 64);
    }
    let error = engine.run(&input[1..], COUNT).unwrap_err().to_string();
    assert!(error.contains("input has"), "{error}");
    let error = engine
        .run_into(&input, COUNT, &mut [0.0; 3], &mut [])
        .unwrap_err();
    assert!(error.to_string().contains("cls has 3 values"), "{error}");
}

#[test]
fn what_cannot_run_is_refused_with_the_reason() {
    let bundle = bundle(&writer());
    let place = |processor| Place {
        processor,
        ..Place::default()
    };
    let refused = |options: &Options, place| {
        let opened = Encoder::from_bundle_on(&bundle, options, place);
        opened.map(|_| ()).unwrap_err().to_string()
    };
    let q8_0 = Options {
        precision: Precision::Q8_0,
        ..Options::default()
    };
    let on = |engine| Options {
        engine,
        ..q8_0.clone()
    };
    let onnx = refused(&on(EngineKind::Onnx), Place::default());
    assert!(onnx.contains("choose engine native"), "{onnx}");
    let plugin = refused(&on(EngineKind::Cuda), Place::default());
    assert!(
        plugin.contains("runs the f32 variant, in f16 or f32"),
        "{plugin}"
    );
    if cfg!(not(target_os = "macos")) {
        let metal = refused(&q8_0, place(ssl_edge_nn::compute::Processor::Metal));
        assert!(metal.contains("macOS"), "the device is asked for: {metal}");
    }
}

#[test]
fn damaged_weights_do_not_open_and_say_why() {
    let whole = writer();
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        let variants = whole.variants.clone();
        let mut writer = BundleWriter {
            variants,
            ..writer()
        };
        change(&mut writer.variants[0].weights);
        let options = Options {
            precision: Precision::Q8_0,
            ..Options::default()
        };
        let opened = Encoder::from_bundle(&bundle(&writer), &options);
        opened.map(|_| ()).expect_err("refused").to_string()
    };
    let cut = refused(&|bytes| bytes.truncate(bytes.len() / 2));
    assert!(
        cut.contains("tiny.sslb") && cut.contains("more than its"),
        "{cut}"
    );
    let head = refused(&|bytes| bytes.truncate(40));
    assert!(head.contains("cut short"), "{head}");
    let other = refused(&|bytes| bytes[0] = b'X');
    assert!(other.contains("no safetensors"), "{other}");
    let kind = refused(&|bytes| {
        let name = b"blocks.0.attn.proj.weight";
        let at = bytes.windows(name.len()).position(|w| w == name).unwrap();
        bytes[at + name.len() + 20] = 12;
    });
    assert!(
        kind.contains("type 12") && kind.contains("q8_0 (8)"),
        "{kind}"
    );
    let flipped = refused(&|bytes| {
        let half = bytes.len() / 2;
        bytes[half..]
            .iter_mut()
            .skip(5)
            .step_by(34)
            .for_each(|byte| *byte ^= 0x55);
    });
    assert!(
        flipped.contains("does not reproduce the golden vectors") || flipped.contains("not finite"),
        "{flipped}"
    );
}
