//! Light and camera: shading of the slopes, uneven illumination, dust, focus, exposure, noise.

use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::Maps;
use crate::augment::gaussian;
use crate::stream::{below, uniform};

/// Lamp and lens of a station.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Light {
    azimuth: f32,
    elevation: f32,
    exposure: f32,
    gamma: f32,
    noise: f32,
    focus: f32,
    glow: Glow,
}

/// Brightness over the field: a slope, the reflection of a lamp as a broad ridge, darker corners.
#[derive(Clone, Debug, PartialEq)]
struct Glow {
    azimuth: f32,
    slope: f32,
    ridge: f32,
    place: f32,
    width: f32,
    vignette: f32,
}

impl Light {
    pub(super) fn draw(rng: &mut ChaCha8Rng) -> Light {
        let mut draw = |low: f64, high: f64| uniform(rng, low, high) as f32;
        Light {
            azimuth: draw(0.0, std::f64::consts::TAU),
            elevation: draw(0.6, 1.2),
            exposure: draw(0.28, 0.62),
            gamma: draw(0.8, 1.25),
            noise: draw(0.004, 0.016),
            focus: draw(0.35, 0.8),
            glow: Glow {
                azimuth: draw(0.0, std::f64::consts::TAU),
                slope: draw(0.0, 0.3),
                ridge: draw(0.0, 0.3),
                place: draw(-0.6, 0.6),
                width: draw(0.25, 0.8),
                vignette: draw(0.0, 0.25),
            },
        }
    }

    /// The lamp as one part sees it: it tilts, it reflects more or less, the lamp ages.
    fn on_part(&self, rng: &mut ChaCha8Rng) -> Light {
        let mut draw = |low: f64, high: f64| uniform(rng, low, high) as f32;
        Light {
            azimuth: self.azimuth + draw(-0.25, 0.25),
            elevation: self.elevation + draw(-0.08, 0.08),
            exposure: self.exposure * draw(0.85, 1.15),
            noise: self.noise * draw(0.8, 1.25),
            focus: self.focus * draw(0.85, 1.2),
            gamma: self.gamma,
            glow: Glow {
                azimuth: self.glow.azimuth + draw(-0.3, 0.3),
                slope: self.glow.slope + draw(-0.08, 0.08),
                ridge: self.glow.ridge * draw(0.5, 1.5),
                place: self.glow.place + draw(-0.2, 0.2),
                ..self.glow
            },
        }
    }

    /// Grey levels `[size, size]` of the photo.
    pub(super) fn photograph(&self, maps: Maps, rng: &mut ChaCha8Rng) -> Vec<u8> {
        let light = self.on_part(rng);
        let size = maps.size;
        let focus = light.focus * maps.unit().max(0.6);
        let tangent = 0.45 / light.elevation.tan();
        let slant = [tangent * light.azimuth.cos(), tangent * light.azimuth.sin()];
        let mut photo = shade(&maps, slant);
        for (i, v) in photo.iter_mut().enumerate() {
            let (x, y) = ((i % size) as f32, (i / size) as f32);
            *v *= light.glow.at(x, y, size as f32);
        }
        dust(&mut photo, size, rng);
        gaussian(&mut photo, size, size, focus, &mut Vec::new());
        photo
            .into_iter()
            .map(|v| {
                let level = (light.exposure * v.max(0.0)).powf(light.gamma);
                let grain: f32 = StandardNormal.sample(rng);
                // shot noise grows with the root of the light
                let noisy = level + light.noise * (0.4 + level.sqrt()) * grain;
                (noisy.clamp(0.0, 1.0) * 255.0).round() as u8
            })
            .collect()
    }
}

/// Albedo times the light on each slope, Lambert's law for a distant lamp.
fn shade(maps: &Maps, light: [f32; 2]) -> Vec<f32> {
    let size = maps.size;
    let height = |x: usize, y: usize| maps.height[y * size + x];
    let last = size - 1;
    (0..size * size)
        .map(|i| {
            let (x, y) = (i % size, i / size);
            let gx = (height((x + 1).min(last), y) - height(x.saturating_sub(1), y)) / 2.0;
            let gy = (height(x, (y + 1).min(last)) - height(x, y.saturating_sub(1))) / 2.0;
            let lambert = (1.0 - gx * light[0] - gy * light[1]) / (1.0 + gx * gx + gy * gy).sqrt();
            maps.albedo[i].max(0.03) * lambert.clamp(0.1, 2.2)
        })
        .collect()
}

impl Glow {
    fn at(&self, x: f32, y: f32, size: f32) -> f32 {
        let (u, v) = (2.0 * x / size - 1.0, 2.0 * y / size - 1.0);
        let along = u * self.azimuth.cos() + v * self.azimuth.sin();
        let ridge = (-((along - self.place) / self.width).powi(2)).exp();
        1.0 + self.slope * along + self.ridge * ridge - self.vignette * (u * u + v * v) / 2.0
    }
}

/// A few specks of one or two pixels, on clean and defective surfaces alike.
fn dust(photo: &mut [f32], size: usize, rng: &mut ChaCha8Rng) {
    for _ in 0..below(rng, 7) {
        let at = |rng: &mut ChaCha8Rng| below(rng, size as u32) as usize;
        let (x, y) = (at(rng), at(rng));
        let factor = uniform(rng, 0.55, 1.4) as f32;
        photo[y * size + x] *= factor;
        if x + 1 < size && below(rng, 2) == 0 {
            photo[y * size + x + 1] *= factor;
        }
    }
}
