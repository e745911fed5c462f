//! The plug-in `libssl_edge_cuda`: encoders on NVIDIA GPUs, behind the table of functions of `ssl-edge-plugin`.
//!
//! It links no library of NVIDIA's. The driver and cuBLAS are loaded when an encoder is opened, so the plug-in itself loads on a machine without them and says
//! what is missing. An encoder has a stream of its own, memory that was reserved when it was opened, and its passes recorded as CUDA graphs, one for each
//! number of images.

#![deny(missing_docs)]

mod blas;
mod driver;
mod encoder;
mod machine;
mod session;
#[cfg(all(test, target_os = "linux"))]
mod tests;

use ssl_edge_plugin::abi::{Model, OpenOptions};
use ssl_edge_plugin::guest::{Engine, Failure, GuestDevice, GuestTensor};
use ssl_edge_plugin::{Refusal, export_engine};

struct Cuda;

export_engine!(Cuda);

/// Errors of the launches as those of the table.
pub(crate) fn failure(error: ssl_edge_gpu::Error) -> Failure {
    let refusal = match error {
        ssl_edge_gpu::Error::OutOfMemory { .. } => Refusal::OutOfMemory,
        ssl_edge_gpu::Error::Invalid { .. } | ssl_edge_gpu::Error::MissingTensor { .. } => {
            Refusal::Unsupported
        }
        _ => Refusal::Failed,
    };
    Failure::new(refusal, error.to_string())
}

impl Engine for Cuda {
    type Encoder = encoder::Opened;

    fn about() -> String {
        let code = if machine::Gpu::HAS_KERNELS {
            "code for compute capability 8.7, 8.9 and 9.0, others from 8.0 on compiled by the driver"
        } else {
            "built without the GPU's code"
        };
        format!("ssl-edge-cuda {}, {code}", env!("CARGO_PKG_VERSION"))
    }

    fn device_count() -> Result<u32, Failure> {
        driver::driver()?.count()
    }

    fn device(device: u32) -> Result<GuestDevice, Failure> {
        session::describe(device)
    }

    fn open(
        model: &Model,
        tensors: &[GuestTensor<'_>],
        options: &OpenOptions,
    ) -> Result<encoder::Opened, Failure> {
        encoder::Opened::new(model, tensors, options)
    }

    fn sizes(encoder: &encoder::Opened) -> [usize; 3] {
        encoder.sizes()
    }

    fn run(
        encoder: &mut encoder::Opened,
        images: &[f32],
        _batch: usize,
        cls: &mut [f32],
        patches: &mut [f32],
    ) -> Result<(), Failure> {
        encoder.run(images, cls, patches)
    }

    fn memory(encoder: &encoder::Opened) -> u64 {
        encoder.memory()
    }
}
