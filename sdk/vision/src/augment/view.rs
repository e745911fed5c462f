//! One random view of one image: the draws first, then the pixels.

use rand_chacha::ChaCha8Rng;

use crate::augment::blur::gaussian;
use crate::augment::colour::{self, ColourOp};
use crate::augment::config::AugmentConfig;
use crate::augment::geometry::{Orientation, random_crop};
use crate::frame::Roi;
use crate::picture::Image;
use crate::resample::{Resized, Scratch};
use crate::stream::{chance, uniform};

/// Everything random about a view. Grey and colour images of one size draw the same plan.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Plan {
    crop: Roi,
    orientation: Orientation,
    jitter: Option<[ColourOp; 4]>,
    grayscale: bool,
    sigma: Option<f32>,
    solarize: bool,
}

impl Plan {
    fn draw(config: &AugmentConfig, width: u32, height: u32, rng: &mut ChaCha8Rng) -> Self {
        let crop = random_crop(config, width, height, rng);
        let orientation = Orientation::random(config, rng);
        let jitter = colour::random_jitter(&config.jitter, rng);
        let grayscale = chance(rng, config.grayscale);
        let [low, high] = config.blur.sigma.map(f64::from);
        let sigma = uniform(rng, low, high) as f32;
        Self {
            crop,
            orientation,
            jitter,
            grayscale,
            sigma: chance(rng, config.blur.p).then_some(sigma),
            solarize: chance(rng, config.solarize),
        }
    }

    /// Fills `out` `[3, height, width]`; grey images are worked on in one plane and spread at the end.
    fn render(
        &self,
        image: &Image,
        out: &mut [f32],
        (width, height): (u32, u32),
        mean: [f32; 3],
        std: [f32; 3],
    ) {
        let len = width as usize * height as usize;
        let mut channels = image.channels();
        Scratch::with(|scratch| {
            let (w, h) = self.orientation.source_size(width, height);
            let strides = self.orientation.strides(width, height);
            let resized = scratch.resize(image, self.crop, w, h);
            let planes = &mut out[..channels * len];
            match resized {
                Resized::U8(v) => deinterleave(planes, v, channels, width, strides, 1.0 / 255.0),
                Resized::U16(v) => deinterleave(planes, v, channels, width, strides, 1.0 / 65535.0),
            }
            for op in self.jitter.iter().flatten() {
                colour::apply(*op, planes, len);
            }
            if self.grayscale && channels == 3 {
                colour::to_luma(planes, len);
                channels = 1;
            }
            let planes = &mut out[..channels * len];
            if let Some(sigma) = self.sigma {
                let (w, h) = (width as usize, height as usize);
                gaussian(planes, w, h, sigma, &mut scratch.floats);
            }
            if self.solarize {
                colour::solarize(planes);
            }
        });
        normalize(out, len, channels, mean, std);
    }
}

fn deinterleave<T: Copy + Into<f32>>(
    planes: &mut [f32],
    source: &[T],
    channels: usize,
    width: u32,
    (base, rows, columns): (isize, isize, isize),
    scale: f32,
) {
    let len = planes.len() / channels;
    for (c, plane) in planes.chunks_exact_mut(len).enumerate() {
        let mut start = base;
        for row in plane.chunks_exact_mut(width as usize) {
            let mut at = start;
            for out in row {
                *out = source[at as usize * channels + c].into() * scale;
                at += columns;
            }
            start += rows;
        }
    }
}

fn normalize(out: &mut [f32], len: usize, channels: usize, mean: [f32; 3], std: [f32; 3]) {
    let affine = |c: usize| (1.0 / std[c], -mean[c] / std[c]);
    if channels == 1 {
        let (gray, rest) = out.split_at_mut(len);
        for (c, plane) in rest.chunks_exact_mut(len).enumerate() {
            let (scale, shift) = affine(c + 1);
            for (out, &v) in plane.iter_mut().zip(&*gray) {
                *out = v * scale + shift;
            }
        }
    }
    for (c, plane) in out.chunks_exact_mut(len).enumerate().take(channels) {
        let (scale, shift) = affine(c);
        for v in plane {
            *v = *v * scale + shift;
        }
    }
}

