#!/usr/bin/env bash
# Runs under ThreadSanitizer what threads share: the packed encoder with its team and its turns, calls that are given up, and several threads
# over one encoder. The standard library is instrumented too, since it holds the locks. On Debian 12:
#
#     apt-get install rustc-web cargo-web rust-web-src
#     TSAN_RUNTIME=.../librustc-stable_rt.tsan.a tests/tsan.sh
#
# Debian's toolchain brings no ThreadSanitizer; a toolchain of rustup does, below lib/rustlib/x86_64-unknown-linux-gnu/lib, where it is looked
# for. clang's libclang_rt.tsan.a does as well. Any toolchain with Rust's sources: RUSTC=... CARGO=... TSAN_RUNTIME=... tests/tsan.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=x86_64-unknown-linux-gnu
export RUSTC="${RUSTC:-/usr/bin/rustc}"
cargo="${CARGO:-/usr/bin/cargo}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/ssl-edge/target-tsan}"
runtime="${TSAN_RUNTIME:-$(find "${RUSTUP_HOME:-$HOME/.rustup}" -name 'librustc-*_rt.tsan.a' -print -quit 2>/dev/null || true)}"

for needed in "$RUSTC" "$cargo"; do
    command -v "$needed" >/dev/null || {
        echo "tsan.sh: $needed is not there; the head of this script says what to install" >&2
        exit 1
    }
done
[[ -f "$("$RUSTC" --print sysroot)/lib/rustlib/src/rust/library/Cargo.lock" ]] || {
    echo "tsan.sh: $RUSTC has no sources of the standard library; install rust-web-src or the component rust-src" >&2
    exit 1
}
[[ -f "$runtime" ]] || {
    echo "tsan.sh: there is no ThreadSanitizer runtime; set TSAN_RUNTIME" >&2
    exit 1
}

export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="-Zsanitizer=thread -Zexternal-clangrt -Clink-arg=-Wl,--whole-archive -Clink-arg=$runtime -Clink-arg=-Wl,--no-whole-archive"
export TSAN_OPTIONS="halt_on_error=1 second_deadlock_stack=1"
build=(test --release -Zbuild-std --target "$target" --no-default-features)
"$cargo" "${build[@]}" -p ssl-edge-nn --lib infer::
"$cargo" "${build[@]}" -p ssl-edge-runtime --test interrupt
echo "ThreadSanitizer found nothing"
