//! Regions of the frame that do not count, and the files that hold them.

use crate::common::{encoder, meta, normal, uniform};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use ssl_edge_adapt::anomaly::{TokenGrid, token_mask};
use ssl_edge_adapt::{Action, AdaptError, ClassId, FitOptions, IgnoreMask, Job, Verdict};
use std::path::Path;

const SIZE: [usize; 2] = [4, 6];
const DIM: usize = 5;
/// Bits of the class's probability and of the surface's score that the program that wrote the file of version 1 gave on the frame of the test.
const V1_SCORE: u32 = 0x3f65_3c6a;
const V1_ANOMALY: u64 = 0x3fd6_31d4_4000_0000;

/// Tokens of a good part; those of `scratched` cells are unlike all good ones.
fn tokens(seed: u8, scratched: &[usize]) -> Vec<f32> {
    let mut rng = ChaCha8Rng::from_seed([seed; 32]);
    let mut tokens: Vec<f32> = (0..SIZE[0] * SIZE[1] * DIM)
        .map(|i| (1.0 + (i % DIM) as f64 + 0.05 * normal(&mut rng)) as f32)
        .collect();
    for cell in scratched {
        tokens[cell * DIM..][..DIM].reverse();
    }
    tokens
}

fn grid(tokens: &[f32]) -> TokenGrid<'_> {
    TokenGrid::new(tokens, SIZE, DIM).unwrap()
}

fn teach(job: &mut Job, class: ClassId, seed: u8, scratched: &[usize]) {
    let feature = [1.0, f32::from(seed) * 1e-3];
    let id = job.add_sample(class, &feature, meta("part")).unwrap();
    job.set_sample_tokens(id, &grid(&tokens(seed, scratched)))
        .unwrap();
}

/// Eight good parts, of which the last has a mark in cell 3.
fn taught() -> Job {
    let mut job = Job::new(encoder(2));
    job.set_surface(Some("pixels")).unwrap();
    let good = job.add_class("good").unwrap();
    for seed in 0..8 {
        teach(&mut job, good, seed, if seed == 7 { &[3] } else { &[] });
    }
    job
}

fn fit(job: &mut Job) {
    let options = FitOptions {
        unknown_rate: 0.25,
        ..FitOptions::default()
    };
    job.fit(&options).unwrap();
}

fn judge(job: &Job, scratched: &[usize]) -> Verdict {
    let tokens = tokens(50, scratched);
    job.inspect_with(&[1.0, 3.5e-3], Some(&grid(&tokens)))
        .unwrap()
}

/// Column 3 of the tokens, cells 3, 9, 15 and 21, at `scale` pixels a token.
fn mask(scale: usize) -> IgnoreMask {
    let [height, width] = SIZE.map(|side| side * scale);
    let ignored: Vec<bool> = (0..height * width)
        .map(|i| (3 * scale..4 * scale).contains(&(i % width)))
        .collect();
    IgnoreMask::new(&ignored, [height, width]).unwrap()
}

#[test]
fn tokens_are_kept_as_counting_pixels_says() {
    let mut rng = ChaCha8Rng::from_seed([3; 32]);
    for (height, width, rows, cols) in [
        (12, 18, 4, 6),
        (13, 17, 4, 6),
        (7, 90, 7, 11),
        (40, 31, 9, 30),
        (5, 5, 5, 5),
    ] {
        for share in [0.05, 0.5, 0.8] {
            let ignored: Vec<bool> = (0..height * width)
                .map(|_| uniform(&mut rng) < share)
                .collect();
            let mask = IgnoreMask::new(&ignored, [height, width]).unwrap();
            let counted: Vec<bool> = ignored.iter().map(|ignored| !ignored).collect();
            let want = token_mask(&counted, [height, width], [rows, cols]).unwrap();
            match mask.keep_tokens([rows, cols]) {
                Ok(keep) => assert_eq!(keep, want),
                Err(error) => {
                    assert!(matches!(error, AdaptError::AllMasked { .. }) && !want.contains(&true));
                }
            }
            let n = ignored.iter().filter(|ignored| **ignored).count();
            assert_eq!(mask.share(), n as f64 / ignored.len() as f64);
        }
    }
}

#[test]
fn masks_that_are_none_are_refused() {
    let refused = |ignored: &[bool], size| IgnoreMask::new(ignored, size).unwrap_err();
    assert!(matches!(
        refused(&[true; 5], [2, 3]),
        AdaptError::GridShape { .. }
    ));
    assert!(matches!(refused(&[], [0, 3]), AdaptError::GridShape { .. }));
    assert!(matches!(
        refused(&[false; 6], [2, 3]),
        AdaptError::BadOption { .. }
    ));
    assert!(matches!(
        refused(&[true; 6], [2, 3]),
        AdaptError::AllMasked { .. }
    ));
    let mask = mask(5);
    assert!(mask.check_frame([20, 30]).is_ok() && mask.check_frame([1000, 1503]).is_ok());
    let text = mask.check_frame([1000, 1000]).unwrap_err().to_string();
    assert!(
        text.contains("30 x 20") && text.contains("1000 x 1000"),
        "{text}"
    );
    assert!(matches!(
        mask.keep_tokens([4, 31]),
        Err(AdaptError::GridShape { .. })
    ));
    let mut plain = Job::new(encoder(2));
    assert!(matches!(
        plain.set_ignore(Some(mask.clone())),
        Err(AdaptError::BadOption { .. })
    ));
    let mut job = taught();
    job.set_ignore(Some(mask)).unwrap();
    assert!(matches!(
        job.clone_empty().set_surface(None),
        Err(AdaptError::BadOption { .. })
    ));
    // Finer than one pixel a token of the taught frames.
    let coarse = IgnoreMask::new(&[true, false], [1, 2]).unwrap();
    assert!(matches!(
        job.set_ignore(Some(coarse)),
        Err(AdaptError::GridShape { .. })
    ));
}

