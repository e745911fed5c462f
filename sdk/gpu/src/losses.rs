//! What the methods compute on logits and pixels, on a machine.

use crate::{Result, bail};

use crate::kernels::{SUMS, THREADS};
use crate::{Arg, Kind, Launch, Machine, Memory, View, expect, int};

fn over_rows(file: &'static str, kernel: &str, rows: usize) -> Launch {
    Launch {
        file,
        kernel: kernel.into(),
        grid: [rows, 1],
        threads: THREADS,
        shared: SUMS,
    }
}

fn rows_of(x: View, width: usize) -> Result<usize> {
    if width == 0 || x.len == 0 || !x.len.is_multiple_of(width) || x.kind != Kind::F32 {
        bail!("{} values are not rows of {width}", x.len)
    }
    Ok(x.len / width)
}

/// Each row of `x [R, width]` over its Euclidean norm.
pub fn unit_rows(machine: &dyn Machine, x: View, y: View, width: usize) -> Result<()> {
    let rows = rows_of(x, width)?;
    expect("unit rows", y, x.len)?;
    // SAFETY: both have whole rows.
    unsafe {
        machine.launch(
            &over_rows("distil", "unit_rows", rows),
            &[x.into(), y.into(), int(width)?],
        )
    }
}

/// Its gradient.
pub fn unit_rows_grad(
    machine: &dyn Machine,
    x: View,
    grad: View,
    dx: View,
    width: usize,
) -> Result<()> {
    let rows = rows_of(x, width)?;
    expect("gradient of unit rows", grad, x.len)?;
    expect("gradient of rows", dx, x.len)?;
    // SAFETY: all have whole rows.
    unsafe {
        machine.launch(
            &over_rows("distil", "unit_rows_grad", rows),
            &[x.into(), grad.into(), dx.into(), int(width)?],
        )
    }
}

/// `softmax((logits - centre) * by)` of every row into `p`; gives the entropy of each row.
pub fn teacher_rows(
    machine: &dyn Machine,
    logits: View,
    centre: View,
    by: f32,
    p: View,
) -> Result<Memory> {
    let rows = rows_of(logits, centre.len)?;
    expect("probabilities", p, logits.len)?;
    let entropy = machine.alloc(Kind::F32, rows)?;
    let args = [
        logits.into(),
        centre.into(),
        Arg::F32(by),
        p.into(),
        entropy.view.into(),
        int(centre.len)?,
    ];
    // SAFETY: logits and p have whole rows, the centre is as wide, entropy has a value for each row.
    unsafe { machine.launch(&over_rows("distil", "teacher_rows", rows), &args) }?;
    Ok(entropy)
}

/// Sizes of a multi-crop cross-entropy: `student [V * batch, width]`, `teacher [globals * batch, width]`.
#[derive(Clone, Copy, Debug)]
pub struct Crops {
    /// Images.
    pub batch: usize,
    /// Global crops of an image.
    pub globals: usize,
    /// Logits of a crop.
    pub width: usize,
}

impl Crops {
    fn rows(&self, student: View, teacher: View) -> Result<usize> {
        expect("teacher", teacher, self.globals * self.batch * self.width)?;
        let rows = rows_of(student, self.width)?;
        if !rows.is_multiple_of(self.batch) {
            bail!(
                "student: {rows} rows are not crops of {} images",
                self.batch
            )
        }
        Ok(rows)
    }
}

/// `factor` times the sum of the cross-entropies of all pairs of different crops into `loss [1]`; gives what the gradient needs.
pub fn cross_entropy(
    machine: &dyn Machine,
    [student, teacher]: [View; 2],
    crops: Crops,
    by: f32,
    factor: f32,
    loss: View,
) -> Result<Memory> {
    let rows = crops.rows(student, teacher)?;
    let (log_sums, losses) = (
        machine.alloc(Kind::F32, rows)?,
        machine.alloc(Kind::F32, rows)?,
    );
    let args = [
        student.into(),
        teacher.into(),
        Arg::F32(by),
        log_sums.view.into(),
        losses.view.into(),
        int(crops.batch)?,
        int(crops.globals)?,
        int(crops.width)?,
    ];
    // SAFETY: student and teacher have the rows of the crops, the sums one value for each of the student's.
    unsafe { machine.launch(&over_rows("distil", "cross_entropy_rows", rows), &args) }?;
    sum_values(machine, losses.view, factor, loss)?;
    Ok(log_sums)
}

