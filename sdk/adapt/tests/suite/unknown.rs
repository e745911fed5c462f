use crate::common::{Data, difference, dot, normal, wide};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use ssl_edge_adapt::anomaly::ThresholdSource;
use ssl_edge_adapt::{AdaptError, FitOptions, UnknownRule, leave_one_out_distances};

#[test]
fn distances_are_those_to_the_nearest_other_sample() {
    let data = Data::clusters(1, &[200, 1, 150], 12, 0.5);
    let got = leave_one_out_distances(&data.support());
    let cosine = |i: usize, j: usize| {
        let (a, b) = (wide(&data.rows[i]), wide(&data.rows[j]));
        dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()
    };
    let nearest = |i: usize| {
        (0..351)
            .filter(|j| *j != i)
            .map(|j| 1.0 - cosine(i, j))
            .fold(f64::MAX, f64::min)
    };
    let want: Vec<f64> = (0..351).filter(|i| *i != 200).map(nearest).collect();
    assert!(difference(&got, &want) < 1e-5);
}

#[test]
fn the_threshold_is_the_conformal_quantile() {
    let distances = |n: usize| (1..=n).rev().map(|i| i as f64).collect::<Vec<_>>();
    let rule = |n, rate| UnknownRule::new(distances(n), rate).unwrap();
    let threshold = |n, rate| rule(n, rate).threshold;
    assert_eq!(threshold(19, 0.05), Some(19.0));
    assert_eq!(threshold(39, 0.05), Some(38.0));
    assert_eq!(threshold(99, 0.1), Some(90.0));
    assert_eq!(threshold(0, 0.5), None);
    assert_eq!(threshold(1000, 0.0), None);
    // n + 1 < 1 / rate: beyond the largest distance, with a promise of no more than 1 / (n + 1)
    let source = |n, rate| rule(n, rate).source();
    assert!(threshold(18, 0.05) > Some(18.0) && threshold(1, 0.05) > Some(1.0));
    assert_eq!(source(18, 0.05), Some(ThresholdSource::TailExtrapolation));
    assert_eq!(source(1, 0.05), Some(ThresholdSource::Prediction));
    assert_eq!(source(19, 0.05), Some(ThresholdSource::Conformal));
    assert_eq!((source(0, 0.05), source(9, 0.0)), (None, None));
    let promised = |n, rate| rule(n, rate).promised;
    assert_eq!(promised(18, 0.05), Some(1.0 / 19.0));
    assert_eq!(promised(1, 0.05), Some(0.5));
    assert_eq!(promised(19, 0.05), Some(0.05));
    assert_eq!((promised(0, 0.5), promised(1000, 0.0)), (None, None));
    let rule = UnknownRule::new(distances(39), 0.05).unwrap();
    assert!(rule.is_unknown(38.1) && !rule.is_unknown(38.0));
}

#[test]
fn a_rate_out_of_range_is_refused() {
    for rate in [-0.1, 1.0, f64::NAN] {
        assert!(matches!(
            UnknownRule::new(vec![1.0], rate),
            Err(AdaptError::BadOption { .. })
        ));
    }
}

/// Over many jobs, frames of the taught kinds are called unknown about as rarely as promised, and frames of another kind nearly always.
#[test]
fn the_rate_holds_and_strangers_are_seen() {
    let (mut false_alarms, mut found, mut n) = (0, 0, 0);
    for seed in 0..60 {
        let mut rng = ChaCha8Rng::from_seed([seed; 32]);
        let mut frame = |axis: usize| -> Vec<f32> {
            (0..16)
                .map(|j| (0.25 * normal(&mut rng) + if j == axis { 1.0 } else { 0.0 }) as f32)
                .collect()
        };
        let labels: Vec<usize> = (0..40).map(|i| i % 2).collect();
        let mut job = Data {
            rows: labels.iter().map(|l| frame(*l)).collect(),
            labels,
            n_classes: 2,
        }
        .job();
        job.fit(&FitOptions {
            unknown_rate: 0.1,
            ..FitOptions::default()
        })
        .unwrap();
        for i in 0..20 {
            false_alarms += usize::from(job.inspect(&frame(i % 2)).unwrap().unknown);
            found += usize::from(job.inspect(&frame(7)).unwrap().unknown);
            n += 1;
        }
    }
    let rate = |count: usize| count as f64 / n as f64;
    assert!(
        (0.05..0.13).contains(&rate(false_alarms)),
        "{}",
        rate(false_alarms)
    );
    assert!(rate(found) > 0.9, "{}", rate(found));
}

