//! Plain loops compiled for each instruction set that `pulp` knows, and chosen among them when they are called.
//!
//! All of them compute the same operations in the same order, so the result does not depend on the CPU.

use pulp::{Arch, Simd, WithSimd};

/// A loop to compile for several instruction sets.
pub(crate) trait Loop {
    /// Must be `#[inline(always)]`: only code that is inlined is compiled for the instruction set that was chosen.
    fn run(self);
}

struct Chosen<L>(L);

impl<L: Loop> WithSimd for Chosen<L> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        self.0.run();
    }
}

/// Runs a loop compiled for the widest instruction set of this CPU.
#[inline]
pub(crate) fn dispatch<L: Loop>(body: L) {
    Arch::new().dispatch(Chosen(body));
}
