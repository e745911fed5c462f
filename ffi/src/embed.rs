//! Embeddings of frames.

use crate::call::{self, ssl_edge_call_options};
use crate::encoder::ssl_edge_encoder;
use crate::frame::{self, ssl_edge_frame};
use crate::guard::guard;
use crate::pointer::{OutputBuffer, reference};
use crate::status::{Failure, ssl_edge_status};
use sdk::encoder::Limit;
use std::time::Duration;

/// Embeds a frame: the vector that jobs learn from and that similar frames share.
///
/// @param encoder    an open encoder
/// @param frame      the pixels
/// @param embedding  a buffer
/// @param capacity   values that fit into the buffer, at least what ssl_edge_encoder_dim says
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_encoder_embed(
    encoder: *const ssl_edge_encoder,
    frame: *const ssl_edge_frame,
    embedding: *mut f32,
    capacity: usize,
) -> ssl_edge_status {
    // SAFETY: by the contract of this function.
    guard(|| unsafe { embed(encoder, frame, &Limit::default(), embedding, capacity) })
}

/// As ssl_edge_encoder_embed, but can be given up.
///
/// @param encoder    an open encoder
/// @param frame      the pixels
/// @param options    filled by ssl_edge_call_options_init before
/// @param embedding  a buffer
/// @param capacity   values that fit into the buffer, at least what ssl_edge_encoder_dim says
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_encoder_embed_with_options(
    encoder: *const ssl_edge_encoder,
    frame: *const ssl_edge_frame,
    options: *const ssl_edge_call_options,
    embedding: *mut f32,
    capacity: usize,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: NULL or call options, for the time of this call.
        let limit = unsafe { call::limit(options) }?;
        // SAFETY: by the contract of this function.
        unsafe { embed(encoder, frame, &limit, embedding, capacity) }
    })
}

/// Short for ssl_edge_encoder_embed_with_options with this timeout_us and no cancel.
///
/// @param encoder     an open encoder
/// @param frame       the pixels
/// @param timeout_us  microseconds from this call on
/// @param embedding   a buffer
/// @param capacity    values that fit into the buffer, at least what ssl_edge_encoder_dim says
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_encoder_embed_within(
    encoder: *const ssl_edge_encoder,
    frame: *const ssl_edge_frame,
    timeout_us: u64,
    embedding: *mut f32,
    capacity: usize,
) -> ssl_edge_status {
    let limit = Limit::within(Duration::from_micros(timeout_us));
    // SAFETY: by the contract of this function.
    guard(|| unsafe { embed(encoder, frame, &limit, embedding, capacity) })
}

/// # Safety
/// Each pointer is NULL or what its type says, for the time of this call; `embedding` has room for `capacity` values.
unsafe fn embed(
    encoder: *const ssl_edge_encoder,
    frame: *const ssl_edge_frame,
    limit: &Limit,
    embedding: *mut f32,
    capacity: usize,
) -> Result<(), Failure> {
    // SAFETY: by the contract of this function.
    let (encoder, frame) = unsafe { (reference(encoder, "encoder")?, frame::borrow(frame)?) };
    encoder.with(|encoder| {
        // SAFETY: as above.
        let output =
            unsafe { OutputBuffer::new(embedding, capacity, encoder.feature_dim(), "embedding") }?;
        output.write(&encoder.feature(&encoder.embed_within(&frame, limit)?));
        Ok(())
    })
}
