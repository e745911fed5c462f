//! The GPU as a machine, over candle's device.
//!
//! All work of a device, candle's and ours, goes to one stream that all threads share, so that it is done in the order in which it
//! was asked for, and memory that is freed is used again only by work that comes later. cudarc's events between streams are off.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{
    CudaContext, CudaFunction, CudaSlice, CudaStream, DevicePtr, DeviceRepr, LaunchConfig,
    PushKernelArg, result, sys,
};
use candle_core::cuda_backend::{CudaDevice, DeviceId, WrapErr};
use candle_core::{Device, Result, bail};

use ssl_edge_gpu::images::PTX;
use ssl_edge_gpu::{Error, kernels};

use super::matmul::Matmul;
use super::{Arg, Kind, Launch, Machine, Memory, Product, View};

/// The oldest GPUs that the kernels are compiled for.
const OLDEST: (i32, i32) = (8, 0);

/// One opened GPU.
pub(crate) struct Cuda {
    pub(crate) device: CudaDevice,
    stream: Arc<CudaStream>,
    work: Kind,
    /// Whether blocks keep nothing but their inputs for the backward.
    pub(crate) recompute: bool,
    functions: Mutex<HashMap<String, CudaFunction>>,
    matmul: Matmul,
}

static OPENED: LazyLock<Mutex<HashMap<DeviceId, Arc<Cuda>>>> = LazyLock::new(Mutex::default);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens GPU `ordinal`; products read `work`.
///
/// # Errors
/// The reason why it cannot be used, for people.
pub(crate) fn open(
    ordinal: usize,
    work: Kind,
    recompute: bool,
) -> std::result::Result<Device, String> {
    let count =
        CudaContext::device_count().map_err(|e| format!("NVIDIA's driver reports no GPU ({e})"))?;
    if ordinal >= count as usize {
        return Err(match count {
            0 => "NVIDIA's driver sees no GPU".into(),
            1 => "there is one GPU, cuda:0".into(),
            n => format!("there are {n} GPUs, cuda:0 to cuda:{}", n - 1),
        });
    }
    let start = || -> Result<Device> {
        let device = Device::new_cuda_with_stream(ordinal)?;
        let cuda = device.as_cuda_device()?.clone();
        // SAFETY: every tensor of this device, and all our memory, is made, used and freed on its one stream.
        unsafe { cuda.disable_event_tracking() };
        keep_freed_memory(&cuda)?;
        let machine = Cuda::new(cuda, work, recompute)?;
        locked(&OPENED).insert(machine.device.id(), Arc::new(machine));
        Ok(device)
    };
    start().map_err(|e| e.to_string())
}

/// The machine of a device, whose products are in f32 where it was not opened by us.
pub(crate) fn machine_of(device: &CudaDevice) -> Result<Arc<Cuda>> {
    let mut opened = locked(&OPENED);
    if let Some(machine) = opened.get(&device.id()) {
        return Ok(machine.clone());
    }
    let machine = Arc::new(Cuda::new(device.clone(), Kind::F32, false)?);
    opened.insert(device.id(), machine.clone());
    Ok(machine)
}

fn pool(device: &CudaDevice) -> Result<sys::CUmemoryPool> {
    let stream = device.cuda_stream();
    let context = stream.context();
    context.bind_to_thread().w()?;
    // SAFETY: the context's device exists.
    unsafe { result::device::get_default_mem_pool(context.cu_device()) }.w()
}

/// Freed memory stays with the process, where the driver's default gives it back to the system at every synchronisation.
fn keep_freed_memory(device: &CudaDevice) -> Result<()> {
    let pool = pool(device)?;
    let mut threshold = u64::MAX;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the pool is the device's own, and the attribute is a 64-bit number.
    unsafe { result::mem_pool::set_attribute(pool, attribute, (&raw mut threshold).cast()) }.w()
}

impl Cuda {
    fn new(device: CudaDevice, work: Kind, recompute: bool) -> Result<Self> {
        let stream = device.cuda_stream();
        let (major, minor) = stream.context().compute_capability().w()?;
        if (major, minor) < OLDEST {
            bail!(
                "the GPU has compute capability {major}.{minor}; {}.{} or later is needed",
                OLDEST.0,
                OLDEST.1
            )
        }
        Ok(Self {
            matmul: Matmul::new(stream.clone())?,
            device,
            stream,
            work,
            recompute,
            functions: Mutex::default(),
        })
    }

