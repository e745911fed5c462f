//! Writes the seeds of the fuzz targets, the same bytes every time: `cargo run --release --bin corpus` in this folder.

use std::fs;
use std::path::Path;

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use ssl_edge_adapt::anomaly::{Rates, TokenGrid};
use ssl_edge_adapt::golden::{GoldenModel, GoldenOptions, GoldenParts};
use ssl_edge_adapt::{EncoderId, FitOptions, Job, SampleMeta};
use ssl_edge_bundle::{
    ArchSpec, Bundle, BundleWriter, ClsSource, EncoderSpec, GoldenSpec, GraphSpec, PatchSource,
    Pooling, PreprocessSpec, Provenance, SecretKey,
};
use ssl_edge_head::wire::{Body, Message, Refusal, encode, encoded_length};
use ssl_edge_head::{HeadSpec, RowSpec, fit_scale};
use ssl_edge_nn::infer::{BlockFormat, EncoderWeights, Stored};
use ssl_edge_nn::{Params, Vit};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for target in [
        "bundle", "job", "golden", "frame", "wire", "head", "weights",
    ] {
        fs::create_dir_all(corpus.join(target))?;
    }
    bundles(&corpus.join("bundle"))?;
    jobs(&corpus.join("job"))?;
    golden_parts(&corpus.join("golden"))?;
    frames(&corpus.join("frame"))?;
    lines(&corpus.join("wire"))?;
    heads(&corpus.join("head"))?;
    weights(&corpus.join("weights"))
}

fn bundles(folder: &Path) -> Outcome {
    let mut writer = BundleWriter {
        encoder: EncoderSpec::Arch(ArchSpec {
            name: "tiny".to_owned(),
            dim: 4,
            depth: 1,
            heads: 1,
            patch: 4,
            registers: 0,
            mlp_ratio: 4,
            image_size: [4, 4],
            gelu: "tanh".to_owned(),
            eps: 1e-6,
        }),
        preprocess: PreprocessSpec {
            height: 4,
            width: 4,
            fit: "squash".to_owned(),
            mean: [0.5; 3],
            std: [0.5; 3],
        },
        pooling: Pooling::Cls,
        provenance: Provenance::default(),
        licence: Some("CC0-1.0".to_owned()),
        golden: GoldenSpec {
            count: 1,
            tolerance: 1e-4,
        },
        weights: b"weights".to_vec(),
        onnx: b"graph".to_vec(),
        golden_vectors: Vec::new(),
        variants: Vec::new(),
        extra: Vec::new(),
    };
    let path = folder.join("plain");
    writer.write(&path)?;
    let signed = Bundle::open(&path)?.signed(&SecretKey::from_seed(&[7; 32]))?;
    fs::write(folder.join("signed"), signed)?;
    let output = || "tokens".to_owned();
    writer.encoder = EncoderSpec::Graph(GraphSpec {
        name: "imported".to_owned(),
        dim: 4,
        grid: [1, 1],
        input: "image".to_owned(),
        cls: ClsSource::First { output: output() },
        patches: PatchSource::Tokens {
            output: output(),
            skip: 1,
        },
        opset: 17,
        producer: "pytorch 2.11.0".to_owned(),
    });
    writer.weights.clear();
    writer.write(&folder.join("imported"))?;
    Ok(())
}

fn jobs(folder: &Path) -> Outcome {
    let mut job = Job::new(EncoderId {
        hash: [3; 32],
        dim: 3,
    });
    job.save(&folder.join("empty"))?;
    let classes = [job.add_class("good")?, job.add_class("bad")?];
    for i in 0..4u8 {
        let x = f32::from(i);
        let meta = SampleMeta {
            source: format!("{i}.png"),
            unix_time: 1_800_000_000,
        };
        let embedding = [x.cos(), x.sin(), f32::from(i % 2)];
        job.add_sample(classes[usize::from(i % 2)], &embedding, meta)?;
    }
    job.save(&folder.join("taught"))?;
    job.fit(&FitOptions::default())?;
    job.save(&folder.join("fitted"))?;
    Ok(())
}

/// One golden part without an encoder, two of which one has a mask, and four that are summed up in statistics.
fn golden_parts(folder: &Path) -> Outcome {
    const SIZE: [usize; 2] = [3, 4];
    let keep: Vec<bool> = (0..12).map(|at| at != 5).collect();
    for (name, n, masked) in [("one", 1, 9), ("two", 2, 1), ("four", 4, 9)] {
        let tokens = |part: usize| (0..24).map(move |i| ((i * (7 + part)) as f32).sin());
        let parts: Vec<Vec<f32>> = (0..n).map(|part| tokens(part).collect()).collect();
        let mut grids = Vec::new();
        for (part, tokens) in parts.iter().enumerate() {
            let grid = TokenGrid::new(tokens, SIZE, 2)?;
            grids.push(if part == masked {
                grid.with_mask(&keep)?
            } else {
                grid
            });
        }
        let encoder = EncoderId {
            hash: [3; 32],
            dim: 2,
        };
        let golden = GoldenParts {
            tokens: "encoder".to_owned(),
            encoder: (n > 1).then_some(encoder),
            sources: (0..n).map(|part| format!("{part}.png")).collect(),
            model: GoldenModel::fit(&grids, &GoldenOptions::default(), &Rates::default())?,
        };
        golden.save(&folder.join(name))?;
    }
    Ok(())
}

