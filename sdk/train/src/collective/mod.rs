//! Training over several ranks: what they exchange, behind one trait with one file for each engine.
//!
//! A rank is one of `world` runs of the same configuration on the same images that together do what one process would do.
//! [`pretrain_over`](crate::pretrain_over) gives rank `r` the `r`-th contiguous part of every batch and averages what is
//! a mean over the batch: loss, gradients and the statistics of the method. Everything else is computed on all ranks alike.
//!
//! Engines: [`Solo`], one process alone; [`Threads`], ranks on threads of one process; `Mpi` (feature `mpi`), processes
//! under `mpirun` or `srun`, whose sums NCCL makes on their GPUs with feature `nccl`. [`connect`] chooses by the variables that launchers set.

mod average;
mod launch;
#[cfg(feature = "mpi")]
mod mpi;
#[cfg(feature = "nccl")]
mod nccl;
#[cfg(any(test, feature = "nccl"))]
mod offload;
mod solo;
mod threads;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub(crate) use average::{average_gradients, gather_f64, same_on_all};
pub(crate) use launch::processes_here;
pub use launch::{Launch, connect, launched};
#[cfg(feature = "mpi")]
pub use mpi::Mpi;
pub use solo::Solo;
pub use threads::Threads;

/// How long a rank waits for the others before it stops, where nothing else is asked for. It must exceed what rank 0 does
/// alone between two steps: scoring a probe, writing a checkpoint.
pub const TIMEOUT: Duration = Duration::from_secs(600);

/// The ranks of a run as one of them sees them.
///
/// Every rank makes the same calls in the same order. A call returns when all ranks have made it, and gives all of them the
/// same bits. After an error the ranks are apart for good: every further call is an error too.
///
/// # Errors
/// Every call fails with [`CollectiveError::Failed`] when a rank has called [`Collective::fail`], with
/// [`CollectiveError::Left`], [`CollectiveError::Missing`] or [`CollectiveError::Stuck`] when one does not come, and with
/// [`CollectiveError::Mismatch`] when the ranks do not make the same call.
pub trait Collective: Send + Sync + fmt::Debug {
    /// This rank, from 0.
    fn rank(&self) -> usize;

    /// Number of ranks, at least 1.
    fn world(&self) -> usize;

    /// Replaces each value by its sum over the ranks; slices of equal length on all ranks.
    fn all_reduce_sum(&self, values: &mut [f32]) -> Result<(), CollectiveError>;

    /// As [`Collective::all_reduce_sum`].
    fn all_reduce_sum_f64(&self, values: &mut [f64]) -> Result<(), CollectiveError>;

    /// Replaces the values by those of rank `root`; slices of equal length on all ranks.
    fn broadcast(&self, root: usize, values: &mut [u64]) -> Result<(), CollectiveError>;

    /// The values of all ranks, in the order of the ranks.
    fn all_gather(&self, value: u64) -> Result<Vec<u64>, CollectiveError>;

    /// Waits for all ranks.
    fn barrier(&self) -> Result<(), CollectiveError>;

    /// Tells the other ranks that this one stops and why; their next call, or the one they wait in, is an error with this
    /// rank and `message`. Does nothing after any call was an error, as the others know then.
    fn fail(&self, message: &str);
}

/// Why the ranks cannot go on together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
#[non_exhaustive]
pub enum CollectiveError {
    /// A rank stopped with an error of its own.
    #[error("rank {rank} failed and all ranks stopped: {message}")]
    Failed {
        /// The rank.
        rank: usize,
        /// Its error.
        message: String,
    },
    /// A rank ended without a word.
    #[error(
        "rank {rank} ended before the run did and all ranks stopped; see its messages, then go on with --resume"
    )]
    Left {
        /// The rank.
        rank: usize,
    },
    /// Ranks did not come to a call in time.
    #[error(
        "{} did not come within {waited:?} and all ranks stopped; see whether it hangs or its machine is gone, then go on with --resume \
         (a slow disk or a large probe may need a longer time: --rank-timeout)",
        names(ranks)
    )]
    Missing {
        /// The ranks.
        ranks: Vec<usize>,
        /// How long the others waited.
        waited: Duration,
    },
    /// All ranks came to a call and it has not returned: the network or another machine is at fault.
    #[error(
        "an exchange between the ranks has not ended within {waited:?}; stop the job, check network and machines, then go on with --resume"
    )]
    Stuck {
        /// How long this rank waited.
        waited: Duration,
    },
    /// The ranks do not run the same program.
    #[error(
        "rank {rank} called {theirs} where rank 0 called {ours}; start all ranks from the same build with the same settings"
    )]
    Mismatch {
        /// The first rank that differs.
        rank: usize,
        /// Its call.
        theirs: String,
        /// That of rank 0.
        ours: String,
    },
}

