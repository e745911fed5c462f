//! Heads and embeddings from a seed, to hold one machine's integers against another's.
//!
//! Clusters around random centres with a common offset, as learned embeddings have; the head is the nearest-mean discriminant over class means,
//! or the class directions for cosines. Only IEEE additions, multiplications and divisions are used, in a fixed order, so that every host makes
//! the same image. Frames run from the middle of a class over the border between two to something that was never taught.

use crate::error::BuildError;
use crate::quantise::fit_scale;
use crate::verdict::Verdict;
use crate::write::{HeadSpec, RowSpec, image_length};
use core::fmt;

/// Values of an embedding.
pub const DIM: usize = 96;
/// Classes.
pub const N_CLASSES: usize = 5;
/// Taught samples.
pub const N_SAMPLES: usize = 40;
/// Bytes of an image.
pub const IMAGE_LENGTH: usize =
    72 + 16 * N_CLASSES + 24 * N_SAMPLES + DIM * (2 + N_CLASSES + N_SAMPLES) + 4;
/// Hash that stands for the encoder.
pub const ENCODER: [u8; 32] = [0x5e; 32];

/// A family of heads and frames.
#[derive(Clone, Copy, Debug)]
pub struct Vectors {
    seed: u64,
    cosine: bool,
}

/// Sebastiano Vigna's SplitMix64.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// 0..1
    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Nearly normal: the sum of twelve uniform numbers.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}

impl Vectors {
    /// The family of a seed, with a linear or a cosine head.
    pub fn new(seed: u64, cosine: bool) -> Self {
        Self { seed, cosine }
    }

    fn stream(&self, purpose: u64, index: u64) -> SplitMix {
        SplitMix(SplitMix(self.seed ^ purpose << 56 ^ index << 8).next())
    }

    /// The centre of a class; of something that was never taught for `class >= N_CLASSES`.
    fn centre(&self, class: usize) -> [f64; DIM] {
        let (mut offset, mut own) = (self.stream(1, 0), self.stream(2, class as u64));
        core::array::from_fn(|_| 2.0 * offset.normal() + 0.7 * own.normal())
    }

    /// Taught sample `index`, of class `index % N_CLASSES`.
    pub fn sample(&self, index: usize) -> [f32; DIM] {
        let mut rng = self.stream(3, index as u64);
        self.centre(index % N_CLASSES)
            .map(|c| (c + 0.4 * rng.normal()) as f32)
    }

    /// Frame `index`: every eighth is of a class that was never taught, the others lie between two classes.
    pub fn frame(&self, index: usize) -> [f32; DIM] {
        let mut rng = self.stream(4, index as u64);
        let (near, far) = (
            rng.next() as usize % N_CLASSES,
            rng.next() as usize % N_CLASSES,
        );
        let near = if index % 8 == 7 {
            N_CLASSES + index
        } else {
            near
        };
        let share = 0.55 * rng.uniform();
        let (near, far) = (self.centre(near), self.centre(far));
        core::array::from_fn(|d| {
            ((1.0 - share) * near[d] + share * far[d] + 0.4 * rng.normal()) as f32
        })
    }

    /// Writes the head's image to `out`; its length.
    ///
    /// # Errors
    ///
    /// A buffer shorter than [`IMAGE_LENGTH`].
    pub fn write(&self, out: &mut [u8]) -> Result<usize, BuildError> {
        let samples: [[f32; DIM]; N_SAMPLES] = core::array::from_fn(|i| self.sample(i));
        let mut means = [[0.0; DIM]; N_CLASSES];
        for (i, sample) in samples.iter().enumerate() {
            for (mean, x) in means[i % N_CLASSES].iter_mut().zip(sample) {
                *mean += f64::from(*x) / (N_SAMPLES / N_CLASSES) as f64;
            }
        }
        let square = |mean: &[f64; DIM]| mean.iter().map(|m| m * m).sum::<f64>();
        let bias = means.each_ref().map(|mean| {
            if self.cosine {
                0.0
            } else {
                -0.5 * square(mean)
            }
        });
        if self.cosine {
            // All means have nearly the same length: its square root by Newton's method.
            for mean in &mut means {
                let square = square(mean);
                let norm = (0..40).fold(square, |norm, _| 0.5 * (norm + square / norm));
                mean.iter_mut().for_each(|m| *m /= norm);
            }
        }
        let mut centre = [0.0; DIM];
        let step = fit_scale(samples.iter().map(<[f32; DIM]>::as_slice), &mut centre)?;
        let rows: [RowSpec; N_SAMPLES] = core::array::from_fn(|i| RowSpec {
            sample: 1000 + i as u64,
            class: (i % N_CLASSES) as u16,
            embedding: &samples[i],
        });
        debug_assert_eq!(IMAGE_LENGTH, image_length(DIM, N_CLASSES, N_SAMPLES));
        let spec = HeadSpec {
            job: if self.cosine { 2 } else { 1 },
            encoder: ENCODER,
            class_ids: &core::array::from_fn::<u32, N_CLASSES, _>(|c| 100 + c as u32),
            weights: means.as_flattened(),
            bias: &bias,
            cosine: self.cosine,
            temperature: if self.cosine { 0.01 } else { 6.0 },
            centre: &centre,
            step,
            rows: &rows,
            cosine_limit: Some(0.94),
        };
        spec.write(out)
    }
}

/// A verdict on frame `index` as a line of integers: index, class, score, unknown, row, similarity.
#[derive(Clone, Copy, Debug)]
pub struct Line(pub usize, pub Verdict);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self(index, verdict) = self;
        write!(
            f,
            "{index} {} {} {}",
            verdict.class,
            verdict.score,
            u8::from(verdict.unknown)
        )?;
        verdict.nearest.map_or(Ok(()), |nearest| {
            write!(f, " {} {}", nearest.row, nearest.similarity)
        })
    }
}
