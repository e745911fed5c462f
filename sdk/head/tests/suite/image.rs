use crate::common::{Exact, exact, values};
use crc::{CRC_32_ISO_HDLC, Crc};
use proptest::prelude::*;
use ssl_edge_head::{
    BuildError, HeadImage, HeadSpec, ImageError, MAX_CLASSES, MAX_DIM, RowSpec, image_length,
};

pub(crate) fn small() -> Vec<u8> {
    let head = Exact {
        dim: 3,
        weights: vec![vec![127, 2, -3]],
        bias: vec![40],
        centre: vec![100, -200, 300],
        rows: vec![vec![1, 2, 3], vec![-4, 5, 6]],
        cosine: false,
        temperature: 0.5,
        limit: 0.25,
    };
    head.image()
}

fn seal(image: &mut [u8]) {
    let end = image.len() - 4;
    let checksum = Crc::<u32>::new(&CRC_32_ISO_HDLC).checksum(&image[..end]);
    image[end..].copy_from_slice(&checksum.to_le_bytes());
}

#[test]
fn an_image_says_what_it_was_made_from() {
    let image = small();
    let head = HeadImage::parse(&image).unwrap();
    assert_eq!(
        (head.dim(), head.n_classes(), head.n_rows(), head.job()),
        (3, 2, 2, 3)
    );
    assert_eq!(
        (head.length(), head.encoder(), head.has_unknown_rule()),
        (image.len(), &[9; 32], true)
    );
    assert_eq!(
        (head.class_id(0), head.class_id(1), head.class_id(2)),
        (Some(0), Some(7), None)
    );
    assert_eq!((head.row(1), head.row(2)), (Some((1 << 40 | 1, 1)), None));
}

#[test]
fn what_lies_behind_an_image_is_not_looked_at() {
    let mut image = small();
    let frame = [5, -6, 7];
    let verdict = HeadImage::parse(&image).unwrap().inspect(&frame);
    image.extend([0xff; 100]);
    assert_eq!(HeadImage::parse(&image).unwrap().inspect(&frame), verdict);
}

#[test]
fn a_cut_image_is_refused_at_every_length() {
    let image = small();
    assert_eq!(HeadImage::parse(&[]).unwrap_err(), ImageError::NotAHead);
    for length in 1..image.len() {
        let error = HeadImage::parse(&image[..length]).unwrap_err();
        assert!(
            matches!(error, ImageError::Cut { needed, found } if needed > found),
            "{length}: {error}"
        );
    }
}

#[test]
fn every_changed_bit_is_noticed() {
    let image = small();
    for bit in 0..8 * image.len() {
        let mut changed = image.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(HeadImage::parse(&changed).is_err(), "bit {bit}");
    }
}

#[test]
fn another_version_is_named() {
    let mut image = small();
    image[8] = 9;
    seal(&mut image);
    assert_eq!(
        HeadImage::parse(&image).unwrap_err(),
        ImageError::Version {
            found: 9,
            supported: 1
        }
    );
}

