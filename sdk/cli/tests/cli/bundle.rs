//! `bundle`: keys, signatures, and what is refused without them.

use crate::support::{Shared, call, fail, json, succeed, text};
use std::fs;

#[test]
fn a_signed_bundle_is_opened_where_its_key_is_required_and_no_other_is() {
    let shared = Shared::get();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let plain_bundle = shared.bundle();
    let (key, public) = (at("maker.pem"), at("maker.pub.pem"));
    let keys = json(&["bundle", "keygen", "--out", text(&key)]);
    assert_eq!(keys["public"], text(&public));
    json(&["bundle", "keygen", "--out", text(&at("other.pem"))]);

    let signed = at("signed.sslb");
    let args = [
        "bundle",
        "sign",
        text(&plain_bundle),
        "--key",
        text(&key),
        "--out",
        text(&signed),
    ];
    assert_eq!(json(&args)["signed_by"], keys["key"]);
    let plain = json(&["bundle", "inspect", text(&plain_bundle)]);
    let inspected = json(&["bundle", "inspect", text(&signed)]);
    assert_eq!(inspected["signed_by"], keys["key"]);
    assert_eq!(plain["signed_by"], serde_json::Value::Null);
    for same in ["encoder", "manifest"] {
        assert_eq!(plain[same], inspected[same], "{same}");
    }
    let human = succeed(&["bundle", "inspect", text(&signed)]);
    assert!(
        human.stdout.contains("vit_n16") && human.stdout.contains("signature.json"),
        "{}",
        human.stdout
    );

    let verified = json(&["bundle", "verify", text(&signed), "--key", text(&public)]);
    assert_eq!(verified["trusted"], true);
    fail(
        &[
            "bundle",
            "verify",
            text(&signed),
            "--key",
            text(&at("other.pub.pem")),
        ],
        &["signed.sslb", "is required", "trust the other key"],
    );
    fail(
        &[
            "bundle",
            "verify",
            text(&plain_bundle),
            "--key",
            text(&public),
        ],
        &["not signed", "ssl-edge bundle sign"],
    );
    fail(
        &["bundle", "verify", text(&signed), "--key", text(&key)],
        &["maker.pem", "public key"],
    );

    let inspect = |bundle: &std::path::Path| {
        let (samples, job) = (shared.samples(), shared.job());
        let args = [
            "inspect",
            "--bundle",
            text(bundle),
            "--job",
            text(&job),
            "--require-signature",
            text(&public),
            text(&samples),
        ];
        call(&args)
    };
    assert_eq!(inspect(&signed).code, 0);
    inspect(&plain_bundle).assert_failure(&["encoder.sslb", "not signed"]);
}

#[test]
fn keys_and_bundles_are_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    json(&["bundle", "keygen", "--out", text(&at("k.pem"))]);
    let before = fs::read(at("k.pem")).unwrap();
    fail(
        &["bundle", "keygen", "--out", text(&at("k.pem"))],
        &["k.pem", "another name"],
    );
    assert_eq!(fs::read(at("k.pem")).unwrap(), before);
    fs::remove_file(at("k.pem")).unwrap();
    fail(
        &["bundle", "keygen", "--out", text(&at("k.pem"))],
        &["k.pub.pem", "another name"],
    );
    assert!(!at("k.pem").exists(), "half a pair was left");

    let bundle = at("b.sslb");
    fs::copy(Shared::get().bundle(), &bundle).unwrap();
    let original = fs::read(&bundle).unwrap();
    fail(
        &[
            "bundle",
            "sign",
            text(&bundle),
            "--key",
            text(&at("absent.pem")),
        ],
        &["absent.pem"],
    );
    assert_eq!(fs::read(&bundle).unwrap(), original);
    let mut damaged = original.clone();
    damaged[original.len() / 2] ^= 1;
    fs::write(&bundle, &damaged).unwrap();
    fail(&["bundle", "verify", text(&bundle)], &["b.sslb", "damaged"]);
}
