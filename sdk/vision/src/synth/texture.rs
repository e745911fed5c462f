//! The bare metal: brushed, rolled, cast or turned.

use rand_chacha::ChaCha8Rng;

use super::Maps;
use super::noise::Noise;
use crate::stream::{below, uniform};

/// How the metal was worked.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Work {
    Brushed,
    Rolled,
    Cast,
    Turned,
}

/// The bare metal of a station's parts; lengths in pixels of a 128-pixel image until scaled by the unit.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Texture {
    work: Work,
    angle: f32,
    strength: f32,
    /// Length of a feature along the direction of work; across it for rolled metal and bumps.
    length: f32,
    pitch: f32,
    /// Distance of the lathe's centre, in image sides.
    radius: f32,
    /// Depth of slow changes of brightness.
    cloud: f32,
}

impl Texture {
    pub(super) fn draw(rng: &mut ChaCha8Rng) -> Texture {
        let work = [Work::Brushed, Work::Rolled, Work::Cast, Work::Turned][below(rng, 4) as usize];
        let mut draw = |low: f64, high: f64| uniform(rng, low, high) as f32;
        let (angle, strength) = (draw(0.0, std::f64::consts::PI), draw(0.4, 1.0));
        let (length, pitch) = match work {
            Work::Brushed | Work::Turned => (draw(25.0, 80.0), draw(1.6, 3.2)),
            Work::Rolled => (draw(8.0, 24.0), draw(2.0, 4.0)),
            Work::Cast => (draw(5.0, 14.0), 2.2),
        };
        Texture {
            work,
            angle,
            strength,
            length,
            pitch,
            radius: draw(0.9, 2.5),
            cloud: draw(0.02, 0.08),
        }
    }

    /// One part's maps: its own grain, laid down a little askew, finished a little finer or coarser.
    pub(super) fn maps(&self, size: usize, rng: &mut ChaCha8Rng) -> Maps {
        let mut maps = Maps {
            size,
            height: vec![0.0; size * size],
            albedo: vec![1.0; size * size],
        };
        let mut draw = |low: f64, high: f64| uniform(rng, low, high) as f32;
        let angle = self.angle + draw(-0.12, 0.12);
        let part = Texture {
            strength: self.strength * draw(0.75, 1.25),
            length: self.length * draw(0.9, 1.1),
            radius: self.radius * draw(0.95, 1.05),
            ..self.clone()
        };
        match self.work {
            Work::Brushed => part.brushed(&mut maps, lines(angle), rng),
            Work::Rolled => part.rolled(&mut maps, lines(angle), rng),
            Work::Cast => part.cast(&mut maps, rng),
            Work::Turned => part.brushed(&mut maps, arcs(size, part.radius, angle), rng),
        }
        let cloud = Noise::new(rng);
        let wave = 70.0 * maps.unit();
        maps.fill(|x, y, _, albedo| *albedo += self.cloud * cloud.fractal(x / wave, y / wave, 2));
        maps
    }

    fn brushed(
        &self,
        maps: &mut Maps,
        coordinates: impl Fn(f32, f32) -> (f32, f32),
        rng: &mut ChaCha8Rng,
    ) {
        let (fine, coarse) = (Noise::new(rng), Noise::new(rng));
        let length = maps.unit() * self.length;
        let pitch = maps.unit().max(0.5) * self.pitch;
        maps.fill(|x, y, height, albedo| {
            let (along, across) = coordinates(x, y);
            let groove = fine.fractal(along / length, across / pitch, 2);
            let band = coarse.at(along / (3.0 * length), across / (6.0 * pitch));
            *height += self.strength * 0.5 * groove;
            *albedo += self.strength * (0.11 * groove + 0.07 * band);
        });
    }

    fn rolled(
        &self,
        maps: &mut Maps,
        coordinates: impl Fn(f32, f32) -> (f32, f32),
        rng: &mut ChaCha8Rng,
    ) {
        let (bands, grain) = (Noise::new(rng), Noise::new(rng));
        let pitch = maps.unit() * self.length;
        let grit = maps.unit().max(0.5) * self.pitch;
        maps.fill(|x, y, height, albedo| {
            let (along, across) = coordinates(x, y);
            let band = bands.fractal(along / (8.0 * pitch), across / pitch, 2);
            let speck = grain.fractal(along / (2.5 * grit), across / grit, 2);
            *height += self.strength * (0.45 * speck + 0.6 * band);
            *albedo += self.strength * (0.1 * band + 0.06 * speck);
        });
    }

    fn cast(&self, maps: &mut Maps, rng: &mut ChaCha8Rng) {
        let (bumps, grain) = (Noise::new(rng), Noise::new(rng));
        let pitch = maps.unit() * self.length;
        let grit = maps.unit().max(0.5) * self.pitch;
        maps.fill(|x, y, height, albedo| {
            let bump = bumps.fractal(x / pitch, y / pitch, 3);
            let speck = grain.at(x / grit, y / grit);
            *height += self.strength * (pitch * 0.13 * bump + 0.3 * speck);
            *albedo += self.strength * 0.06 * bump;
        });
    }
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
fn lines(angle: f32) -> impl Fn(f32, f32) -> (f32, f32) {
    let (sin, cos) = angle.sin_cos();
    move |x, y| (x * cos + y * sin, y * cos - x * sin)
}

/// As [`lines`] on a lathe whose centre lies `radius` image sides from the middle.
fn arcs(size: usize, radius: f32, angle: f32) -> impl Fn(f32, f32) -> (f32, f32) {
    let half = size as f32 / 2.0;
    let radius = size as f32 * radius;
    let (sin, cos) = angle.sin_cos();
    let centre = [half + radius * cos, half + radius * sin];
    move |x, y| {
        let (dx, dy) = (x - centre[0], y - centre[1]);
        // measured from the side that faces the image, so that the seam of atan2 stays outside
        let turn = (dx * sin - dy * cos).atan2(-dx * cos - dy * sin);
        (turn * radius, dx.hypot(dy))
    }
}
