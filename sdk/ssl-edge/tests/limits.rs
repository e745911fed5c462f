//! Frames that are given up, by all that looks at frames: what follows has the bits that it would have had.

#![cfg(feature = "train")]

use ssl_edge::Error;
use ssl_edge::drift::{LineMonitor, WatchOptions, inspect_on_line, inspect_on_line_within};
use ssl_edge::encoder::{
    CancelToken, Encoder, Interruption, Limit, Options, Pooling, RuntimeError,
};
use ssl_edge::export::random_bundle;
use ssl_edge::feature::features_of_copies;
use ssl_edge::golden::{GoldenLearner, LearnOptions, compare_golden, compare_golden_within};
use ssl_edge::job::{
    FitOptions, Job, Look, SampleMeta, inspect_frame, inspect_frame_within, job_for, see,
    teach_seen,
};
use ssl_edge::surface::{ENCODER, PIXELS, ignore_mask_of, read_ignore_mask};
use ssl_edge::vision::{Image, Pixels, Station, Surface, encode_png};
use std::path::Path;
use std::time::Duration;

fn encoder(folder: &Path) -> Encoder {
    let path = folder.join("random.sslb");
    random_bundle("vit_n16", 0, 64, Pooling::Cls, &path).expect("random weights can be packed");
    let options = Options {
        threads: 1,
        ..Options::default()
    };
    Encoder::open(&path, &options).expect("the bundle opens")
}

fn photo(seed: u64) -> Image {
    Station::new(0).photo(Surface::Clean, 64, seed)
}

/// A fitted job of one good class that looks at the surface of `kind`.
fn taught(encoder: &Encoder, kind: &str) -> Job {
    let mut job = job_for(encoder);
    job.set_surface(Some(kind)).expect("a new job");
    let class = job.add_class("good").expect("the name is free");
    let look = Look {
        tokens: true,
        ..Look::default()
    };
    for seed in 0..4 {
        let seen = see(encoder, &job, &photo(seed).frame(), &look).expect("the frame embeds");
        teach_seen(&mut job, class, &seen, SampleMeta::default(), Vec::new()).expect("it is new");
    }
    job.fit(&FitOptions::default()).expect("four samples");
    job
}

/// A limit that has passed, one for each reason.
fn passed() -> [(Limit, Interruption); 2] {
    let token = CancelToken::default();
    token.cancel();
    [
        (Limit::within(Duration::ZERO), Interruption::Deadline),
        (Limit::default().or_when(&token), Interruption::Cancelled),
    ]
}

