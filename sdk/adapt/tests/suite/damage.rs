//! Job files that were cut, changed or forged.

use crate::common::Data;
use ssl_edge_adapt::{
    AdaptError, EncoderId, FitOptions, HeadKind, Job, Layout, Part, SampleMeta, Verdict,
};
use std::fs;
use std::path::{Path, PathBuf};

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("line 3.sslj");
    (folder, path)
}

fn with_crc(mut content: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&content);
    content.extend_from_slice(&crc.to_le_bytes());
    content
}

/// Two parts, thumbnails, costs, a long history, and a fitted head.
fn rich(head: Option<HeadKind>, n_classes: usize) -> Job {
    let data = Data::clusters(1, &vec![3; n_classes], 4, 1.0);
    let parts = vec![Part::new("token", 3), Part::new("texture", 1)];
    let layout = Layout::new(parts, &["token", "texture"]).unwrap();
    let encoder = EncoderId {
        hash: [0xab; 32],
        dim: 4,
    };
    let mut job = Job::with_layout(encoder, layout).unwrap();
    job.set_operator("Ada", 1_700_000_000);
    let names = ["good", "Kratzer", "bruciato"];
    let ids = names[..n_classes]
        .iter()
        .map(|name| job.add_class(name).unwrap());
    let ids: Vec<_> = ids.collect();
    for (i, (row, &label)) in data.rows.iter().zip(&data.labels).enumerate() {
        let meta = SampleMeta {
            source: format!("{i}.png"),
            unix_time: i as i64,
        };
        job.add_sample_with_thumbnail(ids[label], row, meta, vec![i as u8; 3])
            .unwrap();
    }
    job.set_cost(ids[0], 2.5).unwrap();
    let gone = job.add_class("gone").unwrap();
    job.remove_class(gone).unwrap();
    job.undo();
    job.undo();
    job.fit(&FitOptions {
        head,
        unknown_rate: 0.2,
        ..FitOptions::default()
    })
    .unwrap();
    job
}

/// All that a user does with a job, the slow comparison of heads only if asked for: none of it may panic.
fn use_all(mut job: Job, search: bool) -> Option<Verdict> {
    let frame = vec![0.5; job.encoder().dim.min(64)];
    let verdict = job.inspect(&frame).ok();
    if let Some(verdict) = &verdict {
        let _ = job.explain(verdict);
    }
    if let Some(report) = job.report() {
        (0..report.confusion.n_classes)
            .for_each(|class| assert!(report.confusion.row(class).1 < 100));
        for id in &report.suspects {
            let _ = job.sample(*id);
        }
    }
    let _ = job.merge(&job.clone());
    let class = job.add_class("new");
    if let Ok(class) = class {
        let _ = job.add_sample(class, &frame, SampleMeta::default());
    }
    let _ = job.fit(&FitOptions::default());
    if let Some(sample) = job.samples().first() {
        let _ = job.remove_sample(sample.id);
    }
    job.undo();
    let _ = job.fit(&FitOptions {
        search,
        ..FitOptions::default()
    });
    verdict
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let (_folder, path) = folder();
    let job = rich(None, 2);
    job.save(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let error = Job::load(&path).unwrap_err();
        assert!(
            matches!(error, AdaptError::FileLength { .. }),
            "{length}: {error}"
        );
        let text = error.to_string();
        assert!(
            text.contains("line 3.sslj") && text.contains("restore a backup"),
            "{text}"
        );
    }
    fs::write(&path, [&whole[..], &[0]].concat()).unwrap();
    assert!(matches!(
        Job::load(&path),
        Err(AdaptError::FileLength { .. })
    ));
}

#[test]
fn a_file_with_a_changed_byte_is_refused() {
    let (_folder, path) = folder();
    let job = rich(None, 2);
    job.save(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        for mask in [0x01, 0x80, 0xff] {
            let mut changed = whole.clone();
            changed[at] ^= mask;
            fs::write(&path, &changed).unwrap();
            let error = Job::load(&path).unwrap_err();
            let expected = match at {
                0..8 => matches!(error, AdaptError::NotAJob { .. }),
                12..20 => matches!(error, AdaptError::FileLength { .. }),
                _ => matches!(error, AdaptError::FileDamaged { .. }),
            };
            let text = error.to_string();
            let remedy = text.contains("restore a backup") || text.contains("pass the .sslj file");
            assert!(
                expected && remedy && text.contains("line 3.sslj"),
                "{at}: {text}"
            );
        }
    }
}

