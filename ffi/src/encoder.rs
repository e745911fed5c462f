//! Encoders: a bundle opened for embedding frames.

use crate::guard::guard;
use crate::pointer::{self, Output, OutputStruct, Sized32, init_struct, read_struct, reference};
use crate::status::{Failure, ssl_edge_status};
use sdk::encoder::{Bundle, Encoder, EngineKind, Options, Precision, PublicKey, RuntimeError};
use std::ffi::c_char;
use std::mem::offset_of;
use std::sync::atomic::{AtomicBool, Ordering};

/// What computes the embeddings; the value of ssl_edge_encoder_options.engine.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ssl_edge_engine {
    /// ssl-edge's own kernels.
    Native = 1,
    /// The bundle's ONNX graph, run by tract.
    Onnx = 2,
    /// An NVIDIA GPU through the plug-in libssl_edge_cuda, in f16: searched in the folders of the environment variable SSL_EDGE_PLUGIN_PATH, beside this
    /// library, and beside the program.
    Cuda = 3,
}

/// What an encoder computes with; the value of ssl_edge_encoder_options.precision. Embeddings of different precisions are not mixed: each has a
/// hash of its own, and a job taught in one is refused in the other.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ssl_edge_precision {
    /// 32-bit floating point, in every bundle.
    F32 = 1,
    /// 8-bit integers, in bundles made with `ssl-edge export --quantize int8`; native engine only.
    Int8 = 2,
    /// Weights in GGML's 8-bit blocks, in bundles made with `ssl-edge export --quantize q8_0`: a small file, computed in f32; native engine only.
    Q8_0 = 3,
    /// The same with the MLP's weights in 4-bit blocks, in bundles made with `ssl-edge export --quantize q4_0`; native engine only.
    Q4_0 = 4,
}

/// How to open an encoder.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ssl_edge_encoder_options {
    /// Size of this struct in bytes; set by ssl_edge_encoder_options_init.
    pub struct_size: u32,
    /// A value of ssl_edge_engine; after init SSL_EDGE_ENGINE_NATIVE. An engine that is not there is an error, nothing else is taken.
    pub engine: u32,
    /// Threads that the encoder may start, 1 to 1024; after init 1.
    pub threads: u32,
    /// Zero.
    pub reserved: u32,
    /// A PEM file with a public key that must have signed the bundle; NULL, as after init, opens bundles that nobody signed too.
    pub signed_by: *const c_char,
    /// A value of ssl_edge_precision; after init SSL_EDGE_PRECISION_F32. A precision that the bundle does not hold is an error, no other is taken.
    pub precision: u32,
    /// Zero.
    pub reserved_end: u32,
}

const MAX_THREADS: u32 = 1024;

// SAFETY: repr(C), struct_size first, four u32, a raw pointer and two u32 without padding on 32 and 64 bit.
unsafe impl Sized32 for ssl_edge_encoder_options {
    const NAME: &'static str = "ssl_edge_encoder_options";
    const FIRST_SIZE: usize = offset_of!(ssl_edge_encoder_options, reserved) + size_of::<u32>();

    fn defaults() -> Self {
        Self {
            struct_size: size_of::<Self>() as u32,
            engine: ssl_edge_engine::Native as u32,
            threads: 1,
            reserved: 0,
            signed_by: std::ptr::null(),
            precision: ssl_edge_precision::F32 as u32,
            reserved_end: 0,
        }
    }
}

/// What an encoder is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ssl_edge_encoder_info {
    /// Size of this struct in bytes; set by ssl_edge_encoder_info_init.
    pub struct_size: u32,
    /// Values of an embedding.
    pub dim: u32,
    /// Columns of the encoder's input in pixels; frames of any size are resampled to it.
    pub input_width: u32,
    /// Rows of the encoder's input in pixels.
    pub input_height: u32,
    /// SHA-256 over weights, shape, preprocessing and pooling. Jobs hold it, so that they are used with their encoder only.
    pub hash: [u8; 32],
    /// Name of the architecture, such as "vit_s16", ended by NUL, cut if it is longer.
    pub arch: [c_char; 64],
    /// The engine that runs, a value of ssl_edge_engine.
    pub engine: u32,
    /// What it computes with, a value of ssl_edge_precision.
    pub precision: u32,
    /// Bytes of weights and work memory that the engine holds; 0 if it does not know.
    pub memory_bytes: u64,
    /// How far the engine was from the bundle's golden vectors when it was opened: the largest difference in an embedding of norm 1.
    pub self_test_difference: f32,
    /// The largest such difference that is accepted.
    pub self_test_tolerance: f32,
}

