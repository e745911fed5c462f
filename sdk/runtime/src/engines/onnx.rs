//! The ONNX graph of the bundle through tract: ours, or one that was imported.

use std::sync::Arc;

use rayon::ThreadPool;
use ssl_edge_bundle::{Bundle, ClsSource, GraphSpec, Manifest, ONNX, PatchSource};
use tract_onnx::prelude::multithread::{Executor, multithread_tract_scope};
use tract_onnx::prelude::*;
use tract_onnx::tract_core::plan;

use super::{Engine, EngineKind, Unfit, check_lengths};
use crate::embedding::mean_rows;
use crate::graph::checked::{Checked, guarded};
use crate::{GraphError, Interruption, Limit, Reached, RuntimeError};

/// tract on a graph made concrete at batch 1: dynamic shapes would cost it several fusions.
pub(crate) struct Onnx {
    plan: Arc<TypedRunnableModel>,
    wiring: Wiring,
    executor: Executor,
    threads: usize,
}

/// Which outputs of the plan are read, and how.
struct Wiring {
    /// Height and width of the image in pixels.
    size: [usize; 2],
    dim: usize,
    n_patches: usize,
    cls: ClsSource,
    patches: PatchSource,
    /// Outputs of the plan.
    outputs: Vec<String>,
}

/// Ends a plan between two operations.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Interrupted(Interruption);

impl Wiring {
    /// The graph of a transformer of ours has outputs `cls [B, D]` and `patches [B, N, D]`.
    fn of(manifest: &Manifest) -> Self {
        if let Some(graph) = manifest.graph() {
            return Self::of_graph(graph, manifest.input_size());
        }
        let [cls, patches] = ["cls", "patches"].map(str::to_owned);
        let cls = ClsSource::Vector { output: cls };
        let patches = PatchSource::Tokens {
            output: patches,
            skip: 0,
        };
        Self::new(
            (cls, patches),
            manifest.dim(),
            manifest.grid(),
            manifest.input_size(),
        )
    }

    fn of_graph(graph: &GraphSpec, size: [usize; 2]) -> Self {
        let sources = (graph.cls.clone(), graph.patches.clone());
        Self::new(sources, graph.dim, graph.grid, size)
    }

    fn new(
        (cls, patches): (ClsSource, PatchSource),
        dim: usize,
        [rows, columns]: [usize; 2],
        size: [usize; 2],
    ) -> Self {
        let mut outputs: Vec<String> = Vec::new();
        for name in [cls.output(), patches.output()].into_iter().flatten() {
            if !outputs.iter().any(|output| output == name) {
                outputs.push(name.to_owned());
            }
        }
        Self {
            size,
            dim,
            n_patches: rows * columns,
            cls,
            patches,
            outputs,
        }
    }

    /// `cls [D]` and `patches [N, D]` of one image from the plan's outputs.
    fn read(&self, values: &[TValue], cls: &mut [f32], patches: &mut [f32]) -> TractResult<()> {
        let dim = self.dim;
        if let Some(name) = self.patches.output() {
            let output = self.output(values, name)?;
            match self.patches {
                PatchSource::Tokens { skip, .. } => {
                    expect(name, output, skip * dim + patches.len())?;
                    patches.copy_from_slice(&output[skip * dim..]);
                }
                PatchSource::Map { .. } => {
                    expect(name, output, patches.len())?;
                    for (position, token) in patches.chunks_exact_mut(dim).enumerate() {
                        for (channel, value) in token.iter_mut().enumerate() {
                            *value = output[channel * self.n_patches + position];
                        }
                    }
                }
                PatchSource::MapLast { .. } | PatchSource::Cls => {
                    expect(name, output, patches.len())?;
                    patches.copy_from_slice(output);
                }
            }
        }
        match &self.cls {
            ClsSource::Mean => cls.copy_from_slice(&mean_rows(patches, dim)),
            ClsSource::Vector { output } => {
                let values = self.output(values, output)?;
                expect(output, values, dim)?;
                cls.copy_from_slice(values);
            }
            ClsSource::First { output } => {
                let values = self.output(values, output)?;
                let first = values
                    .get(..dim)
                    .ok_or_else(|| short(output, values, dim))?;
                cls.copy_from_slice(first);
            }
        }
        if self.patches == PatchSource::Cls {
            patches.copy_from_slice(cls);
        }
        Ok(())
    }

    fn output<'a>(&self, values: &'a [TValue], name: &str) -> TractResult<&'a [f32]> {
        let index = self.outputs.iter().position(|output| output == name);
        let value = index.and_then(|index| values.get(index));
        let value = value.ok_or_else(|| TractError::msg(format!("there is no output {name}")))?;
        value.try_as_plain_ram()?.as_slice::<f32>()
    }
}

