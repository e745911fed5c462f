//! Golden compare and line monitors through the façade, on procedural surfaces and random weights.

#![cfg(feature = "train")]

use ssl_edge::Error;
use ssl_edge::drift::{
    CameraChange, DriftAlarm, DriftCause, LineMonitor, OnLine, WatchOptions, inspect_on_line,
};
use ssl_edge::encoder::{Encoder, EngineKind, Options, Pooling};
use ssl_edge::export::random_bundle;
use ssl_edge::golden::{GoldenLearner, GoldenParts, LearnOptions, compare_golden};
use ssl_edge::job::{AdaptError, FitOptions, Job, SampleMeta, job_for, sample_frame};
use ssl_edge::surface::{ENCODER, PIXELS};
use ssl_edge::vision::{Image, Pixels, Station, Surface};

const SIDE: u32 = 64;

fn encoder(seed: u64) -> Encoder {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("random.sslb");
    random_bundle("vit_n16", seed, 32, Pooling::Cls, &path).expect("random weights can be packed");
    let options = Options {
        engine: EngineKind::Native,
        threads: 1,
        ..Options::default()
    };
    Encoder::open(&path, &options).expect("the bundle opens")
}

fn photo(surface: Surface, seed: u64) -> Image {
    Station::new(0).photo(surface, SIDE, seed)
}

/// The picture with `f` of each value.
fn changed(image: &Image, f: impl Fn(u8) -> u8) -> Image {
    let pixels = match image.pixels() {
        Pixels::Gray8(values) => Pixels::Gray8(values.iter().map(|v| f(*v)).collect()),
        Pixels::Rgb8(values) => Pixels::Rgb8(values.iter().map(|v| f(*v)).collect()),
        _ => panic!("photos have 8 bits"),
    };
    Image::new(image.width(), image.height(), pixels).expect("the size is the same")
}

/// Good parts alone, patches of pixels.
fn job(encoder: &Encoder, samples: u64) -> Job {
    let mut job = job_for(encoder);
    job.set_surface(Some(PIXELS)).expect("no sample yet");
    let good = job.add_class("good").expect("a new name");
    for seed in 0..samples {
        let image = photo(Surface::Clean, seed);
        let meta = SampleMeta {
            source: format!("good {seed}"),
            unix_time: 0,
        };
        sample_frame(encoder, &mut job, good, &image.frame(), meta).expect("a frame is taught");
    }
    job.fit(&FitOptions::default()).expect("the job fits");
    job
}

fn look(encoder: &Encoder, job: &Job, image: &Image) -> OnLine {
    inspect_on_line(encoder, job, &image.frame()).expect("a frame is inspected")
}

fn reference(encoder: &Encoder, job: &Job) -> Vec<OnLine> {
    let frames = (1000..1024).map(|seed| look(encoder, job, &photo(Surface::Clean, seed)));
    frames.collect()
}

/// Frames until the alarm.
fn watch(
    encoder: &Encoder,
    job: &Job,
    most: u64,
    frame: impl Fn(u64) -> Image,
) -> Option<(u64, DriftAlarm)> {
    let options = WatchOptions {
        run_length: 1000.0,
        ..WatchOptions::default()
    };
    let mut monitor = LineMonitor::new(job, &reference(encoder, job), &options).expect("a monitor");
    for at in 0..most {
        let seen = look(encoder, job, &frame(2000 + at));
        if let Some(alarm) = monitor.observe(job, &seen).expect("the frame is observed") {
            assert_eq!(
                monitor.levels(),
                [0.0; 6],
                "charts begin anew after an alarm"
            );
            return Some((at + 1, alarm));
        }
    }
    None
}

#[test]
fn changes_of_a_line_are_found_and_named() {
    let encoder = encoder(3);
    let job = job(&encoder, 8);
    assert_eq!(
        watch(&encoder, &job, 60, |seed| photo(Surface::Clean, seed)),
        None
    );
    let dark = |seed| {
        changed(&photo(Surface::Clean, seed), |v| {
            (u32::from(v) * 3 / 5) as u8
        })
    };
    let (frames, alarm) = watch(&encoder, &job, 60, dark).expect("a dark line is noticed");
    assert!(frames <= 20, "{frames}");
    assert_eq!(
        alarm.cause,
        DriftCause::CameraChanged(CameraChange::Brightness)
    );
    // Every part with another surface, in the same light: of the product or of a defect, but not of the camera's light.
    let (frames, alarm) = watch(&encoder, &job, 60, |seed| photo(Surface::Crack, seed))
        .expect("another surface is noticed");
    assert!(frames <= 40, "{frames}");
    assert!(!alarm.cause.action().is_empty());
}

