//! Between candle's tensors and the machine: custom operations on CUDA tensors.

use std::sync::Arc;

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::op::BackpropOp;
use candle_core::{CudaStorage, DType, Layout, Result, Shape, Storage, Tensor, bail};

use super::linear::{Layer, cast, to_work};
use super::{Cuda, Kind, Machine, OrCandle, View, attention, kernels, machine_of};
use crate::ops::{Gelu, Sizes};

/// The values of a contiguous f32 tensor's storage.
pub(crate) fn view(storage: &CudaStorage, layout: &Layout) -> Result<View> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("kernel needs a contiguous tensor, got {layout:?}")
    };
    let slice = storage.as_cuda_slice::<f32>()?;
    let machine = machine_of(storage.device())?;
    let address = machine.address(slice) + 4 * start as u64;
    Ok(View {
        address,
        len: end - start,
        kind: Kind::F32,
    })
}

/// The values of a contiguous f32 tensor, which must stay alive.
pub(crate) fn view_of(tensor: &Tensor) -> Result<View> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cuda(storage) => view(storage, layout),
        _ => bail!("kernel needs a CUDA tensor: parameters and inputs are on different devices"),
    }
}

/// The machine of a CUDA tensor.
pub(crate) fn machine(tensor: &Tensor) -> Result<Arc<Cuda>> {
    machine_of(tensor.device().as_cuda_device()?)
}

/// An f32 result in the making.
pub(crate) struct Output {
    slice: CudaSlice<f32>,
    len: usize,
    address: u64,
}

impl Output {
    pub(crate) fn new(machine: &Cuda, len: usize) -> Result<Self> {
        let slice = machine.slice::<f32>(len)?;
        let address = machine.address(&slice);
        Ok(Self {
            slice,
            len,
            address,
        })
    }

    pub(crate) fn view(&self) -> View {
        View {
            address: self.address,
            len: self.len,
            kind: Kind::F32,
        }
    }

    pub(crate) fn storage(self, machine: &Cuda) -> CudaStorage {
        CudaStorage::wrap_cuda_slice(self.slice, machine.device.clone())
    }

    pub(crate) fn tensor(self, machine: &Cuda, shape: impl Into<Shape>) -> Tensor {
        let storage = Storage::Cuda(self.storage(machine));
        Tensor::from_storage(storage, shape, BackpropOp::none(), false)
    }
}

pub(crate) type Computed = Result<(CudaStorage, Shape)>;
pub(crate) type Args<'a> = (&'a CudaStorage, &'a Layout);

pub(crate) fn first((storage, layout): Args<'_>) -> Result<(Arc<Cuda>, View)> {
    Ok((machine_of(storage.device())?, view(storage, layout)?))
}

pub(crate) fn layer_norm(x: Args<'_>, w: Args<'_>, b: Args<'_>, eps: f32) -> Computed {
    let (machine, values) = first(x)?;
    let y = Output::new(&machine, values.len)?;
    let pair = [view(w.0, w.1)?, view(b.0, b.1)?];
    kernels::layer_norm(&*machine, values, pair, y.view(), eps).or_candle()?;
    Ok((y.storage(&machine), x.1.shape().clone()))
}

/// Gradients of `x`, weight and bias.
pub(crate) fn layer_norm_grad(
    x: &Tensor,
    w: &Tensor,
    b: &Tensor,
    grad: &Tensor,
    eps: f32,
) -> Result<[Tensor; 3]> {
    let machine = machine(x)?;
    let (x, grad) = (x.contiguous()?, grad.contiguous()?);
    let (xv, wv) = (view_of(&x)?, view_of(w)?);
    let [dx, dw, db] = [xv.len, wv.len, wv.len].map(|len| Output::new(&machine, len));
    let (dx, dw, db) = (dx?, dw?, db?);
    let pair = [wv, view_of(b)?];
    let stats = kernels::layer_norm(&*machine, xv, pair, dx.view(), eps).or_candle()?;
    let at = kernels::NormGrad {
        x: xv,
        weight: wv,
        stats: stats.view,
        grad: view_of(&grad)?,
        add: None,
        narrow: None,
    };
    let sums = [dw.view(), db.view()];
    kernels::layer_norm_grad(&*machine, &at, dx.view(), sums, false).or_candle()?;
    Ok([
        dx.tensor(&machine, x.shape()),
        dw.tensor(&machine, w.shape()),
        db.tensor(&machine, b.shape()),
    ])
}

pub(crate) fn gelu(x: Args<'_>, form: Gelu) -> Computed {
    let (machine, values) = first(x)?;
    let y = Output::new(&machine, values.len)?;
    kernels::gelu(&*machine, values, y.view(), form.into()).or_candle()?;
    Ok((y.storage(&machine), x.1.shape().clone()))
}

