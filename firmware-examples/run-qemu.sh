#!/usr/bin/env bash
# Builds the firmware, runs it on QEMU's model of a Cortex-M3 board and holds it against this machine:
# every byte of the output must be equal, flash, RAM and stack must stay within budget, and no floating point may be linked in.
# Instruction counts are QEMU's (-icount), not a chip's cycles: flash wait states and pipeline are not modelled.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

board=lm3s6965evb
target=thumbv7m-none-eabi
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"
release="$CARGO_TARGET_DIR/$target/release"
work="$CARGO_TARGET_DIR/qemu"
# Flash; RAM that is laid out plus the deepest stack seen. Bytes. Images and frames take 41 KiB of the flash of head_inference.
declare -A flash_budget=([head_inference]=61440 [reject_gate]=33792)
declare -A ram_budget=([head_inference]=4096 [reject_gate]=6144)

fail() {
    echo "error: $*" >&2
    exit 1
}

require() {
    command -v "$1" >/dev/null || fail "$1 is not installed; on Debian or Ubuntu: apt-get install $2"
}

# The ordinary toolchain if it has the target, else Debian's rustc, which builds `core` from its sources.
build_firmware() {
    local sources=/usr/lib/rustlib/src/rust/library/core
    local libraries
    libraries="$(rustc --print target-libdir --target "$target" 2>/dev/null || true)"
    if compgen -G "$libraries/libcore-*.rlib" >/dev/null; then
        echo "toolchain: $(rustc --version) with $target"
        cargo build --locked --release --target "$target" --package "$board"
    elif [[ -d "$sources" && -x /usr/bin/cargo && -x /usr/bin/rustc ]]; then
        require ld.lld lld
        echo "toolchain: $(/usr/bin/rustc --version) with core built from its sources"
        RUSTC_BOOTSTRAP=1 RUSTC=/usr/bin/rustc CARGO_TARGET_THUMBV7M_NONE_EABI_LINKER=ld.lld \
            /usr/bin/cargo build --locked --release -Zbuild-std=core --target "$target" --package "$board"
    else
        fail "no toolchain for $target; either: rustup target add $target, or on Debian: apt-get install rustc-web cargo-web rust-web-src lld"
    fi
}

# run <program> <file for its UART>: its UART goes to <program>.uart, its console to <program>.console.
run() {
    local status=0
    timeout 120 qemu-system-arm -machine "$board" -display none -monitor none -serial stdio \
        -semihosting-config enable=on,target=native -icount shift=6,sleep=off \
        -kernel "$release/$1" <"$2" >"$work/$1.uart" 2>"$work/$1.console" || status=$?
    [[ $status == 0 ]] || {
        cat "$work/$1.console" >&2
        fail "$1 ended with status $status"
    }
}

equal() {
    cmp "$1" "$2" || fail "$3 differs between the Cortex-M3 and this machine"
    echo "equal: $3, $(wc -c <"$1") bytes"
}

# The console's "# name n ticks" lines with instructions, by the calibration loop's known number.
counts() {
    awk -v program="$1" '
        /^# calibration/ { per_tick = $3 / $5; next }
        /^# (parse|verdict|request)/ {
            line = substr($0, 3)
            while (match(line, /[0-9]+ ticks/)) {
                ticks = substr(line, RSTART, RLENGTH) + 0
                line = substr(line, 1, RSTART - 1) sprintf("%.0f instructions", ticks * per_tick) substr(line, RSTART + RLENGTH)
            }
            print program ": " line
            next
        }
        /^# / { print program ": " substr($0, 3) }' "$work/$1.console"
}

sizes() {
    local text data bss stack flash ram
    read -r text data bss _ < <(size "$release/$1" | tail -n 1)
    stack="$(awk '/^# stack/ { print $3 }' "$work/$1.console")"
    [[ -n $stack ]] || fail "$1 did not say how much stack it used"
    flash=$((text + data)) ram=$((data + bss + stack))
    echo "$1: flash $flash of ${flash_budget[$1]} bytes, RAM $ram of ${ram_budget[$1]} bytes (text $text, data $data, bss $bss, stack $stack)"
    ((flash <= flash_budget[$1])) || fail "$1 is over its flash budget"
    ((ram <= ram_budget[$1])) || fail "$1 is over its RAM budget"
}

no_floating_point() {
    local found
    found="$(nm "$release/$1" |
        grep -E ' (__aeabi_([fd](add|sub|rsub|mul|div|cmp|2)|c[fd]cmp|u?[il]2[fd])|__(add|sub|mul|div)[sd]f3|__fix|__float)' || true)"
    [[ -z $found ]] || fail "$1 has floating point linked in: $found"
}

require qemu-system-arm qemu-system-arm
require nm binutils
require cmp diffutils
mkdir -p "$work"
build_firmware
cargo run --locked --quiet --release --package host "$work"

run head_inference /dev/null
equal "$work/head_inference.uart" "$work/verdicts.txt" "verdicts"
run reject_gate "$work/requests.bin"
equal "$work/reject_gate.uart" "$work/replies.bin" "replies"
grep '^replies' "$work/reject_gate.console" >"$work/gate.seen" || true
equal "$work/gate.seen" "$work/gate.txt" "gate pulses and counters"
for program in head_inference reject_gate; do
    counts "$program"
    sizes "$program"
    no_floating_point "$program"
done
echo "ok: the Cortex-M3 gives this machine's integers"
