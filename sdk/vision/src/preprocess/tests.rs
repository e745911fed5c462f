//! Tests of the preprocessing path against a plain resampler in f64, and of every pixel format against a plain decoder.

mod formats;

use proptest::prelude::*;

use super::*;
use crate::format::PixelFormat;
use crate::picture::Pixels;

fn plain(width: u32, height: u32, fit: Fit) -> Preprocess {
    Preprocess {
        height,
        width,
        fit,
        mean: [0.0; 3],
        std: [1.0; 3],
    }
}

/// Antialiased Catmull-Rom in f64 along one axis.
fn axis(source: &[f64], out: usize) -> Vec<f64> {
    let cubic = |x: f64| match x.abs() {
        x if x < 1.0 => 1.5 * x.powi(3) - 2.5 * x.powi(2) + 1.0,
        x if x < 2.0 => -0.5 * x.powi(3) + 2.5 * x.powi(2) - 4.0 * x + 2.0,
        _ => 0.0,
    };
    let scale = source.len() as f64 / out as f64;
    (0..out)
        .map(|o| {
            let centre = (o as f64 + 0.5) * scale;
            let weight = |i: usize| cubic((i as f64 + 0.5 - centre) / scale.max(1.0));
            let norm: f64 = (0..source.len()).map(weight).sum();
            let sum = |(i, s): (usize, &f64)| weight(i) * s;
            source.iter().enumerate().map(sum).sum::<f64>() / norm
        })
        .collect()
}

/// `[height, width]` of one channel, clamped to 0..=max.
fn reference(source: &[f64], width: usize, p: &Preprocess, max: f64) -> Vec<f64> {
    let (out_w, out_h) = (p.width as usize, p.height as usize);
    let rows: Vec<Vec<f64>> = source.chunks(width).map(|row| axis(row, out_w)).collect();
    let columns: Vec<Vec<f64>> = (0..out_w)
        .map(|x| {
            let column: Vec<f64> = rows.iter().map(|row| row[x]).collect();
            axis(&column, out_h)
        })
        .collect();
    (0..out_h * out_w)
        .map(|i| columns[i % out_w][i / out_w].clamp(0.0, max))
        .collect()
}

fn smooth(width: u32, height: u32, max: f64) -> Vec<f64> {
    (0..width * height)
        .map(|i| {
            let (x, y) = (f64::from(i % width), f64::from(i / width));
            (max * (0.5 + 0.2 * (x * 0.9).sin() + 0.2 * (y * 1.3 + x).cos())).round()
        })
        .collect()
}

proptest! {
    #[test]
    fn the_resize_matches_a_naive_resampler(
        width in 1u32..24,
        height in 1u32..24,
        out_width in 1u32..20,
        out_height in 1u32..20,
    ) {
        let p = plain(out_width, out_height, Fit::Squash);
        let mut out = vec![0.0; p.len()];
        let source = smooth(width, height, 255.0);
        let pixels = source.iter().map(|&v| v as u8).collect();
        let image = Image::new(width, height, Pixels::Gray8(pixels)).unwrap();
        p.apply(&image.frame(), &mut out).unwrap();
        for (a, e) in out.iter().zip(reference(&source, width as usize, &p, 255.0)) {
            prop_assert!((f64::from(*a) * 255.0 - e).abs() < 0.04, "{} {}", a * 255.0, e);
        }
        let source = smooth(width, height, 65535.0);
        let pixels = source.iter().map(|&v| v as u16).collect();
        let image = Image::new(width, height, Pixels::Gray16(pixels)).unwrap();
        p.apply(&image.frame(), &mut out).unwrap();
        for (a, e) in out.iter().zip(reference(&source, width as usize, &p, 65535.0)) {
            prop_assert!((f64::from(*a) * 65535.0 - e).abs() < 0.2, "{} {}", a * 65535.0, e);
        }
    }

    #[test]
    fn stride_region_and_format_do_not_change_the_result(
        pad in 0usize..9,
        x in 0u32..4,
        y in 0u32..4,
        seed in prop::collection::vec(0u8..=255, 9 * 8 * 3),
    ) {
        let roi = Roi { x, y, width: 5, height: 4 };
        let p = Preprocess::imagenet(3, 4, Fit::Squash);
        let fill = |bytes: usize, pixel: &dyn Fn(&[u8]) -> Vec<u8>| {
            let mut data = vec![0xEE; 8 * (9 * bytes + pad) - pad];
            for (i, rgb) in seed.chunks(3).enumerate() {
                let at = i / 9 * (9 * bytes + pad) + i % 9 * bytes;
                data[at..at + bytes].copy_from_slice(&pixel(rgb));
            }
            data
        };
        let run = |data: &[u8], format: PixelFormat| {
            let stride = format.row_bytes(9) + pad;
            let frame = Frame::new(data, stride, 9, 8, format, Some(roi)).unwrap();
            let mut out = vec![0.0; p.len()];
            p.apply(&frame, &mut out).unwrap();
            let mut copy = vec![0.0; p.len()];
            p.apply(&frame.to_image().frame(), &mut copy).unwrap();
            assert_eq!(out, copy, "{format:?}");
            out
        };
        let rgb = run(&fill(3, &|p| p.to_vec()), PixelFormat::Rgb8);
        let bgr = run(&fill(3, &|p| vec![p[2], p[1], p[0]]), PixelFormat::Bgr8);
        let rgba = run(&fill(4, &|p| vec![p[0], p[1], p[2], 7]), PixelFormat::Rgba8);
        prop_assert_eq!(&rgb, &bgr);
        prop_assert_eq!(&rgb, &rgba);
        let gray = run(&fill(1, &|p| vec![p[0]]), PixelFormat::Gray8);
        // the red plane alone is the grey image of the red samples
        prop_assert_eq!(&rgb[..12], &gray[..12]);
        run(&fill(2, &|p| vec![p[0], p[1]]), PixelFormat::Gray16);
        run(&fill(6, &|p| [p, p].concat()), PixelFormat::Rgb16);
    }
}

