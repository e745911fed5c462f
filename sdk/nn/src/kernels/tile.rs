//! What a kernel computes: a few rows times one panel of columns, over all of K.

use super::isa::Isa;
#[cfg(target_arch = "aarch64")]
use super::neon;
use super::portable;
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};

/// Steps along K from which on a kernel asks for C before it begins: it comes near while sums run. C of short products is near already.
#[cfg(target_arch = "x86_64")]
const LONG: usize = 256;

/// `C[rows, columns] = A[rows, K] · B[K, columns] + bias`, or `C += …`, for the columns of one panel ([`Kernels::columns`]); sums run over k in order,
/// one product after another.
///
/// With the kernels of [`Pairs`](super::Pairs) a value of A or B is a word of two in bf16.
#[derive(Clone, Copy)]
pub(crate) struct FloatTile {
    /// At most [`Kernels::rows`].
    pub(crate) rows: usize,
    pub(crate) k: usize,
    pub(crate) a: *const f32,
    /// Distance between rows of A.
    pub(crate) lda: usize,
    /// Distance between neighbours along K in A. The kernels are made for those where this or `lda` is 1; those of pairs take 1 alone.
    pub(crate) ka: usize,
    pub(crate) b: *const f32,
    /// Distance between rows of B.
    pub(crate) ldb: usize,
    /// A value for each column, or null for none.
    pub(crate) bias: *const f32,
    pub(crate) c: *mut f32,
    /// Distance between rows of C.
    pub(crate) ldc: usize,
    /// Whether C is added to.
    pub(crate) add: bool,
    #[cfg_attr(
        not(target_arch = "x86_64"),
        allow(dead_code, reason = "the other kernels leave it to the CPU")
    )]
    pub(crate) ahead: Ahead,
}

#[cfg(target_arch = "x86_64")]
impl FloatTile {
    /// Asks the near cache for both ends of each row of C, which lies on one to three lines.
    #[inline(always)]
    fn fetch_c(&self, columns: usize) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        for row in 0..self.rows {
            let c = self.c.wrapping_add(row * self.ldc);
            // SAFETY: SSE is part of x86-64, and a prefetch may name any address.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(c.cast());
                _mm_prefetch::<_MM_HINT_T0>(c.wrapping_add(columns - 1).cast());
            }
        }
    }
}

/// `C[r, n] = (start[n] + Σ A[r, k] B[k, n]) · row_scale[r] · scale[n] + bias[n]`, or `C += …`; the sum is an exact integer.
///
/// The three steps behind the sum are single roundings in this order, so that every instruction set gives the same bits.
#[derive(Clone, Copy)]
pub(crate) struct IntTile {
    /// At most [`Kernels::rows`].
    pub(crate) rows: usize,
    /// Groups of [`Form::group`] values along K.
    pub(crate) groups: usize,
    /// Rows as [`Form`] says.
    pub(crate) a: *const u8,
    /// Distance between rows of A in bytes.
    pub(crate) lda: usize,
    /// `[groups][columns][group]` weights.
    pub(crate) b: *const i8,
    /// A value for each column.
    pub(crate) start: *const i32,
    /// A value for each column.
    pub(crate) scale: *const f32,
    /// A value for each column.
    pub(crate) bias: *const f32,
    /// One value a row.
    pub(crate) row_scale: *const f32,
    pub(crate) c: *mut f32,
    /// Distance between rows of C.
    pub(crate) ldc: usize,
    /// Whether C is added to.
    pub(crate) add: bool,
    #[cfg_attr(
        not(target_arch = "x86_64"),
        allow(dead_code, reason = "the other kernels leave it to the CPU")
    )]
    pub(crate) ahead: Ahead,
}

/// Memory that a kernel asks the near cache for while it works, `step` bytes further on at every row of B.
///
/// A panel of a wide layer comes from the far cache or from memory, slower than it is used the first time. What it costs to wait is hidden behind the
/// products of the panel before.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    /// May point anywhere: it is never read.
    from: *const u8,
    step: usize,
}

impl Ahead {
    /// Nothing: the beginning of B, which is near already.
    pub(crate) fn nothing<T>(b: *const T) -> Self {
        Self {
            from: b.cast(),
            step: 0,
        }
    }

    /// Of the panel behind `panel`, the part that falls to one of the calls on `panel`, which makes `steps` steps along K.
    pub(crate) fn behind<T>(panel: &[T], steps: usize, cut: &Cut) -> Self {
        let step = size_of_val(panel).div_ceil(steps * cut.of);
        let end = panel.as_ptr_range().end.cast::<u8>();
        Self {
            from: end.wrapping_add(cut.index * steps * step),
            step,
        }
    }

    /// Where to fetch next; what comes after is so many rows of B later.
    #[inline(always)]
    #[cfg_attr(
        not(target_arch = "x86_64"),
        allow(dead_code, reason = "the other kernels leave it to the CPU")
    )]
    pub(crate) fn advance(&mut self, rows: usize) -> *const i8 {
        let at = self.from;
        self.from = at.wrapping_add(rows * self.step);
        at.cast()
    }
}

/// Rows that one call of a kernel takes.
#[derive(Clone, Copy)]
pub(crate) struct Cut {
    pub(crate) first: usize,
    pub(crate) rows: usize,
    /// Which of the calls on the same panel it is.
    pub(crate) index: usize,
    /// Calls on the same panel.
    of: usize,
}

