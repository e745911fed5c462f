//! What the suites of this crate share: a small bundle, and sealing what was changed.
#![allow(dead_code, reason = "each suite uses a part of it")]

use sha2::{Digest, Sha256};
use ssl_edge_bundle::{
    ArchSpec, BundleWriter, EncoderSpec, GoldenSpec, Pooling, PreprocessSpec, Provenance, hex,
};

/// Names bundles in messages.
pub(crate) const PATH: &str = "b.sslb";
const DIGITS: usize = 64;
/// Bytes of the seal: its words and the digits of a SHA-256.
pub(crate) const SEAL_LEN: usize = "ssl-edge sha256 ".len() + DIGITS;

/// Makes the seal at the end hold again.
pub(crate) fn reseal(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.len().saturating_sub(DIGITS);
    let digits = hex(&Sha256::digest(&bytes[..end]));
    let len = bytes.len() - end;
    bytes[end..].copy_from_slice(&digits.as_bytes()[..len]);
    bytes
}

/// A bundle of an encoder that nobody runs.
pub(crate) fn writer() -> BundleWriter {
    BundleWriter {
        encoder: EncoderSpec::Arch(ArchSpec {
            name: "tiny".to_owned(),
            dim: 8,
            depth: 1,
            heads: 2,
            patch: 4,
            registers: 1,
            mlp_ratio: 4,
            image_size: [8, 12],
            gelu: "tanh".to_owned(),
            eps: 1e-6,
        }),
        preprocess: PreprocessSpec {
            height: 8,
            width: 12,
            fit: "squash".to_owned(),
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
        },
        pooling: Pooling::ClsMean,
        provenance: Provenance {
            method: "dino".to_owned(),
            images_seen: 37_400,
            dataset_images: 1_870,
            seed: 7,
            config: "method = \"dino\"\n".to_owned(),
        },
        licence: Some("CC0-1.0".to_owned()),
        golden: GoldenSpec {
            count: 2,
            tolerance: 1e-4,
        },
        weights: (0..=255).collect(),
        onnx: b"a graph".to_vec(),
        golden_vectors: Vec::new(),
        variants: Vec::new(),
        extra: Vec::new(),
    }
}

/// The shape of an encoder that [`writer`] made.
pub(crate) fn arch(writer: &mut BundleWriter) -> &mut ArchSpec {
    match &mut writer.encoder {
        EncoderSpec::Arch(arch) => arch,
        EncoderSpec::Graph(graph) => panic!("{graph:?} is imported"),
    }
}