/// With a checksum that matches, values out of range are named.
#[test]
fn a_sealed_image_with_bad_values_is_refused() {
    let cases: [(usize, u8, &str); 13] = [
        (10, 4, "flags"),
        (13, 0x20, "values of an embedding"),
        (14, 0, "classes"),
        (15, 1, "classes"),
        (14, 3, "length"),
        (16, 0, "rows"),
        (24, 61, "logit bits"),
        (24, 23, "logit bits"),
        (25, 9, "centre or row bits"),
        (26, 15, "centre or row bits"),
        (31, 0x7f, "cosine limit"),
        (27, 1, "reserved"),
        (67, 0xff, "step"),
    ];
    for (at, value, field) in cases {
        let mut image = small();
        image[at] = value;
        seal(&mut image);
        assert_eq!(
            HeadImage::parse(&image).unwrap_err(),
            ImageError::BadField { field },
            "byte {at}"
        );
    }
    let rows = 72 + 2 * 16;
    for (at, field) in [
        (72 + 15, "class offset"),
        (rows + 15, "row"),
        (rows + 21, "row"),
        (rows + 23, "row"),
    ] {
        let mut image = small();
        image[at] = 0x77;
        seal(&mut image);
        assert_eq!(
            HeadImage::parse(&image).unwrap_err(),
            ImageError::BadField { field },
            "byte {at}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), with_magic in any::<bool>()) {
        let mut bytes = bytes;
        if with_magic && bytes.len() >= 12 {
            bytes[..10].copy_from_slice(b"SSLEHEAD\x01\x00");
        }
        prop_assert!(HeadImage::parse(&bytes).is_err());
    }

    /// Images that pass the checksum but were changed anywhere: an error or a verdict, never a panic, at the ends of the range too.
    #[test]
    fn no_sealed_bytes_panic(
        (head, frame) in exact().prop_flat_map(|head| { let frame = values(head.dim); (Just(head), frame) }),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        near_start in any::<bool>(),
    ) {
        let mut image = head.image();
        let range = if near_start { 200.min(image.len()) } else { image.len() };
        for (at, value) in changes {
            image[at.index(range)] = value;
        }
        seal(&mut image);
        if let Ok(head) = HeadImage::parse(&image) {
            for frame in [vec![i8::MIN; head.dim()], vec![i8::MAX; head.dim()], vec![0; head.dim()], frame] {
                if frame.len() == head.dim() {
                    let verdict = head.inspect(&frame).unwrap();
                    prop_assert!(usize::from(verdict.class) < head.n_classes());
                    let scores = head.scores(&frame).unwrap();
                    prop_assert!(scores.iter().all(|score| *score <= 1 << 15));
                    head.nearest(&frame, Some(0)).unwrap();
                }
            }
        }
    }
}

fn spec<'a>(rows: &'a [RowSpec<'a>]) -> HeadSpec<'a> {
    HeadSpec {
        job: 0,
        encoder: [0; 32],
        class_ids: &[1, 2],
        weights: &[1.0, 2.0, 3.0, 4.0],
        bias: &[0.5, 0.0],
        cosine: false,
        temperature: 1.0,
        centre: &[0.0, 0.0],
        step: 0.01,
        rows,
        cosine_limit: None,
    }
}

#[test]
fn heads_that_no_image_can_hold_are_refused() {
    let bad_row = [RowSpec {
        sample: 0,
        class: 2,
        embedding: &[1.0, 2.0],
    }];
    let short_row = [RowSpec {
        sample: 0,
        class: 0,
        embedding: &[1.0],
    }];
    let (many, wide) = (vec![0.0; MAX_CLASSES + 1], vec![0.0; MAX_DIM + 1]);
    let cases = [
        (
            HeadSpec {
                temperature: 0.0,
                ..spec(&[])
            },
            "the temperature",
        ),
        (
            HeadSpec {
                step: f64::NAN,
                ..spec(&[])
            },
            "the step",
        ),
        (
            HeadSpec {
                step: 1e-60,
                ..spec(&[])
            },
            "the step",
        ),
        (
            HeadSpec {
                weights: &[1.0, f64::INFINITY, 0.0, 0.0],
                ..spec(&[])
            },
            "a weight",
        ),
        (
            HeadSpec {
                bias: &[f64::NAN, 0.0],
                ..spec(&[])
            },
            "a bias",
        ),
        (
            HeadSpec {
                cosine: true,
                ..spec(&[])
            },
            "a bias",
        ),
        (
            HeadSpec {
                centre: &[1e9, 0.0],
                ..spec(&[])
            },
            "the centre over the step",
        ),
        (
            HeadSpec {
                cosine_limit: Some(1.5),
                ..spec(&bad_row)
            },
            "the cosine limit",
        ),
        (spec(&bad_row), "a row"),
        (spec(&short_row), "a row"),
        (
            HeadSpec {
                cosine_limit: Some(0.5),
                ..spec(&[])
            },
            "rows",
        ),
        (
            HeadSpec {
                class_ids: &[1],
                ..spec(&[])
            },
            "class ids",
        ),
        (
            HeadSpec {
                weights: &[1.0],
                ..spec(&[])
            },
            "weights",
        ),
        (
            HeadSpec {
                bias: &many,
                ..spec(&[])
            },
            "classes",
        ),
        (
            HeadSpec {
                centre: &wide,
                ..spec(&[])
            },
            "values of an embedding",
        ),
        (
            HeadSpec {
                centre: &[],
                ..spec(&[])
            },
            "values of an embedding",
        ),
    ];
    for (spec, expected) in cases {
        let (BuildError::Size { what, .. }
        | BuildError::Shape { what, .. }
        | BuildError::Value { what }) = spec.write(&mut [0; 1000]).unwrap_err()
        else {
            panic!("{expected}: another error");
        };
        assert_eq!(what, expected);
    }
    let needed = image_length(2, 2, 0);
    let error = spec(&[]).write(&mut vec![0; needed - 1]).unwrap_err();
    assert_eq!(
        error,
        BuildError::Buffer {
            needed,
            found: needed - 1
        }
    );
}

/// Weights and temperatures of any finite size give an image that parses, with the best class of f64.
#[test]
fn extreme_sizes_keep_the_best_class() {
    for (size, temperature) in [
        (1e-200, 1.0),
        (1e200, 1.0),
        (1.0, 1e-200),
        (1.0, 1e200),
        (0.0, 1.0),
        (1e30, 1e-30),
    ] {
        let weights = [1.0, 2.0, 3.0, -4.0].map(|w: f64| w * size);
        let mut image = [0; 400];
        let written = HeadSpec {
            weights: &weights,
            bias: &[0.0; 2],
            temperature,
            ..spec(&[])
        }
        .write(&mut image);
        let length = written.unwrap_or_else(|error| panic!("{size:e} {temperature:e}: {error}"));
        let head = HeadImage::parse(&image[..length]).unwrap();
        if size > 0.0 && (size > 1e-100 && temperature < 1e100) {
            assert_eq!(
                head.inspect(&[100, 100]).unwrap().class,
                0,
                "{size:e} {temperature:e}"
            );
            assert_eq!(
                head.inspect(&[100, -100]).unwrap().class,
                1,
                "{size:e} {temperature:e}"
            );
        } else {
            assert_eq!(
                head.inspect(&[100, 100]).unwrap().score,
                1 << 14,
                "{size:e} {temperature:e}"
            );
        }
    }
}
