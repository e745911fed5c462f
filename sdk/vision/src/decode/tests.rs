//! Tests of decoding: formats, depths, limits and damage.

use image::{ImageBuffer, Luma, LumaA, Rgb, Rgba};
use proptest::prelude::*;

use super::*;

fn name() -> &'static Path {
    Path::new("part_17.img")
}

fn encode(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn gray8() -> DynamicImage {
    ImageBuffer::from_fn(23, 17, |x, y| Luma([(x * 11 + y * 3) as u8])).into()
}

fn rgb8() -> DynamicImage {
    ImageBuffer::from_fn(23, 17, |x, y| Rgb([(x * 11) as u8, (y * 15) as u8, 77])).into()
}

fn gray16() -> DynamicImage {
    ImageBuffer::from_fn(23, 17, |x, y| Luma([(x * 2801 + y * 7) as u16])).into()
}

fn rgb16() -> DynamicImage {
    ImageBuffer::from_fn(23, 17, |x, y| {
        Rgb([(x * 2801) as u16, (y * 3801) as u16, 777])
    })
    .into()
}

#[test]
fn lossless_formats_keep_every_sample_and_the_depth() {
    use ImageFormat::{Bmp, Png, Pnm, Tiff};
    for format in [Png, Tiff, Pnm, Bmp] {
        let image = decode_bytes(&encode(&gray8(), format), name()).unwrap();
        assert_eq!((image.width(), image.height()), (23, 17));
        let expected = match format {
            // written with a palette, which is read as colour
            Bmp => Pixels::Rgb8(gray8().to_rgb8().into_raw()),
            _ => Pixels::Gray8(gray8().to_luma8().into_raw()),
        };
        assert_eq!(image.pixels(), &expected, "{format:?}");
        let image = decode_bytes(&encode(&rgb8(), format), name()).unwrap();
        assert_eq!(image.pixels(), &Pixels::Rgb8(rgb8().to_rgb8().into_raw()));
    }
    for format in [Png, Tiff, Pnm] {
        let image = decode_bytes(&encode(&gray16(), format), name()).unwrap();
        let expected = gray16().to_luma16().into_raw();
        assert_eq!(image.pixels(), &Pixels::Gray16(expected), "{format:?}");
        let image = decode_bytes(&encode(&rgb16(), format), name()).unwrap();
        let expected = rgb16().to_rgb16().into_raw();
        assert_eq!(image.pixels(), &Pixels::Rgb16(expected), "{format:?}");
    }
}

#[test]
fn jpeg_is_close_and_keeps_its_channels() {
    let gray = decode_bytes(&encode(&gray8(), ImageFormat::Jpeg), name()).unwrap();
    let Pixels::Gray8(samples) = gray.pixels() else {
        panic!("grey became colour")
    };
    let error: u32 = samples
        .iter()
        .zip(gray8().to_luma8().as_raw())
        .map(|(a, b)| u32::from(a.abs_diff(*b)))
        .sum();
    assert!(error < 8 * 23 * 17, "{error}");
    let rgb = decode_bytes(&encode(&rgb8(), ImageFormat::Jpeg), name()).unwrap();
    assert_eq!(rgb.channels(), 3);
}

#[test]
fn alpha_is_dropped_not_blended() {
    let la: DynamicImage = ImageBuffer::from_pixel(2, 1, LumaA([90u8, 10])).into();
    let rgba: DynamicImage = ImageBuffer::from_pixel(2, 1, Rgba([900u16, 800, 700, 5])).into();
    let la = decode_bytes(&encode(&la, ImageFormat::Png), name()).unwrap();
    assert_eq!(la.pixels(), &Pixels::Gray8(vec![90, 90]));
    let rgba = decode_bytes(&encode(&rgba, ImageFormat::Png), name()).unwrap();
    assert_eq!(rgba.pixels(), &Pixels::Rgb16([900, 800, 700].repeat(2)));
}

#[test]
fn text_formats_of_pnm_are_read() {
    let image = decode_bytes(b"P2\n# camera 3\n2 2\n255\n0 10 20 30\n", name()).unwrap();
    assert_eq!(image.pixels(), &Pixels::Gray8(vec![0, 10, 20, 30]));
}

#[test]
fn one_pixel_works_in_every_format() {
    use ImageFormat::{Bmp, Jpeg, Png, Pnm, Tiff};
    for format in [Png, Tiff, Pnm, Bmp, Jpeg] {
        let dot: DynamicImage = ImageBuffer::from_pixel(1, 1, Rgb([200u8, 200, 200])).into();
        let image = decode_bytes(&encode(&dot, format), name()).unwrap();
        assert_eq!((image.width(), image.height()), (1, 1), "{format:?}");
    }
}

#[test]
fn the_size_is_checked_before_the_pixels() {
    let error = decode_bytes(b"P5 20000 20000 255\n", name()).unwrap_err();
    assert!(matches!(error, DecodeError::TooManyPixels { .. }));
    let text = error.to_string();
    for part in ["part_17.img", "20000x20000", "134217728", "tiles"] {
        assert!(text.contains(part), "{text}");
    }
    // a PNG header with no pixel data behind it
    let mut png = encode(&gray8(), ImageFormat::Png);
    png[16..20].copy_from_slice(&20_000u32.to_be_bytes());
    png[20..24].copy_from_slice(&20_000u32.to_be_bytes());
    let crc = crc32(&png[12..29]);
    png[29..33].copy_from_slice(&crc.to_be_bytes());
    let error = decode_bytes(&png, name()).unwrap_err();
    assert!(
        matches!(error, DecodeError::TooManyPixels { .. }),
        "{error}"
    );
    let mut jpeg = encode(&gray8(), ImageFormat::Jpeg);
    let frame = jpeg.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0x4E, 0x20, 0x4E, 0x20]);
    let error = decode_bytes(&jpeg, name()).unwrap_err();
    assert!(
        matches!(error, DecodeError::TooManyPixels { .. }),
        "{error}"
    );
}