    fn function(&self, launch: &Launch) -> Result<CudaFunction> {
        let mut functions = locked(&self.functions);
        if let Some(function) = functions.get(&launch.kernel) {
            return Ok(function.clone());
        }
        let Some((file, ptx)) = PTX.iter().find(|(file, _)| *file == launch.file) else {
            bail!("there is no file of kernels `{}`", launch.file)
        };
        let module = format!("ssl_edge_{file}");
        let function = self
            .device
            .get_or_load_custom_func(&launch.kernel, &module, ptx)?
            .into_cuda_function();
        functions.insert(launch.kernel.clone(), function.clone());
        Ok(function)
    }

    /// Values of type `T` and where they are.
    pub(crate) fn slice<T: DeviceRepr>(&self, len: usize) -> Result<CudaSlice<T>> {
        // SAFETY: whoever asks for memory writes it before it is read.
        unsafe { self.device.alloc::<T>(len.max(1)) }
    }

    /// Address of a slice's first value.
    pub(crate) fn address<T>(&self, slice: &CudaSlice<T>) -> u64 {
        slice.device_ptr(&self.stream).0
    }

    /// Most memory that was in use at once since the last call with `reset`, in bytes.
    pub(crate) fn most_memory(&self, reset: bool) -> Result<u64> {
        let pool = pool(&self.device)?;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH;
        let mut bytes = 0u64;
        // SAFETY: the pool is the device's own, and the attribute is a 64-bit number.
        unsafe { result::mem_pool::get_attribute(pool, attribute, (&raw mut bytes).cast()) }.w()?;
        if reset {
            let mut zero = 0u64;
            // SAFETY: as above; zero is what resets it.
            unsafe { result::mem_pool::set_attribute(pool, attribute, (&raw mut zero).cast()) }
                .w()?;
        }
        Ok(bytes)
    }
}

impl Cuda {
    fn download_floats(&self, view: View) -> Result<Vec<f32>> {
        let mut values = vec![0f32; view.len];
        self.stream.context().bind_to_thread().w()?;
        // SAFETY: the view is alive and has as many values; they are here before the stream is waited for and the vector is read.
        unsafe { result::memcpy_dtoh_async(&mut values, view.address, self.stream.cu_stream()) }
            .w()?;
        self.stream.synchronize().w()?;
        Ok(values)
    }

    /// Memory that does not suffice is told from other failures.
    fn new_slice(&self, bytes: usize) -> ssl_edge_gpu::Result<CudaSlice<u8>> {
        self.slice::<u8>(bytes).map_err(|error| {
            let text = error.to_string();
            if text.contains("OUT_OF_MEMORY") {
                Error::OutOfMemory { bytes }
            } else {
                Error::machine(text)
            }
        })
    }
}

impl Machine for Cuda {
    fn work(&self) -> Kind {
        self.work
    }

    fn alloc(&self, kind: Kind, len: usize) -> ssl_edge_gpu::Result<Memory> {
        let slice = self.new_slice(len * kind.bytes())?;
        let address = self.address(&slice);
        Ok(Memory {
            view: View { address, len, kind },
            owner: Box::new(slice),
        })
    }

    fn upload(&self, kind: Kind, bytes: &[u8]) -> ssl_edge_gpu::Result<Memory> {
        let slice = self.device.clone_htod(bytes).map_err(Error::machine)?;
        let address = self.address(&slice);
        Ok(Memory {
            view: View {
                address,
                len: bytes.len() / kind.bytes(),
                kind,
            },
            owner: Box::new(slice),
        })
    }

    fn download(&self, view: View) -> ssl_edge_gpu::Result<Vec<f32>> {
        if view.kind != Kind::F32 {
            return Err(Error::machine("only f32 is downloaded"));
        }
        self.download_floats(view).map_err(Error::machine)
    }

    unsafe fn launch(&self, launch: &Launch, args: &[Arg]) -> ssl_edge_gpu::Result<()> {
        let function = self.function(launch).map_err(Error::machine)?;
        let mut builder = self.stream.launch_builder(&function);
        for arg in args {
            match arg {
                Arg::Address(value) => builder.arg(value),
                Arg::I32(value) => builder.arg(value),
                Arg::I64(value) => builder.arg(value),
                Arg::F32(value) => builder.arg(value),
            };
        }
        let config = LaunchConfig {
            grid_dim: (launch.grid[0] as u32, launch.grid[1] as u32, 1),
            block_dim: (launch.threads as u32, 1, 1),
            shared_mem_bytes: launch.shared as u32,
        };
        // SAFETY: the caller's contract.
        unsafe { builder.launch(config) }.map_err(Error::machine)?;
        Ok(())
    }

    unsafe fn multiply(&self, product: &Product) -> ssl_edge_gpu::Result<()> {
        // SAFETY: the caller's contract.
        if unsafe { self.matmul.run(product) }.map_err(Error::machine)? {
            return Ok(());
        }
        match product.bias {
            Some(bias) => kernels::add_bias(self, product.out, bias),
            None => Ok(()),
        }
    }
}
