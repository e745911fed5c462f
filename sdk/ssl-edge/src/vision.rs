//! Frames, files and data sets.
//!
//! [`Frame`] is the caller's memory as a camera fills it: strided rows, a pixel format, a region of interest. [`decode_file`] reads
//! JPEG, PNG, BMP, TIFF and PGM/PPM, 8 and 16 bit. [`ImageFolder`] and [`ClassFolder`] are data sets that name what they skip.
//! [`Station`] draws photos of metal surfaces, which stand in for a camera, and [`hog_lbp`] and [`raw_pixels`] are the baselines that an
//! encoder must beat.
//!
//! ```
//! use ssl_edge::vision::{Frame, PixelFormat, Roi};
//! let camera_buffer = vec![0u8; 480 * 704];
//! let roi = Roi { x: 100, y: 40, width: 200, height: 200 };
//! let frame = Frame::new(&camera_buffer, 704, 640, 480, PixelFormat::Gray8, Some(roi))?;
//! assert_eq!(frame.region(), roi);
//! # Ok::<(), ssl_edge::vision::FrameError>(())
//! ```

pub use ssl_edge_vision::{
    AugmentConfig, AugmentError, Blur, ChromaPlane, ClassFolder, DatasetError, DecodeError, Fit,
    Frame, FrameError, HOG_LBP_LEN, IMAGE_EXTENSIONS, IMAGENET_MEAN, IMAGENET_STD, Image,
    ImageFolder, Jitter, MAX_FILE_BYTES, MAX_PIXELS, MultiCrop, PixelFormat, Pixels, Preprocess,
    Quality, Roi, Skipped, Station, Surface, SurfaceError, TEXTURE_SIDE, UnknownFit, Yuv,
    decode_all, decode_bytes, decode_file, encode_png, hog_lbp, raw_grid, raw_pixels, texture,
    texture_grid,
};
