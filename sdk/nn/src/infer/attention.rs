//! Attention of some query rows of one image: `softmax(Q Kᵀ / √d) V` per head, in f32.

use super::layer::{Target, each_panel};
use crate::kernels::{Ahead, FloatTile, Kernels};
use crate::ops::softmax::softmax_rows;

/// Sizes of the attention over one image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heads {
    /// Number of heads.
    pub(super) count: usize,
    /// Width of one.
    pub(super) width: usize,
    /// Tokens T of the image.
    pub(super) tokens: usize,
}

impl Heads {
    /// Tokens padded to whole panels of any kernels.
    pub(super) fn padded(&self) -> usize {
        self.tokens.next_multiple_of(Kernels::MOST_COLUMNS)
    }

    /// Values of one image's transposed keys, `[head][width][padded tokens]`.
    pub(super) fn keys_len(&self) -> usize {
        self.count * self.width * self.padded()
    }

    /// Values of one image's values, `[head][T][width]`, with a panel behind them that kernels may read.
    pub(super) fn values_len(&self) -> usize {
        self.count * self.tokens * self.width + Kernels::MOST_COLUMNS
    }

    /// Values of the scores of `rows` queries.
    pub(super) fn scores_len(&self, rows: usize) -> usize {
        rows * self.padded()
    }

    /// Attends with `queries [rows, D]` over `keys` and `values` of their image; writes `out [rows, stride]`.
    pub(super) fn attend(
        &self,
        kernels: &Kernels,
        queries: &[f32],
        keys: &[f32],
        values: &[f32],
        scores: &mut [f32],
        out: &mut Target<'_>,
    ) {
        let (dim, padded) = (self.count * self.width, self.padded());
        let rows = queries.len() / dim;
        let scale = 1.0 / (self.width as f32).sqrt();
        assert!(keys.len() >= self.keys_len() && values.len() >= self.values_len());
        for head in 0..self.count {
            let keys = &keys[head * self.width * padded..][..self.width * padded];
            let values = &values[head * self.tokens * self.width..];
            let mut target = Target {
                data: &mut *scores,
                stride: padded,
                add: false,
            };
            each_panel(kernels, rows, padded, &mut target, |panel, cut, to| {
                let tile = FloatTile {
                    rows: cut.rows,
                    k: self.width,
                    a: queries[cut.first * dim + head * self.width..].as_ptr(),
                    lda: dim,
                    ka: 1,
                    b: keys[panel * kernels.columns..].as_ptr(),
                    ldb: padded,
                    bias: std::ptr::null(),
                    c: to.c,
                    ldc: to.ldc,
                    add: to.add,
                    ahead: Ahead::nothing(keys.as_ptr()),
                };
                // SAFETY: the keys have `width` rows of `padded` columns, the queries `rows` of `dim`.
                unsafe { kernels.float(&tile) }
            });
            softmax_rows(&mut scores[..rows * padded], padded, self.tokens, scale);
            let mut target = Target {
                data: &mut out.data[head * self.width..],
                stride: out.stride,
                add: false,
            };
            each_panel(kernels, rows, self.width, &mut target, |panel, cut, to| {
                let tile = FloatTile {
                    rows: cut.rows,
                    k: self.tokens,
                    a: scores[cut.first * padded..].as_ptr(),
                    lda: padded,
                    ka: 1,
                    b: values[panel * kernels.columns..].as_ptr(),
                    ldb: self.width,
                    bias: std::ptr::null(),
                    c: to.c,
                    ldc: to.ldc,
                    add: to.add,
                    ahead: Ahead::nothing(values.as_ptr()),
                };
                // SAFETY: the values have T rows of `width` columns and a panel behind the last head's.
                unsafe { kernels.float(&tile) }
            });
        }
    }
}

/// Copies keys and values out of `qkv [rows, stride]` of the tokens from `first` on: the keys transposed.
///
/// `key_row(head · width + d)` is where the keys' channel d of these tokens goes, `value_rows(head)` where the head's values go.
pub(super) fn scatter<'k>(
    heads: &Heads,
    qkv: &[f32],
    stride: usize,
    rows: usize,
    mut key_row: impl FnMut(usize) -> &'k mut [f32],
    mut value_rows: impl FnMut(usize) -> &'k mut [f32],
) {
    let dim = heads.count * heads.width;
    for channel in 0..dim {
        let from = qkv[dim + channel..].iter().step_by(stride);
        for (to, from) in key_row(channel).iter_mut().zip(from).take(rows) {
            *to = *from;
        }
    }
    for head in 0..heads.count {
        let start = 2 * dim + head * heads.width;
        let to = value_rows(head).chunks_exact_mut(heads.width);
        for (row, to) in to.take(rows).enumerate() {
            to.copy_from_slice(&qkv[row * stride + start..][..heads.width]);
        }
    }
}
