//! Golden parts: frames beside them, position by position.

use crate::call::{self, ssl_edge_call_options};
use crate::encoder::ssl_edge_encoder;
use crate::frame::{self, ssl_edge_frame};
use crate::guard::guard;
use crate::job::heat::ssl_edge_heat_options;
use crate::pointer::{self, Output, OutputBuffer, OutputStruct, optional, read_struct, reference};
use crate::status::{Failure, ssl_edge_status};
use sdk::encoder::{Encoder, Limit};
use sdk::golden::{GoldenLearner, GoldenParts, GoldenScore, compare_golden_within};
use sdk::surface::ENCODER;
use sdk::vision::Frame;
use std::ffi::c_char;
use values::{ssl_edge_golden_info, ssl_edge_golden_options, ssl_edge_golden_verdict};

pub mod values;

/// Golden parts: what is where, and how much good parts differ. Where a job tells what no good part looks like anywhere, they tell what is not
/// where it should be. Parts must lie alike in front of the camera.
///
/// Thread safety: it never changes. All functions may be called on it from many threads at once, except ssl_edge_golden_free, which must be the
/// last. No function starts a thread of its own.
pub struct ssl_edge_golden {
    inner: GoldenParts,
}

impl ssl_edge_golden {
    fn handle(inner: GoldenParts) -> *mut Self {
        Box::into_raw(Box::new(Self { inner }))
    }

    fn compare(
        &self,
        encoder: Option<&ssl_edge_encoder>,
        frame: &Frame<'_>,
        limit: &Limit,
    ) -> Result<GoldenScore, Failure> {
        with(encoder, |encoder| {
            Ok(compare_golden_within(encoder, &self.inner, frame, limit)?)
        })
    }

    /// The encoder of a comparison, which may be left out where none is needed.
    ///
    /// # Safety
    /// As [`optional`].
    unsafe fn encoder<'a>(
        &self,
        encoder: *const ssl_edge_encoder,
    ) -> Result<Option<&'a ssl_edge_encoder>, Failure> {
        // SAFETY: the same contract.
        match unsafe { optional(encoder, "encoder") }? {
            None if self.inner.encoder.is_some() => Err(needs_encoder()),
            given => Ok(given),
        }
    }
}

fn with<T>(
    encoder: Option<&ssl_edge_encoder>,
    body: impl FnOnce(Option<&Encoder>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    match encoder {
        Some(encoder) => encoder.with(|encoder| body(Some(encoder))),
        None => body(None),
    }
}

fn needs_encoder() -> Failure {
    let text = "encoder is NULL, and the golden parts are an encoder's patches; pass that encoder";
    Failure::new(ssl_edge_status::NullPointer, text)
}

/// Learns golden parts from frames of one shape, one frame of each part. From two parts on they say how much good parts differ, and from three on
/// what varies among them counts less.
///
/// @param frames   pointers to the frames
/// @param count    their number, at least 1
/// @param encoder  the encoder whose patches are compared; may be NULL for SSL_EDGE_SURFACE_PIXELS
/// @param options  filled by ssl_edge_golden_options_init before
/// @param golden   the golden parts; free them with ssl_edge_golden_free
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_golden_learn(
    frames: *const *const ssl_edge_frame,
    count: usize,
    encoder: *const ssl_edge_encoder,
    options: *const ssl_edge_golden_options,
    golden: *mut *mut ssl_edge_golden,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call; `frames` holds `count` such pointers.
        let (frames, options) =
            unsafe { (frame::borrow_all(frames, count)?, read_struct(options)?) };
        // SAFETY: as above.
        let (encoder, output) = unsafe {
            (
                optional(encoder, "encoder")?,
                Output::new(golden, "golden")?,
            )
        };
        // SAFETY: as above.
        let limit = unsafe { call::optional_limit(options.call) }?;
        let options = options.resolve()?;
        if options.tokens == ENCODER && encoder.is_none() {
            return Err(needs_encoder());
        }
        let learned = with(encoder, |encoder| {
            let mut learner = GoldenLearner::new(&options);
            for (index, frame) in frames.iter().enumerate() {
                learner.add_within(encoder, frame, &format!("frame {index}"), &limit)?;
            }
            Ok(learner.learn()?)
        })?;
        output.write(ssl_edge_golden::handle(learned));
        Ok(())
    })
}

