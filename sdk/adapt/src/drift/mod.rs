//! Drift: something changed on the line. What, and what is to be done?
//!
//! A [`DriftMonitor`] keeps one CUSUM chart on p-values for each thing that can change: brightness, focus and overexposure of the picture,
//! the embedding, the anomaly score, and the share of unknown frames. Each is designed for 6 times the run length asked for, so that all
//! together give a false alarm no more often than that. When a chart alarms, the triage is this:
//!
//! 1. A chart of the camera alarms, or stands above three quarters of its limit: the camera changed, because its changes move everything else too.
//!    Of several such charts the cause is brightness before overexposure before focus: another light also moves the other two, less light lowers the
//!    focus measure even where nothing is blurred.
//! 2. More than two thirds of the frames since the change are unlike the baseline by their embedding: the product changed.
//! 3. Otherwise only some frames are unlike anything: a new kind of defect.

mod cusum;

pub use cusum::Cusum;

use crate::anomaly::Conformal;
use crate::error::{AdaptError, check_embedding};

/// Charts that share the run length.
const CHARTS: f64 = 6.0;
/// Fewest good frames for a baseline.
pub const MIN_FRAMES: usize = 5;
/// p-value of the embedding from which downwards a frame is unlike the baseline, or the smallest that there is if that is larger.
const UNLIKE: f64 = 0.1;
/// Level of a camera chart, in limits, from which an alarm of another chart is put down to the camera.
const CAMERA_LEVEL: f64 = 0.75;
/// Share of unlike frames since the change from which the product changed.
const MOST: f64 = 2.0 / 3.0;
/// Variance of all values, in observations, beside that of one value.
const PRIOR: f64 = 4.0;

/// Numbers that a picture gives of its camera.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CameraNumbers {
    /// Mean brightness, 0..1.
    pub brightness: f64,
    /// Variance of the Laplacian, at least 0.
    pub focus: f64,
    /// Share of overexposed pixels, 0..1.
    pub saturated: f64,
}

/// What about the camera changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CameraChange {
    /// Brighter or darker than the good frames.
    Brightness,
    /// Sharper or more blurred.
    Focus,
    /// More or fewer overexposed pixels.
    Saturation,
}

/// Why frames are not what they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriftCause {
    /// Light, lens or position.
    CameraChanged(CameraChange),
    /// Most parts look different.
    ProductChanged,
    /// Some parts are unlike anything taught.
    NewKindOfDefect,
}

impl DriftCause {
    /// What an operator should do.
    pub fn action(self) -> &'static str {
        match self {
            Self::CameraChanged(CameraChange::Brightness) => {
                "check the light and the exposure time, clean the lens; teach again only if the new light is meant to stay"
            }
            Self::CameraChanged(CameraChange::Focus) => {
                "check the focus and the distance of the camera, clean the lens; do not teach blurred frames"
            }
            Self::CameraChanged(CameraChange::Saturation) => {
                "lower the exposure time or look for reflections; overexposed areas hide defects"
            }
            Self::ProductChanged => {
                "if the product or its material was changed on purpose, teach new good parts or switch to its job; if not, stop and look at the process"
            }
            Self::NewKindOfDefect => {
                "look at the frames marked unknown, give the defect a name and teach a few of them"
            }
        }
    }
}

/// A change that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DriftAlarm {
    /// The likely cause.
    pub cause: DriftCause,
    /// Frames since the change began, as far as the chart that gave the alarm can tell.
    pub frames: u32,
    /// Share of those frames whose embedding is unlike the baseline's.
    pub unlike: f64,
}

/// One frame of the running line.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// Its camera numbers.
    pub camera: CameraNumbers,
    /// Its embedding, `[dim]`.
    pub embedding: &'a [f32],
    /// p-value of its anomaly score or of its distance to the class, small for unlike frames; 1 if there is none.
    pub p_value: f64,
    /// Whether the job calls it unknown.
    pub unknown: bool,
}

/// Watches a line for changes against a baseline of good frames.
#[derive(Clone, Debug)]
pub struct DriftMonitor {
    camera: [Scale; 3],
    embedding: EmbeddingBaseline,
    charts: [Chart; CHARTS as usize],
    unknown_gain: [f64; 2],
}

/// A chart, and how many frames since its change have an unlike embedding.
#[derive(Clone, Debug)]
struct Chart {
    cusum: Cusum,
    unlike: u32,
}

const BRIGHTNESS: usize = 0;
const FOCUS: usize = 1;
const SATURATION: usize = 2;
const EMBEDDING: usize = 3;
const TYPICALITY: usize = 4;
const UNKNOWN: usize = 5;

