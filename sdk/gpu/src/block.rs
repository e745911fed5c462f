//! Transformer blocks on a machine, forward and backward by hand; see `ssl-edge-nn` for what a block is.
//!
//! The residual stream is f32, what lies between two norms and the next residual is in the type of products. For the backward a block
//! keeps its input and, unless it is to compute them again, 20 bytes per channel and token in bf16: both norms, `qkv`, the attended
//! values, `x₁`, the MLP's hidden values.

use crate::{Result, bail};

use crate::attention::{self, Attended};
use crate::linear::Layer;
use crate::{Gelu, Sizes};
use crate::{Kind, Machine, Memory, View, kernels};

/// Parameters of one block, f32, weight before bias: norm1, qkv, proj, norm2, fc1, fc2.
pub struct Weights {
    /// By pair.
    pub pairs: [[View; 2]; 6],
    /// The MLP's activation.
    pub gelu: Gelu,
    /// Added to the variance by both norms.
    pub eps: f32,
}

/// Places in [`Weights::pairs`].
const NORM1: usize = 0;
const QKV: usize = 1;
const PROJ: usize = 2;
const NORM2: usize = 3;
const FC1: usize = 4;
const FC2: usize = 5;

/// Factors on a block's two residual branches, a value for each image.
pub type Paths = [Memory; 2];

/// Where gradients of parameters go: calls the function with the gradients of a pair and whether to add to what is there.
pub trait Sink {
    /// Lets `write` put the gradients of a pair where they belong.
    ///
    /// # Errors
    /// Those of `write`, and of making room.
    fn pair(
        &mut self,
        block: usize,
        pair: usize,
        write: &mut dyn FnMut([View; 2], bool) -> Result<()>,
    ) -> Result<()>;
}

/// What the backward of one block reads.
pub struct Saved {
    stats1: Memory,
    normed1: Memory,
    qkv: Memory,
    attended: Attended,
    x1: Memory,
    stats2: Memory,
    normed2: Memory,
    hidden: Memory,
}

/// What a pass through several blocks leaves for its backward.
pub struct Trace {
    /// Inputs of all blocks but the first.
    inputs: Vec<Memory>,
    /// `None` where a block is to be computed again.
    saved: Vec<Option<Saved>>,
}

/// Blocks on images of `sizes`.
pub struct Blocks<'a> {
    /// Where they run.
    pub machine: &'a dyn Machine,
    /// Parameters of each.
    pub weights: Vec<Weights>,
    /// Factors of each, or 1.
    pub paths: Option<Vec<Paths>>,
    /// Sizes of the attention.
    pub sizes: Sizes,
}

struct Layers {
    qkv: Layer,
    proj: Layer,
    fc1: Layer,
    fc2: Layer,
}

