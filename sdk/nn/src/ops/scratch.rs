//! Buffers that are used again: fresh memory costs a page fault and a zeroing for every 4 KiB, several times what a memory-bound op costs.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

static POOL: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::new());

/// A buffer from the pool, to which it returns when dropped. Its values are whatever the last user left.
#[derive(Debug)]
pub(super) struct Scratch {
    buffer: Vec<f32>,
    len: usize,
}

fn pool() -> std::sync::MutexGuard<'static, Vec<Vec<f32>>> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A buffer of `len` arbitrary values.
pub(super) fn scratch(len: usize) -> Scratch {
    let mut pool = pool();
    let fits = |buffer: &&Vec<f32>| (len..=len.saturating_mul(2)).contains(&buffer.len());
    let best = pool
        .iter()
        .filter(fits)
        .map(Vec::len)
        .min()
        .and_then(|best| pool.iter().position(|buffer| buffer.len() == best));
    let buffer = best.map(|i| pool.swap_remove(i));
    drop(pool);
    Scratch {
        buffer: buffer.unwrap_or_else(|| vec![0.0; len]),
        len,
    }
}

/// Gives the memory of unused buffers back.
pub fn release_scratch() {
    pool().clear();
}

impl Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.buffer[..self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.buffer[..self.len]
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        pool().push(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_for_lengths_near_its_own() {
        let mut first = scratch(100_003);
        first[0] = 7.0;
        let address = first.as_ptr();
        drop(first);
        let second = scratch(90_001);
        assert_eq!((second.as_ptr(), second.len()), (address, 90_001));
        let third = scratch(90_001);
        assert_ne!(third.as_ptr(), address, "a buffer in use is nobody else's");
    }
}