// SAFETY: repr(C), struct_size first, four u32 and 96 bytes, then two u32, a u64 at offset 120 and two f32: no padding on 32 and 64 bit.
unsafe impl Sized32 for ssl_edge_encoder_info {
    const NAME: &'static str = "ssl_edge_encoder_info";
    const FIRST_SIZE: usize = offset_of!(ssl_edge_encoder_info, arch) + 64;

    fn defaults() -> Self {
        let size = size_of::<Self>() as u32;
        Self {
            struct_size: size,
            dim: 0,
            input_width: 0,
            input_height: 0,
            hash: [0; 32],
            arch: [0; 64],
            engine: 0,
            precision: 0,
            memory_bytes: 0,
            self_test_difference: 0.0,
            self_test_tolerance: 0.0,
        }
    }
}

/// An opened bundle, ready to embed frames.
///
/// Thread safety: all functions may be called on one encoder from many threads at once, except ssl_edge_encoder_free, which must
/// be the last. Each thread gets the bits that it would get alone; all share the threads that the encoder may start.
pub struct ssl_edge_encoder {
    inner: Encoder,
    panicked: AtomicBool,
}

impl ssl_edge_encoder {
    /// Runs `body` on the encoder; if it panics, the encoder is refused from then on.
    pub(crate) fn with<T>(
        &self,
        body: impl FnOnce(&Encoder) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        if self.panicked.load(Ordering::Acquire) {
            let text = "the encoder panicked in an earlier call; free it and open the bundle again";
            return Err(Failure::new(ssl_edge_status::Panicked, text));
        }
        let mark = MarkOnPanic(&self.panicked);
        let outcome = body(&self.inner);
        std::mem::forget(mark);
        outcome
    }
}

/// Set while a panic unwinds through it; forgotten otherwise.
struct MarkOnPanic<'a>(&'a AtomicBool);

impl Drop for MarkOnPanic<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn sdk_options(options: &ssl_edge_encoder_options) -> Result<Options, Failure> {
    let engine = match options.engine {
        engine if engine == ssl_edge_engine::Native as u32 => EngineKind::Native,
        engine if engine == ssl_edge_engine::Onnx as u32 => EngineKind::Onnx,
        engine if engine == ssl_edge_engine::Cuda as u32 => EngineKind::Cuda,
        engine => {
            let text = format!("options.engine is {engine}; set it to a value of ssl_edge_engine");
            return Err(Failure::new(ssl_edge_status::InvalidArgument, text));
        }
    };
    if !(1..=MAX_THREADS).contains(&options.threads) {
        let text = format!(
            "options.threads is {}; set it to 1 to {MAX_THREADS}",
            options.threads
        );
        return Err(Failure::new(ssl_edge_status::InvalidArgument, text));
    }
    let precision = match options.precision {
        precision if precision == ssl_edge_precision::F32 as u32 => Precision::F32,
        precision if precision == ssl_edge_precision::Int8 as u32 => Precision::Int8,
        precision if precision == ssl_edge_precision::Q8_0 as u32 => Precision::Q8_0,
        precision if precision == ssl_edge_precision::Q4_0 as u32 => Precision::Q4_0,
        precision => {
            let text = format!(
                "options.precision is {precision}; set it to a value of ssl_edge_precision"
            );
            return Err(Failure::new(ssl_edge_status::InvalidArgument, text));
        }
    };
    for (name, value) in [
        ("reserved", options.reserved),
        ("reserved_end", options.reserved_end),
    ] {
        if value != 0 {
            let text = format!(
                "options.{name} is not 0; fill the options with ssl_edge_encoder_options_init"
            );
            return Err(Failure::new(ssl_edge_status::InvalidStruct, text));
        }
    }
    Ok(Options {
        engine,
        threads: options.threads as usize,
        precision,
        ..Options::default()
    })
}

/// Fills options with defaults: the native engine in f32, one thread.
///
/// @param options      the struct to fill
/// @param struct_size  sizeof(ssl_edge_encoder_options)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_encoder_options_init(
    options: *mut ssl_edge_encoder_options,
    struct_size: usize,
) -> ssl_edge_status {
    // SAFETY: the caller passes NULL or a struct of `struct_size` bytes.
    guard(|| unsafe { init_struct(options, struct_size) })
}

/// Fills an encoder info with zeros and its size.
///
/// @param info         the struct to fill
/// @param struct_size  sizeof(ssl_edge_encoder_info)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_encoder_info_init(
    info: *mut ssl_edge_encoder_info,
    struct_size: usize,
) -> ssl_edge_status {
    // SAFETY: the caller passes NULL or a struct of `struct_size` bytes.
    guard(|| unsafe { init_struct(info, struct_size) })
}