impl DriftMonitor {
    /// Learns what good frames look like. `run_length`: frames between false alarms, on average at least; `unknown_rate`: share of frames
    /// that may be unknown without anything having changed.
    ///
    /// # Errors
    ///
    /// Fewer than 5 frames, or camera numbers and embeddings of different numbers; embeddings of different lengths or with values that are
    /// not finite; an option out of range.
    pub fn new(
        camera: &[CameraNumbers],
        embeddings: &[&[f32]],
        unknown_rate: f64,
        run_length: f64,
    ) -> Result<Self, AdaptError> {
        if camera.len() < MIN_FRAMES || camera.len() != embeddings.len() {
            return Err(AdaptError::GridShape {
                what: "good frames of the baseline",
                expected: format!("at least {MIN_FRAMES}, each with camera numbers and embedding"),
                got: format!(
                    "{} with camera numbers, {} with embeddings",
                    camera.len(),
                    embeddings.len()
                ),
                remedy: "measure a few more good frames",
            });
        }
        if !(unknown_rate > 0.0 && unknown_rate <= 0.2) {
            return Err(AdaptError::BadOption {
                name: "unknown_rate",
                value: unknown_rate.to_string(),
                range: "above 0 and at most 0.2",
            });
        }
        let each = CHARTS * run_length;
        let chart = Chart {
            cusum: Cusum::new(each)?,
            unlike: 0,
        };
        let mut charts: [Chart; CHARTS as usize] = std::array::from_fn(|_| chart.clone());
        // A chart of yes and no against four times the rate; by Lorden (1971) its run length is at least e^limit.
        charts[UNKNOWN].cusum = Cusum::with_limit(each.ln());
        let more = 4.0 * unknown_rate;
        let unknown_gain = [
            ((1.0 - more) / (1.0 - unknown_rate)).ln(),
            (more / unknown_rate).ln(),
        ];
        let number = |f: fn(&CameraNumbers) -> f64, least| Scale::of(camera.iter().map(f), least);
        Ok(Self {
            camera: [
                number(|c| c.brightness, 0.01)?,
                number(|c| log_focus(c.focus), 0.05)?,
                number(|c| c.saturated, 0.005)?,
            ],
            embedding: EmbeddingBaseline::fit(embeddings)?,
            charts,
            unknown_gain,
        })
    }

    /// Takes a frame; an alarm when something changed, after which all charts begin anew.
    ///
    /// # Errors
    ///
    /// An embedding of another length or with a value that is not finite; camera numbers that are not finite.
    pub fn observe(&mut self, frame: &Observation<'_>) -> Result<Option<DriftAlarm>, AdaptError> {
        let camera = [
            frame.camera.brightness,
            log_focus(frame.camera.focus),
            frame.camera.saturated,
        ];
        if let Some(index) = camera.iter().position(|v| !v.is_finite()) {
            return Err(AdaptError::NotFinite {
                what: "camera numbers of the frame".into(),
                index,
                value: camera[index] as f32,
            });
        }
        let unlike = self.embedding.p_value(frame.embedding)?;
        let mut alarms = [false; CHARTS as usize];
        for (i, value) in camera.into_iter().enumerate() {
            alarms[i] = self.charts[i].cusum.push(self.camera[i].p_value(value));
        }
        alarms[EMBEDDING] = self.charts[EMBEDDING].cusum.push(unlike);
        alarms[TYPICALITY] = self.charts[TYPICALITY].cusum.push(frame.p_value);
        let gain = self.unknown_gain[usize::from(frame.unknown)];
        alarms[UNKNOWN] = self.charts[UNKNOWN].cusum.step(gain);
        let is_unlike = unlike <= UNLIKE.max(self.embedding.left_out.floor()) + 1e-9;
        for chart in &mut self.charts {
            chart.unlike = match chart.cusum.frames() {
                0 => 0,
                _ => chart.unlike + u32::from(is_unlike),
            };
        }
        let Some(first) = alarms.iter().position(|alarm| *alarm) else {
            return Ok(None);
        };
        let alarm = self.triage(first);
        self.reset();
        Ok(Some(alarm))
    }

    /// Begins all charts anew, after the cause was dealt with.
    pub fn reset(&mut self) {
        for chart in &mut self.charts {
            chart.cusum.reset();
            chart.unlike = 0;
        }
    }

    /// Levels of the charts in units of their limits: brightness, focus, saturation, embedding, anomaly score, unknown frames.
    pub fn levels(&self) -> [f64; 6] {
        std::array::from_fn(|i| self.charts[i].cusum.level())
    }

    fn triage(&self, alarmed: usize) -> DriftAlarm {
        let levels = self.levels();
        let camera = [
            (BRIGHTNESS, CameraChange::Brightness),
            (SATURATION, CameraChange::Saturation),
            (FOCUS, CameraChange::Focus),
        ];
        let changed = camera.into_iter().find(|(i, _)| levels[*i] > CAMERA_LEVEL);
        let chart = &self.charts[alarmed];
        let frames = chart.cusum.frames();
        let unlike = f64::from(chart.unlike) / f64::from(frames.max(1));
        let cause = if let Some((_, change)) = changed {
            DriftCause::CameraChanged(change)
        } else if unlike > MOST {
            DriftCause::ProductChanged
        } else {
            DriftCause::NewKindOfDefect
        };
        DriftAlarm {
            cause,
            frames,
            unlike,
        }
    }
}

