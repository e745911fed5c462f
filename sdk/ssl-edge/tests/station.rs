//! From a folder to verdicts through the façade, on procedural surfaces and random weights.

#![cfg(feature = "train")]

use ssl_edge::Error;
use ssl_edge::augment::LARGEST_CLASS;
use ssl_edge::encoder::{Encoder, EngineKind, Options, Pooling, embed_files, feature_of};
use ssl_edge::eval::{encoder_features, image_features, knn_accuracy};
use ssl_edge::export::{ExportOptions, export_run, random_bundle};
use ssl_edge::job::{
    AdaptError, CalibrateOptions, FitOptions, Job, SampleMeta, calibrate, inspect_frame,
    job_for_embeddings, sample_frame, teach,
};
use ssl_edge::train::{MethodName, Request, RunOptions, pretrain};
use ssl_edge::vision::{ClassFolder, Station, Surface, raw_pixels};
use std::path::Path;

const SIZE: u32 = 64;

fn encoder(folder: &Path, seed: u64) -> Encoder {
    let path = folder.join(format!("random{seed}.sslb"));
    random_bundle("vit_n16", seed, SIZE, Pooling::ClsMean, &path)
        .expect("random weights can be packed");
    Encoder::open(
        &path,
        &Options {
            engine: EngineKind::Native,
            threads: 1,
            ..Options::default()
        },
    )
    .expect("the bundle opens")
}

fn samples(folder: &Path) -> ClassFolder {
    let root = folder.join("samples");
    Station::new(0)
        .write(&root, &[Surface::Clean, Surface::Crack], 4, SIZE, 0)
        .expect("surfaces can be written");
    ClassFolder::scan(&root).expect("the folder has two classes")
}

/// Frames of surfaces in a folder of their own, drawn from `seed`.
fn frames(folder: &Path, surfaces: &[Surface], n: usize, seed: u64) -> ClassFolder {
    let root = folder.join(format!("frames{seed}"));
    let station = Station::new(0);
    station
        .write(&root, surfaces, n, SIZE, seed)
        .expect("surfaces can be written");
    ClassFolder::scan(&root).expect("the folder has classes")
}

/// Copies of the samples of a class: the fewest and the most.
fn copies_of(job: &Job, class: &str) -> (usize, usize) {
    let id = job.class_named(class).expect("it was taught").id;
    let samples = job.samples().iter().filter(|sample| sample.class == id);
    let counts: Vec<usize> = samples.map(|sample| sample.copies.len()).collect();
    let extreme = |of: Option<&usize>| *of.expect("it has samples");
    (extreme(counts.iter().min()), extreme(counts.iter().max()))
}

#[test]
fn classes_get_copies_while_they_are_small_and_go_on_as_they_began() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let encoder = encoder(folder.path(), 0);
    let (copies, plain) = (
        CalibrateOptions::default(),
        CalibrateOptions {
            augment: false,
            ..Default::default()
        },
    );
    let few = frames(folder.path(), &[Surface::Clean, Surface::Crack], 3, 1);
    let more = frames(
        folder.path(),
        &[Surface::Clean, Surface::Crack],
        LARGEST_CLASS,
        2,
    );
    let new = frames(
        folder.path(),
        &[Surface::Clean, Surface::Scratch],
        LARGEST_CLASS + 1,
        3,
    );

    let mut job = calibrate(&encoder, &few, &copies)
        .expect("six are enough")
        .job;
    assert_eq!(copies_of(&job, "crack"), (9, 9));
    teach(&encoder, &mut job, &more, &copies).expect("more can be taught");
    assert_eq!(copies_of(&job, "crack"), (9, 9));
    teach(&encoder, &mut job, &new, &copies).expect("a class can be added");
    assert_eq!(
        (copies_of(&job, "clean"), copies_of(&job, "scratch")),
        ((9, 9), (0, 0))
    );

    let mut job = calibrate(&encoder, &few, &plain)
        .expect("six are enough")
        .job;
    assert_eq!(copies_of(&job, "clean"), (0, 0));
    let scratches = frames(folder.path(), &[Surface::Clean, Surface::Scratch], 2, 4);
    teach(&encoder, &mut job, &scratches, &copies).expect("more can be taught");
    assert_eq!(
        (copies_of(&job, "clean"), copies_of(&job, "scratch")),
        ((0, 0), (9, 9))
    );
    let report = job.fit(&FitOptions::default()).expect("it can be fitted");
    assert_eq!(report.augmentation.map(|found| found.copies), Some(18));
}

