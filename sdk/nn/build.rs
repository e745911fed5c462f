//! Compiles the CUDA kernels to PTX, with feature `cuda` only.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

/// The oldest GPUs that the kernels run on are those of compute capability 8.0 (Ampere); the driver compiles the PTX for newer ones.
const ARCH: &str = "-arch=compute_80";

const FILES: [&str; 7] = [
    "attention",
    "attention_plain",
    "distil",
    "elementwise",
    "norm",
    "optimiser",
    "rows",
];

fn main() {
    println!("cargo::rerun-if-changed=kernels");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    for variable in ["NVCC", "CUDA_HOME", "CUDA_PATH", "PATH"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let nvcc = nvcc();
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let failures: Vec<String> = std::thread::scope(|scope| {
        let compile = |file| {
            let (nvcc, out) = (&nvcc, &out);
            scope.spawn(move || compile(nvcc, file, out))
        };
        let running: Vec<_> = FILES.into_iter().map(compile).collect();
        running
            .into_iter()
            .filter_map(|job| job.join().expect("no panic").err())
            .collect()
    });
    if !failures.is_empty() {
        eprintln!("{}", failures.join("\n"));
        exit(1);
    }
}

/// The compiler: `NVCC`, that of `CUDA_HOME` or `CUDA_PATH`, the usual place, or the one on the path.
fn nvcc() -> PathBuf {
    let below = |variable: &str| Some(PathBuf::from(env::var_os(variable)?).join("bin/nvcc"));
    let candidates = [
        env::var_os("NVCC").map(PathBuf::from),
        below("CUDA_HOME"),
        below("CUDA_PATH"),
        Some("/usr/local/cuda/bin/nvcc".into()),
    ];
    let found = candidates.into_iter().flatten().find(|path| path.exists());
    found.unwrap_or_else(|| "nvcc".into())
}

fn compile(nvcc: &Path, file: &str, out: &Path) -> Result<(), String> {
    let source = Path::new("kernels").join(file).with_extension("cu");
    let result = Command::new(nvcc)
        .args(["-ptx", "-std=c++17", "-O3", ARCH, "-o"])
        .arg(out.join(file).with_extension("ptx"))
        .arg(&source)
        .output();
    match result {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => Err(format!(
            "{} does not compile:\n{}",
            source.display(),
            String::from_utf8_lossy(&done.stderr)
        )),
        Err(error) => Err(format!(
            "feature `cuda` needs NVIDIA's compiler, and `{}` cannot be run ({error}): install the CUDA toolkit (12.0 or later) \
             and set CUDA_HOME to its folder, or NVCC to its nvcc; or build without feature `cuda`",
            nvcc.display()
        )),
    }
}
