//! GGUF as we write it and as candle does, and files that are neither.

use std::io::Cursor;

use candle_core::Device;
use candle_core::quantized::gguf_file::{Content, Value, write as write_by_candle};
use candle_core::quantized::{GgmlDType, QTensor};

use super::*;

/// A layer in each format, a matrix in f16, one that does not fit f16, and a vector.
fn some() -> EncoderWeights {
    let values: Vec<f32> = (0..3 * 64).map(|i| (i as f32 * 0.37).sin()).collect();
    let blocks = |format: BlockFormat| Stored::Blocks {
        dims: [3, 64],
        format,
        bytes: format.quantise(&values, 64).unwrap(),
    };
    let floats = |dims: &[usize], values: &[f32]| Stored::F32 {
        dims: dims.to_vec(),
        values: values.to_vec(),
    };
    EncoderWeights(BTreeMap::from([
        ("a.weight".to_owned(), blocks(BlockFormat::Q8_0)),
        ("b.weight".to_owned(), blocks(BlockFormat::Q4_0)),
        ("c.bias".to_owned(), floats(&[3], &[0.1, -0.25, 7.0])),
        ("d".to_owned(), floats(&[1, 2, 2], &[0.5, -1.5, 0.0, 3.25])),
        ("e".to_owned(), floats(&[2, 1], &[0.1, 1e9])),
    ]))
}

fn message(bytes: &[u8]) -> String {
    read(bytes).expect_err("refused").to_string()
}

/// The same file with the bytes of `from` replaced by `to`, once.
fn with(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|w| w == from).unwrap();
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}

#[test]
fn weights_survive_the_file_and_candle_reads_the_same() {
    let weights = some();
    let bytes = weights.to_gguf().unwrap();
    assert_eq!(bytes.len() % ALIGNMENT, 0);
    assert_eq!(EncoderWeights::from_bytes(&bytes).unwrap(), weights);

    let mut file = Cursor::new(&bytes);
    let content = Content::read(&mut file).unwrap();
    let version = &content.metadata["general.quantization_version"];
    assert_eq!(version.to_u32().unwrap(), 2);
    let dtypes = [
        ("a.weight", GgmlDType::Q8_0),
        ("b.weight", GgmlDType::Q4_0),
        ("c.bias", GgmlDType::F32),
        ("d", GgmlDType::F16),
        ("e", GgmlDType::F32),
    ];
    for (name, dtype) in dtypes {
        let found = content.tensor(&mut file, name, &Device::Cpu).unwrap();
        assert_eq!(found.dtype(), dtype, "{name}");
        let stored = &weights.0[name];
        assert_eq!(found.shape().dims(), stored.dims());
        let values = found.dequantize(&Device::Cpu).unwrap();
        let values: Vec<f32> = values.flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(values, stored.to_f32(), "{name}");
    }
}

#[test]
fn a_file_that_candle_wrote_is_read() {
    let weights = some();
    let device = Device::Cpu;
    let tensor = |name: &str, dtype| {
        let stored = &weights.0[name];
        let values = candle_core::Tensor::from_vec(stored.to_f32(), stored.dims(), &device);
        QTensor::quantize(&values.unwrap(), dtype).unwrap()
    };
    let [a, c] = [
        tensor("a.weight", GgmlDType::Q8_0),
        tensor("c.bias", GgmlDType::F32),
    ];
    let list = Value::Array(vec![Value::String("x".into()), Value::String("yz".into())]);
    let entries: [(&str, &Value); 4] = [
        ("list", &list),
        ("flag", &Value::Bool(true)),
        ("general.alignment", &Value::U32(32)),
        ("wide", &Value::F64(2.0)),
    ];
    let mut file = Cursor::new(Vec::new());
    write_by_candle(&mut file, &entries, &[("a.weight", &a), ("c.bias", &c)]).unwrap();
    let found = read(file.get_ref()).unwrap();
    assert_eq!(found.0.len(), 2);
    assert_eq!(found.0["c.bias"], weights.0["c.bias"]);
    let values = a.dequantize(&device).unwrap().flatten_all().unwrap();
    assert_eq!(
        found.0["a.weight"].to_f32(),
        values.to_vec1::<f32>().unwrap()
    );
}

#[test]
fn a_file_that_is_cut_anywhere_is_refused() {
    let bytes = some().to_gguf().unwrap();
    let last = bytes.len() - ALIGNMENT; // where the last tensor, of 8 bytes, begins
    for end in 0..last + 8 {
        assert!(read(&bytes[..end]).is_err(), "{end} bytes");
    }
    assert!(read(&bytes[..last + 8]).is_ok(), "only the padding is gone");
}

