//! Jobs that look at surfaces: regions that do not count, and a move to another encoder.

use crate::support::{Shared, fail, json, succeed, surfaces, text};
use serde_json::Value;
use ssl_edge::vision::{Station, Surface};
use std::fs;
use std::path::{Path, PathBuf};

/// A folder `good` of clean surfaces.
fn good(folder: &Path, n: usize) {
    surfaces(folder, &[Surface::Clean], n, 0);
    fs::rename(folder.join(Surface::Clean.name()), folder.join("good")).unwrap();
}

/// A mask whose left third is white, or which is black.
fn mask(path: &Path, [width, height]: [usize; 2], black: bool) {
    let mut bytes = format!("P5 {width} {height} 255\n").into_bytes();
    let ignored = |at: usize| !black && at % width < width / 3;
    bytes.extend((0..width * height).map(|at| if ignored(at) { 255u8 } else { 0 }));
    fs::write(path, bytes).unwrap();
}

struct Taught {
    _folder: tempfile::TempDir,
    root: PathBuf,
    samples: String,
    bundle: String,
    job: String,
}

impl Taught {
    fn new(n: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        good(&root.join("samples"), n);
        Self {
            samples: text(&root.join("samples")).to_owned(),
            job: text(&root.join("job.sslj")).to_owned(),
            bundle: text(&Shared::get().bundle()).to_owned(),
            _folder: folder,
            root,
        }
    }

    fn at(&self, name: &str) -> String {
        text(&self.root.join(name)).to_owned()
    }

    fn calibrate<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let own = [
            "calibrate",
            "--bundle",
            &self.bundle,
            "--samples",
            &self.samples,
            "--out",
            &self.job,
        ];
        [&own[..], more].concat()
    }
}