/// Over many jobs with one new frame of a taught kind each, at most the promised share is called unknown, within the binomial band of three
/// standard errors, and not far fewer; where the samples are too few for the rate, the threshold lies further out and keeps the rate all the same.
#[test]
fn false_alarms_keep_the_promise() {
    const JOBS: usize = 500;
    for (n, rate) in [(6, 0.05), (40, 0.05), (40, 0.2), (24, 0.1)] {
        let (mut alarms, mut small, mut promised) = (0, 0, 0.0);
        for seed in 0..JOBS {
            let mut rng = ChaCha8Rng::seed_from_u64((seed * 1000 + n) as u64);
            let mut frame = |class: usize| -> Vec<f32> {
                let centre = |j: usize| if j % 2 == class { 1.0 } else { 0.0 };
                (0..8)
                    .map(|j| (centre(j) + 0.3 * normal(&mut rng)) as f32)
                    .collect()
            };
            let labels: Vec<usize> = (0..n).map(|i| i % 2).collect();
            let rows = labels.iter().map(|l| frame(*l)).collect();
            let mut job = Data {
                rows,
                labels,
                n_classes: 2,
            }
            .job();
            let options = FitOptions {
                unknown_rate: rate,
                ..FitOptions::default()
            };
            let rule = job.fit(&options).unwrap().unknown;
            promised = rule.promised.unwrap();
            assert_eq!(promised, rate.max(1.0 / (n + 1) as f64));
            let verdict = job.inspect(&frame(seed % 2)).unwrap();
            alarms += usize::from(verdict.unknown);
            small += usize::from(f64::from(verdict.p_value) <= promised + 1e-6);
            assert!(f64::from(verdict.p_value) >= (1.0 - 1e-6) / (n + 1) as f64);
        }
        let share = |count: usize| count as f64 / JOBS as f64;
        let band = |rate: f64| 3.0 * (rate * (1.0 - rate) / JOBS as f64).sqrt();
        let range = 0.4 * promised - band(promised)..=promised + band(promised);
        assert!(
            range.contains(&share(small)),
            "{n} {rate}: {}",
            share(small)
        );
        let range = 0.2 * rate - band(rate)..=rate + band(rate);
        assert!(
            range.contains(&share(alarms)),
            "{n} {rate}: {}",
            share(alarms)
        );
    }
}

/// `(1 + #{d_i ≥ d}) / (n + 1)` by counting.
#[test]
fn p_values_count_the_distances() {
    let distances = vec![0.3, 0.1, 0.2, 0.2, 0.9, 0.5];
    let rule = UnknownRule::new(distances.clone(), 0.2).unwrap();
    for d in [0.0, 0.1, 0.15, 0.2, 0.3, 0.6, 0.9, 1.5] {
        let at_least = distances.iter().filter(|x| **x >= d).count();
        assert_eq!(rule.p_value(d), (1 + at_least) as f64 / 7.0, "{d}");
        // Unknown is what has a p-value of no more than the rate.
        assert_eq!(rule.is_unknown(d), rule.p_value(d) <= 0.2 + 1e-12, "{d}");
    }
    assert_eq!(UnknownRule::new(vec![], 0.2).unwrap().p_value(9.0), 1.0);
}
