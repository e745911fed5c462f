//! Vision for ssl-edge: everything between a file or a camera buffer and the `[3, H, W]` f32 tensor an encoder sees.
//!
//! # Overview
//! - [`Frame`]: a borrowed, strided camera buffer with a region of interest, grey, RGB, Bayer, packed or of luma and chroma;
//!   [`Image`]: an owned, tightly packed one.
//! - [`decode_file`]: JPEG, PNG, BMP, TIFF and PGM/PPM, 8 and 16 bit, grey and RGB, with a pixel limit checked in the header.
//! - [`Preprocess`]: the one path from pixels to a tensor, shared by training, export and device.
//! - [`ImageFolder`], [`ClassFolder`], [`decode_all`]: data sets that name what they skip.
//! - [`AugmentConfig`], [`MultiCrop`], [`multi_crop_batch`], [`view_batch`]: the augmentations of DINO and MAE.
//! - [`surface`]: procedural photos of metal surfaces; [`hog_lbp`], [`raw_pixels`]: the baselines a learned encoder must beat.
//!
//! # Determinism
//! Every random number comes from [`stream`], a ChaCha8 generator keyed by `(seed, step, sample, purpose)`, so results
//! depend neither on the number of threads nor on the order of the work.
//!
//! # Example
//! ```
//! use ssl_edge_vision::{Fit, Frame, PixelFormat, Preprocess};
//! let pixels = vec![128u8; 640 * 480];
//! let frame = Frame::new(&pixels, 640, 640, 480, PixelFormat::Gray8, None)?;
//! let preprocess = Preprocess::imagenet(224, 224, Fit::CenterCrop);
//! let mut tensor = vec![0.0; preprocess.len()];
//! preprocess.apply(&frame, &mut tensor)?;
//! # Ok::<(), ssl_edge_vision::FrameError>(())
//! ```
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod augment;
mod dataset;
mod decode;
mod encode;
mod format;
mod frame;
mod picture;
mod preprocess;
mod quality;
mod resample;
mod rows;
mod scale;
mod simd;
mod stream;
mod synth;
mod texture;
mod texture_grid;

pub use augment::{
    AugmentConfig, AugmentError, Blur, Jitter, MultiCrop, multi_crop_batch, view_batch,
};
pub use dataset::{
    ClassFolder, DatasetError, IMAGE_EXTENSIONS, ImageFolder, MIN_SIDE, Skipped, decode_all,
};
pub use decode::{DecodeError, MAX_FILE_BYTES, MAX_PIXELS, decode_bytes, decode_file};
pub use encode::encode_png;
pub use format::{PixelFormat, Yuv};
pub use frame::{ChromaPlane, Frame, FrameError, Roi};
pub use picture::{Image, Pixels};
pub use preprocess::{Fit, IMAGENET_MEAN, IMAGENET_STD, Preprocess, UnknownFit, preprocess_batch};
pub use quality::Quality;
pub use stream::{PURPOSE_VIEW, stream};
pub use synth::{Station, Surface, SurfaceError};
pub use texture::{HOG_LBP_LEN, TEXTURE_SIDE, hog_lbp, raw_pixels, texture};
pub use texture_grid::{raw_grid, texture_grid};
