//! Operations as compositions of candle's own: what runs on Metal, and on the CPU where it is asked for.
//!
//! The references of this module's operations are the compositions. They keep to what candle-core 0.11.1 has both a Metal kernel and a
//! backward for, and to what its kernels compute right: no `powf` (its shader is a fast `pow`, undefined for negative numbers, so candle's
//! backward of tanh GELU is left out), `index_select` from contiguous tensors only, products of contiguous or transposed matrices.

use std::cell::Cell;

use candle_core::{Device, Result, bail};

thread_local! {
    static ASKED_FOR: Cell<bool> = const { Cell::new(false) };
}

/// Puts the thread back to what it was.
struct Restore(bool);

impl Drop for Restore {
    fn drop(&mut self) {
        ASKED_FOR.set(self.0);
    }
}

/// Runs `f` with every operation that its thread computes on the CPU composed as on Metal, optimiser and moving averages included: to see
/// what the graph of a Metal device gives where there is none.
pub fn composed<R>(f: impl FnOnce() -> R) -> R {
    let _restore = Restore(ASKED_FOR.replace(true));
    f()
}

/// Whether operations on tensors of this device are compositions of candle's: on Metal, and inside [`composed`].
pub fn is_composed(device: &Device) -> bool {
    device.is_metal() || ASKED_FOR.get()
}

/// Whether [`unit_rows`](super::unit_rows), [`crops_cross_entropy`](super::crops_cross_entropy) and [`patch_loss`](super::patch_loss) are
/// for tensors of this device: everywhere but on the CPU, for which training has kernels of its own.
pub fn has_losses(device: &Device) -> bool {
    !device.is_cpu() || is_composed(device)
}

/// For kernels of the CPU: an error inside [`composed`], as Metal has none of them.
pub fn no_kernel_while_composed() -> Result<()> {
    if ASKED_FOR.get() {
        bail!("a kernel of the CPU was asked for while operations are composed")
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_inside_alone_and_ends_with_a_panic() {
        let asked = || is_composed(&Device::Cpu);
        assert!(!asked());
        assert!(composed(|| asked() && composed(asked) && asked()));
        assert!(std::panic::catch_unwind(|| composed(|| panic!("inside"))).is_err());
        assert!(!asked() && !has_losses(&Device::Cpu));
        assert!(no_kernel_while_composed().is_ok());
        assert!(composed(no_kernel_while_composed).is_err());
    }
}
