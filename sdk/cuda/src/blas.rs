//! Matrix products by cuBLASLt, loaded when it is first asked for, with bias and summand in the same pass. Sums are in f32.

use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::sync::{Arc, Mutex, PoisonError};

use libloading::Library;
use ssl_edge_gpu::{Error, Kind, Layout, PlanKey, Product, Result, View};
use ssl_edge_plugin::Refusal;
use ssl_edge_plugin::guest::Failure;

use crate::driver::{Handle, cause};
use crate::session::Session;

type Status = c_int;

/// Names of the library, newest first. The functions and structs that are used here are the same in all.
#[cfg(not(windows))]
const FILES: [&str; 3] = [
    "libcublasLt.so.13",
    "libcublasLt.so.12",
    "libcublasLt.so.11",
];
#[cfg(windows)]
const FILES: [&str; 3] = [
    "cublasLt64_13.dll",
    "cublasLt64_12.dll",
    "cublasLt64_11.dll",
];

/// Numbers of `cublasLt.h`.
const COMPUTE_32F: c_int = 68;
const R_32F: c_int = 0;
const R_16F: c_int = 2;
const R_16BF: c_int = 14;
const DESC_TRANS_A: c_int = 3;
const DESC_TRANS_B: c_int = 4;
const DESC_EPILOGUE: c_int = 7;
const DESC_BIAS_POINTER: c_int = 8;
const EPILOGUE_BIAS: u32 = 4;
const PREF_WORKSPACE_BYTES: c_int = 1;
/// Of a, b, c and the result.
const PREF_ALIGNMENTS: [c_int; 4] = [5, 6, 7, 8];

/// `cublasLtMatmulHeuristicResult_t`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Found {
    algorithm: [u64; 8],
    workspace: usize,
    state: Status,
    waves: f32,
    reserved: [c_int; 4],
}

macro_rules! functions {
    ($($name:ident = $symbol:literal ($($arg:ty),*);)*) => {
        struct Functions {
            $($name: unsafe extern "C" fn($($arg),*) -> Status,)*
            /// Keeps it loaded.
            _library: Library,
        }

        impl Functions {
            fn new(library: Library) -> std::result::Result<Self, String> {
                Ok(Self {
                    // SAFETY: functions of these names have these types in every cuBLASLt since CUDA 11.
                    $($name: *unsafe { library.get($symbol) }.map_err(|e| e.to_string())?,)*
                    _library: library,
                })
            }
        }
    };
}

functions! {
    create = "cublasLtCreate"(*mut Handle);
    destroy = "cublasLtDestroy"(Handle);
    create_desc = "cublasLtMatmulDescCreate"(*mut Handle, c_int, c_int);
    set_desc = "cublasLtMatmulDescSetAttribute"(Handle, c_int, *const c_void, usize);
    destroy_desc = "cublasLtMatmulDescDestroy"(Handle);
    create_layout = "cublasLtMatrixLayoutCreate"(*mut Handle, c_int, u64, u64, i64);
    destroy_layout = "cublasLtMatrixLayoutDestroy"(Handle);
    create_pref = "cublasLtMatmulPreferenceCreate"(*mut Handle);
    set_pref = "cublasLtMatmulPreferenceSetAttribute"(Handle, c_int, *const c_void, usize);
    destroy_pref = "cublasLtMatmulPreferenceDestroy"(Handle);
    choose = "cublasLtMatmulAlgoGetHeuristic"(
        Handle, Handle, Handle, Handle, Handle, Handle, Handle, c_int, *mut Found, *mut c_int
    );
    multiply = "cublasLtMatmul"(
        Handle, Handle, *const c_void, u64, Handle, u64, Handle, *const c_void, u64, Handle, u64,
        Handle, *const [u64; 8], u64, usize, Handle
    );
}

/// A product that cuBLAS is ready for. What it made lives until the library is closed with it.
#[derive(Clone, Copy)]
struct Plan {
    desc: Handle,
    /// Of a, b and the result; NULL until they are made.
    layouts: [Handle; 3],
    algorithm: [u64; 8],
    /// Whether cuBLAS adds the bias; else it is to be added afterwards.
    adds_bias: bool,
}

// SAFETY: a plan is used by one thread at a time, under the lock of its map.
unsafe impl Send for Plan {}

/// cuBLASLt with the plans of all products seen so far.
pub(crate) struct Blas {
    functions: Functions,
    handle: Handle,
    plans: Mutex<HashMap<PlanKey, Plan>>,
    session: Arc<Session>,
}

