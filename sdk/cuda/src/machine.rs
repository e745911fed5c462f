//! The GPU as a machine of `ssl-edge-gpu`.

use std::collections::HashMap;
use std::ffi::{CString, c_uint, c_void};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ssl_edge_gpu::{Arg, Error, Kind, Launch, Machine, Memory, Product, Result, View, kernels};
use ssl_edge_plugin::Refusal;
use ssl_edge_plugin::guest::Failure;

use crate::blas::{Blas, Place};
use crate::driver::Handle;
use crate::session::Session;

/// Scratch of cuBLAS: what NVIDIA recommends for Hopper, and enough for the others.
const WORKSPACE_HOPPER: usize = 32 << 20;
const WORKSPACE: usize = 8 << 20;

/// A GPU with the kernels on it.
pub(crate) struct Gpu {
    work: Kind,
    functions: Mutex<HashMap<String, Function>>,
    modules: Vec<(&'static str, Module)>,
    blas: Blas,
    workspace: Memory,
    /// Bytes that were asked for and are not freed.
    used: Arc<AtomicU64>,
    pub(crate) session: Arc<Session>,
}

#[derive(Clone, Copy)]
struct Function(Handle);

// SAFETY: a function of a module may be launched by any thread.
unsafe impl Send for Function {}

struct Module {
    handle: Handle,
    session: Arc<Session>,
}

// SAFETY: as above.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl Drop for Module {
    fn drop(&mut self) {
        if let Ok(_entered) = self.session.enter() {
            // SAFETY: its functions are launched no more.
            unsafe { (self.session.driver.unload_module)(self.handle) };
        }
    }
}

/// Frees memory in the order of the stream.
struct Owned {
    address: u64,
    bytes: u64,
    used: Arc<AtomicU64>,
    session: Arc<Session>,
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
        if let Ok(_entered) = self.session.enter() {
            // SAFETY: it was reserved on this stream, and work that comes after does not use it.
            unsafe { (self.session.driver.free)(self.address, self.session.stream) };
        }
    }
}

fn reserve(
    session: &Arc<Session>,
    used: &Arc<AtomicU64>,
    kind: Kind,
    len: usize,
) -> Result<Memory> {
    let bytes = len.checked_mul(kind.bytes()).map(|bytes| bytes.max(1));
    let bytes = bytes.ok_or(Error::OutOfMemory { bytes: usize::MAX })?;
    let mut address = 0;
    // SAFETY: the pointer can be written.
    let code = unsafe { (session.driver.alloc)(&raw mut address, bytes, session.stream) };
    session
        .driver
        .check("reserving memory", code)
        .map_err(|failure| match failure.refusal {
            Refusal::OutOfMemory => Error::OutOfMemory { bytes },
            _ => Error::machine(failure.reason),
        })?;
    used.fetch_add(bytes as u64, Ordering::Relaxed);
    Ok(Memory {
        view: View { address, len, kind },
        owner: Box::new(Owned {
            address,
            bytes: bytes as u64,
            used: used.clone(),
            session: session.clone(),
        }),
    })
}

/// The kernels, by file.
#[cfg(feature = "kernels")]
fn images() -> Option<&'static [(&'static str, &'static [u8])]> {
    Some(&ssl_edge_gpu::images::FATBIN)
}

#[cfg(not(feature = "kernels"))]
fn images() -> Option<&'static [(&'static str, &'static [u8])]> {
    // The tests' driver takes anything for a module.
    const NOTHING: &[u8] = &[];
    const FILES: &[(&str, &[u8])] = &[
        ("attention", NOTHING),
        ("attention_plain", NOTHING),
        ("elementwise", NOTHING),
        ("norm", NOTHING),
        ("rows", NOTHING),
    ];
    cfg!(test).then_some(FILES)
}

impl Gpu {
    /// Whether this build has the kernels.
    pub(crate) const HAS_KERNELS: bool = cfg!(feature = "kernels");

    /// Loads kernels and cuBLAS; products read `work`. The session was entered.
    ///
    /// # Errors
    /// A build without kernels, kernels that the driver does not take, cuBLAS that is not there.
    pub(crate) fn new(session: Arc<Session>, work: Kind) -> std::result::Result<Self, Failure> {
        let images = images().ok_or_else(|| {
            let reason = "this plug-in was built without the GPU's code; build it with `cargo build --release -p ssl-edge-cuda --features kernels`";
            Failure::new(Refusal::Unsupported, reason)
        })?;
        let modules = images
            .iter()
            .map(|&(file, image)| Ok((file, load(&session, image)?)))
            .collect::<std::result::Result<_, _>>()?;
        let used = Arc::new(AtomicU64::new(0));
        let bytes = match session.version()? {
            [major, _] if major >= 9 => WORKSPACE_HOPPER,
            _ => WORKSPACE,
        };
        let workspace = reserve(&session, &used, Kind::U8, bytes).map_err(crate::failure)?;
        Ok(Self {
            work,
            functions: Mutex::default(),
            modules,
            blas: Blas::open(&session)?,
            workspace,
            used,
            session,
        })
    }

