//! The ONNX graph of the bundle through tract.

use std::sync::Arc;

use rayon::ThreadPool;
use ssl_edge_bundle::{Bundle, ONNX};
use tract_onnx::prelude::multithread::{Executor, multithread_tract_scope};
use tract_onnx::prelude::*;

use super::{Engine, EngineKind, Shape, Tokens};
use crate::RuntimeError;

/// tract on a graph made concrete at batch 1: dynamic shapes would cost it several fusions.
pub(super) struct Onnx {
    plan: Arc<TypedRunnableModel>,
    shape: Shape,
    executor: Executor,
}

impl Onnx {
    pub(super) fn load(bundle: &Bundle, pool: Arc<ThreadPool>) -> Result<Self, String> {
        let shape = Shape::of(bundle.manifest());
        let graph = bundle.member(ONNX).ok_or("it has no ONNX graph")?;
        let plan = plan(graph, shape).map_err(|error| format!("{error:#}"))?;
        let executor = match pool.current_num_threads() {
            1 => Executor::SingleThread,
            _ => Executor::MultiThread(pool),
        };
        Ok(Self {
            plan,
            shape,
            executor,
        })
    }

    fn image(&self, input: &[f32], tokens: &mut Tokens) -> TractResult<()> {
        let Shape {
            height,
            width,
            n_patches,
            dim,
        } = self.shape;
        let image = Tensor::from_shape(&[1, 3, height, width], input)?;
        let run = || self.plan.run(tvec!(image.into()));
        let outputs = multithread_tract_scope(self.executor.clone(), run)?;
        extend(&mut tokens.cls, &outputs[0], dim)?;
        extend(&mut tokens.patches, &outputs[1], n_patches * dim)
    }
}

impl Engine for Onnx {
    fn kind(&self) -> EngineKind {
        EngineKind::Onnx
    }

    fn run(&self, input: &[f32], batch: usize) -> Result<Tokens, RuntimeError> {
        let Shape {
            height,
            width,
            n_patches,
            dim,
        } = self.shape;
        let mut tokens = Tokens {
            cls: Vec::with_capacity(batch * dim),
            patches: Vec::with_capacity(batch * n_patches * dim),
        };
        for image in input.chunks_exact(3 * height * width) {
            self.image(image, &mut tokens)
                .map_err(|error| RuntimeError::Run {
                    engine: EngineKind::Onnx,
                    reason: format!("{error:#}"),
                })?;
        }
        Ok(tokens)
    }
}

fn plan(graph: &[u8], shape: Shape) -> TractResult<Arc<TypedRunnableModel>> {
    let input = f32::fact([1, 3, shape.height, shape.width]);
    let model = tract_onnx::onnx()
        .model_for_read(&mut &*graph)?
        .with_input_fact(0, input.into())?
        .into_optimized()?;
    let outputs = model.output_outlets()?.len();
    if outputs != 2 {
        return Err(TractError::msg(format!(
            "the graph has {outputs} outputs, not `cls` and `patches`"
        )));
    }
    model.into_runnable()
}

fn extend(values: &mut Vec<f32>, output: &TValue, len: usize) -> TractResult<()> {
    let output = output.to_plain_array_view::<f32>()?;
    if output.len() != len {
        return Err(TractError::msg(format!(
            "an output has {} values instead of {len}",
            output.len()
        )));
    }
    values.extend(output.iter());
    Ok(())
}
