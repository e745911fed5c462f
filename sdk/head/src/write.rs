//! Writes a fitted head as an image: floating point on the host becomes the device's integers.
//!
//! What all classes share changes neither the best class nor the softmax, so that the classes' mean is taken off the weights first: the 8 bits
//! then hold differences. Each class has its own scale; the temperature is part of it.

use crate::error::BuildError;
use crate::image::{
    CHECKSUM, CLASS, COSINE, CRC, HEADER, MAGIC, MAX_CENTRE_BITS, MAX_LOGIT_BITS, MAX_OFFSET,
    MAX_ROW_BITS, MIN_LOGIT_BITS, ONE_Q30, ROW, UNKNOWN, VERSION,
};
use crate::quantise::{Scale, round};
use crate::{MAX_CLASSES, MAX_DIM};

/// A fitted head `scores = weights · x + bias` with its calibration, as floating point.
#[derive(Clone, Copy, Debug)]
pub struct HeadSpec<'a> {
    /// The number by which a line's controller names the job.
    pub job: u16,
    /// Hash of the encoder.
    pub encoder: [u8; 32],
    /// An id for each class, `[C]`.
    pub class_ids: &'a [u32],
    /// `[C, D]`, row-major.
    pub weights: &'a [f64],
    /// `[C]`.
    pub bias: &'a [f64],
    /// Whether the scores are divided by the embedding's norm (prototypes, whose scores are cosines); `bias` must be 0 then.
    pub cosine: bool,
    /// Probabilities are `softmax(scores / temperature)`.
    pub temperature: f64,
    /// What a quantised 0 stands for, `[D]`; see [`fit_scale`](crate::fit_scale).
    pub centre: &'a [f64],
    /// What a quantised 1 adds.
    pub step: f64,
    /// Taught samples to hold frames against.
    pub rows: &'a [RowSpec<'a>],
    /// A frame whose cosine to every row is below this is unknown; `None` for no such rule.
    pub cosine_limit: Option<f64>,
}

/// A taught sample.
#[derive(Clone, Copy, Debug)]
pub struct RowSpec<'a> {
    /// Its id in the job.
    pub sample: u64,
    /// Index of its class.
    pub class: u16,
    /// `[D]`.
    pub embedding: &'a [f32],
}

/// Bytes of an image.
pub fn image_length(dim: usize, n_classes: usize, n_rows: usize) -> usize {
    HEADER + CLASS * n_classes + ROW * n_rows + dim * (2 + n_classes + n_rows) + CHECKSUM
}

/// A class's numbers before they become integers.
#[derive(Clone, Copy, Default)]
struct ClassScale {
    /// What a weight of 1 stands for.
    unit: f64,
    offset: f64,
}