/// One frame of each format, 8 x 6 pixels with a padding of one byte, with a region of interest every other time.
fn frames(folder: &Path) -> Outcome {
    let row_bytes = [8, 16, 24, 24, 32, 48, 32, 10, 12, 8, 8, 8, 8, 8, 16];
    for (format, row) in row_bytes.into_iter().enumerate() {
        let stride: u32 = row + 1;
        let mut bytes = vec![format as u8, format as u8 % 2, format as u8 % 4, 0];
        for number in [8, 6, stride, 1, 1, 5, 3, stride * 6, stride, 0x0705] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let pixels = (0..stride * 6 * 3 / 2).map(|i| (i * 37 + i / 5) as u8);
        bytes.extend(pixels);
        fs::write(folder.join(format!("format{format:02}")), bytes)?;
    }
    Ok(())
}

/// A line with several frames, and contents of frames without their checksums.
fn lines(folder: &Path) -> Outcome {
    let bodies = [
        Body::Hello,
        Body::Device {
            job: 1,
            dim: 3,
            encoder: [9; 8],
        },
        Body::Embedding {
            job: 1,
            values: &[1, 0, 255],
        },
        Body::Inputs {
            at: 70_000,
            enable: true,
            trigger: false,
        },
        Body::Refused(Refusal::Length),
    ];
    let mut line = vec![7, 7];
    for (number, body) in bodies.into_iter().enumerate() {
        let (mut scratch, mut out) = ([0; 64], [0; encoded_length(64)]);
        let message = Message {
            sequence: number as u32,
            body,
        };
        let frame = encode(&message, &mut scratch, &mut out)?.to_vec();
        let content = cobs::decode_vec(&frame[1..frame.len() - 1])?;
        let content = &content[..content.len() - 4];
        fs::write(folder.join(format!("content{number}")), content)?;
        line.extend(frame);
    }
    fs::write(folder.join("line"), line)?;
    Ok(())
}

/// A linear head and one of cosines with an unknown rule.
fn heads(folder: &Path) -> Outcome {
    for (name, cosine, limit) in [("linear", false, None), ("cosines", true, Some(0.9))] {
        let samples: [&[f32]; 2] = [&[1.0, 0.1, 0.0], &[0.0, 0.9, 0.2]];
        let mut centre = [0.0; 3];
        let step = fit_scale(samples.into_iter(), &mut centre)?;
        let row = |index: usize| RowSpec {
            sample: index as u64,
            class: index as u16,
            embedding: samples[index],
        };
        let spec = HeadSpec {
            job: 1,
            encoder: [7; 32],
            class_ids: &[10, 11],
            weights: &[1.0, -1.0, 0.5, -1.0, 1.0, 0.25],
            bias: if cosine { &[0.0, 0.0] } else { &[0.0, 0.1] },
            cosine,
            temperature: 0.5,
            centre: &centre,
            step,
            rows: &[row(0), row(1)],
            cosine_limit: limit,
        };
        let mut flash = [0; 512];
        let length = spec.write(&mut flash)?;
        fs::write(folder.join(name), &flash[..length])?;
    }
    Ok(())
}

/// One encoder as f32, int8 and in both kinds of blocks.
fn weights(folder: &Path) -> Outcome {
    let config = ssl_edge_fuzz::tiny_encoder();
    let mut params = Params::new();
    Vit::init(&config, &mut params, "", &mut ChaCha8Rng::seed_from_u64(1))?;
    let float = EncoderWeights::from_tensors(&params.to_map())?;
    fs::write(folder.join("f32"), float.to_bytes()?)?;
    let layers = |store: &dyn Fn([usize; 2], Vec<f32>) -> Result<Stored, ssl_edge_nn::Error>| {
        let mut weights = float.clone();
        for name in EncoderWeights::layer_names(&config) {
            let name = format!("{name}.weight");
            let values = weights.0[&name].to_f32();
            let dims = [values.len() / config.dim, config.dim];
            weights.0.insert(name, store(dims, values)?);
        }
        Ok::<_, ssl_edge_nn::Error>(weights)
    };
    let int8 = layers(&|dims, values| {
        Ok(Stored::I8 {
            dims,
            values: values.iter().map(|v| (v * 500.0) as i8).collect(),
            scale: vec![2e-3; dims[0]],
        })
    })?;
    fs::write(folder.join("int8"), int8.to_bytes()?)?;
    for (name, format) in [("q8_0", BlockFormat::Q8_0), ("q4_0", BlockFormat::Q4_0)] {
        let blocks = layers(&|dims, values| {
            let bytes = format.quantise(&values, dims[1])?;
            Ok(Stored::Blocks {
                dims,
                format,
                bytes,
            })
        })?;
        fs::write(folder.join(name), blocks.to_gguf()?)?;
    }
    Ok(())
}
