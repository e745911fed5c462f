//! One random view of one image: the draws first, then the pixels.

use rand_chacha::ChaCha8Rng;

use crate::augment::blur::gaussian;
use crate::augment::colour::{self, ColourOp};
use crate::augment::config::AugmentConfig;
use crate::augment::geometry::{Orientation, random_crop};
use crate::frame::Roi;
use crate::picture::Image;
use crate::resample::{Resized, Scratch, Window};
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
            let resized = scratch.resize(&image.frame(), Window::Whole(self.crop), w, h);
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
