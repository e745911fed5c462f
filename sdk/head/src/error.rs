//! What can go wrong: flat, copyable enums.

/// Why bytes are not a head image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The bytes do not start with the magic.
    #[error(
        "not a head image: the bytes do not start with SSLEHEAD; pass what `Job::device_head` made"
    )]
    NotAHead,
    /// The image is of another version of the format.
    #[error(
        "a head image of version {found} and this program reads version {supported}; export it again or update the program"
    )]
    Version {
        /// Its version.
        found: u16,
        /// The version that this program reads and writes.
        supported: u16,
    },
    /// There are fewer bytes than the image needs.
    #[error(
        "the head image needs {needed} bytes and there are {found}; it was cut: transfer it again"
    )]
    Cut {
        /// Bytes needed (at least; the header itself may be cut).
        needed: u32,
        /// Bytes there.
        found: u32,
    },
    /// The checksum does not match.
    #[error("the head image is damaged: its checksum does not match; transfer it again")]
    Checksum,
    /// The checksum matches but a number is out of its range.
    #[error(
        "the head image has a bad value in `{field}`; it was not made by this crate: export it again"
    )]
    BadField {
        /// The field.
        field: &'static str,
    },
}

/// Why there is no verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// The embedding has another length than the head.
    #[error(
        "the embedding has {found} values and the head needs {needed}; send embeddings of the encoder that the job was taught with"
    )]
    Length {
        /// Values that the head needs.
        needed: u16,
        /// Values given.
        found: usize,
    },
    /// A value of an `f32` embedding is NaN or infinite.
    #[error("value {index} of the embedding is not finite; check the frame and the encoder")]
    NotFinite {
        /// Index of the first such value.
        index: usize,
    },
}

/// Why a head cannot be written as an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// More of something than an image can have.
    #[error(
        "{what}: {found}, and a device head holds {least} to {most}; lower it, or run the job on the station"
    )]
    Size {
        /// Values of an embedding, classes or rows.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// The fewest allowed.
        least: usize,
        /// The most allowed.
        most: usize,
    },
    /// Slices that do not fit together.
    #[error("{what} has {found} entries where {needed} are needed")]
    Shape {
        /// The slice.
        what: &'static str,
        /// Entries needed.
        needed: usize,
        /// Entries found.
        found: usize,
    },
    /// A number that is not finite or out of its range.
    #[error("{what} is out of its range; fit the job again")]
    Value {
        /// The number.
        what: &'static str,
    },
    /// The buffer is too small.
    #[error("the image needs {needed} bytes and the buffer has {found}")]
    Buffer {
        /// Bytes needed.
        needed: usize,
        /// Bytes there.
        found: usize,
    },
}

/// Why a frame from the wire was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The frame is longer than the reader's buffer.
    #[error("a frame is longer than the reader's buffer")]
    TooLong,
    /// The frame's COBS coding is broken.
    #[error("a frame is cut or its coding is broken")]
    Coding,
    /// The checksum does not match.
    #[error("a frame's checksum does not match")]
    Checksum,
    /// The sender speaks another version.
    #[error(
        "a frame of protocol version {found} and this end speaks {supported}; update the older end"
    )]
    Version {
        /// The sender's version.
        found: u8,
        /// This end's version.
        supported: u8,
    },
    /// The checksum matches but the content is no message of this version.
    #[error("a frame holds no message of this version")]
    Message,
    /// The message does not fit into the buffer to send from.
    #[error("the message is longer than the buffer to send it from")]
    Buffer,
}
