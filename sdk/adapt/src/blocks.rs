//! Work over rows in blocks of a fixed size, in the caller's rayon pool if there is one.

use rayon::prelude::*;
use std::ops::Range;

/// Rows of one block. Fixed, so that no result depends on the number of threads.
pub(crate) const ROWS: usize = 256;

/// Applies `work` to each block of `0..n_rows`; results in block order.
///
/// Starts no threads: blocks run in parallel only when the caller already runs inside a rayon pool.
pub(crate) fn map<T: Send>(n_rows: usize, work: impl Fn(Range<usize>) -> T + Sync) -> Vec<T> {
    let block = |i: usize| work(i * ROWS..((i + 1) * ROWS).min(n_rows));
    let n_blocks = n_rows.div_ceil(ROWS);
    if rayon::current_thread_index().is_some() && n_blocks > 1 {
        (0..n_blocks).into_par_iter().map(block).collect()
    } else {
        (0..n_blocks).map(block).collect()
    }
}

/// As [`map`], each block writing its rows of `out` `[n_rows, width]`.
pub(crate) fn fill<T: Send>(
    out: &mut [T],
    width: usize,
    work: impl Fn(Range<usize>, &mut [T]) + Sync,
) {
    if out.is_empty() {
        return;
    }
    let rows = |i: usize, chunk: &mut [T]| work(i * ROWS..i * ROWS + chunk.len() / width, chunk);
    if rayon::current_thread_index().is_some() && out.len() > ROWS * width {
        out.par_chunks_mut(ROWS * width)
            .enumerate()
            .for_each(|(i, chunk)| rows(i, chunk));
    } else {
        out.chunks_mut(ROWS * width)
            .enumerate()
            .for_each(|(i, chunk)| rows(i, chunk));
    }
}

/// Applies `work` to each of `0..n`; results in order. For work that is long on its own; as [`map`] it starts no threads.
pub(crate) fn each<T: Send>(n: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    if rayon::current_thread_index().is_some() && n > 1 {
        (0..n).into_par_iter().map(&work).collect()
    } else {
        (0..n).map(work).collect()
    }
}
