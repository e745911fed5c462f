//! A job's head for a microcontroller: integers that `ssl-edge-head` runs, and how far they are from this crate's own verdicts.
//!
//! The device holds frames against taught samples ("rows") to tell the unknown. When all samples fit into the memory that is given, the rule is
//! the job's own. When they do not, the rows are chosen to cover the samples: first of each class the one most like the class's other samples,
//! then again and again the sample that lies farthest from all rows so far (Gonzalez 1985). The threshold is then found as the job finds its own,
//! from the distance of each sample to the nearest row that is not itself, so that the promised rate holds for what the device does.

use crate::error::AdaptError;
use crate::fitted::{Fitted, Head, argmax};
use crate::job::Job;
use crate::linalg::dot32;
use crate::support::inverse_norm;
use crate::unknown::UnknownRule;
use ssl_edge_head::{BuildError, HeadImage, HeadSpec, RowSpec, fit_scale, image_length};

/// What [`UnknownRule::is_unknown`] adds to the threshold.
const ROUNDING: f64 = 1e-6;

/// Parity is measured on at most this many samples, spread evenly: each is held against all rows.
const PARITY_SAMPLES: usize = 1000;

/// What the device's embeddings are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DeviceInput {
    /// The sender has `f32` embeddings and quantises them with `HeadImage::quantise`: centred on the job's samples, one step for all values,
    /// with a quarter of headroom.
    Fitted,
    /// The encoder gives `i8` itself: `x = scale · (q - zero_point)`.
    Given {
        /// What a step of 1 stands for.
        scale: f64,
        /// What stands for 0.
        zero_point: i8,
    },
}

/// How to put a job on a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeviceOptions {
    /// The number by which a line's controller names the job.
    pub job_number: u16,
    /// Flash for the image in bytes; `None`: as much as all samples need.
    pub max_bytes: Option<usize>,
    /// What the device's embeddings are.
    pub input: DeviceInput,
}

/// A job's head as a device runs it.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceHead {
    /// The bytes for the device's flash; `ssl_edge_head::HeadImage` reads them.
    pub image: Vec<u8>,
    /// Taught samples that the image holds.
    pub rows: usize,
    /// The unknown rule of the device: the job's own when `rows` is the number of samples.
    pub unknown: UnknownRule,
    /// How far its verdicts are from those of the job.
    pub parity: DeviceParity,
}

/// Integers against `f64` on the job's own samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DeviceParity {
    /// Samples compared.
    pub n: usize,
    /// Those with the same class.
    pub same_class: usize,
    /// Those with the same answer to *unknown*, each held against the rows other than itself.
    pub same_unknown: usize,
    /// Largest difference of the best class's probability.
    pub score_difference: f64,
    /// Largest difference of the distance to the nearest row other than the sample itself.
    pub distance_difference: f64,
    /// Embedding values that the quantisation cut, of all samples compared.
    pub cut_values: usize,
}

/// Samples that become rows, by their index, and the rule that goes with them.
struct Rows {
    kept: Vec<usize>,
    unknown: UnknownRule,
}

impl Job {
    /// The fitted head in integers, for a device without floating point.
    ///
    /// # Errors
    ///
    /// A job that was not fitted since its last change; more values or classes than a device head holds; a `max_bytes` that leaves no room for
    /// a row of each class (the message says how many bytes do); an input scale that is not positive and finite.
    pub fn device_head(&self, options: &DeviceOptions) -> Result<DeviceHead, AdaptError> {
        let fitted = self.fitted.as_ref().ok_or(AdaptError::NotFitted)?;
        let labels = self.labels()?;
        let rows = self.device_rows(fitted, &labels, options.max_bytes)?;
        let image = self.device_image(fitted, &labels, &rows, options)?;
        let parity = self.device_parity(fitted, &rows, &image)?;
        Ok(DeviceHead {
            image,
            rows: rows.kept.len(),
            unknown: rows.unknown,
            parity,
        })
    }

    fn labels(&self) -> Result<Vec<usize>, AdaptError> {
        let index = |sample: &crate::Sample| {
            let found = self
                .classes
                .binary_search_by_key(&sample.class, |class| class.id);
            found.map_err(|_| AdaptError::UnknownClass { id: sample.class.0 })
        };
        self.samples.iter().map(index).collect()
    }

