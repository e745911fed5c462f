//! Signed bundles and key files: what was signed is what is read, whatever is done to the file.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{PATH, reseal, writer};
use ssl_edge_bundle::{Bundle, BundleError, MANIFEST, PublicKey, SIGNATURE, SecretKey, WEIGHTS};

fn key() -> SecretKey {
    SecretKey::from_seed(&[42; 32])
}

fn open(bytes: Vec<u8>) -> Result<Bundle, BundleError> {
    Bundle::from_bytes(Path::new(PATH), bytes)
}

fn signed() -> Vec<u8> {
    let bundle = open(writer().to_bytes(Path::new(PATH)).unwrap()).unwrap();
    bundle.signed(&key()).unwrap()
}

#[test]
fn a_signature_says_who_and_changes_nothing_else() {
    let plain = open(writer().to_bytes(Path::new(PATH)).unwrap()).unwrap();
    assert_eq!(plain.signer(), None);
    let signed = open(plain.signed(&key()).unwrap()).unwrap();
    assert_eq!(signed.signer(), Some(key().public()));
    assert!(signed.require_signature(&key().public()).is_ok());
    assert_eq!(signed.encoder_hash(), plain.encoder_hash());
    assert_eq!(signed.manifest(), plain.manifest());
    for name in plain.member_names() {
        assert_eq!(
            signed.member(name).unwrap(),
            plain.member(name).unwrap(),
            "{name}"
        );
    }

    let other = SecretKey::from_seed(&[1; 32]);
    let again = open(signed.signed(&other).unwrap()).unwrap();
    assert_eq!(again.signer(), Some(other.public()));
    assert_eq!(again.member_names().count(), signed.member_names().count());
    assert_eq!(
        again.signed(&key()).unwrap(),
        *signed.to_bytes().unwrap(),
        "signing is reproducible"
    );

    let unsigned = plain.require_signature(&other.public()).unwrap_err();
    assert!(matches!(unsigned, BundleError::Unsigned { .. }));
    let text = signed
        .require_signature(&other.public())
        .unwrap_err()
        .to_string();
    for key in [key().public(), other.public()] {
        assert!(
            text.contains(&key.to_string()) && text.contains(PATH),
            "{text}"
        );
    }
}

/// Whoever may change a file can also seal it again; what they cannot do is sign it.
#[test]
fn a_signed_bundle_changed_anywhere_and_sealed_again_is_refused_or_means_the_same() {
    let original = open(signed()).unwrap();
    let mut survived = 0;
    let mut check = |bytes: Vec<u8>, what: &str| {
        let Ok(bundle) = open(reseal(bytes)) else {
            return;
        };
        if bundle.require_signature(&key().public()).is_err() {
            return;
        }
        survived += 1;
        assert_eq!(bundle.manifest(), original.manifest(), "{what}");
        for name in original.member_names().filter(|name| *name != SIGNATURE) {
            assert_eq!(
                bundle.member(name).unwrap(),
                original.member(name).unwrap(),
                "{what}: {name}"
            );
        }
    };
    let bytes = original.to_bytes().unwrap();
    for at in 0..bytes.len() {
        for flip in [0x01, 0x10, 0x80, 0xff] {
            let mut changed = bytes.to_vec();
            changed[at] ^= flip;
            check(changed, &format!("byte {at} ^ {flip:#x}"));
        }
        let mut shorter = bytes.to_vec();
        shorter.remove(at);
        check(shorter, &format!("without byte {at}"));
        let mut longer = bytes.to_vec();
        longer.insert(at, 0x50);
        check(longer, &format!("one byte more at {at}"));
    }
    // time stamps, permissions and the like may change; were nothing to survive, the files would not have been sealed properly
    assert!(survived > 100, "{survived}");
}

#[test]
fn every_prefix_that_is_sealed_again_is_refused() {
    let bytes = signed();
    for length in 0..bytes.len() {
        let mut cut = bytes[..length].to_vec();
        cut.extend_from_slice(&bytes[bytes.len() - common::SEAL_LEN..]);
        // A part of the old seal before the new one is a longer comment, of which the zip knows nothing; what it holds is whole.
        let is_whole = length >= bytes.len() - common::SEAL_LEN;
        assert!(is_whole || open(reseal(cut)).is_err(), "{length}");
    }
}

/// Sizes in a zip are little-endian words: all of them at their largest, one after another, must neither overflow nor be allocated.
#[test]
fn sizes_beyond_the_file_are_refused() {
    let bytes = signed();
    for at in 0..bytes.len() - 8 {
        for width in [2, 4, 8] {
            for value in [0xff, 0x7f] {
                let mut changed = bytes.clone();
                changed[at..at + width - 1].fill(0xff);
                changed[at + width - 1] = value;
                if let Ok(bundle) = open(reseal(changed)) {
                    assert_eq!(bundle.member(WEIGHTS).unwrap().len(), 256, "byte {at}");
                }
            }
        }
    }
}

