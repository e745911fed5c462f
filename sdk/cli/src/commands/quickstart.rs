//! `quickstart`: the whole path on procedural metal surfaces, without a camera, a data set or a download.

use super::Threads;
use crate::output::{Format, Table, note, percent};
use crate::progress::observer;
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use ssl_edge::augment::copies;
use ssl_edge::encoder::{Encoder, EngineKind, Options, Pooling, embed_files};
use ssl_edge::export::{ExportOptions, export_run, random_bundle};
use ssl_edge::feature::features_of_copies;
use ssl_edge::job::{
    EncoderId, FitOptions, Job, SampleMeta, Seen, feature_for, job_for, teach_seen,
};
use ssl_edge::train::collective::launched;
use ssl_edge::train::{MethodName, Request, RunOptions, pretrain};
use ssl_edge::vision::{ClassFolder, Image, Station, Surface, decode_file, raw_pixels};
use std::path::{Path, PathBuf};
use std::time::Instant;

const ARCH: &str = "vit_n8";
const SIZE: u32 = 64;
const POOLING: Pooling = Pooling::Mean;
/// Side of the small picture whose pixels are the baseline.
const RAW_SIDE: u32 = 32;
/// Frames of each surface: to train on without labels, to calibrate with, to inspect.
const N_UNLABELLED: usize = 400;
const N_SAMPLES: usize = 5;
const N_FRESH: usize = 60;
/// Images in a batch, and images seen in training, to fit two cores and two minutes. MAE, because so short a run teaches it
/// something; DINO collapses in it, and has learned from runs of 37,000 images.
const METHOD: MethodName = MethodName::Mae;
const BATCH: u32 = 16;
const N_TRAIN: u32 = 16_000;
const BASE_LR: f64 = 4e-3;

/// The whole path on procedural metal surfaces.
#[derive(Args)]
pub(crate) struct QuickstartArgs {
    /// Keep images, run, bundle and job in this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Images to train on, repeats counted; fewer are faster and teach less
    #[arg(long, default_value_t = N_TRAIN, value_name = "N", value_parser = clap::value_parser!(u32).range(i64::from(BATCH)..))]
    images: u32,
    #[command(flatten)]
    threads: Threads,
}

#[derive(Serialize)]
struct Report {
    seconds: f64,
    accuracy: Accuracy,
    #[serde(skip_serializing_if = "Option::is_none")]
    out: Option<PathBuf>,
}

#[derive(Serialize)]
struct Accuracy {
    /// The job that is saved: encoder and texture.
    job: f64,
    /// The encoder's mean patch token alone.
    encoder: f64,
    random: f64,
    texture: f64,
    raw_pixels: f64,
}

/// Labelled frames on both sides of a job.
struct Frames {
    samples: ClassFolder,
    fresh: ClassFolder,
}

/// Trains, exports, calibrates, inspects, and compares with what needs no training.
pub(crate) fn run(args: &QuickstartArgs, format: Format) -> Result<()> {
    if let Some(launch) = launched()? {
        bail!(
            "quickstart trains in one process and {} were started; start one, or use `ssl-edge pretrain`",
            launch.world
        );
    }
    args.threads.apply();
    let start = Instant::now();
    let temporary;
    let folder = match &args.out {
        Some(folder) => folder.as_path(),
        None => {
            temporary = tempfile::tempdir()
                .context("cannot make a temporary folder; check TMPDIR and the disk")?;
            temporary.path()
        }
    };
    let threads = args.threads.count();
    let frames = draw(folder)?;
    let bundle = train(folder, args.images, threads)?;
    let random = folder.join("random.sslb");
    random_bundle(ARCH, 0, SIZE, POOLING, &random)?;
    note(format_args!(
        "calibrating with {N_SAMPLES} frames a class, inspecting {} fresh frames",
        frames.fresh.samples.len()
    ));
    let of_bundle = |bundle: &Path| Features::of(bundle, &frames, threads);
    let (trained, random) = (of_bundle(&bundle)?, of_bundle(&random)?);
    let job = trained.teach(&frames, None)?;
    job.save(&folder.join("station.sslj"))?;
    let accuracy = Accuracy {
        job: trained.share_right(&job, &frames.fresh)?,
        encoder: trained.accuracy(&frames, "mean")?,
        random: random.accuracy(&frames, "mean")?,
        texture: trained.accuracy(&frames, "texture")?,
        raw_pixels: raw_accuracy(&frames)?,
    };
    let report = Report {
        seconds: start.elapsed().as_secs_f64(),
        accuracy,
        out: args.out.clone(),
    };
    format.print(&report, human)
}

