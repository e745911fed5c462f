//! Linear layers on a machine.

use crate::{Result, bail};

use crate::{Kind, Machine, Memory, Product, View, kernels, multiply};

/// Values in another type, or as they are where they have it.
pub struct Cast {
    /// Where they lie.
    pub view: View,
    memory: Option<Memory>,
}

impl Cast {
    /// The memory of another type, where there was need of it.
    pub fn into_memory(self) -> Option<Memory> {
        self.memory
    }
}

/// `x` in the type of products.
pub fn to_work(machine: &dyn Machine, x: View) -> Result<Cast> {
    cast(machine, x, machine.work())
}

/// `x` as `kind`.
pub fn cast(machine: &dyn Machine, x: View, kind: Kind) -> Result<Cast> {
    if x.kind == kind {
        return Ok(Cast {
            view: x,
            memory: None,
        });
    }
    let memory = machine.alloc(kind, x.len)?;
    kernels::scale(machine, x, None, memory.view)?;
    Ok(Cast {
        view: memory.view,
        memory: Some(memory),
    })
}

/// A layer whose weight `[N, K]` is in the type of products.
pub struct Layer {
    weight: Cast,
    /// f32, or already in the type of the result.
    bias: Option<View>,
    n: usize,
    k: usize,
}

impl Layer {
    /// Over `weight [N, K]` and `bias [N]`, in f32 or already in the types that they are read in.
    pub fn new(
        machine: &dyn Machine,
        weight: View,
        bias: Option<View>,
        [n, k]: [usize; 2],
    ) -> Result<Self> {
        crate::expect("weight", weight, n * k)?;
        bias.map_or(Ok(()), |bias| crate::expect("bias", bias, n))?;
        Ok(Self {
            weight: to_work(machine, weight)?,
            bias,
            n,
            k,
        })
    }

    fn rows(&self, x: View, width: usize) -> Result<usize> {
        if !x.len.is_multiple_of(width) {
            bail!("linear: {} values are not rows of {width}", x.len)
        }
        Ok(x.len / width)
    }

    /// `out = x Wᵀ + b (+ residual)`.
    pub fn forward(
        &self,
        machine: &dyn Machine,
        x: View,
        residual: Option<View>,
        out: View,
    ) -> Result<()> {
        let bias = self
            .bias
            .map(|bias| cast(machine, bias, out.kind))
            .transpose()?;
        multiply(
            machine,
            &Product {
                m: self.rows(x, self.k)?,
                n: self.n,
                k: self.k,
                a: x,
                a_transposed: false,
                b: self.weight.view,
                b_transposed: true,
                c: residual,
                bias: bias.as_ref().map(|bias| bias.view),
                out,
            },
        )
    }

    /// `dx = g W`.
    pub fn input_grad(&self, machine: &dyn Machine, g: View, dx: View) -> Result<()> {
        multiply(
            machine,
            &Product {
                m: self.rows(g, self.n)?,
                n: self.k,
                k: self.n,
                a: g,
                a_transposed: false,
                b: self.weight.view,
                b_transposed: false,
                c: None,
                bias: None,
                out: dx,
            },
        )
    }

    /// `dw = gᵀ x`, added to what is there where `accumulate`.
    pub fn weight_grad(
        &self,
        machine: &dyn Machine,
        x: View,
        g: View,
        dw: View,
        accumulate: bool,
    ) -> Result<()> {
        multiply(
            machine,
            &Product {
                m: self.n,
                n: self.k,
                k: self.rows(x, self.k)?,
                a: g,
                a_transposed: true,
                b: x,
                b_transposed: false,
                c: accumulate.then_some(dw),
                bias: None,
                out: dw,
            },
        )
    }

    /// Gradients of weight and bias.
    pub fn param_grads(
        &self,
        machine: &dyn Machine,
        x: View,
        g: View,
        [dw, db]: [View; 2],
        accumulate: bool,
    ) -> Result<()> {
        self.weight_grad(machine, x, g, dw, accumulate)?;
        kernels::column_sums(machine, g, db, accumulate)
    }
}
