//! Random resized crop, flips and quarter turns.

use rand_chacha::ChaCha8Rng;

use crate::augment::config::AugmentConfig;
use crate::frame::Roi;
use crate::stream::{below, chance, uniform};

/// A random crop in whole pixels, as torchvision's `RandomResizedCrop.get_params`: ten tries, then the largest centred crop
/// whose aspect ratio is in range.
pub(crate) fn random_crop(
    config: &AugmentConfig,
    width: u32,
    height: u32,
    rng: &mut ChaCha8Rng,
) -> Roi {
    let area = f64::from(width) * f64::from(height);
    let [log_low, log_high] = config.aspect.map(|a| f64::from(a).ln());
    for _ in 0..10 {
        let target = area * uniform(rng, f64::from(config.scale[0]), f64::from(config.scale[1]));
        let aspect = uniform(rng, log_low, log_high).exp();
        let w = (target * aspect).sqrt().round() as u32;
        let h = (target / aspect).sqrt().round() as u32;
        if (1..=width).contains(&w) && (1..=height).contains(&h) {
            return Roi {
                x: below(rng, width - w + 1),
                y: below(rng, height - h + 1),
                width: w,
                height: h,
            };
        }
    }
    centred_crop(config, width, height)
}

fn centred_crop(config: &AugmentConfig, width: u32, height: u32) -> Roi {
    let ratio = f64::from(width) / f64::from(height);
    let [low, high] = config.aspect.map(f64::from);
    let round = |x: f64, max: u32| (x.round() as u32).clamp(1, max);
    let (w, h) = if ratio < low {
        (width, round(f64::from(width) / low, height))
    } else if ratio > high {
        (round(f64::from(height) * high, width), height)
    } else {
        (width, height)
    };
    Roi {
        x: (width - w) / 2,
        y: (height - h) / 2,
        width: w,
        height: h,
    }
}

/// A flip and quarter turn: pixel (y, x) of the view is read at `base + y * rows + x * columns` of the resized crop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Orientation {
    pub(crate) flip_horizontal: bool,
    pub(crate) flip_vertical: bool,
    /// Counter-clockwise quarter turns, 0..4, after the flips.
    pub(crate) turns: u32,
}

impl Orientation {
    pub(crate) fn random(config: &AugmentConfig, rng: &mut ChaCha8Rng) -> Self {
        Self {
            flip_horizontal: chance(rng, config.flip_horizontal),
            flip_vertical: chance(rng, config.flip_vertical),
            turns: if config.rot90 { below(rng, 4) } else { 0 },
        }
    }

    /// Width and height of the resized crop that becomes a view of `width` x `height`.
    pub(crate) fn source_size(&self, width: u32, height: u32) -> (u32, u32) {
        if self.turns.is_multiple_of(2) {
            (width, height)
        } else {
            (height, width)
        }
    }

