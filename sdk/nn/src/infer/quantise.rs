//! From f32 to int8: weights once, one scale for each output; activations at every call, one scale for each row.

use super::buffer::Aligned;
use super::layer::{IntPanels, Rows};
use crate::Error;
use crate::kernels::{Form, Kernels};
use crate::ops::simd::vectorised;

/// Largest magnitude of a quantised value; -128 is not used, so that ranges are symmetric.
pub(super) const MOST: f32 = 127.0;

/// Adding it rounds to the nearest integer, ties to even, which is then in the low bits.
const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23

/// Quantised rows of activations; reserved once, filled at every call.
pub(super) struct Quantised {
    bytes: Aligned<u8>,
    scales: Aligned<f32>,
    stride: usize,
}

impl Quantised {
    /// Room for `rows` of `k` values in `form`.
    ///
    /// # Errors
    /// Memory that is refused.
    pub(super) fn new(rows: usize, k: usize, form: Form) -> Result<Self, Error> {
        let stride = (k.next_multiple_of(4) * form.bytes()).next_multiple_of(64);
        Ok(Self {
            bytes: Aligned::zeroed(rows * stride)?,
            scales: Aligned::zeroed(rows)?,
            stride,
        })
    }

    /// Bytes reserved.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len() + size_of_val(&*self.scales)
    }

    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    pub(super) fn row(&self, row: usize) -> &[u8] {
        &self.bytes[row * self.stride..]
    }

    pub(super) fn scales(&self, first: usize, count: usize) -> &[f32] {
        &self.scales[first..][..count]
    }

    /// Quantises the first `k` values of every row: `q = round(127 x / max|x|)`, scale `max|x| / 127`.
    ///
    /// A row of zeros gets scale 0, a row with a NaN scale NaN, so that the damage shows.
    pub(super) fn fill(&mut self, form: Form, x: Rows<'_>, k: usize) {
        assert!(k * form.bytes() <= self.stride && x.count <= self.scales.len());
        for row in 0..x.count {
            let values = &x.data[row * x.stride..][..k];
            let bytes = &mut self.bytes[row * self.stride..][..k * form.bytes()];
            self.scales[row] = match form {
                Form::Unsigned4 => row_unsigned(values, bytes),
                Form::Signed4 | Form::Signed2 => row_signed(values, bytes),
                Form::Wide2 => row_wide(values, bytes),
            };
        }
    }
}

/// Largest magnitude; NaN if there is one, since its bits are the largest.
#[inline(always)]
fn largest(x: &[f32]) -> f32 {
    const SIGN: u32 = 1 << 31;
    let mut lanes = [0_u32; 16];
    let (chunks, rest) = x.as_chunks::<16>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = (*lane).max(value.to_bits() & !SIGN);
        }
    }
    let bits = rest.iter().map(|value| value.to_bits() & !SIGN);
    f32::from_bits(bits.chain(lanes).fold(0, u32::max))
}

/// `(scale, 1 / scale)`, both 0 for a row of zeros or of values too small to have a reciprocal.
#[inline(always)]
fn scales(x: &[f32]) -> (f32, f32) {
    let most = largest(x);
    if most < f32::MIN_POSITIVE * MOST {
        return (0.0, 0.0);
    }
    (most / MOST, MOST / most)
}

/// The rounded value in the low bits of a word.
#[inline(always)]
fn rounded(x: f32, inverse: f32) -> u32 {
    (x * inverse + ROUND)
        .to_bits()
        .wrapping_sub(ROUND.to_bits())
}

vectorised! {
    fn row_unsigned(x: &[f32], out: &mut [u8]) -> f32 {
        let (scale, inverse) = scales(x);
        for (x, out) in x.iter().zip(out) {
            *out = rounded(*x, inverse).wrapping_add(128) as u8;
        }
        scale
    }
}

vectorised! {
    fn row_signed(x: &[f32], out: &mut [u8]) -> f32 {
        let (scale, inverse) = scales(x);
        for (x, out) in x.iter().zip(out) {
            *out = rounded(*x, inverse) as u8;
        }
        scale
    }
}

vectorised! {
    fn row_wide(x: &[f32], out: &mut [u8]) -> f32 {
        let (scale, inverse) = scales(x);
        let (out, _) = out.as_chunks_mut::<2>();
        for (x, out) in x.iter().zip(out) {
            *out = (rounded(*x, inverse) as u16).to_ne_bytes();
        }
        scale
    }
}

/// Packs `values [N, K]` with `scale [N]` for kernels; zeros where there is no weight.
pub(super) fn pack_int(
    values: &[i8],
    scale: &[f32],
    k: usize,
    kernels: &Kernels,
) -> Result<IntPanels, Error> {
    let (n, group, columns) = (scale.len(), kernels.form.group(), kernels.columns);
    let groups = k.div_ceil(group);
    let padded = n.next_multiple_of(columns);
    let mut packed = IntPanels {
        values: Aligned::zeroed(padded * groups * group)?,
        start: Aligned::zeroed(padded)?,
        scale: Aligned::zeroed(padded)?,
        groups,
    };
    packed.scale[..n].copy_from_slice(scale);
    for (row, weights) in values.chunks_exact(k).enumerate() {
        let panel = row / columns * groups * columns * group;
        for (i, weight) in weights.iter().enumerate() {
            let at = (i / group * columns + row % columns) * group + i % group;
            packed.values[panel + at] = *weight;
        }
        if kernels.form == Form::Unsigned4 {
            let sum: i32 = weights.iter().map(|w| i32::from(*w)).sum();
            packed.start[row] = -128 * sum;
        }
    }
    Ok(packed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantise(form: Form, x: &[f32]) -> (Vec<i32>, f32) {
        let mut quantised = Quantised::new(1, x.len(), form).unwrap();
        let rows = Rows {
            data: x,
            stride: x.len(),
            count: 1,
        };
        quantised.fill(form, rows, x.len());
        let bytes = quantised.row(0);
        let value = |i: usize| match form {
            Form::Unsigned4 => i32::from(bytes[i]) - 128,
            Form::Signed4 | Form::Signed2 => i32::from(bytes[i] as i8),
            Form::Wide2 => i32::from(i16::from_ne_bytes([bytes[2 * i], bytes[2 * i + 1]])),
        };
        ((0..x.len()).map(value).collect(), quantised.scales(0, 1)[0])
    }

    const FORMS: [Form; 4] = [Form::Unsigned4, Form::Signed4, Form::Signed2, Form::Wide2];

    #[test]
    fn every_form_rounds_to_the_nearest_and_ties_to_even() {
        let mut x: Vec<f32> = (0..101).map(|i| (i as f32 * 0.37).sin() * 20.0).collect();
        x.extend([63.5, -127.0, 0.5, 1.5, -2.5, 0.0, -0.0]);
        let want: Vec<i32> = x.iter().map(|v| v.round_ties_even() as i32).collect();
        for form in FORMS {
            let (got, scale) = quantise(form, &x);
            assert_eq!((got, scale), (want.clone(), 1.0), "{form:?}");
        }
    }

    #[test]
    fn rows_without_a_range_stay_zero_and_damage_shows() {
        for form in FORMS {
            assert_eq!(quantise(form, &[0.0; 5]), (vec![0; 5], 0.0));
            assert_eq!(quantise(form, &[1e-40, 0.0]).1, 0.0);
            assert!(quantise(form, &[1.0, f32::NAN, 2.0]).1.is_nan());
            let (values, scale) = quantise(form, &[3e38, -3e38, 1e38]);
            assert_eq!(values, [127, -127, 42]);
            assert!(scale.is_finite());
        }
    }
}
