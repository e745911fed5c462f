//! Every pixel format: what a frame decodes to against a plain decoder in f64, and one pass against decoding first.

use proptest::prelude::*;

use super::*;
use crate::format::{FORMATS, PixelFormat, Yuv};
use crate::frame::{ChromaPlane, Frame};
use crate::picture::Pixels;

/// A buffer with everything that says how to read it.
#[derive(Debug)]
struct Buffer {
    bytes: Vec<u8>,
    format: PixelFormat,
    width: u32,
    height: u32,
    stride: usize,
    chroma: ChromaPlane,
    yuv: Yuv,
    roi: Roi,
}

impl Buffer {
    fn frame(&self) -> Frame<'_> {
        let (w, h, roi) = (self.width, self.height, Some(self.roi));
        let frame = if self.format == PixelFormat::Nv12 {
            Frame::nv12(&self.bytes, self.stride, w, h, self.chroma, roi)
        } else {
            Frame::new(&self.bytes, self.stride, w, h, self.format, roi)
        };
        frame.unwrap().with_yuv(self.yuv)
    }

    fn byte(&self, x: usize, y: usize) -> f64 {
        f64::from(self.bytes[y * self.stride + x])
    }

    fn word(&self, x: usize, y: usize) -> f64 {
        let at = y * self.stride + 2 * x;
        f64::from(u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]))
    }

    /// Bits `x * bits` on of row `y`, lowest first, one at a time.
    fn bits(&self, x: usize, y: usize, bits: usize) -> f64 {
        let bit = |i: usize| u32::from(self.bytes[y * self.stride + i / 8] >> (i % 8) & 1);
        let value: u32 = (0..bits).map(|i| bit(x * bits + i) << i).sum();
        f64::from(value) * 65_535.0 / f64::from((1u32 << bits) - 1)
    }

    /// The mean of the samples of each colour among a pixel and its eight neighbours, or the pixel's own sample of it.
    fn demosaicked(&self, x: usize, y: usize, pattern: &[u8; 4]) -> [f64; 3] {
        let colour = |x: usize, y: usize| pattern[y % 2 * 2 + x % 2];
        let mirror = |i: i64, size: u32| {
            let last = i64::from(size) - 1;
            (last - (last - i.abs()).abs()) as usize
        };
        [b'R', b'G', b'B'].map(|wanted| {
            if colour(x, y) == wanted {
                return self.byte(x, y);
            }
            let mut found = Vec::new();
            for (dx, dy) in (0..9).map(|i| (i % 3 - 1, i / 3 - 1)) {
                let at = (
                    mirror(x as i64 + dx, self.width),
                    mirror(y as i64 + dy, self.height),
                );
                if colour(at.0, at.1) == wanted {
                    found.push(self.byte(at.0, at.1));
                }
            }
            found.iter().sum::<f64>() / found.len() as f64
        })
    }

    fn yuv_to_rgb(&self, y: f64, cb: f64, cr: f64) -> [f64; 3] {
        // The inverse matrices as BT.601 and BT.709 print them.
        let [rv, gu, gv, bu] = match self.yuv {
            Yuv::Bt601Limited | Yuv::Bt601Full => [1.402, -0.344_136, -0.714_136, 1.772],
            Yuv::Bt709Limited | Yuv::Bt709Full => [1.5748, -0.187_324, -0.468_124, 1.8556],
        };
        let limited = matches!(self.yuv, Yuv::Bt601Limited | Yuv::Bt709Limited);
        let (y, u, v) = if limited {
            let chroma = |c: f64| (c - 128.0) / 224.0 * 255.0;
            ((y - 16.0) / 219.0 * 255.0, chroma(cb), chroma(cr))
        } else {
            (y, cb - 128.0, cr - 128.0)
        };
        [y + rv * v, y + gu * u + gv * v, y + bu * u].map(|c| c.clamp(0.0, 255.0))
    }

    /// Red, green and blue of a pixel of the whole frame, not rounded.
    fn decoded(&self, x: usize, y: usize) -> [f64; 3] {
        let bytes =
            |samples: usize, order: [usize; 3]| order.map(|c| self.byte(samples * x + c, y));
        match self.format {
            PixelFormat::Gray8 => [self.byte(x, y); 3],
            PixelFormat::Gray16 => [self.word(x, y); 3],
            PixelFormat::Rgb8 => bytes(3, [0, 1, 2]),
            PixelFormat::Bgr8 => bytes(3, [2, 1, 0]),
            PixelFormat::Rgba8 => bytes(4, [0, 1, 2]),
            PixelFormat::Bgra8 => bytes(4, [2, 1, 0]),
            PixelFormat::Rgb16 => [0, 1, 2].map(|c| self.word(3 * x + c, y)),
            PixelFormat::Mono10p => [self.bits(x, y, 10); 3],
            PixelFormat::Mono12p => [self.bits(x, y, 12); 3],
            PixelFormat::BayerRg8 => self.demosaicked(x, y, b"RGGB"),
            PixelFormat::BayerGr8 => self.demosaicked(x, y, b"GRBG"),
            PixelFormat::BayerGb8 => self.demosaicked(x, y, b"GBRG"),
            PixelFormat::BayerBg8 => self.demosaicked(x, y, b"BGGR"),
            PixelFormat::Nv12 => {
                let at = self.chroma.offset + y / 2 * self.chroma.stride + x / 2 * 2;
                let [cb, cr] = [self.bytes[at], self.bytes[at + 1]].map(f64::from);
                self.yuv_to_rgb(self.byte(x, y), cb, cr)
            }
            PixelFormat::Yuyv => {
                let pair = x / 2 * 4;
                let (cb, cr) = (self.byte(pair + 1, y), self.byte(pair + 3, y));
                self.yuv_to_rgb(self.byte(2 * x, y), cb, cr)
            }
        }
    }
}

