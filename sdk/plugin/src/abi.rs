//! What crosses between the two sides. All of it is plain C; every struct begins with its size, so that a side knows what the other one filled in.

use std::ffi::c_void;

/// The version of the table that this crate speaks. It changes only when something in it changes its meaning; what is added at the end does not.
pub const VERSION: u32 = 1;

/// Name of the exported [`Versions`].
pub const VERSIONS_SYMBOL: &str = "ssl_edge_engine_versions";
/// Name of the exported [`GetApi`].
pub const GET_API_SYMBOL: &str = "ssl_edge_engine_get_api";

/// Writes the oldest and the newest version of the table that the plug-in speaks. This function's type never changes.
pub type Versions = unsafe extern "C" fn(oldest: *mut u32, newest: *mut u32);
/// The table in a version, alive as long as the process; NULL in a version that the plug-in does not speak. This function's type never changes.
pub type GetApi = unsafe extern "C" fn(version: u32) -> *const Api;

/// All is well.
pub const OK: u32 = 0;
/// An argument that makes no sense.
pub const INVALID: u32 = 1;
/// There is no driver.
pub const NO_DRIVER: u32 = 2;
/// The driver is older than what the plug-in needs.
pub const OLD_DRIVER: u32 = 3;
/// The driver sees no such device.
pub const NO_DEVICE: u32 = 4;
/// The device is older than what the plug-in has code for.
pub const OLD_DEVICE: u32 = 5;
/// A library that the plug-in needs is missing.
pub const NO_LIBRARY: u32 = 6;
/// The device's memory does not suffice.
pub const OUT_OF_MEMORY: u32 = 7;
/// The plug-in cannot run such an encoder.
pub const UNSUPPORTED: u32 = 8;
/// The device or its driver failed.
pub const FAILED: u32 = 9;
/// The plug-in panicked.
pub const PANICKED: u32 = 10;

/// [`Model::gelu`]: the tanh form.
pub const GELU_TANH: u32 = 1;
/// [`Model::gelu`]: the erf form.
pub const GELU_ERF: u32 = 2;

/// [`OpenOptions::precision`]: f32 weights and products.
pub const PRECISION_F32: u32 = 1;
/// [`OpenOptions::precision`]: f16 weights and products, sums in f32.
pub const PRECISION_F16: u32 = 2;

/// Room for a text in UTF-8 without an ending zero; what does not fit is cut.
#[repr(C)]
#[derive(Debug)]
pub struct Text {
    /// Where it goes.
    pub data: *mut u8,
    /// Bytes of room.
    pub capacity: usize,
    /// Bytes that were written.
    pub len: usize,
}

/// A tensor of an encoder, row-major.
#[repr(C)]
#[derive(Debug)]
pub struct Tensor {
    /// Name in UTF-8, as in DINO's and timm's checkpoints.
    pub name: *const u8,
    /// Bytes of the name.
    pub name_len: usize,
    /// Values.
    pub values: *const f32,
    /// Their number.
    pub len: usize,
}

/// An encoder. Whoever opens it copies what it keeps.
#[repr(C)]
#[derive(Debug)]
pub struct Model {
    /// Bytes of this struct.
    pub struct_size: usize,
    /// All tensors.
    pub tensors: *const Tensor,
    /// Their number.
    pub n_tensors: usize,
    /// Token width.
    pub dim: u32,
    /// Blocks.
    pub depth: u32,
    /// Attention heads.
    pub heads: u32,
    /// Patch side in pixels.
    pub patch: u32,
    /// Register tokens.
    pub registers: u32,
    /// Hidden width of the MLP.
    pub hidden: u32,
    /// Image height in pixels.
    pub height: u32,
    /// Image width in pixels.
    pub width: u32,
    /// [`GELU_TANH`] or [`GELU_ERF`].
    pub gelu: u32,
    /// Added to the variance by every norm.
    pub eps: f32,
}

/// How to open an encoder.
#[repr(C)]
#[derive(Debug)]
pub struct OpenOptions {
    /// Bytes of this struct.
    pub struct_size: usize,
    /// Number of the device.
    pub device: u32,
    /// [`PRECISION_F32`] or [`PRECISION_F16`].
    pub precision: u32,
    /// Images that go through together; memory is reserved for so many, larger batches take several passes.
    pub images: u32,
    /// Zero.
    pub reserved: u32,
}

/// A device.
#[repr(C)]
#[derive(Debug)]
pub struct DeviceInfo {
    /// Bytes of this struct, set by the caller.
    pub struct_size: usize,
    /// Bytes of its memory.
    pub memory: u64,
    /// Version of its instruction set, for NVIDIA's the compute capability.
    pub major: u32,
    /// The second part of it.
    pub minor: u32,
}

/// The functions of version 1. `error` may be NULL everywhere. Functions may be called from any thread; those of one encoder not at the same time.
#[repr(C)]
#[derive(Debug)]
pub struct Api {
    /// Bytes of this struct.
    pub struct_size: usize,
    /// The version that it is of.
    pub version: u32,
    /// Zero.
    pub reserved: u32,
    /// What the plug-in is, in words.
    pub about: unsafe extern "C" fn(about: *mut Text) -> u32,
    /// Number of devices; what keeps any from being used is the error.
    pub device_count: unsafe extern "C" fn(count: *mut u32, error: *mut Text) -> u32,
    /// A device and its name.
    pub device: unsafe extern "C" fn(
        device: u32,
        info: *mut DeviceInfo,
        name: *mut Text,
        error: *mut Text,
    ) -> u32,
    /// Makes an encoder ready on a device. `encoder` is written on success only.
    pub open: unsafe extern "C" fn(
        model: *const Model,
        options: *const OpenOptions,
        encoder: *mut *mut c_void,
        error: *mut Text,
    ) -> u32,
    /// `images [B, 3, H, W]` to `cls [B, D]` and `patches [B, N, D]`, after the final norm.
    pub run: unsafe extern "C" fn(
        encoder: *mut c_void,
        images: *const f32,
        batch: usize,
        cls: *mut f32,
        patches: *mut f32,
        error: *mut Text,
    ) -> u32,
    /// Bytes of the device's memory that the encoder holds.
    pub memory: unsafe extern "C" fn(encoder: *const c_void, bytes: *mut u64) -> u32,
    /// Frees an encoder; NULL is taken.
    pub close: unsafe extern "C" fn(encoder: *mut c_void),
}
