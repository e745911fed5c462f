//! What fuzz targets share.

use std::io::Cursor;

use sha2::{Digest, Sha256};
use ssl_edge_bundle::{MANIFEST, SIGNATURE, hex};
use ssl_edge_nn::{Gelu, VitConfig};
use zip::ZipArchive;

/// The bytes as a file of `ssl-edge-adapt`'s container whose length and CRC hold; `None` if they are too few.
pub fn with_length_and_crc(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.len() < 24 {
        return None;
    }
    let mut whole = bytes.to_vec();
    let end = whole.len() - 4;
    let length = (end - 20) as u64;
    whole[12..20].copy_from_slice(&length.to_le_bytes());
    let crc = crc32fast::hash(&whole[..end]);
    whole[end..].copy_from_slice(&crc.to_le_bytes());
    Some(whole)
}

/// The bytes as a bundle whose outline and seal hold: the hash of all but the contents of members, then that of everything before it. `None` where
/// members cannot be listed, or there is no room for the hashes.
pub fn with_outline_and_seal(bytes: &[u8]) -> Option<Vec<u8>> {
    const DIGITS: usize = 64;
    const SEAL: &[u8] = b" ssl-edge sha256 ";
    let mut whole = bytes.to_vec();
    let seal = whole.len().checked_sub(DIGITS)?;
    let outline = seal.checked_sub(SEAL.len() + DIGITS)?;
    let mut contents = Vec::new();
    let mut zip = ZipArchive::new(Cursor::new(bytes)).ok()?;
    for index in 0..zip.len() {
        let file = zip.by_index_raw(index).ok()?;
        let name = file.name().ok()?;
        if ![MANIFEST, SIGNATURE].contains(&&*name) {
            let start = file.data_start()?;
            contents.push(start..start.checked_add(file.size())?);
        }
    }
    contents.sort_by_key(|range| (range.start, range.end));
    let (mut at, mut hash) = (0, Sha256::new());
    for range in contents {
        hash.update(whole.get(at..usize::try_from(range.start).ok()?)?);
        at = usize::try_from(range.end).ok()?;
    }
    hash.update(whole.get(at..outline)?);
    whole[outline..outline + DIGITS].copy_from_slice(hex(&hash.finalize()).as_bytes());
    whole[outline + DIGITS..seal].copy_from_slice(SEAL);
    let digits = hex(&Sha256::digest(&whole[..seal]));
    whole[seal..].copy_from_slice(digits.as_bytes());
    Some(whole)
}

/// The encoder that the seeds of `weights` are for.
pub fn tiny_encoder() -> VitConfig {
    VitConfig {
        dim: 32,
        depth: 1,
        heads: 1,
        patch: 4,
        registers: 1,
        mlp_ratio: 1,
        image_size: [8, 8],
        gelu: Gelu::Tanh,
        eps: 1e-6,
    }
}