/// What the gradient of a cross-entropy starts from.
pub struct CrossEntropyGrad {
    /// From [`cross_entropy`].
    pub log_sums: View,
    /// Gradient of the loss, `[1]`.
    pub upstream: View,
}

/// Gradient of the student's logits; `by` and `factor` as in [`cross_entropy`].
pub fn cross_entropy_grad(
    machine: &dyn Machine,
    [student, teacher]: [View; 2],
    crops: Crops,
    [by, factor]: [f32; 2],
    &CrossEntropyGrad { log_sums, upstream }: &CrossEntropyGrad,
    grad: View,
) -> Result<()> {
    let rows = crops.rows(student, teacher)?;
    expect("sums of the student", log_sums, rows)?;
    expect("gradient of the loss", upstream, 1)?;
    expect("gradient of the student", grad, student.len)?;
    let args = [
        student.into(),
        teacher.into(),
        Arg::F32(by),
        log_sums.into(),
        upstream.into(),
        Arg::F32(factor * by),
        grad.into(),
        int(crops.batch)?,
        int(crops.globals)?,
        int(crops.width)?,
    ];
    // SAFETY: as in the forward; the gradient is as long as the student.
    unsafe { machine.launch(&over_rows("distil", "cross_entropy_grad", rows), &args) }
}

/// `factor` times the sum of `x` into `out [1]`.
fn sum_values(machine: &dyn Machine, x: View, factor: f32, out: View) -> Result<()> {
    expect("sum", out, 1)?;
    let launch = over_rows("rows", "sum_values", 1);
    // SAFETY: x has x.len values.
    unsafe {
        machine.launch(
            &launch,
            &[
                x.into(),
                Arg::I64(x.len as i64),
                Arg::F32(factor),
                out.into(),
            ],
        )
    }
}

/// Hidden patches of masked autoencoding: `patches [_, 3·area]` in (channel, row, column) order, and rows `ids` of it.
pub struct Hidden {
    /// All patches.
    pub patches: View,
    /// Rows that are hidden.
    pub ids: Memory,
    /// Pixels of a patch.
    pub area: usize,
    /// Whether targets are normalised patch by patch.
    pub normalise: bool,
}

impl Hidden {
    /// # Errors
    /// An id that is no row of `patches`.
    pub fn new(
        machine: &dyn Machine,
        patches: View,
        ids: &[u32],
        area: usize,
        normalise: bool,
    ) -> Result<Self> {
        let rows = rows_of(patches, 3 * area)?;
        if ids.is_empty() || ids.iter().any(|&id| id as usize >= rows) {
            bail!("a hidden patch beyond the {rows} of the batch, or none")
        }
        let ids = machine.upload(Kind::U32, &crate::bytes_of(ids))?;
        Ok(Self {
            patches,
            ids,
            area,
            normalise,
        })
    }

    fn factor(&self) -> f32 {
        (1.0 / (self.ids.view.len * 3 * self.area) as f64) as f32
    }

    /// Mean squared error of `pred [ids, 3·area]`, in (row, column, channel) order, into `loss [1]`; gives what the gradient needs.
    pub fn loss(&self, machine: &dyn Machine, pred: View, loss: View) -> Result<Memory> {
        let rows = self.ids.view.len;
        expect("predicted patches", pred, rows * 3 * self.area)?;
        let (stats, losses) = (
            machine.alloc(Kind::F32, 2 * rows)?,
            machine.alloc(Kind::F32, rows)?,
        );
        let args = [
            self.patches.into(),
            self.ids.view.into(),
            pred.into(),
            stats.view.into(),
            losses.view.into(),
            int(self.area)?,
            Arg::I32(i32::from(self.normalise)),
        ];
        // SAFETY: ids are rows of patches, pred has a row for each, stats two values and losses one.
        unsafe { machine.launch(&over_rows("rows", "patch_loss", rows), &args) }?;
        sum_values(machine, losses.view, self.factor(), loss)?;
        Ok(stats)
    }