fn expect(name: &str, values: &[f32], len: usize) -> TractResult<()> {
    match values.len() == len {
        true => Ok(()),
        false => Err(short(name, values, len)),
    }
}

fn short(name: &str, values: &[f32], len: usize) -> TractError {
    let found = values.len();
    TractError::msg(format!("output {name} has {found} values instead of {len}"))
}

impl Onnx {
    pub(super) fn load(bundle: &Bundle, pool: Arc<ThreadPool>) -> Result<Self, Unfit> {
        let graph = Checked::read(&bundle.member(ONNX)?).map_err(|error| error.to_string())?;
        let threads = pool.current_num_threads();
        let executor = match threads {
            1 => Executor::SingleThread,
            _ => Executor::MultiThread(pool),
        };
        let wiring = Wiring::of(bundle.manifest());
        let engine = Self::new(&graph, wiring, executor, threads);
        engine.map_err(|error| error.to_string().into())
    }

    /// On the caller's thread, outside any bundle.
    pub(crate) fn of_graph(
        graph: &Checked,
        spec: &GraphSpec,
        size: [usize; 2],
    ) -> Result<Self, GraphError> {
        let wiring = Wiring::of_graph(spec, size);
        Self::new(graph, wiring, Executor::SingleThread, 1)
    }

    fn new(
        graph: &Checked,
        wiring: Wiring,
        executor: Executor,
        threads: usize,
    ) -> Result<Self, GraphError> {
        let outputs: Vec<&str> = wiring.outputs.iter().map(String::as_str).collect();
        let size = graph.size(Some(wiring.size))?;
        Ok(Self {
            plan: graph.plan(size, &outputs)?,
            wiring,
            executor,
            threads,
        })
    }

    /// Runs the plan on one image, until `limit` says to stop; `steps` counts its operations.
    fn image(&self, input: &[f32], limit: &Limit, steps: &mut usize) -> TractResult<TVec<TValue>> {
        let [height, width] = self.wiring.size;
        let image = Tensor::from_shape(&[1, 3, height, width], input)?;
        let mut state = self.plan.spawn()?;
        multithread_tract_scope(self.executor.clone(), || {
            state.run_plan_with_eval(tvec!(image.into()), |context, state, node, inputs| {
                if let Some(reason) = limit.passed() {
                    return Err(TractError::new(Interrupted(reason)));
                }
                let outputs = plan::eval(context, state, node, inputs);
                *steps += 1;
                outputs
            })
        })
    }
}

impl Engine for Onnx {
    fn kind(&self) -> EngineKind {
        EngineKind::Onnx
    }

    fn threads(&self) -> Option<usize> {
        Some(self.threads)
    }

    fn lengths(&self) -> [usize; 2] {
        let Wiring { dim, n_patches, .. } = self.wiring;
        [dim, n_patches * dim]
    }

    fn run_into(
        &self,
        input: &[f32],
        batch: usize,
        cls: &mut [f32],
        patches: &mut [f32],
    ) -> Result<(), RuntimeError> {
        self.run_until(input, batch, cls, patches, &Limit::default())
    }

    fn run_until(
        &self,
        input: &[f32],
        batch: usize,
        cls: &mut [f32],
        patches: &mut [f32],
        limit: &Limit,
    ) -> Result<(), RuntimeError> {
        let Wiring {
            size: [height, width],
            dim,
            n_patches,
            ..
        } = self.wiring;
        let image = 3 * height * width;
        check_lengths(
            EngineKind::Onnx,
            batch,
            [
                (input.len(), image),
                (cls.len(), dim),
                (patches.len(), n_patches * dim),
            ],
        )?;
        let fail = |reason: String| RuntimeError::Run {
            engine: EngineKind::Onnx,
            reason,
        };
        let frames = input
            .chunks_exact(image)
            .zip(cls.chunks_exact_mut(dim))
            .zip(patches.chunks_exact_mut(n_patches * dim));
        for (frame, ((input, cls), patches)) in frames.enumerate() {
            let mut steps = 0;
            let mut reason = None;
            let values = guarded(|| {
                let values = self.image(input, limit, &mut steps);
                if let Err(error) = &values {
                    reason = error.downcast_ref::<Interrupted>().map(|found| found.0);
                }
                self.wiring.read(&values?, cls, patches)
            });
            if let Some(reason) = reason {
                return Err(RuntimeError::Interrupted {
                    engine: EngineKind::Onnx,
                    reason,
                    reached: Reached {
                        frames: frame,
                        of_frames: batch,
                        steps,
                        of_steps: self.plan.order_without_consts().len(),
                    },
                });
            }
            values.map_err(fail)?;
        }
        Ok(())
    }
}
