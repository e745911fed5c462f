//! Defects as changes of height and albedo. Lengths are in pixels of a 128-pixel image until scaled by the unit.

use std::f32::consts::{PI, TAU};

use rand_chacha::ChaCha8Rng;

use super::Maps;
use super::noise::Noise;
use super::stroke::{Stroke, distances};
use crate::stream::{below, chance, uniform};

fn draw(rng: &mut ChaCha8Rng, low: f32, high: f32) -> f32 {
    uniform(rng, f64::from(low), f64::from(high)) as f32
}

fn sign(rng: &mut ChaCha8Rng, p_positive: f32) -> f32 {
    if chance(rng, p_positive) { 1.0 } else { -1.0 }
}

/// A point of the middle `part` of the image.
fn somewhere(maps: &Maps, part: f32, rng: &mut ChaCha8Rng) -> [f32; 2] {
    let size = maps.size as f32;
    let (low, high) = (size * (1.0 - part) / 2.0, size * (1.0 + part) / 2.0);
    [draw(rng, low, high), draw(rng, low, high)]
}

/// Grooves with raised edges: smooth, long, of even direction, as a burr under a slide leaves them.
pub(crate) fn scratch(maps: &mut Maps, rng: &mut ChaCha8Rng) {
    let unit = maps.unit();
    let angle = draw(rng, 0.0, PI);
    let n = 4 + below(rng, 6);
    let strokes: Vec<Stroke> = (0..n)
        .map(|_| {
            let length = draw(rng, 70.0, 140.0) * unit;
            let width = draw(rng, 1.0, 2.0) * unit.max(0.6);
            let direction = angle + draw(rng, -0.15, 0.15);
            let centre = somewhere(maps, 0.8, rng);
            arc(centre, direction, length, draw(rng, -0.5, 0.5), width)
        })
        .collect();
    let depth = draw(rng, 0.9, 1.8);
    let shine = sign(rng, 0.6) * draw(rng, 0.4, 0.7);
    let patches = Noise::new(rng);
    let field = distances(&strokes, maps.size, 3.5);
    for (i, &d) in field.iter().enumerate().filter(|(_, d)| d.is_finite()) {
        let (x, y) = ((i % maps.size) as f32, (i / maps.size) as f32);
        let wave = 14.0 * unit;
        let pressure = (1.0 + 0.8 * patches.at(x / wave, y / wave)).clamp(0.3, 1.5);
        let groove = (-d * d).exp();
        let edge = (-((d - 1.7) / 0.6).powi(2)).exp();
        maps.height[i] += pressure * depth * (0.45 * edge - groove);
        maps.albedo[i] += pressure * shine * groove;
    }
}

/// An arc through `centre` that turns by `bend` radians over its length and thins towards its ends.
fn arc(centre: [f32; 2], direction: f32, length: f32, bend: f32, width: f32) -> Stroke {
    const STEPS: usize = 24;
    let step = length / STEPS as f32;
    let turn = |i: usize| direction + bend * (i as f32 / STEPS as f32 - 0.5);
    let mut points = vec![[0.0, 0.0]];
    for i in 0..STEPS {
        let [x, y] = points[i];
        points.push([x + step * turn(i).cos(), y + step * turn(i).sin()]);
    }
    let middle = points[STEPS / 2];
    let points: Vec<[f32; 2]> = points
        .into_iter()
        .map(|[x, y]| [x - middle[0] + centre[0], y - middle[1] + centre[1]])
        .collect();
    let widths = (0..=STEPS)
        .map(|i| width * (0.45 + 0.55 * (PI * i as f32 / STEPS as f32).sin()))
        .collect();
    Stroke { points, widths }
}

/// Craters: a bowl that shades on one side and shines on the other, dark at the bottom.
pub(crate) fn pit(maps: &mut Maps, rng: &mut ChaCha8Rng) {
    let n = 12 + below(rng, 16);
    let centre = somewhere(maps, 0.2, rng);
    let spread = draw(rng, 45.0, 60.0) * maps.unit();
    // few pits are large, many are small
    let largest = 22.0 / (n as f32).powf(0.4);
    for _ in 0..n {
        let at = centre.map(|c| c + draw(rng, -spread, spread));
        let radius = draw(rng, 0.55, 1.0) * largest * maps.unit();
        let at = at.map(|c| c.clamp(radius, maps.size as f32 - radius));
        crater(maps, at, radius, rng);
    }
}

fn crater(maps: &mut Maps, [cx, cy]: [f32; 2], radius: f32, rng: &mut ChaCha8Rng) {
    let size = maps.size;
    let depth = radius * draw(rng, 0.35, 0.6);
    let dark = draw(rng, 0.35, 0.6);
    let (stretch, tilt) = (draw(rng, 1.0, 1.35), draw(rng, 0.0, PI));
    let (sin, cos) = tilt.sin_cos();
    let outline = Noise::new(rng);
    let reach = 1.8 * radius;
    let rows =
        |c: f32| (c - reach).max(0.0) as usize..((c + reach).ceil().max(0.0) as usize).min(size);
    for y in rows(cy) {
        for x in rows(cx) {
            let (dx, dy) = (x as f32 - cx, y as f32 - cy);
            let (u, v) = (dx * cos + dy * sin, (dy * cos - dx * sin) * stretch);
            let ragged = 1.0 + 0.35 * outline.at(1.5 * u / radius, 1.5 * v / radius);
            let r = u.hypot(v) / (radius * ragged);
            let i = y * size + x;
            let bowl = if r < 1.0 {
                (1.0 - r * r) * (1.0 - 0.3 * r)
            } else {
                0.0
            };
            let rim = (-((r - 1.1) / 0.22).powi(2)).exp();
            maps.height[i] += 0.18 * depth * rim - depth * bowl;
            maps.albedo[i] -= dark * smooth_step(1.1, 0.6, r);
        }
    }
}

