//! `golden`: learn golden parts from a folder, and compare images with them.

use crate::data::{EngineArgs, check_any_left, decode_each, scan_images};
use crate::heat::draw_heat;
use crate::output::Format;
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use ssl_edge::Error;
use ssl_edge::anomaly::ThresholdSource;
use ssl_edge::encoder::Encoder;
use ssl_edge::golden::{GoldenLearner, GoldenParts, GoldenScore, LearnOptions, compare_golden};
use ssl_edge::job::AdaptError;
use ssl_edge::surface::{ENCODER, PIXELS};
use ssl_edge::vision::Skipped;
use std::path::{Path, PathBuf};

/// What can be done with golden parts.
#[derive(Subcommand)]
pub(crate) enum GoldenCommand {
    /// Learn golden parts: what is where, and how much good parts differ
    Learn(LearnArgs),
    /// Compare images with golden parts
    Compare(CompareArgs),
}

/// Golden parts to learn.
#[derive(Args)]
pub(crate) struct LearnArgs {
    /// Images of golden parts, one of each, all in the same place and of the same size
    #[arg(long, value_name = "DIR")]
    good: PathBuf,
    /// The file to write
    #[arg(long, value_name = "G.sslg")]
    out: PathBuf,
    /// What is compared
    #[arg(long, value_enum, default_value = "pixels", value_name = "KIND")]
    tokens: Tokens,
    /// The encoder's bundle, for `--tokens encoder`
    #[arg(long, required_if_eq("tokens", "encoder"), value_name = "B.sslb")]
    bundle: Option<PathBuf>,
    #[command(flatten)]
    engine: EngineArgs,
    /// Patches by which a part may lie elsewhere, in each direction
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=16))]
    max_shift: u32,
    /// Share of good parts that may be called different
    #[arg(long, default_value_t = 0.05, value_name = "SHARE")]
    false_alarms: f64,
}

/// Images to compare.
#[derive(Args)]
pub(crate) struct CompareArgs {
    /// The file that `golden learn` wrote
    #[arg(long, value_name = "G.sslg")]
    golden: PathBuf,
    /// The bundle that the golden parts were learned with, if they were learned with one
    #[arg(long, value_name = "B.sslb")]
    bundle: Option<PathBuf>,
    #[command(flatten)]
    engine: EngineArgs,
    /// Folder for pictures that show where images differ
    #[arg(long, value_name = "DIR")]
    heat: Option<PathBuf>,
    /// Images, or folders of images
    #[arg(required = true, value_name = "IMAGES")]
    images: Vec<PathBuf>,
}

/// What patches are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Tokens {
    /// Grey pixels of small squares, which need no encoder
    Pixels,
    /// The encoder's patch tokens
    Encoder,
}

#[derive(Serialize)]
struct Learned {
    golden: PathBuf,
    tokens: String,
    parts: usize,
    /// Rows and columns of patches.
    grid: [usize; 2],
    /// Score above which an image is called different; null for a single golden part.
    threshold: Option<f64>,
    false_alarms: f64,
    /// `rank`, `extrapolation` or `largest score`; null for a single golden part.
    rests_on: Option<&'static str>,
    /// Lowest rate of false alarms that the golden parts can promise.
    floor: Option<f64>,
    note: String,
    skipped: usize,
}

#[derive(Serialize)]
struct Line<'a> {
    path: String,
    score: f64,
    threshold: Option<f64>,
    /// Null for a single golden part.
    p_value: Option<f64>,
    /// Whether the score is above the threshold; null for a single golden part.
    differs: Option<bool>,
    /// Largest heat; 1 is the threshold of a patch.
    hottest: f32,
    /// Patches by which the part lies further up and to the left than the golden one.
    shift: [isize; 2],
    /// The golden part that it is most like; null where they were summed up.
    nearest: Option<&'a str>,
}

/// Runs one of them.
pub(crate) fn run(command: &GoldenCommand, format: Format) -> Result<()> {
    match command {
        GoldenCommand::Learn(args) => learn(args, format),
        GoldenCommand::Compare(args) => compare(args, format),
    }
}

