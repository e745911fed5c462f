//! Where tensors live and in what precision products are computed.

use std::cell::Cell;
use std::fmt;
use std::str::FromStr;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::Error;

/// What matrix products of a training step or an encoder read. Sums, norms, softmax, losses and parameters are f32 in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits.
    F32,
    /// 16 bits with the exponent of f32, rounded from f32; on NVIDIA GPUs and on CPUs.
    Bf16,
    /// 16 bits with 11 of precision, rounded from f32; for encoders that only run.
    F16,
}

/// A processor by name: `cpu`, `cuda`, `cuda:N` or `metal`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Processor {
    /// The CPU.
    #[default]
    Cpu,
    /// The NVIDIA GPU of this number.
    Cuda(usize),
    /// The first Apple GPU.
    Metal,
}

impl Precision {
    /// `f32`, `bf16` or `f16`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Self::F32, Self::Bf16, Self::F16]
            .into_iter()
            .find(|p| p.as_str() == name)
            .ok_or_else(|| format!("unknown precision {name:?}; use f32, bf16 or f16"))
    }
}

impl fmt::Display for Processor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
            Self::Metal => f.write_str("metal"),
        }
    }
}

impl FromStr for Processor {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let number = name.strip_prefix("cuda:").and_then(|n| n.parse().ok());
        match (name, number) {
            ("cpu", _) => Ok(Self::Cpu),
            ("cuda", _) => Ok(Self::Cuda(0)),
            ("metal", _) => Ok(Self::Metal),
            (_, Some(n)) => Ok(Self::Cuda(n)),
            _ => Err(format!(
                "unknown device {name:?}; use cpu, metal, cuda or cuda:N with the number of a GPU"
            )),
        }
    }
}

impl TryFrom<String> for Processor {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

impl From<Processor> for String {
    fn from(processor: Processor) -> Self {
        processor.to_string()
    }
}

impl Processor {
    /// The precision that suits it in training: bf16 on NVIDIA GPUs, f32 elsewhere.
    pub fn usual_precision(self) -> Precision {
        match self {
            Self::Cpu | Self::Metal => Precision::F32,
            Self::Cuda(_) => Precision::Bf16,
        }
    }

