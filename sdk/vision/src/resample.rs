//! The one resampler: antialiased Catmull-Rom (bicubic, a = -0.5, the BICUBIC of Pillow) at the depth of the source.

use std::cell::RefCell;

use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8, U8x3, U8x4, U16, U16x3};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};

use crate::frame::{Frame, PixelFormat, Roi};

/// Interleaved samples of a resized window, with the channels and depth of its source.
pub(crate) enum Resized<'a> {
    U8(&'a [u8]),
    U16(&'a [u16]),
}

/// Buffers that one thread uses again for every image.
#[derive(Default)]
pub(crate) struct Scratch {
    resizer: Resizer,
    // u16 keeps both buffers aligned for either depth
    packed: Vec<u16>,
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

    /// Resizes `roi`, which must lie inside `frame`, to `width` x `height`, as if cut out first: no pixel outside it counts.
    ///
    /// Only whole-pixel windows: with a fractional crop box fast_image_resize 6.1 trims its outermost kernels and reads out
    /// of bounds (4x1 to 3x2, say).
    pub(crate) fn resize(
        &mut self,
        frame: &Frame,
        roi: Roi,
        width: u32,
        height: u32,
    ) -> Resized<'_> {
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom))
            .use_alpha(false);
        let samples = width as usize * height as usize * frame.format().samples();
        let bytes = width as usize * height as usize * frame.format().bytes();
        if self.resized.len() < bytes.div_ceil(2) {
            self.resized.resize(bytes.div_ceil(2), 0);
        }
        let out = &mut bytemuck::cast_slice_mut(&mut self.resized)[..bytes];
        let source = match in_place(frame, roi) {
            Some(source) => source,
            None => pack(frame, roi, &mut self.packed),
        };
        let resize = match frame.format() {
            PixelFormat::Gray8 => resize::<U8>,
            PixelFormat::Gray16 => resize::<U16>,
            PixelFormat::Rgb8 | PixelFormat::Bgr8 => resize::<U8x3>,
            PixelFormat::Rgba8 => resize::<U8x4>,
            PixelFormat::Rgb16 => resize::<U16x3>,
        };
        resize(&mut self.resizer, &source, out, (width, height), &options);
        if frame.format().is_16_bit() {
            Resized::U16(&self.resized[..samples])
        } else {
            Resized::U8(&bytemuck::cast_slice(&self.resized)[..samples])
        }
    }
}

/// Pixels to resize: `width` columns from `left` on of rows of `columns` pixels.
struct Source<'a> {
    bytes: &'a [u8],
    columns: u32,
    left: u32,
    width: u32,
    height: u32,
}

// One pixel type a call: the untyped interface would compile every pixel type that the library has.
fn resize<P: PixelTrait>(
    resizer: &mut Resizer,
    source: &Source,
    out: &mut [u8],
    (width, height): (u32, u32),
    options: &ResizeOptions,
) {
    let view = TypedImageRef::<P>::from_buffer(source.columns, source.height, source.bytes)
        .expect("the source has the size and alignment of its pixels");
    let view = TypedCroppedImage::from_ref(&view, source.left, 0, source.width, source.height)
        .expect("the window lies inside the source");
    let mut target = TypedImage::<P>::from_buffer(width, height, out)
        .expect("the output buffer has the size and alignment of its pixels");
    resizer
        .resize_typed(&view, &mut target, options)
        .expect("neither side is empty");
}

/// The rows of `roi` at full stride without a copy, if the stride is whole pixels, aligned, and the last row is padded.
fn in_place<'a>(frame: &Frame<'a>, roi: Roi) -> Option<Source<'a>> {
    let (stride, bytes) = (frame.stride(), frame.format().bytes());
    if stride % bytes != 0 {
        return None;
    }
    let start = roi.y as usize * stride;
    let len = (roi.height as usize).checked_mul(stride)?;
    let rows = frame.data().get(start..start.checked_add(len)?)?;
    let aligned = !frame.format().is_16_bit() || rows.as_ptr().cast::<u16>().is_aligned();
    aligned.then_some(Source {
        bytes: rows,
        columns: u32::try_from(stride / bytes).ok()?,
        left: roi.x,
        width: roi.width,
        height: roi.height,
    })
}

fn pack<'a>(frame: &Frame, roi: Roi, packed: &'a mut Vec<u16>) -> Source<'a> {
    let row_bytes = roi.width as usize * frame.format().bytes();
    let len = row_bytes * roi.height as usize;
    packed.resize(len.div_ceil(2), 0);
    let bytes = &mut bytemuck::cast_slice_mut::<u16, u8>(packed)[..len];
    let left = roi.x as usize * frame.format().bytes();
    for (y, row) in bytes.chunks_exact_mut(row_bytes).enumerate() {
        let start = (roi.y as usize + y) * frame.stride() + left;
        row.copy_from_slice(&frame.data()[start..start + row_bytes]);
    }
    Source {
        bytes,
        columns: roi.width,
        left: 0,
        width: roi.width,
        height: roi.height,
    }
}
