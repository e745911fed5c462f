//! Speed of the DINO augmentation: `cargo run --release -p ssl-edge-vision --example augment [threads]`.
//!
//! 64 images a batch, 2 global views of 128 px and 8 local views of 64 px each; prints images a second and the time of one
//! image on one thread, for grey and RGB sources.

use std::time::Instant;

use ssl_edge_vision::{
    IMAGENET_MEAN, IMAGENET_STD, Image, MultiCrop, Pixels, Station, Surface, multi_crop_batch,
};

const BATCH: usize = 64;
const ROUNDS: usize = 12;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let threads = match std::env::args().nth(1) {
        Some(n) => n.parse()?,
        None => 1,
    };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()?;
    println!("{threads} thread(s), batch {BATCH}, 2 x 128 px + 8 x 64 px");
    for size in [128, 200] {
        let gray: Vec<Image> = (0..BATCH as u64)
            .map(|seed| Station::new(seed).photo(Surface::ALL[seed as usize % 5], size, seed))
            .collect();
        let rgb = gray.iter().map(colour).collect::<Result<Vec<_>, _>>()?;
        for (name, images) in [("grey", gray), ("rgb", rgb)] {
            let seconds = pool.install(|| median_seconds(&images));
            let rate = BATCH as f64 / seconds;
            let core_ms = 1e3 * threads as f64 / rate;
            println!("{name} {size} px: {rate:.0} img/s, {core_ms:.2} ms an image and thread");
        }
    }
    Ok(())
}

fn colour(image: &Image) -> Result<Image, ssl_edge_vision::FrameError> {
    let Pixels::Gray8(gray) = image.pixels() else {
        return Ok(image.clone());
    };
    let rgb = gray
        .iter()
        .flat_map(|&v| [v, 255 - v, v / 2 + 60])
        .collect();
    Image::new(image.width(), image.height(), Pixels::Rgb8(rgb))
}

fn median_seconds(images: &[Image]) -> f64 {
    let crops = MultiCrop::dino(128, [0.4, 1.0], 64, [0.05, 0.4], 8);
    let refs: Vec<&Image> = images.iter().collect();
    let ids: Vec<u64> = (0..BATCH as u64).collect();
    let mut times: Vec<f64> = (0..ROUNDS as u64)
        .map(|step| {
            let start = Instant::now();
            let views = multi_crop_batch(&refs, &crops, IMAGENET_MEAN, IMAGENET_STD, 0, step, &ids);
            std::hint::black_box(views);
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[ROUNDS / 2]
}
