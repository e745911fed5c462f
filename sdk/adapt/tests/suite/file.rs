use crate::common::Data;
use ssl_edge_adapt::{AdaptError, FitOptions, HeadKind, Job};
use std::fs;
use std::path::{Path, PathBuf};

fn small() -> Data {
    Data::clusters(1, &[2, 3], 3, 1.0)
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("line 3.sslj");
    (folder, path)
}

fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn with_crc(mut content: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&content);
    content.extend_from_slice(&crc.to_le_bytes());
    content
}

#[test]
fn a_loaded_job_is_the_saved_one() {
    let (_folder, path) = folder();
    let data = Data::clusters(2, &[9, 7, 12], 17, 0.5);
    for head in HeadKind::ALL {
        let mut job = data.job();
        job.rename_class(job.classes()[0].id, "Gut – bueno – 良")
            .unwrap();
        job.fit(&FitOptions {
            head: Some(head),
            unknown_rate: 0.2,
            ..FitOptions::default()
        })
        .unwrap();
        job.save(&path).unwrap();
        let loaded = Job::load(&path).unwrap();
        assert_eq!(loaded.report(), job.report());
        assert_eq!(
            (loaded.classes(), loaded.samples(), loaded.encoder()),
            (job.classes(), job.samples(), job.encoder())
        );
        for row in &Data::clusters(3, &[50], 17, 1.0).rows {
            let (a, b) = (loaded.inspect(row).unwrap(), job.inspect(row).unwrap());
            let bits = |scores: &[f32]| scores.iter().map(|s| s.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&a.scores), bits(&b.scores));
            assert_eq!(a, b);
        }
    }
}

#[test]
fn a_job_goes_on_after_loading() {
    let (_folder, path) = folder();
    let mut job = Job::new(crate::common::encoder(3));
    job.save(&path).unwrap();
    assert!(Job::load(&path).unwrap().classes().is_empty());
    let gone = job.add_class("gone").unwrap();
    job.remove_class(gone).unwrap();
    job.save(&path).unwrap();
    let mut loaded = Job::load(&path).unwrap();
    assert_ne!(loaded.add_class("new").unwrap(), gone);
    let mut job = small().job();
    job.save(&path).unwrap();
    let mut loaded = Job::load(&path).unwrap();
    assert!(matches!(
        loaded.inspect(&[0.0; 3]),
        Err(AdaptError::NotFitted)
    ));
    assert_eq!(
        loaded.fit(&FitOptions::default()).unwrap(),
        job.fit(&FitOptions::default()).unwrap()
    );
}

#[test]
fn a_later_version_is_named() {
    let (_folder, path) = folder();
    small().job().save(&path).unwrap();
    let mut content = fs::read(&path).unwrap();
    content.truncate(content.len() - 4);
    content[8] = 3;
    fs::write(&path, with_crc(content)).unwrap();
    let text = Job::load(&path).unwrap_err().to_string();
    assert!(
        text.contains("version 3") && text.contains("update the program"),
        "{text}"
    );
}

#[test]
fn other_files_are_refused() {
    let (folder, path) = folder();
    fs::write(&path, "a text file of some length, not a job").unwrap();
    assert!(matches!(Job::load(&path), Err(AdaptError::NotAJob { .. })));
    let missing = Job::load(&folder.path().join("none.sslj"))
        .unwrap_err()
        .to_string();
    assert!(
        missing.contains("none.sslj") && missing.contains("check the path"),
        "{missing}"
    );
    assert!(matches!(
        Job::load(folder.path()),
        Err(AdaptError::Io { .. })
    ));
}

#[test]
fn a_failed_save_leaves_what_was_there() {
    let (folder, path) = folder();
    let job = small().job();
    let text = job
        .save(&folder.path().join("no folder").join("a.sslj"))
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("a.sslj") && text.contains("its folder exists"),
        "{text}"
    );
    fs::create_dir(&path).unwrap();
    assert!(matches!(
        job.save(&path),
        Err(AdaptError::Io {
            action: "replace",
            ..
        })
    ));
    assert_eq!(names(folder.path()), ["line 3.sslj"]);
    assert!(path.is_dir());
}

#[cfg(unix)]
#[test]
fn permissions_stay() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, path) = folder();
    small().job().save(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    small().job().save(&path).unwrap();
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o640
    );
    assert_eq!(names(folder.path()), ["line 3.sslj"]);
}

/// The test runs itself in a child whose files may not grow beyond 4 KiB: the write stops half-way, as on a full disk.
#[cfg(unix)]
#[test]
fn a_write_that_stops_half_way_leaves_the_old_job() {
    const TARGET: &str = "SSL_EDGE_ADAPT_TEST_SAVE";
    let big = Data::clusters(5, &[20, 20], 200, 1.0);
    if let Some(target) = std::env::var_os(TARGET) {
        let error = big.job().save(Path::new(&target)).unwrap_err();
        assert!(
            matches!(
                error,
                AdaptError::Io {
                    action: "write",
                    ..
                }
            ),
            "{error}"
        );
        return;
    }
    let (folder, path) = folder();
    small().job().save(&path).unwrap();
    let before = fs::read(&path).unwrap();
    let status = std::process::Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$0\" --exact file::a_write_that_stops_half_way_leaves_the_old_job"])
        .arg(std::env::current_exe().unwrap())
        .env(TARGET, &path)
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(names(folder.path()), ["line 3.sslj"]);
}
