//! Times of the job's operations on random embeddings, on one thread.
//!
//! `cargo run --release -p ssl-edge-adapt --example fit_time -- [dim] [samples] [classes]` (defaults 384, 100, 10)

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use ssl_edge_adapt::{
    AdaptError, EncoderId, FitOptions, HeadKind, Job, Layout, Part, SampleMeta, Verdict,
};
use std::time::Instant;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let sizes: Vec<usize> = std::env::args()
        .skip(1)
        .map(|arg| arg.parse())
        .collect::<Result<_, _>>()?;
    let size = |i: usize, default| sizes.get(i).copied().unwrap_or(default);
    let (dim, n_samples, n_classes) = (size(0, 384), size(1, 100), size(2, 10));
    let mut frames = Frames {
        rng: ChaCha8Rng::from_seed([1; 32]),
        dim,
        n_classes,
    };
    // Two halves as parts, so that a search has something to choose.
    let parts = vec![
        Part::new("first", dim.div_ceil(2)),
        Part::new("second", dim / 2),
    ];
    let layout = Layout::new(parts, &["first", "second"])?;
    let mut job = Job::with_layout(EncoderId { hash: [0; 32], dim }, layout)?;
    let classes = (0..n_classes)
        .map(|c| job.add_class(&format!("class {c}")))
        .collect::<Result<Vec<_>, _>>()?;
    for i in 0..n_samples {
        let class = i % n_classes;
        job.add_sample(classes[class], &frames.of(class), SampleMeta::default())?;
    }
    println!(
        "{dim} features, {n_samples} samples, {n_classes} classes; best and median of 50, in ms"
    );
    changes(&job, &mut frames)?;
    let search = FitOptions {
        search: true,
        ..FitOptions::default()
    };
    fits(&job, "default", &FitOptions::default(), &frames.of(0))?;
    fits(&job, "search", &search, &frames.of(0))?;
    for head in HeadKind::ALL {
        let options = FitOptions {
            head: Some(head),
            ..FitOptions::default()
        };
        fits(&job, head.name(), &options, &frames.of(0))?;
    }
    job.fit(&FitOptions::default())?;
    files(&job)
}

struct Frames {
    rng: ChaCha8Rng,
    dim: usize,
    n_classes: usize,
}

impl Frames {
    /// A noisy feature of a class, of norm 1.
    fn of(&mut self, class: usize) -> Vec<f32> {
        let noise = |rng: &mut ChaCha8Rng| (rng.next_u32() as f32 / u32::MAX as f32) - 0.5;
        let own = |j: usize| {
            if j % self.n_classes == class {
                0.2
            } else {
                0.0
            }
        };
        let row: Vec<f32> = (0..self.dim)
            .map(|j| noise(&mut self.rng) + own(j))
            .collect();
        let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        row.iter().map(|x| x / norm).collect()
    }
}

/// Each change on a job that was fitted, as an operator makes it.
fn changes(job: &Job, frames: &mut Frames) -> Result<(), AdaptError> {
    let mut job = job.clone();
    job.fit(&FitOptions::default())?;
    let (first, second) = (job.classes()[0].id, job.classes()[1].id);
    let sample = job.samples()[0].id;
    let frame = frames.of(0);
    let other = {
        let mut other = Job::with_layout(*job.encoder(), job.layout().clone())?;
        let class = other.add_class("class 0")?;
        for _ in 0..10 {
            other.add_sample(class, &frames.of(0), SampleMeta::default())?;
        }
        other
    };
    let time = |what: &str, change: &dyn Fn(&mut Job) -> Result<(), AdaptError>| {
        timed(what, || job.clone(), change)
    };
    time("add a sample", &|job| {
        job.add_sample(first, &frame, SampleMeta::default())
            .map(drop)
    })?;
    time("forget a sample", &|job| {
        job.remove_sample(sample).map(drop)
    })?;
    time("relabel a sample", &|job| {
        job.relabel_sample(sample, second)
    })?;
    time("merge two classes", &|job| job.merge_classes(first, second))?;
    time("remove a class", &|job| job.remove_class(first))?;
    time("merge a job of 10 samples", &|job| {
        job.merge(&other).map(drop)
    })?;
    let mut forgetful = job.clone();
    forgetful.remove_class(first)?;
    timed(
        "take a removed class back",
        || forgetful.clone(),
        |job: &mut Job| {
            job.undo();
            Ok::<_, AdaptError>(())
        },
    )
}

fn fits(job: &Job, what: &str, options: &FitOptions, frame: &[f32]) -> Result<(), AdaptError> {
    timed(
        &format!("fit ({what})"),
        || job.clone(),
        |job: &mut Job| job.fit(options).map(drop),
    )?;
    let mut job = job.clone();
    let report = job.fit(options)?;
    let inspect = |job: &mut Job| job.inspect(frame).map(|_: Verdict| ());
    timed("  inspect", || job.clone(), inspect)?;
    let accuracy = report
        .loo_accuracy
        .map_or("none".into(), |a| format!("{a:.3}"));
    println!(
        "    leave-one-out accuracy {accuracy}, parts {}",
        report.parts.join(" + ")
    );
    Ok(())
}

fn files(job: &Job) -> Result<(), Failure> {
    let path = std::env::temp_dir().join(format!("fit_time {}.sslj", std::process::id()));
    timed("save", || (), |()| job.save(&path))?;
    timed("load", || (), |()| Job::load(&path).map(drop))?;
    println!("    {} bytes", std::fs::metadata(&path)?.len());
    std::fs::remove_file(&path)?;
    Ok(())
}

/// Milliseconds of the fastest of 50 runs, which is what the work takes when nothing else runs, and of the middle one; making the
/// state that a run starts from is not counted.
fn timed<S, E>(
    what: &str,
    state: impl Fn() -> S,
    work: impl Fn(&mut S) -> Result<(), E>,
) -> Result<(), E> {
    let mut times = Vec::new();
    for _ in 0..50 {
        let mut state = state();
        let start = Instant::now();
        work(&mut state)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    println!("{what}: {:.4} ({:.4})", times[0], times[25]);
    Ok(())
}