/// Any byte may be anything; what is made of it is an error or as many values as the file can hold.
#[test]
fn a_file_with_any_byte_changed_is_refused_or_small() {
    let bytes = some().to_gguf().unwrap();
    for at in 0..bytes.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff, bytes[at] ^ 0x10] {
            let mut changed = bytes.clone();
            changed[at] = value;
            if let Ok(weights) = read(&changed) {
                let held: usize = weights.0.values().map(|s| s.to_f32().len()).sum();
                assert!(held <= 2 * bytes.len(), "byte {at} as {value}");
            }
        }
    }
}

#[test]
fn lies_are_refused_with_the_reason() {
    let bytes = some().to_gguf().unwrap();
    let size = |n: u64| n.to_le_bytes();
    let name = |text: &str| [&size(text.len() as u64)[..], text.as_bytes()].concat();
    // Of the tensor in Q8_0: two axes, 64 by 3, type 8, offset 0.
    let info = [
        &name("a.weight")[..],
        &2_u32.to_le_bytes(),
        &size(64),
        &size(3),
        &8_u32.to_le_bytes(),
        &size(0),
    ]
    .concat();
    let changed = |axes: u32, dims: [u64; 2], kind: u32, offset: u64| {
        let to = [
            &name("a.weight")[..],
            &axes.to_le_bytes(),
            &size(dims[0]),
            &size(dims[1]),
            &kind.to_le_bytes(),
            &size(offset),
        ];
        with(&bytes, &info, &to.concat())
    };
    assert_eq!(changed(2, [64, 3], 8, 0), bytes);
    let cases = [
        (changed(2, [64, 3], 12, 0), "a.weight has GGML's type 12"),
        (changed(2, [48, 4], 8, 0), "whole blocks of 32"),
        (changed(2, [40, 3], 8, 0), "which no GGUF has"),
        (changed(2, [64, 1 << 40], 8, 0), "more than its"),
        (changed(2, [64, u64::MAX], 8, 0), "which no GGUF has"),
        (changed(2, [64, 3], 8, 8), "which no GGUF has"),
        (changed(2, [64, 3], 8, 1 << 20), "lies beyond"),
        (
            changed(2, [64, 3], 8, 0_u64.wrapping_sub(32)),
            "lies beyond",
        ),
        (changed(5, [64, 3], 8, 0), "5 axes"),
        (changed(0, [64, 3], 8, 0), "0 axes"),
        (with(&bytes, MAGIC, b"GGML"), "no GGUF"),
        (
            with(&bytes, &3_u32.to_le_bytes(), &9_u32.to_le_bytes()),
            "version 9",
        ),
        (
            with(&bytes, &name("b.weight"), &name("a.weight")),
            "two tensors a.weight",
        ),
        (
            with(&bytes, &name("d"), &[&size(1)[..], b"\xff"].concat()),
            "not UTF-8",
        ),
        (
            with(&bytes, &name("d"), &[&size(1 << 60)[..], b"d"].concat()),
            "a name of 1152921504606846976 bytes",
        ),
        (with(&bytes, &size(5), &size(u64::MAX)), "axes"),
    ];
    for (bytes, reason) in cases {
        let message = message(&bytes);
        assert!(message.contains(reason), "{message} instead of {reason}");
    }
    let Stored::Blocks { bytes: blocks, .. } = &some().0["a.weight"] else {
        panic!("it is in blocks")
    };
    let infinite = [&f16::INFINITY.to_le_bytes(), &blocks[2..]].concat();
    let message = message(&with(&bytes, blocks, &infinite));
    assert!(
        message.contains("a.weight has a block whose scale"),
        "{message}"
    );
}

#[test]
fn metadata_may_nest_but_not_for_ever() {
    let file = |depth: usize| {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(3_u32.to_le_bytes());
        bytes.extend([0_u64, 1].map(u64::to_le_bytes).concat());
        text(&mut bytes, "k");
        bytes.extend(ARRAY.to_le_bytes());
        for _ in 1..depth {
            bytes.extend(ARRAY.to_le_bytes());
            bytes.extend(1_u64.to_le_bytes());
        }
        bytes.extend([0; 64]); // an array of no bytes, and padding
        bytes
    };
    assert!(read(&file(2)).is_ok());
    assert!(message(&file(1 << 16)).contains("metadata of type 9"));
}

#[test]
fn int8_does_not_go_into_the_file_nor_blocks_into_safetensors() {
    let mut weights = some();
    assert!(weights.to_bytes().unwrap_err().to_string().contains("q8_0"));
    let int8 = Stored::I8 {
        dims: [1, 1],
        values: vec![1],
        scale: vec![1.0],
    };
    weights.0.insert("x.weight".to_owned(), int8);
    assert!(
        weights
            .to_gguf()
            .unwrap_err()
            .to_string()
            .contains("x.weight")
    );
}
