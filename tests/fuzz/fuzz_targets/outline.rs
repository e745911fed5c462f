//! A bundle of any bytes in a file, opened by its outline, with one that holds: what is read member by member is what the whole says.

#![no_main]

use std::fs;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use ssl_edge_bundle::Bundle;
use ssl_edge_fuzz::with_outline_and_seal;

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    if let Some(whole) = with_outline_and_seal(bytes) {
        read(&whole);
    }
});

fn read(bytes: &[u8]) {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), bytes).expect("a file can be written");
    let whole = Bundle::from_bytes(Path::new("whole.sslb"), bytes.to_vec());
    let bundle = match (Bundle::open(file.path()), &whole) {
        (Ok(bundle), _) => bundle,
        (Err(error), Ok(_)) => panic!("it opens in memory and not by its outline: {error}"),
        (Err(_), Err(_)) => return,
    };
    for name in bundle.member_names() {
        let Ok(found) = bundle.member(name) else {
            assert!(whole.is_err(), "{name} cannot be read alone");
            continue;
        };
        assert_eq!(Some(found.len() as u64), bundle.member_size(name));
        if let Ok(whole) = &whole {
            let same = whole.member(name).expect("a whole bundle's member");
            assert_eq!(found, same, "{name}");
        }
    }
    assert!(bundle.check().is_ok() || whole.is_err());
}
