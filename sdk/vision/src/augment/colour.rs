//! Photometric operations on planes of samples in 0..=1: the float path of torchvision, each result clamped to 0..=1.

use rand_chacha::ChaCha8Rng;

use crate::augment::config::Jitter;
use crate::stream::{below, chance, uniform};

/// Weights of red, green and blue in luma, ITU-R BT.601.
pub(crate) const LUMA: [f32; 3] = [0.299, 0.587, 0.114];

/// One operation of a jitter with the factor drawn for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ColourOp {
    /// `v * factor`.
    Brightness(f32),
    /// `factor * v + (1 - factor) * mean luma`.
    Contrast(f32),
    /// `factor * v + (1 - factor) * luma`.
    Saturation(f32),
    /// Hue turned by this part of a turn, in HSV.
    Hue(f32),
}

/// Draws the four operations in random order, or `None`. The number of draws does not depend on the strengths.
pub(crate) fn random_jitter(jitter: &Jitter, rng: &mut ChaCha8Rng) -> Option<[ColourOp; 4]> {
    let mut factor = |strength: f32| {
        let strength = f64::from(strength);
        uniform(rng, (1.0 - strength).max(0.0), 1.0 + strength) as f32
    };
    let mut ops = [
        ColourOp::Brightness(factor(jitter.brightness)),
        ColourOp::Contrast(factor(jitter.contrast)),
        ColourOp::Saturation(factor(jitter.saturation)),
        ColourOp::Hue((uniform(rng, -1.0, 1.0) * f64::from(jitter.hue)) as f32),
    ];
    for last in (1..ops.len()).rev() {
        ops.swap(last, below(rng, last as u32 + 1) as usize);
    }
    chance(rng, jitter.p).then_some(ops)
}

/// Applies `op` to `planes`, one (grey) or three (RGB) planes of `len` samples one after another.
pub(crate) fn apply(op: ColourOp, planes: &mut [f32], len: usize) {
    let gray = planes.len() == len;
    match op {
        ColourOp::Brightness(factor) => map(planes, |v| (v * factor).clamp(0.0, 1.0)),
        ColourOp::Contrast(factor) => {
            let mean = if gray {
                mean(planes)
            } else {
                mean_luma(planes, len)
            };
            let shift = (1.0 - factor) * mean;
            map(planes, |v| (v * factor + shift).clamp(0.0, 1.0));
        }
        ColourOp::Saturation(_) | ColourOp::Hue(_) if gray => {}
        ColourOp::Saturation(1.0) | ColourOp::Hue(0.0) => {}
        ColourOp::Saturation(factor) => saturate(planes, len, factor),
        ColourOp::Hue(turn) => turn_hue(planes, len, turn),
    }
}

/// Writes the luma of three planes over the first.
pub(crate) fn to_luma(planes: &mut [f32], len: usize) {
    let (red, green, blue) = split(planes, len);
    for ((r, &mut g), &mut b) in red.iter_mut().zip(green).zip(blue) {
        *r = luma(*r, g, b);
    }
}

/// Inverts samples from 0.5 up; on 8-bit samples this is the threshold 128 of Pillow.
pub(crate) fn solarize(planes: &mut [f32]) {
    map(planes, |v| if v >= 0.5 { 1.0 - v } else { v });
}

fn map(planes: &mut [f32], f: impl Fn(f32) -> f32) {
    for v in planes {
        *v = f(*v);
    }
}

fn split(planes: &mut [f32], len: usize) -> (&mut [f32], &mut [f32], &mut [f32]) {
    let (red, rest) = planes.split_at_mut(len);
    let (green, blue) = rest.split_at_mut(len);
    (red, green, blue)
}

fn luma(r: f32, g: f32, b: f32) -> f32 {
    LUMA[0] * r + LUMA[1] * g + LUMA[2] * b
}

