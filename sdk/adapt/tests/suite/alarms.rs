//! The tests of a job share the rate of false alarms that is allowed.

use crate::common::{encoder, meta, normal};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use ssl_edge_adapt::anomaly::{ThresholdSource, TokenGrid};
use ssl_edge_adapt::{FalseAlarms, FitOptions, Job, Verdict};

const SIZE: [usize; 2] = [5, 6];
const TOKEN: usize = 6;
const FEATURE: usize = 12;

/// Feature and tokens of a frame. `spread` says how unlike each other frames are, `defect` puts a token there that no good frame has.
fn frame(rng: &mut ChaCha8Rng, spread: f64, defect: bool) -> (Vec<f32>, Vec<f32>) {
    // Frames differ in how rough they are, as parts do.
    let rough = 0.4 * (spread * normal(rng)).exp();
    let feature = (0..FEATURE)
        .map(|j| (f64::from(u8::from(j == 0)) + 0.25 * rough * normal(rng)) as f32)
        .collect();
    let mut tokens: Vec<f32> = (0..SIZE[0] * SIZE[1] * TOKEN)
        .map(|i| ((i % TOKEN) as f64 + 1.0 + rough * normal(rng)) as f32)
        .collect();
    if defect {
        tokens[7 * TOKEN..8 * TOKEN].reverse();
    }
    (feature, tokens)
}

fn taught(rng: &mut ChaCha8Rng, n: usize, spread: f64, rate: f64) -> Job {
    let mut job = Job::new(encoder(FEATURE));
    job.set_surface(Some("pixels")).unwrap();
    let good = job.add_class("good").unwrap();
    for _ in 0..n {
        let (feature, tokens) = frame(rng, spread, false);
        let id = job.add_sample(good, &feature, meta("part")).unwrap();
        let grid = TokenGrid::new(&tokens, SIZE, TOKEN).unwrap();
        job.set_sample_tokens(id, &grid).unwrap();
    }
    let options = FitOptions {
        unknown_rate: rate,
        ..FitOptions::default()
    };
    job.fit(&options).unwrap();
    job
}

fn judge(job: &Job, (feature, tokens): &(Vec<f32>, Vec<f32>)) -> Verdict {
    let grid = TokenGrid::new(tokens, SIZE, TOKEN).unwrap();
    job.inspect_with(feature, Some(&grid)).unwrap()
}

#[test]
fn each_test_gets_half() {
    let mut rng = ChaCha8Rng::from_seed([1; 32]);
    let job = taught(&mut rng, 4, 0.2, 0.05);
    let unknown = &job.report().unwrap().unknown;
    let surface = job.surface_report().unwrap();
    assert_eq!((unknown.rate, surface.frame.rate), (0.025, 0.025));
    assert_eq!(unknown.source(), Some(ThresholdSource::Prediction));
    assert_eq!(surface.frame.source, ThresholdSource::Prediction);
    let alarms = job.false_alarms().unwrap();
    assert_eq!((alarms.allowed, alarms.tests), (0.05, 2));
    assert!((alarms.promised - 0.4).abs() < 1e-12 && alarms.extrapolated);
    let job = taught(&mut rng, 19, 0.2, 0.1);
    let want = FalseAlarms {
        allowed: 0.1,
        tests: 2,
        promised: 0.1,
        extrapolated: false,
    };
    assert_eq!(job.false_alarms(), Some(want));
    assert_eq!(taught(&mut rng, 4, 0.2, 0.0).false_alarms(), None);
    let mut plain = Job::new(encoder(2));
    let class = plain.add_class("a").unwrap();
    for x in [0.1, 0.2, 0.3] {
        plain.add_sample(class, &[1.0, x], meta("x")).unwrap();
    }
    assert_eq!(plain.false_alarms(), None);
    plain.fit(&FitOptions::default()).unwrap();
    let alarms = plain.false_alarms().unwrap();
    assert_eq!((alarms.allowed, alarms.tests), (0.05, 1));
    assert_eq!(alarms.promised, 0.25);
}

/// One new good frame and one defect a job, over many jobs: the share of good frames that are not OK is at most what is allowed, within the
/// binomial band of three standard errors, whether ranks or an extrapolation carry it, and defects are found.
#[test]
fn together_they_keep_the_rate() {
    const JOBS: usize = 600;
    for (n, rate, spread) in [
        (3, 0.05, 0.15),
        (4, 0.05, 0.15),
        (8, 0.05, 0.15),
        (14, 0.05, 0.15),
        (39, 0.05, 0.15),
        (9, 0.2, 0.5),
    ] {
        let (mut alarms, mut found, mut promised) = (0, 0, 0.0);
        for seed in 0..JOBS {
            let mut rng = ChaCha8Rng::seed_from_u64((seed * 100 + n) as u64);
            let job = taught(&mut rng, n, spread, rate);
            promised = job.false_alarms().unwrap().promised;
            alarms += usize::from(judge(&job, &frame(&mut rng, spread, false)).ok == Some(false));
            found += usize::from(judge(&job, &frame(&mut rng, spread, true)).ok == Some(false));
        }
        let share = |count: usize| count as f64 / JOBS as f64;
        let band = |rate: f64| 3.0 * (rate * (1.0 - rate) / JOBS as f64).sqrt();
        assert!(
            share(alarms) <= rate + band(rate),
            "{n} {rate}: {}",
            share(alarms)
        );
        assert!(rate <= promised + 1e-12, "{n} {rate}: {promised}");
        assert!(share(found) > 0.95, "{n} {rate}: {} found", share(found));
    }
}

/// Frames far more unlike each other than an extrapolation assumes: what is certain holds.
#[test]
fn the_certain_rate_holds_for_wild_frames() {
    const JOBS: usize = 600;
    let (mut alarms, mut promised) = (0, 0.0);
    for seed in 0..JOBS {
        let mut rng = ChaCha8Rng::seed_from_u64(seed as u64);
        let job = taught(&mut rng, 4, 1.5, 0.05);
        promised = job.false_alarms().unwrap().promised;
        alarms += usize::from(judge(&job, &frame(&mut rng, 1.5, false)).ok == Some(false));
    }
    let share = alarms as f64 / JOBS as f64;
    let band = 3.0 * (promised * (1.0 - promised) / JOBS as f64).sqrt();
    assert!(share <= promised + band, "{share} of {promised}");
    assert!(share > 0.02, "{share}: the frames are not wild");
}
