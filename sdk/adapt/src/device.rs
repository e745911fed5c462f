//! A job's head for a microcontroller: integers that `ssl-edge-head` runs, and how far they are from this crate's own verdicts.
//!
//! The device holds frames against taught samples ("rows") to tell the unknown. When all samples fit into the memory that is given, the rule is
//! the job's own. When they do not, the rows are chosen to cover the samples: first of each class the one most like the class's other samples,
//! then again and again the sample that lies farthest from all rows so far (Gonzalez 1985). The threshold is then found as the job finds its own,
//! from the distance of each sample to the nearest row that is not itself, so that the promised rate holds for what the device does.
//!
//! The verdict of a job is the class with the largest probability times cost. For a linear head that is the largest logit plus the logarithm of the
//! cost, which goes into the image's biases: the device's scores are then the shares of probability times cost. A head of prototypes divides its
//! scores by the frame's norm and has no biases to put costs into, and one of neighbours is none that a device runs.

use crate::calibrate::softmax;
use crate::error::{AdaptError, check_embedding};
use crate::fitted::{Fitted, argmax};
use crate::head::Head;
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
    /// A job that was not fitted since its last change; [`AdaptError::NotOnDevice`] for a head of neighbours, or of prototypes with classes of
    /// different cost; more values or classes than a device head holds; a `max_bytes` that leaves no room for a row of each class (the message says how many bytes
    /// do); an input scale that is not positive and finite, or one where the head sees several parts.
    pub fn device_head(&self, options: &DeviceOptions) -> Result<DeviceHead, AdaptError> {
        let fitted = self.fitted.as_ref().ok_or(AdaptError::NotFitted)?;
        let index = |sample: &crate::Sample| {
            let found = self
                .classes
                .binary_search_by_key(&sample.class, |class| class.id);
            found.map_err(|_| AdaptError::UnknownClass { id: sample.class.0 })
        };
        let parts = self.layout.parts();
        let taught = Taught {
            job: self,
            fitted,
            labels: self.samples.iter().map(index).collect::<Result<_, _>>()?,
            seen: self
                .samples
                .iter()
                .map(|sample| fitted.view.of(&sample.embedding, parts))
                .collect(),
            dim: fitted.view.dim(parts),
        };
        let rows = taught.rows(options.max_bytes)?;
        let image = taught.image(&rows, options)?;
        let parity = taught.parity(&rows, &image)?;
        Ok(DeviceHead {
            image,
            rows: rows.kept.len(),
            unknown: rows.unknown,
            parity,
        })
    }

    /// What the head sees of a frame's feature `[dim]`: the embedding that a device's sender quantises.
    ///
    /// # Errors
    ///
    /// A job that was not fitted since its last change; a feature of another length or with a value that is not finite.
    pub fn device_embedding(&self, feature: &[f32]) -> Result<Vec<f32>, AdaptError> {
        let fitted = self.fitted.as_ref().ok_or(AdaptError::NotFitted)?;
        check_embedding(
            || "the frame for the device".into(),
            feature,
            self.encoder.dim,
        )?;
        Ok(fitted.view.of(feature, self.layout.parts()))
    }
}

/// A fitted job with what its head sees of the samples.
struct Taught<'j> {
    job: &'j Job,
    fitted: &'j Fitted,
    /// Class index of each sample.
    labels: Vec<usize>,
    /// `[N][D]`
    seen: Vec<Vec<f32>>,
    /// D
    dim: usize,
}