/// Frees golden parts without saving them. NULL does nothing.
///
/// @param golden  not used by any thread, now or later
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_golden_free(golden: *mut ssl_edge_golden) {
    if golden.is_null() {
        return;
    }
    guard(|| {
        // SAFETY: it came from ssl_edge_golden_learn or ssl_edge_golden_load, and the caller frees it once.
        drop(unsafe { Box::from_raw(golden) });
        Ok(())
    });
}

/// What golden parts are, and what their threshold promises.
///
/// @param golden  golden parts
/// @param info    filled by ssl_edge_golden_info_init before
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_golden_get_info(
    golden: *const ssl_edge_golden,
    info: *mut ssl_edge_golden_info,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (golden, output) = unsafe { (reference(golden, "golden")?, OutputStruct::new(info)?) };
        output.write(&ssl_edge_golden_info::of(&golden.inner));
        Ok(())
    })
}

/// Compares a frame with golden parts.
///
/// @param golden   golden parts
/// @param encoder  the encoder that they were learned with; may be NULL for SSL_EDGE_SURFACE_PIXELS
/// @param frame    the pixels, of the golden parts' shape
/// @param verdict  filled by ssl_edge_golden_verdict_init before
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_golden_compare(
    golden: *const ssl_edge_golden,
    encoder: *const ssl_edge_encoder,
    frame: *const ssl_edge_frame,
    verdict: *mut ssl_edge_golden_verdict,
) -> ssl_edge_status {
    // SAFETY: by the contract of this function.
    guard(|| unsafe { compare(golden, encoder, frame, &Limit::default(), verdict) })
}

/// As ssl_edge_golden_compare, but can be given up.
///
/// @param golden   golden parts
/// @param encoder  the encoder that they were learned with; may be NULL for SSL_EDGE_SURFACE_PIXELS
/// @param frame    the pixels, of the golden parts' shape
/// @param options  filled by ssl_edge_call_options_init before
/// @param verdict  filled by ssl_edge_golden_verdict_init before
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_golden_compare_with_options(
    golden: *const ssl_edge_golden,
    encoder: *const ssl_edge_encoder,
    frame: *const ssl_edge_frame,
    options: *const ssl_edge_call_options,
    verdict: *mut ssl_edge_golden_verdict,
) -> ssl_edge_status {
    // SAFETY: by the contract of this function.
    guard(|| unsafe {
        let limit = call::limit(options)?;
        compare(golden, encoder, frame, &limit, verdict)
    })
}

/// # Safety
/// Each pointer is NULL or what its type says, for the time of this call.
unsafe fn compare(
    golden: *const ssl_edge_golden,
    encoder: *const ssl_edge_encoder,
    frame: *const ssl_edge_frame,
    limit: &Limit,
    verdict: *mut ssl_edge_golden_verdict,
) -> Result<(), Failure> {
    // SAFETY: by the contract of this function.
    let golden = unsafe { reference(golden, "golden") }?;
    // SAFETY: as above.
    let encoder = unsafe { golden.encoder(encoder) }?;
    // SAFETY: as above.
    let (frame, output) = unsafe { (frame::borrow(frame)?, OutputStruct::new(verdict)?) };
    let found = golden.compare(encoder, &frame, limit)?;
    output.write(&ssl_edge_golden_verdict::from(&found));
    Ok(())
}