// SAFETY: a handle may be used by any thread, also by several at once.
unsafe impl Send for Blas {}
// SAFETY: as above; the plans are under a lock.
unsafe impl Sync for Blas {}

/// Where products run: scratch on the device, and a stream.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) workspace: View,
    pub(crate) stream: Handle,
}

fn check(what: &str, status: Status) -> Result<()> {
    if status == 0 {
        return Ok(());
    }
    Err(Error::machine(format!("cuBLAS: {what}: status {status}")))
}

fn cuda_type(kind: Kind) -> Result<c_int> {
    match kind {
        Kind::F32 => Ok(R_32F),
        Kind::F16 => Ok(R_16F),
        Kind::Bf16 => Ok(R_16BF),
        Kind::U32 | Kind::U8 => Err(Error::machine("matrices are f32, bf16 or f16")),
    }
}

/// A value as the attribute functions take it.
fn bytes<T>(value: &T) -> (*const c_void, usize) {
    (std::ptr::from_ref(value).cast(), size_of::<T>())
}

impl Blas {
    /// The newest version on this machine that starts on the session's context, which was entered.
    ///
    /// # Errors
    /// None of them is there, or none starts.
    pub(crate) fn open(session: &Arc<Session>) -> std::result::Result<Self, Failure> {
        let mut reasons = Vec::new();
        for file in FILES {
            match Self::open_file(file, session) {
                Ok(blas) => return Ok(blas),
                Err(reason) => reasons.push(format!("{file}: {reason}")),
            }
        }
        let reason = format!(
            "cuBLAS cannot be used ({}); install NVIDIA's CUDA libraries (package libcublas), or name their folder in LD_LIBRARY_PATH",
            reasons.join("; ")
        );
        Err(Failure::new(Refusal::NoLibrary, reason))
    }

    fn open_file(file: &str, session: &Arc<Session>) -> std::result::Result<Self, String> {
        // SAFETY: NVIDIA's own library, by the name that its installer gives it.
        let library = unsafe { Library::new(file) }.map_err(|error| cause(&error))?;
        let functions = Functions::new(library)?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the pointer can be written.
        match unsafe { (functions.create)(&raw mut handle) } {
            0 => Ok(Self {
                functions,
                handle,
                plans: Mutex::default(),
                session: session.clone(),
            }),
            status => Err(format!("does not start (status {status})")),
        }
    }

    /// Computes a product; says whether its bias, if any, is in.
    ///
    /// # Safety
    /// All views are alive and hold the product's matrices; the workspace is used by this stream alone.
    pub(crate) unsafe fn run(&self, product: &Product, at: Place) -> Result<bool> {
        let c = product.c.unwrap_or(product.out);
        let key = PlanKey::of(product);
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = match plans.get(&key) {
            Some(plan) => *plan,
            None => {
                let plan = self.plan(&key, at.workspace.len)?;
                plans.insert(key, plan);
                plan
            }
        };
        if let (Some(bias), true) = (product.bias, plan.adds_bias) {
            self.set(plan.desc, DESC_BIAS_POINTER, &bias.address)?;
        }
        let (one, beta) = (1f32, if product.c.is_some() { 1f32 } else { 0f32 });
        let [a, b, out] = plan.layouts;
        // SAFETY: descriptors, layouts and algorithm belong together, the matrices and the workspace are the caller's.
        let status = unsafe {
            (self.functions.multiply)(
                self.handle,
                plan.desc,
                bytes(&one).0,
                product.b.address,
                a,
                product.a.address,
                b,
                bytes(&beta).0,
                c.address,
                out,
                product.out.address,
                out,
                &raw const plan.algorithm,
                at.workspace.address,
                at.workspace.len,
                at.stream,
            )
        };
        check("multiplying", status)?;
        Ok(plan.adds_bias)
    }

    fn plan(&self, key: &PlanKey, workspace: usize) -> Result<Plan> {
        match self.plan_with(key, key.has_bias, workspace) {
            // Not every combination of types is known to take a bias; it is then added by a kernel.
            Err(_) if key.has_bias => self.plan_with(key, false, workspace),
            planned => planned,
        }
    }

    fn plan_with(&self, key: &PlanKey, adds_bias: bool, workspace: usize) -> Result<Plan> {
        let mut plan = Plan {
            desc: std::ptr::null_mut(),
            layouts: [std::ptr::null_mut(); 3],
            algorithm: [0; 8],
            adds_bias,
        };
        let filled = self.fill(&mut plan, key, workspace);
        if filled.is_err() {
            self.destroy(&plan);
        }
        filled.map(|()| plan)
    }

