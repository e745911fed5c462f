//! The training graph, the native engine and tract give the same tokens for the same weights.

mod support;

use ssl_edge_bundle::Bundle;
use ssl_edge_export::export_encoder;
use ssl_edge_nn::candle::{Device, Tensor};
use ssl_edge_nn::{Gelu, Vit};
use ssl_edge_runtime::{Embedding, Encoder, EngineKind, Options, l2_normalize};
use ssl_edge_vision::{Image, Pixels, Station, Surface, preprocess_batch};
use support::{Trained, preprocess};

const TOLERANCE: f32 = 1e-4;
const BATCH: usize = 3;

struct Case {
    name: &'static str,
    trained: [usize; 2],
    run: [usize; 2],
    registers: usize,
    gelu: Gelu,
}

const CASES: [Case; 6] = [
    Case {
        name: "64 px",
        trained: [64, 64],
        run: [64, 64],
        registers: 0,
        gelu: Gelu::Tanh,
    },
    Case {
        name: "64 px, registers",
        trained: [64, 64],
        run: [64, 64],
        registers: 4,
        gelu: Gelu::Tanh,
    },
    Case {
        name: "64 px, erf",
        trained: [64, 64],
        run: [64, 64],
        registers: 4,
        gelu: Gelu::Erf,
    },
    Case {
        name: "not square",
        trained: [48, 80],
        run: [48, 80],
        registers: 4,
        gelu: Gelu::Erf,
    },
    Case {
        name: "larger than trained",
        trained: [64, 64],
        run: [96, 112],
        registers: 0,
        gelu: Gelu::Tanh,
    },
    Case {
        name: "smaller than trained",
        trained: [128, 96],
        run: [48, 64],
        registers: 2,
        gelu: Gelu::Tanh,
    },
];

#[test]
fn engines_agree_with_the_training_graph() {
    for case in &CASES {
        let trained = Trained::new(case.trained, case.registers, case.gelu);
        let preprocess = preprocess(case.run);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("encoder.sslb");
        export_encoder(
            &trained.export(&trained.tensors(), &preprocess).view(),
            &path,
        )
        .unwrap();

        let images = images();
        let input = preprocess_batch(&images.each_ref(), &preprocess).unwrap();
        let expected = graph_tokens(&trained, &input, case.run);
        for engine in [EngineKind::Native, EngineKind::Onnx] {
            let encoder = Encoder::open(
                &path,
                &Options {
                    engine,
                    threads: 1,
                    ..Options::default()
                },
            )
            .unwrap();
            let found = encoder.embed_preprocessed(&input, BATCH).unwrap();
            for (found, expected) in found.iter().zip(&expected) {
                let difference = difference(found, expected);
                assert!(
                    difference <= TOLERANCE,
                    "{}, {engine}: off by {difference:e}",
                    case.name
                );
            }
        }
    }
}

#[test]
fn the_images_of_the_parity_test_are_told_apart() {
    let trained = Trained::new([64, 64], 4, Gelu::Tanh);
    let images = images();
    let input = preprocess_batch(&images.each_ref(), &preprocess([64, 64])).unwrap();
    let tokens = graph_tokens(&trained, &input, [64, 64]);
    let apart = difference(&tokens[0], &tokens[1]).min(difference(&tokens[0], &tokens[2]));
    assert!(
        apart > 100.0 * TOLERANCE,
        "embeddings differ by only {apart:e}"
    );
}

#[test]
fn a_batch_gives_what_its_frames_give_alone_at_any_number_of_threads() {
    let trained = Trained::new([64, 64], 4, Gelu::Tanh);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("encoder.sslb");
    export_encoder(
        &trained
            .export(&trained.tensors(), &preprocess([64, 64]))
            .view(),
        &path,
    )
    .unwrap();
    let bundle = Bundle::open(&path).unwrap();

    let images = images();
    let frames = images.each_ref().map(Image::frame);
    for engine in [EngineKind::Native, EngineKind::Onnx] {
        let open = |threads| {
            Encoder::from_bundle(
                &bundle,
                &Options {
                    engine,
                    threads,
                    ..Options::default()
                },
            )
            .unwrap()
        };
        let (one, two) = (open(1), open(2));
        let batch = one.embed_batch(&frames).unwrap();
        for (frame, embedding) in frames.iter().zip(&batch) {
            assert_eq!(one.embed(frame).unwrap(), *embedding, "{engine}, alone");
        }
        assert_eq!(
            two.embed_batch(&frames).unwrap(),
            batch,
            "{engine}, two threads"
        );
    }
}

