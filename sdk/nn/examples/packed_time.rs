//! Times the packed encoder: `packed_time ARCH THREADS BATCH [ISA]`, f32 and int8, median of 31 runs in turns.

use std::time::Instant;

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use ssl_edge_nn::infer::{EncoderWeights, Isa, PackedOptions, PackedVit, Stored};
use ssl_edge_nn::{Error, Params, Vit, VitConfig};

const RUNS: usize = 31;

/// Every linear layer as int8; what the values are does not change the time.
fn int8(weights: &EncoderWeights, config: &VitConfig) -> EncoderWeights {
    let mut weights = weights.clone();
    for name in EncoderWeights::layer_names(config) {
        let stored = weights.0.get_mut(&format!("{name}.weight"));
        let stored = stored.expect("the layer is there");
        let dims = [stored.dims()[0], stored.dims()[1]];
        let values = stored.to_f32();
        *stored = Stored::I8 {
            dims,
            values: values.iter().map(|v| (v * 1000.0) as i8).collect(),
            scale: vec![1e-3; dims[0]],
        };
    }
    weights
}

fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |i: usize, default: usize| args.get(i).and_then(|a| a.parse().ok()).unwrap_or(default);
    let config = VitConfig::named(args.first().map_or("vit_s16", String::as_str))?;
    let (threads, batch) = (number(1, 2), number(2, 1));
    let isa = args
        .get(3)
        .and_then(|name| Isa::ALL.into_iter().find(|isa| isa.name() == name));
    let options = PackedOptions {
        threads,
        images: batch.min(8),
        isa: isa.unwrap_or_else(Isa::detect),
    };
    let mut params = Params::new();
    Vit::init(&config, &mut params, "", &mut ChaCha8Rng::seed_from_u64(1))?;
    let float = EncoderWeights::from_tensors(&params.to_map())?;
    let int8 = int8(&float, &config);
    let encoders = [
        ("f32", PackedVit::new(&config, float.clone(), &options)?),
        ("int8", PackedVit::new(&config, int8.clone(), &options)?),
    ];
    let [height, width] = config.image_size;
    let grid = config.grid(config.image_size)?;
    let images: Vec<f32> = (0..batch * 3 * height * width)
        .map(|i| (i as f32).sin())
        .collect();
    let mut cls = vec![0.0; batch * config.dim];
    let mut patches = vec![0.0; batch * grid[0] * grid[1] * config.dim];
    let mut times = [vec![], vec![]];
    for run in 0..RUNS + 3 {
        for ((_, encoder), times) in encoders.iter().zip(&mut times) {
            let start = Instant::now();
            encoder.run(&images, batch, &mut cls, &mut patches)?;
            if run >= 3 {
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    for ((name, encoder), times) in encoders.iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        println!(
            "{name} {} threads {threads} batch {batch}: {:.2} ms (fastest {:.2}), weights {:.1} MiB, work {:.1} MiB",
            options.isa,
            times[RUNS / 2],
            times[0],
            encoder.weight_bytes() as f64 / 1048576.0,
            encoder.work_bytes() as f64 / 1048576.0,
        );
    }
    Ok(())
}