fn draw(folder: &Path) -> Result<Frames> {
    let n_classes = Surface::ALL.len();
    note(format_args!(
        "drawing {} photos of metal surfaces without labels",
        N_UNLABELLED * n_classes
    ));
    let parts = [
        ("unlabelled", N_UNLABELLED),
        ("samples", N_SAMPLES),
        ("fresh", N_FRESH),
    ];
    for (seed, (name, n_per_class)) in parts.into_iter().enumerate() {
        Station::new(0)
            .write(
                &folder.join(name),
                &Surface::ALL,
                n_per_class,
                SIZE,
                seed as u64,
            )
            .with_context(|| format!("cannot write the surfaces into {}", folder.display()))?;
    }
    Ok(Frames {
        samples: ClassFolder::scan(&folder.join("samples"))?,
        fresh: ClassFolder::scan(&folder.join("fresh"))?,
    })
}

fn train(folder: &Path, n_images: u32, threads: usize) -> Result<PathBuf> {
    let set = vec![
        format!("image_size={SIZE}"),
        format!("schedule.batch={BATCH}"),
        format!("schedule.images={n_images}"),
        format!("optimizer.base_lr={BASE_LR}"),
        format!("threads={threads}"),
        "checkpoint.keep=1".into(),
    ];
    let request = Request {
        method: METHOD,
        arch: ARCH.into(),
        data: vec![folder.join("unlabelled")],
        config: None,
        set,
        probe: None,
    };
    let run = folder.join("run");
    let config = request.resolve()?;
    pretrain(
        &config,
        &RunOptions {
            folder: run.clone(),
            resume: false,
        },
        observer(&config).as_ref(),
    )?;
    let bundle = folder.join("encoder.sslb");
    export_run(
        &run,
        &ExportOptions {
            pooling: POOLING,
            licence: None,
        },
        &bundle,
    )?;
    Ok(bundle)
}

/// What jobs over one encoder see of the frames.
struct Features {
    empty: Job,
    samples: Vec<Seen>,
    fresh: Vec<Vec<f32>>,
}

impl Features {
    fn of(bundle: &Path, frames: &Frames, threads: usize) -> Result<Self> {
        let engine = EngineKind::Native;
        let encoder = Encoder::open(
            bundle,
            &Options {
                engine,
                threads,
                ..Options::default()
            },
        )?;
        let empty = job_for(&encoder);
        let files = |folder: &ClassFolder| -> Vec<PathBuf> {
            let samples = folder.samples.iter();
            samples.map(|(path, _)| path.clone()).collect()
        };
        let (mut samples, mut fresh) = (Vec::new(), Vec::new());
        embed_files(&encoder, &files(&frames.samples), |_, image, embedding| {
            samples.push(Seen {
                feature: feature_for(&encoder, &empty, embedding, &image.frame())?,
                copies: features_of_copies(&encoder, image, empty.layout().parts())?,
                tokens: None,
            });
            Ok(())
        })?;
        embed_files(&encoder, &files(&frames.fresh), |_, image, embedding| {
            fresh.push(feature_for(&encoder, &empty, embedding, &image.frame())?);
            Ok(())
        })?;
        Ok(Self {
            empty,
            samples,
            fresh,
        })
    }

    /// A job fitted on the samples, on one part of the features or on those that jobs prefer.
    fn teach(&self, frames: &Frames, part: Option<&str>) -> Result<Job> {
        let options = FitOptions {
            parts: part.map(|part| vec![part.into()]),
            ..FitOptions::default()
        };
        teach(self.empty.clone(), &self.samples, &frames.samples, &options)
    }