fn buffers() -> impl Strategy<Value = Buffer> {
    const YUVS: [Yuv; 4] = [
        Yuv::Bt601Limited,
        Yuv::Bt601Full,
        Yuv::Bt709Limited,
        Yuv::Bt709Full,
    ];
    let shape = (2u32..40, 2u32..20, 0usize..7, 0usize..9);
    let roi = (0u32..1000, 0u32..1000, 0u32..1000, 0u32..1000);
    let formats = prop::sample::select(&FORMATS[..]);
    (
        formats,
        prop::sample::select(&YUVS[..]),
        shape,
        roi,
        any::<u64>(),
    )
        .prop_map(|(format, yuv, (width, height, pad, gap), cut, seed)| {
            let even = |size: u32| {
                if format.is_yuv() {
                    size.next_multiple_of(2)
                } else {
                    size
                }
            };
            let (width, height) = (even(width), even(height));
            let stride = format.row_bytes(width) + pad;
            let chroma = ChromaPlane {
                offset: stride * height as usize + gap,
                stride: stride + gap,
            };
            let len = if format == PixelFormat::Nv12 {
                chroma.offset + (height as usize / 2 - 1) * chroma.stride + width as usize
            } else {
                stride * height as usize - pad
            };
            // a multiplicative generator is enough for bytes that must only differ
            let mut state = seed | 1;
            let bytes = std::iter::repeat_with(|| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 56) as u8
            });
            let (x, y) = (cut.0 % width, cut.1 % height);
            let roi = Roi {
                x,
                y,
                width: 1 + cut.2 % (width - x),
                height: 1 + cut.3 % (height - y),
            };
            Buffer {
                bytes: bytes.take(len).collect(),
                format,
                width,
                height,
                stride,
                chroma,
                yuv,
                roi,
            }
        })
}

