#!/usr/bin/env bash
# Takes what fuzz/run.sh has found into fuzz/corpus: `fuzz/minimise.sh [TARGET...]`, all targets unless some are named.
#
# Of the tree's corpora and the found ones a target keeps as few as reach all that they reach together. Where those are more
# than the tree should have, which is cloned by everybody, some of every size.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

readonly bytes_a_target=92160 files_a_target=300
readonly build=${CARGO_TARGET_DIR:-target}
fuzzer=$(find "$build" -path '*/fuzz/stockade-fuzz' -type f | head -n 1)
[[ -x $fuzzer ]] || { echo "there is no fuzzer: run fuzz/run.sh first"; exit 1; }

targets=("$@")
if ((${#targets[@]} == 0)); then
    mapfile -t targets < <(ls fuzz/corpus)
fi
for target in "${targets[@]}"; do
    merged=$(mktemp -d)
    STOCKADE_FUZZ=$target "$fuzzer" -set_cover_merge=1 -use_counters=0 "$merged" "fuzz/corpus/$target" "$build/fuzz-corpora/$target" 2>/dev/null
    rm -f -- "fuzz/corpus/$target"/*
    kept=0
    every=$((($(find "$merged" -type f | wc -l) + files_a_target - 1) / files_a_target))
    while read -r size file; do
        ((kept + size <= bytes_a_target)) || break
        kept=$((kept + size))
        cp -- "$file" "fuzz/corpus/$target/"
    done < <(find "$merged" -type f -printf '%s %p\n' | sort -n | awk "NR % $every == 0")
    printf '%-16s %s files, %s bytes\n' "$target" "$(find "fuzz/corpus/$target" -type f | wc -l)" "$kept"
    rm -r -- "$merged"
done
