//! A bundle of any bytes: as they are, and with a seal that holds, so that what lies behind it is reached.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};
use ssl_edge_bundle::{Bundle, SecretKey, hex};

fuzz_target!(|bytes: &[u8]| {
    open(bytes.to_vec());
    let mut sealed = bytes.to_vec();
    let end = sealed.len().saturating_sub(64);
    let digits = hex(&Sha256::digest(&sealed[..end]));
    let len = sealed.len() - end;
    sealed[end..].copy_from_slice(&digits.as_bytes()[..len]);
    open(sealed);
});

fn open(bytes: Vec<u8>) {
    let Ok(bundle) = Bundle::from_bytes(Path::new("fuzzed.sslb"), bytes) else {
        return;
    };
    let _ = bundle.encoder_hash();
    let key = SecretKey::from_seed(&[1; 32]);
    let signed = bundle.signed(&key).expect("a bundle in memory is whole");
    let signed = Bundle::from_bytes(Path::new("signed.sslb"), signed);
    let signed = signed.expect("a bundle that opens can be signed");
    assert_eq!(signed.signer(), Some(key.public()));
    assert_eq!(signed.encoder_hash(), bundle.encoder_hash());
}
