use crate::common::{Data, dot, in_pool, wide};
use ssl_edge_adapt::eval::{FewshotOptions, HeadChoice, LabelledSet, fewshot, knn_accuracy};
use ssl_edge_adapt::{AdaptError, HeadKind};

const HEADS: [HeadChoice; 3] = [
    HeadChoice::Auto,
    HeadChoice::One(HeadKind::Discriminant),
    HeadChoice::One(HeadKind::Prototype),
];

fn options(shots: &[usize], draws: usize) -> FewshotOptions {
    FewshotOptions {
        shots: shots.to_vec(),
        draws,
        seed: 7,
        heads: HEADS.to_vec(),
    }
}

/// Predicts one row at a time, in `f64`, sorting all cosines.
fn naive_knn(train: &Data, val: &Data, k: usize, temperature: f64) -> (f64, f64) {
    let mut hits = vec![0.0; val.n_classes];
    let mut counts = vec![0.0; val.n_classes];
    for (row, &label) in val.rows.iter().zip(&val.labels) {
        let q = wide(row);
        let cosine = |r: &Vec<f32>| {
            let t = wide(r);
            dot(&q, &t) / (dot(&q, &q) * dot(&t, &t)).sqrt()
        };
        let mut cosines: Vec<(f64, usize)> = train
            .rows
            .iter()
            .map(cosine)
            .zip(train.labels.iter().copied())
            .collect();
        cosines.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut votes = vec![0.0; train.n_classes];
        for (cosine, class) in &cosines[..k] {
            votes[*class] += (cosine / temperature).exp();
        }
        let best = (0..votes.len())
            .max_by(|a, b| votes[*a].total_cmp(&votes[*b]))
            .unwrap();
        counts[label] += 1.0;
        hits[label] += f64::from(u8::from(best == label));
    }
    let n = val.rows.len() as f64;
    let balanced = hits.iter().zip(&counts).map(|(h, c)| h / c).sum::<f64>() / val.n_classes as f64;
    (hits.iter().sum::<f64>() / n, balanced)
}

#[test]
fn knn_equals_the_naive_one_for_any_number_of_threads() {
    let all = Data::clusters(1, &[300, 200, 250], 20, 0.12);
    let (mut train, mut val) = (vec![], vec![]);
    for i in 0..all.rows.len() {
        if i % 3 == 0 {
            val.push(i)
        } else {
            train.push(i)
        }
    }
    let pick = |rows: &[usize]| Data {
        rows: rows.iter().map(|i| all.rows[*i].clone()).collect(),
        labels: rows.iter().map(|i| all.labels[*i]).collect(),
        n_classes: 3,
    };
    let (train, val) = (pick(&train), pick(&val));
    let (train_flat, val_flat) = (train.flat(), val.flat());
    let train_set = LabelledSet::new(&train_flat, &train.labels, 20).unwrap();
    let val_set = LabelledSet::new(&val_flat, &val.labels, 20).unwrap();
    for (k, temperature) in [(1, 0.07), (20, 0.07), (200, 0.5)] {
        let (accuracy, balanced) = naive_knn(&train, &val, k, temperature);
        assert!(
            (0.4..0.95).contains(&accuracy),
            "the task must be neither trivial nor hopeless: {accuracy}"
        );
        for threads in [1, 3] {
            let got = in_pool(threads, || {
                knn_accuracy(&train_set, &val_set, k, temperature)
            })
            .unwrap();
            assert!(
                (got.accuracy - accuracy).abs() < 1e-12
                    && (got.balanced_accuracy - balanced).abs() < 1e-12
            );
        }
    }
}

