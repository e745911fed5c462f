//! Compiles the CUDA kernels: to PTX with feature `ptx`, to machine code with feature `fatbin`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

/// What training needs, as PTX. The oldest GPUs that the kernels run on are those of compute capability 8.0 (Ampere); the driver compiles
/// the PTX for newer ones.
const PTX: Form = Form {
    feature: "CARGO_FEATURE_PTX",
    ending: "ptx",
    flags: &["-ptx", "-arch=compute_80"],
    files: &[
        "attention",
        "attention_plain",
        "distil",
        "elementwise",
        "norm",
        "optimiser",
        "rows",
    ],
};

/// What encoders need, as machine code for Jetson Orin (8.7), Ada (8.9) and Hopper (9.0), and as PTX for all others from 8.0 on.
const FATBIN: Form = Form {
    feature: "CARGO_FEATURE_FATBIN",
    ending: "fatbin",
    flags: &[
        "-fatbin",
        "-gencode=arch=compute_80,code=compute_80",
        "-gencode=arch=compute_87,code=sm_87",
        "-gencode=arch=compute_89,code=sm_89",
        "-gencode=arch=compute_90,code=sm_90",
    ],
    files: &[
        "attention",
        "attention_plain",
        "elementwise",
        "norm",
        "rows",
    ],
};

struct Form {
    feature: &'static str,
    ending: &'static str,
    flags: &'static [&'static str],
    files: &'static [&'static str],
}

fn main() {
    println!("cargo::rerun-if-changed=kernels");
    let forms: Vec<Form> = [PTX, FATBIN]
        .into_iter()
        .filter(|form| env::var_os(form.feature).is_some())
        .collect();
    if forms.is_empty() {
        return;
    }
    for variable in ["NVCC", "CUDA_HOME", "CUDA_PATH", "PATH"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let nvcc = nvcc();
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let mut failures: Vec<String> = std::thread::scope(|scope| {
        let mut running = Vec::new();
        for form in &forms {
            for file in form.files {
                let (nvcc, out) = (&nvcc, &out);
                running.push(scope.spawn(move || compile(nvcc, form, file, out)));
            }
        }
        running
            .into_iter()
            .filter_map(|job| job.join().expect("no panic").err())
            .collect()
    });
    if !failures.is_empty() {
        failures.dedup();
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

fn compile(nvcc: &Path, form: &Form, file: &str, out: &Path) -> Result<(), String> {
    let source = Path::new("kernels").join(file).with_extension("cu");
    let result = Command::new(nvcc)
        .args(form.flags)
        .args(["-std=c++17", "-O3", "-o"])
        .arg(out.join(file).with_extension(form.ending))
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
            "the GPU's kernels need NVIDIA's compiler, and `{}` cannot be run ({error}): install the CUDA toolkit (12.0 or later) \
             and set CUDA_HOME to its folder, or NVCC to its nvcc; or build without feature `cuda` or `kernels`",
            nvcc.display()
        )),
    }
}