#[test]
fn a_manifest_of_another_bundle_does_not_get_the_signature() {
    let mut other = writer();
    other.provenance.seed += 1;
    let other = open(other.to_bytes(Path::new(PATH)).unwrap()).unwrap();
    let other = open(other.signed(&key()).unwrap()).unwrap();
    let mut bytes = signed();
    let replace = |bytes: &mut Vec<u8>, from: &[u8], to: &[u8]| {
        let at = bytes
            .windows(from.len())
            .position(|part| part == from)
            .unwrap();
        bytes[at..at + from.len()].copy_from_slice(to);
    };
    let own = open(bytes.clone()).unwrap();
    let (from, to) = (
        own.member(SIGNATURE).unwrap(),
        other.member(SIGNATURE).unwrap(),
    );
    assert_eq!(from.len(), to.len());
    replace(&mut bytes, &from, &to);
    let error = open(reseal(bytes)).map(|_| ()).unwrap_err();
    assert!(matches!(error, BundleError::Signature { .. }), "{error}");
    assert!(error.to_string().contains(PATH), "{error}");
    assert!(own.member(MANIFEST).is_ok());
}

#[test]
fn keys_survive_their_files_and_never_replace_one() {
    let folder = tempfile::tempdir().unwrap();
    let (secret, public) = (folder.path().join("k.pem"), folder.path().join("k.pub.pem"));
    let key = SecretKey::generate().unwrap();
    key.write(&secret).unwrap();
    key.public().write(&public).unwrap();
    assert_eq!(SecretKey::read(&secret).unwrap().public(), key.public());
    assert_eq!(PublicKey::read(&public).unwrap(), key.public());
    assert_ne!(SecretKey::generate().unwrap().public(), key.public());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(&secret).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "others may read the key: {mode:o}");
    }

    let before = fs::read(&secret).unwrap();
    for result in [key.write(&secret), key.public().write(&secret)] {
        let error = result.unwrap_err();
        assert!(matches!(error, BundleError::KeyExists { .. }), "{error}");
    }
    assert_eq!(fs::read(&secret).unwrap(), before);

    // one kind is not taken for the other, and neither is read from anything else
    assert!(matches!(
        SecretKey::read(&public),
        Err(BundleError::Key {
            kind: "private",
            ..
        })
    ));
    assert!(matches!(
        PublicKey::read(&secret),
        Err(BundleError::Key { kind: "public", .. })
    ));
    fs::write(folder.path().join("text"), "no key").unwrap();
    assert!(PublicKey::read(&folder.path().join("text")).is_err());
    let absent = PublicKey::read(&folder.path().join("absent")).unwrap_err();
    assert!(absent.to_string().contains("absent"), "{absent}");
    for end in 0..before.len() - 1 {
        fs::write(folder.path().join("cut"), &before[..end]).unwrap();
        let cut = SecretKey::read(&folder.path().join("cut"));
        assert!(
            cut.is_err_and(|error| error.to_string().contains("keygen")) || end >= before.len() - 2
        );
    }
}

/// Only where OpenSSL is installed: it reads our keys, and we read its.
#[test]
fn openssl_understands_the_key_files() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let openssl = |arguments: &[&str]| {
        Command::new("openssl")
            .args(arguments)
            .current_dir(folder.path())
            .output()
    };
    if openssl(&["version"]).is_err() {
        eprintln!("openssl is not installed; nothing was compared");
        return;
    }
    let run = |arguments: &[&str]| {
        let output = openssl(arguments).unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    };
    key().write(&at("ours.pem")).unwrap();
    run(&["pkey", "-in", "ours.pem", "-pubout", "-out", "ours.pub.pem"]);
    assert_eq!(
        PublicKey::read(&at("ours.pub.pem")).unwrap(),
        key().public()
    );
    run(&["genpkey", "-algorithm", "ed25519", "-out", "theirs.pem"]);
    run(&[
        "pkey",
        "-in",
        "theirs.pem",
        "-pubout",
        "-out",
        "theirs.pub.pem",
    ]);
    let theirs = SecretKey::read(&at("theirs.pem")).unwrap();
    assert_eq!(
        PublicKey::read(&at("theirs.pub.pem")).unwrap(),
        theirs.public()
    );
    run(&[
        "genpkey",
        "-algorithm",
        "RSA",
        "-pkeyopt",
        "rsa_keygen_bits:1024",
        "-out",
        "rsa.pem",
    ]);
    assert!(SecretKey::read(&at("rsa.pem")).is_err());
}
