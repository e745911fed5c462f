//! Frames that are given up, and several threads over one encoder while it happens. Run under ThreadSanitizer by tests/sanitize.sh.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use ssl_edge_bundle::{
    ArchSpec, Bundle, BundleWriter, EncoderSpec, GoldenSpec, Pooling, PreprocessSpec, Provenance,
};
use ssl_edge_nn::{Gelu, Params, Vit, VitConfig, tensors_to_bytes};
use ssl_edge_runtime::{
    CancelToken, Embedding, Encoder, EngineKind, Interruption, Limit, Options, RuntimeError,
};
use ssl_edge_vision::{Frame, PixelFormat, stream};

const SIZE: usize = 32;
const DEPTH: usize = 6;

fn config() -> VitConfig {
    VitConfig {
        dim: 64,
        depth: DEPTH,
        heads: 2,
        patch: 4,
        registers: 1,
        mlp_ratio: 4,
        image_size: [SIZE; 2],
        gelu: Gelu::Tanh,
        eps: 1e-6,
    }
}

/// A bundle of random weights, for the native engine alone.
fn bundle() -> Bundle {
    let config = config();
    let mut params = Params::new();
    Vit::init(&config, &mut params, "", &mut stream(1, 0, 0, 0)).unwrap();
    let tensors = params.to_map();
    let vit = Vit::load(&config, &tensors).unwrap();
    let input = Tensor::zeros((1, 3, SIZE, SIZE), candle_core::DType::F32, &Device::Cpu).unwrap();
    let tokens = vit.forward(&input).unwrap();
    let patches = tokens.narrow(1, 2, 64).unwrap().mean(1).unwrap();
    let cls = tokens.narrow(1, 0, 1).unwrap().squeeze(1).unwrap();
    let golden = BTreeMap::from([
        ("input".to_owned(), input),
        ("cls".to_owned(), cls.contiguous().unwrap()),
        ("patch_mean".to_owned(), patches),
    ]);
    let writer = BundleWriter {
        encoder: EncoderSpec::Arch(ArchSpec {
            name: "tiny".to_owned(),
            dim: config.dim,
            depth: config.depth,
            heads: config.heads,
            patch: config.patch,
            registers: config.registers,
            mlp_ratio: config.mlp_ratio,
            image_size: config.image_size,
            gelu: "tanh".to_owned(),
            eps: config.eps,
        }),
        preprocess: PreprocessSpec {
            height: SIZE as u32,
            width: SIZE as u32,
            fit: "squash".to_owned(),
            mean: [0.5; 3],
            std: [0.25; 3],
        },
        pooling: Pooling::Cls,
        provenance: Provenance::default(),
        licence: None,
        golden: GoldenSpec {
            count: 1,
            tolerance: 1e-4,
        },
        weights: tensors_to_bytes(&tensors).unwrap(),
        onnx: b"not for this engine".to_vec(),
        golden_vectors: tensors_to_bytes(&golden).unwrap(),
        variants: Vec::new(),
        extra: Vec::new(),
    };
    let path = Path::new("tiny.sslb");
    Bundle::from_bytes(path, writer.to_bytes(path).unwrap()).unwrap()
}

fn encoder(threads: usize) -> Encoder {
    let options = Options {
        threads,
        ..Options::default()
    };
    Encoder::from_bundle(&bundle(), &options).unwrap()
}

fn pixels(seed: usize) -> Vec<u8> {
    (0..SIZE * SIZE)
        .map(|i| (i * 7 + seed * 31) as u8)
        .collect()
}

fn frame(pixels: &[u8]) -> Frame<'_> {
    Frame::new(
        pixels,
        SIZE,
        SIZE as u32,
        SIZE as u32,
        PixelFormat::Gray8,
        None,
    )
    .unwrap()
}

fn interruption(result: Result<Embedding, RuntimeError>) -> (Interruption, String) {
    match result {
        Err(error @ RuntimeError::Interrupted { reason, .. }) => (reason, error.to_string()),
        other => panic!("{:?}", other.map(|_| "an embedding")),
    }
}