fn verdicts(bundle: &str, job: &str, image: &str) -> Vec<Value> {
    let args = ["inspect", "--bundle", bundle, "--job", job, image, "--json"];
    let lines = succeed(&args).stdout;
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

#[test]
fn a_region_does_not_count() {
    let taught = Taught::new(6);
    let (fine, black, wide) = (
        taught.at("m.png"),
        taught.at("black.png"),
        taught.at("w.png"),
    );
    mask(fine.as_ref(), [96, 96], false);
    mask(black.as_ref(), [96, 96], true);
    mask(wide.as_ref(), [96, 48], false);
    fail(
        &taught.calibrate(&["--ignore", &black]),
        &["black.png", "ignores"],
    );
    fail(
        &taught.calibrate(&["--ignore", &wide]),
        &["shape", "96 x 48", "48 x 48"],
    );
    fail(
        &taught.calibrate(&["--ignore", &fine, "--surface", "none"]),
        &["ignore mask", "surface"],
    );
    let report = json(&taught.calibrate(&["--ignore", &fine]));
    let ignored = &report["ignored"];
    assert_eq!(
        (&ignored["mask_width"], &ignored["mask_height"]),
        (&96.into(), &96.into())
    );
    assert!(
        (ignored["share"].as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-9,
        "{ignored}"
    );
    let alarms = &report["false_alarms"];
    assert_eq!(
        (&alarms["tests"], &alarms["allowed"]),
        (&2.into(), &0.05.into())
    );
    assert_eq!(alarms["extrapolated"], true);
    assert!(
        (alarms["promised"].as_f64().unwrap() - 2.0 / 7.0).abs() < 1e-9,
        "{alarms}"
    );
    let shown = succeed(&["job", "show", &taught.job]).stdout;
    assert!(
        shown.contains("ignored: 33.3 %") && shown.contains("extrapolated"),
        "{shown}"
    );

    // A bright bar in the region changes nothing; beside it, it does.
    let taught_photo = fs::read_dir(taught.root.join("samples/good"));
    let taught_photo = taught_photo.unwrap().next().unwrap().unwrap().path();
    let clean = ssl_edge::vision::decode_file(&taught_photo).unwrap();
    let photo = |name: &str, from: usize| {
        let ssl_edge::vision::Pixels::Gray8(mut pixels) = clean.pixels().clone() else {
            panic!("a grey photo");
        };
        for (at, pixel) in pixels.iter_mut().enumerate() {
            if (from..from + 8).contains(&(at % 48)) && (8..40).contains(&(at / 48)) {
                *pixel = if at % 2 == 0 { 255 } else { 0 };
            }
        }
        let file = taught.root.join(name);
        let image = ssl_edge::vision::Image::new(48, 48, ssl_edge::vision::Pixels::Gray8(pixels));
        fs::write(&file, ssl_edge::vision::encode_png(&image.unwrap())).unwrap();
        text(&file).to_owned()
    };
    let (inside, outside) = (photo("inside.png", 4), photo("outside.png", 30));
    assert_eq!(
        verdicts(&taught.bundle, &taught.job, &inside)[0]["anomalous"],
        false
    );
    assert_eq!(
        verdicts(&taught.bundle, &taught.job, &outside)[0]["anomalous"],
        true
    );
    let report = json(&["job", "edit", "ignore", &taught.job, "--all-counts"]);
    assert!(report["ignored"].is_null(), "{report}");
    assert_eq!(
        verdicts(&taught.bundle, &taught.job, &inside)[0]["anomalous"],
        true
    );
    let report = json(&["job", "edit", "ignore", &taught.job, "--mask", &fine]);
    assert_eq!(report["ignored"]["mask_width"], 96);
    assert_eq!(
        verdicts(&taught.bundle, &taught.job, &inside)[0]["anomalous"],
        false
    );
}

#[test]
fn a_job_moves_with_its_surface_where_it_can() {
    let taught = Taught::new(5);
    let other = text(&Shared::get().other_bundle()).to_owned();
    let moved = taught.at("moved.sslj");
    let migrate = [
        "job",
        "migrate",
        &taught.job,
        "--bundle",
        &other,
        "--out",
        &moved,
    ];
    json(&taught.calibrate(&[]));
    fail(&migrate, &["no picture", "thumbnails"]);
    json(&taught.calibrate(&["--thumbnails", "24"]));
    let report = json(&migrate);
    assert_eq!(
        (
            &report["surface_samples_kept"],
            &report["surface_samples_dropped"]
        ),
        (&5.into(), &0.into())
    );
    assert!(
        report["surface_move"].as_str().unwrap().contains("pixels"),
        "{report}"
    );
    let photo = fs::read_dir(taught.root.join("samples/good"))
        .unwrap()
        .next()
        .unwrap();
    let photo = text(&photo.unwrap().path()).to_owned();
    // Pixels are those of the frame, not of its small picture, under either encoder.
    let seen =
        |bundle: &str, job: &str| verdicts(bundle, job, &photo)[0]["surface_p_value"].clone();
    assert_eq!(seen(&other, &moved), seen(&taught.bundle, &taught.job));

    // The encoder looks at two tiles of 32 pixels; the frames have 48.
    json(&taught.calibrate(&["--thumbnails", "64", "--surface", "encoder"]));
    let report = json(&migrate);
    assert_eq!(
        (
            &report["surface_samples_kept"],
            &report["surface_samples_dropped"]
        ),
        (&0.into(), &5.into())
    );
    let text_of = report["surface_move"].as_str().unwrap();
    assert!(
        text_of.contains("64") && text_of.contains("48") && text_of.contains("job teach"),
        "{text_of}"
    );
    assert!(verdicts(&other, &moved, &photo)[0]["anomalous"].is_null());
    fs::remove_dir_all(taught.root.join("samples")).unwrap();
    let station = Station::new(0);
    station
        .write(&taught.root.join("samples"), &[Surface::Clean], 3, 64, 0)
        .unwrap();
    fs::rename(
        taught.root.join("samples").join(Surface::Clean.name()),
        taught.root.join("samples/good"),
    )
    .unwrap();
    json(&taught.calibrate(&["--thumbnails", "64", "--surface", "encoder"]));
    let report = json(&migrate);
    assert_eq!(report["surface_samples_kept"], 3, "{report}");
    assert!(
        report["surface_move"].as_str().unwrap().contains("anew"),
        "{report}"
    );
}
