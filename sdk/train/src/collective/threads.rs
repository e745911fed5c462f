//! Ranks on threads of one process.
//!
//! Each call is one round: every rank lays down its values, the last one opens the round, and each rank sums what lies
//! there in the order of the ranks. So every rank has the same bits, in every run, whoever came first. A round holds a copy of
//! every rank's values.

use std::any::Any;
use std::ops::AddAssign;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Call, Collective, CollectiveError, agree};

/// One of several ranks in this process; made together by [`Threads::ranks`], then each used by a thread of its own.
///
/// A rank that is dropped ends the calls in which others wait for it.
#[derive(Debug)]
pub struct Threads {
    rank: usize,
    table: Arc<Table>,
}

/// What one rank gives to a round.
type Values = Arc<dyn Any + Send + Sync>;

/// Where the ranks meet.
#[derive(Debug)]
struct Table {
    timeout: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// Rounds that all ranks have come to.
    rounds: u64,
    /// What was laid down for the next round, by rank.
    open: Vec<Option<(Call, Values)>>,
    /// What was laid down for the last round; it stays until all ranks have come to the next, and so have read it.
    last: Vec<Values>,
    left: Vec<bool>,
    over: Option<CollectiveError>,
}

impl Threads {
    /// `world` ranks, in order. A rank waits for the others for at most `timeout` in each call.
    pub fn ranks(world: usize, timeout: Duration) -> Vec<Self> {
        let state = State {
            rounds: 0,
            open: vec![None; world],
            last: Vec::new(),
            left: vec![false; world],
            over: None,
        };
        let table = Arc::new(Table {
            timeout,
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        (0..world)
            .map(|rank| Self {
                rank,
                table: Arc::clone(&table),
            })
            .collect()
    }

    /// The state, whatever happened to a thread that held it: every change of it is complete.
    fn state(&self) -> MutexGuard<'_, State> {
        let state = self.table.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// Lays down `values` and returns those of all ranks, in order.
    fn round<T: Any + Send + Sync>(
        &self,
        call: Call,
        values: T,
    ) -> Result<Vec<Arc<T>>, CollectiveError> {
        let mut state = self.state();
        if let Some(error) = &state.over {
            return Err(error.clone());
        }
        let round = state.rounds;
        state.open[self.rank] = Some((call, Arc::new(values)));
        if state.open.iter().all(Option::is_some) {
            let opened = state.open_round(self.table.timeout);
            self.table.changed.notify_all();
            opened?;
        } else {
            state = self.wait(state, round)?;
        }
        let typed = |values: &Values| Arc::clone(values).downcast::<T>();
        let typed: Result<Vec<Arc<T>>, Values> = state.last.iter().map(typed).collect();
        Ok(typed.expect("equal calls lay down values of one type"))
    }

    /// Waits until all ranks have come to `round`.
    fn wait<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        round: u64,
    ) -> Result<MutexGuard<'a, State>, CollectiveError> {
        let timeout = self.table.timeout;
        let start = Instant::now();
        loop {
            if state.rounds > round {
                return Ok(state);
            }
            if state.over.is_none() {
                state.over = state.lost(start.elapsed() >= timeout, timeout);
            }
            if let Some(error) = &state.over {
                self.table.changed.notify_all();
                return Err(error.clone());
            }
            let left = timeout.saturating_sub(start.elapsed());
            let woken = self.table.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn sum<T: Copy + AddAssign + Send + Sync + 'static>(
        &self,
        call: Call,
        values: &mut [T],
    ) -> Result<(), CollectiveError> {
        let all = self.round(call, values.to_vec())?;
        values.copy_from_slice(&all[0]);
        for other in &all[1..] {
            for (sum, value) in values.iter_mut().zip(other.iter()) {
                *sum += *value;
            }
        }
        Ok(())
    }
}

impl State {
    /// All ranks have come: hands out what they laid down, if they made the same call.
    fn open_round(&mut self, timeout: Duration) -> Result<(), CollectiveError> {
        let calls: Vec<Option<&Call>> = self
            .open
            .iter()
            .map(|slot| slot.as_ref().map(|(call, _)| call))
            .collect();
        if let Err(error) = agree(&calls, timeout) {
            self.over = Some(error.clone());
            return Err(error);
        }
        let laid = self.open.iter_mut().filter_map(Option::take);
        self.last = laid.map(|(_, values)| values).collect();
        self.rounds += 1;
        Ok(())
    }

