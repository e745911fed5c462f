//! From a heat for each token to a heat for each pixel of the frame.

use super::grid::TokenMap;
use crate::error::AdaptError;

/// The rectangle of a frame that the tokens cover, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeatRegion {
    /// Left column.
    pub x: usize,
    /// Top row.
    pub y: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

/// The heat at each pixel, `[height, width]`: bilinear between the centres of tokens, constant beyond the outermost ones, then blurred by a
/// Gaussian of `sigma` pixels (0 for none; cut at 4 `sigma`, mirrored at the border of the region). The scale is that of `map`: nothing is
/// stretched to the frame at hand. Pixels outside `region`, or of tokens that are left out, are 0.
///
/// # Errors
///
/// An empty map, a region outside the frame, or a `sigma` that is not from 0 to 1000.
pub fn frame_heat(
    map: &TokenMap,
    [height, width]: [usize; 2],
    region: HeatRegion,
    sigma: f64,
) -> Result<Vec<f32>, AdaptError> {
    check(map, [height, width], region)?;
    if !(0.0..=1000.0).contains(&sigma) {
        return Err(AdaptError::BadOption {
            name: "sigma",
            value: sigma.to_string(),
            range: "from 0 to 1000 pixels",
        });
    }
    let mut inside = bilinear(map, region);
    if sigma > 0.0 {
        inside = blur(&inside, [region.height, region.width], sigma);
    }
    if let Some(keep) = &map.keep {
        for (i, value) in inside.iter_mut().enumerate() {
            let (y, x) = (i / region.width, i % region.width);
            let token = y * map.rows / region.height * map.cols + x * map.cols / region.width;
            if !keep[token] {
                *value = 0.0;
            }
        }
    }
    let mut out = vec![0.0; height * width];
    for (y, line) in inside.chunks_exact(region.width).enumerate() {
        out[(region.y + y) * width + region.x..][..region.width].copy_from_slice(line);
    }
    Ok(out)
}

fn check(
    map: &TokenMap,
    [height, width]: [usize; 2],
    region: HeatRegion,
) -> Result<(), AdaptError> {
    if map.rows == 0 || map.cols == 0 || map.values.len() != map.rows * map.cols {
        return Err(AdaptError::GridShape {
            what: "token map",
            expected: format!("{} x {}, at least one value", map.rows, map.cols),
            got: format!("{} values", map.values.len()),
            remedy: "pass the heat of a verdict",
        });
    }
    let inside = |start: usize, len: usize, size: usize| {
        len > 0 && start.checked_add(len).is_some_and(|end| end <= size)
    };
    if inside(region.x, region.width, width) && inside(region.y, region.height, height) {
        return Ok(());
    }
    Err(AdaptError::GridShape {
        what: "region of the heat map",
        expected: format!("a part of {height} x {width} pixels"),
        got: format!(
            "{} x {} pixels at row {}, column {}",
            region.height, region.width, region.y, region.x
        ),
        remedy: "pass the region of interest of the frame that the tokens are of",
    })
}

/// Weights of the two tokens that each pixel lies between: index of the first, of the second, and the second's weight.
fn between(tokens: usize, pixels: usize) -> Vec<(usize, usize, f32)> {
    let place = |pixel: usize| {
        let at = (pixel as f64 + 0.5) * tokens as f64 / pixels as f64 - 0.5;
        let at = at.clamp(0.0, (tokens - 1) as f64);
        let low = at as usize;
        (low, (low + 1).min(tokens - 1), (at - low as f64) as f32)
    };
    (0..pixels).map(place).collect()
}

fn bilinear(map: &TokenMap, region: HeatRegion) -> Vec<f32> {
    let across = between(map.cols, region.width);
    let stretch = |row: usize| -> Vec<f32> {
        let row = &map.values[row * map.cols..][..map.cols];
        let value = |&(a, b, part): &(usize, usize, f32)| row[a] * (1.0 - part) + row[b] * part;
        across.iter().map(value).collect()
    };
    let rows: Vec<Vec<f32>> = (0..map.rows).map(stretch).collect();
    let mut out = Vec::with_capacity(region.width * region.height);
    for (a, b, part) in between(map.rows, region.height) {
        let pairs = rows[a].iter().zip(&rows[b]);
        out.extend(pairs.map(|(a, b)| a * (1.0 - part) + b * part));
    }
    out
}