impl Blocks<'_> {
    fn layers(&self, block: usize) -> Result<Layers> {
        let w = &self.weights[block];
        let d = self.sizes.dim;
        let hidden = w.pairs[FC1][1].len;
        let layer = |pair: usize, shape| {
            Layer::new(
                self.machine,
                w.pairs[pair][0],
                Some(w.pairs[pair][1]),
                shape,
            )
        };
        Ok(Layers {
            qkv: layer(QKV, [3 * d, d])?,
            proj: layer(PROJ, [d, d])?,
            fc1: layer(FC1, [hidden, d])?,
            fc2: layer(FC2, [d, hidden])?,
        })
    }

    fn factors(&self, block: usize, branch: usize) -> Option<&Memory> {
        self.paths.as_ref().map(|paths| &paths[block][branch])
    }

    fn norm(&self, block: usize, pair: usize, x: View) -> Result<(Memory, Memory)> {
        let w = &self.weights[block];
        let y = self.machine.alloc(self.machine.work(), x.len)?;
        let stats = kernels::layer_norm(self.machine, x, w.pairs[pair], y.view, w.eps)?;
        Ok((y, stats))
    }

    /// `residual + factor (x Wᵀ + b)` into `out`.
    fn branch(
        &self,
        layer: &Layer,
        x: View,
        residual: View,
        factors: Option<&Memory>,
        out: View,
    ) -> Result<()> {
        let Some(factors) = factors else {
            return layer.forward(self.machine, x, Some(residual), out);
        };
        let branch = self.machine.alloc(self.machine.work(), out.len)?;
        layer.forward(self.machine, x, None, branch.view)?;
        kernels::residual(self.machine, residual, branch.view, factors.view, out)
    }

    /// Everything up to the MLP's hidden values.
    fn to_hidden(&self, block: usize, layers: &Layers, x: View) -> Result<Saved> {
        let (machine, work) = (self.machine, self.machine.work());
        let (normed1, stats1) = self.norm(block, NORM1, x)?;
        let qkv = machine.alloc(work, 3 * x.len)?;
        layers.qkv.forward(machine, normed1.view, None, qkv.view)?;
        let attended = attention::forward(machine, qkv.view, &self.sizes)?;
        let x1 = machine.alloc(Kind::F32, x.len)?;
        self.branch(
            &layers.proj,
            attended.out.view,
            x,
            self.factors(block, 0),
            x1.view,
        )?;
        let (normed2, stats2) = self.norm(block, NORM2, x1.view)?;
        let hidden = self.weights[block].pairs[FC1][1].len;
        let hidden = machine.alloc(work, x.len / self.sizes.dim * hidden)?;
        layers
            .fc1
            .forward(machine, normed2.view, None, hidden.view)?;
        Ok(Saved {
            stats1,
            normed1,
            qkv,
            attended,
            x1,
            stats2,
            normed2,
            hidden,
        })
    }

    fn block(&self, block: usize, x: View, y: View) -> Result<Saved> {
        let layers = self.layers(block)?;
        let saved = self.to_hidden(block, &layers, x)?;
        let active = self
            .machine
            .alloc(saved.hidden.view.kind, saved.hidden.view.len)?;
        kernels::gelu(
            self.machine,
            saved.hidden.view,
            active.view,
            self.weights[block].gelu,
        )?;
        self.branch(
            &layers.fc2,
            active.view,
            saved.x1.view,
            self.factors(block, 1),
            y,
        )?;
        Ok(saved)
    }

    /// The blocks on `x [B, T, D]` into `y`; with `keep` what the backward needs, without what `recompute` says to compute again.
    pub fn forward(&self, x: View, y: View, keep: bool, recompute: bool) -> Result<Trace> {
        let image = self.sizes.tokens * self.sizes.dim;
        if x.kind != Kind::F32
            || y.kind != Kind::F32
            || x.len != y.len
            || x.len == 0
            || !x.len.is_multiple_of(image)
        {
            bail!("blocks: {} values are not images of {image}", x.len)
        }
        let depth = self.weights.len();
        let mut trace = Trace {
            inputs: Vec::new(),
            saved: Vec::new(),
        };
        let mut input: Option<Memory> = None;
        for block in 0..depth {
            let at = input.as_ref().map_or(x, |input| input.view);
            let next = if block + 1 < depth {
                Some(self.machine.alloc(Kind::F32, x.len)?)
            } else {
                None
            };
            let saved = self.block(block, at, next.as_ref().map_or(y, |next| next.view))?;
            if keep {
                trace.saved.push((!recompute).then_some(saved));
                trace.inputs.extend(input);
            }
            input = next;
        }
        Ok(trace)
    }

    /// Gradient of `x` for the gradient `grad` of the result; those of the parameters go to `sink`.
    pub fn backward(
        &self,
        x: View,
        grad: View,
        mut trace: Trace,
        sink: &mut dyn Sink,
    ) -> Result<Memory> {
        let mut dy: Option<Memory> = None;
        for block in (0..self.weights.len()).rev() {
            let input = if block == 0 { None } else { trace.inputs.pop() };
            let at = input.as_ref().map_or(x, |input| input.view);
            let Some(saved) = trace.saved.pop() else {
                bail!("blocks: nothing was kept for the backward")
            };
            let layers = self.layers(block)?;
            let saved = match saved {
                Some(saved) => saved,
                None => self.to_hidden(block, &layers, at)?,
            };
            let upstream = dy.as_ref().map_or(grad, |dy| dy.view);
            dy = Some(self.block_backward(block, &layers, at, upstream, saved, sink)?);
        }
        match dy {
            Some(dx) => Ok(dx),
            None => bail!("blocks: there is none"),
        }
    }

    fn block_backward(
        &self,
        block: usize,
        layers: &Layers,
        x: View,
        dy: View,
        saved: Saved,
        sink: &mut dyn Sink,
    ) -> Result<Memory> {
        let (machine, work) = (self.machine, self.machine.work());
        let alloc = |len: usize| machine.alloc(work, len);
        let Saved {
            stats1,
            normed1,
            qkv,
            attended,
            x1,
            stats2,
            normed2,
            hidden,
        } = saved;

        // y = x₁ + f (active W₂ᵀ + b₂)
        let d_branch = alloc(dy.len)?;
        kernels::scale(
            machine,
            dy,
            self.factors(block, 1).map(|f| f.view),
            d_branch.view,
        )?;
        let d_hidden = alloc(hidden.view.len)?;
        layers
            .fc2
            .input_grad(machine, d_branch.view, d_hidden.view)?;
        kernels::gelu_grad(
            machine,
            hidden.view,
            d_hidden.view,
            Some(hidden.view),
            d_hidden.view,
            self.weights[block].gelu,
        )?;
        let active = hidden;
        sink.pair(block, FC2, &mut |to, add| {
            layers
                .fc2
                .param_grads(machine, active.view, d_branch.view, to, add)
        })?;
        drop(active);
        sink.pair(block, FC1, &mut |to, add| {
            layers
                .fc1
                .param_grads(machine, normed2.view, d_hidden.view, to, add)
        })?;
        let d_normed = normed2;
        layers
            .fc1
            .input_grad(machine, d_hidden.view, d_normed.view)?;
        drop(d_hidden);

        // x₁ = x + f (attended Wₚᵀ + bₚ); the gradient of x₁ and of the branch in one pass
        let dx1 = machine.alloc(Kind::F32, x.len)?;
        let mut at = kernels::NormGrad {
            x: x1.view,
            weight: self.weights[block].pairs[NORM2][0],
            stats: stats2.view,
            grad: d_normed.view,
            add: Some(dy),
            narrow: Some((
                d_branch.view,
                self.factors(block, 0).map(|f| (f, self.sizes.tokens)),
            )),
        };
        sink.pair(block, NORM2, &mut |to, add| {
            kernels::layer_norm_grad(machine, &at, dx1.view, to, add)
        })?;
        drop(x1);
        sink.pair(block, PROJ, &mut |to, add| {
            layers
                .proj
                .param_grads(machine, attended.out.view, d_branch.view, to, add)
        })?;
        let d_attended = &d_normed;
        layers
            .proj
            .input_grad(machine, d_branch.view, d_attended.view)?;

        let d_qkv =
            attention::backward(machine, qkv.view, &attended, d_attended.view, &self.sizes)?;
        drop((qkv, attended));
        sink.pair(block, QKV, &mut |to, add| {
            layers
                .qkv
                .param_grads(machine, normed1.view, d_qkv.view, to, add)
        })?;
        layers.qkv.input_grad(machine, d_qkv.view, d_normed.view)?;
        drop(d_qkv);
        let dx = machine.alloc(Kind::F32, x.len)?;
        at = kernels::NormGrad {
            x,
            weight: self.weights[block].pairs[NORM1][0],
            stats: stats1.view,
            grad: d_normed.view,
            add: Some(dx1.view),
            narrow: None,
        };
        sink.pair(block, NORM1, &mut |to, add| {
            kernels::layer_norm_grad(machine, &at, dx.view, to, add)
        })?;
        Ok(dx)
    }
}
