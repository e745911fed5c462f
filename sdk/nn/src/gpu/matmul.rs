//! Matrix products by cuBLASLt, with bias and summand in the same pass. Sums are in f32.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cublaslt::{result, sys};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaStream, DevicePtr};
use candle_core::{Error, Result, bail};

use super::{Kind, Layout, PlanKey, Product};

/// Scratch of cuBLAS: what NVIDIA recommends for Hopper.
const WORKSPACE: usize = 32 << 20;

/// A product that cuBLAS is ready for.
struct Plan {
    product: sys::cublasLtMatmulDesc_t,
    layouts: [sys::cublasLtMatrixLayout_t; 3],
    algorithm: sys::cublasLtMatmulAlgo_t,
    /// Whether cuBLAS adds the bias; else it is to be added afterwards.
    adds_bias: bool,
}

// SAFETY: a plan is used by one thread at a time, under the lock of its map.
unsafe impl Send for Plan {}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: the plan made them, and nobody uses them after it. What fails here is memory that stays taken.
        unsafe {
            let _ = result::destroy_matmul_desc(self.product);
            for layout in self.layouts {
                let _ = result::destroy_matrix_layout(layout);
            }
        }
    }
}

/// cuBLASLt on one stream, with the plans of all products seen so far.
pub(super) struct Matmul {
    handle: Handle,
    workspace: CudaSlice<u8>,
    stream: Arc<CudaStream>,
    plans: Mutex<HashMap<PlanKey, Plan>>,
}

struct Handle(sys::cublasLtHandle_t);

// SAFETY: a handle may be used by any thread.
unsafe impl Send for Handle {}
// SAFETY: cublasLtMatmul may be called by several threads at once.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: it was made by create_handle and goes with its owner.
        let _ = unsafe { result::destroy_handle(self.0) };
    }
}

fn cuda_type(kind: Kind) -> Result<sys::cudaDataType> {
    match kind {
        Kind::F32 => Ok(sys::cudaDataType::CUDA_R_32F),
        Kind::Bf16 => Ok(sys::cudaDataType::CUDA_R_16BF),
        Kind::F16 => Ok(sys::cudaDataType::CUDA_R_16F),
        Kind::U32 | Kind::U8 => bail!("matrices are f32, bf16 or f16"),
    }
}

fn failed(error: result::CublasError) -> Error {
    Error::Cuda(format!("cuBLAS: {error}").into()).bt()
}

/// A value as the attribute functions take it.
fn bytes<T>(value: &T) -> (*const c_void, usize) {
    (std::ptr::from_ref(value).cast(), size_of::<T>())
}

impl Matmul {
    pub(super) fn new(stream: Arc<CudaStream>) -> Result<Self> {
        stream.context().bind_to_thread().w()?;
        let handle = Handle(result::create_handle().map_err(failed)?);
        // SAFETY: cuBLAS reads nothing there that it has not written.
        let workspace = unsafe { stream.alloc::<u8>(WORKSPACE) }.w()?;
        Ok(Self {
            handle,
            workspace,
            stream,
            plans: Mutex::default(),
        })
    }

    /// Computes a product; says whether its bias, if any, is in.
    ///
    /// # Safety
    /// All views are alive and hold the product's matrices.
    pub(super) unsafe fn run(&self, product: &Product) -> Result<bool> {
        let c = product.c.unwrap_or(product.out);
        let key = PlanKey::of(product);
        self.stream.context().bind_to_thread().w()?;
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = match plans.entry(key) {
            std::collections::hash_map::Entry::Occupied(found) => found.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => place.insert(self.plan(&key)?),
        };
        if let (Some(bias), true) = (product.bias, plan.adds_bias) {
            set(
                plan.product,
                sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                &bias.address,
            )?;
        }
        let (one, beta) = (1f32, if product.c.is_some() { 1f32 } else { 0f32 });
        let [a, b, out] = plan.layouts;
        let (workspace, _guard) = self.workspace.device_ptr(&self.stream);
        // SAFETY: descriptors, layouts and algorithm belong together, the matrices are the caller's, and the workspace is used by this
        // stream alone, in order.
        unsafe {
            result::matmul(
                self.handle.0,
                plan.product,
                bytes(&one).0,
                bytes(&beta).0,
                product.b.address as *const c_void,
                a,
                product.a.address as *const c_void,
                b,
                c.address as *const c_void,
                out,
                product.out.address as *mut c_void,
                out,
                &raw const plan.algorithm,
                workspace as *mut c_void,
                WORKSPACE,
                self.stream.cu_stream().cast(),
            )
        }
        .map_err(failed)?;
        Ok(plan.adds_bias)
    }

