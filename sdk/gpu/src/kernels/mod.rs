//! The kernels on rows and values: checks of sizes, launch sizes, arguments in the order of the sources in `kernels/`.

use crate::{Result, bail};

use crate::Gelu;
mod rows;

pub use rows::{add_table, gather_rows, patchify};

use crate::{Arg, Kind, Launch, Machine, Memory, View, expect, int};

/// Threads of a block that works on rows or values.
pub const THREADS: usize = 256;
/// Bytes of shared memory that every GPU gives a block without being asked.
pub const SHARED: usize = 48 * 1024;
/// Bytes of the scratch for sums over a block.
pub const SUMS: usize = 32 * 4;
/// Blocks that fill any GPU when each has a share of the rows; fixed, so that sums do not depend on the GPU.
const BLOCKS: usize = 264;
/// Warps of a block where a warp works on a row.
const WARPS: usize = 4;

/// Whether packs of four values can be moved: rows of `len` values, of views that start where a pack may.
fn wide(len: usize, views: &[View]) -> bool {
    len.is_multiple_of(4)
        && views
            .iter()
            .all(|view| view.address.is_multiple_of(4 * view.kind.bytes() as u64))
}

fn flag(set: bool) -> Arg {
    Arg::I32(i32::from(set))
}

/// Blocks for `n` values in packs of four, each thread a few of them.
fn blocks_for(n: usize) -> usize {
    n.div_ceil(4 * THREADS).clamp(1, 1 << 14)
}

/// Normalises `x [rows, D]` into `y`; gives `[rows, 2]`: mean and inverse deviation.
pub fn layer_norm(
    machine: &dyn Machine,
    x: View,
    pair: [View; 2],
    y: View,
    eps: f32,
) -> Result<Memory> {
    let stats = machine.alloc(Kind::F32, 2 * (x.len / pair[0].len.max(1)))?;
    layer_norm_into(machine, x, pair, y, stats.view, eps)?;
    Ok(stats)
}

/// The same with `[weight, bias]` and the statistics into `stats`.
pub fn layer_norm_into(
    machine: &dyn Machine,
    x: View,
    [weight, bias]: [View; 2],
    y: View,
    stats: View,
    eps: f32,
) -> Result<()> {
    let d = weight.len;
    if d == 0 || !x.len.is_multiple_of(d) || bias.len != d {
        bail!("layer_norm: {} values do not fit weights of {d}", x.len)
    }
    expect("result of layer_norm", y, x.len)?;
    let rows = x.len / d;
    expect("statistics of layer_norm", stats, 2 * rows)?;
    let launch = Launch {
        file: "norm",
        kernel: format!("layer_norm_{}", y.kind.suffix()?),
        grid: [rows.div_ceil(WARPS), 1],
        threads: 32 * WARPS,
        shared: 0,
    };
    let wide = wide(d, &[x, weight, bias, y]);
    let args = [
        x.into(),
        weight.into(),
        bias.into(),
        y.into(),
        stats.into(),
        int(rows)?,
        int(d)?,
        Arg::F32(eps),
        flag(wide),
    ];
    // SAFETY: x and y have rows * d values, weight and bias d, stats 2 * rows.
    unsafe { machine.launch(&launch, &args) }
}