/// Content that was changed on purpose, its checksum made good: refused, or a job that works without a panic.
#[test]
fn forged_content_does_not_panic() {
    let (_folder, path) = folder();
    let mut refused = 0;
    for (head, n_classes) in HeadKind::ALL
        .map(|head| (head, 2))
        .into_iter()
        .chain([(HeadKind::Lda, 1), (HeadKind::Lda, 3)])
    {
        rich(Some(head), n_classes).save(&path).unwrap();
        let whole = fs::read(&path).unwrap();
        let body = &whole[..whole.len() - 4];
        for at in 20..body.len() {
            for mask in [[0x01, 0x80], [0x40, 0xff]][at % 2] {
                let mut changed = body.to_vec();
                changed[at] ^= mask;
                let search = at % 32 == 0 && mask == 0x80;
                refused += usize::from(!accepted(&path, changed, search));
            }
        }
    }
    assert!(refused > 1000);
}

/// Content cut, doubled or filled in places, with length and checksum made good.
#[test]
fn forged_lengths_do_not_panic() {
    let (_folder, path) = folder();
    rich(None, 2).save(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    let payload = &whole[20..whole.len() - 4];
    let forge = |payload: &[u8]| {
        let mut content = whole[..12].to_vec();
        content.extend_from_slice(&(payload.len() as u64).to_le_bytes());
        content.extend_from_slice(payload);
        content
    };
    for at in 0..payload.len() {
        let (start, end) = payload.split_at(at);
        assert!(!accepted(&path, forge(start), false), "cut at {at}");
        accepted(&path, forge(&[start, &[0], end].concat()), false);
        accepted(&path, forge(&[start, &end[1..]].concat()), false);
        let filled = end.len().min(8);
        accepted(
            &path,
            forge(&[start, &[0xff; 8][..filled], &end[filled..]].concat()),
            false,
        );
        let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        accepted(&path, forge(&[start, &huge, end].concat()), false);
        accepted(&path, forge(&[start, &huge, &end[1..]].concat()), false);
    }
}

/// Whether the content, with its checksum made good, is taken for a job; if so, it is used.
fn accepted(path: &Path, content: Vec<u8>, search: bool) -> bool {
    fs::write(path, with_crc(content)).unwrap();
    match Job::load(path) {
        Ok(job) => {
            use_all(job, search);
            true
        }
        Err(error) => {
            assert!(error.to_string().contains("line 3.sslj"));
            false
        }
    }
}

/// A length of 2⁶⁴ - 1 for the list of parts, of classes, of a class name, of an embedding: refused before anything of that size is allocated.
#[test]
fn announced_sizes_are_not_believed() {
    let (_folder, path) = folder();
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let mut start = vec![0xab; 32];
    start.push(3);
    // one part `e` of 3 values, preferred
    let layout = [1, 1, b'e', 3, 1, 0];
    // one class: id 0, name `a`, not good, cost 1
    let class = [&[1, 0, 1, b'a', 0][..], &1f64.to_le_bytes()].concat();
    // one sample: id 0, class 0
    let sample = [1, 0, 0];
    let prefixes = [
        vec![],
        layout[..1].to_vec(),
        layout.to_vec(),
        [&layout[..], &class[..2]].concat(),
        [&layout[..], &class].concat(),
        [&layout[..], &class, &sample].concat(),
    ];
    for prefix in prefixes {
        let payload = [&start[..], &prefix, &huge].concat();
        let mut content = b"SSLEJOB\0\x01\0\0\0".to_vec();
        content.extend_from_slice(&(payload.len() as u64).to_le_bytes());
        content.extend_from_slice(&payload);
        fs::write(&path, with_crc(content)).unwrap();
        let error = Job::load(&path).unwrap_err();
        assert!(matches!(error, AdaptError::FileDamaged { .. }), "{error}");
    }
    let mut content = b"SSLEJOB\0\x01\0\0\0".to_vec();
    content.extend_from_slice(&u64::MAX.to_le_bytes());
    fs::write(&path, content).unwrap();
    assert!(matches!(
        Job::load(&path),
        Err(AdaptError::FileLength {
            expected: u64::MAX,
            ..
        })
    ));
}
