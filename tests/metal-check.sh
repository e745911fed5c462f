#!/usr/bin/env bash
# Type-checks the program and the C library with Metal for Macs with Apple silicon, on a machine that is none: Debian 12 with its packages
#
#     apt-get install rustc-web cargo-web rust-web-src gcc
#
# or with any nightly toolchain that has its sources: RUSTC=... CARGO=... tests/metal-check.sh
#
# Nothing is linked and nothing runs. C and assembly of dependencies is not compiled: a compiler that makes empty files stands in for
# Apple's, whose headers are not there. Metal's shaders are compiled by the Mac that runs them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=aarch64-apple-darwin
export RUSTC="${RUSTC:-/usr/bin/rustc}"
cargo="${CARGO:-/usr/bin/cargo}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/ssl-edge/target-metal}"
# The sources of the standard library are compiled, which a stable toolchain does where it is told that it is a nightly one.
export RUSTC_BOOTSTRAP=1

for needed in "$RUSTC" "$cargo" cc; do
    command -v "$needed" >/dev/null || {
        echo "metal-check.sh: $needed is not there; the head of this script says what to install" >&2
        exit 1
    }
done

stubs="$CARGO_TARGET_DIR/stubs"
mkdir -p "$stubs/sdk"
cat >"$stubs/cc" <<'STUB'
#!/usr/bin/env bash
# Preprocesses as the machine's compiler does, which build scripts ask for to know it; compiles to empty files.
for argument in "$@"; do [[ $argument == -E ]] && exec cc -E "${@: -1}"; done
while (($#)); do
    [[ $1 == -o ]] && : >"$2"
    shift
done
STUB
cat >"$stubs/ar" <<'STUB'
#!/usr/bin/env bash
for argument in "$@"; do [[ $argument == *.a ]] && : >"$argument"; done
exit 0
STUB
chmod +x "$stubs/cc" "$stubs/ar"
export CC_aarch64_apple_darwin="$stubs/cc" CXX_aarch64_apple_darwin="$stubs/cc" AR_aarch64_apple_darwin="$stubs/ar"
export SDKROOT="$stubs/sdk" MACOSX_DEPLOYMENT_TARGET=11.0

packages=("$@")
((${#packages[@]})) || packages=(ssl-edge-cli ssl-edge-capi)
for package in "${packages[@]}"; do
    "$cargo" check --target "$target" -Zbuild-std --features metal -p "$package"
done
echo "type-checked for $target with feature metal: ${packages[*]}"
