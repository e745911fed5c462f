//! Whether this process is one of several that a launcher started, and which engine connects them.

use std::time::Duration;

use super::{Collective, Solo};
use crate::error::{Result, TrainError};

/// The place of this process among those that a launcher started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Rank, from 0.
    pub rank: usize,
    /// Number of processes, at least 2.
    pub world: usize,
    /// The variable that says so.
    pub variable: &'static str,
}

/// Variables with rank and world in the order in which they are asked: Open MPI, the convention of PyTorch's launchers,
/// MPICH and Intel MPI, Slurm. For Slurm the tasks of the step count, not of the job: the batch script itself is one process.
const VARIABLES: [[&str; 2]; 4] = [
    ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"],
    ["RANK", "WORLD_SIZE"],
    ["PMI_RANK", "PMI_SIZE"],
    ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS"],
];

/// Reads the variables of `mpirun`, `torchrun` and `srun`; `None` where this process was started alone.
///
/// # Errors
/// [`TrainError::Launcher`] for values that are no rank and world.
pub fn launched() -> Result<Option<Launch>> {
    launched_from(|name| std::env::var(name).ok())
}

/// Processes of this run on this machine, as Open MPI, PyTorch's launchers and MPICH say; 1 where none of them does.
pub(crate) fn processes_here() -> usize {
    processes_here_from(|name| std::env::var(name).ok())
}

fn processes_here_from(get: impl Fn(&str) -> Option<String>) -> usize {
    let names = [
        "OMPI_COMM_WORLD_LOCAL_SIZE",
        "LOCAL_WORLD_SIZE",
        "MPI_LOCALNRANKS",
    ];
    let number = |name: &str| get(name)?.trim().parse().ok();
    names.into_iter().find_map(number).unwrap_or(1).max(1)
}

fn launched_from(get: impl Fn(&str) -> Option<String>) -> Result<Option<Launch>> {
    for [rank, world] in VARIABLES {
        let (Some(rank_text), Some(world_text)) = (get(rank), get(world)) else {
            continue;
        };
        let number = |text: &str| text.trim().parse::<usize>().ok();
        match (number(&rank_text), number(&world_text)) {
            (Some(0), Some(1)) => {}
            (Some(number), Some(of)) if number < of => {
                return Ok(Some(Launch {
                    rank: number,
                    world: of,
                    variable: world,
                }));
            }
            _ => {
                return Err(TrainError::Launcher {
                    message: format!(
                        "the environment says {rank}={rank_text} and {world}={world_text}, which is no rank of a world; \
                         start with mpirun or srun, or remove these variables"
                    ),
                });
            }
        }
    }
    Ok(None)
}

/// The ranks that this process is one of: those of MPI where a launcher started several processes, else [`Solo`].
///
/// With feature `nccl` their sums are made by NCCL, each rank on the GPU with its number on its machine; ranks that cannot are an error.
///
/// A rank waits for the others for `timeout` in each call; see `Mpi` for what follows.
///
/// # Errors
/// [`TrainError::WithoutMpi`] where several processes were started and this program was built without feature `mpi`:
/// each of them would train the whole run. [`TrainError::Launcher`] where MPI does not see the processes of the launcher.
pub fn connect(timeout: Duration) -> Result<Box<dyn Collective>> {
    match launched()? {
        None => Ok(Box::new(Solo)),
        Some(launch) => over_mpi(launch, timeout),
    }
}

#[cfg(feature = "mpi")]
fn over_mpi(launch: Launch, timeout: Duration) -> Result<Box<dyn Collective>> {
    let ranks = super::Mpi::start(timeout)?;
    if ranks.world() != launch.world {
        return Err(TrainError::Launcher {
            message: format!(
                "{} says {} processes and MPI sees {}; start them with the mpirun of the MPI that this program was built with, \
                 or with `srun --mpi=pmix`",
                launch.variable,
                launch.world,
                ranks.world()
            ),
        });
    }
    #[cfg(feature = "nccl")]
    return super::nccl::over_nccl(Box::new(ranks), timeout);
    #[cfg(not(feature = "nccl"))]
    Ok(Box::new(ranks))
}

/// Number of this process among those on its machine, where the launcher says so.
#[cfg(feature = "nccl")]
pub(super) fn local_rank() -> Option<usize> {
    const NAMES: [&str; 4] = [
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "LOCAL_RANK",
        "MPI_LOCALRANKID",
        "SLURM_LOCALID",
    ];
    let value = NAMES
        .into_iter()
        .find_map(|name| std::env::var(name).ok())?;
    value.trim().parse().ok()
}

#[cfg(not(feature = "mpi"))]
fn over_mpi(launch: Launch, _timeout: Duration) -> Result<Box<dyn Collective>> {
    Err(TrainError::WithoutMpi {
        world: launch.world,
        variable: launch.variable,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launched_with(variables: &[(&str, &str)]) -> Result<Option<Launch>> {
        launched_from(|name| {
            let found = variables.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| value.to_string())
        })
    }

    #[test]
    fn variables_are_asked_in_order_and_a_world_of_one_is_none() {
        let slurm = [("SLURM_PROCID", "3"), ("SLURM_STEP_NUM_TASKS", "4")];
        let found = launched_with(&slurm).unwrap().unwrap();
        assert_eq!((found.rank, found.world), (3, 4));
        let open_mpi = [("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "2")];
        let found = launched_with(&[slurm, open_mpi].concat()).unwrap().unwrap();
        assert_eq!(
            (found.rank, found.world, found.variable),
            (1, 2, "OMPI_COMM_WORLD_SIZE")
        );
        let one = [("RANK", "0"), ("WORLD_SIZE", "1")];
        assert_eq!(launched_with(&one).unwrap(), None);
        assert_eq!(
            launched_with(&[one, slurm].concat())
                .unwrap()
                .unwrap()
                .world,
            4
        );
        assert_eq!(
            launched_with(&[("RANK", "1"), ("SLURM_PROCID", "0")]).unwrap(),
            None
        );
    }

    #[test]
    fn processes_beside_this_one_are_counted() {
        let with = |value: &'static str| {
            processes_here_from(move |name| (name == "LOCAL_WORLD_SIZE").then(|| value.into()))
        };
        assert_eq!(["4", "0", "x"].map(with), [4, 1, 1]);
        assert_eq!(processes_here_from(|_| None), 1);
    }

    #[test]
    fn values_that_are_no_rank_of_a_world_are_an_error() {
        for (rank, world) in [("2", "2"), ("x", "2"), ("0", "0"), ("0", "")] {
            let error = launched_with(&[("RANK", rank), ("WORLD_SIZE", world)]).unwrap_err();
            assert!(error.to_string().contains("WORLD_SIZE"), "{error}");
        }
    }
}