/// Opens a bundle, checks every byte of it, and runs its golden vectors through the engine.
///
/// @param path     the .sslb file
/// @param options  how to run it
/// @param encoder  the new encoder; free it with ssl_edge_encoder_free
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_encoder_open(
    path: *const c_char,
    options: *const ssl_edge_encoder_options,
    encoder: *mut *mut ssl_edge_encoder,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (path, options, output) = unsafe {
            (
                pointer::path(path, "path")?,
                read_struct(options)?,
                Output::new(encoder, "encoder")?,
            )
        };
        let sdk_options = sdk_options(&options)?;
        let bundle = if options.signed_by.is_null() {
            Bundle::open(&path)
        } else {
            // SAFETY: a text that lives as long as the options, by the contract of this function.
            let key = unsafe { pointer::path(options.signed_by, "options.signed_by") }?;
            PublicKey::read(&key).and_then(|key| Bundle::open_signed(&path, &key))
        };
        let bundle = bundle.map_err(RuntimeError::from)?;
        let inner = Encoder::from_bundle(&bundle, &sdk_options)?;
        output.write(Box::into_raw(Box::new(ssl_edge_encoder {
            inner,
            panicked: AtomicBool::new(false),
        })));
        Ok(())
    })
}

/// Frees an encoder. NULL does nothing. Jobs that were taught with it stay valid.
///
/// @param encoder  not used by any thread, now or later
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_encoder_free(encoder: *mut ssl_edge_encoder) {
    if encoder.is_null() {
        return;
    }
    guard(|| {
        // SAFETY: it came from ssl_edge_encoder_open, and the caller frees it once.
        drop(unsafe { Box::from_raw(encoder) });
        Ok(())
    });
}

/// The number of values of an embedding.
///
/// @param encoder  an open encoder
/// @param dim      the number
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_encoder_dim(
    encoder: *const ssl_edge_encoder,
    dim: *mut usize,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (encoder, output) =
            unsafe { (reference(encoder, "encoder")?, Output::new(dim, "dim")?) };
        output.write(encoder.with(|encoder| Ok(encoder.feature_dim()))?);
        Ok(())
    })
}

/// What the encoder is.
///
/// @param encoder  an open encoder
/// @param info     filled by ssl_edge_encoder_info_init before
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ssl_edge_encoder_get_info(
    encoder: *const ssl_edge_encoder,
    info: *mut ssl_edge_encoder_info,
) -> ssl_edge_status {
    guard(|| {
        // SAFETY: each pointer is NULL or what its type says, for the time of this call.
        let (encoder, output) =
            unsafe { (reference(encoder, "encoder")?, OutputStruct::new(info)?) };
        output.write(&encoder.with(describe)?);
        Ok(())
    })
}

fn describe(encoder: &Encoder) -> Result<ssl_edge_encoder_info, Failure> {
    let (manifest, self_test) = (encoder.manifest(), encoder.self_test());
    let mut info = ssl_edge_encoder_info {
        dim: encoder.feature_dim() as u32,
        input_width: manifest.preprocess.width,
        input_height: manifest.preprocess.height,
        hash: encoder.hash(),
        engine: engine_number(encoder.engine())?,
        precision: precision_number(encoder.precision())?,
        memory_bytes: encoder.memory().unwrap_or(0) as u64,
        self_test_difference: self_test.difference,
        self_test_tolerance: self_test.tolerance,
        ..ssl_edge_encoder_info::defaults()
    };
    let name = manifest.name();
    let cut = name.floor_char_boundary(info.arch.len() - 1);
    for (to, from) in info
        .arch
        .iter_mut()
        .zip(name[..cut].bytes().take_while(|&byte| byte != 0))
    {
        *to = from as c_char;
    }
    Ok(info)
}

fn engine_number(engine: EngineKind) -> Result<u32, Failure> {
    match engine {
        EngineKind::Native => Ok(ssl_edge_engine::Native as u32),
        EngineKind::Onnx => Ok(ssl_edge_engine::Onnx as u32),
        EngineKind::Cuda => Ok(ssl_edge_engine::Cuda as u32),
        engine => Err(unnumbered("engine", engine.name())),
    }
}

fn precision_number(precision: Precision) -> Result<u32, Failure> {
    match precision {
        Precision::F32 => Ok(ssl_edge_precision::F32 as u32),
        Precision::Int8 => Ok(ssl_edge_precision::Int8 as u32),
        Precision::Q8_0 => Ok(ssl_edge_precision::Q8_0 as u32),
        Precision::Q4_0 => Ok(ssl_edge_precision::Q4_0 as u32),
        precision => Err(unnumbered("precision", precision.name())),
    }
}

/// What sdk_options never asks for has no number in the header.
fn unnumbered(what: &str, name: &str) -> Failure {
    let text = format!("{what} {name} has no number in this library's header; report this");
    Failure::new(ssl_edge_status::Internal, text)
}
