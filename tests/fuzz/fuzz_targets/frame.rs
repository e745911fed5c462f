//! A frame of any format, size, stride and region over any bytes: one pass gives the bits that decoding first gives.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ssl_edge_vision::{ChromaPlane, Fit, Frame, PixelFormat, Preprocess, Roi, Yuv};

const FORMATS: [PixelFormat; 15] = [
    PixelFormat::Gray8,
    PixelFormat::Gray16,
    PixelFormat::Rgb8,
    PixelFormat::Bgr8,
    PixelFormat::Rgba8,
    PixelFormat::Rgb16,
    PixelFormat::Bgra8,
    PixelFormat::Mono10p,
    PixelFormat::Mono12p,
    PixelFormat::BayerRg8,
    PixelFormat::BayerGr8,
    PixelFormat::BayerGb8,
    PixelFormat::BayerBg8,
    PixelFormat::Nv12,
    PixelFormat::Yuyv,
];
const YUVS: [Yuv; 4] = [
    Yuv::Bt601Limited,
    Yuv::Bt601Full,
    Yuv::Bt709Limited,
    Yuv::Bt709Full,
];

fuzz_target!(|bytes: &[u8]| {
    let Some((head, data)) = bytes.split_first_chunk::<44>() else {
        return;
    };
    let number = |i: usize| {
        let bytes = [0, 1, 2, 3].map(|j| head[4 + 4 * i + j]);
        u32::from_le_bytes(bytes)
    };
    let format = FORMATS[head[0] as usize % FORMATS.len()];
    let [width, height, stride] = [0, 1, 2].map(number);
    let roi = (head[1] & 1 == 1).then(|| Roi {
        x: number(3),
        y: number(4),
        width: number(5),
        height: number(6),
    });
    let frame = if head[1] & 2 == 2 {
        let chroma = ChromaPlane {
            offset: number(7) as usize,
            stride: number(8) as usize,
        };
        Frame::nv12(data, stride as usize, width, height, chroma, roi)
    } else {
        Frame::new(data, stride as usize, width, height, format, roi)
    };
    let Ok(frame) = frame else {
        return;
    };
    let frame = frame.with_yuv(YUVS[head[2] as usize % 4]);
    let fit = [Fit::Squash, Fit::CenterCrop][head[1] as usize >> 2 & 1];
    let size = number(9);
    let preprocess = Preprocess::imagenet(1 + size % 32, 1 + (size >> 8) % 32, fit);
    let mut once = vec![f32::NAN; preprocess.len()];
    let mut twice = once.clone();
    preprocess
        .apply(&frame, &mut once)
        .expect("a frame can be preprocessed");
    let image = frame.to_image();
    preprocess
        .apply(&image.frame(), &mut twice)
        .expect("an image can be preprocessed");
    assert!(once.iter().all(|value| value.is_finite()));
    assert_eq!(once, twice);
});
