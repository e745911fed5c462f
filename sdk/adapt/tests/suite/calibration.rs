//! Scores of jobs over many draws from a known distribution: as certain as they are right.

use crate::common::{encoder, meta, normal};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use ssl_edge_adapt::{FitOptions, Job};

const CLASSES: usize = 5;
/// Values in which classes differ, and values that a turned part changes.
const KIND: usize = 6;
const LIE: usize = 12;

/// Gaussian classes with one covariance.
struct World {
    rng: ChaCha8Rng,
    centres: Vec<Vec<f64>>,
}

impl World {
    fn new(seed: u8) -> Self {
        let mut rng = ChaCha8Rng::from_seed([seed; 32]);
        let mut centre = |_| (0..KIND).map(|_| 1.2 * normal(&mut rng)).collect();
        let centres = (0..CLASSES).map(&mut centre).collect();
        Self { rng, centres }
    }

    /// A part of a class, and the same part as it lies otherwise.
    fn part(&mut self, class: usize, copies: usize) -> (Vec<f32>, Vec<Vec<f32>>) {
        let rng = &mut self.rng;
        let part: Vec<f32> = self.centres[class]
            .iter()
            .map(|c| (c + normal(rng)) as f32)
            .collect();
        let mut lying = || -> Vec<f32> {
            let lie = (0..LIE).map(|_| 3.0 * normal(rng) as f32);
            part.iter().copied().chain(lie).collect()
        };
        let feature = lying();
        (feature, (0..copies).map(|_| lying()).collect())
    }
}

/// Means over many jobs of `shots` parts a class.
struct Found {
    /// Certainty of the verdicts on new parts.
    certain: f64,
    /// Share of them that is right.
    right: f64,
    /// What the jobs expect it to be, from samples left out.
    expected: f64,
}

fn over_jobs(shots: usize, copies: usize, jobs: u8) -> Found {
    let (mut certain, mut right, mut expected, mut n) = (0.0, 0.0, 0.0, 0.0);
    for seed in 0..jobs {
        let mut world = World::new(seed);
        let mut job = Job::new(encoder(KIND + LIE));
        let classes: Vec<_> = (0..CLASSES)
            .map(|c| job.add_class(&format!("kind {c}")).unwrap())
            .collect();
        for i in 0..shots * CLASSES {
            let (feature, copies) = world.part(i % CLASSES, copies);
            let id = job
                .add_sample(classes[i % CLASSES], &feature, meta("x"))
                .unwrap();
            job.set_sample_copies(id, copies).unwrap();
        }
        let report = job.fit(&FitOptions::default()).unwrap();
        expected += report.loo_accuracy.unwrap() / f64::from(jobs);
        for i in 0..100 {
            let verdict = job.inspect(&world.part(i % CLASSES, 0).0).unwrap();
            certain += f64::from(verdict.score);
            right += f64::from(u8::from(verdict.class == classes[i % CLASSES]));
            n += 1.0;
        }
    }
    Found {
        certain: certain / n,
        right: right / n,
        expected,
    }
}

/// The first bound is for two parts a class, where a handful of samples decides how certain a job is.
#[test]
fn jobs_are_as_certain_as_they_are_right() {
    for (shots, jobs, bound) in [(2, 60, 0.07), (3, 60, 0.04), (5, 60, 0.02), (15, 30, 0.02)] {
        for copies in [0, 8] {
            let Found {
                certain,
                right,
                expected,
            } = over_jobs(shots, copies, jobs);
            println!(
                "{shots} parts a class, {copies} copies: {certain:.3} certain, {right:.3} right, {expected:.3} expected"
            );
            assert!(
                (certain - right).abs() < bound,
                "{shots} parts, {copies} copies"
            );
            // With copies that tell nothing of the classes' own spread, a handful of samples left out is too hopeful.
            assert!((expected - right).abs() < 0.05 || copies > 0 && shots < 5);
        }
    }
}
