//! The one resampler: antialiased Catmull-Rom (bicubic, a = -0.5, the BICUBIC of Pillow) at the depth of the source.

use std::cell::RefCell;

use fast_image_resize::images::{CroppedImage, Image as Target, ImageRef};
use fast_image_resize::{FilterType, IntoImageView, PixelType, ResizeAlg, ResizeOptions, Resizer};

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
        let mut target = Target::from_slice_u8(width, height, out, pixel_type(frame.format()))
            .expect("the output buffer has the size and alignment of its pixels");
        if let Some(view) = in_place(frame, roi) {
            let view = CroppedImage::new(&view, roi.x, 0, roi.width, roi.height)
                .expect("the window lies inside the frame");
            resize(&mut self.resizer, &view, &mut target, &options);
        } else {
            let view = pack(frame, roi, &mut self.packed);
            resize(&mut self.resizer, &view, &mut target, &options);
        }
        if frame.format().is_16_bit() {
            Resized::U16(&self.resized[..samples])
        } else {
            Resized::U8(&bytemuck::cast_slice(&self.resized)[..samples])
        }
    }
}

fn resize(
    resizer: &mut Resizer,
    view: &impl IntoImageView,
    target: &mut Target,
    options: &ResizeOptions,
) {
    resizer
        .resize(view, target, options)
        .expect("source and target have one pixel type and a window inside the source");
}

fn pixel_type(format: PixelFormat) -> PixelType {
    match format {
        PixelFormat::Gray8 => PixelType::U8,
        PixelFormat::Gray16 => PixelType::U16,
        PixelFormat::Rgb8 | PixelFormat::Bgr8 => PixelType::U8x3,
        PixelFormat::Rgba8 => PixelType::U8x4,
        PixelFormat::Rgb16 => PixelType::U16x3,
    }
}

/// The rows of `roi` at full stride without a copy, if the stride is whole pixels, aligned, and the last row is padded.
fn in_place<'a>(frame: &Frame<'a>, roi: Roi) -> Option<ImageRef<'a>> {
    let (stride, bytes) = (frame.stride(), frame.format().bytes());
    if stride % bytes != 0 {
        return None;
    }
    let start = roi.y as usize * stride;
    let len = (roi.height as usize).checked_mul(stride)?;
    let rows = frame.data().get(start..start.checked_add(len)?)?;
    let columns = u32::try_from(stride / bytes).ok()?;
    ImageRef::new(columns, roi.height, rows, pixel_type(frame.format())).ok()
}

fn pack<'a>(frame: &Frame, roi: Roi, packed: &'a mut Vec<u16>) -> ImageRef<'a> {
    let row_bytes = roi.width as usize * frame.format().bytes();
    let len = row_bytes * roi.height as usize;
    packed.resize(len.div_ceil(2), 0);
    let bytes = &mut bytemuck::cast_slice_mut::<u16, u8>(packed)[..len];
    let left = roi.x as usize * frame.format().bytes();
    for (y, row) in bytes.chunks_exact_mut(row_bytes).enumerate() {
        let start = (roi.y as usize + y) * frame.stride() + left;
        row.copy_from_slice(&frame.data()[start..start + row_bytes]);
    }
    ImageRef::new(roi.width, roi.height, bytes, pixel_type(frame.format()))
        .expect("the packed buffer has the size and alignment of its pixels")
}