    /// `(base, rows, columns)` for a view of `width` x `height`.
    pub(crate) fn strides(&self, width: u32, height: u32) -> (isize, isize, isize) {
        let (w, h) = self.source_size(width, height);
        let (w, h) = (w as isize, h as isize);
        // one step right and one step down in the flipped crop, and its top left corner
        let (mut base, mut down, mut right) = (0, w, 1);
        if self.flip_horizontal {
            (base, right) = (base + w - 1, -right);
        }
        if self.flip_vertical {
            (base, down) = (base + (h - 1) * w, -down);
        }
        let (mut rows, mut columns) = (h, w);
        for _ in 0..self.turns {
            // the top right corner comes to the top left
            (base, down, right) = (base + (columns - 1) * right, -right, down);
            (rows, columns) = (columns, rows);
        }
        (base, down, right)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stream::stream;

    fn read(orientation: Orientation, source: &[i32], width: u32, height: u32) -> Vec<i32> {
        let (base, rows, columns) = orientation.strides(width, height);
        let at = |y, x| source[(base + y as isize * rows + x as isize * columns) as usize];
        (0..height)
            .flat_map(|y| (0..width).map(move |x| at(y, x)))
            .collect()
    }

    #[test]
    fn orientations_on_a_hand_made_picture() {
        // 1 2 3
        // 4 5 6
        let source = [1, 2, 3, 4, 5, 6];
        let of = |flip_horizontal, flip_vertical, turns| Orientation {
            flip_horizontal,
            flip_vertical,
            turns,
        };
        assert_eq!(read(of(false, false, 0), &source, 3, 2), source);
        assert_eq!(read(of(true, false, 0), &source, 3, 2), [3, 2, 1, 6, 5, 4]);
        assert_eq!(read(of(false, true, 0), &source, 3, 2), [4, 5, 6, 1, 2, 3]);
        // numpy.rot90
        assert_eq!(read(of(false, false, 1), &source, 2, 3), [3, 6, 2, 5, 1, 4]);
        assert_eq!(read(of(false, false, 2), &source, 3, 2), [6, 5, 4, 3, 2, 1]);
        assert_eq!(read(of(false, false, 3), &source, 2, 3), [4, 1, 5, 2, 6, 3]);
        assert_eq!(read(of(true, false, 1), &source, 2, 3), [1, 4, 2, 5, 3, 6]);
    }

    #[test]
    fn crops_have_the_area_and_aspect_asked_for() {
        let config = AugmentConfig::dino_global1(32, [0.25, 0.5]);
        let (mut low, mut high, mut aspects) = (1.0f64, 0.0f64, 0.0);
        let n = 4000;
        for sample in 0..n {
            let crop = random_crop(&config, 1000, 800, &mut stream(3, 0, sample, 0));
            let area = f64::from(crop.width * crop.height) / 800_000.0;
            (low, high) = (low.min(area), high.max(area));
            aspects += (f64::from(crop.width) / f64::from(crop.height)).ln();
        }
        assert!((0.2490..0.2600).contains(&low), "{low}");
        assert!((0.4900..0.5010).contains(&high), "{high}");
        // log-uniform in +-ln(4/3) has mean 0; 5 standard errors
        assert!((aspects / n as f64).abs() < 5.0 * 0.1661 / (n as f64).sqrt());
    }

    #[test]
    fn a_strip_falls_back_to_the_centre() {
        let config = AugmentConfig::mae(32);
        let wide = random_crop(&config, 1000, 3, &mut stream(0, 0, 0, 0));
        assert_eq!((wide.x, wide.width, wide.height), (498, 4, 3));
        let tall = random_crop(&config, 3, 1000, &mut stream(0, 0, 0, 0));
        assert_eq!((tall.y, tall.width, tall.height), (498, 3, 4));
        let dot = random_crop(&config, 1, 1, &mut stream(0, 0, 0, 0));
        assert_eq!((dot.x, dot.y, dot.width, dot.height), (0, 0, 1, 1));
    }

    proptest! {
        #[test]
        fn crops_lie_inside(width in 1u32..300, height in 1u32..300, seed: u64) {
            let crop = random_crop(&AugmentConfig::dino_local(8, [0.05, 0.4]), width, height, &mut stream(seed, 0, 0, 0));
            prop_assert!(crop.width >= 1 && crop.x + crop.width <= width);
            prop_assert!(crop.height >= 1 && crop.y + crop.height <= height);
        }

        #[test]
        fn every_orientation_is_a_permutation(width in 1u32..6, height in 1u32..6, bits in 0u32..16) {
            let orientation = Orientation {
                flip_horizontal: bits & 1 > 0,
                flip_vertical: bits & 2 > 0,
                turns: bits >> 2,
            };
            let source: Vec<i32> = (0..(width * height) as i32).collect();
            let mut view = read(orientation, &source, width, height);
            view.sort_unstable();
            prop_assert_eq!(view, source);
        }
    }
}