fn reason<T>(outcome: Result<T, Error>) -> Interruption {
    match outcome.map(|_| "an outcome") {
        Err(Error::Interrupted { reason })
        | Err(Error::Encoder(RuntimeError::Interrupted { reason, .. })) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_inspection_that_was_given_up_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let encoder = encoder(folder.path());
    let image = photo(50);
    let frame = image.frame();
    for kind in [PIXELS, ENCODER] {
        let job = taught(&encoder, kind);
        let before = inspect_frame(&encoder, &job, &frame).expect("the job is fitted");
        for (limit, why) in passed() {
            assert_eq!(
                reason(inspect_frame_within(&encoder, &job, &frame, &limit)),
                why
            );
        }
        // Wherever the time is over: from the first look to the last.
        let mut given_up = 0;
        for micros in std::iter::successors(Some(1u64), |micros| Some(micros * 5 / 4 + 1)) {
            let limit = Limit::within(Duration::from_micros(micros));
            match inspect_frame_within(&encoder, &job, &frame, &limit) {
                Ok(verdict) => {
                    assert_eq!(verdict, before);
                    break;
                }
                given => assert_eq!(reason(given), Interruption::Deadline),
            }
            given_up += 1;
            assert_eq!(
                inspect_frame(&encoder, &job, &frame).expect("as ever"),
                before
            );
        }
        assert!(given_up > 0, "a microsecond was enough");
    }
}

#[test]
fn a_line_and_golden_parts_do_not_notice_frames_that_were_given_up() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let encoder = encoder(folder.path());
    let job = taught(&encoder, PIXELS);
    let on_line = |seed| inspect_on_line(&encoder, &job, &photo(seed).frame()).expect("fitted");
    let reference: Vec<_> = (10..16).map(on_line).collect();
    let monitor = LineMonitor::new(&job, &reference, &WatchOptions::default());
    let mut watched = monitor.expect("six frames");
    let mut alone = watched.clone();
    for seed in 20..23 {
        let image = photo(seed);
        for (limit, why) in passed() {
            let given_up = inspect_on_line_within(&encoder, &job, &image.frame(), &limit);
            assert_eq!(reason(given_up), why);
        }
        let found = inspect_on_line_within(&encoder, &job, &image.frame(), &Limit::default());
        let found = found.expect("the job is fitted");
        assert_eq!(
            watched.observe(&job, &found).expect("the same job"),
            alone.observe(&job, &on_line(seed)).expect("the same job")
        );
        assert_eq!(watched.levels(), alone.levels());
    }

    for kind in [PIXELS, ENCODER] {
        let mut learner = GoldenLearner::new(&LearnOptions::of(kind));
        for (seed, (limit, why)) in (30..).zip(passed()) {
            let image = photo(seed);
            let given_up = learner.add_within(Some(&encoder), &image.frame(), "", &limit);
            assert_eq!(reason(given_up), why);
            learner
                .add(Some(&encoder), &image.frame(), "")
                .expect("it was not taken");
        }
        assert_eq!(learner.len(), 2);
        let (golden, image) = (learner.learn().expect("two parts"), photo(40));
        let before = compare_golden(Some(&encoder), &golden, &image.frame()).expect("its encoder");
        for (limit, why) in passed() {
            let given_up = compare_golden_within(Some(&encoder), &golden, &image.frame(), &limit);
            assert_eq!(reason(given_up), why);
        }
        let hour = Limit::within(Duration::from_secs(3600));
        let after = compare_golden_within(Some(&encoder), &golden, &image.frame(), &hour);
        assert_eq!(
            after.expect("time enough").score.to_bits(),
            before.score.to_bits()
        );
    }
}

#[test]
fn a_frame_is_taught_with_its_copies_or_not_at_all() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let encoder = encoder(folder.path());
    let mut job = job_for(&encoder);
    let class = job.add_class("good").expect("the name is free");
    let image = photo(1);
    for (limit, why) in passed() {
        let look = Look {
            copies: true,
            limit,
            ..Look::default()
        };
        assert_eq!(reason(see(&encoder, &job, &image.frame(), &look)), why);
    }
    let look = Look {
        copies: true,
        ..Look::default()
    };
    let mut seen = see(&encoder, &job, &image.frame(), &look).expect("the frame embeds");
    let copies = features_of_copies(&encoder, &image, job.layout().parts()).expect("they embed");
    assert_eq!(seen.copies, copies);
    let meta = SampleMeta::default;
    let id = teach_seen(&mut job, class, &seen, meta(), Vec::new()).expect("it is new");
    assert_eq!(job.sample(id).expect("it is there").copies, copies);

    seen.feature[0] += 1.0;
    seen.copies[3][0] = f32::NAN;
    let error = teach_seen(&mut job, class, &seen, meta(), Vec::new()).expect_err("not finite");
    assert!(error.to_string().contains("copy 3"), "{error}");
    assert_eq!(job.samples().len(), 1, "the job is as before");
}

#[test]
fn a_mask_in_memory_is_the_mask_in_a_file() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let pixels: Vec<u8> = (0..20 * 10).map(|at| (at * 37 % 256) as u8).collect();
    let image = Image::new(20, 10, Pixels::Gray8(pixels.clone())).expect("an image");
    let file = folder.path().join("mask.png");
    std::fs::write(&file, encode_png(&image)).expect("a file can be written");
    let mask = ignore_mask_of(&image).expect("some pixels are ignored");
    assert_eq!(mask, read_ignore_mask(&file).expect("the file is whole"));
    let ignored: Vec<bool> = pixels.iter().map(|&value| value > 127).collect();
    assert_eq!(mask.ignored(), ignored);
    assert_eq!(mask.size(), [10, 20]);
}
