//! One process alone.

use super::{Collective, CollectiveError};

/// The only rank of a world of one: every sum is its own value.
#[derive(Clone, Copy, Debug, Default)]
pub struct Solo;

impl Collective for Solo {
    fn rank(&self) -> usize {
        0
    }

    fn world(&self) -> usize {
        1
    }

    fn all_reduce_sum(&self, _values: &mut [f32]) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn all_reduce_sum_f64(&self, _values: &mut [f64]) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn broadcast(&self, _root: usize, _values: &mut [u64]) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn all_gather(&self, value: u64) -> Result<Vec<u64>, CollectiveError> {
        Ok(vec![value])
    }

    fn barrier(&self) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn fail(&self, _message: &str) {}
}
