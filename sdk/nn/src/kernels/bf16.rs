//! Products of bf16 in pairs, for x86 with AVX-512 BF16 (Zen 4, Cooper Lake, Sapphire Rapids and later): two products a lane, summed in f32.
//!
//! A word of 32 bits holds two neighbours along K, the first in its lower half. Sums are rounded after every pair, subnormal factors count as zero.

use super::tile::Kernels;

/// The CPU's instructions for them; there is one only where it has them.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pairs(());

/// The CPU's instructions for them: of this kind none has any that Rust can name.
#[cfg(not(target_arch = "x86_64"))]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pairs {}

#[cfg(target_arch = "x86_64")]
impl Pairs {
    /// `None` on a CPU without them.
    pub(crate) fn detect() -> Option<Self> {
        use std::arch::is_x86_feature_detected as has;
        let there = super::Isa::Avx512.is_available() && has!("avx512vl") && has!("avx512bf16");
        there.then_some(Self(()))
    }

    /// Kernels whose [`FloatTile`](super::FloatTile) has words of pairs for values of A and B.
    pub(crate) fn kernels(self) -> Kernels {
        let mut kernels = Kernels::of(super::Isa::Avx512);
        kernels.float = x86::float;
        kernels
    }

    /// Neighbours of a row, rounded to nearest even, to words; behind the last of an odd number there is a zero.
    pub(crate) fn along(self, to: &mut [f32], from: &[f32]) {
        assert_eq!(to.len(), from.len().div_ceil(2));
        // SAFETY: the instructions are there, and the lengths fit.
        unsafe { x86::along(to, from) }
    }

