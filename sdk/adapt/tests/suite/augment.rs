//! Copies of samples: kept unless left-out samples speak against them, gone with their sample.

use crate::common::{Data, encoder, meta, normal};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use ssl_edge_adapt::eval::{FewshotOptions, HeadChoice, LabelledSet, fewshot};
use ssl_edge_adapt::{AdaptError, FitOptions, HeadKind, Job, SampleId};

/// Copies of a sample.
const COPIES: usize = 15;
/// Values that say how a part lies, and nothing of its class.
const LIE: usize = 40;
const DIM: usize = 1 + LIE;

/// A feature whose first value tells the class and whose others say how the part lies, and features of copies that lie otherwise.
fn sample(rng: &mut ChaCha8Rng, class: usize) -> (Vec<f32>, Vec<Vec<f32>>) {
    let first = (class as f64 + 0.05 * normal(rng)) as f32;
    let mut lying = || -> Vec<f32> {
        let lie = (0..LIE).map(|_| normal(rng) as f32);
        std::iter::once(first).chain(lie).collect()
    };
    let feature = lying();
    (feature, (0..COPIES).map(|_| lying()).collect())
}

/// A job of `n` samples a class; the copies of its samples lie otherwise, and are of the other class if they are not `helpful`: as where the way a part
/// lies is what tells its class.
fn taught(seed: u8, n: usize, helpful: bool) -> Job {
    let mut rng = ChaCha8Rng::from_seed([seed; 32]);
    let mut job = Job::new(encoder(DIM));
    let classes = ["a", "b"].map(|name| job.add_class(name).unwrap());
    for i in 0..2 * n {
        let (feature, mut copies) = sample(&mut rng, i % 2);
        if !helpful {
            for copy in &mut copies {
                copy[0] = 1.0 - copy[0];
            }
        }
        let id = job.add_sample(classes[i % 2], &feature, meta("x")).unwrap();
        job.set_sample_copies(id, copies).unwrap();
    }
    job
}

fn fit(job: &mut Job, head: HeadKind) -> ssl_edge_adapt::FitReport {
    let options = FitOptions {
        head: Some(head),
        ..FitOptions::default()
    };
    job.fit(&options).unwrap()
}

#[test]
fn copies_that_help_are_kept_and_misleading_ones_are_not() {
    let mut rng = ChaCha8Rng::from_seed([200; 32]);
    let tests: Vec<(usize, Vec<f32>)> = (0..400)
        .map(|i| (i % 2, sample(&mut rng, i % 2).0))
        .collect();
    for head in [
        HeadKind::Lda,
        HeadKind::Ridge,
        HeadKind::Discriminant,
        HeadKind::Logistic,
    ] {
        let mut job = taught(1, 16, true);
        let mut plain = job.clone();
        for id in plain.samples().iter().map(|s| s.id).collect::<Vec<_>>() {
            plain.set_sample_copies(id, Vec::new()).unwrap();
        }
        let (with, without) = (fit(&mut job, head), fit(&mut plain, head));
        assert_eq!(without.augmentation, None);
        let found = with.augmentation.unwrap();
        assert_eq!(found.copies, 32 * COPIES);
        let right = |job: &Job| {
            let hits = tests.iter().filter(|(class, feature)| {
                job.inspect(feature).unwrap().class == job.classes()[*class].id
            });
            hits.count()
        };
        let (better, worse) = (right(&job), right(&plain));
        println!("{head:?}: {found:?}, {better} against {worse} of 400");
        assert!(found.kept && better > worse, "{head:?}");
        let mut misled = taught(2, 16, false);
        let report = fit(&mut misled, head);
        let found = report.augmentation.unwrap();
        assert!(!found.kept, "{head:?}: {found:?}");
        for id in misled.samples().iter().map(|s| s.id).collect::<Vec<_>>() {
            misled.set_sample_copies(id, Vec::new()).unwrap();
        }
        assert_eq!(report.confusion, fit(&mut misled, head).confusion);
    }
}

#[test]
fn samples_contradict_misleading_copies() {
    let kept = (0..40).filter(|&seed| {
        let report = fit(&mut taught(seed, 16, false), HeadKind::Lda);
        report.augmentation.unwrap().kept
    });
    let kept = kept.count();
    assert!(kept <= 4, "{kept} of 40");
}

