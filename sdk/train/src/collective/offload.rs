//! Sums over the ranks by something faster than the engine that connects them.
//!
//! The ranks make all calls over their own engine, which knows who failed and who does not come. For a sum they first say over it what they are going to add
//! up, so that no rank enters an exchange that cannot end; then a thread of its own makes the exchange, and is given up after a time.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::{Collective, CollectiveError};
use crate::error::{Result, TrainError};

/// What adds up. Every rank makes the same calls in the same order and gets the same bits.
pub(crate) trait Sums {
    /// Replaces each value by its sum over the ranks.
    fn sum_f32(&mut self, values: &mut [f32]) -> std::result::Result<(), String>;

    /// The same.
    fn sum_f64(&mut self, values: &mut [f64]) -> std::result::Result<(), String>;
}

#[derive(Debug)]
enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
}

/// Ranks whose sums are made by [`Sums`].
#[derive(Debug)]
pub(crate) struct Offloaded {
    ranks: Box<dyn Collective>,
    name: &'static str,
    timeout: Duration,
    port: Mutex<Port>,
}

/// The way to the thread that holds the sums.
#[derive(Debug)]
struct Port {
    work: Sender<Values>,
    done: Receiver<std::result::Result<Values, String>>,
    over: Option<CollectiveError>,
}

impl Offloaded {
    /// Lets every rank `make` what adds up, on the thread that will hold it, and waits for all of them.
    ///
    /// # Errors
    /// [`TrainError::Launcher`] with the reason of this rank, or with the ranks that could not; [`TrainError::Collective`] where one does not come.
    pub(crate) fn start<S: Sums>(
        ranks: Box<dyn Collective>,
        name: &'static str,
        timeout: Duration,
        make: impl FnOnce() -> std::result::Result<S, String> + Send + 'static,
    ) -> Result<Self> {
        let refused = |message: String| TrainError::Launcher { message };
        let (work, to_do) = channel();
        let (finished, done) = channel();
        let (ready, made) = channel();
        thread::Builder::new()
            .name(name.into())
            .spawn(move || serve(make, &ready, &to_do, &finished))
            .map_err(|e| refused(format!("cannot start the thread that holds {name}: {e}")))?;
        // The others wait in the next exchange for as long again.
        let made = match made.recv_timeout(timeout / 2) {
            Ok(made) => made,
            Err(_) => Err(format!("{name} has not started within {:?}", timeout / 2)),
        };
        let all = ranks.all_gather(u64::from(made.is_ok()))?;
        made.map_err(|reason| refused(format!("rank {}: {name}: {reason}", ranks.rank())))?;
        let without: Vec<usize> = (0..all.len()).filter(|&rank| all[rank] == 0).collect();
        if !without.is_empty() {
            let message = format!("{} cannot use {name}", super::names(&without));
            return Err(refused(message));
        }
        Ok(Self {
            ranks,
            name,
            timeout,
            port: Mutex::new(Port {
                work,
                done,
                over: None,
            }),
        })
    }

    fn sum(&self, values: Values) -> std::result::Result<Values, CollectiveError> {
        let mut port = self.port.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = &port.over {
            return Err(error.clone());
        }
        let summed = self.agreed(&values).and_then(|()| {
            let sent = port.work.send(values);
            let done = sent
                .map_err(|_| ())
                .and_then(|()| port.done.recv_timeout(self.timeout).map_err(|_| ()));
            match done {
                Ok(Ok(values)) => Ok(values),
                Ok(Err(reason)) => {
                    let (rank, message) = (self.rank(), format!("{}: {reason}", self.name));
                    self.ranks.fail(&message);
                    Err(CollectiveError::Failed { rank, message })
                }
                Err(()) => {
                    let waited = self.timeout;
                    let message = format!("{} has not ended within {waited:?}", self.name);
                    self.ranks.fail(&message);
                    Err(CollectiveError::Stuck { waited })
                }
            }
        });
        if let Err(error) = &summed {
            port.over = Some(error.clone());
        }
        summed
    }