    /// Opens it. Blocks on it keep nothing but their inputs for the backward where `recompute` is set: less memory, a third more time.
    /// The precision is a GPU's own; on the CPU it is that of [`autocast`].
    ///
    /// # Errors
    /// [`Error::Device`] with the reason: this build has no CUDA or no Metal, there is no driver or no such GPU, it does not compute in
    /// this precision.
    pub fn open(self, precision: Precision, recompute: bool) -> Result<Device, Error> {
        let refused = |reason: String| {
            Err(Error::Device {
                device: self,
                reason,
            })
        };
        match (self, precision, recompute) {
            (Self::Cpu, Precision::F32 | Precision::Bf16, false) => Ok(Device::Cpu),
            (Self::Cpu, Precision::F16, _) => {
                refused("the CPU trains in f32 and bf16; ask for one of these".into())
            }
            (Self::Cpu, _, true) => {
                refused("activations are computed again on GPUs only; leave recompute out".into())
            }
            (Self::Metal, Precision::Bf16, _) => {
                refused("Apple GPUs compute in f32, and encoders that only run in f16 too".into())
            }
            (Self::Metal, _, true) => refused(
                "activations are computed again on NVIDIA GPUs only; leave recompute out".into(),
            ),
            (Self::Metal, ..) => metal().or_else(refused),
            (Self::Cuda(_), Precision::F16, _) => {
                refused("NVIDIA GPUs compute in bf16 and f32 here; ask for one of these, or run encoders in f16 with engine cuda".into())
            }
            #[cfg(feature = "cuda")]
            (Self::Cuda(n), ..) => {
                let work = match precision {
                    Precision::F32 => crate::gpu::Kind::F32,
                    Precision::Bf16 | Precision::F16 => crate::gpu::Kind::Bf16,
                };
                crate::gpu::open(n, work, recompute).or_else(refused)
            }
            #[cfg(not(feature = "cuda"))]
            (Self::Cuda(_), ..) => refused(
                "this program was built without CUDA; build it with `cargo install --path sdk/cli --features cuda`, or use --device cpu"
                    .into(),
            ),
        }
    }
}

#[cfg(all(feature = "metal", target_os = "macos"))]
fn metal() -> Result<Device, String> {
    // candle's own constructor panics where there is none.
    if candle_metal_kernels::metal::Device::all().is_empty() {
        return Err(
            "macOS lists no Metal device (none in a virtual machine or over ssh on some Macs); use --device cpu".into(),
        );
    }
    let first_line = |error: candle_core::Error| {
        let text = error.to_string();
        text.lines().next().unwrap_or_default().to_owned()
    };
    Device::new_metal(0).map_err(first_line)
}

#[cfg(not(all(feature = "metal", target_os = "macos")))]
fn metal() -> Result<Device, String> {
    Err(match cfg!(target_os = "macos") {
        true => "this program was built without Metal; build it with `cargo install --path sdk/cli --features metal`, or use --device cpu".into(),
        false => format!(
            "Metal is there on macOS only, and this program was built for {}; use --device cpu or cuda",
            std::env::consts::OS
        ),
    })
}

thread_local! {
    static CAST: Cell<Precision> = const { Cell::new(Precision::F32) };
}

/// Puts the thread back to what it was.
struct Restore(Precision);

impl Drop for Restore {
    fn drop(&mut self) {
        CAST.set(self.0);
    }
}

/// Runs `f` with this precision for the products of linear layers that its thread computes on the CPU, as `torch.autocast` does: the
/// backward of an operation takes the precision of its forward, wherever it runs. All else stays f32, attention's own products too: they
/// are so short that rounding their factors costs what it saves.
///
/// In bf16 factors are rounded and sums are f32. On x86 with AVX-512 BF16 that is up to twice as fast; other CPUs are no faster, and sum
/// in another order, so bits differ from one kind to the other. F16 is for encoders that only run and counts as f32 here. GPUs have the
/// precision with which they were opened.
pub fn autocast<R>(precision: Precision, f: impl FnOnce() -> R) -> R {
    let _restore = Restore(CAST.replace(precision));
    f()
}

/// What [`autocast`] asks of this thread.
pub(crate) fn cast_precision() -> Precision {
    CAST.get()
}

/// Whether this CPU has instructions for products in bf16, so that [`autocast`] makes them faster.
pub fn multiplies_bf16() -> bool {
    crate::kernels::Pairs::detect().is_some()
}

/// Runs `f` and then releases what Metal handed out meanwhile, which otherwise stays until the thread ends. Around every step and every
/// run of an encoder; elsewhere it only calls `f`.
pub fn pooled<R>(f: impl FnOnce() -> R) -> R {
    #[cfg(all(feature = "metal", target_os = "macos"))]
    return objc2::rc::autoreleasepool(|_| f());
    #[cfg(not(all(feature = "metal", target_os = "macos")))]
    f()
}

/// Waits until a device has done all that was asked of it, so that a clock can be read. Nothing on the CPU.
pub fn synchronize(device: &Device) -> Result<(), Error> {
    Ok(device.synchronize()?)
}

/// Most memory in use on an NVIDIA GPU at once, in bytes, since the last call with `reset`; `None` elsewhere.
pub fn most_memory(device: &Device, reset: bool) -> Result<Option<u64>, Error> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(cuda) = device {
        return Ok(Some(crate::gpu::machine_of(cuda)?.most_memory(reset)?));
    }
    let _ = (device, reset);
    Ok(None)
}

/// Whether an error says that memory on a GPU did not suffice.
pub fn is_out_of_memory(error: &candle_core::Error) -> bool {
    let text = error.to_string();
    [
        "CUDA_ERROR_OUT_OF_MEMORY",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "out of memory",
        "Failed to create metal resource: Buffer",
        "kIOGPUCommandBufferCallbackErrorOutOfMemory",
    ]
    .iter()
    .any(|sign| text.contains(sign))
}

/// Whether an error says that a GPU is lost to this process: a fault there, or the device gone.
pub fn is_device_lost(error: &candle_core::Error) -> bool {
    let text = error.to_string();
    [
        "CUDA_ERROR_ILLEGAL_ADDRESS",
        "CUDA_ERROR_LAUNCH_FAILED",
        "CUDA_ERROR_ECC_UNCORRECTABLE",
        "CUDA_ERROR_DEVICE_UNAVAILABLE",
        "CUDA_ERROR_HARDWARE_STACK_ERROR",
        "CUDA_ERROR_ASSERT",
        "CUDA_ERROR_MISALIGNED_ADDRESS",
        "kIOGPUCommandBufferCallbackError",
    ]
    .iter()
    .any(|sign| text.contains(sign))
        && !is_out_of_memory(error)
}