/// The only sample of a class cannot be left out, but the head that has seen it must still know it: not where a turned part looks like the other class.
#[test]
fn one_sample_a_class_contradicts_copies_that_look_like_the_other() {
    for seed in 0..20 {
        let mut rng = ChaCha8Rng::from_seed([seed; 32]);
        let mut job = Job::new(encoder(DIM));
        let parts = [0, 1].map(|class| sample(&mut rng, class).0);
        for (i, name) in ["upright", "turned"].into_iter().enumerate() {
            let class = job.add_class(name).unwrap();
            let id = job.add_sample(class, &parts[i], meta("x")).unwrap();
            job.set_sample_copies(id, vec![parts[1 - i].clone()])
                .unwrap();
        }
        let found = fit(&mut job, HeadKind::Lda).augmentation.unwrap();
        assert!(!found.kept && found.lost > 0, "{found:?}");
    }
}

#[test]
fn a_sample_takes_its_copies_along() {
    let mut job = taught(3, 5, true);
    let (fresh, probe) = (fit(&mut job, HeadKind::Lda), vec![0.5; DIM]);
    let verdict = job.inspect(&probe).unwrap();
    let class = job.classes()[0].id;
    let odd: Vec<f32> = (0..DIM).map(|j| j as f32).collect();
    let id = job.add_sample(class, &odd, meta("odd")).unwrap();
    job.set_sample_copies(id, vec![vec![9.0; DIM]; 3]).unwrap();
    let more = fit(&mut job, HeadKind::Lda);
    assert_eq!(
        more.augmentation.unwrap().copies,
        fresh.augmentation.unwrap().copies + 3
    );
    job.remove_sample(id).unwrap();
    let again = fit(&mut job, HeadKind::Lda);
    assert_eq!(again, fresh);
    let now = job.inspect(&probe).unwrap();
    assert_eq!(
        (now.scores, now.distance),
        (verdict.scores.clone(), verdict.distance)
    );
    job.undo().unwrap();
    assert_eq!(job.sample(id).unwrap().copies.len(), 3);
    assert_eq!(fit(&mut job, HeadKind::Lda), more);
    // Merging and the file keep them.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sslj");
    job.save(&path).unwrap();
    let loaded = Job::load(&path).unwrap();
    assert_eq!(loaded.samples(), job.samples());
    assert_eq!(loaded.report(), job.report());
    let mut merged = job.clone_empty();
    merged.merge(&loaded).unwrap();
    assert_eq!(merged.samples()[3].copies, job.samples()[3].copies);
}

#[test]
fn copies_that_do_not_fit_are_refused() {
    let mut job = taught(4, 2, true);
    let id = job.samples()[0].id;
    let before = job.samples()[0].copies.clone();
    for (copies, word) in [
        (vec![vec![1.0; DIM], vec![1.0; DIM - 1]], "copy 1"),
        (vec![vec![f32::NAN; DIM]], "copy 0"),
    ] {
        let error = job.set_sample_copies(id, copies).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    assert_eq!(job.samples()[0].copies, before);
    assert!(matches!(
        job.set_sample_copies(SampleId(99), Vec::new()),
        Err(AdaptError::UnknownSample { .. })
    ));
}

#[test]
fn fewshot_measures_with_and_without() {
    let mut rng = ChaCha8Rng::from_seed([5; 32]);
    let (mut rows, mut labels, mut copies) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..80 {
        let (row, of_row) = sample(&mut rng, i % 2);
        rows.push(row);
        copies.push(of_row);
        labels.push(i % 2);
    }
    let data = Data {
        rows,
        labels,
        n_classes: 2,
    };
    let flat = data.flat();
    let set = LabelledSet::new(&flat, &data.labels, DIM).unwrap();
    assert!(set.with_copies(&copies[1..]).is_err());
    let set = set.with_copies(&copies).unwrap();
    let kind = HeadKind::Lda;
    let heads = vec![
        HeadChoice::One(kind),
        HeadChoice::Augmented { kind, always: true },
        HeadChoice::Augmented {
            kind,
            always: false,
        },
    ];
    let options = FewshotOptions {
        shots: vec![1, 4],
        draws: 20,
        seed: 1,
        heads,
    };
    let scores = fewshot(&set, &options).unwrap();
    assert_eq!(scores[1].head.name(), "lda+copies");
    // One sample a class: nothing can be left out, and little speaks against copies, which help here and make the head no surer.
    assert!(scores[2].mean > scores[0].mean, "{scores:?}");
    assert!(scores[1].mean > scores[0].mean + 0.05, "{scores:?}");
    assert!(scores[1].brier < scores[0].brier + 0.1, "{scores:?}");
    assert!(scores[4].mean > scores[3].mean, "{scores:?}");
    for score in &scores {
        assert!((0.0..=1.0).contains(&score.ece) && (0.0..=2.0).contains(&score.brier));
    }
}
