#!/usr/bin/env bash
# The service as an operator has it: installs the package in a throw-away Debian machine with a real systemd, and tries
# there what no test on this machine can (tests/vm/guest.sh has the checks). Prints a line a check; fails if one fails,
# or if one of them hasn't been run.
#
#   bash tests/vm/run.sh [--packages DIR] [--suite bookworm|trixie] [--backports] [CHECK…]
#
#   --packages   what packaging/build.sh has made; without it that is made first, of HEAD
#   --suite      the machine's Debian (trixie); bookworm has an older kernel (6.1) and an older systemd (252)
#   --backports  its kernel from that Debian's backports: a newer one under the same systemd
#
# About four minutes where the processor is emulated. Needs what tests/vm/machine.sh needs, which it installs as root.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
packages='' suite=trixie kernel='' checks=()
while (($#)); do
    case $1 in
    --packages) packages=${2:?--packages needs a directory}; shift 2 ;;
    --suite) suite=${2:?--suite needs a name}; shift 2 ;;
    --backports) kernel=-backports; shift ;;
    -*) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 64 ;;
    *) checks+=("check_${1#check_}"); shift ;;
    esac
done
scratch=$(mktemp -d)
tidy() { rm -rf -- "$scratch"; }
trap tidy EXIT

if [[ -z $packages ]]; then
    packages=$scratch/packages
    bash "$here/../../packaging/build.sh" --out "$packages"
fi
mkdir "$scratch/t"
cp "$packages"/*.deb "$packages"/*.tar.gz "$here/guest.sh" "$scratch/t/"
older=''
if [[ $suite$kernel == bookworm ]]; then older=yes; : >"$scratch/t/older"; fi

VM_SUITE=$suite VM_KERNEL_SUITE=$suite$kernel VM_TIMEOUT=${VM_TIMEOUT:-1500} bash "$here/machine.sh" "$scratch/t" bash /t/guest.sh /t "${checks[@]}" |
    tee "$scratch/said"

# What the machine didn't say wasn't tried.
missing=0
if ((${#checks[@]} == 0)); then
    mapfile -t checks < <(sed -n 's/^\(check_[a-z_]*\)() {$/\1/p' "$here/guest.sh")
    [[ -n $older ]] || mapfile -t checks < <(printf '%s\n' "${checks[@]}" | grep -v '^check_older_')
fi
for check in "${checks[@]}"; do
    grep -q "^ok ${check#check_} " "$scratch/said" || { echo "missing: ${check#check_}"; missing=1; }
done
exit "$missing"
