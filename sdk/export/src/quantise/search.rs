//! One linear layer to int8: smoothing, ranges, bias, each chosen by the error of the layer's output on calibration rows.
//!
//! SmoothQuant (<https://arxiv.org/abs/2211.10438>): `x W = (x / s)(s W)` with `s_k = max|x_k|^α / max|W_k|^(1-α)` moves outliers of channel k from the
//! activations, which share a scale over a row, to the weights, which share one over k. α is the one with the least error, or none at all.

use candle_core::{Device, Tensor};
use ssl_edge_nn::Error;
use ssl_edge_nn::infer::Stored;

/// α that are tried where the layer before can take the factors.
const ALPHAS: [f32; 6] = [0.3, 0.4, 0.5, 0.6, 0.7, 0.8];

/// Shares of a row's largest weight that are tried as its range.
const RANGES: [f32; 9] = [1.0, 0.975, 0.95, 0.925, 0.9, 0.875, 0.85, 0.8, 0.75];

/// Shares of the largest activation that are tried as a range for all rows.
const STATIC_RANGES: [f32; 8] = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3];

const MOST: f32 = 127.0;

/// A layer `y = x Wᵀ + b` in f32.
#[derive(Clone, Debug)]
pub(super) struct Linear {
    /// `[N, K]`.
    pub(super) weight: Vec<f32>,
    /// `[N]`.
    pub(super) bias: Vec<f32>,
}

/// An int8 weight.
#[derive(Clone, Debug)]
pub(super) struct Rounded {
    /// `[N, K]`.
    pub(super) values: Vec<i8>,
    /// `[N]`.
    pub(super) scale: Vec<f32>,
}

/// A layer in int8.
#[derive(Clone, Debug)]
pub(super) struct IntLinear {
    pub(super) weight: Rounded,
    /// Corrected for the mean error.
    pub(super) bias: Vec<f32>,
    /// Relative error of the output on the calibration rows: `‖y' - y‖² / ‖y‖²`.
    pub(super) error: f64,
}

/// Factors of a layer's inputs: the input is divided by them, the weight's columns multiplied.
#[derive(Clone, Debug)]
pub(super) struct Smoothing {
    pub(super) alpha: f32,
    pub(super) factors: Vec<f32>,
}

impl Linear {
    pub(super) fn inputs(&self) -> usize {
        self.weight.len() / self.bias.len()
    }

    /// Multiplies the columns of the weight.
    pub(super) fn scale_columns(&mut self, factors: &[f32]) {
        for row in self.weight.chunks_exact_mut(factors.len()) {
            row.iter_mut().zip(factors).for_each(|(w, s)| *w *= s);
        }
    }

    /// Divides the outputs from `first` on.
    pub(super) fn divide_outputs(&mut self, first: usize, factors: &[f32]) {
        let k = self.inputs();
        let rows = self.weight.chunks_exact_mut(k).zip(&mut self.bias);
        for ((row, bias), s) in rows.skip(first).zip(factors) {
            row.iter_mut().for_each(|w| *w /= s);
            *bias /= s;
        }
    }
}

/// The smoothing with the least error, or `None` where none is better.
pub(super) fn smoothing(x: &[f32], layer: &Linear) -> Result<Option<Smoothing>, Error> {
    let k = layer.inputs();
    let want = product(x, &layer.weight, k)?;
    let error = |x: &[f32], weight: &[f32]| -> Result<f64, Error> {
        let rounded = round(weight, k, |row| largest(row) / MOST);
        relative_error(
            &product(&quantised_rows(x, k), &rounded.to_f32(k), k)?,
            &want,
        )
    };
    let (most_x, most_w) = (column_largest(x, k), column_largest(&layer.weight, k));
    let mut best = (error(x, &layer.weight)?, None);
    for alpha in ALPHAS {
        let factors = factors(&most_x, &most_w, alpha);
        let mut smooth = layer.clone();
        smooth.scale_columns(&factors);
        let e = error(&divided(x, &factors), &smooth.weight)?;
        if e < best.0 {
            best = (e, Some(Smoothing { alpha, factors }));
        }
    }
    Ok(best.1)
}

/// The layer in int8 for inputs like `x [R, K]`, which are smoothed already.
pub(super) fn quantise(x: &[f32], layer: &Linear) -> Result<IntLinear, Error> {
    let (k, n) = (layer.inputs(), layer.bias.len());
    let rows = (x.len() / k) as f64;
    let mut power = vec![0.0_f32; k];
    for row in x.chunks_exact(k) {
        power.iter_mut().zip(row).for_each(|(p, x)| *p += x * x);
    }
    let weight = round(&layer.weight, k, |row| best_scale(row, &power));
    let want = product(x, &layer.weight, k)?;
    let mut got = product(&quantised_rows(x, k), &weight.to_f32(k), k)?;
    let mut shift = vec![0.0_f64; n];
    for (got, want) in got.chunks_exact(n).zip(want.chunks_exact(n)) {
        for ((shift, got), want) in shift.iter_mut().zip(got).zip(want) {
            *shift += f64::from(want - got) / rows;
        }
    }
    for row in got.chunks_exact_mut(n) {
        row.iter_mut()
            .zip(&shift)
            .for_each(|(v, s)| *v += *s as f32);
    }
    let bias = layer.bias.iter().zip(&shift);
    Ok(IntLinear {
        bias: bias.map(|(b, s)| (f64::from(*b) + s) as f32).collect(),
        error: relative_error(&got, &want)?,
        weight,
    })
}