#[test]
fn monitors_refuse_what_they_were_not_made_for() {
    let encoder = encoder(3);
    let mut job = job(&encoder, 8);
    let frames = reference(&encoder, &job);
    let options = WatchOptions::default();
    let mut monitor = LineMonitor::new(&job, &frames, &options).expect("a monitor");
    assert!(LineMonitor::new(&job, &frames[..4], &options).is_err());
    for run_length in [f64::NAN, 1.0, 1e30] {
        let options = WatchOptions {
            run_length,
            ..options
        };
        assert!(LineMonitor::new(&job, &frames, &options).is_err());
    }
    for unknown_rate in [f64::NAN, 0.0, -1.0, 0.3] {
        let options = WatchOptions {
            unknown_rate,
            ..options
        };
        assert!(LineMonitor::new(&job, &frames, &options).is_err());
    }
    let mut taught = frames.clone();
    taught[2] = look(&encoder, &job, &photo(Surface::Clean, 3));
    assert!(matches!(
        LineMonitor::new(&job, &taught, &options),
        Err(Error::ReferenceTaught { index: 2 })
    ));
    let black = changed(&photo(Surface::Clean, 1), |_| 0);
    let mut unknown = frames.clone();
    for (i, frame) in unknown.iter_mut().enumerate().take(12) {
        *frame = look(&encoder, &job, &changed(&black, |_| 10 * i as u8));
    }
    assert!(matches!(
        LineMonitor::new(&job, &unknown, &options),
        Err(Error::ReferenceUnknown { .. })
    ));
    let mut broken = frames[0].clone();
    broken.camera.focus = f64::NAN;
    assert!(monitor.observe(&job, &broken).is_err());
    broken = frames[0].clone();
    broken.feature[5] = f32::NAN;
    assert!(monitor.observe(&job, &broken).is_err());
    assert_eq!(
        monitor.levels(),
        [0.0; 6],
        "a refused frame changes nothing"
    );

    let class = job.classes()[0].id;
    job.rename_class(class, "fine").expect("a new name");
    job.fit(&FitOptions::default()).expect("the job fits");
    assert!(matches!(
        monitor.observe(&job, &frames[0]),
        Err(Error::JobChanged { .. })
    ));
}

#[test]
fn golden_parts_of_an_encoder_are_for_that_encoder() {
    let (own, other) = (encoder(3), encoder(4));
    let mut learner = GoldenLearner::new(&LearnOptions::of(ENCODER));
    for seed in 0..3 {
        let frame = photo(Surface::Clean, seed);
        learner.add(Some(&own), &frame.frame(), "").expect("a part");
    }
    let frame = photo(Surface::Clean, 9);
    assert!(matches!(
        learner.add(Some(&other), &frame.frame(), ""),
        Err(Error::OtherEncoder)
    ));
    let wide = Image::new(128, 32, Pixels::Gray8(vec![9; 128 * 32])).expect("a picture");
    assert!(matches!(
        learner.add(Some(&own), &wide.frame(), ""),
        Err(Error::Job(AdaptError::GridShape { .. }))
    ));
    let golden = learner.learn().expect("golden parts");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("parts.sslg");
    golden.save(&path).expect("the file is written");
    let golden = GoldenParts::load(&path).expect("the file is read");
    let found = compare_golden(Some(&own), &golden, &frame.frame()).expect("a comparison");
    // Two by two tiles of two by two tokens.
    assert_eq!((found.heat.rows, found.heat.cols), (4, 4));
    for refused in [Some(&other), None] {
        assert!(matches!(
            compare_golden(refused, &golden, &frame.frame()),
            Err(Error::Job(AdaptError::EncoderMismatch { .. }))
        ));
    }
    assert!(matches!(
        compare_golden(Some(&own), &golden, &wide.frame()),
        Err(Error::Job(AdaptError::GridShape { .. }))
    ));
}
