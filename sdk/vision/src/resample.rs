//! Resampling of images to images: antialiased Catmull-Rom (bicubic, a = -0.5, the BICUBIC of Pillow) at the depth of the source.

use std::cell::RefCell;

use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8, U8x3, U16, U16x3};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};

use crate::frame::Roi;
use crate::picture::{Image, Pixels};

/// Interleaved samples of a resized window, with the channels and depth of its source.
pub(crate) enum Resized<'a> {
    U8(&'a [u8]),
    U16(&'a [u16]),
}

/// Resizes a window of an image of one pixel type into bytes of a width and a height.
type Resize = fn(&mut Resizer, &Image, Roi, &mut [u8], (u32, u32));

/// Buffers that one thread uses again for every image.
#[derive(Default)]
pub(crate) struct Scratch {
    resizer: Resizer,
    // u16 keeps the buffer aligned for either depth
    resized: Vec<u16>,
    /// Free for one caller at a time.
    pub(crate) floats: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Scratch {
    /// Runs `f` with the buffers of this thread; `f` must not call `with` again.
    pub(crate) fn with<T>(f: impl FnOnce(&mut Scratch) -> T) -> T {
        SCRATCH.with(|scratch| f(&mut scratch.borrow_mut()))
    }

    /// Resizes `roi`, which must lie inside `image`, to `width` x `height`, as if cut out first: no pixel outside it counts.
    ///
    /// Only whole-pixel windows: with a fractional crop box fast_image_resize 6.1 trims its outermost kernels and reads out
    /// of bounds (4x1 to 3x2, say).
    pub(crate) fn resize(
        &mut self,
        image: &Image,
        roi: Roi,
        width: u32,
        height: u32,
    ) -> Resized<'_> {
        let samples = width as usize * height as usize * image.channels();
        let format = image.pixels().format();
        let bytes = format.row_bytes(width) * height as usize;
        if self.resized.len() < bytes.div_ceil(2) {
            self.resized.resize(bytes.div_ceil(2), 0);
        }
        let out = &mut bytemuck::cast_slice_mut(&mut self.resized)[..bytes];
        let (resize, wide): (Resize, bool) = match image.pixels() {
            Pixels::Gray8(_) => (resize::<U8>, false),
            Pixels::Rgb8(_) => (resize::<U8x3>, false),
            Pixels::Gray16(_) => (resize::<U16>, true),
            Pixels::Rgb16(_) => (resize::<U16x3>, true),
        };
        resize(&mut self.resizer, image, roi, out, (width, height));
        if wide {
            Resized::U16(&self.resized[..samples])
        } else {
            Resized::U8(&bytemuck::cast_slice(&self.resized)[..samples])
        }
    }
}

// One pixel type a call: the untyped interface would compile every pixel type that the library has.
fn resize<P: PixelTrait>(
    resizer: &mut Resizer,
    image: &Image,
    roi: Roi,
    out: &mut [u8],
    (width, height): (u32, u32),
) {
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom))
        .use_alpha(false);
    let bytes = image.pixels().bytes();
    let view = TypedImageRef::<P>::from_buffer(image.width(), image.height(), bytes)
        .expect("the source has the size and alignment of its pixels");
    let view = TypedCroppedImage::from_ref(&view, roi.x, roi.y, roi.width, roi.height)
        .expect("the window lies inside the source");
    let mut target = TypedImage::<P>::from_buffer(width, height, out)
        .expect("the output buffer has the size and alignment of its pixels");
    resizer
        .resize_typed(&view, &mut target, &options)
        .expect("neither side is empty");
}