    fn device_rows(
        &self,
        fitted: &Fitted,
        labels: &[usize],
        max_bytes: Option<usize>,
    ) -> Result<Rows, AdaptError> {
        let (n, n_classes, dim) = (self.samples.len(), self.classes.len(), self.encoder.dim);
        let fixed = image_length(dim, n_classes, 0);
        let row = image_length(dim, n_classes, 1) - fixed;
        let room = max_bytes.map_or(usize::MAX, |bytes| bytes.saturating_sub(fixed) / row);
        let room = room.min(usize::from(u16::MAX));
        let least = if fitted.report.unknown.threshold.is_some() {
            n_classes
        } else {
            0
        };
        if room < least.min(n) || max_bytes.is_some_and(|bytes| bytes < fixed) {
            return Err(AdaptError::DeviceTooSmall {
                needed: fixed + least.min(n) * row,
                given: max_bytes.unwrap_or_default(),
            });
        }
        if room >= n {
            return Ok(Rows {
                kept: (0..n).collect(),
                unknown: fitted.report.unknown.clone(),
            });
        }
        let (kept, distances) = self.covering(labels, room);
        let mut counts = vec![0; n_classes];
        labels.iter().for_each(|&label| counts[label] += 1);
        let evaluable = distances
            .iter()
            .zip(labels)
            .filter(|(_, label)| counts[**label] > 1);
        let distances = evaluable.map(|(distance, _)| *distance).collect();
        let unknown = match fitted.report.unknown.threshold {
            Some(_) => UnknownRule::new(distances, fitted.report.unknown.rate)?,
            None => fitted.report.unknown.clone(),
        };
        Ok(Rows { kept, unknown })
    }

    /// `room` samples that cover all, and the distance of every sample to the nearest of them other than itself.
    fn covering(&self, labels: &[usize], room: usize) -> (Vec<usize>, Vec<f64>) {
        let mut kept: Vec<usize> = Vec::with_capacity(room);
        let mut is_kept = vec![false; labels.len()];
        let mut distances = vec![f64::INFINITY; labels.len()];
        let first = (0..self.classes.len()).map(|class| self.most_typical(labels, class));
        let mut first: Vec<usize> = first.take(room).collect();
        first.reverse();
        while kept.len() < room {
            let farthest = || {
                let open = (0..labels.len()).filter(|i| !is_kept[*i]);
                open.reduce(|best, i| {
                    if distances[i] > distances[best] {
                        i
                    } else {
                        best
                    }
                })
            };
            let Some(next) = first.pop().or_else(farthest) else {
                break;
            };
            kept.push(next);
            is_kept[next] = true;
            for (i, distance) in distances.iter_mut().enumerate() {
                if i != next {
                    *distance = distance.min(self.sample_distance(i, next));
                }
            }
        }
        kept.sort_unstable();
        (kept, distances)
    }

    /// The sample of a class with the largest cosine to the sum of the class's directions.
    fn most_typical(&self, labels: &[usize], class: usize) -> usize {
        let members: Vec<usize> = (0..labels.len()).filter(|i| labels[*i] == class).collect();
        let mut sum = vec![0.0f32; self.encoder.dim];
        for i in &members {
            let embedding = &self.samples[*i].embedding;
            let inverse = inverse_norm(embedding) as f32;
            sum.iter_mut()
                .zip(embedding)
                .for_each(|(s, x)| *s += x * inverse);
        }
        let cosine = |i: usize| {
            dot32(&sum, &self.samples[i].embedding) * inverse_norm(&self.samples[i].embedding)
        };
        let best = members
            .into_iter()
            .reduce(|best, i| if cosine(i) > cosine(best) { i } else { best });
        best.unwrap_or_default()
    }

    /// `1 - cos` between two samples.
    fn sample_distance(&self, a: usize, b: usize) -> f64 {
        let (a, b) = (&self.samples[a].embedding, &self.samples[b].embedding);
        (1.0 - dot32(a, b) * inverse_norm(a) * inverse_norm(b)).max(0.0)
    }

