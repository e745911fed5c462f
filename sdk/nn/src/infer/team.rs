//! Threads that work through one task together and sleep in between. Nothing spins and no call allocates.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

/// What a member runs: its number and the gate at which all meet.
type Work<'a> = dyn Fn(usize, &Gate) + Sync + 'a;

/// `threads - 1` threads and whoever calls [`Team::run`].
pub(super) struct Team {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    job: Mutex<Job>,
    wake: Condvar,
    done: Condvar,
    gate: Gate,
}

#[derive(Default)]
struct Job {
    generation: u64,
    work: Option<Erased>,
    running: usize,
    panic: Option<Box<dyn Any + Send>>,
    quit: bool,
}

/// A pointer to a [`Work`] whose lifetime [`Team::run`] guards.
#[derive(Clone, Copy)]
struct Erased(*const Work<'static>);

// SAFETY: the work is `Sync`, and `Team::run` does not return before every worker has finished with it.
unsafe impl Send for Erased {}

/// Where the members of a team wait for each other.
pub(super) struct Gate {
    state: Mutex<GateState>,
    open: Condvar,
    members: usize,
}

#[derive(Default)]
struct GateState {
    waiting: usize,
    round: u64,
    closed: bool,
}

/// The gate stays closed: another member panicked, or all are to leave. There is nothing left to wait for.
pub(super) struct Closed;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gate {
    /// Sleeps until all members are here. The last one asks whether all are to leave, so that all hear the same.
    pub(super) fn wait(&self, leave: impl FnOnce() -> bool) -> Result<(), Closed> {
        let mut state = lock(&self.state);
        state.waiting += 1;
        if state.waiting == self.members {
            state.waiting = 0;
            state.round += 1;
            state.closed |= leave();
            self.open.notify_all();
        } else {
            let round = state.round;
            while state.round == round && !state.closed {
                state = self
                    .open
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
        if state.closed { Err(Closed) } else { Ok(()) }
    }

    fn give_up(&self) {
        lock(&self.state).closed = true;
        self.open.notify_all();
    }

    fn reset(&self) {
        *lock(&self.state) = GateState::default();
    }
}

impl Team {
    /// A team of `threads`, at least one.
    pub(super) fn new(threads: usize) -> std::io::Result<Self> {
        let members = threads.max(1);
        let shared = Arc::new(Shared {
            job: Mutex::default(),
            wake: Condvar::new(),
            done: Condvar::new(),
            gate: Gate {
                state: Mutex::default(),
                open: Condvar::new(),
                members,
            },
        });
        let mut team = Self {
            shared: shared.clone(),
            workers: Vec::with_capacity(members - 1),
        };
        for member in 1..members {
            let shared = shared.clone();
            let worker = Builder::new()
                .name(format!("ssl-edge-{member}"))
                .spawn(move || shared.serve(member))?;
            team.workers.push(worker);
        }
        Ok(team)
    }

    pub(super) fn members(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `work` on every member and returns when all have finished. One call at a time: the caller sees to that.
    ///
    /// # Panics
    /// If a member does.
    pub(super) fn run(&self, work: &Work<'_>) {
        self.shared.gate.reset();
        if !self.workers.is_empty() {
            // SAFETY: only the lifetime changes; this function waits for every worker before it returns.
            let work: *const Work<'static> = unsafe { std::mem::transmute(work) };
            let mut job = lock(&self.shared.job);
            job.work = Some(Erased(work));
            job.generation += 1;
            job.running = self.workers.len();
            drop(job);
            self.shared.wake.notify_all();
        }
        let own = self.shared.guarded(|| work(0, &self.shared.gate));
        let mut job = lock(&self.shared.job);
        while job.running > 0 {
            job = self
                .shared
                .done
                .wait(job)
                .unwrap_or_else(PoisonError::into_inner);
        }
        job.work = None;
        let panic = own.err().or(job.panic.take());
        drop(job);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Shared {
    /// Runs `f`; a panic opens the gate for the others.
    fn guarded(&self, f: impl FnOnce()) -> Result<(), Box<dyn Any + Send>> {
        let result = catch_unwind(AssertUnwindSafe(f));
        if result.is_err() {
            self.gate.give_up();
        }
        result
    }

    fn serve(&self, member: usize) {
        let mut seen = 0;
        loop {
            let mut job = lock(&self.job);
            while job.generation == seen && !job.quit {
                job = self.wake.wait(job).unwrap_or_else(PoisonError::into_inner);
            }
            if job.quit {
                return;
            }
            seen = job.generation;
            let work = job.work;
            drop(job);
            let result = self.guarded(|| {
                if let Some(Erased(work)) = work {
                    // SAFETY: `Team::run` keeps the work alive until `running` is 0 again.
                    unsafe { (*work)(member, &self.gate) }
                }
            });
            let mut job = lock(&self.job);
            job.running -= 1;
            if let Err(panic) = result {
                job.panic.get_or_insert(panic);
            }
            if job.running == 0 {
                self.done.notify_one();
            }
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        lock(&self.shared.job).quit = true;
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker's panics were caught and handed on.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn every_member_works_and_none_passes_the_gate_early() {
        for threads in [1, 2, 5] {
            let team = Team::new(threads).unwrap();
            for _ in 0..50 {
                let counts: Vec<AtomicUsize> = (0..4).map(|_| AtomicUsize::new(0)).collect();
                team.run(&|_, gate| {
                    for count in &counts {
                        count.fetch_add(1, Ordering::SeqCst);
                        assert!(gate.wait(|| false).is_ok());
                        assert_eq!(count.load(Ordering::SeqCst), threads);
                    }
                });
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_lives_on() {
        let team = Team::new(3).unwrap();
        for culprit in 0..3 {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                team.run(&|member, gate| {
                    assert_ne!(member, culprit, "on purpose");
                    assert!(gate.wait(|| false).is_err());
                });
            }));
            assert!(caught.is_err());
        }
        let ran = AtomicUsize::new(0);
        team.run(&|_, _| {
            ran.fetch_add(1, Ordering::SeqCst);
        });
        assert_eq!(ran.into_inner(), 3);
    }
    #[test]
    fn all_leave_or_none() {
        let team = Team::new(3).unwrap();
        for round in 0..50 {
            let (asked, left) = (AtomicUsize::new(0), AtomicUsize::new(0));
            team.run(&|_, gate| {
                for gate_idx in 0..4 {
                    let leave = || {
                        asked.fetch_add(1, Ordering::SeqCst);
                        gate_idx == round % 4
                    };
                    if gate.wait(leave).is_err() {
                        left.fetch_add(1, Ordering::SeqCst);
                        return;
                    }
                }
            });
            assert_eq!(left.into_inner(), 3);
            assert_eq!(asked.into_inner(), round % 4 + 1);
        }
    }
}
