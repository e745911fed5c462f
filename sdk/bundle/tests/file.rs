//! A bundle on disk: what is written is read, and nothing else is.

mod common;

use std::fs;
use std::path::Path;

use common::{arch, writer};
use ssl_edge_bundle::{
    Bundle, BundleError, BundleWriter, GOLDEN, ONNX, Pooling, Variant, VariantSpec, WEIGHTS,
};

#[test]
fn what_is_written_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.sslb");
    let writer = writer();
    writer.write(&path).unwrap();

    let bundle = Bundle::open(&path).unwrap();
    assert_eq!(*bundle.manifest(), writer.manifest());
    assert_eq!(*bundle.member(WEIGHTS).unwrap(), *writer.weights);
    assert_eq!(*bundle.member(ONNX).unwrap(), *writer.onnx);
    assert!(bundle.member(GOLDEN).unwrap().is_empty());
    assert!(bundle.member("absent").is_err());
    assert!(bundle.check().is_ok());
    assert_eq!(bundle.path(), path);
    assert_eq!(writer.to_bytes(&path).unwrap(), fs::read(&path).unwrap());
}

fn with_variant() -> BundleWriter {
    let spec = VariantSpec {
        weights: String::new(),
        golden: String::new(),
        tolerance: 1e-2,
        float_layers: vec!["blocks.0.mlp.fc2".to_owned()],
        figures: None,
    };
    let variant = Variant {
        name: "int8".to_owned(),
        weights: b"int8 weights".to_vec(),
        golden_vectors: b"int8 golden".to_vec(),
        spec,
    };
    BundleWriter {
        variants: vec![variant],
        extra: vec![("encoder.int8.onnx".to_owned(), b"another graph".to_vec())],
        ..writer()
    }
}

#[test]
fn a_variant_has_members_and_a_hash_of_its_own() {
    let path = Path::new("b.sslb");
    let bundle = Bundle::from_bytes(path, with_variant().to_bytes(path).unwrap()).unwrap();
    let manifest = bundle.manifest();
    let spec = &manifest.variants["int8"];
    assert_eq!(spec.weights, "encoder.int8.safetensors");
    assert_eq!(*bundle.member(&spec.weights).unwrap(), *b"int8 weights");
    assert_eq!(*bundle.member(&spec.golden).unwrap(), *b"int8 golden");
    let graph = bundle.member("encoder.int8.onnx").unwrap();
    assert_eq!(*graph, *b"another graph");

    let f32_alone = writer().manifest().encoder_hash();
    assert_eq!(bundle.encoder_hash(), f32_alone, "f32 features stay valid");
    assert_ne!(manifest.variant_hash("int8"), Some(f32_alone));
    assert_eq!(manifest.variant_hash("int4"), None);

    let again = BundleWriter::of(&bundle).unwrap().to_bytes(path).unwrap();
    assert_eq!(again, *bundle.to_bytes().unwrap());
}

/// A reader that knows fewer precisions runs those that it knows, so the schema stays.
#[test]
fn a_variant_in_gguf_is_named_so_and_needs_no_newer_reader() {
    let path = Path::new("b.sslb");
    let mut writer = with_variant();
    let mut blocks = writer.variants[0].clone();
    blocks.name = "q8_0".to_owned();
    blocks.weights = b"GGUF and more".to_vec();
    writer.variants.push(blocks);
    let bundle = Bundle::from_bytes(path, writer.to_bytes(path).unwrap()).unwrap();
    let manifest = bundle.manifest();
    assert_eq!(manifest.schema, 1);
    let spec = &manifest.variants["q8_0"];
    assert_eq!(spec.weights, "encoder.q8_0.gguf");
    assert_eq!(spec.golden, "golden.q8_0.safetensors");
    assert_eq!(*bundle.member(&spec.weights).unwrap(), *b"GGUF and more");
    assert_ne!(manifest.variant_hash("q8_0"), manifest.variant_hash("int8"));
    let again = BundleWriter::of(&bundle).unwrap().to_bytes(path).unwrap();
    assert_eq!(again, *bundle.to_bytes().unwrap());
}

#[test]
fn a_variant_whose_numbers_cannot_be_is_refused() {
    let mut writer = with_variant();
    writer.variants[0].spec.tolerance = 0.0;
    let error = writer.to_bytes(Path::new("b.sslb")).unwrap_err();
    assert!(
        error.to_string().contains("int8 has tolerance 0"),
        "{error}"
    );
}

