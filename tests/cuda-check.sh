#!/usr/bin/env bash
# Type-checks the crates with NVIDIA's features on a machine without the CUDA toolkit: tests/cuda-check.sh [package ...]
#
# Nothing is linked and nothing runs. A compiler that makes empty files stands in for nvcc, so kernels are not compiled; the suites compile them
# for the host.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/ssl-edge/target-cuda}"
toolkit="$CARGO_TARGET_DIR/toolkit"
mkdir -p "$toolkit/bin" "$toolkit/include"
cat >"$toolkit/bin/nvcc" <<'STUB'
#!/usr/bin/env bash
if [[ ${1:-} == --version ]]; then
    printf '%s\n' "nvcc: stand-in" "" "" "Cuda compilation tools, release 13.0, V13.0.48"
    exit 0
fi
source="$(basename "${@: -1}")"
while (($#)); do
    case "$1" in
    -o) : >"$2" ;;
    --output-directory) : >"$2/${source%.cu}.ptx" ;;
    esac
    shift
done
STUB
chmod +x "$toolkit/bin/nvcc"
export PATH="$toolkit/bin:$PATH" NVCC="$toolkit/bin/nvcc" CUDA_HOME="$toolkit" CUDA_COMPUTE_CAP=80

packages=("$@")
((${#packages[@]})) || packages=(ssl-edge-nn ssl-edge-cli)
for package in "${packages[@]}"; do
    cargo check --features cuda -p "$package"
done
cargo check --features kernels -p ssl-edge-cuda
if command -v mpicc >/dev/null; then
    cargo check --features nccl -p ssl-edge-cli
else
    echo "cuda-check.sh: feature nccl is left out, there is no MPI (Debian: libopenmpi-dev libclang-dev)" >&2
fi
echo "type-checked with features cuda and kernels: ${packages[*]}"