/// Focus varies by factors.
fn log_focus(focus: f64) -> f64 {
    (focus + 1e-6).ln()
}

/// Mean and deviation of a number on good frames.
#[derive(Clone, Copy, Debug)]
struct Scale {
    mean: f64,
    deviation: f64,
}

impl Scale {
    /// The deviation is that of a new value (of Student's distribution, for the uncertain mean and deviation), and at least `least`.
    fn of(
        values: impl ExactSizeIterator<Item = f64> + Clone,
        least: f64,
    ) -> Result<Self, AdaptError> {
        if let Some((index, value)) = values.clone().enumerate().find(|(_, v)| !v.is_finite()) {
            return Err(AdaptError::NotFinite {
                what: "camera numbers of the baseline".into(),
                index,
                value: value as f32,
            });
        }
        let n = values.len() as f64;
        let mean = values.clone().sum::<f64>() / n;
        let variance = values.map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
        let deviation = (variance * (1.0 + 1.0 / n) * (n - 1.0) / (n - 3.0)).sqrt();
        Ok(Self {
            mean,
            deviation: deviation.max(least),
        })
    }

    /// Two-sided, of the normal distribution.
    fn p_value(&self, value: f64) -> f64 {
        erfc((value - self.mean).abs() / self.deviation / std::f64::consts::SQRT_2)
    }
}

/// Complementary error function for `x` of 0 or more, to 1.2e-7 of its value (the Chebyshev fit of Numerical Recipes, section 6.2).
fn erfc(x: f64) -> f64 {
    const COEFFICIENTS: [f64; 10] = [
        -1.26551223,
        1.00002368,
        0.37409196,
        0.09678418,
        -0.18628806,
        0.27886807,
        -1.13520398,
        1.48851587,
        -0.82215223,
        0.17087277,
    ];
    let t = 1.0 / (1.0 + 0.5 * x);
    let sum = COEFFICIENTS.iter().rev().fold(0.0, |sum, c| sum * t + c);
    t * (-x * x + sum).exp()
}

/// Mean and diagonal variance of the embeddings of good frames, and the distances of these frames when each was left out.
#[derive(Clone, Debug)]
struct EmbeddingBaseline {
    sum: Vec<f64>,
    squares: Vec<f64>,
    frames: usize,
    left_out: Conformal,
}

impl EmbeddingBaseline {
    fn fit(embeddings: &[&[f32]]) -> Result<Self, AdaptError> {
        let dim = embeddings[0].len();
        let (mut sum, mut squares) = (vec![0.0; dim], vec![0.0; dim]);
        for (i, embedding) in embeddings.iter().enumerate() {
            check_embedding(|| format!("good frame {i} of the baseline"), embedding, dim)?;
            for (j, x) in embedding.iter().enumerate() {
                sum[j] += f64::from(*x);
                squares[j] += f64::from(*x).powi(2);
            }
        }
        let frames = embeddings.len();
        let distances = embeddings.iter().map(|embedding| {
            let without = |all: &[f64], power: i32| -> Vec<f64> {
                let pairs = all.iter().zip(*embedding);
                pairs.map(|(s, x)| s - f64::from(*x).powi(power)).collect()
            };
            distance(
                &without(&sum, 1),
                &without(&squares, 2),
                frames - 1,
                embedding,
            )
        });
        let left_out = Conformal::new(distances.collect())?;
        Ok(Self {
            sum,
            squares,
            frames,
            left_out,
        })
    }

    fn p_value(&self, embedding: &[f32]) -> Result<f64, AdaptError> {
        check_embedding(|| "frame".into(), embedding, self.sum.len())?;
        let distance = distance(&self.sum, &self.squares, self.frames, embedding);
        Ok(self.left_out.p_value(distance))
    }
}

/// Mean over the values of the squared deviation in units of the variance, which is drawn towards the mean variance of all values.
fn distance(sum: &[f64], squares: &[f64], frames: usize, embedding: &[f32]) -> f64 {
    let n = frames as f64;
    let scatter = |j: usize| (squares[j] - sum[j].powi(2) / n).max(0.0);
    let dim = sum.len();
    let overall = (0..dim).map(scatter).sum::<f64>() / (n - 1.0) / dim as f64;
    let term = |j: usize| {
        let variance = (scatter(j) + PRIOR * overall) / (n - 1.0 + PRIOR);
        (f64::from(embedding[j]) - sum[j] / n).powi(2) / variance.max(1e-12)
    };
    (0..dim).map(term).sum::<f64>() / dim as f64
}

#[cfg(test)]
mod tests;