#[test]
fn the_hash_is_of_the_encoder_and_of_nothing_else() {
    let hash = |change: fn(&mut BundleWriter)| {
        let mut writer = writer();
        change(&mut writer);
        let bytes = writer.to_bytes(Path::new("b.sslb")).unwrap();
        Bundle::from_bytes(Path::new("b.sslb"), bytes)
            .unwrap()
            .encoder_hash()
    };
    let base = hash(|_| ());
    assert_eq!(base, hash(|writer| writer.licence = None));
    assert_eq!(base, hash(|writer| writer.provenance.seed = 8));
    assert_eq!(base, hash(|writer| writer.onnx.push(0)));
    assert_ne!(base, hash(|writer| writer.weights[0] = 1));
    assert_ne!(base, hash(|writer| arch(writer).gelu = "erf".to_owned()));
    assert_ne!(base, hash(|writer| writer.preprocess.mean[2] = 0.5));
    assert_ne!(base, hash(|writer| writer.pooling = Pooling::Cls));
}

#[test]
fn every_prefix_is_refused() {
    let bytes = writer().to_bytes(Path::new("b.sslb")).unwrap();
    for length in 0..bytes.len() {
        let error = open(bytes[..length].to_vec());
        assert!(
            matches!(
                error,
                BundleError::NotABundle { .. } | BundleError::Damaged { .. }
            ),
            "{length} bytes: {error}"
        );
        assert_names_file_and_remedy(&error);
    }
}

#[test]
fn every_changed_byte_is_refused() {
    let bytes = writer().to_bytes(Path::new("b.sslb")).unwrap();
    for index in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[index] ^= flip;
            assert_names_file_and_remedy(&open(changed));
        }
    }
}

#[test]
fn bytes_after_the_end_are_refused() {
    let mut bytes = writer().to_bytes(Path::new("b.sslb")).unwrap();
    bytes.push(b'0');
    assert_names_file_and_remedy(&open(bytes));
}

#[test]
fn other_files_are_named_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.txt");
    fs::write(&text, "not a bundle at all").unwrap();
    let error = Bundle::open(&text).map(|_| ()).unwrap_err().to_string();
    assert!(
        error.contains("notes.txt") && error.contains("ssl-edge export"),
        "{error}"
    );

    let error = Bundle::open(&folder.path().join("absent.sslb"))
        .map(|_| ())
        .unwrap_err();
    assert!(error.to_string().contains("absent.sslb"), "{error}");
    let error = Bundle::open(folder.path()).map(|_| ()).unwrap_err();
    assert!(matches!(error, BundleError::Read { .. }), "{error}");
}

#[test]
fn a_failed_save_keeps_what_was_there_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.sslb");
    writer().write(&path).unwrap();
    let before = fs::read(&path).unwrap();

    let mut broken = writer();
    arch(&mut broken).heads = 3;
    let error = broken.write(&path).unwrap_err();
    assert!(error.to_string().contains("arch.heads"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);

    // A folder cannot be replaced by a file: the last step, the rename, fails.
    let occupied = folder.path().join("occupied");
    fs::create_dir(&occupied).unwrap();
    fs::write(occupied.join("kept"), "kept").unwrap();
    let error = writer().write(&occupied).unwrap_err();
    assert!(error.to_string().contains("occupied"), "{error}");
    assert_eq!(fs::read_to_string(occupied.join("kept")).unwrap(), "kept");

    let mut names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["b.sslb", "occupied"]);

    let nowhere = folder.path().join("absent").join("b.sslb");
    assert!(matches!(
        writer().write(&nowhere),
        Err(BundleError::Save { .. })
    ));
}

#[cfg(unix)]
#[test]
fn others_may_read_a_bundle_as_the_umask_says() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain");
    fs::write(&plain, "").unwrap();
    let bundle = folder.path().join("b.sslb");
    writer().write(&bundle).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&bundle), mode(&plain));
}

fn open(bytes: Vec<u8>) -> BundleError {
    Bundle::from_bytes(Path::new("b.sslb"), bytes)
        .map(|_| ())
        .unwrap_err()
}

fn assert_names_file_and_remedy(error: &BundleError) {
    let message = error.to_string();
    assert!(
        message.contains("b.sslb") && message.contains("ssl-edge export"),
        "{message}"
    );
}
