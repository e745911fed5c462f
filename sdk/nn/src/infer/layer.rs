//! Linear layers with their weights packed into panels for the kernels.

use super::buffer::Aligned;
use super::quantise::{Quantised, pack_int};
use super::weights::Stored;
use crate::Error;
use crate::kernels::{Ahead, Cut, FloatTile, IntTile, Kernels, Out, transpose};

/// Largest K of an integer layer: `127 · 127 · K` fits into 31 bits.
const MAX_INT_K: usize = 1 << 16;

/// `y = x Wᵀ + b` with `W [N, K]` in panels of outputs.
pub(super) struct Layer {
    pub(super) k: usize,
    pub(super) n: usize,
    /// Padded to whole panels of any kernels.
    bias: Aligned<f32>,
    weight: Packed,
}

/// The weight of a layer for the kernels.
pub(super) enum Packed {
    /// `[panel][K][columns]`.
    Float(Aligned<f32>),
    Int(IntPanels),
}

/// Integer weights for kernels with one [`Form`](crate::kernels::Form).
pub(super) struct IntPanels {
    /// `[panel][groups][columns][group]`.
    pub(super) values: Aligned<i8>,
    /// Where the sums of each output start.
    pub(super) start: Aligned<i32>,
    /// Scale of each output.
    pub(super) scale: Aligned<f32>,
    /// Groups along K.
    pub(super) groups: usize,
}

/// Rows of f32, `[rows, stride]`, of which the first `len` of each row count.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) data: &'a [f32],
    pub(super) stride: usize,
    pub(super) count: usize,
}

/// Where the result of a layer goes.
pub(super) struct Target<'a> {
    pub(super) data: &'a mut [f32],
    pub(super) stride: usize,
    /// Whether it is added to what is there.
    pub(super) add: bool,
}

impl Packed {
    /// Packs a weight `[N, K]`.
    ///
    /// # Errors
    /// An integer weight of too many inputs; memory that is refused.
    pub(super) fn new(
        weight: &Stored,
        [n, k]: [usize; 2],
        kernels: &Kernels,
    ) -> Result<Self, Error> {
        match weight {
            Stored::F32 { values, .. } => Ok(Self::Float(pack_float(values, [n, k], kernels)?)),
            Stored::Blocks { .. } => {
                Ok(Self::Float(pack_float(&weight.to_f32(), [n, k], kernels)?))
            }
            Stored::I8 { values, scale, .. } if k <= MAX_INT_K => {
                Ok(Self::Int(pack_int(values, scale, k, kernels)?))
            }
            Stored::I8 { .. } => Err(Error::Config {
                reason: format!(
                    "an int8 layer has {k} inputs; sums of more than {MAX_INT_K} do not fit into 32 bits"
                ),
            }),
        }
    }
}

impl Layer {
    /// # Errors
    /// Memory that is refused.
    pub(super) fn new(weight: Packed, bias: &[f32], k: usize) -> Result<Self, Error> {
        let n = bias.len();
        let mut padded = Aligned::zeroed(n.next_multiple_of(Kernels::MOST_COLUMNS))?;
        padded[..n].copy_from_slice(bias);
        Ok(Self {
            k,
            n,
            bias: padded,
            weight,
        })
    }

    /// Bytes of the packed weight.
    pub(super) fn bytes(&self) -> usize {
        match &self.weight {
            Packed::Float(values) => size_of_val(&**values),
            Packed::Int(panels) => panels.values.len() + 8 * panels.scale.len(),
        }
    }

    /// `y = x Wᵀ + b` or `y += …`. An integer layer quantises every row of `x` by its largest value first.
    pub(super) fn apply(
        &self,
        kernels: &Kernels,
        x: Rows<'_>,
        quantised: &mut Quantised,
        y: &mut Target<'_>,
    ) {
        assert!(x.count == 0 || x.data.len() >= (x.count - 1) * x.stride + self.k);
        let columns = kernels.columns;
        match &self.weight {
            Packed::Float(values) => {
                self.each_panel(kernels, x.count, y, |p, cut, out| {
                    let panel = &values[p * self.k * columns..][..self.k * columns];
                    let tile = FloatTile {
                        rows: cut.rows,
                        k: self.k,
                        a: x.data[cut.first * x.stride..].as_ptr(),
                        lda: x.stride,
                        ka: 1,
                        b: panel.as_ptr(),
                        ldb: columns,
                        bias: self.bias[p * columns..][..columns].as_ptr(),
                        c: out.c,
                        ldc: out.ldc,
                        add: out.add,
                        ahead: Ahead::behind(panel, self.k, &cut),
                    };
                    // SAFETY: A and B were just checked to reach so far, C by `each_panel`.
                    unsafe { kernels.float(&tile) }
                });
            }
            Packed::Int(panels) => {
                quantised.fill(kernels.form, x, self.k);
                let len = panels.groups * columns * kernels.form.group();
                self.each_panel(kernels, x.count, y, |p, cut, out| {
                    let panel = &panels.values[p * len..][..len];
                    let tile = IntTile {
                        rows: cut.rows,
                        groups: panels.groups,
                        a: quantised.row(cut.first).as_ptr(),
                        lda: quantised.stride(),
                        b: panel.as_ptr(),
                        start: panels.start[p * columns..][..columns].as_ptr(),
                        scale: panels.scale[p * columns..][..columns].as_ptr(),
                        bias: self.bias[p * columns..][..columns].as_ptr(),
                        row_scale: quantised.scales(cut.first, cut.rows).as_ptr(),
                        c: out.c,
                        ldc: out.ldc,
                        add: out.add,
                        ahead: Ahead::behind(panel, panels.groups, &cut),
                    };
                    // SAFETY: A, B and the scales were just checked to reach so far, C by `each_panel`.
                    unsafe { kernels.int(&tile) }
                });
            }
        }
    }

    fn each_panel(
        &self,
        kernels: &Kernels,
        rows: usize,
        y: &mut Target<'_>,
        call: impl FnMut(usize, Cut, Out),
    ) {
        each_panel(kernels, rows, self.n, y, call);
    }
}

/// Calls a kernel for every panel of `n` columns and every cut of `rows`: (panel, rows, where to). A last panel that is
/// not whole goes through a buffer.
pub(super) fn each_panel(
    kernels: &Kernels,
    rows: usize,
    n: usize,
    y: &mut Target<'_>,
    mut call: impl FnMut(usize, Cut, Out),
) {
    assert!(rows == 0 || y.data.len() >= (rows - 1) * y.stride + n);
    for panel in 0..n.div_ceil(kernels.columns) {
        let column = panel * kernels.columns;
        let width = kernels.columns.min(n - column);
        for cut in kernels.cuts(rows) {
            let out = Out {
                c: y.data[cut.first * y.stride + column..].as_mut_ptr(),
                ldc: y.stride,
                add: y.add,
            };
            // SAFETY: the target was just checked to reach so far, and is borrowed mutably.
            unsafe { out.panel(kernels, [cut.rows, width], |out| call(panel, cut, out)) }
        }
    }
}

/// `[N, K]` to `[panel][K][columns]`, zeros where there is no output.
fn pack_float(
    weight: &[f32],
    [n, k]: [usize; 2],
    kernels: &Kernels,
) -> Result<Aligned<f32>, Error> {
    let columns = kernels.columns;
    let mut packed = Aligned::zeroed(n.next_multiple_of(columns) * k)?;
    let panels = packed.chunks_exact_mut(k * columns);
    for (panel, rows) in panels.zip(weight.chunks(k * columns)) {
        transpose((panel, columns), (rows, k), [rows.len() / k, k]);
    }
    Ok(packed)
}
