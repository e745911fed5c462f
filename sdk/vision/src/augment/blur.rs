//! Gaussian blur: the sampled kernel, applied along rows, then along columns.

/// Blurs each plane of `width` x `height` in place; outside the plane the border pixel is repeated. The kernel reaches 3 sigma
/// and sums to 1.
pub(crate) fn gaussian(
    planes: &mut [f32],
    width: usize,
    height: usize,
    sigma: f32,
    scratch: &mut Vec<f32>,
) {
    let kernel = half_kernel(sigma);
    let radius = kernel.len() - 1;
    let padded = width + 2 * radius;
    scratch.resize(padded + width * height, 0.0);
    let (line, smooth) = scratch.split_at_mut(padded);
    for plane in planes.chunks_exact_mut(width * height) {
        for (row, out) in plane
            .chunks_exact(width)
            .zip(smooth.chunks_exact_mut(width))
        {
            line[..radius].fill(row[0]);
            line[radius..radius + width].copy_from_slice(row);
            line[radius + width..].fill(row[width - 1]);
            scale(out, &line[radius..], kernel[0]);
            for (t, &weight) in kernel.iter().enumerate().skip(1) {
                add_pair(out, &line[radius - t..], &line[radius + t..], weight);
            }
        }
        for (y, out) in plane.chunks_exact_mut(width).enumerate() {
            let row = |y: usize| &smooth[y * width..(y + 1) * width];
            scale(out, row(y), kernel[0]);
            for (t, &weight) in kernel.iter().enumerate().skip(1) {
                let (above, below) = (y.saturating_sub(t), (y + t).min(height - 1));
                add_pair(out, row(above), row(below), weight);
            }
        }
    }
}

/// Weights at distance 0, 1, ..., ceil(3 sigma).
fn half_kernel(sigma: f32) -> Vec<f32> {
    let sigma = f64::from(sigma);
    let radius = (3.0 * sigma).ceil() as usize;
    let weights: Vec<f64> = (0..=radius)
        .map(|t| (-0.5 * (t as f64 / sigma).powi(2)).exp())
        .collect();
    let sum = 2.0 * weights.iter().sum::<f64>() - weights[0];
    weights.into_iter().map(|w| (w / sum) as f32).collect()
}

fn scale(out: &mut [f32], source: &[f32], weight: f32) {
    for (out, &s) in out.iter_mut().zip(source) {
        *out = weight * s;
    }
}

fn add_pair(out: &mut [f32], before: &[f32], after: &[f32], weight: f32) {
    for ((out, &b), &a) in out.iter_mut().zip(before).zip(after) {
        *out += weight * (b + a);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The 2-D sum over the product kernel, in f64.
    fn reference(plane: &[f32], width: usize, height: usize, sigma: f64) -> Vec<f64> {
        let radius = (3.0 * sigma).ceil() as i64;
        let weight = |d: i64| (-0.5 * (d as f64 / sigma).powi(2)).exp();
        let clamp = |v: i64, size: usize| v.clamp(0, size as i64 - 1) as usize;
        let mut out = Vec::new();
        for y in 0..height as i64 {
            for x in 0..width as i64 {
                let (mut sum, mut norm) = (0.0, 0.0);
                for dy in -radius..=radius {
                    for dx in -radius..=radius {
                        let w = weight(dx) * weight(dy);
                        let at = clamp(y + dy, height) * width + clamp(x + dx, width);
                        sum += w * f64::from(plane[at]);
                        norm += w;
                    }
                }
                out.push(sum / norm);
            }
        }
        out
    }

    proptest! {
        #[test]
        fn matches_the_two_dimensional_sum(
            width in 1usize..12,
            height in 1usize..12,
            sigma in 0.05f32..3.0,
            values in prop::collection::vec(0.0f32..1.0, 288),
        ) {
            let len = width * height;
            let mut planes = values[..2 * len].to_vec();
            let expected: Vec<f64> = planes
                .chunks_exact(len)
                .flat_map(|plane| reference(plane, width, height, f64::from(sigma)))
                .collect();
            gaussian(&mut planes, width, height, sigma, &mut vec![9.0; 3]);
            for (a, e) in planes.iter().zip(expected) {
                prop_assert!((f64::from(*a) - e).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn an_impulse_spreads_with_the_variance_of_the_kernel() {
        let mut plane = vec![0.0f32; 41 * 41];
        plane[20 * 41 + 20] = 1.0;
        gaussian(&mut plane, 41, 41, 2.0, &mut Vec::new());
        let moment: f32 = plane
            .iter()
            .enumerate()
            .map(|(i, v)| v * ((i % 41) as f32 - 20.0).powi(2))
            .sum();
        assert!((plane.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        // truncation at 3 sigma takes 3 % of the variance
        assert!((3.8..4.0).contains(&moment), "{moment}");
    }
}