    /// Whether all ranks are going to add up as many values of the same type.
    fn agreed(&self, values: &Values) -> std::result::Result<(), CollectiveError> {
        let (kind, len) = match values {
            Values::F32(values) => (0, values.len() as u64),
            Values::F64(values) => (1, values.len() as u64),
        };
        let all = self.ranks.all_gather(2 * len + kind)?;
        let describe = |word: u64| format!("a sum of {} values of f{}", word / 2, 32 << (word % 2));
        match all.iter().position(|word| *word != all[0]) {
            None => Ok(()),
            Some(rank) => Err(CollectiveError::Mismatch {
                rank,
                theirs: describe(all[rank]),
                ours: describe(all[0]),
            }),
        }
    }
}

fn serve<S: Sums>(
    make: impl FnOnce() -> std::result::Result<S, String>,
    ready: &Sender<std::result::Result<(), String>>,
    to_do: &Receiver<Values>,
    finished: &Sender<std::result::Result<Values, String>>,
) {
    let mut sums = match make() {
        Ok(sums) => sums,
        Err(reason) => {
            // Nobody listens where the time was up.
            let _ = ready.send(Err(reason));
            return;
        }
    };
    if ready.send(Ok(())).is_err() {
        return;
    }
    while let Ok(mut values) = to_do.recv() {
        let summed = match &mut values {
            Values::F32(values) => sums.sum_f32(values),
            Values::F64(values) => sums.sum_f64(values),
        };
        if finished.send(summed.map(|()| values)).is_err() {
            return;
        }
    }
}

impl Collective for Offloaded {
    fn rank(&self) -> usize {
        self.ranks.rank()
    }

    fn world(&self) -> usize {
        self.ranks.world()
    }

    fn all_reduce_sum(&self, values: &mut [f32]) -> std::result::Result<(), CollectiveError> {
        if let Values::F32(sums) = self.sum(Values::F32(values.to_vec()))? {
            values.copy_from_slice(&sums);
        }
        Ok(())
    }

    fn all_reduce_sum_f64(&self, values: &mut [f64]) -> std::result::Result<(), CollectiveError> {
        if let Values::F64(sums) = self.sum(Values::F64(values.to_vec()))? {
            values.copy_from_slice(&sums);
        }
        Ok(())
    }

    fn broadcast(
        &self,
        root: usize,
        values: &mut [u64],
    ) -> std::result::Result<(), CollectiveError> {
        self.ranks.broadcast(root, values)
    }

    fn all_gather(&self, value: u64) -> std::result::Result<Vec<u64>, CollectiveError> {
        self.ranks.all_gather(value)
    }

    fn barrier(&self) -> std::result::Result<(), CollectiveError> {
        self.ranks.barrier()
    }

    fn fail(&self, message: &str) {
        self.ranks.fail(message);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Barrier};

    use super::*;
    use crate::collective::Threads;

    /// Adds up in memory that the ranks share, in the order of the ranks.
    struct Shared {
        rank: usize,
        board: Arc<Board>,
        /// What happens at the first sum.
        trouble: Option<Trouble>,
    }

    #[derive(Clone, Copy)]
    enum Trouble {
        Fails,
        Hangs,
    }

    struct Board {
        parts: Mutex<Vec<Vec<f64>>>,
        barrier: Barrier,
    }

    impl Board {
        fn new(world: usize) -> Arc<Self> {
            Arc::new(Self {
                parts: Mutex::new(vec![Vec::new(); world]),
                barrier: Barrier::new(world),
            })
        }
    }

    impl Sums for Shared {
        fn sum_f32(&mut self, values: &mut [f32]) -> std::result::Result<(), String> {
            let mut wide: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
            self.sum_f64(&mut wide)?;
            values.iter_mut().zip(wide).for_each(|(v, w)| *v = w as f32);
            Ok(())
        }

        fn sum_f64(&mut self, values: &mut [f64]) -> std::result::Result<(), String> {
            match self.trouble {
                Some(Trouble::Fails) => return Err("cable pulled".into()),
                Some(Trouble::Hangs) => thread::sleep(Duration::from_secs(3)),
                None => {}
            }
            self.board.parts.lock().unwrap()[self.rank] = values.to_vec();
            self.board.barrier.wait();
            let parts = self.board.parts.lock().unwrap().clone();
            self.board.barrier.wait();
            for (i, value) in values.iter_mut().enumerate() {
                *value = parts.iter().map(|part| part[i]).sum();
            }
            Ok(())
        }
    }

