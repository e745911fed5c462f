//! Time of the preprocessing on one thread: `cargo run --release -p ssl-edge-vision --example preprocess [width height]`.
//!
//! A frame of 1920 x 1080 pixels of every format, squashed to 224 x 224 and normalised; the least and the median time of a frame in
//! milliseconds, and the bytes of the frame read a second. `preprocess_reference.py` beside this file times OpenCV and Pillow on the same work.

use std::time::Instant;

use ssl_edge_vision::{Fit, Frame, PixelFormat, Preprocess};

const ROUNDS: usize = 60;
const FORMATS: [PixelFormat; 15] = [
    PixelFormat::Gray8,
    PixelFormat::Gray16,
    PixelFormat::Mono10p,
    PixelFormat::Mono12p,
    PixelFormat::BayerRg8,
    PixelFormat::BayerGr8,
    PixelFormat::BayerGb8,
    PixelFormat::BayerBg8,
    PixelFormat::Rgb8,
    PixelFormat::Bgr8,
    PixelFormat::Rgba8,
    PixelFormat::Bgra8,
    PixelFormat::Rgb16,
    PixelFormat::Nv12,
    PixelFormat::Yuyv,
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sizes: Vec<u32> = std::env::args()
        .skip(1)
        .map(|size| size.parse())
        .collect::<Result<_, _>>()?;
    let (width, height) = match sizes[..] {
        [] => (1920, 1080),
        [width, height] => (width, height),
        _ => return Err("pass a width and a height, or nothing for 1920 1080".into()),
    };
    println!("{width} x {height} to 224 x 224, one thread");
    println!("| format | least ms | median ms | GB/s |\n|---|---|---|---|");
    for format in FORMATS {
        let stride = format.row_bytes(width);
        let bytes: Vec<u8> = (0..stride * height as usize * 3 / 2)
            .map(|i| ((i * 2_654_435_761) >> 13) as u8)
            .collect();
        let frame = Frame::new(&bytes, stride, width, height, format, None)?;
        let preprocess = Preprocess::imagenet(224, 224, Fit::Squash);
        let mut out = vec![0.0; preprocess.len()];
        let mut times = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let start = Instant::now();
            preprocess.apply(&frame, &mut out)?;
            times.push(start.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        let planes = if format == PixelFormat::Nv12 {
            1.5
        } else {
            1.0
        };
        let gigabytes = (stride * height as usize) as f64 * planes / 1e9;
        let (least, median) = (times[0], times[ROUNDS / 2]);
        println!(
            "| {format:?} | {:.2} | {:.2} | {:.1} |",
            1e3 * least,
            1e3 * median,
            gigabytes / least
        );
    }
    Ok(())
}