impl AugmentConfig {
    /// Writes one random view of `image` to `out` as `[3, height, width]`, normalised as `(v - mean) / std`.
    ///
    /// Crop, resize and flip are one pass at the depth of the image (antialiased Catmull-Rom); the photometric part works in
    /// f32 on 0..=1. On grey images saturation, hue and grayscale do nothing. The config must be
    /// [valid](Self::validate).
    ///
    /// # Panics
    /// If `out` does not hold [`len`](Self::len) values.
    pub fn view(
        &self,
        image: &Image,
        rng: &mut ChaCha8Rng,
        out: &mut [f32],
        mean: [f32; 3],
        std: [f32; 3],
    ) {
        assert_eq!(out.len(), self.len(), "a view is 3 x height x width values");
        let plan = Plan::draw(self, image.width(), image.height(), rng);
        plan.render(image, out, (self.width, self.height), mean, std);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::config::{Blur, Jitter};
    use crate::picture::Pixels;
    use crate::preprocess::{Fit, Preprocess};
    use crate::stream::stream;

    const MEAN: [f32; 3] = [0.1, 0.2, 0.3];
    const STD: [f32; 3] = [0.5, 0.25, 2.0];

    fn texture(channels: usize) -> Image {
        // mid-range, so that no overshoot of the resize is clipped
        let samples = |i: u32| 64 + (i.wrapping_mul(2_654_435_761) >> 25) as u8;
        let len = 40 * 30 * channels as u32;
        let pixels: Vec<u8> = (0..len).map(samples).collect();
        match channels {
            1 => Image::new(40, 30, Pixels::Gray8(pixels)).unwrap(),
            _ => Image::new(40, 30, Pixels::Rgb8(pixels)).unwrap(),
        }
    }

    fn whole(height: u32, width: u32) -> AugmentConfig {
        AugmentConfig {
            height,
            width,
            scale: [1.0, 1.0],
            aspect: [4.0 / 3.0, 4.0 / 3.0],
            flip_horizontal: 0.0,
            ..AugmentConfig::mae(1)
        }
    }

    fn view(config: &AugmentConfig, image: &Image, sample: u64) -> Vec<f32> {
        let mut out = vec![f32::NAN; config.len()];
        config.view(image, &mut stream(5, 0, sample, 0), &mut out, MEAN, STD);
        out
    }

    fn close(a: &[f32], b: &[f32], tolerance: f32) {
        assert_eq!(a.len(), b.len());
        let worst = a
            .iter()
            .zip(b)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(worst <= tolerance, "{worst}");
    }

    #[test]
    fn a_view_of_the_whole_image_is_its_preprocessing() {
        // The augmentation rounds to 8 bit twice, the first time amplified by at most the kernel's L1 norm of 1.25.
        let tolerance = 1.2 / 255.0 / STD.into_iter().fold(f32::MAX, f32::min);
        for channels in [1, 3] {
            let image = texture(channels);
            let preprocess = Preprocess {
                height: 16,
                width: 20,
                fit: Fit::Squash,
                mean: MEAN,
                std: STD,
            };
            let mut expected = vec![0.0; preprocess.len()];
            preprocess.apply(&image.frame(), &mut expected).unwrap();
            close(&view(&whole(16, 20), &image, 0), &expected, tolerance);
            let flipped = AugmentConfig {
                flip_horizontal: 1.0,
                ..whole(16, 20)
            };
            let mirrored: Vec<f32> = expected
                .chunks(20)
                .flat_map(|row| row.iter().rev().copied())
                .collect();
            close(&view(&flipped, &image, 0), &mirrored, tolerance);
        }
    }

    #[test]
    fn grey_and_the_same_grey_as_rgb_give_the_same_views() {
        let gray = texture(1);
        let Pixels::Gray8(samples) = gray.pixels() else {
            panic!("grey")
        };
        let spread = samples.iter().flat_map(|&v| [v; 3]).collect();
        let rgb = Image::new(40, 30, Pixels::Rgb8(spread)).unwrap();
        let config = AugmentConfig {
            rot90: true,
            flip_vertical: 0.5,
            solarize: 0.5,
            blur: Blur {
                p: 0.5,
                sigma: [0.1, 2.0],
            },
            ..AugmentConfig::dino_global2(24, [0.2, 1.0])
        };
        // solarising has a step at 0.5, where rounding may differ; leave it to its own test
        let smooth = AugmentConfig {
            solarize: 0.0,
            ..config
        };
        for sample in 0..60 {
            close(
                &view(&smooth, &gray, sample),
                &view(&smooth, &rgb, sample),
                2e-5,
            );
        }
        assert_eq!(config.validate(), Ok(()));
    }

    #[test]
    fn sixteen_bit_views_match_eight_bit_views() {
        let gray = texture(1);
        let Pixels::Gray8(samples) = gray.pixels() else {
            panic!("grey")
        };
        let wide = samples.iter().map(|&v| u16::from(v) * 257).collect();
        let wide = Image::new(40, 30, Pixels::Gray16(wide)).unwrap();
        let config = AugmentConfig::mae(24);
        for sample in 0..20 {
            // the 8-bit resize rounds twice
            close(
                &view(&config, &gray, sample),
                &view(&config, &wide, sample),
                1.3 / 255.0 / 0.25,
            );
        }
    }

    #[test]
    fn each_operation_happens_with_its_probability() {
        let image = texture(3);
        let off = whole(12, 16);
        let plain = view(&off, &image, 0);
        let jitter = Jitter {
            p: 1.0,
            brightness: 0.4,
            contrast: 0.4,
            saturation: 0.2,
            hue: 0.1,
        };
        let never = Jitter { p: 0.0, ..jitter };
        let blur = |p| Blur {
            p,
            sigma: [1.0, 2.0],
        };
        for (on, off) in [
            (
                AugmentConfig { jitter, ..off },
                AugmentConfig {
                    jitter: never,
                    ..off
                },
            ),
            (
                AugmentConfig {
                    blur: blur(1.0),
                    ..off
                },
                AugmentConfig {
                    blur: blur(0.0),
                    ..off
                },
            ),
            (
                AugmentConfig {
                    solarize: 1.0,
                    ..off
                },
                off,
            ),
            (
                AugmentConfig {
                    grayscale: 1.0,
                    ..off
                },
                off,
            ),
        ] {
            assert_ne!(view(&on, &image, 0), plain, "{on:?}");
            assert_eq!(view(&off, &image, 0), plain, "{off:?}");
        }
    }

    #[test]
    fn dropping_colour_leaves_one_luma() {
        let image = texture(3);
        let config = AugmentConfig {
            grayscale: 1.0,
            ..whole(12, 16)
        };
        let out = view(&config, &image, 0);
        let color = view(&whole(12, 16), &image, 0);
        let raw = |v: &[f32], c: usize, i: usize| v[c * 192 + i] * STD[c] + MEAN[c];
        for i in 0..192 {
            let luma =
                0.299 * raw(&color, 0, i) + 0.587 * raw(&color, 1, i) + 0.114 * raw(&color, 2, i);
            for c in 0..3 {
                assert!((raw(&out, c, i) - luma).abs() < 2e-6);
            }
        }
    }

    #[test]
    fn one_pixel_and_strips_have_views() {
        for (width, height) in [(1, 1), (200, 1), (1, 200)] {
            let pixels = Pixels::Gray8(vec![100; (width * height) as usize]);
            let image = Image::new(width, height, pixels).unwrap();
            let out = view(&AugmentConfig::dino_global1(8, [0.4, 1.0]), &image, 1);
            assert!(out.iter().all(|v| v.is_finite()));
        }
    }
}
