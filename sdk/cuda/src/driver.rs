//! NVIDIA's driver, loaded when it is first asked for, so that the plug-in itself loads where there is none.

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::sync::OnceLock;

use libloading::Library;
use ssl_edge_plugin::Refusal;
use ssl_edge_plugin::guest::Failure;

/// A handle of the driver.
pub(crate) type Handle = *mut c_void;
type Code = c_int;

/// Codes that mean something of their own here; all are those of `cuda.h`.
const OUT_OF_MEMORY: Code = 2;
const STUB_LIBRARY: Code = 34;
const NO_DEVICE: Code = 100;
const INVALID_IMAGE: Code = 200;
const NO_BINARY_FOR_GPU: Code = 209;
const UNSUPPORTED_PTX_VERSION: Code = 222;
const SYSTEM_DRIVER_MISMATCH: Code = 803;

pub(crate) const COMPUTE_CAPABILITY: [c_int; 2] = [75, 76];
pub(crate) const MEMORY_POOLS_SUPPORTED: c_int = 115;
pub(crate) const POOL_RELEASE_THRESHOLD: c_int = 4;
pub(crate) const STREAM_NON_BLOCKING: c_uint = 1;
/// A wait that sleeps, and no time stamps.
pub(crate) const EVENT_FLAGS: c_uint = 1 | 2;
pub(crate) const CAPTURE_THREAD_LOCAL: c_int = 1;

macro_rules! functions {
    ($($name:ident = $symbol:literal ($($arg:ty),*);)*) => {
        /// The driver's functions.
        pub(crate) struct Driver {
            $(pub(crate) $name: unsafe extern "C" fn($($arg),*) -> Code,)*
            /// Keeps it loaded.
            _library: Library,
        }

        impl Driver {
            fn functions(library: Library) -> Result<Self, Failure> {
                Ok(Self {
                    // SAFETY: functions of these names have these types in every driver since CUDA 11.4.
                    $($name: *unsafe { library.get($symbol) }.map_err(|_| old($symbol))?,)*
                    _library: library,
                })
            }
        }
    };
}

functions! {
    init = "cuInit"(c_uint);
    version = "cuDriverGetVersion"(*mut c_int);
    error_name = "cuGetErrorName"(Code, *mut *const c_char);
    device_count = "cuDeviceGetCount"(*mut c_int);
    device = "cuDeviceGet"(*mut c_int, c_int);
    device_name = "cuDeviceGetName"(*mut c_char, c_int, c_int);
    device_memory = "cuDeviceTotalMem_v2"(*mut usize, c_int);
    device_attribute = "cuDeviceGetAttribute"(*mut c_int, c_int, c_int);
    default_pool = "cuDeviceGetDefaultMemPool"(*mut Handle, c_int);
    set_pool_attribute = "cuMemPoolSetAttribute"(Handle, c_int, *mut c_void);
    retain_context = "cuDevicePrimaryCtxRetain"(*mut Handle, c_int);
    release_context = "cuDevicePrimaryCtxRelease_v2"(c_int);
    push_context = "cuCtxPushCurrent_v2"(Handle);
    pop_context = "cuCtxPopCurrent_v2"(*mut Handle);
    create_stream = "cuStreamCreate"(*mut Handle, c_uint);
    destroy_stream = "cuStreamDestroy_v2"(Handle);
    synchronize = "cuStreamSynchronize"(Handle);
    begin_capture = "cuStreamBeginCapture_v2"(Handle, c_int);
    end_capture = "cuStreamEndCapture"(Handle, *mut Handle);
    instantiate = "cuGraphInstantiateWithFlags"(*mut Handle, Handle, c_ulonglong);
    launch_graph = "cuGraphLaunch"(Handle, Handle);
    destroy_graph = "cuGraphDestroy"(Handle);
    destroy_instance = "cuGraphExecDestroy"(Handle);
    create_event = "cuEventCreate"(*mut Handle, c_uint);
    record_event = "cuEventRecord"(Handle, Handle);
    wait_for_event = "cuEventSynchronize"(Handle);
    destroy_event = "cuEventDestroy_v2"(Handle);
    load_module = "cuModuleLoadData"(*mut Handle, *const c_void);
    unload_module = "cuModuleUnload"(Handle);
    function = "cuModuleGetFunction"(*mut Handle, Handle, *const c_char);
    launch = "cuLaunchKernel"(
        Handle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Handle,
        *mut *mut c_void, *mut *mut c_void
    );
    alloc = "cuMemAllocAsync"(*mut u64, usize, Handle);
    free = "cuMemFreeAsync"(u64, Handle);
    upload = "cuMemcpyHtoDAsync_v2"(u64, *const c_void, usize, Handle);
    download = "cuMemcpyDtoHAsync_v2"(*mut c_void, u64, usize, Handle);
    alloc_host = "cuMemHostAlloc"(*mut *mut c_void, usize, c_uint);
    free_host = "cuMemFreeHost"(*mut c_void);
}

