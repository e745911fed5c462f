//! An encoder that is opened where memory ends says so and returns.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::process::{Command, Output};

use ssl_edge_nn::infer::{PackedOptions, PackedVit};
use ssl_edge_nn::{Error, VitConfig};

const CHILD: &str = "SSL_EDGE_TEST_MEMORY_ENDS";
const TEST: &str = "an_encoder_that_memory_has_no_room_for_is_an_error";

fn config() -> VitConfig {
    VitConfig::named("vit_b16").unwrap()
}

/// Zeros for every tensor as a stream of safetensors, without the values in memory, and its length.
fn weights(config: &VitConfig) -> (impl Read, u64) {
    let (d, h) = (config.dim, 4 * config.dim);
    let pixels = vec![d, 3, config.patch, config.patch];
    let mut shapes = BTreeMap::from([
        ("cls_token".to_owned(), vec![1, 1, d]),
        (
            "pos_embed".into(),
            vec![1, 1 + (224 / config.patch).pow(2), d],
        ),
        ("patch_embed.proj.weight".into(), pixels),
        ("patch_embed.proj.bias".into(), vec![d]),
        ("norm.weight".into(), vec![d]),
        ("norm.bias".into(), vec![d]),
        ("register_tokens".into(), vec![1, config.registers, d]),
    ]);
    for block in 0..config.depth {
        let layers = [
            ("attn.qkv", vec![3 * d, d]),
            ("attn.proj", vec![d, d]),
            ("mlp.fc1", vec![h, d]),
            ("mlp.fc2", vec![d, h]),
            ("norm1", vec![d]),
            ("norm2", vec![d]),
        ];
        for (layer, shape) in layers {
            let name = format!("blocks.{block}.{layer}");
            shapes.insert(format!("{name}.bias"), vec![shape[0]]);
            shapes.insert(format!("{name}.weight"), shape);
        }
    }
    let mut end = 0;
    let entries = shapes.iter().map(|(name, shape)| {
        let start = end;
        end += 4 * shape.iter().product::<usize>();
        format!(r#""{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{start},{end}]}}"#)
    });
    let header = format!("{{{}}}", entries.collect::<Vec<_>>().join(","));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    let len = (bytes.len() + end) as u64;
    (
        Cursor::new(bytes).chain(io::repeat(0).take(end as u64)),
        len,
    )
}

/// What the child does: opens the encoder and says on one line how it ended.
fn open(threads: usize) {
    let config = config();
    let (reader, len) = weights(&config);
    let options = PackedOptions {
        threads,
        ..PackedOptions::default()
    };
    match PackedVit::read(&config, reader, len, &options) {
        Ok(vit) => println!("opened: {} bytes", vit.weight_bytes()),
        Err(error @ Error::Memory { .. }) => println!("refused: {error}"),
        Err(error) => println!("failed: {error}"),
    }
}

/// This very test in a process of its own, whose address space ends at `limit` KiB.
fn child(threads: usize, limit: Option<usize>) -> Output {
    let command = match limit {
        Some(limit) => format!("ulimit -v {limit} && exec \"$@\""),
        None => "exec \"$@\"".to_owned(),
    };
    Command::new("sh")
        .args(["-c", &command, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture", "--test-threads=1"])
        .env(CHILD, threads.to_string())
        .output()
        .unwrap()
}

#[test]
fn an_encoder_that_memory_has_no_room_for_is_an_error() {
    if let Ok(threads) = std::env::var(CHILD) {
        return open(threads.parse().unwrap());
    }
    for threads in [1, 2] {
        let said = |limit| {
            let done = child(threads, limit);
            let text = String::from_utf8_lossy(&done.stdout).into_owned();
            let line = text.lines().find(|line| {
                ["opened", "refused", "failed"]
                    .iter()
                    .any(|w| line.contains(w))
            });
            let line = line.map(str::to_owned);
            assert!(
                done.status.success() && line.is_some(),
                "{limit:?} KiB, {threads} threads: {:?}\n{text}{}",
                done.status,
                String::from_utf8_lossy(&done.stderr)
            );
            line.unwrap()
        };
        assert!(said(None).contains("opened"));
        // The weights are 330 MiB; the process itself begins with less than 200.
        for mib in [200, 260, 300, 330, 360] {
            let line = said(Some(mib << 10));
            assert!(
                line.contains("refused") && line.contains("lower the batch"),
                "{mib} MiB, {threads} threads: {line}"
            );
        }
    }
}
