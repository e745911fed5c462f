//! What `calibrate` and `job` share: how to fit, who teaches, and what is said of a fitted job.

use crate::output::{Table, percent};
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;
use ssl_edge::anomaly::NormalReport;
use ssl_edge::job::{Class, FitOptions, FitReport, Job};
use ssl_edge::surface::{ENCODER, IgnoreMask, PIXELS, read_ignore_mask};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// How to fit.
#[derive(Args)]
pub(crate) struct FitArgs {
    /// discriminant, lda, ridge, logistic, prototype or knn; without this, heads and features are compared by leave-one-out
    #[arg(long, value_name = "HEAD")]
    head: Option<String>,
    /// Parts of the features that the head sees: cls, mean, salient, texture
    #[arg(long, value_delimiter = ',', value_name = "PART,…")]
    features: Option<Vec<String>>,
    /// Share of frames of the taught kinds that may be called unlike what was taught, by all tests together (unknown, and unlike the surface of good
    /// parts); 0 turns them off
    #[arg(long, default_value_t = 0.05, value_name = "SHARE")]
    unknown_rate: f64,
}

impl FitArgs {
    /// The options of the library.
    pub(crate) fn options(&self) -> Result<FitOptions> {
        let head = self.head.as_deref().map(str::parse).transpose()?;
        Ok(FitOptions {
            head,
            parts: self.features.clone(),
            search: head.is_none() && self.features.is_none(),
            lambda: None,
            unknown_rate: self.unknown_rate,
        })
    }
}

/// Whether copies of the frames are taught too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Augment {
    /// Turned, mirrored, dimmed and brightened copies, used unless samples that are left out speak against them
    Auto,
    /// None
    Off,
}

/// Who teaches, and what is kept of the frames.
#[derive(Args)]
pub(crate) struct OperatorArgs {
    /// Who does this, for the job's records
    #[arg(long, default_value = "", value_name = "NAME")]
    pub(crate) by: String,
    /// Keep pictures of the frames with this shorter side, so that the job can move to another encoder; 0 keeps none
    #[arg(long, default_value_t = 0, value_name = "PIXELS")]
    pub(crate) thumbnails: u32,
    /// Turned, mirrored and relit copies of the frames for the head: ten times the work of teaching. Classes that begin with more than 50 frames get none, nor do those that were taught without
    #[arg(long, value_enum, default_value = "auto", value_name = "WHEN")]
    pub(crate) augment: Augment,
}

impl OperatorArgs {
    /// Now, in seconds since 1970-01-01 UTC.
    pub(crate) fn unix_time(&self) -> i64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_secs() as i64)
    }
}

/// What patches of good samples are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Surface {
    /// None: the job does not look at patches
    None,
    /// Grey pixels of small squares
    Pixels,
    /// The encoder's patch tokens
    Encoder,
}

impl Surface {
    /// Its name in the library.
    pub(crate) fn kind(self) -> Option<String> {
        match self {
            Self::None => None,
            Self::Pixels => Some(PIXELS.into()),
            Self::Encoder => Some(ENCODER.into()),
        }
    }
}

/// The ignore mask in a picture.
pub(crate) fn ignore_mask(file: &Path) -> Result<IgnoreMask> {
    read_ignore_mask(file).with_context(|| format!("{} cannot be the ignore mask", file.display()))
}

/// The class with this name.
pub(crate) fn class_named<'j>(job: &'j Job, name: &str) -> Result<&'j Class> {
    if let Some(class) = job.class_named(name) {
        return Ok(class);
    }
    let names: Vec<&str> = job
        .classes()
        .iter()
        .map(|class| class.name.as_str())
        .collect();
    bail!(
        "the job has no class `{name}`; its classes are {}",
        names.join(", ")
    )
}

