//! Frames around messages: COBS and CRC-32.

use super::{Message, VERSION};
use crate::error::WireError;
use crate::image::CRC;
use cobs::{DecodeResult, DecoderState, max_encoding_length, try_encode};
use heapless::Vec;

const CHECKSUM: usize = 4;

/// Longest frame that holds `content` bytes of version, message and checksum: its COBS code and two zeros.
pub const fn encoded_length(content: usize) -> usize {
    max_encoding_length(content) + 2
}

/// Writes `message` as a frame to `out`, through `scratch` (version, message and checksum, before they are coded); returns the frame.
///
/// # Errors
///
/// [`WireError::Buffer`]: `scratch` or `out` is too small.
pub fn encode<'o>(
    message: &Message,
    scratch: &mut [u8],
    out: &'o mut [u8],
) -> Result<&'o [u8], WireError> {
    let (version, rest) = scratch.split_first_mut().ok_or(WireError::Buffer)?;
    *version = VERSION;
    let written = postcard::to_slice(message, rest)
        .map_err(|_| WireError::Buffer)?
        .len();
    let end = 1 + written;
    let checksum = CRC.checksum(&scratch[..end]);
    scratch
        .get_mut(end..end + CHECKSUM)
        .ok_or(WireError::Buffer)?
        .copy_from_slice(&checksum.to_le_bytes());
    let content = &scratch[..end + CHECKSUM];
    let frame = out
        .get_mut(..encoded_length(content.len()))
        .ok_or(WireError::Buffer)?;
    frame[0] = 0;
    let coded = try_encode(content, &mut frame[1..]).map_err(|_| WireError::Buffer)?;
    frame[1 + coded] = 0;
    Ok(&out[..coded + 2])
}

/// Finds frames in a stream of bytes, one byte at a time. `N` bounds version, message and checksum of a frame.
pub struct Reader<const N: usize> {
    content: Vec<u8, N>,
    state: DecoderState,
    /// The frame at hand is lost; wait for the zero that ends it.
    skipping: bool,
    /// The content was given out; the next byte starts afresh.
    taken: bool,
}

impl<const N: usize> Reader<N> {
    /// A reader between two frames.
    pub const fn new() -> Self {
        Self {
            content: Vec::new(),
            state: DecoderState::Idle,
            skipping: false,
            taken: false,
        }
    }

    /// Takes the next byte; a message when it ends a frame that holds one.
    ///
    /// # Errors
    ///
    /// [`WireError`], once for each frame that is dropped. The reader is ready for the next frame then.
    pub fn push(&mut self, byte: u8) -> Result<Option<Message<'_>>, WireError> {
        if self.taken {
            self.taken = false;
            self.content.clear();
        }
        if self.skipping {
            self.skipping = byte != 0;
            return Ok(None);
        }
        match self.state.feed(byte) {
            Ok(DecodeResult::NoData) => Ok(None),
            Ok(DecodeResult::DataContinue(decoded)) => {
                if self.content.push(decoded).is_err() {
                    self.reset(true);
                    return Err(WireError::TooLong);
                }
                Ok(None)
            }
            Ok(DecodeResult::DataComplete) => {
                self.state = DecoderState::Idle;
                self.taken = true;
                message(&self.content).map(Some)
            }
            // The decoder gives up only at a zero, so that the next frame starts here.
            Err(_) => {
                self.reset(false);
                Err(WireError::Coding)
            }
        }
    }

    fn reset(&mut self, skipping: bool) {
        self.content.clear();
        self.state = DecoderState::Idle;
        self.skipping = skipping;
    }
}

impl<const N: usize> Default for Reader<N> {
    fn default() -> Self {
        Self::new()
    }
}

fn message(content: &[u8]) -> Result<Message<'_>, WireError> {
    let (body, checksum) = content
        .split_last_chunk::<CHECKSUM>()
        .ok_or(WireError::Coding)?;
    if CRC.checksum(body) != u32::from_le_bytes(*checksum) {
        return Err(WireError::Checksum);
    }
    let (version, body) = body.split_first().ok_or(WireError::Coding)?;
    if *version != VERSION {
        return Err(WireError::Version {
            found: *version,
            supported: VERSION,
        });
    }
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        _ => Err(WireError::Message),
    }
}