impl Taught<'_> {
    fn rows(&self, max_bytes: Option<usize>) -> Result<Rows, AdaptError> {
        let (n, n_classes, dim) = (self.seen.len(), self.job.classes.len(), self.dim);
        let rule = &self.fitted.report.unknown;
        let fixed = image_length(dim, n_classes, 0);
        let row = image_length(dim, n_classes, 1) - fixed;
        let room = max_bytes.map_or(usize::MAX, |bytes| bytes.saturating_sub(fixed) / row);
        let room = room.min(usize::from(u16::MAX));
        let least = if rule.threshold.is_some() {
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
                unknown: rule.clone(),
            });
        }
        let (kept, distances) = self.covering(room);
        let mut counts = vec![0; n_classes];
        self.labels.iter().for_each(|&label| counts[label] += 1);
        let evaluable = distances
            .iter()
            .zip(&self.labels)
            .filter(|(_, label)| counts[**label] > 1);
        let distances = evaluable.map(|(distance, _)| *distance).collect();
        let unknown = match rule.threshold {
            Some(_) => UnknownRule::new(distances, rule.rate)?,
            None => rule.clone(),
        };
        Ok(Rows { kept, unknown })
    }

    /// `room` samples that cover all, and the distance of every sample to the nearest of them other than itself.
    fn covering(&self, room: usize) -> (Vec<usize>, Vec<f64>) {
        let mut kept: Vec<usize> = Vec::with_capacity(room);
        let n = self.seen.len();
        let mut is_kept = vec![false; n];
        let mut distances = vec![f64::INFINITY; n];
        let first = (0..self.job.classes.len()).map(|class| self.most_typical(class));
        let mut first: Vec<usize> = first.take(room).collect();
        first.reverse();
        while kept.len() < room {
            let farthest = || {
                let open = (0..n).filter(|i| !is_kept[*i]);
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
    fn most_typical(&self, class: usize) -> usize {
        let members: Vec<usize> = (0..self.seen.len())
            .filter(|i| self.labels[*i] == class)
            .collect();
        let mut sum = vec![0.0f32; self.dim];
        for i in &members {
            let embedding = &self.seen[*i];
            let inverse = inverse_norm(embedding) as f32;
            sum.iter_mut()
                .zip(embedding)
                .for_each(|(s, x)| *s += x * inverse);
        }
        let cosine = |i: usize| dot32(&sum, &self.seen[i]) * inverse_norm(&self.seen[i]);
        let best = members
            .into_iter()
            .reduce(|best, i| if cosine(i) > cosine(best) { i } else { best });
        best.unwrap_or_default()
    }

    /// `1 - cos` between two samples.
    fn sample_distance(&self, a: usize, b: usize) -> f64 {
        let (a, b) = (&self.seen[a], &self.seen[b]);
        (1.0 - dot32(a, b) * inverse_norm(a) * inverse_norm(b)).max(0.0)
    }

    fn image(&self, rows: &Rows, options: &DeviceOptions) -> Result<Vec<u8>, AdaptError> {
        let (weights, bias, cosine) = self.linear_form()?;
        let mut centre = vec![0.0; self.dim];
        let step = match options.input {
            DeviceInput::Fitted => fit_scale(self.seen.iter().map(Vec::as_slice), &mut centre)?,
            DeviceInput::Given { .. } if self.fitted.view.selection.len() > 1 => {
                return Err(AdaptError::BadOption {
                    name: "the device's input",
                    value: "given".into(),
                    range: "fitted where the head sees several parts of the feature",
                });
            }
            DeviceInput::Given { scale, zero_point } => {
                centre.fill(-scale * f64::from(zero_point));
                scale
            }
        };
        let row = |&i: &usize| RowSpec {
            sample: self.job.samples[i].id.0,
            class: self.labels[i] as u16,
            embedding: &self.seen[i],
        };
        let row_specs: Vec<RowSpec> = rows.kept.iter().map(row).collect();
        let limit = rows
            .unknown
            .threshold
            .map(|threshold| (1.0 - threshold - ROUNDING).max(-1.0));
        let ids: Vec<u32> = self.job.classes.iter().map(|class| class.id.0).collect();
        let spec = HeadSpec {
            job: options.job_number,
            encoder: self.job.encoder.hash,
            class_ids: &ids,
            weights: &weights,
            bias: &bias,
            cosine,
            temperature: self.fitted.report.temperature,
            centre: &centre,
            step,
            rows: &row_specs,
            cosine_limit: limit,
        };
        let mut image = vec![0; image_length(centre.len(), bias.len(), row_specs.len())];
        spec.write(&mut image)?;
        Ok(image)
    }

    fn parity(&self, rows: &Rows, image: &[u8]) -> Result<DeviceParity, AdaptError> {
        let damaged = |_| BuildError::Value { what: "the image" };
        let head = HeadImage::parse(image).map_err(damaged)?;
        let mut parity = DeviceParity::default();
        let mut values = vec![0; self.dim];
        for (i, seen) in self
            .seen
            .iter()
            .enumerate()
            .step_by(self.seen.len().div_ceil(PARITY_SAMPLES).max(1))
        {
            let bad = |_| BuildError::Value { what: "a sample" };
            parity.cut_values += head.quantise(seen, &mut values).map_err(bad)?;
            let verdict = head.inspect(&values).map_err(bad)?;
            let scores = self.weighed(seen);
            let class = argmax(&scores);
            parity.n += 1;
            parity.same_class += usize::from(class == usize::from(verdict.class));
            let score = f64::from(head.scores(&values).map_err(bad)?[class])
                / f64::from(ssl_edge_head::ONE_Q15);
            parity.score_difference = parity.score_difference.max((scores[class] - score).abs());
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

    /// Share of each class in probability times cost.
    fn weighed(&self, seen: &[f32]) -> Vec<f64> {
        let scores = self.fitted.head.scores(seen);
        let mut weighed = softmax(&scores, self.fitted.report.temperature);
        let classes = weighed.iter_mut().zip(&self.job.classes);
        classes.for_each(|(p, class)| *p *= class.cost);
        let sum: f64 = weighed.iter().sum();
        weighed.iter_mut().for_each(|p| *p /= sum);
        weighed
    }

    /// Weights `[C, D]`, bias `[C]` with the costs in it, and whether the scores are divided by the embedding's norm.
    fn linear_form(&self) -> Result<(Vec<f64>, Vec<f64>, bool), AdaptError> {
        let classes = &self.job.classes;
        let costs_differ = classes.iter().any(|class| class.cost != classes[0].cost);
        match &self.fitted.head {
            Head::Linear(head) => {
                let temperature = self.fitted.report.temperature;
                let bias = head.bias.iter().zip(classes);
                let bias = bias.map(|(b, class)| b + temperature * class.cost.ln());
                Ok((head.weights.clone(), bias.collect(), false))
            }
            Head::Prototype(_) if costs_differ => Err(AdaptError::NotOnDevice {
                what: "prototypes with classes of different cost",
                remedy: "fit the job with a linear head (lda, discriminant, ridge or logistic), or give all classes the same cost",
            }),
            Head::Prototype(head) => Ok((head.directions.clone(), vec![0.0; classes.len()], true)),
            Head::One => Ok((vec![0.0; self.dim], vec![0.0], false)),
            Head::Knn(_) => Err(AdaptError::NotOnDevice {
                what: "the head `knn`",
                remedy: "fit the job with another head: lda, discriminant, ridge, logistic or prototype",
            }),
        }
    }
}