    /// Bytes of memory in use.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn function(&self, launch: &Launch) -> Result<Function> {
        let mut functions = self
            .functions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(&function) = functions.get(&launch.kernel) {
            return Ok(function);
        }
        let module = self.modules.iter().find(|(file, _)| *file == launch.file);
        let (_, module) = module
            .ok_or_else(|| Error::machine(format!("there are no kernels of {}", launch.file)))?;
        let name = CString::new(launch.kernel.as_str()).map_err(Error::machine)?;
        let mut function = std::ptr::null_mut();
        let driver = self.session.driver;
        // SAFETY: the pointer can be written, the module is loaded, the name ends with a zero.
        let code = unsafe { (driver.function)(&raw mut function, module.handle, name.as_ptr()) };
        self.checked(&launch.kernel, code)?;
        let function = Function(function);
        functions.insert(launch.kernel.clone(), function);
        Ok(function)
    }

    fn checked(&self, what: &str, code: i32) -> Result<()> {
        let checked = self.session.driver.check(what, code);
        checked.map_err(|failure| Error::machine(failure.reason))
    }

    /// From memory of the host that stays where it is until the work is done.
    ///
    /// # Safety
    /// `from` has the values of `to` and lives until the stream has come past.
    pub(crate) unsafe fn copy_in(&self, from: &[f32], to: View) -> Result<()> {
        ssl_edge_gpu::expect("input", to, from.len())?;
        let (driver, stream) = (self.session.driver, self.session.stream);
        let bytes = size_of_val(from);
        // SAFETY: both have as many bytes; the caller keeps `from`.
        let code = unsafe { (driver.upload)(to.address, from.as_ptr().cast(), bytes, stream) };
        self.checked("copying images to the GPU", code)
    }

    /// To memory of the host that stays where it is until the work is done.
    ///
    /// # Safety
    /// `to` has room for the values of `from` and lives until the stream has come past.
    pub(crate) unsafe fn copy_out(&self, from: View, to: *mut f32) -> Result<()> {
        let (driver, stream) = (self.session.driver, self.session.stream);
        let bytes = from.len * size_of::<f32>();
        // SAFETY: the caller's contract.
        let code = unsafe { (driver.download)(to.cast(), from.address, bytes, stream) };
        self.checked("copying tokens from the GPU", code)
    }
}

fn load(session: &Arc<Session>, image: &[u8]) -> std::result::Result<Module, Failure> {
    let mut handle = std::ptr::null_mut();
    // SAFETY: the pointer can be written; the image is one that nvcc made, whose head says how long it is.
    let code = unsafe { (session.driver.load_module)(&raw mut handle, image.as_ptr().cast()) };
    let driver = session.driver;
    driver.check("loading kernels", code).map_err(|failure| {
        if failure.refusal != Refusal::OldDriver {
            return failure;
        }
        let reason = format!(
            "{}: NVIDIA's driver is for CUDA {} and does not take this plug-in's code; install a newer driver, or a plug-in built with that CUDA's toolkit",
            failure.reason,
            driver.cuda_version()
        );
        Failure::new(Refusal::OldDriver, reason)
    })?;
    Ok(Module {
        handle,
        session: session.clone(),
    })
}

impl Machine for Gpu {
    fn work(&self) -> Kind {
        self.work
    }

    fn alloc(&self, kind: Kind, len: usize) -> Result<Memory> {
        reserve(&self.session, &self.used, kind, len)
    }

    fn upload(&self, kind: Kind, bytes: &[u8]) -> Result<Memory> {
        let memory = self.alloc(kind, bytes.len() / kind.bytes())?;
        let (driver, stream) = (self.session.driver, self.session.stream);
        let (to, from) = (memory.view.address, bytes.as_ptr().cast());
        // SAFETY: as many bytes were reserved; memory that is not pinned was read when the call returns.
        let code = unsafe { (driver.upload)(to, from, bytes.len(), stream) };
        self.checked("copying to the GPU", code)?;
        Ok(memory)
    }

    fn download(&self, view: View) -> Result<Vec<f32>> {
        if view.kind != Kind::F32 {
            return Err(Error::machine("only f32 is downloaded"));
        }
        let mut values = vec![0f32; view.len];
        // SAFETY: there is room; the stream is waited for before the values are looked at.
        unsafe { self.copy_out(view, values.as_mut_ptr()) }?;
        let waited = self.session.wait();
        waited.map_err(|failure| Error::machine(failure.reason))?;
        Ok(values)
    }

    unsafe fn launch(&self, launch: &Launch, args: &[Arg]) -> Result<()> {
        let function = self.function(launch)?;
        let mut pointers: Vec<*mut c_void> = args
            .iter()
            .map(|arg| match arg {
                Arg::Address(value) => std::ptr::from_ref(value).cast_mut().cast(),
                Arg::I32(value) => std::ptr::from_ref(value).cast_mut().cast(),
                Arg::I64(value) => std::ptr::from_ref(value).cast_mut().cast(),
                Arg::F32(value) => std::ptr::from_ref(value).cast_mut().cast(),
            })
            .collect();
        let [x, y] = launch.grid.map(|n| n as c_uint);
        let driver = self.session.driver;
        // SAFETY: the caller's contract; the arguments are read before the call returns.
        let code = unsafe {
            (driver.launch)(
                function.0,
                x,
                y,
                1,
                launch.threads as c_uint,
                1,
                1,
                launch.shared as c_uint,
                self.session.stream,
                pointers.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        self.checked(&launch.kernel, code)
    }

    unsafe fn multiply(&self, product: &Product) -> Result<()> {
        let at = Place {
            workspace: self.workspace.view,
            stream: self.session.stream,
        };
        // SAFETY: the caller's contract; the workspace is this stream's alone.
        if unsafe { self.blas.run(product, at) }? {
            return Ok(());
        }
        match product.bias {
            Some(bias) => kernels::add_bias(self, product.out, bias),
            None => Ok(()),
        }
    }
}