    fn device_image(
        &self,
        fitted: &Fitted,
        labels: &[usize],
        rows: &Rows,
        options: &DeviceOptions,
    ) -> Result<Vec<u8>, AdaptError> {
        let (weights, bias, cosine) = linear_form(&fitted.head, self.classes.len());
        let mut centre = vec![0.0; self.encoder.dim];
        let step = match options.input {
            DeviceInput::Fitted => fit_scale(
                self.samples
                    .iter()
                    .map(|sample| sample.embedding.as_slice()),
                &mut centre,
            )?,
            DeviceInput::Given { scale, zero_point } => {
                centre.fill(-scale * f64::from(zero_point));
                scale
            }
        };
        let row = |&i: &usize| RowSpec {
            sample: self.samples[i].id.0,
            class: labels[i] as u16,
            embedding: &self.samples[i].embedding,
        };
        let row_specs: Vec<RowSpec> = rows.kept.iter().map(row).collect();
        let limit = rows
            .unknown
            .threshold
            .map(|threshold| (1.0 - threshold - ROUNDING).max(-1.0));
        let ids: Vec<u32> = self.classes.iter().map(|class| class.id.0).collect();
        let spec = HeadSpec {
            job: options.job_number,
            encoder: self.encoder.hash,
            class_ids: &ids,
            weights,
            bias: &bias,
            cosine,
            temperature: fitted.report.temperature,
            centre: &centre,
            step,
            rows: &row_specs,
            cosine_limit: limit,
        };
        let mut image = vec![0; image_length(centre.len(), bias.len(), row_specs.len())];
        spec.write(&mut image)?;
        Ok(image)
    }

    fn device_parity(
        &self,
        fitted: &Fitted,
        rows: &Rows,
        image: &[u8],
    ) -> Result<DeviceParity, AdaptError> {
        let damaged = |_| BuildError::Value { what: "the image" };
        let head = HeadImage::parse(image).map_err(damaged)?;
        let mut parity = DeviceParity::default();
        let mut values = vec![0; self.encoder.dim];
        for (i, sample) in self
            .samples
            .iter()
            .enumerate()
            .step_by(self.samples.len().div_ceil(PARITY_SAMPLES).max(1))
        {
            let bad = |_| BuildError::Value { what: "a sample" };
            parity.cut_values += head.quantise(&sample.embedding, &mut values).map_err(bad)?;
            let verdict = head.inspect(&values).map_err(bad)?;
            let (class, scores) = fitted.classify(&sample.embedding);
            parity.n += 1;
            parity.same_class += usize::from(class == usize::from(verdict.class));
            let score = f64::from(head.scores(&values).map_err(bad)?[class])
                / f64::from(ssl_edge_head::ONE_Q15);
            parity.score_difference = parity
                .score_difference
                .max((scores[argmax(&scores)] - score).abs());
            let own = rows.kept.binary_search(&i).ok();
            let others = rows.kept.iter().filter(|row| **row != i);
            let distance = others
                .map(|row| self.sample_distance(i, *row))
                .reduce(f64::min);
            let nearest = head
                .nearest(&values, own.map(|row| row as u16))
                .map_err(bad)?;
            let (on_device, unknown) = nearest.map_or((None, false), |(nearest, unknown)| {
                let similarity = f64::from(nearest.similarity) / f64::from(ssl_edge_head::ONE_Q15);
                (Some(1.0 - similarity), unknown)
            });
            if let (Some(distance), Some(on_device)) = (distance, on_device) {
                parity.distance_difference =
                    parity.distance_difference.max((distance - on_device).abs());
            }
            parity.same_unknown +=
                usize::from(unknown == distance.is_some_and(|d| rows.unknown.is_unknown(d)));
        }
        Ok(parity)
    }
}

/// Weights `[C, D]`, bias `[C]`, and whether the scores are divided by the embedding's norm.
fn linear_form(head: &Head, n_classes: usize) -> (&[f64], Vec<f64>, bool) {
    match head {
        Head::Linear(head) => (&head.weights, head.bias.clone(), false),
        Head::Prototype(head) => (&head.directions, vec![0.0; n_classes], true),
    }
}
