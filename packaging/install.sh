#!/bin/sh
# Installs Stockade from an unpacked archive (or a tree that was built), and takes it away again.
#
#   sh install.sh [--system | --user] [--prefix DIR] [--binary FILE] [--dry-run]
#   sh install.sh --uninstall [--system | --user] [--prefix DIR] [--dry-run]
#
#   --system    for all users, as root: below /usr/local unless --prefix says otherwise (root's default)
#   --user      for yourself: below ~/.local
#   --binary    the program, if it isn't in bin/ beside this script; stockade-launcher lies beside it
#   --dry-run   only say what would be done
#
# Nothing is enabled: the last lines say how. --uninstall removes what was installed, and says what else there is.
set -eu

die() { echo "install.sh: $*" >&2; exit 64; }
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"; }

here=$(cd "$(dirname "$0")" && pwd)
mode='' prefix='' binary='' dry='' removing=''
while [ $# -gt 0 ]; do
    case $1 in
    --system | --user) mode=${1#--} ;;
    --prefix) [ $# -gt 1 ] || die "--prefix needs a directory"; prefix=$2; shift ;;
    --binary) [ $# -gt 1 ] || die "--binary needs a file"; binary=$2; shift ;;
    --dry-run) dry=yes ;;
    --uninstall) removing=yes ;;
    -h | --help) usage; exit 0 ;;
    *) die "no such option: $1 (--help tells which there are)" ;;
    esac
    shift
done

if [ -z "$mode" ]; then
    if [ "$(id -u)" -eq 0 ]; then mode=system; else mode=user; fi
fi
if [ "$mode" = system ]; then
    [ "$(id -u)" -eq 0 ] || [ -n "$dry" ] || die "--system needs root: sudo sh install.sh, or --user for yourself"
    prefix=${prefix:-/usr/local}
else
    prefix=${prefix:-${HOME:?}/.local}
