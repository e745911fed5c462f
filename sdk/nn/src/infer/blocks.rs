//! GGML's block formats: 32 weights of a row share a scale `d` in f16, and each is `d · q` with a small integer `q`.
//!
//! | format | bytes of a block | values |
//! |---|---|---|
//! | Q8_0 | `d`, 32 times i8 | `d · q` |
//! | Q4_0 | `d`, 16 bytes: value j in the low half of byte j, value 16 + j in the high half | `d · (q - 8)` |
//!
//! Rounding is that of GGML's reference quantiser (`quantize_row_q8_0_ref`, `quantize_row_q4_0_ref`), byte for byte: Q8_0 gives the largest magnitude of
//! a block 127 steps, Q4_0 gives the value of the largest magnitude, with its sign, -8 steps.

use std::fmt;

use half::f16;

use crate::Error;

/// Weights that share a scale; a row is a whole number of blocks.
pub const BLOCK: usize = 32;
const SCALE: usize = size_of::<f16>();
const HALF: usize = BLOCK / 2;

/// How the weights of a linear layer are stored in blocks of [`BLOCK`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockFormat {
    /// 8 bits a weight and the scale: 8.5 in all.
    Q8_0,
    /// 4 bits a weight and the scale: 4.5 in all.
    Q4_0,
}

impl BlockFormat {
    /// All.
    pub const ALL: [Self; 2] = [Self::Q8_0, Self::Q4_0];

    /// `q8_0` or `q4_0`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::Q8_0 => SCALE + BLOCK,
            Self::Q4_0 => SCALE + HALF,
        }
    }

    /// Bytes of `count` weights; `None` where they are no whole number of blocks, or too many to count.
    pub fn bytes_of(self, count: usize) -> Option<usize> {
        let whole = count.is_multiple_of(BLOCK);
        whole.then(|| (count / BLOCK).checked_mul(self.block_bytes()))?
    }

    /// Rounds rows of `row` weights each.
    ///
    /// # Errors
    /// Rows that are no whole number of blocks, a weight that is not finite, or one so large that the scale does not fit into f16.
    pub fn quantise(self, values: &[f32], row: usize) -> Result<Vec<u8>, Error> {
        let reject = |reason: String| Err(Error::Config { reason });
        if row == 0 || !row.is_multiple_of(BLOCK) || !values.len().is_multiple_of(row) {
            return reject(format!(
                "rows of {row} weights do not fit into {self}, whose blocks have {BLOCK}; choose a width that is a multiple of {BLOCK}, or another precision"
            ));
        }
        let mut bytes = Vec::with_capacity(values.len() / BLOCK * self.block_bytes());
        let (blocks, _) = values.as_chunks::<BLOCK>();
        for block in blocks {
            if let Some(value) = block.iter().find(|value| !value.is_finite()) {
                return reject(format!("a weight is {value}, which {self} cannot hold"));
            }
            let scale = self.scale(block);
            let stored = f16::from_f32(scale);
            if !stored.is_finite() {
                return reject(format!(
                    "a block of weights needs the scale {scale:e}, and {self} holds at most {}",
                    f16::MAX
                ));
            }
            bytes.extend(stored.to_le_bytes());
            let inverse = if scale == 0.0 { 0.0 } else { scale.recip() };
            match self {
                Self::Q8_0 => bytes.extend(block.map(|x| (x * inverse).round() as i8 as u8)),
                Self::Q4_0 => {
                    let step = |x: f32| ((x * inverse + 8.5) as u8).min(15);
                    let (low, high) = block.split_at(HALF);
                    let pairs = low.iter().zip(high);
                    bytes.extend(pairs.map(|(low, high)| step(*low) | step(*high) << 4));
                }
            }
        }
        Ok(bytes)
    }

    /// The weights that whole blocks stand for. Exact: a product of 11 by 8 bits fits into f32.
    pub fn dequantise(self, bytes: &[u8]) -> Vec<f32> {
        let mut values = Vec::with_capacity(bytes.len() / self.block_bytes() * BLOCK);
        for block in bytes.chunks_exact(self.block_bytes()) {
            let (scale, steps) = block.split_at(SCALE);
            let scale = scale_of(scale).to_f32();
            match self {
                Self::Q8_0 => values.extend(steps.iter().map(|q| f32::from(*q as i8) * scale)),
                Self::Q4_0 => {
                    let value = |q: u8| f32::from(q as i8 - 8) * scale;
                    values.extend(steps.iter().map(|q| value(q & 15)));
                    values.extend(steps.iter().map(|q| value(q >> 4)));
                }
            }
        }
        values
    }

    /// Whether the scale of every block is finite.
    pub(super) fn has_finite_scales(self, bytes: &[u8]) -> bool {
        let mut blocks = bytes.chunks_exact(self.block_bytes());
        blocks.all(|block| scale_of(&block[..SCALE]).is_finite())
    }

    fn scale(self, block: &[f32; BLOCK]) -> f32 {
        let mut largest = 0.0_f32;
        for value in block {
            // The first of equal magnitudes, as GGML has it.
            if value.abs() > largest.abs() {
                largest = *value;
            }
        }
        match self {
            Self::Q8_0 => largest.abs() / 127.0,
            Self::Q4_0 => largest / -8.0,
        }
    }
}