/// A weight with every row rounded to 127 steps of its largest value.
pub(super) fn rounded(weight: &Stored) -> Stored {
    let dims = [weight.dims()[0], weight.dims()[1]];
    let Rounded { values, scale } = round(&weight.to_f32(), dims[1], |row| largest(row) / MOST);
    Stored::I8 {
        dims,
        values,
        scale,
    }
}

/// Divides the columns of `x`.
pub(super) fn divided(x: &[f32], factors: &[f32]) -> Vec<f32> {
    let rows = x.chunks_exact(factors.len());
    rows.flat_map(|row| row.iter().zip(factors).map(|(x, s)| x / s))
        .collect()
}

impl Rounded {
    fn to_f32(&self, k: usize) -> Vec<f32> {
        let rows = self.values.chunks_exact(k).zip(&self.scale);
        rows.flat_map(|(row, scale)| row.iter().map(move |v| f32::from(*v) * scale))
            .collect()
    }
}

fn factors(most_x: &[f32], most_w: &[f32], alpha: f32) -> Vec<f32> {
    let floor = |most: &[f32]| largest(most).max(f32::MIN_POSITIVE) * 1e-5;
    let (floor_x, floor_w) = (floor(most_x), floor(most_w));
    let raw: Vec<f32> = most_x
        .iter()
        .zip(most_w)
        .map(|(x, w)| x.max(floor_x).powf(alpha) / w.max(floor_w).powf(1.0 - alpha))
        .collect();
    // A common factor changes nothing; without it norms keep their magnitude.
    let mean = raw.iter().map(|s| f64::from(s.ln())).sum::<f64>() / raw.len() as f64;
    let common = mean.exp() as f32;
    raw.iter().map(|s| s / common).collect()
}

/// One scale for all values: of the ranges tried, the one with the least rounding error.
pub(super) fn static_scale(values: impl Iterator<Item = f32> + Clone) -> f32 {
    let most = values.clone().fold(0.0, |most: f32, v| most.max(v.abs()));
    if most == 0.0 {
        return 1.0;
    }
    let error = |scale: f32| -> f64 {
        let errors = values.clone().map(|v| {
            let e = (v / scale).round_ties_even().clamp(-MOST, MOST) * scale - v;
            f64::from(e * e)
        });
        errors.sum()
    };
    let scales = STATIC_RANGES.map(|range| range * most / MOST);
    let errors = scales.map(|scale| (error(scale), scale));
    let best = errors.into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
    best.map_or(most / MOST, |(_, scale)| scale)
}

/// The range whose rounding error, weighted by the power of the inputs, is least.
fn best_scale(row: &[f32], power: &[f32]) -> f32 {
    let most = largest(row);
    let error = |scale: f32| -> f64 {
        if scale == 0.0 {
            return 0.0;
        }
        let errors = row.iter().zip(power).map(|(w, p)| {
            let e = (w / scale).round_ties_even().clamp(-MOST, MOST) * scale - w;
            e * e * p
        });
        errors.map(f64::from).sum()
    };
    let scales = RANGES.map(|range| range * most / MOST);
    let best = scales
        .into_iter()
        .min_by(|a, b| error(*a).total_cmp(&error(*b)));
    best.unwrap_or(most / MOST)
}

fn round(weight: &[f32], k: usize, scale: impl Fn(&[f32]) -> f32) -> Rounded {
    let scales: Vec<f32> = weight.chunks_exact(k).map(scale).collect();
    let rows = weight.chunks_exact(k).zip(&scales);
    let values = rows.flat_map(|(row, scale)| {
        let scale = if *scale > 0.0 { *scale } else { 1.0 };
        let value = move |w: &f32| (w / scale).round_ties_even().clamp(-MOST, MOST) as i8;
        row.iter().map(value)
    });
    Rounded {
        values: values.collect(),
        scale: scales,
    }
}

/// What the engine makes of `x`: every row rounded to 127 steps of its largest value.
fn quantised_rows(x: &[f32], k: usize) -> Vec<f32> {
    let rows = x.chunks_exact(k);
    rows.flat_map(|row| {
        let scale = (largest(row) / MOST).max(f32::MIN_POSITIVE);
        row.iter()
            .map(move |x| (x / scale).round_ties_even() * scale)
    })
    .collect()
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most: f32, v| most.max(v.abs()))
}