/// What the gradient of a norm starts from.
pub struct NormGrad<'a> {
    /// What was normalised, `[rows, D]`.
    pub x: View,
    /// `[D]`.
    pub weight: View,
    /// From [`layer_norm`].
    pub stats: View,
    /// Gradient of the result.
    pub grad: View,
    /// Added to the gradient of `x`.
    pub add: Option<View>,
    /// Also written: the gradient of `x` in the type of `grad`, times the factor of each image and the tokens of an image.
    pub narrow: Option<(View, Option<(&'a Memory, usize)>)>,
}

/// Gradient of `x` into `dx`, those of weight and bias into `[dw, db]`, added to what is there where `accumulate`.
pub fn layer_norm_grad(
    machine: &dyn Machine,
    at: &NormGrad<'_>,
    dx: View,
    [dw, db]: [View; 2],
    accumulate: bool,
) -> Result<()> {
    let d = at.weight.len;
    let rows = at.stats.len / 2;
    let warps = WARPS.min(SHARED / (8 * d));
    if warps == 0 {
        bail!(
            "layer_norm: rows of {d} values are more than the kernel takes ({})",
            SHARED / 8
        )
    }
    for view in [at.x, at.grad, dx] {
        expect("rows of layer_norm", view, rows * d)?;
    }
    let mut views = vec![at.x, at.weight, at.grad, dx];
    views.extend(at.add);
    let (narrow, factors, tokens) = match at.narrow {
        None => (None, None, 1),
        Some((narrow, factors)) => {
            if narrow.kind != at.grad.kind {
                bail!("layer_norm: the narrow gradient is of another type")
            }
            expect("narrow gradient", narrow, rows * d)?;
            let tokens = factors.map_or(1, |(_, tokens)| tokens);
            if let Some((factors, tokens)) = factors {
                expect(
                    "rows of images",
                    View { len: rows, ..at.x },
                    factors.view.len * tokens,
                )?;
            }
            (
                Some(narrow),
                factors.map(|(factors, _)| factors.view),
                tokens,
            )
        }
    };
    at.add
        .map_or(Ok(()), |add| expect("summand", add, rows * d))?;
    views.extend(narrow);
    let blocks = rows.div_ceil(warps).min(BLOCKS);
    let partial = machine.alloc(Kind::F32, blocks * 2 * d)?;
    let launch = Launch {
        file: "norm",
        kernel: format!("layer_norm_grad_{}", at.grad.kind.suffix()?),
        grid: [blocks, 1],
        threads: 32 * warps,
        shared: warps * 8 * d,
    };
    let args = [
        at.x.into(),
        at.weight.into(),
        at.stats.into(),
        at.grad.into(),
        at.add.into(),
        dx.into(),
        narrow.into(),
        factors.into(),
        int(tokens)?,
        partial.view.into(),
        int(rows)?,
        int(d)?,
        flag(wide(d, &views)),
    ];
    // SAFETY: all rows were checked, the factors cover them, partial has 2 d values for each block.
    unsafe { machine.launch(&launch, &args) }?;
    column_totals(machine, partial.view, blocks, [dw, db], accumulate)
}

/// Columns of `partial [parts, N]` summed, the first `dw.len` into `dw`, the others into `db`.
fn column_totals(
    machine: &dyn Machine,
    partial: View,
    parts: usize,
    [dw, db]: [View; 2],
    accumulate: bool,
) -> Result<()> {
    let n = dw.len + db.len;
    expect("partial sums", partial, parts * n)?;
    let launch = Launch {
        file: "rows",
        kernel: "column_totals".into(),
        grid: [n.div_ceil(32), 1],
        threads: 256,
        shared: 256 * 4,
    };
    let args = [
        partial.into(),
        int(parts)?,
        int(n)?,
        int(dw.len)?,
        dw.into(),
        db.into(),
        flag(accumulate),
    ];
    // SAFETY: partial has parts * n values, the results n together.
    unsafe { machine.launch(&launch, &args) }
}

/// Sums of the columns of `x [rows, N]` into `out [N]`.
pub fn column_sums(machine: &dyn Machine, x: View, out: View, accumulate: bool) -> Result<()> {
    let n = out.len;
    if n == 0 || !x.len.is_multiple_of(n) {
        bail!("{} values are not rows of {n}", x.len)
    }
    let rows = x.len / n;
    let wide = wide(n, &[x]);
    let columns = if wide {
        n.div_ceil(128)
    } else {
        n.div_ceil(32)
    };
    let parts = rows.div_ceil(64).min((4 * BLOCKS / columns).max(1)).max(1);
    let partial = machine.alloc(Kind::F32, parts * n)?;
    let launch = Launch {
        file: "rows",
        kernel: format!("column_parts_{}", x.kind.suffix()?),
        grid: [columns, parts],
        threads: 256,
        shared: 256 * 4 * if wide { 4 } else { 1 },
    };
    let args = [
        x.into(),
        partial.view.into(),
        int(rows)?,
        int(n)?,
        flag(wide),
    ];
    // SAFETY: x has rows * n values, partial parts * n.
    unsafe { machine.launch(&launch, &args) }?;
    let nothing = View { len: 0, ..out };
    column_totals(machine, partial.view, parts, [out, nothing], accumulate)
}

fn form_name(form: Gelu) -> &'static str {
    match form {
        Gelu::Tanh => "tanh",
        Gelu::Erf => "erf",
    }
}

