//! What cuBLASLt is told of a product, the same for each machine that calls it.

use crate::{ColumnMajor, Kind, Product, View};

/// Alignment in bytes beyond which it makes no difference, as a power of two.
const ALIGNED: u32 = 8;

/// What the plan of a product depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PlanKey {
    /// Sizes, in cuBLAS's order.
    pub shape: ColumnMajor,
    /// Type of `a` and `b`.
    pub read: Kind,
    /// Type of summand, bias and result.
    pub written: Kind,
    /// Whether there is a summand.
    pub has_summand: bool,
    /// Whether there is a bias.
    pub has_bias: bool,
    /// Bytes that the addresses of `a`, `b`, summand and result are multiples of; at most 256.
    pub alignment: [u32; 4],
}

/// A column-major matrix as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Type of its values.
    pub kind: Kind,
    /// Rows as stored.
    pub rows: usize,
    /// Columns as stored.
    pub columns: usize,
    /// Values from a column to the next.
    pub ld: usize,
}

impl PlanKey {
    /// That of a product; a product without a summand has its result in the summand's place.
    pub fn of(product: &Product) -> Self {
        let c = product.c.unwrap_or(product.out);
        Self {
            shape: product.column_major(),
            read: product.a.kind,
            written: product.out.kind,
            has_summand: product.c.is_some(),
            has_bias: product.bias.is_some(),
            alignment: [product.b, product.a, c, product.out].map(alignment),
        }
    }

    /// Of `a`, `b` and the result.
    pub fn layouts(&self) -> [Layout; 3] {
        let ColumnMajor {
            m,
            n,
            k,
            a_transposed,
            b_transposed,
            lda,
            ldb,
            ldc,
        } = self.shape;
        let layout = |kind, (rows, columns), ld| Layout {
            kind,
            rows,
            columns,
            ld,
        };
        let stored = |transposed: bool, rows: usize, columns: usize| match transposed {
            true => (columns, rows),
            false => (rows, columns),
        };
        [
            layout(self.read, stored(a_transposed, m, k), lda),
            layout(self.read, stored(b_transposed, k, n), ldb),
            layout(self.written, (m, n), ldc),
        ]
    }
}

fn alignment(view: View) -> u32 {
    1 << view.address.trailing_zeros().min(ALIGNED)
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: usize = 2;
    const N: usize = 3;
    const K: usize = 4;

    fn product(a_transposed: bool, b_transposed: bool) -> Product {
        let view = |address: u64, len: usize, kind: Kind| View { address, len, kind };
        Product {
            m: M,
            n: N,
            k: K,
            a: view(0x1000, M * K, Kind::F16),
            a_transposed,
            b: view(0x1010, K * N, Kind::F16),
            b_transposed,
            c: None,
            bias: None,
            out: view(0x2004, M * N, Kind::F32),
        }
    }

    /// Where a value lies, which must be inside the matrix.
    fn at(layout: Layout, transposed: bool, row: usize, column: usize) -> usize {
        let (row, column) = match transposed {
            true => (column, row),
            false => (row, column),
        };
        assert!(row < layout.rows && column < layout.columns && layout.rows <= layout.ld);
        column * layout.ld + row
    }

    /// cuBLAS finds each value where the row-major product has it, with `a` and `b` in each other's place.
    #[test]
    fn layouts_describe_the_row_major_matrices() {
        for (a_transposed, b_transposed) in
            [(false, false), (false, true), (true, false), (true, true)]
        {
            let key = PlanKey::of(&product(a_transposed, b_transposed));
            let [b, a, out] = key.layouts();
            assert_eq!(
                [b, a, out].map(|l| l.rows * l.columns),
                [K * N, M * K, M * N]
            );
            for (i, j, l) in (0..M * N * K).map(|x| (x / (N * K), x / K % N, x % K)) {
                let in_a = if a_transposed { l * M + i } else { i * K + l };
                let in_b = if b_transposed { j * K + l } else { l * N + j };
                assert_eq!(at(a, key.shape.b_transposed, l, i), in_a);
                assert_eq!(at(b, key.shape.a_transposed, j, l), in_b);
                assert_eq!(at(out, false, j, i), i * N + j);
            }
        }
    }

    #[test]
    fn a_key_says_types_and_alignments_in_cublas_order() {
        let mut product = product(false, false);
        let key = PlanKey::of(&product);
        assert_eq!(key.alignment, [16, 256, 4, 4]);
        assert_eq!((key.read, key.written), (Kind::F16, Kind::F32));
        assert!(!key.has_summand && !key.has_bias);
        let kind = Kind::F32;
        let len = M * N;
        product.c = Some(View {
            address: 0,
            len,
            kind,
        });
        product.bias = Some(View {
            address: 8,
            len: N,
            kind,
        });
        let key = PlanKey::of(&product);
        assert_eq!(key.alignment, [16, 256, 256, 4]);
        assert!(key.has_summand && key.has_bias);
    }
}