    /// Gradient of `pred`.
    pub fn grad(
        &self,
        machine: &dyn Machine,
        pred: View,
        stats: View,
        upstream: View,
        grad: View,
    ) -> Result<()> {
        let rows = self.ids.view.len;
        expect("predicted patches", pred, rows * 3 * self.area)?;
        expect("gradient of patches", grad, pred.len)?;
        expect("statistics of patches", stats, 2 * rows)?;
        expect("gradient of the loss", upstream, 1)?;
        let args = [
            self.patches.into(),
            self.ids.view.into(),
            pred.into(),
            stats.into(),
            upstream.into(),
            Arg::F32(self.factor()),
            grad.into(),
            int(self.area)?,
        ];
        // SAFETY: as in the forward; the gradient is as long as pred.
        unsafe { machine.launch(&over_rows("rows", "patch_loss_grad", rows), &args) }
    }
}

/// Most ids of one segment of [`scatter_rows`].
const SEGMENT: usize = 64;

/// The gradient of gathering rows: `out[r] = Σ grad[j]` over the `j` with `ids[j] = r`, for the `rows` of `out [rows, D]`.
///
/// Sums have a fixed order. Rows that were asked for more often than [`SEGMENT`] times are summed in two steps.
pub fn scatter_rows(
    machine: &dyn Machine,
    grad: View,
    ids: &[u32],
    out: View,
    d: usize,
) -> Result<()> {
    let rows = out.len / d.max(1);
    expect("gradient of gathered rows", grad, ids.len() * d)?;
    if ids.iter().any(|&id| id as usize >= rows) {
        bail!("a row beyond the {rows} of the tensor was gathered")
    }
    let Segments {
        order,
        starts,
        of_row,
    } = segments(ids, rows);
    let parts = machine.alloc(Kind::F32, (starts.len() - 1).max(1) * d)?;
    sum_segments(machine, grad, &order, &starts, parts.view, d)?;
    let every: Vec<u32> = (0..starts.len() as u32 - 1).collect();
    sum_segments(machine, parts.view, &every, &of_row, out, d)
}

/// Which values are summed together.
struct Segments {
    /// Places in `ids`, sorted by what is there.
    order: Vec<u32>,
    /// Where the segments of `order` begin, and its length.
    starts: Vec<u32>,
    /// Where the segments of each row begin, and their number.
    of_row: Vec<u32>,
}

fn segments(ids: &[u32], rows: usize) -> Segments {
    let mut order: Vec<u32> = (0..ids.len() as u32).collect();
    order.sort_by_key(|&place| ids[place as usize]);
    let (mut starts, mut of_row) = (vec![0], vec![0]);
    let mut at = 0;
    for row in 0..rows as u32 {
        let end = at + order[at..].partition_point(|&place| ids[place as usize] <= row);
        while at < end {
            at = (at + SEGMENT).min(end);
            starts.push(at as u32);
        }
        of_row.push(starts.len() as u32 - 1);
    }
    Segments {
        order,
        starts,
        of_row,
    }
}

fn sum_segments(
    machine: &dyn Machine,
    x: View,
    ids: &[u32],
    starts: &[u32],
    out: View,
    d: usize,
) -> Result<()> {
    let n = starts.len() - 1;
    if n == 0 {
        return Ok(());
    }
    let upload = |values: &[u32]| machine.upload(Kind::U32, &crate::bytes_of(values));
    let (ids, starts) = (upload(ids)?, upload(starts)?);
    let launch = Launch {
        file: "rows",
        kernel: "sum_segments".into(),
        grid: [n, 1],
        threads: 128,
        shared: 0,
    };
    // SAFETY: the callers' ids are rows of x, starts are in order and end at the number of ids, out has n rows.
    unsafe {
        machine.launch(
            &launch,
            &[
                x.into(),
                ids.view.into(),
                starts.view.into(),
                out.into(),
                int(d)?,
            ],
        )
    }
}
