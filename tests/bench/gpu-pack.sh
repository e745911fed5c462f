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

messages="$(mktemp)"
trap 'rm -f "$messages"' EXIT

artifact() { # artifact TARGET: the file of this name that cargo's messages tell of
    python3 -c '
import json, sys
messages = [json.loads(line) for line in open(sys.argv[2])]
files = [f for m in messages if m["reason"] == "compiler-artifact" and m["target"]["name"] == sys.argv[1]
         for f in [m["executable"], *m["filenames"]] if f and not f.endswith((".rlib", ".rmeta"))]
print(files[-1])' "$1" "$messages"
}

# One build, so that features agree and nothing is compiled twice; what will be stripped needs no line tables.
CARGO_PROFILE_RELEASE_DEBUG=none cargo build --release --message-format json-render-diagnostics \
    -p ssl-edge-cli -p ssl-edge-nn -p ssl-edge-train -p ssl-edge-cuda \
    --features ssl-edge-cli/cuda,ssl-edge-nn/cuda,ssl-edge-train/cuda,ssl-edge-cuda/kernels \
    --lib --bin ssl-edge --test cuda --test suite --test plugin >"$messages"
pack "$(artifact ssl-edge)" ssl-edge
pack "$(artifact ssl_edge_cuda)" libssl_edge_cuda.so
pack "$(artifact cuda)" nn-cuda
pack "$(artifact suite)" train-suite
pack "$(artifact plugin)" cuda-plugin
ls -l "$folder"