    fn plan(&self, key: &PlanKey) -> Result<Plan> {
        match self.plan_with(key, key.has_bias) {
            // Not every combination of types is known to take a bias; it is then added by a kernel.
            Err(_) if key.has_bias => self.plan_with(key, false),
            planned => planned,
        }
    }

    fn plan_with(&self, key: &PlanKey, adds_bias: bool) -> Result<Plan> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        let compute = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let product =
            result::create_matmul_desc(compute, sys::cudaDataType::CUDA_R_32F).map_err(failed)?;
        let layout = |matrix: Layout| {
            let (rows, columns) = (matrix.rows as u64, matrix.columns as u64);
            let kind = cuda_type(matrix.kind)?;
            result::create_matrix_layout(kind, rows, columns, matrix.ld as i64).map_err(failed)
        };
        let [a, b, out] = key.layouts();
        let layouts = [layout(a)?, layout(b)?, layout(out)?];
        let mut plan = Plan {
            product,
            layouts,
            algorithm: sys::cublasLtMatmulAlgo_t { data: [0; 8] },
            adds_bias,
        };
        set(
            product,
            Attribute::CUBLASLT_MATMUL_DESC_TRANSA,
            &i32::from(key.shape.a_transposed),
        )?;
        set(
            product,
            Attribute::CUBLASLT_MATMUL_DESC_TRANSB,
            &i32::from(key.shape.b_transposed),
        )?;
        if adds_bias {
            set(
                product,
                Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE,
                &sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS,
            )?;
        }
        plan.algorithm = self.algorithm(&plan, &key.alignment)?;
        Ok(plan)
    }

    fn algorithm(&self, plan: &Plan, alignment: &[u32; 4]) -> Result<sys::cublasLtMatmulAlgo_t> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        let preference = result::create_matmul_pref().map_err(failed)?;
        let [a, b, out] = plan.layouts;
        let attributes = [
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
        ];
        let choose = || {
            let (size, len) = bytes(&WORKSPACE);
            let attribute = Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
            // SAFETY: the preference is alive, and the attribute is a size.
            unsafe { result::set_matmul_pref_attribute(preference, attribute, size, len) }?;
            for (attribute, value) in attributes.into_iter().zip(alignment) {
                let (value, len) = bytes(value);
                // SAFETY: as above; the attribute is a 32-bit number.
                unsafe { result::set_matmul_pref_attribute(preference, attribute, value, len) }?;
            }
            // SAFETY: all descriptors are alive.
            unsafe {
                result::get_matmul_algo_heuristic(
                    self.handle.0,
                    plan.product,
                    a,
                    b,
                    out,
                    out,
                    preference,
                )
            }
        };
        let chosen = choose();
        // SAFETY: it was made above and is used no more. What fails here is memory that stays taken.
        let _ = unsafe { result::destroy_matmul_pref(preference) };
        Ok(chosen.map_err(failed)?.algo)
    }
}

fn set<T>(
    product: sys::cublasLtMatmulDesc_t,
    attribute: sys::cublasLtMatmulDescAttributes_t,
    value: &T,
) -> Result<()> {
    let (value, len) = bytes(value);
    // SAFETY: the descriptor is alive, and the callers' values are of the attributes' types.
    unsafe { result::set_matmul_desc_attribute(product, attribute, value, len) }.map_err(failed)
}