/// Cuts a file to half its bytes.
fn cut(path: &Path) {
    let bytes = std::fs::read(path).expect("a sample can be read");
    std::fs::write(path, &bytes[..bytes.len() / 2]).expect("a sample can be written");
}

#[test]
fn a_folder_becomes_a_job_that_names_what_it_left_out() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let encoder = encoder(folder.path(), 0);
    let set = samples(folder.path());
    let broken = set.samples[2].0.clone();
    cut(&broken);
    let options = CalibrateOptions {
        unix_time: 1_800_000_000,
        ..CalibrateOptions::default()
    };
    let taught = calibrate(&encoder, &set, &options).expect("seven images are enough");
    assert_eq!(taught.report.n, 7);
    assert_eq!(
        taught
            .skipped
            .iter()
            .map(|skipped| &skipped.path)
            .collect::<Vec<_>>(),
        [&broken]
    );
    let names: Vec<&str> = taught
        .job
        .classes()
        .iter()
        .map(|class| class.name.as_str())
        .collect();
    assert_eq!(names, ["clean", "crack"]);
    let first = &taught.job.samples()[0];
    assert_eq!(
        first.meta,
        SampleMeta {
            source: set.samples[0].0.display().to_string(),
            unix_time: 1_800_000_000
        }
    );

    let path = folder.path().join("station.sslj");
    taught.job.save(&path).expect("the job can be saved");
    let loaded = Job::load(&path).expect("the job can be loaded");
    let image = Station::new(0).photo(Surface::Crack, SIZE, 77);
    let verdict = inspect_frame(&encoder, &loaded, &image.frame()).expect("the job is fitted");
    assert_eq!(
        verdict,
        inspect_frame(&encoder, &taught.job, &image.frame()).expect("the job is fitted")
    );
    let taught_frame =
        ssl_edge::vision::decode_file(&set.samples[0].0).expect("the first sample is whole");
    let verdict =
        inspect_frame(&encoder, &loaded, &taught_frame.frame()).expect("the job is fitted");
    assert_eq!(verdict.nearest, first.id);
    assert!(verdict.distance < 1e-6 && !verdict.unknown, "{verdict:?}");
}

#[test]
fn a_class_whose_images_are_all_broken_is_named() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let encoder = encoder(folder.path(), 0);
    let set = samples(folder.path());
    set.samples
        .iter()
        .filter(|(_, class)| *class == 1)
        .for_each(|(path, _)| cut(path));
    let error =
        calibrate(&encoder, &set, &CalibrateOptions::default()).expect_err("a class has no image");
    assert!(
        matches!(&error, Error::NoReadableImage { class, broken: 4, .. } if class == "crack"),
        "{error:?}"
    );
    assert!(error.to_string().contains("replace its images"), "{error}");
}

#[test]
fn a_job_works_with_its_own_encoder_only() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (own, other) = (encoder(folder.path(), 0), encoder(folder.path(), 1));
    let image = Station::new(0).photo(Surface::Clean, SIZE, 5);
    let mut job = job_for_embeddings(&own);
    let class = job.add_class("clean").expect("the name is free");
    let error = sample_frame(
        &other,
        &mut job,
        class,
        &image.frame(),
        SampleMeta::default(),
    )
    .expect_err("another encoder");
    assert!(
        matches!(error, Error::Job(AdaptError::EncoderMismatch { .. })),
        "{error:?}"
    );
    let error = inspect_frame(&other, &job, &image.frame()).expect_err("another encoder");
    assert!(
        matches!(error, Error::Job(AdaptError::EncoderMismatch { .. })),
        "{error:?}"
    );
    let error = inspect_frame(&own, &job, &image.frame()).expect_err("not fitted");
    assert!(
        matches!(error, Error::Job(AdaptError::NotFitted)),
        "{error:?}"
    );
    sample_frame(&own, &mut job, class, &image.frame(), SampleMeta::default())
        .expect("its own encoder");
    assert_eq!(
        job.samples()[0].embedding,
        feature_of(&own, &image.frame()).expect("the frame embeds")
    );
}