/// The size of the heat map of a comparison.
///
/// @param golden   golden parts
/// @param frame    the pixels, of the golden parts' shape
/// @param options  filled by ssl_edge_heat_options_init before
/// @param rows     rows of the map
/// @param columns  columns of the map
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_golden_heat_size(
    golden: *const ssl_edge_golden,
    frame: *const ssl_edge_frame,
    options: *const ssl_edge_heat_options,
    rows: *mut usize,
    columns: *mut usize,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (golden, frame) = unsafe { (reference(golden, "golden")?, frame::borrow(frame)?) };
        // SAFETY: as above.
        let (options, rows) = unsafe { (read_struct(options)?, Output::new(rows, "rows")?) };
        // SAFETY: as above.
        let columns = unsafe { Output::new(columns, "columns") }?;
        let size = options.size(&frame, || Ok(golden.inner.model.report().size))?;
        rows.write(size[0]);
        columns.write(size[1]);
        Ok(())
    })
}

/// Compares a frame with golden parts, and shows where it differs: SSL_EDGE_HEAT_THRESHOLD is the heat from which at most one in a thousand patches
/// of golden parts differs from the others. Of a single golden part, it is the difference that its sharpest edges make between neighbouring patches.
///
/// @param golden    golden parts
/// @param encoder   the encoder that they were learned with; may be NULL for SSL_EDGE_SURFACE_PIXELS
/// @param frame     the pixels, of the golden parts' shape
/// @param options   filled by ssl_edge_heat_options_init before
/// @param verdict   filled by ssl_edge_golden_verdict_init before
/// @param heat      a buffer for the map, row by row; 0 also where a shift leaves nothing to compare with
/// @param capacity  floats of the buffer, at least the rows times the columns that ssl_edge_golden_heat_size says
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_golden_compare_heat(
    golden: *const ssl_edge_golden,
    encoder: *const ssl_edge_encoder,
    frame: *const ssl_edge_frame,
    options: *const ssl_edge_heat_options,
    verdict: *mut ssl_edge_golden_verdict,
    heat: *mut f32,
    capacity: usize,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let golden = unsafe { reference(golden, "golden") }?;
        // SAFETY: as above.
        let encoder = unsafe { golden.encoder(encoder) }?;
        // SAFETY: as above.
        let (frame, options) = unsafe { (frame::borrow(frame)?, read_struct(options)?) };
        // SAFETY: as above.
        let limit = unsafe { call::optional_limit(options.call) }?;
        let [rows, columns] = options.size(&frame, || Ok(golden.inner.model.report().size))?;
        // SAFETY: as above; `heat` is NULL or a buffer of `capacity` floats.
        let (output, buffer) = unsafe {
            (
                OutputStruct::new(verdict)?,
                OutputBuffer::new(heat, capacity, rows * columns, "heat")?,
            )
        };
        let found = golden.compare(encoder, &frame, &limit)?;
        let values = options.draw(&frame, found.heat.clone())?;
        buffer.write(&values);
        output.write(&ssl_edge_golden_verdict::from(&found));
        Ok(())
    })
}

/// Saves golden parts. Power may fail at any time: the file is the old one or the new one.
///
/// @param golden  golden parts
/// @param path    the .sslg file
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_golden_save(
    golden: *const ssl_edge_golden,
    path: *const c_char,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (golden, path) =
            unsafe { (reference(golden, "golden")?, pointer::path(path, "path")?) };
        Ok(golden.inner.save(&path)?)
    })
}

/// Loads golden parts. They compare as they did when they were saved; whether they belong to an encoder is checked when they are used with one.
///
/// @param path    the .sslg file
/// @param golden  the golden parts; free them with ssl_edge_golden_free
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_golden_load(
    path: *const c_char,
    golden: *mut *mut ssl_edge_golden,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (path, output) =
            unsafe { (pointer::path(path, "path")?, Output::new(golden, "golden")?) };
        let loaded = GoldenParts::load(&path).map_err(|error| match Failure::from(error) {
            // What job files and golden files have in common is reported alike by the façade.
            Failure {
                status: ssl_edge_status::InvalidJob,
                text,
            } => Failure::new(ssl_edge_status::InvalidGolden, text),
            other => other,
        })?;
        output.write(ssl_edge_golden::handle(loaded));
        Ok(())
    })
}