/// The first product's floating-point operations a second on `device`, of square matrices of `side`, in its precision: the best of
/// `runs`, after one that does not count.
pub fn product_rate(device: &Device, side: usize, runs: usize) -> Result<f64, Error> {
    let values: Vec<f32> = (0..side * side)
        .map(|i| ((i % 1013) as f32 - 506.0) / 506.0)
        .collect();
    let a = Tensor::from_vec(values, (side, side), device)?;
    let b = a.t()?.contiguous()?;
    let mut best = f64::INFINITY;
    for run in 0..=runs {
        synchronize(device)?;
        let start = std::time::Instant::now();
        crate::ops::linear(&a, &b, None)?;
        synchronize(device)?;
        if run > 0 {
            best = best.min(start.elapsed().as_secs_f64());
        }
    }
    Ok(2.0 * (side as f64).powi(3) / best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for (name, processor) in [
            ("cpu", Processor::Cpu),
            ("cuda", Processor::Cuda(0)),
            ("cuda:3", Processor::Cuda(3)),
            ("metal", Processor::Metal),
        ] {
            assert_eq!(name.parse(), Ok(processor));
            assert_eq!(processor.to_string().parse(), Ok(processor));
        }
        for name in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CPU", "metal:1"] {
            assert!(name.parse::<Processor>().unwrap_err().contains("cuda:N"));
        }
        for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
            assert_eq!(precision.as_str().parse(), Ok(precision));
        }
        assert!("fp16".parse::<Precision>().unwrap_err().contains("bf16"));
    }

    #[test]
    fn what_a_device_cannot_do_is_an_error_with_the_reason() {
        let open = |p: Processor, precision, recompute| {
            let error = p.open(precision, recompute).expect_err("refused");
            error.to_string()
        };
        let text = open(Processor::Cpu, Precision::F16, false);
        assert!(text.contains("cpu") && text.contains("bf16"), "{text}");
        assert!(open(Processor::Cpu, Precision::F32, true).contains("recompute"));
        assert!(open(Processor::Cuda(0), Precision::F16, false).contains("bf16"));
        assert!(open(Processor::Metal, Precision::Bf16, false).contains("f16"));
        assert!(open(Processor::Metal, Precision::F32, true).contains("recompute"));
        if cfg!(not(target_os = "macos")) {
            let text = open(Processor::Metal, Precision::F32, false);
            assert!(
                text.contains("device metal") && text.contains("macOS"),
                "{text}"
            );
        }
        let text = open(Processor::Cuda(99), Precision::F32, false);
        assert!(text.contains("cuda:99"), "{text}");
        if cfg!(not(feature = "cuda")) {
            assert!(text.contains("--features cuda"), "{text}");
        }
    }

    #[test]
    fn a_machine_without_memory_is_told_from_one_that_failed() {
        let error = |error: ssl_edge_gpu::Error| candle_core::Error::wrap(error);
        let full = error(ssl_edge_gpu::Error::OutOfMemory { bytes: 1 << 30 });
        assert!(is_out_of_memory(&full) && !is_device_lost(&full));
        let lost = error(ssl_edge_gpu::Error::machine("CUDA_ERROR_ILLEGAL_ADDRESS"));
        assert!(!is_out_of_memory(&lost) && is_device_lost(&lost));
    }

    #[test]
    fn words_of_drivers_are_told_apart() {
        let error = |text: &str| candle_core::Error::Msg(text.into());
        for text in [
            "Failed to create metal resource: Buffer",
            "Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)",
            "CUDA_ERROR_OUT_OF_MEMORY",
        ] {
            assert!(is_out_of_memory(&error(text)) && !is_device_lost(&error(text)));
        }
        for text in [
            "Caused GPU Hang Error (00000003:kIOGPUCommandBufferCallbackErrorHang)",
            "CUDA_ERROR_LAUNCH_FAILED",
        ] {
            assert!(!is_out_of_memory(&error(text)) && is_device_lost(&error(text)));
        }
    }
}