#[test]
fn a_centre_crop_is_a_squash_of_the_centre() {
    let pixels: Vec<u8> = (0..41 * 30).map(|i| (i * 7 % 256) as u8).collect();
    let region = |x, y, width, height| Roi {
        x,
        y,
        width,
        height,
    };
    let run = |fit, (w, h), roi| {
        let frame = Frame::new(&pixels, 41, 41, 30, PixelFormat::Gray8, roi).unwrap();
        let p = plain(w, h, fit);
        let mut out = vec![0.0; p.len()];
        p.apply(&frame, &mut out).unwrap();
        out
    };
    for (size, roi, centre) in [
        ((16, 16), None, region(5, 0, 30, 30)),
        ((20, 10), None, region(0, 4, 41, 21)),
        ((10, 16), Some(region(3, 2, 32, 16)), region(14, 2, 10, 16)),
        ((1, 100), Some(region(4, 4, 2, 8)), region(4, 4, 1, 8)),
        ((64, 1), Some(region(4, 4, 8, 3)), region(4, 5, 8, 1)),
    ] {
        let crop = run(Fit::CenterCrop, size, roi);
        assert_eq!(crop, run(Fit::Squash, size, Some(centre)), "{size:?}");
    }
}

#[test]
fn normalisation_is_per_channel_and_grey_fills_all() {
    let p = Preprocess {
        mean: [0.1, 0.2, 0.3],
        std: [0.5, 0.25, 2.0],
        ..plain(1, 1, Fit::Squash)
    };
    let mut out = [0.0; 3];
    let gray = Image::new(1, 1, Pixels::Gray8(vec![204])).unwrap();
    p.apply(&gray.frame(), &mut out).unwrap();
    for (a, e) in out.iter().zip([1.4, 2.4, 0.25]) {
        assert!((a - e).abs() < 1e-6, "{out:?}");
    }
    let rgb = Image::new(1, 1, Pixels::Rgb16(vec![0, 13107, 65535])).unwrap();
    p.apply(&rgb.frame(), &mut out).unwrap();
    for (a, e) in out.iter().zip([-0.2, 0.0, 0.35]) {
        assert!((a - e).abs() < 1e-6, "{out:?}");
    }
}

#[test]
fn sixteen_bit_grey_keeps_steps_that_eight_bit_would_lose() {
    let ramp: Vec<u16> = (0..64 * 64).map(|i| 30_000 + (i % 64)).collect();
    let image = Image::new(64, 64, Pixels::Gray16(ramp)).unwrap();
    let p = plain(32, 32, Fit::Squash);
    let mut out = vec![0.0; p.len()];
    p.apply(&image.frame(), &mut out).unwrap();
    // interior of a ramp of one step a pixel, halved: two steps an output pixel, all within one 8-bit level
    for x in 4..27 {
        let step = (out[16 * 32 + x + 1] - out[16 * 32 + x]) * 65535.0;
        assert!((step - 2.0).abs() <= 1.01, "{step}");
    }
    let level = (out[16 * 32 + 16] * 65535.0).round();
    assert!((30_032.0..=30_034.0).contains(&level), "{level}");
}

#[test]
fn bad_parameters_and_outputs_are_named() {
    let image = Image::new(2, 2, Pixels::Gray8(vec![0; 4])).unwrap();
    let field = |p: Preprocess| match p.apply(&image.frame(), &mut vec![0.0; p.len().min(99)]) {
        Err(FrameError::Preprocess { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    let good = plain(2, 2, Fit::Squash);
    assert_eq!(field(plain(0, 2, Fit::Squash)), "width");
    assert_eq!(field(plain(2, u32::MAX, Fit::Squash)), "height");
    let std = [1.0, 0.0, 1.0];
    assert_eq!(
        field(Preprocess {
            std,
            ..good.clone()
        }),
        "std"
    );
    let mean = [f32::NAN, 0.0, 0.0];
    assert_eq!(
        field(Preprocess {
            mean,
            ..good.clone()
        }),
        "mean"
    );
    let short = good.apply(&image.frame(), &mut [0.0; 11]);
    assert_eq!(
        short,
        Err(FrameError::Output {
            expected: 12,
            actual: 11
        })
    );
    assert!("squash".parse::<Fit>().unwrap() == Fit::Squash);
    assert!(
        "fit"
            .parse::<Fit>()
            .unwrap_err()
            .to_string()
            .contains("center_crop")
    );
    assert_eq!(
        serde_json::to_string(&Fit::CenterCrop).unwrap(),
        "\"center_crop\""
    );
    assert_eq!(Fit::CenterCrop.to_string(), "center_crop");
}

#[test]
fn a_batch_is_its_images_one_after_another() {
    let images: Vec<Image> = (1..=5)
        .map(|n| {
            let pixels = (0..n * 7).map(|v| v as u8 * 3).collect();
            Image::new(n, 7, Pixels::Gray8(pixels)).unwrap()
        })
        .collect();
    let p = Preprocess::imagenet(6, 5, Fit::CenterCrop);
    let batch = preprocess_batch(&images.iter().collect::<Vec<_>>(), &p).unwrap();
    assert_eq!(batch.len(), 5 * p.len());
    for (image, row) in images.iter().zip(batch.chunks(p.len())) {
        let mut single = vec![0.0; p.len()];
        p.apply(&image.frame(), &mut single).unwrap();
        assert_eq!(row, single);
    }
}
