//! Each test starts itself again under `mpirun`, where every process is a rank.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use ssl_edge_train::collective::{Collective, CollectiveError, connect, launched};
use ssl_edge_train::{MethodName, RunOptions, pretrain_over};

use crate::common::{Workbench, newest, run, tiny, values};

/// Where the processes of one test find images and run folders.
const FOLDER: &str = "SSL_EDGE_TEST_FOLDER";

/// The ranks, in a process that mpirun started.
fn ranks(timeout: Duration) -> Option<Box<dyn Collective>> {
    launched().unwrap()?;
    Some(connect(timeout).unwrap())
}

/// Starts the test `name` of this program as `world` ranks.
fn mpirun(world: usize, name: &str, folder: &Path) -> Output {
    Command::new("mpirun")
        .args([
            "--allow-run-as-root",
            "--oversubscribe",
            "--bind-to",
            "none",
        ])
        .args(["-n", &world.to_string()])
        .arg(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(FOLDER, folder)
        .output()
        .expect("mpirun can be started; install Open MPI (openmpi-bin)")
}

fn assert_success(output: &Output) {
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn exchanges_give_every_rank_the_same() {
    let Some(ranks) = ranks(Duration::from_secs(60)) else {
        let name = "mpi::exchanges_give_every_rank_the_same";
        return assert_success(&mpirun(3, name, Path::new("")));
    };
    let rank = ranks.rank();
    assert_eq!(ranks.world(), 3);
    for round in 0..50u64 {
        let mut sums: Vec<f32> = (0..1000).map(|i| (i * (rank + 1)) as f32).collect();
        ranks.all_reduce_sum(&mut sums).unwrap();
        assert!(sums.iter().enumerate().all(|(i, s)| *s == 6.0 * i as f32));
        let mut sums = [rank as f64, 0.5];
        ranks.all_reduce_sum_f64(&mut sums).unwrap();
        assert_eq!(sums, [3.0, 1.5]);
        let mut word = [round + rank as u64, 7];
        ranks.broadcast(1, &mut word).unwrap();
        assert_eq!(word, [round + 1, 7]);
        assert_eq!(ranks.all_gather(10 * rank as u64).unwrap(), [0, 10, 20]);
        ranks.barrier().unwrap();
    }
    // The last call of all: a failure, and from then on nothing but it.
    let message = "no disk".to_string();
    if rank == 1 {
        ranks.fail(&message);
    }
    for _ in 0..2 {
        let message = message.clone();
        let expected = Err(CollectiveError::Failed { rank: 1, message });
        assert_eq!(ranks.barrier(), expected);
    }
}

#[test]
fn processes_end_where_one_process_with_the_same_batch_ends() {
    if let Some(ranks) = ranks(Duration::from_secs(120)) {
        let folder = std::env::var(FOLDER).unwrap();
        for method in MethodName::ALL {
            let mut config = config(method);
            config.data.folders = vec![Path::new(&folder).join("images")];
            let options = RunOptions {
                folder: Path::new(&folder).join(format!("{method}-2")),
                resume: false,
            };
            let summary = pretrain_over(&config, &options, &(), ranks.as_ref()).unwrap();
            assert_eq!(summary.step, 3);
        }
        return;
    }
    let bench = Workbench::new(9);
    let name = "mpi::processes_end_where_one_process_with_the_same_batch_ends";
    assert_success(&mpirun(2, name, bench.images().parent().unwrap()));
    for method in MethodName::ALL {
        let mut config = config(method);
        config.data.folders = vec![bench.images()];
        run(&config, &bench.path("one"), false, &()).unwrap();
        let one = newest(&bench.path("one"));
        let two = newest(&bench.path(&format!("{method}-2")));
        for (name, tensor) in &one.model {
            let (x, y) = (values(tensor), values(&two.model[name]));
            let scale = x.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
            for (x, y) in x.iter().zip(&y) {
                assert!((x - y).abs() < 1e-5 * scale, "{method} {name}: {x} {y}");
            }
        }
        std::fs::remove_dir_all(bench.path("one")).unwrap();
    }
}

/// As in `ranks.rs`: an epsilon that makes steps comparable.
fn config(method: MethodName) -> ssl_edge_train::TrainConfig {
    let mut config = tiny(method);
    config.schedule.images = 12;
    config.optimizer.adamw.eps = 1e-3;
    config.threads = 1;
    config
}

#[test]
fn a_rank_that_hangs_is_named_and_the_job_ends() {
    let timeout = Duration::from_secs(2);
    let Some(ranks) = ranks(timeout) else {
        let name = "mpi::a_rank_that_hangs_is_named_and_the_job_ends";
        let output = mpirun(2, name, Path::new(""));
        // The processes leave without MPI_Finalize, which would wait for ever; mpirun says so by its status.
        assert!(!output.status.success());
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(stdout.contains("found: rank 1 did not come"), "{stdout}");
        return;
    };
    ranks.barrier().unwrap();
    if ranks.rank() == 1 {
        std::thread::sleep(5 * timeout);
    }
    let error = ranks.barrier().unwrap_err();
    println!("found: {error}");
    let is_named = matches!(&error, CollectiveError::Missing { ranks, .. } if *ranks == [1]);
    assert!(is_named, "{error}");
}