/// GELU of every value; `y` may be `x`.
pub fn gelu(machine: &dyn Machine, x: View, y: View, form: Gelu) -> Result<()> {
    expect("result of gelu", y, x.len)?;
    let launch = Launch {
        file: "elementwise",
        kernel: format!("gelu_{}_{}", form_name(form), x.kind.suffix()?),
        grid: [blocks_for(x.len), 1],
        threads: THREADS,
        shared: 0,
    };
    let args = [
        x.into(),
        y.into(),
        Arg::I64(x.len as i64),
        flag(wide(x.len, &[x, y])),
    ];
    // SAFETY: both have x.len values of one type.
    unsafe { machine.launch(&launch, &args) }
}

/// `dx = grad * gelu'(x)`, and GELU of `x` into `y` where there is one; `y` may be `x` and `dx` may be `grad`.
pub fn gelu_grad(
    machine: &dyn Machine,
    x: View,
    grad: View,
    y: Option<View>,
    dx: View,
    form: Gelu,
) -> Result<()> {
    let mut views = vec![x, grad, dx];
    views.extend(y);
    for view in &views {
        expect("values of gelu", *view, x.len)?;
        if view.kind != x.kind {
            bail!("gelu: values of different types")
        }
    }
    let launch = Launch {
        file: "elementwise",
        kernel: format!("gelu_{}_grad_{}", form_name(form), x.kind.suffix()?),
        grid: [blocks_for(x.len), 1],
        threads: THREADS,
        shared: 0,
    };
    let args = [
        x.into(),
        grad.into(),
        y.into(),
        dx.into(),
        Arg::I64(x.len as i64),
        flag(wide(x.len, &views)),
    ];
    // SAFETY: all have x.len values of one type.
    unsafe { machine.launch(&launch, &args) }
}

/// Images of a launch with one factor each: at most this many, the height of a grid.
const IMAGES: usize = 65_535;

fn images(x: View, factors: Option<View>) -> Result<(usize, usize)> {
    let n = factors.map_or(1, |f| f.len);
    if n == 0 || n > IMAGES || !x.len.is_multiple_of(n) {
        bail!(
            "{} values are not {n} images, of which there may be 1 to {IMAGES}",
            x.len
        )
    }
    Ok((n, x.len / n))
}

/// `out = x`, times the factor of each image where there are factors, in the type of `out`.
pub fn scale(machine: &dyn Machine, x: View, factors: Option<View>, out: View) -> Result<()> {
    expect("result of scale", out, x.len)?;
    let (n, len) = images(x, factors)?;
    let launch = Launch {
        file: "elementwise",
        kernel: format!("scale_{}_{}", x.kind.suffix()?, out.kind.suffix()?),
        grid: [blocks_for(len), n],
        threads: THREADS,
        shared: 0,
    };
    let args = [
        x.into(),
        factors.into(),
        out.into(),
        Arg::I64(len as i64),
        flag(wide(len, &[x, out])),
    ];
    // SAFETY: x and out have n images of len values, and there are n factors.
    unsafe { machine.launch(&launch, &args) }
}

/// `y = x + factor * branch` with a factor for each image.
pub fn residual(
    machine: &dyn Machine,
    x: View,
    branch: View,
    factors: View,
    y: View,
) -> Result<()> {
    expect("branch", branch, x.len)?;
    expect("result of residual", y, x.len)?;
    let (n, len) = images(x, Some(factors))?;
    let launch = Launch {
        file: "elementwise",
        kernel: format!("residual_{}", branch.kind.suffix()?),
        grid: [blocks_for(len), n],
        threads: THREADS,
        shared: 0,
    };
    let args = [
        x.into(),
        branch.into(),
        factors.into(),
        y.into(),
        Arg::I64(len as i64),
        flag(wide(len, &[x, branch, y])),
    ];
    // SAFETY: all have n images of len values, and there are n factors.
    unsafe { machine.launch(&launch, &args) }
}

/// Adds `bias [N]` to every row of `out [_, N]`.
pub fn add_bias(machine: &dyn Machine, out: View, bias: View) -> Result<()> {
    let n = bias.len;
    if n == 0 || !out.len.is_multiple_of(n) || out.kind != bias.kind {
        bail!("{} values are not rows of {n}", out.len)
    }
    let launch = Launch {
        file: "elementwise",
        kernel: format!("add_bias_{}", out.kind.suffix()?),
        grid: [out.len / n, 1],
        threads: 128,
        shared: 0,
    };
    // SAFETY: out has whole rows as wide as the bias.
    unsafe { machine.launch(&launch, &[out.into(), bias.into(), int(n)?]) }
}