fn column_largest(x: &[f32], k: usize) -> Vec<f32> {
    let mut most = vec![0.0_f32; k];
    for row in x.chunks_exact(k) {
        most.iter_mut()
            .zip(row)
            .for_each(|(m, x)| *m = m.max(x.abs()));
    }
    most
}

/// `x Wᵀ`.
fn product(x: &[f32], weight: &[f32], k: usize) -> Result<Vec<f32>, Error> {
    let x = Tensor::from_slice(x, (x.len() / k, k), &Device::Cpu)?;
    let weight = Tensor::from_slice(weight, (weight.len() / k, k), &Device::Cpu)?;
    let y = ssl_edge_nn::ops::linear(&x, &weight, None)?;
    Ok(y.flatten_all()?.to_vec1()?)
}

fn relative_error(got: &[f32], want: &[f32]) -> Result<f64, Error> {
    let square = |v: f32| f64::from(v) * f64::from(v);
    let error: f64 = got.iter().zip(want).map(|(g, w)| square(g - w)).sum();
    let power: f64 = want.iter().map(|w| square(*w)).sum();
    Ok(error / power.max(f64::MIN_POSITIVE))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values in -1..1 from a fixed sequence.
    fn values(n: usize, seed: usize) -> Vec<f32> {
        (0..n)
            .map(|i| (((i + 7) * (seed + 3)) as f32 * 0.618).sin())
            .collect()
    }

    fn layer(n: usize, k: usize) -> Linear {
        Linear {
            weight: values(n * k, 1),
            bias: values(n, 2),
        }
    }

    #[test]
    fn smoothing_takes_outlier_channels_and_changes_no_product() {
        let (r, k, n) = (64, 48, 32);
        let mut x = values(r * k, 3);
        x.iter_mut().skip(5).step_by(k).for_each(|v| *v *= 60.0);
        let layer = layer(n, k);
        let found = smoothing(&x, &layer)
            .unwrap()
            .expect("an outlier is worth it");
        let mut smooth = layer.clone();
        smooth.scale_columns(&found.factors);
        let x_smooth = divided(&x, &found.factors);
        let (before, after) = (
            product(&x, &layer.weight, k).unwrap(),
            product(&x_smooth, &smooth.weight, k).unwrap(),
        );
        let error = relative_error(&after, &before).unwrap();
        assert!(error < 1e-12, "{error}");
        let plain = quantise(&x, &layer).unwrap().error;
        let smoothed = quantise(&x_smooth, &smooth).unwrap().error;
        assert!(smoothed < 0.5 * plain, "{smoothed} {plain}");
    }

    #[test]
    fn ranges_and_bias_reduce_the_error_of_plain_rounding() {
        let (r, k, n) = (256, 32, 24);
        let x: Vec<f32> = values(r * k, 5).iter().map(|v| v.max(-0.1)).collect();
        let mut layer = layer(n, k);
        // A large weight on an input that is almost never there.
        for row in layer.weight.chunks_exact_mut(k) {
            row[3] = 1.3;
        }
        let mut x = x;
        x.iter_mut().skip(3).step_by(k).for_each(|v| *v *= 1e-3);
        let want = product(&x, &layer.weight, k).unwrap();
        let plain = round(&layer.weight, k, |row| largest(row) / MOST);
        let plain = product(&quantised_rows(&x, k), &plain.to_f32(k), k).unwrap();
        let plain = relative_error(&plain, &want).unwrap();
        let found = quantise(&x, &layer).unwrap();
        assert!(found.error < plain, "{} {plain}", found.error);
        let got = product(&quantised_rows(&x, k), &found.weight.to_f32(k), k).unwrap();
        for column in 0..n {
            let mean = |y: &[f32]| y.iter().skip(column).step_by(n).sum::<f32>() / r as f32;
            let off = mean(&got) + found.bias[column] - mean(&want) - layer.bias[column];
            assert!(off.abs() < 1e-5, "the mean error is taken out, {off}");
        }
    }

    #[test]
    fn one_scale_clips_a_lone_outlier_and_only_that() {
        let even: Vec<f32> = (-100..=100).map(|i| i as f32 / 100.0).collect();
        assert_eq!(static_scale(even.iter().copied()), 1.0 / 127.0);
        let many = even.iter().cycle().take(200_000).copied();
        let scale = static_scale(many.chain([2.0]));
        assert!(scale < 1.7 / 127.0, "{scale}");
        assert_eq!(static_scale([0.0; 3].into_iter()), 1.0);
    }

    #[test]
    fn rows_of_zeros_stay_zero() {
        let layer = Linear {
            weight: vec![0.0; 8],
            bias: vec![0.5; 2],
        };
        let found = quantise(&[0.0; 12], &layer).unwrap();
        assert_eq!(found.weight.values, [0; 8]);
        assert!(found.weight.scale.iter().all(|s| s.is_finite()));
        assert_eq!(found.bias, [0.5; 2]);
    }
}