    /// The error of ranks for which it is no use to wait.
    fn lost(&self, is_late: bool, waited: Duration) -> Option<CollectiveError> {
        let absent = (0..self.open.len()).filter(|&rank| self.open[rank].is_none());
        let ranks: Vec<usize> = absent.collect();
        match ranks.iter().find(|&&rank| self.left[rank]) {
            Some(&rank) => Some(CollectiveError::Left { rank }),
            None if is_late => Some(CollectiveError::Missing { ranks, waited }),
            None => None,
        }
    }
}

impl Collective for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.state().open.len()
    }

    fn all_reduce_sum(&self, values: &mut [f32]) -> Result<(), CollectiveError> {
        self.sum(Call::SumF32 { len: values.len() }, values)
    }

    fn all_reduce_sum_f64(&self, values: &mut [f64]) -> Result<(), CollectiveError> {
        self.sum(Call::SumF64 { len: values.len() }, values)
    }

    fn broadcast(&self, root: usize, values: &mut [u64]) -> Result<(), CollectiveError> {
        let len = values.len();
        let all = self.round(Call::Broadcast { root, len }, values.to_vec())?;
        values.copy_from_slice(&all[root]);
        Ok(())
    }

    fn all_gather(&self, value: u64) -> Result<Vec<u64>, CollectiveError> {
        let all = self.round(Call::Gather, value)?;
        Ok(all.into_iter().map(|value| *value).collect())
    }

    fn barrier(&self) -> Result<(), CollectiveError> {
        self.round(Call::Barrier, ()).map(|_| ())
    }

    fn fail(&self, message: &str) {
        let failed = CollectiveError::Failed {
            rank: self.rank,
            message: message.into(),
        };
        self.state().over.get_or_insert(failed);
        self.table.changed.notify_all();
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.state().left[self.rank] = true;
        self.table.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// Runs `body` on every rank, each on its own thread, and returns the results in order.
    fn on_ranks<R: Send>(
        world: usize,
        timeout: Duration,
        body: impl Fn(Threads) -> R + Sync,
    ) -> Vec<R> {
        std::thread::scope(|scope| {
            let body = &body;
            let start = |rank| scope.spawn(move || body(rank));
            let handles: Vec<_> = Threads::ranks(world, timeout)
                .into_iter()
                .map(start)
                .collect();
            handles.into_iter().map(|h| h.join().unwrap()).collect()
        })
    }

    #[test]
    fn sums_are_made_in_the_order_of_the_ranks_whoever_comes_first() {
        // (1e8 + 1) - 1e8 is 0 in f32 and 1e8 - 1e8 + 1 is 1: the order shows.
        let parts = [1e8f32, 1.0, -1e8, 0.25];
        let expected = parts.iter().fold(0.0, |sum, x| sum + x);
        for last in 0..4 {
            let sums = on_ranks(4, LONG, |rank| {
                if rank.rank() == last {
                    std::thread::sleep(Duration::from_millis(20));
                }
                let mut value = [parts[rank.rank()]];
                rank.all_reduce_sum(&mut value).unwrap();
                value[0]
            });
            assert_eq!(sums, [expected; 4]);
        }
    }

    #[test]
    fn many_rounds_of_all_kinds_do_not_mix() {
        let ends = on_ranks(3, LONG, |rank| {
            let mut value = rank.rank() as f64;
            for round in 0..500u64 {
                let mut sum = [value, 1.0];
                rank.all_reduce_sum_f64(&mut sum).unwrap();
                assert_eq!(sum[1], 3.0);
                value = sum[0] / 3.0 + rank.rank() as f64;
                let gathered = rank.all_gather(round + rank.rank() as u64).unwrap();
                assert_eq!(gathered, [round, round + 1, round + 2]);
                let mut word = [round * rank.rank() as u64];
                rank.broadcast(2, &mut word).unwrap();
                assert_eq!(word, [2 * round]);
                rank.barrier().unwrap();
            }
            value - rank.rank() as f64
        });
        assert!(ends.iter().all(|end| *end == ends[0]));
    }

    #[test]
    fn a_rank_that_fails_is_dropped_or_does_not_come_stops_the_others_by_its_name() {
        let errors = on_ranks(3, LONG, |rank| match rank.rank() {
            1 => {
                rank.fail("no disk");
                rank.fail("another reason");
                rank.barrier().unwrap_err()
            }
            _ => rank.barrier().unwrap_err(),
        });
        let message = "no disk".to_string();
        assert_eq!(
            errors,
            vec![CollectiveError::Failed { rank: 1, message }; 3]
        );

        let errors = on_ranks(3, LONG, |rank| match rank.rank() {
            2 => None,
            _ => rank.barrier().err(),
        });
        let left = Some(CollectiveError::Left { rank: 2 });
        assert_eq!(errors, [left.clone(), left, None]);

        let short = Duration::from_millis(50);
        let errors = on_ranks(3, short, |rank| {
            if rank.rank() == 0 {
                std::thread::sleep(Duration::from_millis(400));
            }
            rank.barrier().unwrap_err()
        });
        let missing = CollectiveError::Missing {
            ranks: vec![0],
            waited: short,
        };
        assert_eq!(errors, vec![missing; 3]);
    }

    #[test]
    fn different_calls_are_an_error_on_all_ranks() {
        let errors = on_ranks(2, LONG, |rank| match rank.rank() {
            0 => rank.all_reduce_sum(&mut [0.0; 4]).unwrap_err(),
            _ => rank.all_reduce_sum(&mut [0.0; 5]).unwrap_err(),
        });
        assert_eq!(errors[0], errors[1]);
        assert!(
            matches!(errors[0], CollectiveError::Mismatch { rank: 1, .. }),
            "{}",
            errors[0]
        );
    }
}
