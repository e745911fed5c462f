#!/usr/bin/env bash
# Builds and packs what tests/bench/gpu.py runs: tests/bench/gpu-pack.sh FOLDER
#
# Needs the CUDA toolkit (CUDA_HOME, or nvcc on the path) and python3; a GPU is not needed. A first build takes most of an hour on two cores.
set -euo pipefail
(($# == 1)) || { echo "usage: tests/bench/gpu-pack.sh FOLDER" >&2; exit 2; }
mkdir -p "$1"
folder="$(cd "$1" && pwd)"
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

pack() { # pack FILE NAME
    strip -o "$folder/$2" "$1"
    python3 - "$folder/$2" <<'PYTHON'
import lzma, os, sys
path = sys.argv[1]
with open(path, "rb") as source, lzma.open(path + ".xz", "wb", preset=9) as packed:
    packed.write(source.read())
os.remove(path)
PYTHON
}

artifact() { # artifact TARGET: the file of this name that cargo's messages on standard input tell of
    python3 -c '
import json, sys
messages = (json.loads(line) for line in sys.stdin)
files = [f for m in messages if m["reason"] == "compiler-artifact" and m["target"]["name"] == sys.argv[1]
         for f in [m["executable"], *m["filenames"]] if f and not f.endswith((".rlib", ".rmeta"))]
print(files[-1])' "$1"
}

build=(--release --message-format json-render-diagnostics)
pack "$(cargo build "${build[@]}" -p ssl-edge-cli --features cuda | artifact ssl-edge)" ssl-edge
pack "$(cargo build "${build[@]}" -p ssl-edge-cuda --features kernels | artifact ssl_edge_cuda)" libssl_edge_cuda.so
pack "$(cargo test "${build[@]}" --no-run -p ssl-edge-nn --features cuda --test cuda | artifact cuda)" nn-cuda
pack "$(cargo test "${build[@]}" --no-run -p ssl-edge-train --features cuda --test suite | artifact suite)" train-suite
pack "$(cargo test "${build[@]}" --no-run -p ssl-edge-cuda --features kernels --test plugin | artifact plugin)" cuda-plugin
ls -l "$folder"