fn mean(plane: &[f32]) -> f32 {
    const LANES: usize = 8;
    let mut total = 0.0f64;
    // blocks short enough for f32 partial sums keep the vector units busy
    for block in plane.chunks(64 * LANES) {
        let mut sums = [0.0f32; LANES];
        let chunks = block.chunks_exact(LANES);
        for (sum, v) in sums.iter_mut().zip(chunks.remainder()) {
            *sum += v;
        }
        for chunk in chunks {
            for (sum, v) in sums.iter_mut().zip(chunk) {
                *sum += v;
            }
        }
        total += f64::from(sums.iter().sum::<f32>());
    }
    (total / plane.len() as f64) as f32
}

fn mean_luma(planes: &[f32], len: usize) -> f32 {
    let mut means = planes.chunks_exact(len).map(mean);
    let mut next = || means.next().expect("three planes");
    luma(next(), next(), next())
}

fn saturate(planes: &mut [f32], len: usize, factor: f32) {
    let (red, green, blue) = split(planes, len);
    for ((r, g), b) in red.iter_mut().zip(green).zip(blue) {
        let shift = (1.0 - factor) * luma(*r, *g, *b);
        *r = (*r * factor + shift).clamp(0.0, 1.0);
        *g = (*g * factor + shift).clamp(0.0, 1.0);
        *b = (*b * factor + shift).clamp(0.0, 1.0);
    }
}