pub(crate) fn gelu_grad(x: &Tensor, grad: &Tensor, form: Gelu) -> Result<Tensor> {
    let machine = machine(x)?;
    let (x, grad) = (x.contiguous()?, grad.contiguous()?);
    let dx = Output::new(&machine, x.elem_count())?;
    kernels::gelu_grad(
        &*machine,
        view_of(&x)?,
        view_of(&grad)?,
        None,
        dx.view(),
        form.into(),
    )
    .or_candle()?;
    Ok(dx.tensor(&machine, x.shape()))
}

/// Sizes `[M, N, K]` and the result's shape are the caller's.
pub(crate) fn linear(
    x: Args<'_>,
    w: Args<'_>,
    bias: Option<Args<'_>>,
    [m, n, k]: [usize; 3],
    shape: Shape,
) -> Computed {
    let (machine, values) = first(x)?;
    let bias = bias.map(|b| view(b.0, b.1)).transpose()?;
    let layer = Layer::new(&*machine, view(w.0, w.1)?, bias, [n, k]).or_candle()?;
    let values = to_work(&*machine, values).or_candle()?;
    let y = Output::new(&machine, m * n)?;
    layer
        .forward(&*machine, values.view, None, y.view())
        .or_candle()?;
    Ok((y.storage(&machine), shape))
}

/// Gradients of `x`, unless it needs none, of the weight, and of a bias where there is one.
pub(crate) fn linear_grad(
    x: &Tensor,
    w: &Tensor,
    grad: &Tensor,
    input_grad: bool,
    has_bias: bool,
) -> Result<(Option<Tensor>, Tensor, Option<Tensor>)> {
    let machine = machine(x)?;
    let (n, k) = w.dims2()?;
    let (x, w, grad) = (x.contiguous()?, w.contiguous()?, grad.contiguous()?);
    let layer = Layer::new(&*machine, view_of(&w)?, None, [n, k]).or_candle()?;
    let gv = view_of(&grad)?;
    let xs = to_work(&*machine, view_of(&x)?).or_candle()?;
    let gs = to_work(&*machine, gv).or_candle()?;
    let dw = Output::new(&machine, n * k)?;
    layer
        .weight_grad(&*machine, xs.view, gs.view, dw.view(), false)
        .or_candle()?;
    let db = match has_bias {
        true => {
            let db = Output::new(&machine, n)?;
            kernels::column_sums(&*machine, gv, db.view(), false).or_candle()?;
            Some(db.tensor(&machine, n))
        }
        false => None,
    };
    let dx = match input_grad {
        true => {
            let dx = Output::new(&machine, x.elem_count())?;
            layer
                .input_grad(&*machine, gs.view, dx.view())
                .or_candle()?;
            Some(dx.tensor(&machine, x.shape()))
        }
        false => None,
    };
    Ok((dx, dw.tensor(&machine, (n, k)), db))
}

pub(crate) fn attention(qkv: Args<'_>, sizes: &Sizes, shape: Shape) -> Computed {
    let (machine, values) = first(qkv)?;
    let values = to_work(&*machine, values).or_candle()?;
    let attended = attention::forward(&*machine, values.view, &(*sizes).into()).or_candle()?;
    let out = Output::new(&machine, attended.out.view.len)?;
    kernels::scale(&*machine, attended.out.view, None, out.view()).or_candle()?;
    Ok((out.storage(&machine), shape))
}

pub(crate) fn attention_grad(qkv: &Tensor, grad: &Tensor, sizes: &Sizes) -> Result<Tensor> {
    let machine = machine(qkv)?;
    let (qkv, grad) = (qkv.contiguous()?, grad.contiguous()?);
    let sizes = (*sizes).into();
    let values = to_work(&*machine, view_of(&qkv)?).or_candle()?;
    let upstream = to_work(&*machine, view_of(&grad)?).or_candle()?;
    let attended = attention::forward(&*machine, values.view, &sizes).or_candle()?;
    let dqkv = attention::backward(&*machine, values.view, &attended, upstream.view, &sizes);
    let dqkv = dqkv.or_candle()?;
    let out = Output::new(&machine, dqkv.view.len)?;
    let narrow = cast(&*machine, dqkv.view, machine.work()).or_candle()?;
    kernels::scale(&*machine, narrow.view, None, out.view()).or_candle()?;
    Ok(out.tensor(&machine, qkv.shape()))
}

pub(crate) fn patchify(images: Args<'_>, dims: [usize; 4], patch: usize, shape: Shape) -> Computed {
    let (machine, values) = first(images)?;
    let out = Output::new(&machine, values.len)?;
    kernels::patchify(&*machine, values, dims, patch, out.view()).or_candle()?;
    Ok((out.storage(&machine), shape))
}

/// What an operation says on the CPU.
pub(crate) fn needs_gpu<T>(name: &str) -> Result<T> {
    bail!("{name} is an operation on CUDA tensors")
}

/// A tensor of f32 values that are yet to be written.
pub(crate) fn empty_like(param: &Tensor) -> Result<Tensor> {
    // SAFETY: the caller writes it before it is read.
    unsafe { Tensor::empty(param.shape(), DType::F32, param.device()) }
}
