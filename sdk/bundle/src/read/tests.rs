//! Bundles whose seal holds and whose contents do not.

use serde_json::{Value, json};

use super::*;
use crate::write::pack_sealed;
use crate::{GOLDEN, ONNX, WEIGHTS};

const WEIGHT_BYTES: &[u8] = b"weights";

fn member(bytes: &[u8]) -> Value {
    json!({"sha256": hex(&Sha256::digest(bytes)), "bytes": bytes.len()})
}

fn manifest() -> Value {
    json!({
        "schema": 1, "requires": "0.1.0", "created_by": "test",
        "arch": {"name": "tiny", "dim": 8, "depth": 1, "heads": 2, "patch": 4, "registers": 0, "mlp_ratio": 4,
                 "image_size": [8, 8], "gelu": "tanh", "eps": 1e-6},
        "preprocess": {"height": 8, "width": 8, "fit": "squash", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
        "pooling": "cls",
        "provenance": {"method": "random", "images_seen": 0, "dataset_images": 0, "seed": 0, "config": ""},
        "golden": {"count": 1, "tolerance": 1e-4},
        "members": {WEIGHTS: member(WEIGHT_BYTES), ONNX: member(b"onnx"), GOLDEN: member(b"golden")},
    })
}

fn open(manifest: &Value, members: &[(&str, &[u8])]) -> Result<Bundle, BundleError> {
    let text = manifest.to_string();
    let mut all = vec![(MANIFEST, text.as_bytes())];
    all.extend_from_slice(members);
    Bundle::from_bytes(Path::new("b.sslb"), pack_sealed(&all))
}

fn members(weights: &'static [u8]) -> [(&'static str, &'static [u8]); 3] {
    [(WEIGHTS, weights), (ONNX, b"onnx"), (GOLDEN, b"golden")]
}

fn message(result: Result<Bundle, BundleError>) -> String {
    result.map(|_| ()).unwrap_err().to_string()
}

#[test]
fn a_sealed_file_still_has_every_member_checked() {
    assert!(open(&manifest(), &members(WEIGHT_BYTES)).is_ok());

    let changed = message(open(&manifest(), &members(b"Weights")));
    assert!(
        changed.contains("b.sslb") && changed.contains(WEIGHTS) && changed.contains("SHA-256"),
        "{changed}"
    );
    let longer = message(open(&manifest(), &members(b"weights+")));
    assert!(longer.contains("8 bytes instead of 7"), "{longer}");
    let missing = message(open(&manifest(), &members(WEIGHT_BYTES)[..2]));
    assert!(
        missing.contains(GOLDEN) && missing.contains("missing"),
        "{missing}"
    );

    let mut extra = members(WEIGHT_BYTES).to_vec();
    extra.push(("run.sh", b"echo"));
    let extra = message(open(&manifest(), &extra));
    assert!(
        extra.contains("run.sh") && extra.contains("does not list"),
        "{extra}"
    );
}

#[test]
fn a_newer_schema_names_the_version_to_get() {
    let newer = json!({"schema": 7, "requires": "3.2.0", "shape": "unknown to this version"});
    let message = message(open(&newer, &members(WEIGHT_BYTES)));
    assert!(
        message.contains("schema 7") && message.contains("ssl-edge 3.2.0"),
        "{message}"
    );
}

#[test]
fn numbers_that_cannot_be_are_refused_by_name() {
    let cases = [
        ("/arch/heads", json!(3), "arch.heads"),
        ("/arch/dim", json!(1_u64 << 40), "arch.dim"),
        ("/arch/depth", json!(0), "arch.depth"),
        ("/arch/patch", json!(0), "arch.patch"),
        ("/arch/gelu", json!("relu"), "arch.gelu"),
        ("/arch/eps", json!(-1.0), "arch.eps"),
        ("/arch/image_size", json!([8, 6]), "arch.image_size"),
        (
            "/arch/image_size",
            json!([8, 12]),
            "preprocess makes images of 8 x 8",
        ),
        ("/preprocess/height", json!(4_000_000_000_u32), "preprocess"),
        ("/preprocess/fit", json!("stretch"), "preprocess.fit"),
        ("/preprocess/std", json!([0.5, 0.0, 0.5]), "preprocess.std"),
        ("/golden/count", json!(0), "golden.count"),
        ("/golden/tolerance", json!(5.0), "golden.tolerance"),
    ];
    for (pointer, value, field) in cases {
        let mut manifest = manifest();
        *manifest.pointer_mut(pointer).unwrap() = value;
        let message = message(open(&manifest, &members(WEIGHT_BYTES)));
        assert!(
            message.contains(field) && message.contains("b.sslb"),
            "{pointer}: {message}"
        );
    }
}

#[test]
fn unknown_manifest_fields_are_ignored() {
    let mut manifest = manifest();
    manifest["note"] = json!("from a later version of the same schema");
    assert!(open(&manifest, &members(WEIGHT_BYTES)).is_ok());
}

#[test]
fn a_member_list_that_is_cut_from_the_manifest_is_refused() {
    let mut manifest = manifest();
    manifest["members"].as_object_mut().unwrap().remove(ONNX);
    let message = message(open(&manifest, &members(WEIGHT_BYTES)));
    assert!(message.contains(ONNX), "{message}");
}
