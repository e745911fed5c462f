//! The bare metal: brushed, rolled, cast or turned.

use rand_chacha::ChaCha8Rng;

use super::Maps;
use super::noise::Noise;
use crate::stream::{below, uniform};

pub(crate) fn texture(size: usize, rng: &mut ChaCha8Rng) -> Maps {
    let mut maps = Maps {
        size,
        height: vec![0.0; size * size],
        albedo: vec![1.0; size * size],
    };
    let kind = below(rng, 4);
    let angle = uniform(rng, 0.0, std::f64::consts::PI) as f32;
    let strength = uniform(rng, 0.4, 1.0) as f32;
    match kind {
        0 => brushed(&mut maps, lines(angle), strength, rng),
        1 => rolled(&mut maps, lines(angle), strength, rng),
        2 => cast(&mut maps, strength, rng),
        _ => {
            let coordinates = arcs(size, angle, rng);
            brushed(&mut maps, coordinates, strength, rng);
        }
    }
    let cloud = Noise::new(rng);
    let depth = uniform(rng, 0.02, 0.08) as f32;
    let wave = 70.0 * maps.unit();
    maps.fill(|x, y, _, albedo| *albedo += depth * cloud.fractal(x / wave, y / wave, 2));
    maps
}

impl Maps {
    fn fill(&mut self, mut f: impl FnMut(f32, f32, &mut f32, &mut f32)) {
        let size = self.size;
        let cells = self.height.iter_mut().zip(&mut self.albedo);
        for (i, (height, albedo)) in cells.enumerate() {
            f((i % size) as f32, (i / size) as f32, height, albedo);
        }
    }
}

/// (Along, across) the direction of work, in pixels.
fn lines(angle: f32) -> impl Fn(f32, f32) -> (f32, f32) + use<> {
    let (sin, cos) = angle.sin_cos();
    move |x, y| (x * cos + y * sin, y * cos - x * sin)
}

/// As [`lines`] on a lathe whose centre lies outside the image.
fn arcs(size: usize, angle: f32, rng: &mut ChaCha8Rng) -> impl Fn(f32, f32) -> (f32, f32) + use<> {
    let half = size as f32 / 2.0;
    let radius = size as f32 * uniform(rng, 0.9, 2.5) as f32;
    let (sin, cos) = angle.sin_cos();
    let centre = [half + radius * cos, half + radius * sin];
    move |x, y| {
        let (dx, dy) = (x - centre[0], y - centre[1]);
        // measured from the side that faces the image, so that the seam of atan2 stays outside
        let turn = (dx * sin - dy * cos).atan2(-dx * cos - dy * sin);
        (turn * radius, dx.hypot(dy))
    }
}

fn brushed(
    maps: &mut Maps,
    coordinates: impl Fn(f32, f32) -> (f32, f32),
    strength: f32,
    rng: &mut ChaCha8Rng,
) {
    let (fine, coarse) = (Noise::new(rng), Noise::new(rng));
    let length = maps.unit() * uniform(rng, 25.0, 80.0) as f32;
    let pitch = maps.unit().max(0.5) * uniform(rng, 1.6, 3.2) as f32;
    maps.fill(|x, y, height, albedo| {
        let (along, across) = coordinates(x, y);
        let groove = fine.fractal(along / length, across / pitch, 2);
        let band = coarse.at(along / (3.0 * length), across / (6.0 * pitch));
        *height += strength * 0.5 * groove;
        *albedo += strength * (0.11 * groove + 0.07 * band);
    });
}

fn rolled(
    maps: &mut Maps,
    coordinates: impl Fn(f32, f32) -> (f32, f32),
    strength: f32,
    rng: &mut ChaCha8Rng,
) {
    let (bands, grain) = (Noise::new(rng), Noise::new(rng));
    let unit = maps.unit();
    let pitch = unit * uniform(rng, 8.0, 24.0) as f32;
    let grit = unit.max(0.5) * uniform(rng, 2.0, 4.0) as f32;
    maps.fill(|x, y, height, albedo| {
        let (along, across) = coordinates(x, y);
        let band = bands.fractal(along / (8.0 * pitch), across / pitch, 2);
        let speck = grain.fractal(along / (2.5 * grit), across / grit, 2);
        *height += strength * (0.45 * speck + 0.6 * band);
        *albedo += strength * (0.1 * band + 0.06 * speck);
    });
}

fn cast(maps: &mut Maps, strength: f32, rng: &mut ChaCha8Rng) {
    let (bumps, grain) = (Noise::new(rng), Noise::new(rng));
    let unit = maps.unit();
    let pitch = unit * uniform(rng, 5.0, 14.0) as f32;
    let grit = unit.max(0.5) * 2.2;
    maps.fill(|x, y, height, albedo| {
        let bump = bumps.fractal(x / pitch, y / pitch, 3);
        *height += strength * (pitch * 0.13 * bump + 0.3 * grain.at(x / grit, y / grit));
        *albedo += strength * 0.06 * bump;
    });
}
