//! Ranks in processes that `mpirun` or `srun` starts, over MPI.
//!
//! One thread of the process holds MPI and makes all its calls. Before each exchange the ranks check in with rank 0, which
//! waits for all of them, compares their calls and tells everyone whether to go on: so a rank that failed, or does not come,
//! is known by its name, and no rank enters an exchange that cannot end. Sums are those of `MPI_Allreduce`.
//!
//! A process that dies ends the job: `mpirun` and `srun` stop the others. A rank that hangs is named by rank 0 after
//! the timeout and by the others after at most two; an exchange that has begun and does not end is an error after three. A
//! program that stops with such an error should exit with a status other than 0, whereupon the launcher stops the job.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mpi::Threading;
use mpi::collective::{CommunicatorCollectives, Root, SystemOperation};
use mpi::datatype::Equivalence;
use mpi::point_to_point::{Destination, MatchedReceiveVec, Source};
use mpi::topology::{Communicator, SimpleCommunicator};

use super::{Call, Collective, CollectiveError, agree};
use crate::error::{Result, TrainError};

/// Tags of the messages by which ranks check in.
const CALL: i32 = 1;
const VERDICT: i32 = 2;

/// Values in one call of MPI, whose counts are 32-bit.
const CHUNK: usize = 1 << 24;

/// How often a waiting rank looks for a message before it sleeps between looks, and for how long it sleeps.
const LOOKS: u32 = 2000;
const PAUSE: Duration = Duration::from_micros(50);

/// This process among those of `MPI_COMM_WORLD`.
#[derive(Debug)]
pub struct Mpi {
    rank: usize,
    world: usize,
    timeout: Duration,
    port: Mutex<Port>,
}

/// The way to the thread that holds MPI.
#[derive(Debug)]
struct Port {
    work: Option<Sender<Work>>,
    done: Receiver<Result<Work, CollectiveError>>,
    over: Option<CollectiveError>,
}

/// A call with its values; comes back with the result in their place.
#[derive(Debug)]
enum Work {
    SumF32(Vec<f32>),
    SumF64(Vec<f64>),
    Broadcast(usize, Vec<u64>),
    Gather(Vec<u64>),
    Barrier,
    Fail(String),
}

impl Mpi {
    /// Joins the ranks that the launcher started; once in a process.
    ///
    /// # Errors
    /// [`TrainError::Launcher`] where MPI was started in this process before, or no thread can be started.
    pub fn start(timeout: Duration) -> Result<Self> {
        let (work, to_do) = channel();
        let (finished, done) = channel();
        let (ready, place) = channel();
        let serve = move || serve(timeout, &ready, &to_do, &finished);
        let refused = |message: String| TrainError::Launcher { message };
        thread::Builder::new()
            .name("mpi".into())
            .spawn(serve)
            .map_err(|e| refused(format!("cannot start the thread that holds MPI: {e}")))?;
        let (rank, world) = place.recv().map_err(|_| {
            refused("MPI was started in this process before; it can be started once".into())
        })?;
        Ok(Self {
            rank,
            world,
            timeout,
            port: Mutex::new(Port {
                work: Some(work),
                done,
                over: None,
            }),
        })
    }

    fn call(&self, work: Work) -> Result<Work, CollectiveError> {
        let mut port = self.port.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = &port.over {
            return Err(error.clone());
        }
        let waited = 3 * self.timeout + Duration::from_secs(2);
        let sent = port.work.as_ref().map(|sender| sender.send(work));
        let result = match sent {
            Some(Ok(())) => port.done.recv_timeout(waited),
            _ => Err(RecvTimeoutError::Disconnected),
        };
        let result = result.unwrap_or(Err(CollectiveError::Stuck { waited }));
        if let Err(error) = &result {
            port.over = Some(error.clone());
        }
        result
    }
}

impl Collective for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.world
    }

    fn all_reduce_sum(&self, values: &mut [f32]) -> Result<(), CollectiveError> {
        if let Work::SumF32(sums) = self.call(Work::SumF32(values.to_vec()))? {
            values.copy_from_slice(&sums);
        }
        Ok(())
    }

    fn all_reduce_sum_f64(&self, values: &mut [f64]) -> Result<(), CollectiveError> {
        if let Work::SumF64(sums) = self.call(Work::SumF64(values.to_vec()))? {
            values.copy_from_slice(&sums);
        }
        Ok(())
    }

    fn broadcast(&self, root: usize, values: &mut [u64]) -> Result<(), CollectiveError> {
        if let Work::Broadcast(_, from_root) = self.call(Work::Broadcast(root, values.to_vec()))? {
            values.copy_from_slice(&from_root);
        }
        Ok(())
    }

    fn all_gather(&self, value: u64) -> Result<Vec<u64>, CollectiveError> {
        match self.call(Work::Gather(vec![value]))? {
            Work::Gather(values) => Ok(values),
            _ => Ok(Vec::new()),
        }
    }

    fn barrier(&self) -> Result<(), CollectiveError> {
        self.call(Work::Barrier).map(|_| ())
    }

    /// Returns when the others know, or after the timeout.
    fn fail(&self, message: &str) {
        // The verdict on a failure is this failure.
        let _ = self.call(Work::Fail(message.into()));
    }
}