/// Separable; borders mirrored with the outermost pixel repeated (`reflect` of SciPy).
fn blur(plane: &[f32], [height, width]: [usize; 2], sigma: f64) -> Vec<f32> {
    let radius = (4.0 * sigma + 0.5) as usize;
    let weight = |i: usize| (-0.5 * ((i as f64 - radius as f64) / sigma).powi(2)).exp();
    let sum: f64 = (0..=2 * radius).map(weight).sum();
    let kernel: Vec<f32> = (0..=2 * radius).map(|i| (weight(i) / sum) as f32).collect();
    let mut rows = Vec::with_capacity(plane.len());
    let mut padded = vec![0.0; width + 2 * radius];
    for line in plane.chunks_exact(width) {
        for (i, value) in padded.iter_mut().enumerate() {
            *value = line[mirror(i as isize - radius as isize, width)];
        }
        let mut out = vec![0.0f32; width];
        for (k, weight) in kernel.iter().enumerate() {
            for (o, v) in out.iter_mut().zip(&padded[k..]) {
                *o += weight * v;
            }
        }
        rows.extend(out);
    }
    let mut out = vec![0.0f32; plane.len()];
    for (y, line) in out.chunks_exact_mut(width).enumerate() {
        for (k, weight) in kernel.iter().enumerate() {
            let source = mirror(y as isize + k as isize - radius as isize, height);
            for (o, v) in line.iter_mut().zip(&rows[source * width..][..width]) {
                *o += weight * v;
            }
        }
    }
    out
}

fn mirror(at: isize, size: usize) -> usize {
    let period = 2 * size as isize;
    let at = at.rem_euclid(period);
    at.min(period - 1 - at) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(rows: usize, cols: usize, values: &[f32]) -> TokenMap {
        TokenMap {
            rows,
            cols,
            values: values.to_vec(),
            keep: None,
        }
    }

    fn region(x: usize, y: usize, width: usize, height: usize) -> HeatRegion {
        HeatRegion {
            x,
            y,
            width,
            height,
        }
    }

    #[test]
    fn heat_is_bilinear_between_token_centres_and_0_outside_the_region() {
        let heat = frame_heat(&map(1, 2, &[0.0, 4.0]), [3, 6], region(1, 1, 4, 1), 0.0).unwrap();
        // Centres at 1 and 3 of 4 pixels: pixel centres 0.5, 1.5, 2.5, 3.5.
        assert_eq!(heat[6..12], [0.0, 0.0, 1.0, 3.0, 4.0, 0.0]);
        assert!(heat[..6].iter().chain(&heat[12..]).all(|v| *v == 0.0));
        let one = frame_heat(&map(1, 1, &[2.5]), [4, 5], region(0, 0, 5, 4), 0.0).unwrap();
        assert_eq!(one, [2.5; 20]);
    }

    #[test]
    fn tokens_left_out_have_no_heat() {
        let mut masked = map(1, 2, &[7.0, 0.0]);
        masked.keep = Some(vec![true, false]);
        let heat = frame_heat(&masked, [1, 4], region(0, 0, 4, 1), 1.0).unwrap();
        assert!(heat[0] > 0.0 && heat[1] > 0.0);
        assert_eq!(heat[2..], [0.0, 0.0]);
    }

    /// Against the two-dimensional sum over the mirrored plane.
    #[test]
    fn the_blur_is_a_gaussian() {
        let (height, width, sigma) = (5usize, 7usize, 1.3f64);
        let plane: Vec<f32> = (0..35).map(|i| ((i * 37) % 11) as f32).collect();
        let got = blur(&plane, [height, width], sigma);
        let radius = 5isize;
        for y in 0..height as isize {
            for x in 0..width as isize {
                let (mut sum, mut weights) = (0.0, 0.0);
                for dy in -radius..=radius {
                    for dx in -radius..=radius {
                        let w = (-((dx * dx + dy * dy) as f64) / (2.0 * sigma * sigma)).exp();
                        let fold = |mut i: isize, n: isize| {
                            while i < 0 || i >= n {
                                i = if i < 0 { -1 - i } else { 2 * n - 1 - i };
                            }
                            i
                        };
                        let (yy, xx) =
                            (fold(y + dy, height as isize), fold(x + dx, width as isize));
                        sum += w * f64::from(plane[(yy * width as isize + xx) as usize]);
                        weights += w;
                    }
                }
                let value = f64::from(got[(y * width as isize + x) as usize]);
                assert!((value - sum / weights).abs() < 1e-4, "{y} {x}");
            }
        }
    }

    #[test]
    fn a_region_outside_the_frame_is_refused() {
        let map = map(1, 1, &[1.0]);
        for bad in [
            region(0, 0, 6, 1),
            region(5, 0, 1, 1),
            region(0, 0, 0, 1),
            region(usize::MAX, 0, 2, 1),
        ] {
            assert!(frame_heat(&map, [4, 5], bad, 0.0).is_err());
        }
        assert!(frame_heat(&map, [4, 5], region(0, 0, 5, 4), f64::NAN).is_err());
    }
}
