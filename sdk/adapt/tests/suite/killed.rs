//! A process that saves is killed at random moments: the file is a whole job each time.

use crate::common::{Data, uniform};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use ssl_edge_adapt::Job;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const TARGET: &str = "SSL_EDGE_ADAPT_TEST_KILL";
const KILLS: usize = 200;

/// Saves revision after revision, each with its number as the name of a class, and says which ones are on the disk.
fn save_for_ever(path: &Path) {
    let mut job = Job::load(path).unwrap();
    let class = job.classes()[0].id;
    loop {
        let next = job.revision() + 1;
        job.rename_class(class, &next.to_string()).unwrap();
        job.save(path).unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "saved {next}")
            .and_then(|()| out.flush())
            .unwrap();
    }
}

#[test]
fn a_job_survives_its_process() {
    if let Some(target) = std::env::var_os(TARGET) {
        save_for_ever(Path::new(&target));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("line.sslj");
    let data = Data::clusters(1, &[40, 40], 500, 1.0);
    let mut job = data.job();
    let first = job.revision() + 1;
    job.rename_class(job.classes()[0].id, &first.to_string())
        .unwrap();
    job.save(&path).unwrap();
    let mut rng = ChaCha8Rng::from_seed([1; 32]);
    let (mut last, mut in_between) = (first, 0);
    for _ in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "killed::a_job_survives_its_process",
                "--nocapture",
            ])
            .env(TARGET, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_micros((60_000.0 * uniform(&mut rng)) as u64));
        child.kill().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let said = lines
            .map_while(Result::ok)
            .filter_map(|line| line.split_once("saved ")?.1.trim().parse::<u64>().ok())
            .last();
        child.wait().unwrap();
        let loaded = Job::load(&path).unwrap();
        let revision = loaded.revision();
        assert_eq!(loaded.classes()[0].name, revision.to_string());
        assert!(loaded.samples() == job.samples());
        // What it said was saved is there, or the one that it was about to say.
        let least = said.unwrap_or(last).max(last);
        assert!(
            revision == least || revision == least + 1,
            "{revision} after {least}"
        );
        in_between += usize::from(revision > last);
        last = revision;
    }
    assert!(in_between > 20, "only {in_between} processes came to save");
    // What killed processes left behind stops nobody.
    Job::edit(&path, |job| job.add_class("after").map(drop)).unwrap();
    assert!(Job::load(&path).unwrap().class_named("after").is_some());
}
