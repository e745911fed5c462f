//! Weights of any bytes, safetensors or GGUF: what is read is the same when it is written and read again, and an encoder that takes it runs.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ssl_edge_fuzz::tiny_encoder;
use ssl_edge_nn::infer::{EncoderWeights, PackedOptions, PackedVit, Stored};

fuzz_target!(|bytes: &[u8]| {
    let Ok(weights) = EncoderWeights::from_bytes(bytes) else {
        return;
    };
    let in_blocks = |stored: &Stored| matches!(stored, Stored::Blocks { .. });
    for stored in weights.0.values() {
        let count: usize = stored.dims().iter().product();
        assert_eq!(stored.to_f32().len(), count);
    }
    let written = match weights.0.values().any(in_blocks) {
        true => weights.to_gguf(),
        false => weights.to_bytes(),
    };
    if let Ok(written) = written {
        let again = EncoderWeights::from_bytes(&written).expect("what was written can be read");
        assert!(same(&again, &weights));
    }
    let config = tiny_encoder();
    let Ok(encoder) = PackedVit::new(&config, weights, &PackedOptions::default()) else {
        return;
    };
    let (mut cls, mut patches) = (vec![0.0; config.dim], vec![0.0; 4 * config.dim]);
    let image = [0.5; 3 * 8 * 8];
    encoder
        .run(&image, 1, &mut cls, &mut patches)
        .expect("slices that fit");
});

/// Bit by bit, since NaN is not equal to itself.
fn same(a: &EncoderWeights, b: &EncoderWeights) -> bool {
    let bits =
        |stored: &Stored| -> Vec<u32> { stored.to_f32().iter().map(|v| v.to_bits()).collect() };
    a.0.len() == b.0.len()
        && a.0
            .iter()
            .zip(&b.0)
            .all(|((a, x), (b, y))| a == b && x.dims() == y.dims() && bits(x) == bits(y))
}
