use crate::common::{Data, difference};
use proptest::prelude::*;
use ssl_edge_adapt::head::ridge::RidgeProblem;
use ssl_edge_adapt::head::statistics::Statistics;
use ssl_edge_adapt::{AdaptError, FitOptions, HeadKind, SampleMeta};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Each step adds a sample (odd) or removes one (even, when its class keeps two).
    #[test]
    fn any_sequence_equals_a_fresh_fit(seed in 0u8..200, steps in prop::collection::vec(0u32..1000, 1..80)) {
        let pool = Data::clusters(seed, &[60, 60, 60], 5, 0.8);
        let mut kept: Vec<usize> = vec![0, 1, 60, 61, 120, 121];
        let mut next = [2, 62, 122];
        let mut statistics = Statistics::new(vec![0.5; 5], 3);
        for &i in &kept {
            statistics.add(pool.labels[i], &pool.rows[i]).unwrap();
        }
        for step in steps {
            let class = step as usize / 2 % 3;
            if step % 2 == 1 && next[class] < (class + 1) * 60 {
                kept.push(next[class]);
                statistics.add(class, &pool.rows[next[class]]).unwrap();
                next[class] += 1;
            } else if kept.iter().filter(|i| pool.labels[**i] == class).count() > 2 {
                let at = (0..kept.len()).filter(|k| pool.labels[kept[*k]] == class).nth(step as usize % 3).unwrap();
                let gone = kept.remove(at);
                statistics.remove(class, &pool.rows[gone]).unwrap();
            }
        }
        let rest = Data {
            rows: kept.iter().map(|i| pool.rows[*i].clone()).collect(),
            labels: kept.iter().map(|i| pool.labels[*i]).collect(),
            n_classes: 3,
        };
        let support = rest.support();
        let incremental = RidgeProblem::in_feature_space(&statistics, &support).unwrap();
        let fresh = RidgeProblem::in_sample_space(&support).unwrap();
        let lambda = 1e-2 * fresh.unit();
        prop_assert!(difference(&incremental.solve(lambda).weights, &fresh.solve(lambda).weights) < 1e-6);
        prop_assert!(difference(&incremental.leave_one_out(lambda), &fresh.leave_one_out(lambda)) < 1e-6);
    }

    /// The same through a job, which is fitted on the way so that it keeps statistics, with both linear heads.
    #[test]
    fn a_job_forgets_without_a_trace(seed in 0u8..200, steps in prop::collection::vec(0usize..400, 1..40)) {
        let pool = Data::clusters(seed, &[8, 8, 40], 4, 0.8);
        let mut job = Data { rows: pool.rows[..16].to_vec(), labels: pool.labels[..16].to_vec(), n_classes: 2 }.job();
        let options = |head| FitOptions { head, lambda: Some(0.1), ..FitOptions::default() };
        job.fit(&options(HeadKind::Ridge)).unwrap();
        let classes = [job.classes()[0].id, job.classes()[1].id];
        let third = job.add_class("third").unwrap();
        for (n, &step) in steps.iter().enumerate() {
            let class = job.samples()[step % job.samples().len()].class;
            if step % 3 == 0 && job.samples().iter().filter(|s| s.class == class).count() > 2 {
                job.remove_sample(job.samples()[step % job.samples().len()].id).unwrap();
            } else {
                let class = [classes[0], classes[1], third][step % 3];
                job.add_sample(class, &pool.rows[16 + n], SampleMeta::default()).unwrap();
            }
        }
        job.remove_class(third).unwrap();
        let fresh = Data {
            rows: job.samples().iter().map(|s| s.embedding.clone()).collect(),
            labels: job.samples().iter().map(|s| usize::from(s.class == classes[1])).collect(),
            n_classes: 2,
        };
        let mut other = fresh.job();
        for head in [HeadKind::Ridge, HeadKind::Discriminant] {
            let (mine, theirs) = (job.fit(&options(head)).unwrap(), other.fit(&options(head)).unwrap());
            prop_assert_eq!(mine.loo_accuracy, theirs.loo_accuracy);
            prop_assert!((mine.temperature / theirs.temperature - 1.0).abs() < 1e-6);
            for row in &pool.rows {
                let (a, b) = (job.inspect(row).unwrap(), other.inspect(row).unwrap());
                prop_assert_eq!(a.class, b.class);
                prop_assert!((a.score - b.score).abs() < 1e-6);
            }
        }
    }
}

#[test]
fn bad_updates_are_refused() {
    let mut statistics = Statistics::new(vec![0.0; 2], 2);
    assert!(matches!(
        statistics.add(2, &[1.0, 2.0]),
        Err(AdaptError::UnknownClass { id: 2 })
    ));
    assert!(matches!(
        statistics.add(0, &[1.0]),
        Err(AdaptError::WrongDimension {
            expected: 2,
            got: 1,
            ..
        })
    ));
    assert!(matches!(
        statistics.add(0, &[1.0, f32::NAN]),
        Err(AdaptError::NotFinite { index: 1, .. })
    ));
    assert!(matches!(
        statistics.remove(0, &[1.0, 2.0]),
        Err(AdaptError::EmptyClass { .. })
    ));
    statistics.add(1, &[1.0, 2.0]).unwrap();
    assert!(statistics.remove_class(1).is_err());
    assert_eq!(statistics.counts(), [0, 1]);
    assert_eq!(statistics.mean(), [1.0, 2.0]);
}
