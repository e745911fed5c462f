//! A bundle in a file: what is opened by its outline, what is found out when a member is read, and what nobody has to read.

mod common;

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use common::{reseal, writer};
use sha2::{Digest, Sha256};
use ssl_edge_bundle::{Bundle, BundleError, GOLDEN, MANIFEST, ONNX, SecretKey, WEIGHTS};

const MEMBERS: [&str; 3] = [WEIGHTS, ONNX, GOLDEN];

struct Place {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            path: folder.path().join("b.sslb"),
            _folder: folder,
        }
    }

    fn open(&self, bytes: &[u8]) -> Result<Bundle, BundleError> {
        fs::write(&self.path, bytes).unwrap();
        Bundle::open(&self.path)
    }
}

fn bytes() -> Vec<u8> {
    writer().to_bytes(Path::new("b.sslb")).unwrap()
}

fn read(bundle: &Bundle, name: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bundle.reader(name).unwrap().read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[test]
fn a_member_is_the_same_whole_and_in_pieces() {
    let place = Place::new();
    let bundle = place.open(&bytes()).unwrap();
    for name in MEMBERS {
        let whole = bundle.member(name).unwrap();
        assert_eq!(read(&bundle, name).unwrap(), *whole);
        assert_eq!(bundle.member_size(name), Some(whole.len() as u64));
    }
    assert_eq!(*bundle.member(WEIGHTS).unwrap(), *writer().weights);
    assert_eq!(*bundle.to_bytes().unwrap(), *bytes());
    assert_eq!(bundle.size(), bytes().len() as u64);
    let mut slowly = bundle.reader(WEIGHTS).unwrap();
    let mut byte = [0];
    for expected in &writer().weights {
        slowly.read_exact(&mut byte).unwrap();
        assert_eq!(byte[0], *expected);
    }
    assert_eq!(slowly.read(&mut byte).unwrap(), 0);
}

/// A change outside the members is found when the file is opened, one inside when that member is read, and the check finds both.
#[test]
fn no_changed_byte_is_ever_handed_out() {
    let (place, whole) = (Place::new(), bytes());
    let mut inside = 0;
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1 << (at % 8);
        let Ok(bundle) = place.open(&changed) else {
            continue;
        };
        assert!(bundle.check().is_err() && bundle.to_bytes().is_err());
        // The seal alone says nothing of what was opened.
        if at >= whole.len() - 64 {
            continue;
        }
        inside += 1;
        let damaged = |name: &&str| bundle.member(name).is_err();
        let names: Vec<&str> = MEMBERS.into_iter().filter(damaged).collect();
        assert_eq!(names.len(), 1, "byte {at}");
        let error = bundle.member(names[0]).map(|_| ()).unwrap_err().to_string();
        assert!(
            error.contains(names[0]) && error.contains("b.sslb"),
            "{error}"
        );
        assert!(
            read(&bundle, names[0])
                .unwrap_err()
                .to_string()
                .contains("SHA-256")
        );
    }
    let contents = writer().weights.len() + writer().onnx.len();
    assert_eq!(inside, contents, "every byte of every member was tried");
}

#[test]
fn every_prefix_and_every_longer_file_is_refused() {
    let (place, whole) = (Place::new(), bytes());
    for length in 0..whole.len() {
        let error = place.open(&whole[..length]).map(|_| ()).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("b.sslb") && text.contains("ssl-edge export"),
            "{text}"
        );
    }
    assert!(place.open(&[&*whole, b"0"].concat()).is_err());
}

/// As written by versions that knew no outline: the seal is checked instead, over the whole file.
#[test]
fn bundles_without_an_outline_are_sealed_as_a_whole() {
    let (place, mut old) = (Place::new(), bytes());
    let comment = "ssl-edge sha256 ".len() + 64;
    let outline = old.len() - comment - 1 - 64 - "ssl-edge outline ".len();
    old.drain(outline..old.len() - comment);
    let length = u16::try_from(comment).unwrap().to_le_bytes();
    old[outline - 2..outline].copy_from_slice(&length);
    let old = reseal(old);
    let bundle = place.open(&old).unwrap();
    assert_eq!(*bundle.member(WEIGHTS).unwrap(), *writer().weights);
    assert!(bundle.check().is_ok());
    for at in 0..old.len() {
        let mut changed = old.clone();
        changed[at] ^= 0x10;
        assert!(place.open(&changed).is_err(), "byte {at}");
    }
}

/// Whoever changes a file may make both hashes hold again; then the members still have those of the manifest, and a signed manifest stays signed.
#[test]
fn a_forged_outline_does_not_let_a_member_through() {
    let place = Place::new();
    let key = SecretKey::from_seed(&[3; 32]);
    let signed = place.open(&bytes()).unwrap().signed(&key).unwrap();
    let bundle = place.open(&signed).unwrap();
    assert_eq!(bundle.signer(), Some(key.public()));
    let text = bundle.member(MANIFEST).unwrap().into_owned();
    let at = signed.windows(text.len()).position(|part| part == text);
    let seed = text
        .windows(9)
        .position(|part| part == b"\"seed\": 7")
        .unwrap();
    let mut changed = signed;
    changed[at.unwrap() + seed + 8] = b'8';
    let error = place.open(&with_outline(changed, &bundle)).map(|_| ());
    assert!(
        matches!(error, Err(BundleError::Signature { .. })),
        "{error:?}"
    );
}

/// The file with an outline and a seal that hold, its members where they are in `bundle`.
fn with_outline(mut bytes: Vec<u8>, bundle: &Bundle) -> Vec<u8> {
    let end = bytes.len() - " ssl-edge sha256 ".len() - 64;
    let mut hidden = vec![false; bytes.len()];
    for name in MEMBERS {
        let contents = bundle.member(name).unwrap();
        let at = bytes
            .windows(contents.len().max(1))
            .position(|part| *part == *contents);
        if let Some(at) = at {
            hidden[at..at + contents.len()].fill(true);
        }
    }
    let shown = (0..end - 64).filter(|at| !hidden[*at]).map(|at| bytes[at]);
    let digits = ssl_edge_bundle::hex(&Sha256::digest(shown.collect::<Vec<u8>>()));
    bytes[end - 64..end].copy_from_slice(digits.as_bytes());
    reseal(bytes)
}

#[test]
fn a_file_that_another_takes_the_place_of_is_read_on() {
    let place = Place::new();
    let bundle = place.open(&bytes()).unwrap();
    let mut other = writer();
    other.weights.reverse();
    // `write` renames a new file over the old one.
    other.write(&place.path).unwrap();
    assert_eq!(*bundle.member(WEIGHTS).unwrap(), *writer().weights);
    assert_eq!(
        *Bundle::open(&place.path).unwrap().member(WEIGHTS).unwrap(),
        *other.weights
    );
}

#[test]
fn a_file_that_is_cut_while_it_is_open_gives_an_error() {
    let place = Place::new();
    let bundle = place.open(&bytes()).unwrap();
    let file = fs::OpenOptions::new()
        .write(true)
        .open(&place.path)
        .unwrap();
    file.set_len(100).unwrap();
    let error = bundle.member(WEIGHTS).map(|_| ()).unwrap_err();
    assert!(matches!(error, BundleError::Read { .. }), "{error}");
    assert!(read(&bundle, WEIGHTS).is_err());
    assert!(bundle.check().is_err());
}