#[test]
fn knn_checks_its_input() {
    let (labels, features) = ([0, 1], [1.0, 0.0, 0.0, 1.0]);
    let set = LabelledSet::new(&features, &labels, 2).unwrap();
    let other = LabelledSet::new(&features[..2], &labels, 1).unwrap();
    assert!(matches!(
        knn_accuracy(&set, &set, 3, 0.07),
        Err(AdaptError::BadOption { name: "k", .. })
    ));
    assert!(matches!(
        knn_accuracy(&set, &set, 0, 0.07),
        Err(AdaptError::BadOption { name: "k", .. })
    ));
    assert!(matches!(
        knn_accuracy(&set, &set, 1, 0.0),
        Err(AdaptError::BadOption {
            name: "temperature",
            ..
        })
    ));
    assert!(matches!(
        knn_accuracy(&set, &other, 1, 0.07),
        Err(AdaptError::Shape { .. })
    ));
    assert!(matches!(
        LabelledSet::new(&features, &labels, 3),
        Err(AdaptError::Shape {
            expected: 6,
            got: 4,
            ..
        })
    ));
    assert!(matches!(
        LabelledSet::new(&[], &[], 3),
        Err(AdaptError::Shape { .. })
    ));
    let error = LabelledSet::new(&[0.0, f32::NAN], &labels, 1)
        .unwrap_err()
        .to_string();
    assert!(error.contains("row 1"), "{error}");
}

#[test]
fn separate_classes_are_told_apart_from_one_image() {
    let data = Data::clusters(2, &[12, 15, 11], 30, 3.0);
    let flat = data.flat();
    let set = LabelledSet::new(&flat, &data.labels, 30).unwrap();
    for score in fewshot(&set, &options(&[1, 5], 5)).unwrap() {
        assert_eq!((score.mean, score.ci95), (1.0, 0.0), "{score:?}");
    }
}

/// Each row is an axis of its own: a support says nothing about queries, unless these leak into it.
#[test]
fn queries_do_not_leak_into_the_support() {
    let n = 60;
    let mut features = vec![0.0f32; n * n];
    (0..n).for_each(|i| features[i * n + i] = 1.0);
    let labels: Vec<usize> = (0..n).map(|i| i % 3).collect();
    let set = LabelledSet::new(&features, &labels, n).unwrap();
    for score in fewshot(&set, &options(&[1, 5, 10], 10)).unwrap() {
        assert!((score.mean - 1.0 / 3.0).abs() < 0.02, "{score:?}");
    }
}

#[test]
fn fewshot_is_the_same_for_any_number_of_threads() {
    let data = Data::clusters(3, &[30, 30, 30], 16, 0.3);
    let flat = data.flat();
    let set = LabelledSet::new(&flat, &data.labels, 16).unwrap();
    let run = |threads| {
        in_pool(threads, || {
            fewshot(&set, &options(&[1, 5, 10], 12)).unwrap()
        })
    };
    let scores = run(1);
    assert_eq!(scores, run(3));
    assert_eq!(
        scores.iter().map(|s| s.shots).collect::<Vec<_>>(),
        [1, 1, 1, 5, 5, 5, 10, 10, 10]
    );
    for head in 0..3 {
        let (one, ten) = (&scores[head], &scores[6 + head]);
        assert!(
            one.head == HEADS[head] && ten.mean > one.mean + 0.05 && one.ci95 > 0.0,
            "{one:?} {ten:?}"
        );
    }
    let other = fewshot(
        &set,
        &FewshotOptions {
            seed: 8,
            ..options(&[5], 12)
        },
    )
    .unwrap();
    assert_ne!(other[0].mean, scores[3].mean);
}

#[test]
fn many_shots_of_few_features_are_fitted_in_feature_space() {
    let data = Data::clusters(4, &[40, 40], 3, 2.0);
    let flat = data.flat();
    let set = LabelledSet::new(&flat, &data.labels, 3).unwrap();
    for score in fewshot(&set, &options(&[20], 4)).unwrap() {
        assert!(score.mean > 0.95, "{score:?}");
    }
}

#[test]
fn fewshot_checks_its_input() {
    let data = Data::clusters(5, &[6, 4], 3, 1.0);
    let flat = data.flat();
    let set = LabelledSet::new(&flat, &data.labels, 3).unwrap();
    let error = fewshot(&set, &options(&[1, 4], 5)).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("class 1 has 4 images; 4 shots need at least 5"),
        "{error}"
    );
    assert!(matches!(
        fewshot(&set, &options(&[0], 5)),
        Err(AdaptError::BadOption { name: "shots", .. })
    ));
    assert!(matches!(
        fewshot(&set, &options(&[1], 1)),
        Err(AdaptError::BadOption { name: "draws", .. })
    ));
    let one = LabelledSet::new(&flat, &[0; 10], 3).unwrap();
    assert!(matches!(
        fewshot(&one, &options(&[1], 5)),
        Err(AdaptError::TooFewClasses { .. })
    ));
}
