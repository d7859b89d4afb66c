#!/usr/bin/env bash
# Fuzzing: `fuzz/run.sh SECONDS [TARGET...]`, all targets unless some are named, two at a time.
#
# Built for the stable toolchain: libFuzzer is a dependency, and the compiler's instrumentation for it needs no sanitizer.
# What is found that a target hasn't seen is added to corpora of its own below the build folder; the tree's stay as they
# are. An input that breaks a promise is printed as base64: put it into fuzz/crashes/TARGET, and the tests replay it.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

readonly seconds=${1:?usage: fuzz/run.sh SECONDS [TARGET...]}
shift
# STOCKADE_FUZZ_AT_ONCE targets run side by side.
readonly at_once=${STOCKADE_FUZZ_AT_ONCE:-2}
# STOCKADE_FUZZ_SEED repeats a choice of inputs, as far as the time goes; 0 takes another each time.
readonly seed=${STOCKADE_FUZZ_SEED:-0}
readonly build=${CARGO_TARGET_DIR:-target}
readonly grown=$build/fuzz-corpora

targets=("$@")
if ((${#targets[@]} == 0)); then
    mapfile -t targets < <(ls fuzz/corpus)
fi

# Coverage as libFuzzer counts it: edges inline, comparisons traced. The C library is linked as usual, since the engine is C++.
RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares" \
    cargo build --locked --quiet --profile fuzz -p stockade-fuzz --features libfuzzer
fuzzer=$(find "$build" -path '*/fuzz/stockade-fuzz' -type f | head -n 1)
[[ -x $fuzzer ]] || { echo "the fuzzer wasn't built"; exit 1; }

# One target; its last lines, and what broke it.
fuzz() {
    local target=$1 log=$build/fuzz-$1.log found=$build/fuzz-found/$1 status=0 longest
    longest=$(sed -n "s/.*name: \"$target\",.*longest: \([0-9]*\).*/\1/p" fuzz/src/lib.rs)
    mkdir -p "$grown/$target" "$found"
    STOCKADE_FUZZ=$target "$fuzzer" -seed="$seed" -max_total_time="$seconds" -max_len="$longest" -timeout=60 -rss_limit_mb=2048 \
        -print_final_stats=1 -artifact_prefix="$found/" "$grown/$target" "fuzz/corpus/$target" >"$log" 2>&1 || status=$?
    printf '%-16s %s executions, %s\n' "$target" \
        "$(sed -n 's/^stat::number_of_executed_units: //p' "$log")" \
        "$(grep -Eo 'cov: [0-9]+ ft: [0-9]+ corp: [0-9]+' "$log" | tail -n 1)"
    ((status == 0)) && return
    tail -n 30 "$log"
    find "$found" -type f -print -exec base64 -w 100 {} \;
    return 1
}

rm -rf -- "$build/fuzz-found"
mkdir -p "$build/fuzz-found"
for target in "${targets[@]}"; do
    while (($(jobs -rp | wc -l) >= at_once)); do wait -n || true; done
    { fuzz "$target" || touch "$build/fuzz-found/failed"; } &
done
wait
[[ ! -e $build/fuzz-found/failed ]]
