//! Mono10p and Mono12p: grey samples without gaps, lowest bits first, scaled to the full range of 16 bit.

/// Pixels from column `x` on of a row of `BITS` bits a pixel (10 or 12).
pub(super) fn unpack<const BITS: usize>(row: &[u8], x: u32, out: &mut [u16]) {
    let x = x as usize;
    // Whole groups begin where a pixel begins at a byte: every four pixels of 10 bit, every two of 12.
    let group = if BITS == 10 { 4 } else { 2 };
    let head = (x.next_multiple_of(group) - x).min(out.len());
    let (before, aligned) = out.split_at_mut(head);
    for (i, out) in before.iter_mut().enumerate() {
        *out = at::<BITS>(row, x + i);
    }
    let start = x + head;
    let bytes = &row[(start * BITS / 8).min(row.len())..];
    let grouped = aligned.len() / group * group;
    if BITS == 10 {
        let (groups, _) = bytes.as_chunks::<5>();
        for (out, b) in aligned.as_chunks_mut::<4>().0.iter_mut().zip(groups) {
            let b = b.map(u16::from);
            *out = [
                b[0] | (b[1] & 0x03) << 8,
                b[1] >> 2 | (b[2] & 0x0f) << 6,
                b[2] >> 4 | (b[3] & 0x3f) << 4,
                b[3] >> 6 | b[4] << 2,
            ]
            .map(full_range::<BITS>);
        }
    } else {
        let (groups, _) = bytes.as_chunks::<3>();
        for (out, b) in aligned.as_chunks_mut::<2>().0.iter_mut().zip(groups) {
            let b = b.map(u16::from);
            *out = [b[0] | (b[1] & 0x0f) << 8, b[1] >> 4 | b[2] << 4].map(full_range::<BITS>);
        }
    }
    for (i, out) in aligned.iter_mut().enumerate().skip(grouped) {
        *out = at::<BITS>(row, start + i);
    }
}

fn at<const BITS: usize>(row: &[u8], x: usize) -> u16 {
    let (byte, shift) = (x * BITS / 8, x * BITS % 8);
    // A sample of 10 or 12 bit always ends in the second byte.
    let pair = u16::from_le_bytes([row[byte], row[byte + 1]]);
    full_range::<BITS>((pair >> shift) & ((1 << BITS) - 1))
}

/// `round(v * 65535 / (2^BITS - 1))`.
fn full_range<const BITS: usize>(v: u16) -> u16 {
    let max = (1u32 << BITS) - 1;
    ((u32::from(v) * 65_535 + max / 2) / max) as u16
}