/// What the loader says, where it says something.
pub(crate) fn cause(error: &libloading::Error) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), ToString::to_string)
}

fn old(symbol: &str) -> Failure {
    let reason = format!(
        "NVIDIA's driver is too old: it has no {symbol}; install one for CUDA 11.4 or later"
    );
    Failure::new(Refusal::OldDriver, reason)
}

/// The driver, started; the outcome stays as it was the first time.
///
/// # Errors
/// There is none, it is too old, or it sees no GPU.
pub(crate) fn driver() -> Result<&'static Driver, Failure> {
    static DRIVER: OnceLock<Result<Driver, Failure>> = OnceLock::new();
    DRIVER.get_or_init(start).as_ref().map_err(Clone::clone)
}

fn start() -> Result<Driver, Failure> {
    let file = if cfg!(windows) {
        "nvcuda.dll"
    } else {
        "libcuda.so.1"
    };
    // SAFETY: NVIDIA's own library, by the name that its installer gives it.
    let library = unsafe { Library::new(file) }.map_err(|error| {
        let reason = format!(
            "there is no NVIDIA driver on this machine: {file} cannot be loaded ({}); install the driver (on Jetson it comes with JetPack), or choose \
             another engine",
            cause(&error)
        );
        Failure::new(Refusal::NoDriver, reason)
    })?;
    let driver = Driver::functions(library)?;
    // SAFETY: zero is the only flag.
    match unsafe { (driver.init)(0) } {
        0 => Ok(driver),
        code => Err(driver.cannot_start(code)),
    }
}

impl Driver {
    fn cannot_start(&self, code: Code) -> Failure {
        let name = self.name(code);
        let (refusal, reason) = match code {
            NO_DEVICE => (
                Refusal::NoDevice,
                format!("NVIDIA's driver sees no GPU ({name}); choose another engine"),
            ),
            STUB_LIBRARY => (
                Refusal::NoDriver,
                format!(
                    "the NVIDIA driver that was found is a link stub ({name}); take it off the library path"
                ),
            ),
            SYSTEM_DRIVER_MISMATCH => (
                Refusal::OldDriver,
                format!(
                    "the parts of NVIDIA's driver are of different versions ({name}); start the machine anew after an update"
                ),
            ),
            _ => (
                Refusal::Failed,
                format!("NVIDIA's driver does not start: {name}"),
            ),
        };
        Failure::new(refusal, reason)
    }

    /// Name of a code.
    fn name(&self, code: Code) -> String {
        let mut name = std::ptr::null();
        // SAFETY: the pointer can be written.
        let found = unsafe { (self.error_name)(code, &raw mut name) };
        if found != 0 || name.is_null() {
            return format!("error {code}");
        }
        // SAFETY: the driver's own text, which stays.
        unsafe { CStr::from_ptr(name) }
            .to_string_lossy()
            .into_owned()
    }

    /// A failure for a code other than 0; `what` was being done.
    pub(crate) fn check(&self, what: &str, code: Code) -> Result<(), Failure> {
        let refusal = match code {
            0 => return Ok(()),
            OUT_OF_MEMORY => Refusal::OutOfMemory,
            INVALID_IMAGE | NO_BINARY_FOR_GPU | UNSUPPORTED_PTX_VERSION => Refusal::OldDriver,
            _ => Refusal::Failed,
        };
        let reason = format!("{what}: {}", self.name(code));
        Err(Failure::new(refusal, reason))
    }

    /// The CUDA version that it is for, such as 13.0.
    pub(crate) fn cuda_version(&self) -> String {
        let mut version = 0;
        // SAFETY: the number can be written.
        unsafe { (self.version)(&raw mut version) };
        format!("{}.{}", version / 1000, version % 1000 / 10)
    }

    /// Number of GPUs.
    pub(crate) fn count(&self) -> Result<u32, Failure> {
        let mut count = 0;
        // SAFETY: the number can be written.
        let code = unsafe { (self.device_count)(&raw mut count) };
        self.check("counting the GPUs", code)?;
        match u32::try_from(count) {
            Ok(count) if count > 0 => Ok(count),
            _ => Err(self.cannot_start(NO_DEVICE)),
        }
    }
}