/// A call as the ranks compare it before they exchange anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Call {
    SumF32 { len: usize },
    SumF64 { len: usize },
    Broadcast { root: usize, len: usize },
    Gather,
    Barrier,
    Fail { message: String },
}

/// Whether the ranks can go on, from the calls of all of them; `None` for one that did not come within `waited`.
fn agree(calls: &[Option<&Call>], waited: Duration) -> Result<(), CollectiveError> {
    for (rank, call) in calls.iter().enumerate() {
        if let Some(Call::Fail { message }) = call {
            let message = message.clone();
            return Err(CollectiveError::Failed { rank, message });
        }
    }
    let ranks: Vec<usize> = (0..calls.len())
        .filter(|&rank| calls[rank].is_none())
        .collect();
    if !ranks.is_empty() {
        return Err(CollectiveError::Missing { ranks, waited });
    }
    match calls.iter().position(|call| *call != calls[0]) {
        None => Ok(()),
        Some(rank) => Err(CollectiveError::Mismatch {
            rank,
            theirs: describe(calls[rank]),
            ours: describe(calls[0]),
        }),
    }
}

fn describe(call: Option<&Call>) -> String {
    call.map_or_else(String::new, |call| format!("{call:?}"))
}

/// `rank 3`, or `ranks 1, 3`.
pub(crate) fn names(ranks: &[usize]) -> String {
    let list: Vec<String> = ranks.iter().map(usize::to_string).collect();
    let noun = if ranks.len() == 1 { "rank" } else { "ranks" };
    format!("{noun} {}", list.join(", "))
}

/// The part of every batch that one rank trains on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    rank: usize,
    world: usize,
}

impl Share {
    /// # Errors
    /// A batch that cannot be cut into `world` equal parts: means of parts would not be the mean of the batch.
    pub(crate) fn new(batch: usize, rank: usize, world: usize) -> crate::Result<Self> {
        if !batch.is_multiple_of(world) {
            return Err(crate::TrainError::BatchOverRanks { batch, world });
        }
        Ok(Self { rank, world })
    }

    /// This rank's part of a batch.
    pub(crate) fn of<T>(self, batch: &[T]) -> &[T] {
        let len = batch.len() / self.world;
        &batch[self.rank * len..][..len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_contiguous_and_make_up_the_batch() {
        let batch = [5, 3, 8, 1, 9, 2];
        let parts: Vec<&[i32]> = (0..3)
            .map(|rank| Share::new(6, rank, 3).unwrap().of(&batch))
            .collect();
        assert_eq!(parts, [[5, 3], [8, 1], [9, 2]]);
    }

    #[test]
    fn a_failure_outweighs_a_missing_rank_and_that_a_mismatch() {
        let waited = Duration::from_secs(1);
        let (barrier, gather) = (Call::Barrier, Call::Gather);
        let fail = Call::Fail {
            message: "disk full".into(),
        };
        assert_eq!(agree(&[Some(&gather), Some(&gather)], waited), Ok(()));
        let error = agree(&[None, Some(&gather), Some(&fail)], waited).unwrap_err();
        assert_eq!(
            error.to_string(),
            "rank 2 failed and all ranks stopped: disk full"
        );
        let error = agree(&[Some(&barrier), None, Some(&gather), None], waited).unwrap_err();
        assert!(
            error.to_string().starts_with("ranks 1, 3 did not"),
            "{error}"
        );
        let error = agree(&[Some(&barrier), Some(&barrier), Some(&gather)], waited).unwrap_err();
        assert!(
            error.to_string().contains("rank 2 called Gather"),
            "{error}"
        );
    }
}
