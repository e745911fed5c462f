#!/usr/bin/env bash
# Runs under a sanitizer what its kind of mistake could hide in. Both by default, or one: tests/sanitize.sh [address] [thread]
#
#   address   AddressSanitizer and LeakSanitizer, with debug assertions: kernels and products on the CPU, the packed encoder, and both sides of the
#             plug-ins
#   thread    ThreadSanitizer: the packed encoder with its team and its turns, calls that are given up, several threads over one encoder
#
# Takes rustup's nightly toolchain, for `thread` with Rust's sources, since ThreadSanitizer must see the locks of the standard library as well:
#
#     rustup toolchain install nightly --profile minimal --component rust-src
#
# or any other toolchain with sources: RUSTC=... CARGO=... tests/sanitize.sh. Debian's (rustc-web, cargo-web, rust-web-src) has no runtimes of the
# sanitizers; SANITIZER_RUNTIMES names a folder with those of another (librustc-*_rt.asan.a and librustc-*_rt.tsan.a).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=x86_64-unknown-linux-gnu
if [[ -z "${RUSTC:-}" ]]; then
    RUSTC="$(rustup which --toolchain nightly rustc 2>/dev/null || echo /usr/bin/rustc)"
fi
export RUSTC
cargo="${CARGO:-$(dirname "$RUSTC")/cargo}"
for needed in "$RUSTC" "$cargo"; do
    command -v "$needed" >/dev/null || {
        echo "sanitize.sh: $needed is not there; the head of this script says what to install" >&2
        exit 1
    }
done
targets="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/ssl-edge/target-sanitize}"

# Memory that cannot be had is refused, as it is without a sanitizer: tests ask for it.
refuse="allocator_may_return_null=1"

# What rustc is told, for the sanitizer `$1` with the runtime `$2`.
flags() {
    echo "-Zsanitizer=$1"
    [[ -z "${SANITIZER_RUNTIMES:-}" ]] && return
    local runtime
    runtime="$(find "$SANITIZER_RUNTIMES" -name "librustc-*_rt.$2.a" -print -quit)"
    [[ -n "$runtime" ]] || {
        echo "sanitize.sh: there is no librustc-*_rt.$2.a in $SANITIZER_RUNTIMES" >&2
        exit 1
    }
    echo "-Zexternal-clangrt -Clink-arg=-Wl,--whole-archive -Clink-arg=$runtime -Clink-arg=-Wl,--no-whole-archive"
}

# `cargo test` of a package with its own features, as a program for a device has them.
tests() {
    "$cargo" test --release --target "$target" --no-default-features "$@"
}

address() {
    RUSTFLAGS="$(flags address asan | tr '\n' ' ')"
    export RUSTFLAGS CARGO_TARGET_DIR="$targets/address" CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true
    export ASAN_OPTIONS="$refuse"
    tests -p ssl-edge-plugin -p ssl-edge-gpu --lib --tests
    # Not its integration tests: a program cannot open a library that was built for AddressSanitizer as well.
    tests -p ssl-edge-cuda --lib
    tests -p ssl-edge-nn --lib -- infer:: kernels:: ops::simd ops::product
}

thread() {
    [[ -f "$("$RUSTC" --print sysroot)/lib/rustlib/src/rust/library/Cargo.lock" ]] || {
        echo "sanitize.sh: $RUSTC has no sources of the standard library; install the component rust-src or rust-web-src" >&2
        exit 1
    }
    RUSTFLAGS="$(flags thread tsan | tr '\n' ' ')"
    export RUSTFLAGS CARGO_TARGET_DIR="$targets/thread" TSAN_OPTIONS="$refuse halt_on_error=1 second_deadlock_stack=1"
    tests -Zbuild-std -p ssl-edge-nn --lib -- infer::
    tests -Zbuild-std -p ssl-edge-runtime --test interrupt
}

export RUSTC_BOOTSTRAP=1
(($#)) || set -- address thread
for sanitizer in "$@"; do
    case "$sanitizer" in
    address | thread) ("$sanitizer") ;;
    *)
        echo "sanitize.sh: $sanitizer is neither address nor thread" >&2
        exit 2
        ;;
    esac
    echo "the $sanitizer sanitizer found nothing"
done
