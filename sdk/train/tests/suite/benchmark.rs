//! The benchmark of a step over ranks that share its batch.

use std::thread;
use std::time::Duration;

use ssl_edge_train::collective::{Collective, Threads};
use ssl_edge_train::{BenchStep, ComputeConfig, MethodName, TrainError, bench_step};

/// What each of two ranks measures of a step of `batch` images.
fn on_two_ranks(batch: usize) -> Vec<Result<BenchStep, TrainError>> {
    let ranks = Threads::ranks(2, Duration::from_secs(60));
    thread::scope(|scope| {
        let mut running = Vec::new();
        for rank in &ranks {
            running.push(scope.spawn(move || {
                let compute = ComputeConfig::default();
                let ranks: &dyn Collective = rank;
                bench_step(MethodName::Mae, "vit_n16", 32, batch, 1, &compute, ranks)
            }));
        }
        running
            .into_iter()
            .map(|rank| rank.join().unwrap())
            .collect()
    })
}

#[test]
fn ranks_share_a_batch_that_divides_among_them() {
    for measured in on_two_ranks(2) {
        let step = measured.unwrap();
        assert!(step.ms > 0.0 && step.gflops > 0.0);
        // Images of both ranks, over a rank's own time.
        assert!((step.img_per_s * step.ms / 1e3 - 2.0).abs() < 1e-9);
    }
    for refused in on_two_ranks(3) {
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("schedule.batch"), "{error}");
    }
}
