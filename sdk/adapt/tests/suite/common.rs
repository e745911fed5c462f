//! Data and plain linear algebra, written apart from the crate.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use ssl_edge_adapt::{EncoderId, Job, Layout, Part, SampleMeta, Support};

/// Labelled embeddings.
pub(crate) struct Data {
    pub(crate) rows: Vec<Vec<f32>>,
    pub(crate) labels: Vec<usize>,
    pub(crate) n_classes: usize,
}

impl Data {
    /// Gaussian classes of the given sizes around random centres `distance` apart from a common offset.
    pub(crate) fn clusters(seed: u8, sizes: &[usize], dim: usize, distance: f64) -> Self {
        let mut rng = ChaCha8Rng::from_seed([seed; 32]);
        let offset: Vec<f64> = (0..dim).map(|_| normal(&mut rng)).collect();
        let (mut rows, mut labels) = (Vec::new(), Vec::new());
        for (label, &size) in sizes.iter().enumerate() {
            let centre: Vec<f64> = offset
                .iter()
                .map(|o| o + distance * normal(&mut rng))
                .collect();
            for _ in 0..size {
                rows.push(
                    centre
                        .iter()
                        .map(|c| (c + 0.5 * normal(&mut rng)) as f32)
                        .collect(),
                );
                labels.push(label);
            }
        }
        Self {
            rows,
            labels,
            n_classes: sizes.len(),
        }
    }

    pub(crate) fn support(&self) -> Support<'_> {
        let rows = self.rows.iter().map(Vec::as_slice).collect();
        Support::new(rows, self.labels.clone(), self.n_classes).unwrap()
    }

    pub(crate) fn without(&self, range: std::ops::Range<usize>) -> Self {
        let (mut rows, mut labels) = (self.rows.clone(), self.labels.clone());
        rows.drain(range.clone());
        labels.drain(range);
        Self {
            rows,
            labels,
            n_classes: self.n_classes,
        }
    }

    pub(crate) fn dim(&self) -> usize {
        self.rows[0].len()
    }

    /// Row-major copy of all rows.
    pub(crate) fn flat(&self) -> Vec<f32> {
        self.rows.concat()
    }

    /// A job with classes `class 0`, `class 1` … and all rows as samples.
    pub(crate) fn job(&self) -> Job {
        let mut job = Job::new(encoder(self.dim()));
        let ids: Vec<_> = (0..self.n_classes)
            .map(|c| job.add_class(&format!("class {c}")).unwrap())
            .collect();
        for (row, &label) in self.rows.iter().zip(&self.labels) {
            job.add_sample(ids[label], row, SampleMeta::default())
                .unwrap();
        }
        job
    }
}

pub(crate) fn encoder(dim: usize) -> EncoderId {
    EncoderId {
        hash: [0xab; 32],
        dim,
    }
}

pub(crate) fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Box–Muller.
pub(crate) fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (u, v) = (1.0 - uniform(rng), uniform(rng));
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

pub(crate) fn wide(row: &[f32]) -> Vec<f64> {
    row.iter().map(|x| f64::from(*x)).collect()
}

/// Solution of `a x = b` by Gaussian elimination with partial pivoting; `b` and `x` have rows as `a` has.
pub(crate) fn solve(mut a: Vec<Vec<f64>>, mut b: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let n = a.len();
    for pivot in 0..n {
        let largest = (pivot..n)
            .max_by(|i, j| a[*i][pivot].abs().total_cmp(&a[*j][pivot].abs()))
            .unwrap();
        a.swap(pivot, largest);
        b.swap(pivot, largest);
        for i in 0..n {
            if i != pivot {
                let factor = a[i][pivot] / a[pivot][pivot];
                let row = a[pivot].clone();
                a[i].iter_mut()
                    .zip(&row)
                    .skip(pivot)
                    .for_each(|(x, p)| *x -= factor * p);
                let row = b[pivot].clone();
                b[i].iter_mut()
                    .zip(&row)
                    .for_each(|(x, p)| *x -= factor * p);
            }
        }
    }
    (0..n)
        .map(|i| b[i].iter().map(|x| x / a[i][i]).collect())
        .collect()
}

/// Largest difference relative to the largest value.
pub(crate) fn difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let size = b.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    a.iter()
        .zip(b)
        .fold(0.0f64, |m, (x, y)| m.max((x - y).abs()))
        / size
}

/// Values less their mean.
pub(crate) fn centred(row: &[f64]) -> Vec<f64> {
    let mean = row.iter().sum::<f64>() / row.len() as f64;
    row.iter().map(|x| x - mean).collect()
}

/// Runs `work` in a rayon pool of `threads`.
pub(crate) fn in_pool<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .unwrap()
        .install(work)
}

/// A layout of parts with these sizes, named `a`, `b`, `c` …, and the preferred ones.
pub(crate) fn layout(sizes: &[usize], preferred: &[&str]) -> Layout {
    let part = |(i, &dim): (usize, &usize)| Part::new(["a", "b", "c", "d", "e"][i], dim);
    Layout::new(sizes.iter().enumerate().map(part).collect(), preferred).unwrap()
}

/// The data's job with features of several parts.
pub(crate) fn job_of_parts(data: &Data, layout: &Layout) -> Job {
    let mut job = Job::with_layout(encoder(data.dim()), layout.clone()).unwrap();
    let ids: Vec<_> = (0..data.n_classes)
        .map(|c| job.add_class(&format!("class {c}")).unwrap())
        .collect();
    for (row, &label) in data.rows.iter().zip(&data.labels) {
        job.add_sample(ids[label], row, SampleMeta::default())
            .unwrap();
    }
    job
}

/// Source and time.
pub(crate) fn meta(source: &str) -> SampleMeta {
    SampleMeta {
        source: source.into(),
        unix_time: 1_700_000_000,
    }
}