impl HeadSpec<'_> {
    /// Writes the image to the start of `out` and returns its length.
    ///
    /// # Errors
    ///
    /// Sizes beyond [`MAX_DIM`] or [`MAX_CLASSES`], slices that do not fit together, numbers that are not finite or out of range, a buffer
    /// that is too small (see [`image_length`]).
    pub fn write(&self, out: &mut [u8]) -> Result<usize, BuildError> {
        self.check()?;
        let needed = image_length(self.centre.len(), self.bias.len(), self.rows.len());
        let found = out.len();
        let out = out
            .get_mut(..needed)
            .ok_or(BuildError::Buffer { needed, found })?;
        let scale = self.scale()?;
        let (classes, logit_bits) = self.class_scales(&scale)?;
        let (row_bits, centre_square) = self.row_bits(&scale);
        let (content, checksum) = out.split_at_mut(needed - CHECKSUM);
        let mut writer = Writer { rest: content };
        self.write_header(&mut writer, needed, &scale, logit_bits, row_bits);
        for (id, class) in self.class_ids.iter().zip(&classes) {
            writer.put(id.to_le_bytes());
            writer.put((round(class.unit).clamp(0, i64::from(u32::MAX)) as u32).to_le_bytes());
            writer.put(round(class.offset).to_le_bytes());
        }
        for row in self.rows {
            let (square, offset) = self.row_square(row, &scale, centre_square);
            writer.put(row.sample.to_le_bytes());
            writer.put(offset.to_le_bytes());
            writer.put(row_factor(square, row_bits).to_le_bytes());
            writer.put(row.class.to_le_bytes());
            writer.put([0; 2]);
        }
        for d in 0..self.centre.len() {
            writer.put(self.centre_at(d, &scale).to_le_bytes());
        }
        // The scale of the class before the temperature's exponent was chosen.
        for class in 0..classes.len() {
            let unit = self.weight_unit(class);
            for d in 0..self.centre.len() {
                let weight = if unit > 0.0 {
                    round(self.weight(class, d) / unit)
                } else {
                    0
                };
                writer.put((weight.clamp(-127, 127) as i8).to_le_bytes());
            }
        }
        for row in self.rows {
            for (d, x) in row.embedding.iter().enumerate() {
                writer.put(scale.value(*x, self.centre_at(d, &scale)).0.to_le_bytes());
            }
        }
        checksum.copy_from_slice(&CRC.checksum(content).to_le_bytes());
        Ok(needed)
    }

    fn check(&self) -> Result<(), BuildError> {
        let (dim, n_classes) = (self.centre.len(), self.bias.len());
        for (what, found, least, most) in [
            ("values of an embedding", dim, 1, MAX_DIM),
            ("classes", n_classes, 1, MAX_CLASSES),
            (
                "rows",
                self.rows.len(),
                usize::from(self.cosine_limit.is_some()),
                usize::from(u16::MAX),
            ),
        ] {
            if !(least..=most).contains(&found) {
                return Err(BuildError::Size {
                    what,
                    found,
                    least,
                    most,
                });
            }
        }
        let rows = self
            .rows
            .iter()
            .map(|row| ("a row", dim, row.embedding.len()));
        let slices = [
            ("weights", n_classes * dim, self.weights.len()),
            ("class ids", n_classes, self.class_ids.len()),
        ];
        for (what, needed, found) in slices.into_iter().chain(rows) {
            if needed != found {
                return Err(BuildError::Shape {
                    what,
                    needed,
                    found,
                });
            }
        }
        let values = [
            ("a weight", self.weights.iter().all(|x| x.is_finite())),
            (
                "a bias",
                self.bias
                    .iter()
                    .all(|x| x.is_finite() && (*x == 0.0 || !self.cosine)),
            ),
            (
                "the temperature",
                self.temperature.is_finite() && self.temperature > 0.0,
            ),
            (
                "the step",
                (self.step as f32).is_finite() && self.step as f32 > 0.0,
            ),
            ("the centre", self.centre.iter().all(|x| x.is_finite())),
            (
                "the cosine limit",
                self.cosine_limit.is_none_or(|x| (-1.0..=1.0).contains(&x)),
            ),
            (
                "a row",
                self.rows.iter().all(|row| {
                    usize::from(row.class) < n_classes
                        && row.embedding.iter().all(|x| x.is_finite())
                }),
            ),
        ];
        match values.iter().find(|(_, good)| !good) {
            Some((what, _)) => Err(BuildError::Value { what }),
            None => Ok(()),
        }
    }

    /// The step as the image holds it, and as many fraction bits of the centre as fit.
    fn scale(&self) -> Result<Scale, BuildError> {
        let step = f64::from(self.step as f32);
        let largest = self
            .centre
            .iter()
            .fold(0.0f64, |largest, c| largest.max(c.abs()))
            / step;
        let fits = |bits: &u8| largest * f64::from(1u32 << bits) < f64::from(i16::MAX);
        let bits = (0..=MAX_CENTRE_BITS).rev().find(fits);
        let bits = bits.ok_or(BuildError::Value {
            what: "the centre over the step",
        })?;
        Ok(Scale { step, bits })
    }

    fn centre_at(&self, d: usize, scale: &Scale) -> i16 {
        round(self.centre[d] / scale.step * f64::from(1u32 << scale.bits)) as i16
    }

    /// A weight less the classes' mean.
    fn weight(&self, class: usize, d: usize) -> f64 {
        let dim = self.centre.len();
        let column = self.weights.iter().skip(d).step_by(dim);
        self.weights[class * dim + d] - column.sum::<f64>() / self.bias.len() as f64
    }

    /// What an integer weight of 1 stands for, before step and temperature.
    fn weight_unit(&self, class: usize) -> f64 {
        let largest = |largest: f64, d| largest.max(self.weight(class, d).abs());
        (0..self.centre.len()).fold(0.0, largest) / 127.0
    }

    /// The classes' factors and offsets in units of `2^-bits`, and the bits: as many as leave the logits inside `i64`.
    fn class_scales(
        &self,
        scale: &Scale,
    ) -> Result<(heapless::Vec<ClassScale, MAX_CLASSES>, u8), BuildError> {
        // Cosine heads work on v, the others on x = v · step / 2^s.
        let per_value = f64::from(1u32 << scale.bits);
        let per_frame_unit = if self.cosine {
            1.0
        } else {
            scale.step / per_value
        };
        let unit = per_frame_unit / self.temperature;
        let mean_bias = self.bias.iter().sum::<f64>() / self.bias.len() as f64;
        let mut classes: heapless::Vec<ClassScale, MAX_CLASSES> = (0..self.bias.len())
            .map(|class| {
                let along = |d: usize| self.weight(class, d) * f64::from(self.centre_at(d, scale));
                let along_centre: f64 = (0..self.centre.len()).map(along).sum();
                ClassScale {
                    unit: self.weight_unit(class) * unit * per_value,
                    offset: along_centre * unit + (self.bias[class] - mean_bias) / self.temperature,
                }
            })
            .collect();
        let fits = |class: &ClassScale| {
            class.unit <= f64::from(u32::MAX) && class.offset.abs() <= (MAX_OFFSET / 2) as f64
        };
        let scale_all = |classes: &mut [ClassScale], factor: f64| {
            for class in classes {
                class.unit *= factor;
                class.offset *= factor;
            }
        };
        if !classes
            .iter()
            .all(|class| class.unit.is_finite() && class.offset.is_finite())
        {
            return Err(BuildError::Value {
                what: "a weight over the temperature",
            });
        }
        let mut bits = MAX_LOGIT_BITS;
        scale_all(&mut classes, (1u64 << bits) as f64);
        while !classes.iter().all(fits) {
            scale_all(&mut classes, 0.5);
            // With fewer bits the logits differ by so much that every score is 0 or 1, at a higher temperature just as well.
            bits = (bits - 1).max(MIN_LOGIT_BITS);
        }
        Ok((classes, bits))
    }

    /// `‖v‖²` of a row and `centre · v`.
    fn row_square(&self, row: &RowSpec, scale: &Scale, centre_square: i64) -> (u64, i64) {
        let (mut square, mut along) = (0u64, 0i64);
        for (d, x) in row.embedding.iter().enumerate() {
            let centre = self.centre_at(d, scale);
            let value = i64::from(scale.value(*x, centre).0) << scale.bits;
            let full = i64::from(centre) + value;
            square += (full * full) as u64;
            along += i64::from(centre) * value;
        }
        (square, centre_square + along)
    }

    /// As many bits as leave every row's factor inside `u32`, and `‖centre‖²`.
    fn row_bits(&self, scale: &Scale) -> (u8, i64) {
        let centre = |d: usize| i64::from(self.centre_at(d, scale)).pow(2);
        let centre_square = (0..self.centre.len()).map(centre).sum();
        let squares = self
            .rows
            .iter()
            .map(|row| self.row_square(row, scale, centre_square).0);
        let least = squares.filter(|square| *square > 0).min().unwrap_or(1);
        let fits = |bits: &u8| factor_root(least, *bits) <= u128::from(u32::MAX);
        let bits = (32..=MAX_ROW_BITS).rev().find(fits).unwrap_or(31);
        (bits, centre_square)
    }

    fn write_header(
        &self,
        writer: &mut Writer,
        length: usize,
        scale: &Scale,
        logit_bits: u8,
        row_bits: u8,
    ) {
        let cosine = if self.cosine { COSINE } else { 0 };
        let flags = cosine | self.cosine_limit.map_or(0, |_| UNKNOWN);
        let limit = round(self.cosine_limit.unwrap_or(0.0) * f64::from(ONE_Q30)) as i32;
        writer.put(MAGIC);
        for value in [
            VERSION,
            flags,
            self.centre.len() as u16,
            self.bias.len() as u16,
            self.rows.len() as u16,
            self.job,
        ] {
            writer.put(value.to_le_bytes());
        }
        writer.put((length as u32).to_le_bytes());
        writer.put([logit_bits, scale.bits, row_bits, 0]);
        writer.put(limit.to_le_bytes());
        writer.put(self.encoder);
        writer.put((scale.step as f32).to_le_bytes());
        writer.put([0; 4]);
    }
}

/// `2^bits / √square`, rounded down; 0 for a row of zeros, whose cosine to everything is 0.
fn row_factor(square: u64, bits: u8) -> u32 {
    if square == 0 {
        return 0;
    }
    u32::try_from(factor_root(square, bits)).unwrap_or(u32::MAX)
}

fn factor_root(square: u64, bits: u8) -> u128 {
    ((1u128 << (2 * bits)) / u128::from(square)).isqrt()
}

/// Fills a slice whose length was computed before.
struct Writer<'a> {
    rest: &'a mut [u8],
}

impl Writer<'_> {
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        let (here, rest) = core::mem::take(&mut self.rest).split_at_mut(N);
        here.copy_from_slice(&bytes);
        self.rest = rest;
    }
}