#[test]
fn what_is_ignored_neither_alarms_nor_teaches() {
    let mut job = taught();
    fit(&mut job);
    // The mark of the last good part is part of what is good.
    assert!(!judge(&job, &[3]).anomaly.unwrap().anomalous);
    let bare = job.surface_report().unwrap().frame.value;
    job.set_ignore(Some(mask(5))).unwrap();
    assert!(job.report().is_none(), "the job must be fitted again");
    fit(&mut job);
    // Without the mark the good parts are alike, and the threshold is tight.
    assert!(job.surface_report().unwrap().frame.value < 0.1 * bare);
    let there = judge(&job, &[3, 9, 15, 21]);
    let heat = there.anomaly.clone().unwrap().heat;
    assert!(there.ok == Some(true) && !there.anomaly.unwrap().anomalous);
    assert!([3, 9, 15, 21].iter().all(|&cell| heat.values[cell] == 0.0));
    assert_eq!(
        heat.keep
            .as_ref()
            .map(|keep| keep.iter().filter(|k| !**k).count()),
        Some(4)
    );
    let elsewhere = judge(&job, &[2]);
    assert!(elsewhere.ok == Some(false) && elsewhere.anomaly.unwrap().anomalous);
    // A mask of another size says the same.
    let mut finer = job.clone();
    finer.set_ignore(Some(mask(40))).unwrap();
    fit(&mut finer);
    assert_eq!(judge(&finer, &[2]).anomaly, judge(&job, &[2]).anomaly);
}

#[test]
fn a_mask_is_saved_recorded_and_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sslj");
    let mut job = taught();
    fit(&mut job);
    let before = judge(&job, &[3]);
    job.set_ignore(Some(mask(5))).unwrap();
    fit(&mut job);
    job.save(&path).unwrap();
    let loaded = Job::load(&path).unwrap();
    assert_eq!(loaded.ignore(), Some(&mask(5)));
    assert_eq!(judge(&loaded, &[2, 3]), judge(&job, &[2, 3]));
    let recorded = |action: &Action| matches!(action, Action::SetIgnore { share: Some(share) } if (share - 1.0 / 6.0).abs() < 1e-12);
    assert!(job.history().iter().any(|record| recorded(&record.action)));
    job.undo().unwrap();
    assert_eq!(job.ignore(), None);
    fit(&mut job);
    assert_eq!(judge(&job, &[3]).anomaly, before.anomaly);
    job.set_ignore(Some(mask(5))).unwrap();
    job.set_ignore(None).unwrap();
    fit(&mut job);
    assert_eq!(judge(&job, &[3]).anomaly, before.anomaly);
}

#[test]
fn jobs_merge_under_one_mask() {
    let (mut one, mut two) = (taught(), Job::new(encoder(2)));
    two.set_surface(Some("pixels")).unwrap();
    let good = two.add_class("good").unwrap();
    teach(&mut two, good, 30, &[]);
    one.set_ignore(Some(mask(5))).unwrap();
    let refused = one.merge(&two).unwrap_err().to_string();
    assert!(refused.contains("ignore mask"), "{refused}");
    two.set_ignore(Some(mask(5))).unwrap();
    assert_eq!(one.merge(&two).unwrap(), 1);
    let mut fresh = Job::new(encoder(2));
    fresh.merge(&one).unwrap();
    assert_eq!(
        (fresh.ignore(), fresh.surface()),
        (one.ignore(), Some("pixels"))
    );
}

/// A file that was written before there were masks: it gives the verdicts that it gave, and holds a mask after the next save.
#[test]
fn a_file_of_version_1_goes_on() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/version-1.sslj");
    let content = std::fs::read(&golden).unwrap();
    assert_eq!(content[8..12], [1, 0, 0, 0]);
    let mut job = Job::load(&golden).unwrap();
    assert_eq!((job.ignore(), job.surface()), (None, Some("pixels")));
    let names: Vec<&str> = job.classes().iter().map(|c| c.name.as_str()).collect();
    assert_eq!((names, job.samples().len()), (vec!["good", "dent"], 9));
    assert_eq!(
        (job.revision(), job.history().last().unwrap().by.as_str()),
        (13, "maria")
    );
    // Scores that the program of that time gave on the same frame.
    let verdict = judge(&job, &[2]);
    let anomaly = verdict.anomaly.unwrap();
    assert_eq!((verdict.name.as_str(), verdict.unknown), ("good", false));
    assert!(anomaly.anomalous && verdict.ok == Some(false));
    assert_eq!(verdict.score.to_bits(), V1_SCORE);
    assert_eq!(anomaly.score.to_bits(), V1_ANOMALY);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("now.sslj");
    job.save(&path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap()[8..12], [2, 0, 0, 0]);
    assert_eq!(judge(&Job::load(&path).unwrap(), &[2]), judge(&job, &[2]));
    job.set_ignore(Some(mask(5))).unwrap();
    fit(&mut job);
    job.save(&path).unwrap();
    assert_eq!(Job::load(&path).unwrap().ignore(), job.ignore());
}
