#!/usr/bin/env bash
# Shows that two builds of one commit are byte-equal: builds it twice, from nothing, in two places, and compares.
#
#   bash packaging/reproduce.sh [COMMIT]
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
# Whoever commits meanwhile changes nothing here.
commit=$(git -C "$here" rev-parse --verify "${1:-HEAD}^{commit}")
scratch=$(mktemp -d)
tidy() { rm -rf -- "$scratch"; }
trap tidy EXIT

bash "$here/build.sh" --work "$scratch/one" --out "$scratch/out-1" "$commit" >/dev/null
# Another place with a name of another length, another user's habits.
(umask 077; cd / && bash "$here/build.sh" --work "$scratch/another/place" --out "$scratch/out-2" "$commit" >/dev/null)

if diff "$scratch/out-1/SHA256SUMS" "$scratch/out-2/SHA256SUMS" >/dev/null; then
    cat "$scratch/out-1/SHA256SUMS"
    echo "equal: both builds gave these bytes"
else
    diff "$scratch/out-1/SHA256SUMS" "$scratch/out-2/SHA256SUMS" || true
    echo "different: the lines above" >&2
    exit 1
fi