#[test]
fn features_come_in_the_order_of_the_files_without_the_broken() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let encoder = encoder(folder.path(), 0);
    let set = samples(folder.path());
    cut(&set.samples[5].0);
    let files: Vec<_> = set.samples.iter().map(|(path, _)| path.clone()).collect();
    let mut rows = Vec::new();
    let skipped = embed_files(&encoder, &files, |file, _, embedding| {
        rows.push((file, encoder.feature(embedding)));
        Ok(())
    })
    .expect("the files embed");
    assert_eq!(
        rows.iter().map(|(file, _)| *file).collect::<Vec<_>>(),
        [0, 1, 2, 3, 4, 6, 7]
    );
    assert_eq!(skipped.len(), 1);
    let features = encoder_features(&encoder, &set).expect("the files embed");
    assert_eq!(features.labels, [0, 0, 0, 0, 1, 1, 1]);
    assert_eq!(
        features.values,
        rows.iter()
            .flat_map(|(_, row)| row.clone())
            .collect::<Vec<_>>()
    );
    let pixels = image_features(&set, |image| raw_pixels(image, 8));
    assert_eq!(
        (pixels.dim, pixels.labels.len(), pixels.skipped.len()),
        (64, 7, 1)
    );
    let set = pixels.labelled().expect("labels and rows fit");
    assert_eq!(
        knn_accuracy(&set, &set, 1, 0.07)
            .expect("one neighbour is there")
            .accuracy,
        1.0
    );
}

#[test]
fn a_run_becomes_a_bundle_that_says_where_it_comes_from() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let images = folder.path().join("images");
    Station::new(0)
        .write(&images, &Surface::ALL, 4, SIZE, 3)
        .expect("surfaces can be written");
    let set = [
        "image_size=32",
        "local_size=16",
        "schedule.batch=4",
        "schedule.images=8",
        "seed=9",
    ];
    let request = Request {
        method: MethodName::Dino,
        arch: "vit_n16".into(),
        data: vec![images],
        config: None,
        set: set.map(String::from).to_vec(),
        probe: None,
    };
    let run = folder.path().join("run");
    pretrain(
        &request.resolve().expect("the request fits"),
        &RunOptions {
            folder: run.clone(),
            resume: false,
        },
        &(),
    )
    .expect("two steps succeed");
    let bundle = folder.path().join("trained.sslb");
    let options = ExportOptions {
        pooling: Pooling::Cls,
        licence: Some("CC0-1.0".into()),
    };
    let report = export_run(&run, &options, &bundle).expect("the run can be packed");
    assert_eq!(report.engines.len(), EngineKind::available().len());
    let encoder = Encoder::open(
        &bundle,
        &Options {
            engine: EngineKind::Native,
            threads: 1,
            ..Options::default()
        },
    )
    .expect("the bundle opens");
    let manifest = encoder.manifest();
    assert_eq!(manifest.provenance.method, "dino");
    assert_eq!(
        (
            manifest.provenance.images_seen,
            manifest.provenance.dataset_images,
            manifest.provenance.seed
        ),
        (8, 20, 9)
    );
    assert!(
        manifest.provenance.config.contains("method"),
        "{}",
        manifest.provenance.config
    );
    assert_eq!(manifest.licence.as_deref(), Some("CC0-1.0"));
    assert_eq!(
        (encoder.preprocess().width, encoder.hash()),
        (32, report.encoder_hash)
    );

    let error =
        export_run(&folder.path().join("nothing"), &options, &bundle).expect_err("there is no run");
    assert!(error.to_string().contains("nothing"), "{error}");
    assert_eq!(
        Encoder::open(
            &bundle,
            &Options {
                engine: EngineKind::Native,
                threads: 1,
                ..Options::default()
            }
        )
        .map(|kept| kept.hash())
        .ok(),
        Some(encoder.hash())
    );
}
