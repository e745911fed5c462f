//! From `f32` embeddings to the `i8` values that a head reads, for hosts that have floating point.
//!
//! The rounding is stated and uses IEEE operations only: every machine gives the same values.

use crate::error::{BuildError, InputError};
use crate::image::HeadImage;

/// Room that [`fit_scale`] leaves above the samples. Measured on learned embeddings: below it the frames that the samples did not foresee are
/// cut, above it the steps grow coarser.
pub const HEADROOM: f64 = 1.25;

/// Largest value that a quantised embedding takes.
const LARGEST: i32 = 127;

/// Largest `centre / step` that an image can hold, with room for rounding.
const LARGEST_CENTRE: f64 = 32_000.0;

impl HeadImage<'_> {
    /// Writes `x / t - centre / 2^s`, rounded to nearest (ties away from zero) and cut at ±127, to `out` `[dim]`; returns how many values
    /// were cut. Many cut values tell of a frame, or an encoder, unlike those that the job was taught with.
    ///
    /// # Errors
    ///
    /// [`InputError::Length`] for either slice, [`InputError::NotFinite`].
    pub fn quantise(&self, embedding: &[f32], out: &mut [i8]) -> Result<usize, InputError> {
        for found in [embedding.len(), out.len()] {
            if found != self.dim() {
                return Err(InputError::Length {
                    needed: self.header.dim,
                    found,
                });
            }
        }
        if let Some(index) = embedding.iter().position(|x| !x.is_finite()) {
            return Err(InputError::NotFinite { index });
        }
        let scale = Scale {
            step: f64::from(f32::from_bits(self.header.step)),
            bits: self.header.centre_bits,
        };
        let mut cut = 0;
        for ((x, centre), out) in embedding
            .iter()
            .zip(self.centre.as_chunks::<2>().0)
            .zip(out)
        {
            let (value, inside) = scale.value(*x, i16::from_le_bytes(*centre));
            *out = value;
            cut += usize::from(!inside);
        }
        Ok(cut)
    }
}

/// How an embedding becomes integers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    pub(crate) step: f64,
    pub(crate) bits: u8,
}

impl Scale {
    /// `q` for one finite value, and whether it is inside the range.
    pub(crate) fn value(&self, x: f32, centre: i16) -> (i8, bool) {
        let exact = f64::from(x) / self.step - f64::from(centre) / f64::from(1u32 << self.bits);
        let rounded = round(exact);
        let cut = rounded.clamp(-i64::from(LARGEST), i64::from(LARGEST));
        (cut as i8, rounded == cut)
    }
}

/// Centre and step from samples: their mean, written to `centre` `[D]`, and a step so that the largest deviation from it lies [`HEADROOM`]
/// inside the range.
///
/// An encoder that gives `i8` already, `x = scale · (q - zero_point)`, needs no such fit: its step is `scale` and its centre
/// `-scale · zero_point` for every value.
///
/// # Errors
///
/// No samples, samples of another length than `centre`, values that are not finite.
pub fn fit_scale<'a>(
    samples: impl Iterator<Item = &'a [f32]> + Clone,
    centre: &mut [f64],
) -> Result<f64, BuildError> {
    centre.fill(0.0);
    let mut n = 0.0;
    for sample in samples.clone() {
        if sample.len() != centre.len() {
            return Err(BuildError::Shape {
                what: "a sample",
                needed: centre.len(),
                found: sample.len(),
            });
        }
        if !sample.iter().all(|x| x.is_finite()) {
            return Err(BuildError::Value { what: "a sample" });
        }
        n += 1.0;
        for (c, x) in centre.iter_mut().zip(sample) {
            *c += f64::from(*x);
        }
    }
    if n == 0.0 {
        return Err(BuildError::Shape {
            what: "the list of samples",
            needed: 1,
            found: 0,
        });
    }
    centre.iter_mut().for_each(|c| *c /= n);
    let deviation = samples
        .flat_map(|sample| sample.iter().zip(&*centre))
        .fold(0.0f64, |largest, (x, c)| {
            largest.max((f64::from(*x) - c).abs())
        });
    let size = centre
        .iter()
        .fold(0.0f64, |largest, c| largest.max(c.abs()));
    let step = (HEADROOM * deviation / f64::from(LARGEST)).max(size / LARGEST_CENTRE);
    // Samples that are all zero: any step will do.
    Ok(if step > 0.0 { step } else { 1.0 })
}

/// To nearest, ties away from zero; saturates.
pub(crate) fn round(x: f64) -> i64 {
    let whole = x as i64;
    let rest = x - whole as f64;
    if rest >= 0.5 {
        whole.saturating_add(1)
    } else if rest <= -0.5 {
        whole.saturating_sub(1)
    } else {
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_to_nearest_with_ties_away_from_zero() {
        let cases = [
            (0.5, 1),
            (-0.5, -1),
            (0.49, 0),
            (-2.5, -3),
            (126.5, 127),
            (1e300, i64::MAX),
            (-1e300, i64::MIN),
        ];
        for (x, expected) in cases {
            assert_eq!(round(x), expected, "{x}");
        }
        for i in -4000..4000 {
            let x = f64::from(i) / 7.0;
            assert_eq!(round(x), x.round() as i64);
        }
    }

    #[test]
    fn the_scale_covers_the_samples() {
        let samples: [&[f32]; 3] = [&[10.0, -1.0], &[12.0, 1.0], &[11.0, 3.0]];
        let mut centre = [0.0; 2];
        let step = fit_scale(samples.into_iter(), &mut centre).unwrap();
        assert_eq!(centre, [11.0, 1.0]);
        assert!((step - HEADROOM * 2.0 / 127.0).abs() < 1e-12);
        assert_eq!(
            fit_scale([[0.0f32; 2].as_slice()].into_iter(), &mut centre),
            Ok(1.0)
        );
        assert!(fit_scale([[f32::NAN; 2].as_slice()].into_iter(), &mut centre).is_err());
        assert!(fit_scale([[1.0f32; 3].as_slice()].into_iter(), &mut centre).is_err());
        assert!(fit_scale(core::iter::empty(), &mut centre).is_err());
    }
}