fi
case $prefix in /*) ;; *) die "--prefix has to be absolute: $prefix" ;; esac
# It goes into units and a profile as it stands.
case $prefix in *[!A-Za-z0-9/._-]*) die "--prefix may have letters, digits and / . _ - only: $prefix" ;; esac

# Where this script lies in an archive, and where in the tree.
if [ -d "$here/systemd" ]; then source=$here; else source=$(dirname "$here"); fi
if [ -z "$binary" ]; then binary=$here/bin/stockade; fi
profile=$source/packaging/apparmor/stockade
[ -e "$profile" ] || profile=$source/apparmor/stockade

# Directories that systemd looks in by itself; for any other prefix the administrator's own.
case $prefix in
/usr | /usr/local) lib=$prefix/lib/systemd sysusers=$prefix/lib/sysusers.d tmpfiles=$prefix/lib/tmpfiles.d ;;
*) lib=/etc/systemd sysusers=/etc/sysusers.d tmpfiles=/etc/tmpfiles.d ;;
esac
user_units=${XDG_CONFIG_HOME:-${HOME:-/nonexistent}/.config}/systemd/user
# Where the daemon looks, whatever the prefix.
if [ "$mode" = system ]; then settings=/etc/stockade; else settings=${XDG_CONFIG_HOME:-${HOME:-/nonexistent}/.config}/stockade; fi

run() {
    if [ -n "$dry" ]; then echo "would: $*"; else "$@"; fi
}

# The program's path in a unit or a profile is the package's.
placed() { # from, to
    if [ -n "$dry" ]; then
        echo "would: install -m 644 $1 $2"
        return
    fi
    mkdir -p "$(dirname "$2")"
    sed "s|/usr/bin/stockade|$prefix/bin/stockade|g; s|/usr/lib/stockade/|$prefix/lib/stockade/|g" "$1" >"$2.new"
    chmod 644 "$2.new"
    mv "$2.new" "$2"
}

unit_names='stockade.socket stockade.service stockade-launcher.socket stockade-launcher@.service'

# Every file, as FROM and TO. What is generated is made from the program itself.
units() {
    if [ "$mode" = system ]; then
        for unit in $unit_names; do
            echo "$source/systemd/$unit $lib/system/$unit"
            echo "$source/systemd/user/$unit $lib/user/$unit"
        done
        echo "$source/systemd/sysusers.d/stockade.conf $sysusers/stockade.conf"
        echo "$source/systemd/tmpfiles.d/stockade.conf $tmpfiles/stockade.conf"
    else
        for unit in $unit_names; do
            echo "$source/systemd/user/$unit $user_units/$unit"
        done
    fi
}
completions="$prefix/share/bash-completion/completions/stockade $prefix/share/zsh/site-functions/_stockade
$prefix/share/fish/vendor_completions.d/stockade.fish"

completed() { # shell, to
    if [ -n "$dry" ]; then
        echo "would: $prefix/bin/stockade completions $1 > $2"
    else
        mkdir -p "$(dirname "$2")"
        "$prefix/bin/stockade" completions "$1" >"$2"
    fi
}

# The commented defaults, unless somebody has written there: what is there is then his, and stays.
configured() {
    if [ -n "$dry" ]; then
        echo "would: $prefix/bin/stockade config default > $settings/stockade.toml, unless it was changed"
        return
    fi
    mkdir -p "$settings/stockade.d"
    chmod 755 "$settings" "$settings/stockade.d"
    if [ ! -e "$settings/stockade.toml" ] || is_untouched; then
        "$prefix/bin/stockade.new" config default >"$settings/stockade.toml.new"
        chmod 644 "$settings/stockade.toml.new"
        mv "$settings/stockade.toml.new" "$settings/stockade.toml"
    else
        echo "kept: $settings/stockade.toml, which was changed; \`stockade config default\` prints the new one"
    fi
}

is_untouched() { # whether the configuration is what the installed program has written
    [ -x "$prefix/bin/stockade" ] && "$prefix/bin/stockade" config default 2>/dev/null | cmp -s - "$settings/stockade.toml"
}

tell_systemd() { # systemctl of this mode, if systemd runs
    if [ "$mode" = system ]; then
        [ ! -d /run/systemd/system ] || run systemctl "$@" || true
    else
        [ ! -S "${XDG_RUNTIME_DIR:-/nonexistent}/systemd/private" ] || run systemctl --user "$@" || true
    fi
}

apparmor() {
    [ "$mode" = system ] && command -v apparmor_parser >/dev/null && [ -e "$profile" ]
}

install_all() {
    [ -x "$binary" ] || die "$binary isn't there or can't be executed; unpack the whole archive, or name it with --binary"
    launcher=$(dirname "$binary")/stockade-launcher
    [ -x "$launcher" ] || die "$launcher isn't there or can't be executed: it belongs beside the program"
    run mkdir -p "$prefix/bin"
    # A daemon that runs keeps the old file: a new name takes its place.
    run install -m 755 "$binary" "$prefix/bin/stockade.new"
    configured
    run mv "$prefix/bin/stockade.new" "$prefix/bin/stockade"
    run mkdir -p "$prefix/lib/stockade"
    run install -m 755 "$launcher" "$prefix/lib/stockade/stockade-launcher.new"
    run mv "$prefix/lib/stockade/stockade-launcher.new" "$prefix/lib/stockade/stockade-launcher"
    units | while read -r from to; do placed "$from" "$to"; done
    run "$prefix/bin/stockade" man --directory "$prefix/share/man"
    for file in $completions; do
        case $file in */_stockade) shell=zsh ;; *.fish) shell=fish ;; *) shell=bash ;; esac
        completed "$shell" "$file"
    done
    # Only where it is understood: a profile that can't be read is an error at each boot.
    if apparmor && apparmor_parser --skip-kernel-load --skip-cache "$profile" >/dev/null 2>&1; then
        placed "$profile" /etc/apparmor.d/stockade
        if [ -e /sys/kernel/security/apparmor/profiles ]; then run apparmor_parser --replace /etc/apparmor.d/stockade || true; fi
    fi
    if [ "$mode" = system ]; then
        if command -v systemd-sysusers >/dev/null; then
            run systemd-sysusers "$sysusers/stockade.conf"
        else
            getent group stockade >/dev/null || run groupadd --system stockade
            getent passwd stockade >/dev/null || run useradd --system --gid stockade --home-dir / --no-create-home --shell /usr/sbin/nologin stockade
        fi
        if command -v systemd-tmpfiles >/dev/null; then run systemd-tmpfiles --create "$tmpfiles/stockade.conf" || true; fi
        tell_systemd daemon-reload
        echo "next: systemctl enable --now stockade.socket && usermod -a -G stockade NAME"
    else
        tell_systemd daemon-reload
        echo "next: systemctl --user enable --now stockade.socket"
    fi
}

uninstall_all() {
    tell_systemd disable --now stockade.socket stockade.service
    # Its launchers, and what they run, go with it.
    tell_systemd stop stockade-launcher.socket
    if [ "$mode" = system ] && [ -e /etc/apparmor.d/stockade ]; then
        if [ -e /sys/kernel/security/apparmor/profiles ]; then run apparmor_parser --remove /etc/apparmor.d/stockade || true; fi
        run rm -f /etc/apparmor.d/stockade
    fi
    units | while read -r _ to; do run rm -f "$to"; done
    for file in $completions "$prefix"/share/man/man1/stockade.1 "$prefix"/share/man/man1/stockade-*.1 "$prefix"/share/man/man5/stockade.toml.5; do
        if [ -e "$file" ]; then run rm -f "$file"; fi
    done
    if [ -e "$settings/stockade.toml" ] && is_untouched; then run rm -f "$settings/stockade.toml"; fi
    # What was made empty and is empty.
    if [ -z "$dry" ]; then rmdir "$settings/stockade.d" "$settings" 2>/dev/null || true; fi
    run rm -f "$prefix/bin/stockade" "$prefix/lib/stockade/stockade-launcher"
    if [ -z "$dry" ]; then rmdir "$prefix/lib/stockade" 2>/dev/null || true; fi
    tell_systemd daemon-reload
    if [ "$mode" = system ]; then
        echo "left: /etc/stockade, /var/lib/stockade, /var/log/stockade, and the user and the group stockade; remove them if nobody needs them"
    else
        echo "left: your policies (~/.config/stockade) and the daemon's state (~/.local/state/stockade)"
    fi
}

if [ -n "$removing" ]; then uninstall_all; else install_all; fi
