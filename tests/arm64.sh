#!/usr/bin/env bash
# Builds for 64-bit Arm Linux and runs the test suites under qemu-user, on an x86 Debian 12 with
#
#     apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
#
# and a toolchain that has the target: rustup's (`rustup target add aarch64-unknown-linux-gnu`), which is taken where it is there, Debian's
#
#     dpkg --add-architecture arm64 && apt-get update
#     apt-get install rustc-web cargo-web libstd-rust-web-dev:arm64
#
# or any other: RUSTC=... CARGO=... tests/arm64.sh [package ...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=aarch64-unknown-linux-gnu
if [[ -z "${RUSTC:-}" ]]; then
    RUSTC="$(command -v rustc || true)"
    [[ -n "$RUSTC" && -d "$("$RUSTC" --print sysroot)/lib/rustlib/$target" ]] || RUSTC=/usr/bin/rustc
fi
export RUSTC
cargo="${CARGO:-$(dirname "$RUSTC")/cargo}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/ssl-edge/target-arm64}"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER="${LINKER:-aarch64-linux-gnu-gcc}"
# The path of libraries is said twice, since a libc of Debian's arm64 packages may be on this machine as well, and two that are mixed hang.
libraries=/usr/aarch64-linux-gnu
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="${RUNNER:-qemu-aarch64 -L $libraries -E LD_LIBRARY_PATH=$libraries/lib}"
# C sources of dependencies.
export CC_aarch64_unknown_linux_gnu="${LINKER:-aarch64-linux-gnu-gcc}"

for needed in "$RUSTC" "$cargo" "${LINKER:-aarch64-linux-gnu-gcc}" qemu-aarch64; do
    command -v "$needed" >/dev/null || {
        echo "arm64.sh: $needed is not there; the head of this script says what to install" >&2
        exit 1
    }
done

packages=("$@")
((${#packages[@]})) || packages=(ssl-edge-head ssl-edge-bundle ssl-edge-nn ssl-edge-vision ssl-edge-adapt ssl-edge-runtime)
for package in "${packages[@]}"; do
    # One package at a time: each is built with its own features, as a program for the device has them.
    tests=("$cargo" test --release --target "$target" --no-default-features -p "$package")
    case "$package" in
    ssl-edge-nn)
        # On a CPU with dot products and on one without. The kernels for GPUs are compiled for the host when they are tested, which is another
        # here. Allocations cannot be counted where a test takes a minute: the harness allocates to say so.
        for cpu in max,pauth-impdef=on cortex-a72; do
            echo "$package on $cpu"
            QEMU_CPU="$cpu" "${tests[@]}" --lib --tests -- --skip gpu::tests --skip costs_no_allocation
        done
        ;;
    ssl-edge-adapt)
        # Tests that start their own binary cannot, since this machine does not run it. The largest jobs and the rates that are counted over
        # thousands of trials take many minutes when they are emulated, and rest on what smaller tests run as well.
        QEMU_CPU=max,pauth-impdef=on "${tests[@]}" --lib --tests -- --skip killed:: --skip no_change_of_many_is_lost \
            --skip a_write_that_stops_half_way --skip hundred_thousand --skip ten_thousand --skip keep_the_rate
        ;;
    *) QEMU_CPU=max,pauth-impdef=on "${tests[@]}" --lib --tests ;;
    esac
done
echo "passed on $target: ${packages[*]}"