impl Drop for Mpi {
    /// Waits until MPI is finalised, so that the process does not end in the middle of it.
    fn drop(&mut self) {
        let port = self.port.get_mut().unwrap_or_else(PoisonError::into_inner);
        port.work = None;
        // The thread's end is what is waited for; it sends nothing more.
        let _ = port.done.recv_timeout(self.timeout);
    }
}

/// The life of the thread that holds MPI.
fn serve(
    timeout: Duration,
    ready: &Sender<(usize, usize)>,
    to_do: &Receiver<Work>,
    finished: &Sender<Result<Work, CollectiveError>>,
) {
    let Some((universe, _)) = mpi::initialize_with_threading(Threading::Funneled) else {
        return;
    };
    let seat = Seat {
        comm: universe.world(),
        timeout,
    };
    let mut is_complete = ready.send((seat.rank(), seat.world())).is_ok();
    while let Ok(work) = to_do.recv() {
        let done = seat.perform(work);
        is_complete &= !matches!(done, Err(CollectiveError::Missing { .. }));
        if finished.send(done).is_err() {
            break;
        }
    }
    if !is_complete {
        // MPI_Finalize would wait for the rank that does not come.
        std::mem::forget(universe);
    }
}

/// This rank, on the thread that holds MPI.
struct Seat {
    comm: SimpleCommunicator,
    timeout: Duration,
}

impl Work {
    fn call(&self) -> Call {
        match self {
            Work::SumF32(values) => Call::SumF32 { len: values.len() },
            Work::SumF64(values) => Call::SumF64 { len: values.len() },
            Work::Broadcast(root, values) => Call::Broadcast {
                root: *root,
                len: values.len(),
            },
            Work::Gather(_) => Call::Gather,
            Work::Barrier => Call::Barrier,
            Work::Fail(message) => Call::Fail {
                message: message.clone(),
            },
        }
    }
}

impl Seat {
    fn rank(&self) -> usize {
        self.comm.rank() as usize
    }

    fn world(&self) -> usize {
        self.comm.size() as usize
    }

    fn perform(&self, work: Work) -> Result<Work, CollectiveError> {
        self.check_in(&work.call())?;
        Ok(match work {
            Work::SumF32(values) => Work::SumF32(self.sum(&values)),
            Work::SumF64(values) => Work::SumF64(self.sum(&values)),
            Work::Broadcast(root, mut values) => {
                let root_process = self.comm.process_at_rank(root as i32);
                root_process.broadcast_into(values.as_mut_slice());
                Work::Broadcast(root, values)
            }
            Work::Gather(values) => {
                let mut all = vec![0u64; self.world()];
                self.comm
                    .all_gather_into(values.as_slice(), all.as_mut_slice());
                Work::Gather(all)
            }
            // Checking in was all there is to do.
            Work::Barrier | Work::Fail(_) => work,
        })
    }

    fn sum<T: Equivalence + Copy + Default>(&self, values: &[T]) -> Vec<T> {
        let mut sums = vec![T::default(); values.len()];
        for (values, sums) in values.chunks(CHUNK).zip(sums.chunks_mut(CHUNK)) {
            self.comm
                .all_reduce_into(values, sums, SystemOperation::sum());
        }
        sums
    }

    /// Tells rank 0 what this rank is about to do and waits for its word.
    fn check_in(&self, call: &Call) -> Result<(), CollectiveError> {
        if self.rank() == 0 {
            return self.take_roll(call);
        }
        // Rank 0 may come late itself and then wait for another rank.
        let patience = 2 * self.timeout + Duration::from_secs(1);
        self.send(0, CALL, call);
        let verdict = self.receive(0, VERDICT, Instant::now() + patience);
        verdict.unwrap_or(Err(CollectiveError::Missing {
            ranks: vec![0],
            waited: patience,
        }))
    }

    /// Rank 0's side: hears every rank and tells all of them the verdict.
    fn take_roll(&self, call: &Call) -> Result<(), CollectiveError> {
        let deadline = Instant::now() + self.timeout;
        let mut calls = vec![Some(call.clone())];
        calls.extend((1..self.world()).map(|rank| self.receive(rank, CALL, deadline)));
        let calls: Vec<Option<&Call>> = calls.iter().map(Option::as_ref).collect();
        let verdict = agree(&calls, self.timeout);
        for rank in 1..self.world() {
            self.send(rank, VERDICT, &verdict);
        }
        verdict
    }

    fn send(&self, rank: usize, tag: i32, message: &impl serde::Serialize) {
        let bytes = serde_json::to_vec(message).expect("calls and verdicts are plain data");
        let process = self.comm.process_at_rank(rank as i32);
        process.send_with_tag(bytes.as_slice(), tag);
    }

    /// The next message of a rank; none where it does not come before the deadline, or is not one of this program.
    fn receive<T: serde::de::DeserializeOwned>(
        &self,
        rank: usize,
        tag: i32,
        deadline: Instant,
    ) -> Option<T> {
        let process = self.comm.process_at_rank(rank as i32);
        let mut looks = 0;
        loop {
            if let Some(message) = process.immediate_matched_probe_with_tag(tag) {
                let (bytes, _) = message.matched_receive_vec::<u8>();
                return serde_json::from_slice(&bytes).ok();
            }
            if Instant::now() >= deadline {
                return None;
            }
            looks += 1;
            if looks < LOOKS {
                thread::yield_now();
            } else {
                thread::sleep(PAUSE);
            }
        }
    }
}
