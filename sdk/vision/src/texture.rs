//! Hand-made features: the floor that a learned encoder has to beat.

use crate::frame::Frame;
use crate::picture::{Image, Pixels};
use crate::resample::{Resized, Scratch};

/// Cells along each side in HOG.
const CELLS: usize = 4;
/// Orientations in 0..180 degrees in HOG.
const BINS: usize = 9;
/// Patterns of eight neighbours with at most two changes around the circle, and one bin for all others.
const PATTERNS: usize = 59;

/// Euclidean length of the HOG part. The gradients of photos of one class differ far more than their patterns do, so they get
/// the smaller say in every distance.
const HOG_LENGTH: f64 = 0.15;

/// Values returned by [`hog_lbp`]: 4 x 4 x 9 for HOG, 59 for LBP.
pub const HOG_LBP_LEN: usize = CELLS * CELLS * BINS + PATTERNS;

/// Longest side of the picture that [`texture`] looks at.
pub const TEXTURE_SIDE: u32 = 256;

/// Histograms of oriented gradients (Dalal and Triggs 2005; 4 x 4 cells over the image, 9 unsigned orientations, linear votes)
/// as a vector of length 0.15, followed by the histogram of uniform local binary patterns (Ojala et al. 2002; 8
/// neighbours at radius 1), scaled to sum 1, as square roots: a vector of length 1. A part without any gradient or pattern is 0.
pub fn hog_lbp(image: &Image) -> Vec<f32> {
    describe(
        &luma(image),
        image.width() as usize,
        image.height() as usize,
    )
}

fn describe(plane: &[f32], width: usize, height: usize) -> Vec<f32> {
    let mut features = hog(plane, width, height);
    features.extend(lbp(plane, width, height));
    features
}

/// [`hog_lbp`] of a frame's region, its longer side reduced to [`TEXTURE_SIDE`] pixels where it is longer: a descriptor whose cost is bounded.
pub fn texture(frame: &Frame) -> Vec<f32> {
    let image = frame.to_image();
    let longest = image.width().max(image.height());
    if longest <= TEXTURE_SIDE {
        return hog_lbp(&image);
    }
    let side = |of: u32| {
        let scaled = u64::from(of) * u64::from(TEXTURE_SIDE) / u64::from(longest);
        scaled.max(1) as u32
    };
    let (width, height) = (side(image.width()), side(image.height()));
    let plane = resized_gray(&image, width, height);
    describe(&plane, width as usize, height as usize)
}

/// The image squashed to `side` x `side` grey samples in 0..=1.
///
/// # Panics
/// If `side` is 0.
pub fn raw_pixels(image: &Image, side: u32) -> Vec<f32> {
    assert!(side > 0, "at least one pixel a side");
    resized_gray(image, side, side)
}

fn resized_gray(image: &Image, width: u32, height: u32) -> Vec<f32> {
    Scratch::with(|scratch| {
        let resized = scratch.resize(image, image.frame().region(), width, height);
        match resized {
            Resized::U8(v) => gray(v, image.channels(), 255.0),
            Resized::U16(v) => gray(v, image.channels(), 65535.0),
        }
    })
}

pub(crate) fn luma(image: &Image) -> Vec<f32> {
    match image.pixels() {
        Pixels::Gray8(v) | Pixels::Rgb8(v) => gray(v, image.channels(), 255.0),
        Pixels::Gray16(v) | Pixels::Rgb16(v) => gray(v, image.channels(), 65535.0),
    }
}

pub(crate) fn gray<T: Copy + Into<f32>>(samples: &[T], channels: usize, max: f32) -> Vec<f32> {
    let weights = [0.299, 0.587, 0.114];
    let luma = |pixel: &[T]| {
        if let [v] = pixel {
            return (*v).into() / max;
        }
        let pairs = pixel.iter().zip(weights);
        pairs.map(|(&v, w)| w * v.into()).sum::<f32>() / max
    };
    samples.chunks_exact(channels).map(luma).collect()
}

fn hog(plane: &[f32], width: usize, height: usize) -> Vec<f32> {
    let mut histogram = vec![0.0f64; CELLS * CELLS * BINS];
    for y in 0..height {
        for x in 0..width {
            let at = |x: usize, y: usize| plane[y * width + x];
            let dx = at((x + 1).min(width - 1), y) - at(x.saturating_sub(1), y);
            let dy = at(x, (y + 1).min(height - 1)) - at(x, y.saturating_sub(1));
            let magnitude = dx.hypot(dy);
            if magnitude == 0.0 {
                continue;
            }
            // bin b is centred on b * 20 degrees and wraps
            let turn = (dy.atan2(dx) / std::f32::consts::PI).rem_euclid(1.0) * BINS as f32;
            let (low, part) = (turn.floor(), turn - turn.floor());
            let cell = (y * CELLS / height * CELLS + x * CELLS / width) * BINS;
            histogram[cell + low as usize % BINS] += f64::from(magnitude * (1.0 - part));
            histogram[cell + (low as usize + 1) % BINS] += f64::from(magnitude * part);
        }
    }
    let length = histogram.iter().map(|h| h * h).sum::<f64>().sqrt();
    let scale = if length > 0.0 {
        HOG_LENGTH / length
    } else {
        0.0
    };
    histogram.iter().map(|h| (h * scale) as f32).collect()
}