/// CRC-32 of PNG, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 * (crc & 1))
        })
    })
}

#[test]
fn a_jpeg_cut_anywhere_is_an_error() {
    for image in [gray8(), rgb8()] {
        let bytes = encode(&image, ImageFormat::Jpeg);
        assert!(decode_bytes(&bytes, name()).is_ok());
        for len in 0..bytes.len() {
            let error = decode_bytes(&bytes[..len], name()).unwrap_err();
            assert!(error.to_string().contains("part_17.img"), "{error}");
        }
        let error = decode_bytes(&bytes[..bytes.len() - 2], name()).unwrap_err();
        assert!(matches!(error, DecodeError::Truncated { .. }), "{error}");
        assert!(error.to_string().contains("copy it again"), "{error}");
    }
}

#[test]
fn other_formats_cut_in_the_pixels_are_errors() {
    use ImageFormat::{Bmp, Png, Pnm, Tiff};
    for format in [Png, Tiff, Pnm, Bmp] {
        let bytes = encode(&rgb16(), if format == Bmp { Png } else { format });
        for part in 1..8 {
            let cut = &bytes[..bytes.len() * part / 8];
            assert!(decode_bytes(cut, name()).is_err(), "{format:?} {part}/8");
        }
    }
    let bmp = encode(&rgb8(), Bmp);
    assert!(decode_bytes(&bmp[..bmp.len() / 2], name()).is_err());
}

#[test]
fn files_that_are_no_images_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.jpg");
    std::fs::write(&path, "shift 2: belt stopped at 14:05").unwrap();
    let error = decode_file(&path).unwrap_err();
    assert!(matches!(error, DecodeError::NotAnImage { .. }));
    assert!(error.to_string().contains("notes.jpg"), "{error}");
    std::fs::write(&path, "").unwrap();
    assert!(matches!(
        decode_file(&path),
        Err(DecodeError::NotAnImage { .. })
    ));
    let missing = decode_file(&folder.path().join("gone.png")).unwrap_err();
    assert!(missing.to_string().contains("gone.png"), "{missing}");
    assert!(matches!(
        decode_file(folder.path()),
        Err(DecodeError::Read { .. })
    ));
    let float: DynamicImage = ImageBuffer::from_pixel(2, 2, Rgb([0.5f32; 3])).into();
    let error = decode_bytes(&encode(&float, ImageFormat::Tiff), name()).unwrap_err();
    assert!(matches!(error, DecodeError::Unsupported { .. }), "{error}");
    // a format known to the decoder library, but not read here
    let error = decode_bytes(b"GIF89a\x01\x00\x01\x00", name()).unwrap_err();
    assert!(matches!(error, DecodeError::NotAnImage { .. }), "{error}");
}

proptest! {
    #[test]
    fn damaged_bytes_never_panic(kind in 0usize..5, at in 0usize..4096, value: u8) {
        use ImageFormat::{Bmp, Jpeg, Png, Pnm, Tiff};
        let mut bytes = encode(&rgb8(), [Png, Tiff, Pnm, Bmp, Jpeg][kind]);
        let at = at % bytes.len();
        bytes[at] = value;
        if let Ok(image) = decode_bytes(&bytes, name()) {
            prop_assert!(image.width() > 0 && image.height() > 0);
        }
    }
}
