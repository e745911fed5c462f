//! Several threads over one encoder: each gets the bits that it would get alone.

#![cfg(feature = "train")]

use std::sync::Barrier;

use ssl_edge::encoder::{Embedding, Encoder, EngineKind, Options, Pooling};
use ssl_edge::export::random_bundle;
use ssl_edge::vision::{Frame, PixelFormat};

const THREADS: u64 = 6;
const ROUNDS: usize = 4;
const FORMATS: [PixelFormat; 5] = [
    PixelFormat::Gray8,
    PixelFormat::Nv12,
    PixelFormat::BayerGb8,
    PixelFormat::Mono12p,
    PixelFormat::Bgr8,
];

/// A frame of its own for every thread and round, so that mixed buffers cannot go unseen.
fn embed(encoder: &Encoder, thread: u64, round: usize) -> Embedding {
    let format = FORMATS[(thread as usize + round) % FORMATS.len()];
    let (width, height) = (64 + 8 * thread as u32, 48);
    let stride = format.row_bytes(width) + round;
    let bytes: Vec<u8> = (0..stride as u64 * u64::from(height) * 3 / 2)
        .map(|i| ((i + 97 * thread + round as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect();
    let frame = Frame::new(&bytes, stride, width, height, format, None).expect("a frame");
    encoder.embed(&frame).expect("the frame can be embedded")
}

#[test]
fn threads_that_share_an_encoder_get_what_each_would_get_alone() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = folder.path().join("random.sslb");
    random_bundle("vit_n16", 3, 64, Pooling::ClsMean, &path).expect("a bundle");
    for engine in EngineKind::available() {
        for threads in [1, 2] {
            let options = Options {
                engine: *engine,
                threads,
                ..Options::default()
            };
            let encoder = Encoder::open(&path, &options).expect("the bundle opens");
            let alone: Vec<Vec<Embedding>> = (0..THREADS)
                .map(|t| (0..ROUNDS).map(|r| embed(&encoder, t, r)).collect())
                .collect();
            assert_ne!(alone[0][0], alone[1][0]);
            let start = Barrier::new(THREADS as usize);
            std::thread::scope(|scope| {
                for (thread, alone) in (0..).zip(&alone) {
                    let (encoder, start) = (&encoder, &start);
                    scope.spawn(move || {
                        start.wait();
                        for (round, alone) in alone.iter().enumerate() {
                            let together = embed(encoder, thread, round);
                            assert!(together == *alone, "{engine} {thread} {round}");
                        }
                    });
                }
            });
        }
    }
}