fn lbp(plane: &[f32], width: usize, height: usize) -> Vec<f32> {
    const AROUND: [(usize, usize); 8] = [
        (0, 0),
        (1, 0),
        (2, 0),
        (2, 1),
        (2, 2),
        (1, 2),
        (0, 2),
        (0, 1),
    ];
    let bins = uniform_bins();
    let mut histogram = vec![0.0f64; PATTERNS];
    for y in 1..height.saturating_sub(1) {
        for x in 1..width.saturating_sub(1) {
            let centre = plane[y * width + x];
            let pattern = AROUND
                .iter()
                .enumerate()
                .fold(0u8, |code, (bit, (dx, dy))| {
                    let neighbour = plane[(y + dy - 1) * width + x + dx - 1];
                    code | (u8::from(neighbour >= centre) << bit)
                });
            histogram[usize::from(bins[usize::from(pattern)])] += 1.0;
        }
    }
    let sum: f64 = histogram.iter().sum();
    let scale = if sum > 0.0 { 1.0 / sum } else { 0.0 };
    histogram
        .iter()
        .map(|h| (h * scale).sqrt() as f32)
        .collect()
}

/// The bin of each pattern: uniform ones are numbered in order, all others share the last bin.
fn uniform_bins() -> [u8; 256] {
    let mut next = 0;
    std::array::from_fn(|pattern| {
        let pattern = pattern as u8;
        if (pattern ^ pattern.rotate_left(1)).count_ones() > 2 {
            return PATTERNS as u8 - 1;
        }
        next += 1;
        next - 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(width: u32, height: u32, f: impl Fn(u32, u32) -> u8) -> Image {
        let samples = (0..width * height)
            .map(|i| f(i % width, i / width))
            .collect();
        Image::new(width, height, Pixels::Gray8(samples)).unwrap()
    }

    fn split(image: &Image) -> (Vec<f32>, Vec<f32>) {
        let features = hog_lbp(image);
        assert_eq!(features.len(), HOG_LBP_LEN);
        let (hog, lbp) = features.split_at(CELLS * CELLS * BINS);
        (hog.to_vec(), lbp.to_vec())
    }

    #[test]
    fn there_are_58_uniform_patterns() {
        let bins = uniform_bins();
        assert_eq!(bins.iter().filter(|&&b| b < 58).count(), 58);
        assert_eq!((bins[0], bins[255]), (0, 57));
        assert_eq!(bins[0b0101_0000], 58);
        // three neighbours in a row, over the seam and not
        assert!(bins[0b1000_0011] < 58 && bins[0b0001_1100] < 58);
    }

    #[test]
    fn patterns_of_hand_made_pictures() {
        let flat = split(&image(8, 8, |_, _| 90));
        assert!(flat.0.iter().all(|&v| v == 0.0));
        // equal neighbours count as brighter: pattern 255
        assert_eq!(flat.1[57], 1.0);
        // one bright pixel has pattern 0; its neighbours see only brighter or equal ones
        let dot = split(&image(5, 5, |x, y| if (x, y) == (2, 2) { 200 } else { 10 }));
        assert!((dot.1[0].powi(2) - 1.0 / 9.0).abs() < 1e-6);
        assert!((dot.1[57].powi(2) - 8.0 / 9.0).abs() < 1e-6);
        // a ramp to the right: top, right and bottom neighbours are not darker, bits 1 to 5
        let ramp = split(&image(9, 9, |x, _| 20 * x as u8));
        assert_eq!(ramp.1[usize::from(uniform_bins()[0b0011_1110])], 1.0);
    }

    #[test]
    fn gradients_vote_for_their_orientation_and_cell() {
        // vertical stripes in the left half only: gradients at 0 degrees
        let (hog, _) = split(&image(64, 64, |x, _| {
            if x < 28 { 40 * (x / 4 % 2) as u8 } else { 0 }
        }));
        for (i, &v) in hog.iter().enumerate() {
            let (column, bin) = (i / BINS % CELLS, i % BINS);
            assert_eq!(v > 0.0, column < 2 && bin == 0, "{i}: {v}");
        }
        let length: f32 = hog.iter().map(|v| v * v).sum::<f32>().sqrt();
        assert!((length - 0.15).abs() < 1e-6);
        // 45 degrees lies between bins 2 (40) and 3 (60): three quarters to one, away from the border
        let (hog, _) = split(&image(64, 64, |x, y| (x + y) as u8));
        let inner = &hog[(CELLS + 1) * BINS..][..BINS];
        assert!((inner[2] / inner[3] - 3.0).abs() < 1e-3, "{inner:?}");
        assert_eq!(inner[0], 0.0);
    }

    #[test]
    fn brightness_and_contrast_leave_the_features_alone() {
        let texture = |x: u32, y: u32| (x * x * 7 + y * 13 + x * y) as u8 % 100;
        let a = hog_lbp(&image(40, 30, texture));
        let b = hog_lbp(&image(40, 30, |x, y| 2 * texture(x, y) + 30));
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() < 1e-5);
        }
    }

    #[test]
    fn raw_pixels_are_the_squashed_luma() {
        let gray = image(64, 32, |_, _| 51);
        assert!(raw_pixels(&gray, 32).iter().all(|v| (v - 0.2).abs() < 1e-6));
        assert_eq!(raw_pixels(&gray, 32).len(), 1024);
        let red = Image::new(2, 2, Pixels::Rgb16([65535, 0, 0].repeat(4))).unwrap();
        assert!((raw_pixels(&red, 1)[0] - 0.299).abs() < 1e-6);
    }

    #[test]
    fn one_pixel_has_features() {
        let features = hog_lbp(&image(1, 1, |_, _| 7));
        assert!(features.iter().all(|v| *v == 0.0));
        assert_eq!(features.len(), HOG_LBP_LEN);
    }
}