/// Hue in sextants, turned, and back: channel n is `max - chroma * clamp(min(k, 4 - k), 0, 1)` with `k = (n + hue) mod 6`
/// and n = 5, 3, 1 for red, green, blue.
fn turn_hue(planes: &mut [f32], len: usize, turn: f32) {
    let shift = 6.0 * turn;
    let (red, green, blue) = split(planes, len);
    for ((r, g), b) in red.iter_mut().zip(green).zip(blue) {
        let max = r.max(*g).max(*b);
        let chroma = max - r.min(*g).min(*b);
        let scale = if chroma > 0.0 { 1.0 / chroma } else { 0.0 };
        let from_red = (*g - *b) * scale;
        let from_green = 2.0 + (*b - *r) * scale;
        let from_blue = 4.0 + (*r - *g) * scale;
        let not_red = if max == *g { from_green } else { from_blue };
        let hue = shift + if max == *r { from_red } else { not_red };
        let channel = |n: f32| {
            let k = n + hue;
            let k = if k < 0.0 { k + 6.0 } else { k };
            let k = if k >= 6.0 { k - 6.0 } else { k };
            let k = if k >= 6.0 { k - 6.0 } else { k };
            max - chroma * k.min(4.0 - k).clamp(0.0, 1.0)
        };
        (*r, *g, *b) = (channel(5.0), channel(3.0), channel(1.0));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stream::stream;

    fn close(actual: &[f32], expected: &[f32]) {
        assert_eq!(actual.len(), expected.len());
        for (a, e) in actual.iter().zip(expected) {
            assert!((a - e).abs() < 2e-6, "{actual:?} != {expected:?}");
        }
    }

    #[test]
    fn closed_forms() {
        let mut gray = [0.0, 0.2, 0.6, 1.0];
        apply(ColourOp::Brightness(1.25), &mut gray, 4);
        close(&gray, &[0.0, 0.25, 0.75, 1.0]);
        // mean 0.5
        apply(ColourOp::Contrast(0.5), &mut gray, 4);
        close(&gray, &[0.25, 0.375, 0.625, 0.75]);
        solarize(&mut gray);
        close(&gray, &[0.25, 0.375, 0.375, 0.25]);
        // two pixels: red, white; luma 0.299 and 1
        let mut rgb = [1.0, 1.0, 0.0, 1.0, 0.0, 1.0];
        apply(ColourOp::Saturation(0.5), &mut rgb, 2);
        close(&rgb, &[0.6495, 1.0, 0.1495, 1.0, 0.1495, 1.0]);
        let mut rgb = [1.0, 1.0, 0.0, 1.0, 0.0, 1.0];
        apply(ColourOp::Contrast(0.0), &mut rgb, 2);
        close(&rgb, &[0.6495; 6]);
        to_luma(&mut rgb, 2);
        close(&rgb[..2], &[0.6495; 2]);
    }

    #[test]
    fn solarize_has_the_threshold_of_pillow() {
        let mut samples: Vec<f32> = (0..=255).map(|v| v as f32 / 255.0).collect();
        solarize(&mut samples);
        for (v, s) in samples.iter().enumerate() {
            let expected = if v < 128 { v } else { 255 - v };
            assert!((s * 255.0 - expected as f32).abs() < 1e-4);
        }
    }

    #[test]
    fn thirds_of_a_turn_permute_the_primaries() {
        // red, yellow, grey
        let start = [1.0, 0.9, 0.5, 0.0, 0.9, 0.5, 0.0, 0.1, 0.5];
        let mut rgb = start;
        apply(ColourOp::Hue(1.0 / 3.0), &mut rgb, 3);
        close(&rgb, &[0.0, 0.1, 0.5, 1.0, 0.9, 0.5, 0.0, 0.9, 0.5]);
        apply(ColourOp::Hue(-1.0 / 3.0), &mut rgb, 3);
        close(&rgb, &start);
    }

    #[test]
    fn jitter_orders_are_all_drawn_and_factors_stay_in_range() {
        let jitter = Jitter {
            p: 0.8,
            brightness: 0.4,
            contrast: 1.5,
            saturation: 0.2,
            hue: 0.1,
        };
        let (mut orders, mut applied) = (std::collections::BTreeSet::new(), 0);
        for sample in 0..2000 {
            let Some(ops) = random_jitter(&jitter, &mut stream(1, 0, sample, 0)) else {
                continue;
            };
            applied += 1;
            orders.insert(ops.map(|op| match op {
                ColourOp::Brightness(f) => ((0.6..1.4).contains(&f), 'b'),
                ColourOp::Contrast(f) => ((0.0..2.5).contains(&f), 'c'),
                ColourOp::Saturation(f) => ((0.8..1.2).contains(&f), 's'),
                ColourOp::Hue(f) => ((-0.1..0.1).contains(&f), 'h'),
            }));
        }
        assert_eq!(orders.len(), 24);
        assert!(orders.iter().flatten().all(|(inside, _)| *inside));
        // 5 standard deviations of a binomial: sqrt(2000 * 0.16) = 17.9
        assert!((1510..1690).contains(&applied), "{applied}");
    }

    /// HSV by the textbook (Smith 1978), in f64.
    fn hue_reference([r, g, b]: [f64; 3], turn: f64) -> [f64; 3] {
        let (max, min) = (r.max(g).max(b), r.min(g).min(b));
        let c = max - min;
        if c == 0.0 {
            return [r, g, b];
        }
        let h = if max == r {
            ((g - b) / c).rem_euclid(6.0)
        } else if max == g {
            (b - r) / c + 2.0
        } else {
            (r - g) / c + 4.0
        };
        let h = (h / 6.0 + turn).rem_euclid(1.0) * 6.0;
        let s = c / max;
        let (i, f) = (h.floor(), h - h.floor());
        let (p, q, t) = (
            max * (1.0 - s),
            max * (1.0 - s * f),
            max * (1.0 - s * (1.0 - f)),
        );
        match i as i32 % 6 {
            0 => [max, t, p],
            1 => [q, max, p],
            2 => [p, max, t],
            3 => [p, q, max],
            4 => [t, p, max],
            _ => [max, p, q],
        }
    }

    proptest! {
        #[test]
        fn hue_matches_the_textbook(pixel in prop::array::uniform3(0u8..=255), turn in -0.5f32..0.5) {
            let mut rgb = pixel.map(|v| f32::from(v) / 255.0);
            let expected = hue_reference(rgb.map(f64::from), f64::from(turn));
            apply(ColourOp::Hue(turn), &mut rgb, 1);
            for (a, e) in rgb.iter().zip(expected) {
                prop_assert!((f64::from(*a) - e).abs() < 1e-5, "{:?} {:?}", rgb, expected);
            }
        }

        #[test]
        fn means_match_f64(plane in prop::collection::vec(0.0f32..1.0, 1..3000)) {
            let expected = plane.iter().map(|&v| f64::from(v)).sum::<f64>() / plane.len() as f64;
            prop_assert!((f64::from(mean(&plane)) - expected).abs() < 1e-6);
        }
    }
}
