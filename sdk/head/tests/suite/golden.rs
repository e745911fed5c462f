//! The integers that every machine must give. The same lines come out of `firmware-examples` on a Cortex-M3.

use crc::{CRC_32_ISO_HDLC, Crc};
use ssl_edge_head::HeadImage;
use ssl_edge_head::vectors::{DIM, IMAGE_LENGTH, Line, N_CLASSES, Vectors};

/// Seed, cosine head, CRC-32 of the image (without its own checksum), CRC-32 of the lines of 256 verdicts.
const GOLDEN: [(u64, bool, u32, u32); 4] = [
    (1, false, 0xbc2b_ed6f, 0x8fb3_ffbb),
    (1, true, 0x1859_1e0f, 0x6fc9_d15b),
    (2, false, 0xcc86_b681, 0xae27_80d8),
    (2, true, 0xf7a1_1758, 0x471c_0e15),
];

#[test]
fn images_and_verdicts_have_not_changed() {
    let crc = Crc::<u32>::new(&CRC_32_ISO_HDLC);
    let mut found = Vec::new();
    for (seed, cosine, ..) in GOLDEN {
        let vectors = Vectors::new(seed, cosine);
        let mut image = [0; IMAGE_LENGTH];
        assert_eq!(vectors.write(&mut image), Ok(IMAGE_LENGTH));
        let head = HeadImage::parse(&image).unwrap();
        let (mut lines, mut unknown, mut classes, mut scores) =
            (String::new(), 0, [0; N_CLASSES], Vec::new());
        for i in 0..256 {
            let mut frame = [0; DIM];
            head.quantise(&vectors.frame(i), &mut frame).unwrap();
            let verdict = head.inspect(&frame).unwrap();
            lines += &format!("{}\n", Line(i, verdict));
            unknown += usize::from(verdict.unknown);
            classes[usize::from(verdict.class)] += 1;
            scores.push(verdict.score);
        }
        scores.sort_unstable();
        assert!(
            (20..120).contains(&unknown),
            "{unknown} unknown: the frames do not exercise the rule"
        );
        assert!(
            classes.iter().all(|n| *n > 10),
            "{classes:?}: the frames do not exercise the classes"
        );
        assert!(
            scores[64] < 32_700,
            "scores from {}: the frames do not exercise the softmax",
            scores[64]
        );
        found.push((
            seed,
            cosine,
            crc.checksum(&image[..IMAGE_LENGTH - 4]),
            crc.checksum(lines.as_bytes()),
        ));
    }
    assert_eq!(found, GOLDEN, "the integers have changed: {found:#010x?}");
}
