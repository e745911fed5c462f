//! How often a job's head in integers agrees with the job itself, over few-shot episodes: the frames that were not taught are the test.
//!
//! `cargo run --release -p ssl-edge-adapt --example device_parity -- [embeddings.csv]`: each line of the file is a class and an embedding's values,
//! with commas between; without a file, synthetic clusters that overlap.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use ssl_edge_adapt::{
    DeviceInput, DeviceOptions, EncoderId, FitOptions, HeadKind, Job, SampleMeta,
};
use ssl_edge_head::HeadImage;

type Failure = Box<dyn std::error::Error>;

const DRAWS: usize = 30;
const OPTIONS: DeviceOptions = DeviceOptions {
    job_number: 1,
    max_bytes: None,
    input: DeviceInput::Fitted,
};

/// Labels and embeddings.
struct Data {
    labels: Vec<usize>,
    rows: Vec<Vec<f32>>,
    n_classes: usize,
}

#[derive(Default)]
struct Agreement {
    n: usize,
    class: usize,
    right: [usize; 2],
    unknown: usize,
    unknowns: usize,
    score_sum: f64,
    score_most: f64,
    bytes: usize,
}

fn main() -> Result<(), Failure> {
    let mut rng = ChaCha8Rng::from_seed([1; 32]);
    let sets = match std::env::args_os().nth(1) {
        Some(path) => vec![(
            path.display().to_string(),
            read(&std::fs::read_to_string(&path)?)?,
        )],
        None => [(64, 0.25), (192, 0.15), (384, 0.1)]
            .map(|(dim, distance)| {
                (
                    format!("{dim} values, synthetic"),
                    synthetic(&mut rng, dim, distance),
                )
            })
            .into(),
    };
    println!(
        "data | head | shots | frames | right: job, device | same class | same unknown (unknown) | score: mean, largest difference | image bytes"
    );
    for (name, data) in &sets {
        for head in [
            HeadKind::Lda,
            HeadKind::Discriminant,
            HeadKind::Ridge,
            HeadKind::Logistic,
            HeadKind::Prototype,
        ] {
            for shots in [5, 20] {
                let mut sum = Agreement::default();
                for _ in 0..DRAWS {
                    episode(data, head, shots, &mut rng, &mut sum)?;
                }
                let share = |count: usize| 100.0 * count as f64 / sum.n as f64;
                println!(
                    "{name} | {head:?} | {shots} | {} | {:.2} %, {:.2} % | {:.3} % | {:.3} % ({:.1} %) | {:.5}, {:.4} | {}",
                    sum.n,
                    share(sum.right[0]),
                    share(sum.right[1]),
                    share(sum.class),
                    share(sum.unknown),
                    share(sum.unknowns),
                    sum.score_sum / sum.n as f64,
                    sum.score_most,
                    sum.bytes
                );
            }
        }
    }
    Ok(())
}

/// Teaches `shots` frames of each class, and holds all others against both forms of the head.
fn episode(
    data: &Data,
    head: HeadKind,
    shots: usize,
    rng: &mut ChaCha8Rng,
    sum: &mut Agreement,
) -> Result<(), Failure> {
    let mut job = Job::new(EncoderId {
        hash: [1; 32],
        dim: data.rows[0].len(),
    });
    let mut taught = vec![false; data.rows.len()];
    for class in 0..data.n_classes {
        let id = job.add_class(&format!("class {class}"))?;
        let mut members: Vec<usize> = (0..data.rows.len())
            .filter(|i| data.labels[*i] == class)
            .collect();
        for _ in 0..shots.min(members.len() - 1) {
            let drawn = members.swap_remove(rng.next_u64() as usize % members.len());
            taught[drawn] = true;
            job.add_sample(id, &data.rows[drawn], SampleMeta::default())?;
        }
    }
    job.fit(&FitOptions {
        head: Some(head),
        ..FitOptions::default()
    })?;
    let device = job.device_head(&OPTIONS)?;
    let image = HeadImage::parse(&device.image)?;
    sum.bytes = device.image.len();
    let mut values = vec![0; image.dim()];
    for (i, row) in data.rows.iter().enumerate().filter(|(i, _)| !taught[*i]) {
        let own = job.inspect(row)?;
        image.quantise(row, &mut values)?;
        let verdict = image.inspect(&values)?;
        let class = job
            .classes()
            .iter()
            .position(|class| class.id == own.class)
            .unwrap_or_default();
        let difference =
            (f64::from(image.scores(&values)?[class]) / 32768.0 - f64::from(own.score)).abs();
        sum.n += 1;
        sum.right[0] += usize::from(class == data.labels[i]);
        sum.right[1] += usize::from(usize::from(verdict.class) == data.labels[i]);
        sum.class += usize::from(class == usize::from(verdict.class));
        sum.unknown += usize::from(own.unknown == verdict.unknown);
        sum.unknowns += usize::from(own.unknown);
        sum.score_sum += difference;
        sum.score_most = sum.score_most.max(difference);
    }
    Ok(())
}

fn synthetic(rng: &mut ChaCha8Rng, dim: usize, distance: f32) -> Data {
    let mut normal = || {
        (0..12)
            .map(|_| rng.next_u32() as f32 / u32::MAX as f32)
            .sum::<f32>()
            - 6.0
    };
    let offset: Vec<f32> = (0..dim).map(|_| normal()).collect();
    let (n_classes, mut labels, mut rows) = (6, Vec::new(), Vec::new());
    for class in 0..n_classes {
        let centre: Vec<f32> = offset.iter().map(|o| o + distance * normal()).collect();
        for _ in 0..120 {
            labels.push(class);
            rows.push(centre.iter().map(|c| c + 0.4 * normal()).collect());
        }
    }
    Data {
        labels,
        rows,
        n_classes,
    }
}

fn read(text: &str) -> Result<Data, Failure> {
    let (mut names, mut labels, mut rows): (Vec<&str>, _, _) = (Vec::new(), Vec::new(), Vec::new());
    for line in text.lines() {
        let (name, values) = line.split_once(',').ok_or("a line has no comma")?;
        let label = names
            .iter()
            .position(|known| *known == name)
            .unwrap_or_else(|| {
                names.push(name);
                names.len() - 1
            });
        labels.push(label);
        rows.push(
            values
                .split(',')
                .map(str::parse)
                .collect::<Result<Vec<f32>, _>>()?,
        );
    }
    Ok(Data {
        labels,
        rows,
        n_classes: names.len(),
    })
}
