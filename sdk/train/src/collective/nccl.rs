//! Sums over the GPUs of the ranks by NVIDIA's NCCL, one GPU for each rank.
//!
//! The ranks are those of MPI, which also brings NCCL's identifier from rank 0 to the others. Everything but sums goes over MPI.

use std::ffi::c_char;
use std::sync::Arc;
use std::time::Duration;

use candle_core::cuda_backend::cudarc::driver::{CudaContext, CudaStream, DeviceRepr};
use candle_core::cuda_backend::cudarc::nccl::result::NcclError;
use candle_core::cuda_backend::cudarc::nccl::safe::{Comm, Id, NcclType, ReduceOp};

use super::offload::{Offloaded, Sums};
use super::{Collective, launch};
use crate::error::Result;

/// Bytes of NCCL's identifier.
const ID: usize = 128;

/// Values in one exchange: what memory on the GPU is taken for.
const CHUNK: usize = 1 << 24;

/// The communicator, on the GPU with the number of this process on its machine.
struct Nccl {
    comm: Comm,
    stream: Arc<CudaStream>,
}

/// Ranks whose sums are made by NCCL.
///
/// # Errors
/// [`crate::TrainError::Launcher`] with the ranks that have no GPU or no NCCL.
pub(super) fn over_nccl(
    ranks: Box<dyn Collective>,
    timeout: Duration,
) -> Result<Box<dyn Collective>> {
    let (rank, world) = (ranks.rank(), ranks.world());
    let own = (rank == 0).then(Id::new);
    let mut words = [0u64; ID / 8 + 1];
    if let Some(Ok(id)) = &own {
        words[ID / 8] = 1;
        for (word, bytes) in words.iter_mut().zip(id.internal().chunks_exact(8)) {
            *word = u64::from_ne_bytes(std::array::from_fn(|i| bytes[i] as u8));
        }
    }
    ranks.broadcast(0, &mut words)?;
    let gpu = launch::local_rank().unwrap_or(rank);
    let make = move || {
        if words[ID / 8] == 0 {
            let reason = own.and_then(std::result::Result::err).map(failed);
            return Err(reason.unwrap_or_else(|| "rank 0 has no NCCL".into()));
        }
        let mut id = [0 as c_char; ID];
        for (bytes, word) in id.chunks_exact_mut(8).zip(words) {
            let word = word.to_ne_bytes();
            bytes
                .iter_mut()
                .zip(word)
                .for_each(|(to, from)| *to = from as c_char);
        }
        Nccl::join(gpu, rank, world, Id::uninit(id))
    };
    Ok(Box::new(Offloaded::start(ranks, "NCCL", timeout, make)?))
}

fn failed(error: NcclError) -> String {
    format!("{error:?}; see NCCL_DEBUG=INFO")
}

impl Nccl {
    fn join(gpu: usize, rank: usize, world: usize, id: Id) -> std::result::Result<Self, String> {
        let context = CudaContext::new(gpu).map_err(|error| format!("GPU {gpu}: {error}"))?;
        let stream = context
            .new_stream()
            .map_err(|error| format!("GPU {gpu}: {error}"))?;
        let comm = Comm::from_rank(stream.clone(), rank, world, id).map_err(failed)?;
        Ok(Self { comm, stream })
    }

    fn sum<T: NcclType + DeviceRepr>(&self, values: &mut [T]) -> std::result::Result<(), String> {
        let lost = |error| format!("{error}");
        for values in values.chunks_mut(CHUNK) {
            let mut there = self.stream.clone_htod(&*values).map_err(lost)?;
            self.comm
                .all_reduce_in_place(&mut there, &ReduceOp::Sum)
                .map_err(failed)?;
            self.stream.memcpy_dtoh(&there, values).map_err(lost)?;
            self.stream.synchronize().map_err(lost)?;
        }
        Ok(())
    }
}

impl Sums for Nccl {
    fn sum_f32(&mut self, values: &mut [f32]) -> std::result::Result<(), String> {
        self.sum(values)
    }

    fn sum_f64(&mut self, values: &mut [f64]) -> std::result::Result<(), String> {
        self.sum(values)
    }
}
