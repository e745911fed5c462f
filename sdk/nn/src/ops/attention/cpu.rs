//! The CPU's kernels: a task is one head of one image, which packs its keys and values once and goes through its queries block by block.
//!
//! Scores of a block stay in the near caches; no `N × N` tensor is made. The backward computes the probabilities again.

use rayon::prelude::*;

use super::Sizes;
use crate::ops::OneByOne;
use crate::ops::product::{Accum, Factor, Matrix, MatrixMut, rows, rows_mut};
use crate::ops::scratch::scratch;
use crate::ops::softmax::{softmax_rows, softmax_rows_grad};

/// Query rows of a block, about; their number depends on N alone, so that results do not depend on the number of threads.
const QUERY_ROWS: usize = 64;

/// What the number of a block's rows is a multiple of, unless it is the last: kernels take 4, 6 or 12 at once.
const HEIGHT: usize = 12;

/// Gradients of one head's columns, `[N, d]` each.
struct Grads<'a> {
    q: MatrixMut<'a>,
    k: MatrixMut<'a>,
    v: MatrixMut<'a>,
}

impl Sizes {
    /// Attention of every image of `qkv [B, N, 3·D]`, into `out [B, N, D]`.
    pub(crate) fn forward_into(&self, out: &mut [f32], qkv: &[f32]) {
        let (n, dim) = (self.tokens, self.dim);
        let images = out.chunks_mut(n * dim).zip(qkv.chunks(3 * n * dim));
        let heads: Vec<_> = images
            .flat_map(|(out, qkv)| {
                let heads = rows_mut(out, n, dim, dim).split_columns(self.head_dim);
                heads.enumerate().map(move |(head, out)| (qkv, head, out))
            })
            .collect();
        heads
            .into_par_iter()
            .one_by_one()
            .for_each(|(qkv, head, out)| self.forward(qkv, head, out));
    }

    /// Gradient of `qkv`, from that of the output.
    pub(crate) fn backward_into(&self, dqkv: &mut [f32], qkv: &[f32], grad: &[f32]) {
        let (n, dim) = (self.tokens, self.dim);
        let images = dqkv.chunks_mut(3 * n * dim);
        let images = images.zip(qkv.chunks(3 * n * dim).zip(grad.chunks(n * dim)));
        let heads: Vec<_> = images
            .flat_map(|(dqkv, (qkv, grad))| {
                let parts = rows_mut(dqkv, n, 3 * dim, 3 * dim).split_columns(self.head_dim);
                let mut q: Vec<_> = parts.collect();
                let mut k = q.split_off(self.heads);
                let v = k.split_off(self.heads);
                let grads = q.into_iter().zip(k).zip(v).enumerate();
                grads.map(move |(head, ((q, k), v))| (qkv, grad, head, Grads { q, k, v }))
            })
            .collect();
        heads
            .into_par_iter()
            .one_by_one()
            .for_each(|(qkv, grad, head, grads)| self.backward(qkv, grad, head, grads));
    }

    fn forward(&self, qkv: &[f32], head: usize, mut out: MatrixMut<'_>) {
        let [q, k, v] = [0, 1, 2].map(|which| self.part(qkv, which, head));
        let (keys, values) = (Factor::new(k.transpose()), Factor::new(v));
        let stride = keys.padded();
        let mut probs = scratch(self.block_rows() * stride);
        for [first, count] in self.blocks() {
            let probs = &mut probs[..count * stride];
            self.probabilities(q.subrows(first, count), &keys, probs);
            values.product(
                out.subrows(first, count),
                Accum::Replace,
                rows(probs, count, self.tokens, stride),
            );
        }
    }

    fn backward(&self, qkv: &[f32], grad: &[f32], head: usize, mut grads: Grads<'_>) {
        let (n, d) = (self.tokens, self.head_dim);
        let [q, k, v] = [0, 1, 2].map(|which| self.part(qkv, which, head));
        let grad = rows(&grad[head * d..], n, d, self.dim);
        let (keys_t, values_t) = (Factor::new(k.transpose()), Factor::new(v.transpose()));
        let keys = Factor::new(k);
        let stride = keys_t.padded();
        let mut memory = scratch(2 * self.block_rows() * stride);
        for [first, count] in self.blocks() {
            let accum = if first == 0 {
                Accum::Replace
            } else {
                Accum::Add
            };
            let (q, g) = (q.subrows(first, count), grad.subrows(first, count));
            let (p, ds) = memory[..2 * count * stride].split_at_mut(count * stride);
            self.probabilities(q, &keys_t, p);
            values_t.product(rows_mut(ds, count, stride, stride), Accum::Replace, g);
            softmax_rows_grad(&*p, &mut *ds, stride, n, self.scale());
            let (p, ds) = (rows(p, count, n, stride), rows(ds, count, n, stride));
            keys.product(grads.q.subrows(first, count), Accum::Replace, ds);
            Factor::new(g).product(grads.v.subrows(0, n), accum, p.transpose());
            Factor::new(q).product(grads.k.subrows(0, n), accum, ds.transpose());
        }
    }

    /// Probabilities of some queries over all keys, into rows as long as `keys` are padded.
    fn probabilities(&self, q: Matrix<'_>, keys: &Factor<'_>, probs: &mut [f32]) {
        let stride = keys.padded();
        let count = probs.len() / stride;
        keys.product(rows_mut(probs, count, stride, stride), Accum::Replace, q);
        softmax_rows(probs, stride, self.tokens, self.scale());
    }

    /// Query rows of every block but the last.
    fn block_rows(&self) -> usize {
        let blocks = self.tokens.div_ceil(QUERY_ROWS);
        let rows = self.tokens.div_ceil(blocks).next_multiple_of(HEIGHT);
        rows.min(self.tokens)
    }

    /// The first query and the number of queries of every block.
    fn blocks(&self) -> impl Iterator<Item = [usize; 2]> {
        let (n, rows) = (self.tokens, self.block_rows());
        (0..n)
            .step_by(rows)
            .map(move |first| [first, rows.min(n - first)])
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    /// Columns of Q (0), K (1) or V (2) of one head in an image's `[N, 3·D]`.
    fn part<'a>(&self, qkv: &'a [f32], which: usize, head: usize) -> Matrix<'a> {
        let start = which * self.dim + head * self.head_dim;
        rows(&qkv[start..], self.tokens, self.head_dim, 3 * self.dim)
    }
}