#[test]
fn a_time_that_is_over_and_a_token_that_is_flipped_end_the_call_and_nothing_else() {
    let (encoder, bytes) = (encoder(2), pixels(1));
    let want = encoder.embed(&frame(&bytes)).unwrap();

    let over = Limit::at(Instant::now());
    let (reason, text) = interruption(encoder.embed_within(&frame(&bytes), &over));
    assert_eq!(reason, Interruption::Deadline);
    assert!(
        text.contains("0 of 1 frames") && text.contains("ready"),
        "{text}"
    );

    let token = CancelToken::default();
    let limit = Limit::within(Duration::from_secs(3600)).or_when(&token);
    assert_eq!(encoder.embed_within(&frame(&bytes), &limit).unwrap(), want);
    token.cancel();
    let (reason, text) = interruption(encoder.embed_within(&frame(&bytes), &limit));
    assert_eq!(reason, Interruption::Cancelled);
    assert!(text.ends_with("ready for other frames"), "{text}");
    let two = [frame(&bytes), frame(&bytes)];
    let given_up = encoder.embed_batch_within(&two, &limit).unwrap_err();
    assert!(given_up.to_string().contains("0 of 2 frames"), "{given_up}");
    token.reset();
    assert_eq!(encoder.embed_within(&frame(&bytes), &limit).unwrap(), want);
    assert_eq!(
        encoder.embed_batch_within(&two, &limit).unwrap(),
        encoder.embed_batch(&two).unwrap()
    );
}

#[test]
fn an_error_says_how_far_the_call_came() {
    let encoder = encoder(1);
    let batch = 64;
    let input = vec![0.5; batch * encoder.preprocess().len()];
    let (mut cls, mut patches) = (vec![0.0; batch * 64], vec![0.0; batch * 64 * 64]);
    let mut seen = 0;
    // Long enough for some frames and too short for all; how many is the machine's affair.
    for micros in std::iter::successors(Some(100), |micros| Some(2 * micros)) {
        let limit = Limit::within(Duration::from_micros(micros));
        match encoder.tokens_until(&input, batch, &mut cls, &mut patches, &limit) {
            Ok(()) => break,
            Err(RuntimeError::Interrupted { reached, .. }) => {
                assert_eq!((reached.of_frames, reached.of_steps), (batch, DEPTH));
                assert!(
                    reached.frames < batch && reached.steps < DEPTH,
                    "{reached:?}"
                );
                seen = seen.max(reached.frames);
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(seen > 0, "no call was given up between frames");
}

#[test]
fn threads_that_give_up_change_no_bit_of_the_others() {
    for threads in [1, 3] {
        let encoder = encoder(threads);
        let frames: Vec<Vec<u8>> = (0..4).map(pixels).collect();
        let want: Vec<Embedding> = frames
            .iter()
            .map(|bytes| encoder.embed(&frame(bytes)).unwrap())
            .collect();
        let (token, given_up) = (CancelToken::default(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for caller in 0..4 {
                let (encoder, frames, want) = (&encoder, &frames, &want);
                let (token, given_up) = (&token, &given_up);
                scope.spawn(move || {
                    for round in 0..40 {
                        let index = (caller + round) % 4;
                        let limit = match (caller + round) % 3 {
                            0 => Limit::default(),
                            1 => Limit::within(Duration::from_micros(40 * round as u64)),
                            _ => Limit::default().or_when(token),
                        };
                        match encoder.embed_within(&frame(&frames[index]), &limit) {
                            Ok(found) => assert!(found == want[index], "{caller} {round}"),
                            Err(RuntimeError::Interrupted { .. }) => {
                                given_up.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(other) => panic!("{other}"),
                        }
                    }
                });
            }
            for flip in 0..40 {
                if flip % 2 == 0 {
                    token.cancel()
                } else {
                    token.reset()
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        // Round 1 of caller 0 has no time at all.
        assert!(given_up.into_inner() > 0);
        let after = encoder.embed(&frame(&frames[2])).unwrap();
        assert_eq!(after, want[2]);
    }
}

#[test]
fn the_report_is_of_the_engine_that_runs() {
    let report = encoder(2).report(5).unwrap();
    assert_eq!(
        (report.name.as_str(), report.dim, report.grid),
        ("tiny", 64, [8, 8])
    );
    assert_eq!(
        (report.engine, report.threads),
        (EngineKind::Native, Some(2))
    );
    assert!(report.isa.is_some() && report.memory.is_some_and(|bytes| bytes > 100_000));
    assert!(report.self_test.passed());
    let latency = report.latency;
    assert_eq!(latency.frames, 5);
    assert!(latency.min <= latency.p50 && latency.p50 <= latency.p99 && latency.p99 <= latency.max);
    assert!(!latency.min.is_zero());
    if cfg!(target_os = "linux") {
        assert!(report.resident > report.memory);
    }
}
