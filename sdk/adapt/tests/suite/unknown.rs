use crate::common::{Data, difference, dot, normal, wide};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
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
    let threshold = |n, rate| UnknownRule::new(distances(n), rate).unwrap().threshold;
    assert_eq!(threshold(18, 0.05), None);
    assert_eq!(threshold(19, 0.05), Some(19.0));
    assert_eq!(threshold(39, 0.05), Some(38.0));
    assert_eq!(threshold(99, 0.1), Some(90.0));
    assert_eq!(threshold(0, 0.5), None);
    assert_eq!(threshold(1000, 0.0), None);
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