    fn share_right(&self, job: &Job, fresh: &ClassFolder) -> Result<f64> {
        share_right(job, &self.fresh, fresh)
    }

    fn accuracy(&self, frames: &Frames, part: &str) -> Result<f64> {
        self.share_right(&self.teach(frames, Some(part))?, &frames.fresh)
    }
}

fn teach(
    mut job: Job,
    samples: &[Seen],
    folder: &ClassFolder,
    options: &FitOptions,
) -> Result<Job> {
    let classes = folder
        .classes
        .iter()
        .map(|name| job.add_class(name))
        .collect::<Result<Vec<_>, _>>()?;
    for (sample, (path, class)) in samples.iter().zip(&folder.samples) {
        let meta = SampleMeta {
            source: path.display().to_string(),
            unix_time: 0,
        };
        teach_seen(&mut job, classes[*class], sample, meta, Vec::new())?;
    }
    job.fit(options)?;
    Ok(job)
}

/// The same head on the pixels of a small picture.
fn raw_accuracy(frames: &Frames) -> Result<f64> {
    let images = |folder: &ClassFolder| -> Result<Vec<Image>> {
        let samples = folder.samples.iter();
        samples.map(|(path, _)| Ok(decode_file(path)?)).collect()
    };
    let feature = |image: &Image| raw_pixels(image, RAW_SIDE);
    let sample = |image: &Image| Seen {
        feature: feature(image),
        copies: copies(image).iter().map(feature).collect(),
        tokens: None,
    };
    let samples: Vec<Seen> = images(&frames.samples)?.iter().map(sample).collect();
    let fresh: Vec<Vec<f32>> = images(&frames.fresh)?.iter().map(feature).collect();
    let empty = Job::new(EncoderId {
        hash: [0; 32],
        dim: samples[0].feature.len(),
    });
    let job = teach(empty, &samples, &frames.samples, &FitOptions::default())?;
    share_right(&job, &fresh, &frames.fresh)
}

fn share_right(job: &Job, features: &[Vec<f32>], folder: &ClassFolder) -> Result<f64> {
    let mut n_right = 0;
    for (feature, (_, class)) in features.iter().zip(&folder.samples) {
        n_right += usize::from(job.inspect(feature)?.name == folder.classes[*class]);
    }
    Ok(n_right as f64 / features.len() as f64)
}

fn human(report: &Report) -> String {
    let mut table = Table::new(&["features", "accuracy"]);
    table
        .row(vec![
            "job: this encoder and texture".into(),
            percent(report.accuracy.job),
        ])
        .row(vec![
            format!("this encoder ({}) alone", METHOD.as_str().to_uppercase()),
            percent(report.accuracy.encoder),
        ])
        .row(vec![
            "the same encoder, random weights".into(),
            percent(report.accuracy.random),
        ])
        .row(vec![
            "texture alone (HOG + LBP)".into(),
            percent(report.accuracy.texture),
        ])
        .row(vec![
            format!("raw pixels {RAW_SIDE}x{RAW_SIDE}"),
            percent(report.accuracy.raw_pixels),
        ]);
    let n_classes = Surface::ALL.len();
    let next = match &report.out {
        Some(out) => format!(
            "Try next:\n  ssl-edge inspect --bundle {0}/encoder.sslb --job {0}/station.sslj {0}/fresh\n  \
             ssl-edge eval fewshot --bundle {0}/encoder.sslb --data {0}/fresh\n  \
             ssl-edge pretrain --method dino --arch vit_n16 --data YOUR_PHOTOS --out runs/first",
            out.display()
        ),
        None => {
            "Try next:\n  ssl-edge quickstart --out DIR   (keeps images, run, bundle and job)\n  \
                 ssl-edge pretrain --method dino --arch vit_n16 --data YOUR_PHOTOS --out runs/first"
                .into()
        }
    };
    format!(
        "\n{}\n{N_SAMPLES} labelled frames for each of {n_classes} classes, {} fresh frames, {:.0} s\n\n{next}",
        table.render(),
        N_FRESH * n_classes,
        report.seconds
    )
}