impl fmt::Display for BlockFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn scale_of(bytes: &[u8]) -> f16 {
    f16::from_le_bytes([bytes[0], bytes[1]])
}

#[cfg(test)]
mod tests {
    use candle_core::quantized::{GgmlDType, QTensor};
    use candle_core::{Device, Tensor};
    use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
    use rand_distr::{Distribution, StandardNormal};

    use super::*;

    fn normal(count: usize, scale: f32, seed: u64) -> Vec<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let draw = |_| -> f32 { StandardNormal.sample(&mut rng) };
        (0..count).map(draw).map(|v: f32| v * scale).collect()
    }

    fn candle(format: BlockFormat, values: &[f32]) -> QTensor {
        let dtype = match format {
            BlockFormat::Q8_0 => GgmlDType::Q8_0,
            BlockFormat::Q4_0 => GgmlDType::Q4_0,
        };
        let tensor = Tensor::from_slice(values, (1, values.len()), &Device::Cpu).unwrap();
        QTensor::quantize(&tensor, dtype).unwrap()
    }

    /// Random rows of every magnitude, and blocks in which something is special.
    fn cases() -> Vec<(&'static str, Vec<f32>)> {
        let mut one = vec![0.0; BLOCK];
        one[17] = -3.5;
        let ties: Vec<f32> = (0..64).map(|i| (i as f32 - 31.5) / 127.0).collect();
        let mut both = normal(BLOCK, 0.1, 4);
        (both[3], both[20]) = (2.5, -2.5);
        let mut mixed = normal(BLOCK, 1e-38, 5);
        mixed[9] = 1.0;
        vec![
            ("normal", normal(4096, 0.02, 1)),
            ("large", normal(1024, 1e5, 2)),
            ("small", normal(1024, 1e-6, 3)),
            ("zeros", vec![0.0; BLOCK]),
            ("negative zeros", vec![-0.0; BLOCK]),
            ("all equal", vec![0.7; BLOCK]),
            ("all equal and negative", vec![-0.7; BLOCK]),
            ("one", one),
            ("ties", ties),
            ("both signs at the largest", both),
            ("subnormal beside one", mixed),
            ("subnormal", normal(BLOCK, 1e-41, 6)),
            ("the least there is", vec![f32::from_bits(1); BLOCK]),
            ("the scale is subnormal in f16", normal(BLOCK, 1e-5, 7)),
            ("huge", vec![4e5; BLOCK]),
        ]
    }

    #[test]
    fn blocks_are_candles_byte_for_byte() {
        for format in BlockFormat::ALL {
            for (name, values) in cases() {
                let own = format.quantise(&values, BLOCK).unwrap();
                let theirs = candle(format, &values);
                assert_eq!(own, *theirs.data().unwrap(), "{format}, {name}");
                assert_eq!(format.bytes_of(values.len()), Some(own.len()));
                let back = theirs.dequantize(&Device::Cpu).unwrap();
                let back: Vec<f32> = back.flatten_all().unwrap().to_vec1().unwrap();
                let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits();
                let own = format.dequantise(&own);
                assert!(own.iter().zip(&back).all(same), "{format}, {name}");
            }
        }
    }

    /// A step is the scale, rounded to f16 (2⁻¹¹ of up to 127 or 8 steps); Q4_0 has no step beyond 7 on the side away from the largest.
    #[test]
    fn values_are_off_by_half_a_step_at_most() {
        let values = normal(1 << 14, 0.05, 8);
        for (format, steps) in [(BlockFormat::Q8_0, 127.0), (BlockFormat::Q4_0, 8.0)] {
            let back = format.dequantise(&format.quantise(&values, 128).unwrap());
            for (values, back) in values.chunks(BLOCK).zip(back.chunks(BLOCK)) {
                let most = values.iter().fold(0.0, |most: f32, v| most.max(v.abs()));
                let step = most / steps;
                let bound = match format {
                    BlockFormat::Q8_0 => 0.5 * step,
                    BlockFormat::Q4_0 => step,
                };
                let rounded = most * (0.5_f32).powi(11);
                for (value, back) in values.iter().zip(back) {
                    assert!(
                        (value - back).abs() <= 1.001 * (bound + rounded),
                        "{format}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_reason() {
        for format in BlockFormat::ALL {
            let refused = |values: &[f32], row: usize| {
                let error = format.quantise(values, row).unwrap_err();
                error.to_string()
            };
            for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut values = vec![1.0; 2 * BLOCK];
                values[40] = wrong;
                let message = refused(&values, BLOCK);
                assert!(message.contains(&wrong.to_string()), "{message}");
            }
            assert!(refused(&[1e8; BLOCK], BLOCK).contains("65504"));
            for (len, row) in [(48, 48), (64, 16), (33, 33), (0, 0), (96, 64)] {
                assert!(refused(&vec![0.0; len], row).contains("multiple of 32"));
            }
            assert_eq!(format.bytes_of(33), None);
            assert!(format.quantise(&[], BLOCK).unwrap().is_empty());
        }
    }
}
