//! Times the ops of one block, forward and backward, and the products behind `linear`.
//!
//! `cargo run --release -p ssl-edge-nn --example ops_time -- BATCH TOKENS THREADS [WIDTH HEADS]`, of ViT-S unless told; with `ONLY=attention` in the
//! environment that op alone

use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use candle_core::{Device, Tensor, Var};
use ssl_edge_nn::{Gelu, ops};

/// Milliseconds of the fastest of many runs: what else the machine does only adds.
fn least(mut f: impl FnMut()) -> f64 {
    let times = (0..25).map(|_| {
        let t = Instant::now();
        f();
        t.elapsed().as_secs_f64() * 1e3
    });
    times.fold(f64::INFINITY, f64::min)
}

fn var(shape: &[usize]) -> Var {
    Var::from_tensor(&Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap()).unwrap()
}

fn report(name: &str, gflop: f64, f: &dyn Fn() -> Tensor) {
    if std::env::var("ONLY").is_ok_and(|o| o != name) {
        return;
    }
    let forward = least(|| {
        f();
    });
    let both = least(|| {
        ssl_edge_nn::backward(&f()).unwrap();
    });
    let backward = both - forward;
    println!(
        "{name:<14} forward {forward:8.2} ms {:6.0} GFLOP/s   backward {backward:8.2} ms {:6.0} GFLOP/s",
        gflop / forward * 1e3,
        2.0 * gflop / backward * 1e3
    );
}

fn main() {
    let args: Vec<usize> = std::env::args()
        .skip(1)
        .map(|a| {
            a.parse()
                .expect("numbers: BATCH TOKENS THREADS [WIDTH HEADS]")
        })
        .collect();
    let (b, n, threads, d, heads) = match *args.as_slice() {
        [b, n, threads] => (b, n, threads, 384, 6),
        [b, n, threads, d, heads] => (b, n, threads, d, heads),
        _ => panic!("three or five numbers: BATCH TOKENS THREADS [WIDTH HEADS]"),
    };
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .unwrap();
    let m = (b * n) as f64;
    for (name, k, out) in [
        ("qkv", d, 3 * d),
        ("proj", d, d),
        ("fc1", d, 4 * d),
        ("fc2", 4 * d, d),
    ] {
        let (x, w, bias) = (var(&[b, n, k]), var(&[out, k]), var(&[out]));
        report(name, 2e-9 * m * (k * out) as f64, &|| {
            ops::linear(&x, &w, Some(&bias)).unwrap()
        });
    }
    let qkv = var(&[b, n, 3 * d]);
    report("attention", 4e-9 * m * (n * d) as f64, &|| {
        ops::attention(&qkv, heads).unwrap()
    });
    let hidden = var(&[b, n, 4 * d]);
    report("gelu tanh", 0.0, &|| {
        ops::gelu(&hidden, Gelu::Tanh).unwrap()
    });
    report("gelu erf", 0.0, &|| ops::gelu(&hidden, Gelu::Erf).unwrap());
    let (x, w, bias) = (var(&[b, n, d]), var(&[d]), var(&[d]));
    report("layer_norm", 0.0, &|| {
        ops::layer_norm(&x, &w, &bias, 1e-6).unwrap()
    });
}