/// A job and its last fit.
#[derive(Serialize)]
pub(crate) struct Summary {
    job: PathBuf,
    revision: u64,
    classes: Vec<ClassLine>,
    samples: usize,
    head: Option<&'static str>,
    features: Vec<String>,
    loo_accuracy: Option<f64>,
    loo_interval: Option<(f64, f64)>,
    loo_balanced_accuracy: Option<f64>,
    ece: Option<f64>,
    brier: Option<f64>,
    lambda: Option<f64>,
    confusion: Vec<Vec<u32>>,
    suspects: Vec<String>,
    needs_more: Option<String>,
    unknown_rate: Option<f64>,
    false_alarms: Option<Alarms>,
    surface: Option<String>,
    surface_notes: Vec<String>,
    ignored: Option<Ignored>,
    compared: Vec<Compared>,
    augmentation: Option<Copies>,
}

/// Copies of the samples, and whether the head was fitted with them.
#[derive(Serialize)]
struct Copies {
    copies: usize,
    gained: usize,
    lost: usize,
    kept: bool,
}

/// The region that the surface leaves out.
#[derive(Serialize)]
struct Ignored {
    /// Of the frame.
    share: f64,
    mask_width: usize,
    mask_height: usize,
}

/// False alarms of all tests together.
#[derive(Serialize)]
struct Alarms {
    allowed: f64,
    tests: usize,
    /// What is certain if frames to come are like those taught.
    promised: f64,
    extrapolated: bool,
}

#[derive(Serialize)]
struct ClassLine {
    name: String,
    samples: usize,
    good: bool,
    cost: f64,
}

#[derive(Serialize)]
struct Compared {
    head: &'static str,
    features: Vec<String>,
    loo_accuracy: f64,
}

impl Alarms {
    fn human(&self) -> String {
        let tests = match self.tests {
            1 => "",
            _ => ", half of them unknown and half unlike the surface of good parts",
        };
        let rests = match (self.extrapolated, self.promised > self.allowed) {
            (true, _) => format!(
                "; that is extrapolated: samples this few are certain of no less than {}",
                percent(self.promised)
            ),
            (false, true) => format!(
                "; the samples are certain of no less than {}",
                percent(self.promised)
            ),
            (false, false) => ", as far as the samples stand for them".into(),
        };
        format!(
            "\nfalse alarms: at most {} of frames of the taught kinds{tests}{rests}",
            percent(self.allowed)
        )
    }
}

impl Summary {
    /// Of a job that was fitted with this report.
    pub(crate) fn of(path: &Path, job: &Job, fit: &FitReport) -> Self {
        let count = |class: &Class| {
            let of_class = job
                .samples()
                .iter()
                .filter(|sample| sample.class == class.id);
            of_class.count()
        };
        let n_classes = fit.confusion.n_classes;
        let row = |truth| {
            (0..n_classes)
                .map(|p| fit.confusion.get(truth, p))
                .collect()
        };
        Self {
            job: path.to_owned(),
            revision: job.revision(),
            classes: job
                .classes()
                .iter()
                .map(|class| ClassLine {
                    name: class.name.clone(),
                    samples: count(class),
                    good: class.good,
                    cost: class.cost,
                })
                .collect(),
            samples: fit.n,
            head: fit.head.map(|head| head.name()),
            features: fit.parts.clone(),
            loo_accuracy: fit.loo_accuracy,
            loo_interval: fit.loo_interval,
            loo_balanced_accuracy: fit.loo_balanced_accuracy,
            ece: fit.reliability.map(|of| of.ece),
            brier: fit.reliability.map(|of| of.brier),
            lambda: fit.lambda,
            confusion: (0..n_classes).map(row).collect(),
            suspects: fit
                .suspects
                .iter()
                .filter_map(|&id| {
                    let sample = job.sample(id).ok()?;
                    Some(format!("{} (sample {})", sample.meta.source, id.0))
                })
                .collect(),
            needs_more: fit
                .needs_more
                .map(|class| job.classes()[class].name.clone()),
            unknown_rate: fit.unknown.promised,
            false_alarms: job.false_alarms().map(|of| Alarms {
                allowed: of.allowed,
                tests: of.tests,
                promised: of.promised,
                extrapolated: of.extrapolated,
            }),
            surface: job.surface().map(Into::into),
            surface_notes: job
                .surface_report()
                .map(NormalReport::notes)
                .unwrap_or_default(),
            ignored: job.ignore().map(|mask| {
                let [mask_height, mask_width] = mask.size();
                Ignored {
                    share: mask.share(),
                    mask_width,
                    mask_height,
                }
            }),
            augmentation: fit.augmentation.map(|found| Copies {
                copies: found.copies,
                gained: found.gained,
                lost: found.lost,
                kept: found.kept,
            }),
            compared: fit
                .tried
                .iter()
                .map(|tried| Compared {
                    head: tried.head.name(),
                    features: tried.parts.clone(),
                    loo_accuracy: tried.loo_accuracy,
                })
                .collect(),
        }
    }

