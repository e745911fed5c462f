//! Gradient noise (Perlin 2002) over a lattice of directions drawn from ChaCha8.

use rand_chacha::ChaCha8Rng;

use crate::stream::{below, uniform};

const PERIOD: usize = 256;

/// A smooth random function of the plane with zero mean, about +-0.7, and one wave a unit. Repeats every 256 units.
pub(crate) struct Noise {
    permutation: [u8; PERIOD],
    gradients: [[f32; 2]; PERIOD],
    offset: [f32; 2],
}

impl Noise {
    pub(crate) fn new(rng: &mut ChaCha8Rng) -> Self {
        let mut permutation: [u8; PERIOD] = std::array::from_fn(|i| i as u8);
        for last in (1..PERIOD).rev() {
            permutation.swap(last, below(rng, last as u32 + 1) as usize);
        }
        let gradients = std::array::from_fn(|_| {
            let angle = uniform(rng, 0.0, std::f64::consts::TAU);
            [angle.cos() as f32, angle.sin() as f32]
        });
        let offset = std::array::from_fn(|_| uniform(rng, 0.0, PERIOD as f64) as f32);
        Self {
            permutation,
            gradients,
            offset,
        }
    }

    pub(crate) fn at(&self, u: f32, v: f32) -> f32 {
        let (u, v) = (u + self.offset[0], v + self.offset[1]);
        let (u0, v0) = (u.floor(), v.floor());
        let (fu, fv) = (u - u0, v - v0);
        let corner = |du: i32, dv: i32| {
            let row = self.permutation[(v0 as i32 + dv) as usize % PERIOD];
            let column = (u0 as i32 + du) as usize % PERIOD;
            let cell = self.permutation[(column + usize::from(row)) % PERIOD];
            let [gu, gv] = self.gradients[usize::from(cell)];
            gu * (fu - du as f32) + gv * (fv - dv as f32)
        };
        let fade = |t: f32| t * t * t * (t * (t * 6.0 - 15.0) + 10.0);
        let mix = |a: f32, b: f32, t: f32| a + (b - a) * t;
        let near = mix(corner(0, 0), corner(1, 0), fade(fu));
        let far = mix(corner(0, 1), corner(1, 1), fade(fu));
        mix(near, far, fade(fv))
    }

    /// Octaves of halving wavelength and amplitude, scaled to the range of one.
    pub(crate) fn fractal(&self, u: f32, v: f32, octaves: u32) -> f32 {
        let (mut sum, mut norm, mut gain, mut frequency) = (0.0, 0.0, 1.0f32, 1.0f32);
        for _ in 0..octaves {
            sum += gain * self.at(u * frequency, v * frequency);
            norm += gain * gain;
            gain *= 0.5;
            frequency *= 2.0;
        }
        sum / norm.sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::stream;

    #[test]
    fn noise_is_centred_bounded_smooth_and_zero_on_the_lattice() {
        let mut noise = Noise::new(&mut stream(1, 0, 0, 0));
        noise.offset = [0.0; 2];
        assert_eq!(noise.at(3.0, 7.0), 0.0);
        let points = (0..100_000).map(|i| ((i % 997) as f32 * 0.137, (i / 997) as f32 * 0.211));
        let mut sum = 0.0f64;
        for (u, v) in points {
            let value = noise.at(u, v);
            assert!(value.abs() < 1.0);
            // the gradient of Perlin noise stays below 4
            assert!((noise.at(u + 1e-2, v) - value).abs() < 4e-2);
            sum += f64::from(value);
        }
        assert!((sum / 1e5).abs() < 0.02, "{sum}");
    }

    #[test]
    fn negative_coordinates_continue_the_function() {
        let noise = Noise::new(&mut stream(2, 0, 0, 0));
        for step in -1000..1000 {
            let u = step as f32 * 0.01;
            assert!((noise.at(u + 0.01, u) - noise.at(u, u)).abs() < 0.04, "{u}");
        }
    }
}
