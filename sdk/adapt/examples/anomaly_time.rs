//! Times of the normal-only models on random tokens of a 14 x 14 grid, on one thread.
//!
//! `cargo run --release -p ssl-edge-adapt --example anomaly_time -- [good frames]` (default 8)

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use ssl_edge_adapt::AdaptError;
use ssl_edge_adapt::anomaly::{
    GoodFrame, Method, NeighbourOptions, Normal, NormalModel, NormalOptions, Rates, TokenGrid,
    TokenStatistics, frame_statistics,
};
use std::time::Instant;

const SIDE: usize = 14;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let n_good = std::env::args().nth(1).map_or(Ok(8), |arg| arg.parse())?;
    for dim in [192, 384] {
        let mut rng = ChaCha8Rng::from_seed([1; 32]);
        let mut value = move || (rng.next_u32() as f32 / u32::MAX as f32) - 0.5;
        let frames: Vec<Vec<f32>> = (0..=n_good)
            .map(|_| {
                (0..SIDE * SIDE * dim)
                    .map(|i| value() * 3.0 / (1 + i % dim) as f32)
                    .collect()
            })
            .collect();
        let grids = frames
            .iter()
            .map(|f| TokenGrid::new(f, [SIDE, SIDE], dim))
            .collect::<Result<Vec<_>, _>>()?;
        println!("{dim} values a token, {SIDE} x {SIDE} tokens, {n_good} good frames; best of 20");
        let pca = NormalOptions::default();
        let mut statistics = TokenStatistics::new(dim);
        for grid in &grids[..n_good] {
            statistics.merge(&frame_statistics(grid, &pca.prepare)?)?;
        }
        let one = frame_statistics(&grids[n_good], &pca.prepare)?;
        let of_frame = best(|| frame_statistics(&grids[n_good], &pca.prepare).map(drop))?;
        let merge = best(|| statistics.merge(&one))?;
        let forget = best(|| statistics.subtract(&one))?;
        println!(
            "  pca: statistics of a frame {of_frame:.2} ms; add {merge:.3} ms, forget {forget:.3} ms"
        );
        let fit = best(|| NormalModel::of_statistics(&statistics, &pca).map(drop))?;
        println!("  pca: fit from statistics {fit:.1} ms");
        let bank = NormalOptions {
            method: Method::Neighbours(NeighbourOptions::default()),
            ..pca
        };
        for options in [pca, bank] {
            let model = NormalModel::fit(&grids[..n_good], &options)?;
            let fit = best(|| NormalModel::fit(&grids[..n_good], &options).map(drop))?;
            let score = best(|| model.score(&grids[n_good]).map(drop))?;
            let good: Vec<GoodFrame<'_>> = grids[..n_good]
                .iter()
                .enumerate()
                .map(|(part, grid)| GoodFrame {
                    grid: *grid,
                    part,
                    copy_of: None,
                })
                .collect();
            let start = Instant::now();
            Normal::fit(&good, &options, &Rates::default())?;
            println!(
                "  {}: fit {fit:.1} ms, score {score:.2} ms, fit with leave-one-out {:.0} ms, {} bytes",
                options.method.name(),
                start.elapsed().as_secs_f64() * 1e3,
                model.bytes()
            );
        }
    }
    Ok(())
}

/// Milliseconds of the fastest of 20 runs: what the work takes when nothing else runs.
fn best(mut work: impl FnMut() -> Result<(), AdaptError>) -> Result<f64, AdaptError> {
    let mut best = f64::INFINITY;
    for _ in 0..20 {
        let start = Instant::now();
        work()?;
        best = best.min(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(best)
}