    /// For people.
    pub(crate) fn human(&self) -> String {
        let mut text = self.table();
        text.push_str(&match (self.loo_accuracy, self.loo_interval) {
            (Some(accuracy), Some((low, high))) => format!(
                "\ncolumns: what the head says of a sample it was fitted without\naccuracy to expect (leave-one-out): {}, 95 % interval {} to {}",
                percent(accuracy),
                percent(low),
                percent(high)
            ),
            _ if self.classes.len() == 1 => "\none class: the job tells what is unlike it".into(),
            _ => "\nno class has two samples, so there is no accuracy to expect yet; add samples".into(),
        });
        if let Some(head) = self.head {
            text.push_str(&format!("\nhead {head} on {}", self.features.join(" + ")));
        }
        if let Some(found) = &self.augmentation {
            text.push_str(&format!(
                "\n{} turned, mirrored and relit copies of the samples {}: samples left out gain {} right ones and lose {}",
                found.copies,
                if found.kept { "are used" } else { "are not used" },
                found.gained,
                found.lost
            ));
        }
        if let Some(note) = self.alone("texture") {
            text.push_str(&note);
        }
        text.push_str(&match &self.false_alarms {
            Some(alarms) => alarms.human(),
            None => "\nno frame is called unlike what was taught (no class has two samples, or the rate is 0)".into(),
        });
        for note in &self.surface_notes {
            text.push_str(&format!("\nsurface: {note}"));
        }
        if let Some(ignored) = &self.ignored {
            text.push_str(&format!(
                "\nignored: {} of the frame (a mask of {} x {} pixels), for the surface; the head and the distance see whole frames",
                percent(ignored.share),
                ignored.mask_width,
                ignored.mask_height
            ));
        }
        if let Some(class) = &self.needs_more {
            text.push_str(&format!("\ntwo more samples of `{class}` would help most"));
        }
        if !self.suspects.is_empty() {
            text.push_str("\nlook at these labels first:");
            for suspect in &self.suspects {
                text.push_str(&format!("\n  {suspect}"));
            }
        }
        format!("{text}\nsaved {}", self.job.display())
    }

    fn table(&self) -> String {
        let mut heads = vec!["true class", "samples"];
        let n_columns = self.confusion.len();
        heads.extend(
            self.classes
                .iter()
                .take(n_columns)
                .map(|class| class.name.as_str()),
        );
        let mut table = Table::new(&heads);
        for (class, counts) in self.classes.iter().zip(&self.confusion) {
            let mut cells = vec![class.name.clone(), class.samples.to_string()];
            cells.extend(counts.iter().map(u32::to_string));
            table.row(cells);
        }
        table.render()
    }

    /// A line that says so where a simple part alone was right as often as what was chosen.
    fn alone(&self, part: &str) -> Option<String> {
        let chosen = self.loo_accuracy?;
        let alone = self.compared.iter().find(|c| c.features == [part])?;
        let word = if alone.loo_accuracy >= chosen {
            "; the encoder adds nothing to it here"
        } else {
            ""
        };
        Some(format!(
            "\n{part} alone reaches {}{word}",
            percent(alone.loo_accuracy)
        ))
    }
}