    fn on_ranks<R: Send>(
        world: usize,
        timeout: Duration,
        trouble: impl Fn(usize) -> Option<Trouble> + Sync,
        body: impl Fn(Result<Offloaded>) -> R + Sync,
    ) -> Vec<R> {
        let board = Board::new(world);
        thread::scope(|scope| {
            let start = |ranks: Threads| {
                let (board, body, trouble) = (board.clone(), &body, trouble(ranks.rank()));
                scope.spawn(move || {
                    let rank = ranks.rank();
                    let make = move || {
                        Ok(Shared {
                            rank,
                            board,
                            trouble,
                        })
                    };
                    body(Offloaded::start(Box::new(ranks), "chalk", timeout, make))
                })
            };
            let ranks = Threads::ranks(world, timeout);
            let handles: Vec<_> = ranks.into_iter().map(start).collect();
            handles.into_iter().map(|h| h.join().unwrap()).collect()
        })
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn sums_are_those_of_the_board_and_all_else_goes_over_the_ranks() {
        let sums = on_ranks(
            3,
            LONG,
            |_| None,
            |ranks| {
                let ranks = ranks.unwrap();
                let own = ranks.rank() as f32;
                let mut values = [own, 1.0, 2.0 * own];
                for _ in 0..50 {
                    values = [own, 1.0, 2.0 * own];
                    ranks.all_reduce_sum(&mut values).unwrap();
                }
                let mut wide = [f64::from(own), 0.5];
                ranks.all_reduce_sum_f64(&mut wide).unwrap();
                assert_eq!(wide, [3.0, 1.5]);
                let mut word = [7 * ranks.rank() as u64];
                ranks.broadcast(2, &mut word).unwrap();
                assert_eq!(word, [14]);
                assert_eq!(ranks.all_gather(ranks.rank() as u64).unwrap(), [0, 1, 2]);
                ranks.barrier().unwrap();
                values
            },
        );
        assert_eq!(sums, [[3.0, 3.0, 6.0]; 3]);
    }

    #[test]
    fn different_sums_are_an_error_before_anything_is_exchanged() {
        let errors = on_ranks(
            2,
            LONG,
            |_| None,
            |ranks| {
                let ranks = ranks.unwrap();
                match ranks.rank() {
                    0 => ranks.all_reduce_sum(&mut [0.0; 4]).unwrap_err(),
                    _ => ranks.all_reduce_sum_f64(&mut [0.0; 4]).unwrap_err(),
                }
            },
        );
        assert_eq!(errors[0], errors[1]);
        let text = errors[0].to_string();
        assert!(
            text.contains("rank 1 called a sum of 4 values of f64"),
            "{text}"
        );
    }

    #[test]
    fn a_sum_that_fails_or_hangs_stops_all_ranks() {
        let short = Duration::from_millis(300);
        for trouble in [Trouble::Fails, Trouble::Hangs] {
            let only = |rank: usize| (rank == 1).then_some(trouble);
            let texts = on_ranks(2, short, only, |ranks| {
                let ranks = ranks.unwrap();
                let first = ranks.all_reduce_sum(&mut [1.0]).unwrap_err();
                assert!(ranks.all_reduce_sum(&mut [1.0]).is_err());
                first.to_string()
            });
            let own = match trouble {
                Trouble::Fails => "rank 1 failed and all ranks stopped: chalk: cable pulled",
                Trouble::Hangs => "has not ended within",
            };
            assert!(texts[1].contains(own), "{texts:?}");
            assert!(texts[0].contains("has not ended within"), "{texts:?}");
        }
    }

    #[test]
    fn ranks_that_cannot_start_are_named_on_all() {
        let texts = thread::scope(|scope| {
            let start = |ranks: Threads| {
                scope.spawn(move || {
                    let rank = ranks.rank();
                    let make = move || match rank {
                        1 => Err("no library".to_owned()),
                        _ => Ok(Shared {
                            rank,
                            board: Board::new(1),
                            trouble: None,
                        }),
                    };
                    let made = Offloaded::start(Box::new(ranks), "chalk", LONG, make);
                    made.map(|_| ()).unwrap_err().to_string()
                })
            };
            let ranks = Threads::ranks(2, LONG);
            let handles: Vec<_> = ranks.into_iter().map(start).collect();
            let join = |h: thread::ScopedJoinHandle<'_, String>| h.join().unwrap();
            handles.into_iter().map(join).collect::<Vec<_>>()
        });
        assert_eq!(
            texts,
            ["rank 1 cannot use chalk", "rank 1: chalk: no library"]
        );
    }
}
