//! Rows of matrices by number, patches of images, tables that are added to tokens.

use crate::{Kind, Launch, Machine, Result, View, bail, expect, int};

/// Rows `ids` of `x [_, D]` into `out [ids, D]`; every id is below the number of rows.
pub fn gather_rows(machine: &dyn Machine, x: View, ids: &[u32], out: View, d: usize) -> Result<()> {
    let rows = x.len / d.max(1);
    expect("gathered rows", out, ids.len() * d)?;
    if ids.iter().any(|&id| id as usize >= rows) {
        bail!("a row beyond the {rows} of the tensor is asked for")
    }
    if ids.is_empty() {
        return Ok(());
    }
    let ids_there = machine.upload(Kind::U32, &crate::bytes_of(ids))?;
    let launch = Launch {
        file: "rows",
        kernel: "gather_rows".into(),
        grid: [ids.len(), 1],
        threads: 128,
        shared: 0,
    };
    // SAFETY: all ids are rows of x, and out has a row for each.
    unsafe {
        machine.launch(
            &launch,
            &[x.into(), ids_there.view.into(), out.into(), int(d)?],
        )
    }
}

/// `images [B, C, H, W]` to patches `[B, (H/P)(W/P), C·P·P]` in the type of `out`.
pub fn patchify(
    machine: &dyn Machine,
    images: View,
    [b, c, h, w]: [usize; 4],
    patch: usize,
    out: View,
) -> Result<()> {
    expect("images", images, b * c * h * w)?;
    expect("patches", out, images.len)?;
    let launch = Launch {
        file: "rows",
        kernel: format!("patchify_{}", out.kind.suffix()?),
        grid: [b * c * h, 1],
        threads: 128,
        shared: 0,
    };
    let args = [
        images.into(),
        out.into(),
        int(c)?,
        int(h)?,
        int(w)?,
        int(patch)?,
    ];
    // SAFETY: both have B C H W values; the caller checked that H and W are multiples of the patch.
    unsafe { machine.launch(&launch, &args) }
}

/// `out [B, T, D] = table [T, D]`, plus `patches [B, N, D]` to the last N tokens of every image.
pub fn add_table(
    machine: &dyn Machine,
    patches: View,
    table: View,
    out: View,
    [tokens, prefix, d]: [usize; 3],
) -> Result<()> {
    expect("table", table, tokens * d)?;
    let images = out.len / table.len.max(1);
    expect("tokens", out, images * tokens * d)?;
    expect(
        "patches",
        patches,
        images * tokens.saturating_sub(prefix) * d,
    )?;
    let launch = Launch {
        file: "rows",
        kernel: "add_table".into(),
        grid: [images * tokens, 1],
        threads: 128,
        shared: 0,
    };
    let args = [
        patches.into(),
        table.into(),
        out.into(),
        int(tokens)?,
        int(prefix)?,
        int(d)?,
    ];
    // SAFETY: the table has all tokens of an image, out those of all images, patches all but the prefix of each.
    unsafe { machine.launch(&launch, &args) }
}
