//! What fuzz targets share.

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