/// How integer factors lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Activations as `q + 128` in u8, four values of k together: `vpdpbusd`. The sums start at `-128 Σ w`.
    Unsigned4,
    /// Activations as i8, four values of k together: `sdot` and plain loops.
    Signed4,
    /// Activations as i8, two values of k together: `smull` and `smlal`.
    #[cfg_attr(
        not(target_arch = "aarch64"),
        allow(dead_code, reason = "only kernels for 64-bit Arm take it")
    )]
    Signed2,
    /// Activations as i16, two values of k together: `vpmaddwd`.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        allow(dead_code, reason = "only kernels for x86-64 take it")
    )]
    Wide2,
}

impl Form {
    /// Values of k that lie together.
    pub(crate) fn group(self) -> usize {
        match self {
            Self::Unsigned4 | Self::Signed4 => 4,
            Self::Signed2 | Self::Wide2 => 2,
        }
    }

    /// Bytes of an activation.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Unsigned4 | Self::Signed4 | Self::Signed2 => 1,
            Self::Wide2 => 2,
        }
    }
}

/// The kernels of one instruction set.
#[derive(Clone, Copy)]
pub(crate) struct Kernels {
    /// Rows that one call takes at most.
    pub(crate) rows: usize,
    /// Columns of a panel, which one call takes.
    pub(crate) columns: usize,
    pub(crate) form: Form,
    pub(super) float: unsafe fn(&FloatTile),
    int: unsafe fn(&IntTile),
}

impl Kernels {
    /// Rows that no kernel exceeds.
    pub(crate) const MOST_ROWS: usize = 12;

    /// The most columns of a panel.
    pub(crate) const MOST_COLUMNS: usize = 32;

    /// The kernels of `isa`, which must be available.
    pub(crate) fn of(isa: Isa) -> Self {
        assert!(isa.is_available(), "this CPU has no {isa}");
        let kernels = match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Self {
                rows: avx2::ROWS,
                columns: avx2::COLUMNS,
                form: Form::Wide2,
                float: avx2::float,
                int: avx2::int_wide,
            },
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => Self {
                rows: avx2::ROWS,
                columns: avx2::COLUMNS,
                form: Form::Unsigned4,
                float: avx2::float,
                int: avx2::int_vnni,
            },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Self {
                rows: avx512::ROWS,
                columns: avx512::COLUMNS,
                form: Form::Wide2,
                float: avx512::float,
                int: avx512::int_wide,
            },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => Self {
                rows: avx512::ROWS,
                columns: avx512::COLUMNS,
                form: Form::Unsigned4,
                float: avx512::float,
                int: avx512::int_vnni,
            },
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => Self {
                rows: neon::ROWS,
                columns: neon::COLUMNS,
                form: Form::Signed2,
                float: neon::float,
                int: neon::int_pairs,
            },
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDot => Self {
                rows: neon::ROWS,
                columns: neon::COLUMNS,
                form: Form::Signed4,
                float: neon::float,
                int: neon::int_dot,
            },
            _ => Self {
                rows: portable::ROWS,
                columns: portable::COLUMNS,
                form: Form::Signed4,
                float: portable::float,
                int: portable::int,
            },
        };
        assert!(kernels.rows <= Self::MOST_ROWS && kernels.columns <= Self::MOST_COLUMNS);
        kernels
    }

    /// # Safety
    /// Every pointer of `tile` must reach as far as its sizes say, and no other thread may use C meanwhile.
    #[inline]
    pub(crate) unsafe fn float(&self, tile: &FloatTile) {
        debug_assert!((1..=self.rows).contains(&tile.rows));
        #[cfg(target_arch = "x86_64")]
        if tile.k >= LONG {
            tile.fetch_c(self.columns);
        }
        // SAFETY: the instruction set was found when the kernels were chosen; the caller answers for the pointers.
        unsafe { (self.float)(tile) }
    }

    /// # Safety
    /// As [`Kernels::float`].
    #[inline]
    pub(crate) unsafe fn int(&self, tile: &IntTile) {
        debug_assert!((1..=self.rows).contains(&tile.rows));
        // SAFETY: as above.
        unsafe { (self.int)(tile) }
    }

    /// Cuts `rows` into the fewest calls, of heights that differ by one at most.
    pub(crate) fn cuts(&self, rows: usize) -> impl Iterator<Item = Cut> {
        let of = rows.div_ceil(self.rows);
        let (height, higher) = (rows / of.max(1), rows % of.max(1));
        let mut first = 0;
        (0..of).map(move |index| {
            let rows = height + usize::from(index < higher);
            let cut = Cut {
                first,
                rows,
                index,
                of,
            };
            first += rows;
            cut
        })
    }
}

/// Calls a kernel with the height of the tile as a constant.
macro_rules! by_height {
    ($tile:ident, $kernel:ident, [$($height:literal)*]) => {
        match $tile.rows {
            // SAFETY: the caller of the function that this stands in answers for the pointers.
            $($height => unsafe { $kernel::<$height>($tile) },)*
            rows => unreachable!("no kernel takes {rows} rows"),
        }
    };
}

pub(super) use by_height;