fn learn(args: &LearnArgs, format: Format) -> Result<()> {
    let files = scan_images(std::slice::from_ref(&args.good))?;
    let encoder = match (args.tokens, &args.bundle) {
        (Tokens::Encoder, Some(bundle)) => Some(args.engine.open(bundle)?),
        _ => None,
    };
    let mut learner = GoldenLearner::new(&args.options());
    let mut twice = Vec::new();
    let broken = decode_each(&files, |index, image| {
        let source = files[index].display().to_string();
        match learner.add(encoder.as_ref(), &image.frame(), &source) {
            Err(Error::Job(AdaptError::SameGolden { .. })) => twice.push(Skipped {
                path: files[index].clone(),
                reason: "it looks the same as one before, bit for bit".into(),
            }),
            other => other.with_context(|| format!("{source} is no golden part"))?,
        }
        Ok(())
    })?;
    let skipped: Vec<Skipped> = broken.into_iter().chain(twice).collect();
    check_any_left(files.len(), &skipped)?;
    let golden = learner
        .learn()
        .with_context(|| format!("{} cannot be learned", args.good.display()))?;
    golden.save(&args.out)?;
    let report = Learned::of(args, &golden, skipped.len());
    format.print(&report, |report| {
        format!(
            "{} golden parts of {} x {} patches\n{}\nsaved {}",
            report.parts,
            report.grid[0],
            report.grid[1],
            report.note,
            report.golden.display()
        )
    })
}

impl LearnArgs {
    fn options(&self) -> LearnOptions {
        let tokens = match self.tokens {
            Tokens::Pixels => PIXELS,
            Tokens::Encoder => ENCODER,
        };
        let mut options = LearnOptions::of(tokens);
        options.compare.max_shift = self.max_shift as usize;
        options.rates.frame = self.false_alarms;
        options
    }
}

impl Learned {
    fn of(args: &LearnArgs, golden: &GoldenParts, skipped: usize) -> Self {
        let report = golden.model.report();
        Self {
            golden: args.out.clone(),
            tokens: golden.tokens.clone(),
            parts: report.parts,
            grid: report.size,
            threshold: report.frame.map(|frame| frame.value),
            false_alarms: args.false_alarms,
            rests_on: report.frame.map(|frame| match frame.source {
                ThresholdSource::Conformal => "rank",
                ThresholdSource::TailExtrapolation | ThresholdSource::Prediction => "extrapolation",
                ThresholdSource::Maximum => "largest score",
            }),
            floor: report.floor,
            note: report.note(),
            skipped,
        }
    }
}

fn compare(args: &CompareArgs, format: Format) -> Result<()> {
    let files = scan_images(&args.images)?;
    let golden = GoldenParts::load(&args.golden)?;
    let encoder = args.encoder(&golden)?;
    let skipped = decode_each(&files, |index, image| {
        let file = &files[index];
        let found = compare_golden(encoder.as_ref(), &golden, &image.frame())
            .with_context(|| format!("{} cannot be compared", file.display()))?;
        print_line(&golden, &found, file, format)?;
        match &args.heat {
            Some(folder) => draw_heat(folder, file, image, &found.heat),
            None => Ok(()),
        }
    })?;
    check_any_left(files.len(), &skipped)?;
    if !skipped.is_empty() {
        bail!(
            "{} of {} images were not compared; the reasons are above, replace the files",
            skipped.len(),
            files.len()
        );
    }
    Ok(())
}

impl CompareArgs {
    /// The encoder, where the golden parts need one.
    fn encoder(&self, golden: &GoldenParts) -> Result<Option<Encoder>> {
        match (&golden.encoder, &self.bundle) {
            (None, _) => Ok(None),
            (Some(_), None) => bail!(
                "{} was learned from an encoder's patch tokens; name its bundle with --bundle",
                self.golden.display()
            ),
            (Some(_), Some(bundle)) => Ok(Some(self.engine.open(bundle)?)),
        }
    }
}

fn print_line(
    golden: &GoldenParts,
    found: &GoldenScore,
    file: &Path,
    format: Format,
) -> Result<()> {
    let line = Line {
        path: file.display().to_string(),
        score: found.score,
        threshold: golden.model.report().frame.map(|frame| frame.value),
        p_value: found.p_value,
        differs: found.differs,
        hottest: found.heat.values.iter().copied().fold(0.0, f32::max),
        shift: found.shift,
        nearest: found.nearest.map(|part| golden.sources[part].as_str()),
    };
    format.print(&line, |line| {
        let says = match line.differs {
            Some(true) => "  differs",
            Some(false) => "  as the golden parts",
            None => "",
        };
        let threshold = line
            .threshold
            .map_or(String::new(), |value| format!(" (threshold {value:.4})"));
        format!("{}  score {:.4}{threshold}{says}", line.path, line.score)
    })
}