/// Flat patches: only the albedo changes, often with a rim where the liquid dried.
pub(crate) fn stain(maps: &mut Maps, rng: &mut ChaCha8Rng) {
    let change = sign(rng, 0.25) * draw(rng, 0.25, 0.5);
    let mut cover = vec![0.0; maps.albedo.len()];
    for _ in 0..2 + below(rng, 3) {
        patch(maps, &mut cover, rng);
    }
    for (albedo, cover) in maps.albedo.iter_mut().zip(cover) {
        *albedo += change * cover;
    }
}

/// Raises `cover` to one patch's thickness where that is more; patches that overlap have run together.
fn patch(maps: &Maps, cover: &mut [f32], rng: &mut ChaCha8Rng) {
    let size = maps.size;
    let unit = maps.unit();
    let [cx, cy] = somewhere(maps, 0.75, rng);
    let radius = draw(rng, 18.0, 34.0) * unit;
    let (stretch, tilt) = (draw(rng, 1.0, 2.0), draw(rng, 0.0, PI));
    let (sin, cos) = tilt.sin_cos();
    let rim = if chance(rng, 0.5) {
        draw(rng, 0.3, 0.9)
    } else {
        0.0
    };
    let softness = draw(rng, 0.04, 0.25);
    let (outline, cloud) = (Noise::new(rng), Noise::new(rng));
    let wave = radius * draw(rng, 0.5, 0.9);
    for (i, cover) in cover.iter_mut().enumerate() {
        let (x, y) = ((i % size) as f32, (i / size) as f32);
        let (dx, dy) = (x - cx, y - cy);
        let r = (dx * cos + dy * sin).hypot((dy * cos - dx * sin) * stretch) / radius;
        let edge = 1.0 + 0.6 * outline.fractal(x / wave, y / wave, 3) - r;
        let inside = smooth_step(-softness, softness, edge);
        let dried = rim * (-(edge / 0.07).powi(2)).exp();
        let mottle = 1.0 + 0.5 * cloud.fractal(x / (0.4 * wave), y / (0.4 * wave), 2);
        *cover = cover.max(inside * mottle + dried);
    }
}

/// Jagged lines: short straight pieces with sharp turns, branches, dark all the way.
pub(crate) fn crack(maps: &mut Maps, rng: &mut ChaCha8Rng) {
    let mut strokes = Vec::new();
    for _ in 0..2 + below(rng, 2) {
        branching(&mut strokes, maps, rng);
    }
    let (depth, dark) = (draw(rng, 0.4, 1.0), draw(rng, 0.45, 0.75));
    let field = distances(&strokes, maps.size, 2.5);
    for (i, &d) in field.iter().enumerate().filter(|(_, d)| d.is_finite()) {
        let gap = (-d * d * 0.8).exp();
        maps.height[i] -= depth * gap;
        maps.albedo[i] -= dark * gap;
    }
}

fn branching(strokes: &mut Vec<Stroke>, maps: &Maps, rng: &mut ChaCha8Rng) {
    let unit = maps.unit();
    let length = draw(rng, 90.0, 150.0) * unit;
    let width = draw(rng, 0.9, 1.6) * unit.max(0.6);
    let direction = draw(rng, 0.0, TAU);
    let [cx, cy] = somewhere(maps, 0.6, rng);
    let half = length * 0.5;
    let start = [cx - half * direction.cos(), cy - half * direction.sin()];
    let trunk = jagged(start, direction, length, width, unit, rng);
    for _ in 0..4 + below(rng, 5) {
        let joint = below(rng, trunk.points.len() as u32 - 2) as usize + 1;
        let aside = direction + sign(rng, 0.5) * draw(rng, 0.5, 1.2);
        let reach = length * draw(rng, 0.15, 0.4);
        strokes.push(jagged(
            trunk.points[joint],
            aside,
            reach,
            0.75 * width,
            unit,
            rng,
        ));
    }
    strokes.push(trunk);
}

/// A walk that keeps its direction on the whole and thins towards its end.
fn jagged(
    start: [f32; 2],
    direction: f32,
    length: f32,
    width: f32,
    unit: f32,
    rng: &mut ChaCha8Rng,
) -> Stroke {
    let mut stroke = Stroke {
        points: vec![start],
        widths: vec![width],
    };
    let (mut at, mut walked) = (start, 0.0);
    while walked < length {
        let step = draw(rng, 2.5, 8.0) * unit;
        let heading = direction + sign(rng, 0.5) * draw(rng, 0.2, 1.1);
        at = [at[0] + step * heading.cos(), at[1] + step * heading.sin()];
        walked += step;
        let left = (1.0 - walked / length).max(0.0);
        stroke.points.push(at);
        stroke
            .widths
            .push(width * (0.35 + 0.65 * left) * draw(rng, 0.7, 1.3));
    }
    if stroke.points.len() < 3 {
        let [x, y] = at;
        stroke
            .points
            .push([x + unit * direction.cos(), y + unit * direction.sin()]);
        stroke.widths.push(0.35 * width);
    }
    stroke
}

/// 0 at `from` and before, 1 at `to` and after, whichever is larger.
fn smooth_step(from: f32, to: f32, x: f32) -> f32 {
    let t = ((x - from) / (to - from)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}
