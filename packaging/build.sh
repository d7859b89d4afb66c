#!/usr/bin/env bash
# Makes everything that is handed out, from a commit and from nothing else:
#
#   bash packaging/build.sh [--out DIR] [--work DIR] [COMMIT]
#
#   stockade_VERSION-1_ARCH.deb        for Debian and Ubuntu
#   stockade-VERSION-ARCH.tar.gz       binary, units, pages, completions and install.sh, for other systems
#   stockade-VERSION.cdx.json          what is in it (CycloneDX)
#   SHA256SUMS
#
# Two builds of one commit with one toolchain are byte-equal, wherever they are made: packaging/reproduce.sh shows it.
# Needs cargo-deb and cargo-cyclonedx (`cargo install --locked cargo-deb cargo-cyclonedx`), git, tar, gzip.
set -euo pipefail

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$(readlink -f "$0")"; }
die() { echo "build.sh: $*" >&2; exit 1; }

top=$(dirname "$(dirname "$(readlink -f "$0")")")
out=$top/target/packages work='' commit=HEAD
while (($#)); do
    case $1 in
    --out) out=${2:?--out needs a directory}; shift 2 ;;
    --work) work=${2:?--work needs a directory}; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    -*) die "no such option: $1 (--help tells which there are)" ;;
    *) commit=$1; shift ;;
    esac
done
for tool in cargo-deb cargo-cyclonedx git tar gzip sha256sum; do
    command -v "$tool" >/dev/null || die "$tool isn't here; cargo install --locked cargo-deb cargo-cyclonedx, and the rest from your system"
done
commit=$(git -C "$top" rev-parse --verify --quiet "$commit^{commit}") || die "no such commit: $commit"
out=$(realpath -m "$out")
mkdir -p "$out"

# The commit's tree, and a build directory of its own: nothing that lies about in the working tree gets in.
made=''
if [[ -z $work ]]; then
    work=$(mktemp -d)
    made=$work
fi
tidy() { [[ -z $made ]] || rm -rf -- "$made"; }
trap tidy EXIT
work=$(realpath -m "$work")
tree=$work/stockade
rm -rf -- "$tree"
mkdir -p "$tree"
git -C "$top" archive "$commit" | tar -x -C "$tree"
cd "$tree"

# The commit's time is the time of everything that has one; its place is nowhere.
SOURCE_DATE_EPOCH=$(git -C "$top" show -s --format=%ct "$commit")
export SOURCE_DATE_EPOCH CARGO_TARGET_DIR=$work/target LC_ALL=C TZ=UTC
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
umask 022
registry=${CARGO_HOME:-$HOME/.cargo}
remap="'--remap-path-prefix=$CARGO_TARGET_DIR=/target', '--remap-path-prefix=$registry=/cargo', '--remap-path-prefix=$tree=/stockade'"
host=$(rustc -vV | sed -n 's/^host: //p')
cargo build --release --locked -p stockade -p stockade-worker --bin stockade --bin stockade-launcher \
    --config "target.'cfg(unix)'.rustflags = [$remap]" --config 'profile.release.strip = "symbols"'

staged=packaging/staged
mkdir -p "$staged/bin" "$staged/completions" "$staged/etc"
cp "$CARGO_TARGET_DIR/$host/release/stockade" "$CARGO_TARGET_DIR/$host/release/stockade-launcher" "$staged/bin/"
"$staged/bin/stockade" man --directory "$staged/man"
"$staged/bin/stockade" config default >"$staged/etc/stockade.toml"
"$staged/bin/stockade" completions bash >"$staged/completions/stockade.bash"
"$staged/bin/stockade" completions zsh >"$staged/completions/_stockade"
"$staged/bin/stockade" completions fish >"$staged/completions/stockade.fish"
find "$tree" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

version=$("$staged/bin/stockade" --version | cut -d' ' -f2)
cargo deb --quiet --no-build --no-strip --locked --target "$host" --output "$out/"

name=stockade-$version-${host%%-*}
mkdir "$work/pack-$$"
cp -a "$staged" "$work/pack-$$/$name"
cp -a systemd packaging/install.sh packaging/apparmor README.md SECURITY.md CHANGELOG.md LICENSE* docs examples "$work/pack-$$/$name/"
tar -C "$work/pack-$$" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner \
    --mode=u+rwX,go+rX,go-w --format=gnu -cf - "$name" | gzip -9n >"$out/$name.tar.gz"
rm -rf -- "$work/pack-$$"

cargo cyclonedx --quiet --format json --spec-version 1.5 --target "$host" --override-filename "stockade-$version.cdx"
# Nothing in it may depend on where it was made.
sed "s|$tree|/stockade|g" "stockade-$version.cdx.json" >"$out/stockade-$version.cdx.json"

(cd "$out" && sha256sum ./*"$version"* | grep -v ' ./SHA256SUMS$' >SHA256SUMS && cat SHA256SUMS)