#[test]
fn threads_may_share_an_encoder() {
    let trained = Trained::new([64, 64], 0, Gelu::Tanh);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("encoder.sslb");
    export_encoder(
        &trained
            .export(&trained.tensors(), &preprocess([64, 64]))
            .view(),
        &path,
    )
    .unwrap();
    for engine in [EngineKind::Native, EngineKind::Onnx] {
        let encoder = Encoder::open(
            &path,
            &Options {
                engine,
                threads: 2,
                ..Options::default()
            },
        )
        .unwrap();
        let images = images();
        let expected: Vec<Embedding> = images
            .iter()
            .map(|image| encoder.embed(&image.frame()).unwrap())
            .collect();
        std::thread::scope(|scope| {
            for (image, expected) in images.iter().zip(&expected) {
                let encoder = &encoder;
                scope.spawn(move || {
                    for _ in 0..5 {
                        assert_eq!(encoder.embed(&image.frame()).unwrap(), *expected);
                    }
                });
            }
        });
    }
}

fn images() -> [Image; BATCH] {
    let ramp: Vec<u8> = (0..70 * 90 * 3_u32)
        .map(|i| (i * i / 977 % 251) as u8)
        .collect();
    [
        Station::new(1).photo(Surface::Crack, 100, 1),
        Station::new(2).photo(Surface::Pit, 100, 2),
        Image::new(70, 90, Pixels::Rgb8(ramp)).unwrap(),
    ]
}

/// The encoder over its variables, so that a pass records gradients.
fn graph(trained: &Trained) -> Vit {
    let variables = trained.params.iter();
    let variables = variables.map(|(name, param)| (name.to_owned(), param.var.as_tensor().clone()));
    Vit::load(&trained.config, &variables.collect()).unwrap()
}

/// Tokens by the parameters that are being trained, gradients recorded.
fn graph_tokens(trained: &Trained, input: &[f32], [height, width]: [usize; 2]) -> Vec<Embedding> {
    let input = Tensor::from_slice(input, (BATCH, 3, height, width), &Device::Cpu).unwrap();
    let tokens = graph(trained).forward(&input).unwrap();
    assert!(tokens.track_op(), "the graph is not recorded");
    let prefix = trained.config.n_prefix();
    let patches = tokens.dim(1).unwrap() - prefix;
    let values = |index: usize, start: usize, len: usize| -> Vec<f32> {
        let image = tokens.get(index).unwrap().narrow(0, start, len).unwrap();
        image.flatten_all().unwrap().to_vec1().unwrap()
    };
    let mean = |index: usize| -> Vec<f32> {
        let image = tokens
            .get(index)
            .unwrap()
            .narrow(0, prefix, patches)
            .unwrap();
        image.mean(0).unwrap().to_vec1().unwrap()
    };
    (0..BATCH)
        .map(|index| Embedding {
            cls: values(index, 0, 1),
            mean: mean(index),
            patches: values(index, prefix, patches),
            grid: trained.config.grid([height, width]).unwrap(),
        })
        .collect()
}

/// Largest absolute difference of L2-normalised CLS, mean and patch tokens.
fn difference(found: &Embedding, expected: &Embedding) -> f32 {
    assert_eq!(found.grid, expected.grid);
    assert_eq!(found.patches.len(), expected.patches.len());
    let dim = expected.cls.len();
    let rows = |embedding: &Embedding| -> Vec<Vec<f32>> {
        let patches = embedding.patches.chunks_exact(dim).map(<[f32]>::to_vec);
        let mut rows: Vec<_> = [embedding.cls.clone(), embedding.mean.clone()]
            .into_iter()
            .chain(patches)
            .collect();
        rows.iter_mut().for_each(|row| l2_normalize(row));
        rows
    };
    let (found, expected) = (rows(found).concat(), rows(expected).concat());
    let pairs = found.iter().zip(&expected);
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}