    fn fill(&self, plan: &mut Plan, key: &PlanKey, workspace: usize) -> Result<()> {
        // SAFETY: the pointer can be written.
        let status =
            unsafe { (self.functions.create_desc)(&raw mut plan.desc, COMPUTE_32F, R_32F) };
        check("describing a product", status)?;
        for (layout, matrix) in plan.layouts.iter_mut().zip(key.layouts()) {
            let Layout {
                rows, columns, ld, ..
            } = matrix;
            let kind = cuda_type(matrix.kind)?;
            let create = self.functions.create_layout;
            // SAFETY: the pointer can be written.
            let status = unsafe { create(layout, kind, rows as u64, columns as u64, ld as i64) };
            check("describing a matrix", status)?;
        }
        self.set(
            plan.desc,
            DESC_TRANS_A,
            &c_int::from(key.shape.a_transposed),
        )?;
        self.set(
            plan.desc,
            DESC_TRANS_B,
            &c_int::from(key.shape.b_transposed),
        )?;
        if plan.adds_bias {
            self.set(plan.desc, DESC_EPILOGUE, &EPILOGUE_BIAS)?;
        }
        self.choose(plan, &key.alignment, workspace)
    }

    fn set<T>(&self, desc: Handle, attribute: c_int, value: &T) -> Result<()> {
        let (value, len) = bytes(value);
        // SAFETY: the descriptor is alive, and the callers' values are of the attributes' types.
        check("describing a product", unsafe {
            (self.functions.set_desc)(desc, attribute, value, len)
        })
    }

    fn choose(&self, plan: &mut Plan, alignment: &[u32; 4], workspace: usize) -> Result<()> {
        let mut preference = std::ptr::null_mut();
        // SAFETY: the pointer can be written.
        let status = unsafe { (self.functions.create_pref)(&raw mut preference) };
        check("choosing an algorithm", status)?;
        let chosen = self.choose_by(plan, preference, alignment, workspace);
        // SAFETY: it was made above and is used no more. What fails here is memory that stays taken.
        unsafe { (self.functions.destroy_pref)(preference) };
        chosen
    }

    fn choose_by(
        &self,
        plan: &mut Plan,
        preference: Handle,
        alignment: &[u32; 4],
        workspace: usize,
    ) -> Result<()> {
        let set = |attribute: c_int, (value, len): (*const c_void, usize)| {
            // SAFETY: the preference is alive, and the values are of the attributes' types.
            check("choosing an algorithm", unsafe {
                (self.functions.set_pref)(preference, attribute, value, len)
            })
        };
        set(PREF_WORKSPACE_BYTES, bytes(&workspace))?;
        for (attribute, value) in PREF_ALIGNMENTS.into_iter().zip(alignment) {
            set(attribute, bytes(value))?;
        }
        let mut found = Found {
            algorithm: [0; 8],
            workspace: 0,
            state: 0,
            waves: 0.0,
            reserved: [0; 4],
        };
        let mut count = 0;
        let [a, b, out] = plan.layouts;
        // SAFETY: all descriptors are alive, and there is room for one result.
        let status = unsafe {
            (self.functions.choose)(
                self.handle,
                plan.desc,
                a,
                b,
                out,
                out,
                preference,
                1,
                &raw mut found,
                &raw mut count,
            )
        };
        check("choosing an algorithm", status)?;
        if count == 0 {
            return Err(Error::machine("cuBLAS has no algorithm for a product"));
        }
        check("choosing an algorithm", found.state)?;
        plan.algorithm = found.algorithm;
        Ok(())
    }

    fn destroy(&self, plan: &Plan) {
        for layout in plan.layouts.into_iter().filter(|layout| !layout.is_null()) {
            // SAFETY: the plan made it, and nobody uses it after this. What fails here is memory that stays taken.
            unsafe { (self.functions.destroy_layout)(layout) };
        }
        if !plan.desc.is_null() {
            // SAFETY: as above.
            unsafe { (self.functions.destroy_desc)(plan.desc) };
        }
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        let Ok(_entered) = self.session.enter() else {
            return;
        };
        let plans = std::mem::take(self.plans.get_mut().unwrap_or_else(PoisonError::into_inner));
        plans.values().for_each(|plan| self.destroy(plan));
        // SAFETY: it was made by `open_file` and goes with its owner.
        unsafe { (self.functions.destroy)(self.handle) };
    }
}
