//! Transformer blocks as one operation on CUDA tensors.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CudaStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::block::{Blocks, Paths, Sink, Trace, Weights};
use super::ops::{Computed, Output, first, machine, needs_gpu, view_of};
use super::{Cuda, Kind, Machine, OrCandle, View, kernels};
use crate::grads::accumulate_pair;
use crate::ops::{BlockParams, PathFactors, Sizes};

/// Transformer blocks after each other as one operation.
pub(crate) struct FusedBlocks {
    params: Vec<Arc<BlockParams>>,
    paths: Option<Vec<PathFactors>>,
    sizes: Sizes,
    trace: Mutex<Option<Trace>>,
}

impl FusedBlocks {
    pub(crate) fn new(
        params: Vec<Arc<BlockParams>>,
        paths: Option<Vec<PathFactors>>,
        sizes: Sizes,
    ) -> Self {
        Self {
            params,
            paths,
            sizes,
            trace: Mutex::new(None),
        }
    }

    fn blocks<'a>(&self, machine: &'a Cuda) -> Result<Blocks<'a>> {
        let weights = |p: &Arc<BlockParams>| -> Result<Weights> {
            let mut pairs = Vec::with_capacity(6);
            for affine in p.affines() {
                pairs.push([view_of(&affine.weight)?, view_of(&affine.bias)?]);
            }
            match <[[View; 2]; 6]>::try_from(pairs) {
                Ok(pairs) => Ok(Weights {
                    pairs,
                    gelu: p.gelu.into(),
                    eps: p.eps as f32,
                }),
                Err(_) => bail!("a block has six pairs of parameters"),
            }
        };
        let put = |factors: &Vec<f32>| {
            let bytes: Vec<u8> = factors.iter().flat_map(|v| v.to_ne_bytes()).collect();
            machine.upload(Kind::F32, &bytes).or_candle()
        };
        let paths = self.paths.as_ref().map(|paths| {
            let both =
                |path: &PathFactors| -> Result<Paths> { Ok([put(&path[0])?, put(&path[1])?]) };
            paths.iter().map(both).collect::<Result<Vec<_>>>()
        });
        Ok(Blocks {
            machine,
            weights: self.params.iter().map(weights).collect::<Result<_>>()?,
            paths: paths.transpose()?,
            sizes: self.sizes.into(),
        })
    }
}

/// Gradients of a block's parameters go where [`crate::backward`] collects them.
struct Collected<'a>(&'a [Arc<BlockParams>]);

impl Sink for Collected<'_> {
    fn pair(
        &mut self,
        block: usize,
        pair: usize,
        write: &mut dyn FnMut([View; 2], bool) -> ssl_edge_gpu::Result<()>,
    ) -> ssl_edge_gpu::Result<()> {
        let affine = self.0[block].affines()[pair];
        accumulate_pair([&affine.weight, &affine.bias], &mut |to, add| {
            write(to, add).or_candle()
        })
        .map_err(ssl_edge_gpu::Error::machine)
    }
}

impl CustomOp2 for FusedBlocks {
    fn name(&self) -> &'static str {
        "transformer_blocks"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        needs_gpu(self.name())
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        layout: &Layout,
        _anchor: &CudaStorage,
        _: &Layout,
    ) -> Computed {
        let (machine, x) = first((x, layout))?;
        let y = Output::new(&machine, x.len)?;
        let keep = self.params.iter().any(|p| p.trained().next().is_some());
        let trace = self
            .blocks(&machine)?
            .forward(x, y.view(), keep, machine.recompute)
            .or_candle()?;
        if keep {
            *self.trace.lock().unwrap_or_else(PoisonError::into_inner) = Some(trace);
        }
        Ok((y.storage(&machine), layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        _anchor: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let machine = machine(x)?;
        let (x, grad) = (x.contiguous()?, grad.contiguous()?);
        let blocks = self.blocks(&machine)?;
        let kept = self
            .trace
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let trace = match kept {
            Some(trace) => trace,
            // a second backward pass over one graph
            None => blocks
                .forward(
                    view_of(&x)?,
                    Output::new(&machine, x.elem_count())?.view(),
                    true,
                    machine.recompute,
                )
                .or_candle()?,
        };
        let mut sink = Collected(&self.params);
        let dx = blocks.backward(view_of(&x)?, view_of(&grad)?, trace, &mut sink);
        let dx = dx.or_candle()?;
        let out = Output::new(&machine, dx.view.len)?;
        kernels::scale(&*machine, dx.view, None, out.view()).or_candle()?;
        Ok((Some(out.tensor(&machine, x.shape())), None))
    }
}