    /// Values of two rows, one word for each column; zeros for a second row that is not there.
    pub(crate) fn across(self, to: &mut [f32], first: &[f32], second: Option<&[f32]>) {
        assert!(to.len() == first.len() && second.is_none_or(|second| second.len() == to.len()));
        // SAFETY: as above.
        unsafe { x86::across(to, first, second) }
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl Pairs {
    pub(crate) fn detect() -> Option<Self> {
        None
    }

    pub(crate) fn kernels(self) -> Kernels {
        match self {}
    }

    pub(crate) fn along(self, _to: &mut [f32], _from: &[f32]) {
        match self {}
    }

    pub(crate) fn across(self, _to: &mut [f32], _first: &[f32], _second: Option<&[f32]>) {
        match self {}
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::super::avx512::store_float;
    use super::super::tile::{FloatTile, by_height};

    /// # Safety
    /// AVX-512 F and BF16 are there, and see [`super::super::tile::Kernels::float`].
    pub(super) unsafe fn float(tile: &FloatTile) {
        by_height!(tile, rows, [1 2 3 4 5 6 7 8 9 10 11 12]);
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn rows<const R: usize>(tile: &FloatTile) {
        // SAFETY: A has R rows of K words, B has K rows of 32, and the caller answers for C and the bias. Vectors of bf16 and of words are the same bits.
        unsafe {
            debug_assert_eq!(tile.ka, 1);
            let pairs = |words: __m512i| std::mem::transmute::<__m512i, __m512bh>(words);
            let mut sums = [[_mm512_setzero_ps(); 2]; R];
            let (mut a, mut b, mut ahead) = (tile.a.cast::<i32>(), tile.b, tile.ahead);
            for _ in 0..tile.k {
                let columns = [b, b.add(16)].map(|b| pairs(_mm512_loadu_si512(b.cast())));
                for (r, sums) in sums.iter_mut().enumerate() {
                    let factor = pairs(_mm512_set1_epi32(*a.add(r * tile.lda)));
                    sums[0] = _mm512_dpbf16_ps(sums[0], factor, columns[0]);
                    sums[1] = _mm512_dpbf16_ps(sums[1], factor, columns[1]);
                }
                _mm_prefetch::<_MM_HINT_T0>(ahead.advance(1));
                a = a.add(1);
                b = b.add(tile.ldb);
            }
            store_float::<R>(tile, sums);
        }
    }

    /// # Safety
    /// AVX-512 F, VL and BF16 are there; `to` has a word for every pair of `from`.
    #[target_feature(enable = "avx512f,avx512vl,avx512bf16")]
    pub(super) unsafe fn along(to: &mut [f32], from: &[f32]) {
        let (from, rest) = from.as_chunks::<16>();
        let (to, last) = to.split_at_mut(8 * from.len());
        for (to, from) in to.as_chunks_mut::<8>().0.iter_mut().zip(from) {
            // SAFETY: all of both is there.
            unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), rounded(from.as_ptr(), !0)) }
        }
        if !rest.is_empty() {
            let (mask, words_mask) = (!0 >> (16 - rest.len()), !0 >> (8 - last.len()));
            // SAFETY: masks keep to what is there.
            unsafe {
                let words = rounded(rest.as_ptr(), mask);
                _mm256_mask_storeu_epi32(last.as_mut_ptr().cast(), words_mask, words);
            }
        }
    }

    /// # Safety
    /// AVX-512 F, VL and BF16 are there; all three have one length.
    #[target_feature(enable = "avx512f,avx512vl,avx512bf16")]
    pub(super) unsafe fn across(to: &mut [f32], first: &[f32], second: Option<&[f32]>) {
        let pairs = |at: usize, mask| {
            // SAFETY: a lane of the mask is a value of each row.
            unsafe {
                let words =
                    |row: &[f32]| _mm512_cvtepu16_epi32(rounded(row.as_ptr().add(at), mask));
                let high = second.map_or(_mm512_setzero_si512(), words);
                _mm512_or_si512(words(first), _mm512_slli_epi32::<16>(high))
            }
        };
        let (whole, rest) = to.as_chunks_mut::<16>();
        for (i, to) in whole.iter_mut().enumerate() {
            // SAFETY: it has room for 16.
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), pairs(16 * i, !0)) }
        }
        if !rest.is_empty() {
            let mask = !0 >> (16 - rest.len());
            // SAFETY: the mask keeps to what is there.
            unsafe {
                let words = pairs(16 * whole.len(), mask);
                _mm512_mask_storeu_epi32(rest.as_mut_ptr().cast(), mask, words);
            }
        }
    }

    /// 16 values in bf16; zeros outside the mask.
    ///
    /// # Safety
    /// AVX-512 F and BF16 are there, and what the mask names can be read.
    #[inline(always)]
    unsafe fn rounded(from: *const f32, mask: __mmask16) -> __m256i {
        // SAFETY: the caller's; both types are 256 bits.
        unsafe {
            let values = match mask {
                0xffff => _mm512_loadu_ps(from),
                mask => _mm512_maskz_loadu_ps(mask, from),
            };
            std::mem::transmute(_mm512_cvtneps_pbh(values))
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use half::bf16;

    use super::*;

    /// Values at every place of the rounding: ties, the next exponent, infinities, signs.
    fn values() -> Vec<f32> {
        let bits = (0..4096u32).map(|i| 0x3f7f_0000 + (i << 4) + (i % 3));
        let some = bits.map(f32::from_bits).flat_map(|x| [x, -x]);
        let ends = [
            0.0,
            -0.0,
            f32::MAX,
            f32::MIN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::MIN_POSITIVE,
        ];
        some.chain(ends).collect()
    }

    fn halves(word: f32) -> [u16; 2] {
        let bits = word.to_bits();
        [bits as u16, (bits >> 16) as u16]
    }

    #[test]
    fn neighbours_become_the_nearest_bf16() {
        let Some(pairs) = Pairs::detect() else { return };
        let values = values();
        for len in [1, 2, 15, 16, 17, 33, values.len()] {
            let mut words = vec![0.0; len.div_ceil(2)];
            pairs.along(&mut words, &values[..len]);
            let found: Vec<u16> = words.iter().flat_map(|w| halves(*w)).collect();
            let mut wanted: Vec<u16> = values[..len]
                .iter()
                .map(|x| bf16::from_f32(*x).to_bits())
                .collect();
            wanted.resize(2 * words.len(), 0);
            assert_eq!(found, wanted, "{len}");
        }
        let mut nan = [0.0];
        pairs.along(&mut nan, &[f32::NAN, 1.0]);
        assert!(bf16::from_bits(halves(nan[0])[0]).is_nan());
    }

    #[test]
    fn rows_are_joined_column_by_column() {
        let Some(pairs) = Pairs::detect() else { return };
        let values = values();
        for len in [1, 16, 32, 45] {
            let (first, second) = (&values[..len], &values[100..][..len]);
            for second in [Some(second), None] {
                let mut words = vec![0.0; len];
                pairs.across(&mut words, first, second);
                for (i, word) in words.iter().enumerate() {
                    let of = |row: &[f32]| bf16::from_f32(row[i]).to_bits();
                    assert_eq!(
                        halves(*word),
                        [of(first), second.map_or(0, of)],
                        "{i} of {len}"
                    );
                }
            }
        }
    }
}
