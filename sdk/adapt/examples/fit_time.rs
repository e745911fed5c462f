//! Times of the job's operations on random embeddings, on one thread.
//!
//! `cargo run --release -p ssl-edge-adapt --example fit_time -- [dim] [samples] [classes]` (defaults 384, 100, 10)

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use ssl_edge_adapt::{EncoderId, FitOptions, HeadKind, Job, SampleMeta};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sizes: Vec<usize> = std::env::args()
        .skip(1)
        .map(|arg| arg.parse())
        .collect::<Result<_, _>>()?;
    let size = |i: usize, default| sizes.get(i).copied().unwrap_or(default);
    let (dim, n_samples, n_classes) = (size(0, 384), size(1, 100), size(2, 10));
    let mut rng = ChaCha8Rng::from_seed([1; 32]);
    let mut value = move || (rng.next_u32() as f32 / u32::MAX as f32) - 0.5;
    let mut embedding = |class: usize| -> Vec<f32> {
        let row: Vec<f32> = (0..dim)
            .map(|j| value() + if j % n_classes == class { 0.2 } else { 0.0 })
            .collect();
        let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        row.iter().map(|x| x / norm).collect()
    };
    let mut job = Job::new(EncoderId { hash: [0; 32], dim });
    let classes = (0..n_classes)
        .map(|c| job.add_class(&format!("class {c}")))
        .collect::<Result<Vec<_>, _>>()?;
    for i in 0..n_samples {
        job.add_sample(
            classes[i % n_classes],
            &embedding(i % n_classes),
            SampleMeta::default(),
        )?;
    }
    println!("{dim} features, {n_samples} samples, {n_classes} classes; best of 50");
    for head in [HeadKind::Discriminant, HeadKind::Ridge, HeadKind::Prototype] {
        let options = FitOptions {
            head,
            ..FitOptions::default()
        };
        let fit = best(|| job.fit(&options).map(drop))?;
        let report = job.fit(&options)?;
        let frame = embedding(0);
        let inspect = best(|| job.inspect(&frame).map(drop))?;
        println!(
            "{head:?}: fit {fit:.3} ms, inspect {inspect:.4} ms, leave-one-out accuracy {:?}",
            report.loo_accuracy
        );
    }
    let path = std::env::temp_dir().join("fit_time.sslj");
    let save = best(|| job.save(&path))?;
    let load = best(|| Job::load(&path).map(drop))?;
    println!(
        "save {save:.3} ms, load {load:.3} ms, {} bytes",
        std::fs::metadata(&path)?.len()
    );
    std::fs::remove_file(&path)?;
    Ok(())
}

/// Milliseconds of the fastest of 50 runs: what the work takes when nothing else runs.
fn best<E>(mut work: impl FnMut() -> Result<(), E>) -> Result<f64, E> {
    let mut best = f64::INFINITY;
    for _ in 0..50 {
        let start = Instant::now();
        work()?;
        best = best.min(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(best)
}