fn samples(pixels: &Pixels) -> Vec<f64> {
    match pixels {
        Pixels::Gray8(v) => v.iter().flat_map(|&v| [f64::from(v); 3]).collect(),
        Pixels::Gray16(v) => v.iter().flat_map(|&v| [f64::from(v); 3]).collect(),
        Pixels::Rgb8(v) => v.iter().map(|&v| f64::from(v)).collect(),
        Pixels::Rgb16(v) => v.iter().map(|&v| f64::from(v)).collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn a_frame_decodes_to_what_its_format_says(buffer in buffers()) {
        let image = buffer.frame().to_image();
        let roi = buffer.roi;
        prop_assert_eq!((image.width(), image.height()), (roi.width, roi.height));
        prop_assert_eq!(image.channels() == 1, buffer.format.is_gray());
        let found = samples(image.pixels());
        for (i, found) in found.chunks(3).enumerate() {
            let (x, y) = (i as u32 % roi.width, i as u32 / roi.width);
            let expected = buffer.decoded((roi.x + x) as usize, (roi.y + y) as usize);
            for (found, expected) in found.iter().zip(expected) {
                // half a code of rounding, and what the fixed point of luma and chroma adds
                let allowed = if buffer.format.is_yuv() { 0.6 } else { 0.5 + 1e-9 };
                prop_assert!((found - expected).abs() <= allowed, "({x}, {y}): {found} {expected}");
            }
        }
    }

    #[test]
    fn one_pass_gives_the_bits_that_decoding_first_gives(
        buffer in buffers(),
        width in 1u32..24,
        height in 1u32..24,
        crop in any::<bool>(),
    ) {
        let fit = if crop { Fit::CenterCrop } else { Fit::Squash };
        let p = Preprocess::imagenet(height, width, fit);
        let (mut once, mut twice) = (vec![0.0; p.len()], vec![1.0; p.len()]);
        let frame = buffer.frame();
        p.apply(&frame, &mut once).unwrap();
        p.apply(&frame.to_image().frame(), &mut twice).unwrap();
        prop_assert_eq!(once, twice);
    }
}

#[test]
fn a_frame_of_one_row_or_column_is_read_in_every_format_that_can_have_it() {
    for format in FORMATS {
        for (width, height) in [(1, 1), (1, 7), (9, 1)] {
            let bytes = vec![77; 60 * 7];
            let frame = Frame::new(&bytes, 60, width, height, format, None);
            if format.is_yuv() {
                assert!(matches!(frame, Err(FrameError::Odd { .. })), "{format:?}");
                continue;
            }
            let frame = frame.unwrap();
            let p = plain(3, 2, Fit::Squash);
            let mut out = vec![f32::NAN; p.len()];
            p.apply(&frame, &mut out).unwrap();
            assert!(out.iter().all(|v| (0.0..=1.0).contains(v)), "{format:?}");
        }
    }
}

#[test]
fn buffers_used_again_for_other_frames_leave_no_trace() {
    let p = Preprocess::imagenet(7, 5, Fit::Squash);
    let run = |format: PixelFormat, seed: u8| {
        let bytes: Vec<u8> = (0..2000u32)
            .map(|i| (i * 31 + i / 7) as u8 ^ seed)
            .collect();
        let frame = Frame::new(&bytes, 120, 20, 10, format, None).unwrap();
        let mut out = vec![0.0; p.len()];
        p.apply(&frame, &mut out).unwrap();
        out
    };
    let first: Vec<_> = FORMATS.iter().map(|f| run(*f, 0)).collect();
    for (format, first) in FORMATS.iter().zip(&first).rev() {
        run(PixelFormat::Nv12, 0x55);
        assert_eq!(*first, run(*format, 0), "{format:?}");
    }
}

/// The sum was computed on x86-64 with AVX-512; whatever runs this test must come to the same one.
#[test]
fn every_cpu_gives_the_same_bits() {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for format in FORMATS {
        let bytes: Vec<u8> = (0..640 * 51u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let frame = Frame::new(&bytes, 640, 86, 34, format, None).unwrap();
        for (width, height) in [(16, 16), (100, 40), (7, 60)] {
            let p = Preprocess::imagenet(height, width, Fit::Squash);
            let mut out = vec![0.0; p.len()];
            p.apply(&frame, &mut out).unwrap();
            for value in out {
                hash = (hash ^ u64::from(value.to_bits())).wrapping_mul(0x100_0000_01b3);
            }
        }
    }
    assert_eq!(hash, 11_945_850_936_769_497_671);
}

#[test]
fn what_cannot_be_a_frame_of_planes_says_why() {
    let bytes = vec![0; 8 * 6 * 3 / 2];
    let new = |stride, w, h, format| Frame::new(&bytes, stride, w, h, format, None).map(|_| ());
    assert_eq!(new(8, 8, 6, PixelFormat::Nv12), Ok(()));
    for (w, h, format) in [
        (7, 6, PixelFormat::Nv12),
        (8, 5, PixelFormat::Nv12),
        (3, 5, PixelFormat::Yuyv),
    ] {
        let error = new(8, w, h, format).unwrap_err();
        assert!(error.to_string().contains("region of interest"), "{error}");
        assert!(matches!(error, FrameError::Odd { .. }), "{error}");
    }
    assert_eq!(new(8, 4, 5, PixelFormat::Yuyv), Ok(()));
    let short = new(9, 8, 6, PixelFormat::Nv12).unwrap_err();
    assert!(short.to_string().contains("luma and chroma"), "{short}");
    assert!(
        matches!(short, FrameError::Buffer { needed: 80, .. }),
        "{short}"
    );
    assert!(matches!(
        new(7, 4, 5, PixelFormat::Yuyv),
        Err(FrameError::Stride { row: 8, .. })
    ));
    assert!(matches!(
        new(4, 4, 5, PixelFormat::Mono10p),
        Err(FrameError::Stride { row: 5, .. })
    ));

    let nv12 = |offset, stride| {
        let chroma = ChromaPlane { offset, stride };
        Frame::nv12(&bytes, 8, 8, 6, chroma, None).map(|_| ())
    };
    assert_eq!(nv12(48, 8), Ok(()));
    let inside = nv12(47, 8).unwrap_err();
    assert_eq!(
        inside,
        FrameError::ChromaPlane {
            offset: 47,
            luma: 48
        }
    );
    assert!(matches!(
        nv12(48, 7),
        Err(FrameError::Stride { row: 8, .. })
    ));
    for (offset, stride) in [(49, 8), (48, 9), (usize::MAX, 8), (48, usize::MAX)] {
        assert!(matches!(
            nv12(offset, stride),
            Err(FrameError::Buffer { .. })
        ));
    }
}
