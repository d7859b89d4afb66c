#!/bin/bash
# The checks of tests/vm/run.sh, in order, within the machine. Each function `check_…` is one; it fails with its first
# command that fails, and what it said is printed then. They build on each other: the package is installed by the first
# and purged by the last.
#
#   guest.sh FOLDER [NAME…]      the folder that run.sh has filled; only these checks
set -uo pipefail
folder=${1:?the folder with the package}
shift
cd "$folder" || exit 2

unit() { systemctl show --property "$1" --value "${2:-stockade.service}"; }
main_pid() { unit MainPID; }
# The launcher that takes the runs to come, and the control group of its unit.
launcher_pid() { ask root status --json | grep -o '"launcher_pid":[0-9]*' | cut -d: -f2; }
launcher_unit() { sed -n 's|^0::.*/\(stockade-launcher@[^/]*\.service\).*|\1|p' "/proc/$(launcher_pid)/cgroup"; }
group() { echo "/sys/fs/cgroup$(unit ControlGroup "$(launcher_unit)")"; }

# Waits up to so many seconds until a command succeeds.
within() {
    local seconds=$1 until=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < until)) || { echo "not within $seconds s: $*"; return 1; }
        sleep 0.1
    done
}

# A command as somebody, in a home of his own and nothing of root's environment.
as() {
    local name=$1
    shift
    local uid
    uid=$(id -u "$name")
    (cd "/home/$name/work" && exec setpriv --reuid "$name" --regid "$name" --init-groups \
        env -i HOME="/home/$name" USER="$name" XDG_RUNTIME_DIR="/run/user/$uid" PATH=/usr/bin:/bin LANG=C.UTF-8 "$@")
}

# A subcommand through a daemon, and never without one: ann asks the machine's, bob his own.
ask() { # name, subcommand, the rest
    local socket=/run/stockade/stockade.sock
    [[ $1 != bob ]] || socket=/run/user/$(id -u bob)/stockade/stockade.sock
    if [[ $1 == root ]]; then (cd /root && stockade "$2" --socket "$socket" "${@:3}"); else as "$1" stockade "$2" --socket "$socket" "${@:3}"; fi
}

# What a command ends with.
status_of() {
    local status=0
    "$@" >/tmp/said 2>&1 || status=$?
    echo "$status"
}

expect_status() {
    local expected=$1 status
    shift
    status=$(status_of "$@")
    [[ $status == "$expected" ]] || { echo "ended with $status, not $expected: $*"; cat /tmp/said; return 1; }
}

# errexit looks past a plain `!`.
absent() { if "$@"; then echo "still there: $*"; return 1; fi; }
said() { grep -qF -- "$1" /tmp/said || { echo "doesn't say: $1"; cat /tmp/said; return 1; }; }
serves() { ask ann run -- true; }

# Every name on disk that a package could leave, but for what dpkg and the journal keep for themselves, and for the
# caches that policies give whoever runs something.
names() {
    {
        find /etc /usr /var /opt /root -xdev \
            \( -path /var/lib/dpkg -o -path /var/log/journal -o -path /var/log/dpkg.log -o -path /var/cache -o -path /root/.cache -o -path /var/lib/systemd/catalog \) -prune \
            -o -print
        find /run -maxdepth 1 -name 'stockade*'
    } | sort
}

people() {
    local name
    for name in "$@"; do
        id "$name" >/dev/null 2>&1 || useradd --create-home "$name"
        install -d -o "$name" -g "$name" "/home/$name/work"
    done
}

drop_in() { # name, lines
    mkdir -p /run/systemd/system/stockade.service.d
    printf '%s\n' "${@:2}" >"/run/systemd/system/stockade.service.d/$1.conf"
    systemctl daemon-reload
}
no_drop_in() {
    rm -rf /run/systemd/system/stockade.service.d
    systemctl daemon-reload
    systemctl reset-failed stockade.service stockade.socket 2>/dev/null || true
}
# What isn't passed or failed, but to be known: told at the end.
note() { echo "note: $*" >>/tmp/notes; }
fresh() { # the service as after a boot: the socket listens, nobody is there, no policy but the shipped ones
    no_drop_in
    rm -f /etc/stockade/policies/*
    systemctl stop stockade.service
    # And the launchers with their runs, which don't stop with it.
    systemctl stop stockade-launcher.socket
    systemctl restart stockade.socket
}

check_package_installs_and_enables_the_socket() {
    people ann bob
    names >/tmp/names-before
    dpkg -i ./*.deb
    usermod -a -G stockade ann
    systemctl is-enabled stockade.socket
    systemctl is-active stockade.socket
    [[ $(systemctl is-active stockade.service) == inactive ]]
    [[ -d /etc/stockade/policies && -x /usr/bin/stockade ]]
    dpkg --verify stockade
}

# The defaults are the operator's to change, and every page and completion is where its reader looks.
check_package_brings_configuration_pages_and_completions() {
    local file
    dpkg-query -W -f '${Conffiles}' stockade >/tmp/said
    said ' /etc/stockade/stockade.toml '
    [[ -d /etc/stockade/stockade.d ]]
    diff /etc/stockade/stockade.toml <(stockade config default)
    stockade config check --system
    for file in man/man1/stockade.1.gz man/man1/stockade-config-check.1.gz man/man5/stockade.toml.5.gz \
        bash-completion/completions/stockade zsh/vendor-completions/_stockade fish/vendor_completions.d/stockade.fish; do
        # A small machine may be told to leave pages out: what the package has is asked.
        dpkg -L stockade | grep -xF "/usr/share/$file"
    done
}

check_units_are_what_systemd_expects() {
    local known said one
    known=$(systemctl --version | awk 'NR == 1 { print $2 }')
    said=$(systemd-analyze verify --man=no stockade.service stockade.socket stockade-launcher.socket stockade-launcher@.service 2>&1 || true)
    said+=$(XDG_RUNTIME_DIR=/run systemd-analyze verify --man=no --user stockade.service stockade.socket stockade-launcher.socket stockade-launcher@.service 2>&1 || true)
    # DelegateSubgroup= came with 254; before it we move ourselves.
    ((known >= 254)) || said=$(grep -v DelegateSubgroup <<<"$said" || true)
    [[ -z $said ]] || { echo "$said"; return 1; }
    for one in /usr/lib/systemd/{system,user}/stockade{,-launcher@}.service; do
        systemd-analyze security --offline=true --no-pager "$one" | tail -n 1 || true
    done >/tmp/exposure
    # The bound that the supervisor's unit is held to, where systemd counts as it does now.
    ((known < 257)) || systemd-analyze security --offline=true --threshold=15 --no-pager /usr/lib/systemd/system/stockade.service >/dev/null
}

check_socket_is_the_groups_and_nobody_elses() {
    [[ $(stat -c '%U %G %a' /run/stockade/stockade.sock) == 'root stockade 660' ]]
    expect_status 125 as bob stockade run --socket /run/stockade/stockade.sock -- true
    said 'Permission denied'
    [[ $(systemctl is-active stockade.service) == inactive ]]
}

check_first_connection_starts_the_daemon() {
    [[ $(systemctl is-active stockade.service) == inactive ]]
    [[ $(ask ann run -- echo activated) == activated ]]
    systemctl is-active stockade.service
    [[ $(unit StatusText) =~ running ]]
}

check_launcher_is_in_no_mount_namespace_of_its_own_and_the_supervisor_is_nobody() {
    local launcher
    serves
    launcher=$(launcher_pid)
    [[ $(readlink "/proc/$launcher/ns/mnt") == "$(readlink /proc/1/ns/mnt)" ]]
    [[ $(stat -c %U "/proc/$launcher") == root ]]
    [[ $(readlink "/proc/$(main_pid)/ns/mnt") != "$(readlink /proc/1/ns/mnt)" ]]
    [[ $(ps -o user= -p "$(main_pid)") == stockade ]]
    grep -E '^Cap(Prm|Eff|Bnd|Amb):.0{16}$' "/proc/$(main_pid)/status" | wc -l | grep -x 4
    # Nobody but it may have launchers started.
    [[ $(stat -c '%U %a' /run/stockade/launcher.sock) == 'stockade 600' ]]
    perl -MSocket -e 'socket(S, AF_UNIX, SOCK_SEQPACKET, 0); exit(connect(S, sockaddr_un($ARGV[0])) ? 0 : 9)' /run/stockade/launcher.sock
    expect_status 9 as ann perl -MSocket -e 'socket(S, AF_UNIX, SOCK_SEQPACKET, 0); exit(connect(S, sockaddr_un($ARGV[0])) ? 0 : 9)' /run/stockade/launcher.sock
}

check_hung_launcher_is_ended_by_its_units_watchdog() {
    fresh
    mkdir -p /run/systemd/system/stockade-launcher@.service.d
    printf '[Service]\nWatchdogSec=3\n' >/run/systemd/system/stockade-launcher@.service.d/watchdog.conf
    systemctl daemon-reload
    serves
    local before
    before=$(launcher_pid)
    sleep 5
    # It lives: longer than its watchdog's time.
    [[ $(launcher_pid) == "$before" ]]
    kill -STOP "$before"
    within 90 absent test -e "/proc/$before"
    within 60 serves
    [[ $(launcher_pid) != "$before" ]]
    rm -r /run/systemd/system/stockade-launcher@.service.d
    systemctl daemon-reload
}

check_every_policy_works_under_the_units_hardening() {
    local policy
    for policy in strict default build loopback moderate minimal; do
        # An older kernel's refusals have a check of their own.
        if [[ -e $folder/older && $policy == m* ]]; then continue; fi
        [[ $(ask ann run --policy "$policy" -- sh -c 'echo is $((40 + 2)); uname -r >/dev/null') == 'is 42' ]]
        [[ $(ask root run --policy "$policy" -- sh -c 'echo is $((40 + 2))') == 'is 42' ]]
    done
    ask ann run --policy default -- sh -c 'echo kept > made'
    [[ $(cat /home/ann/work/made) == kept && $(stat -c %U /home/ann/work/made) == ann ]]
    # With files written, loopback used, a process killed.
    ask ann run --policy build -- sh -c 'sleep 60 & kill $!; wait $! 2>/dev/null; test $? -eq 143'
}

# Only where the kernel is older than the policies ask for.
check_older_kernel_is_refused_what_it_lacks() {
    expect_status 125 ask ann run --policy moderate -- true
    said 'cannot apply Landlock: ABI 4 (this kernel has 2)'
    expect_status 125 ask ann run --policy minimal -- true
    said 'cannot apply Landlock: ABI 6 (this kernel has 2)'
    # Without a daemon, and by a user's own, the same.
    expect_status 125 as ann stockade run --embedded --policy minimal -- true
    said 'ABI 6 (this kernel has 2)'
    expect_status 125 as ann stockade run --embedded --policy moderate -- true
    said 'ABI 4 (this kernel has 2)'
    as ann stockade run --embedded --policy strict -- true
    # What doesn't need it holds without, and says so.
    ask ann run --policy strict -- true
}

check_doctor_finds_every_level() {
    local policies=(strict moderate minimal) name
    [[ ! -e $folder/older ]] || policies=(strict)
    as ann stockade doctor --json >/tmp/ann-doctor || true
    stockade doctor --json >/tmp/root-doctor || true
    for name in "${policies[@]}"; do
        grep -Eq "\"name\":\"$name\",[^}]*\"works\":true|\"$name\"[^}]*(works|yes)" /tmp/root-doctor || { cat /tmp/root-doctor; return 1; }
    done
    expect_status 0 stockade doctor
    expect_status 0 as ann stockade doctor
}

check_memory_max_ends_a_hog_within_its_own_group() {
    local before neighbour
    before=$(main_pid)
    neighbour=$(ask ann run --detach -- sleep 300)
    expect_status 137 ask ann run --memory 48MiB -- tail /dev/zero
    journalctl -k --no-pager | grep -e 'oom_memcg=/system.slice/system-stockade.*launcher.slice/stockade-launcher@.*/run-' >/dev/null
    [[ $(main_pid) == "$before" && $(unit NRestarts) == 0 ]]
    ask ann ps | grep -e "$neighbour" >/dev/null
    ask ann kill "$neighbour"
    ask ann run --json -- true | grep -e '"memory_mechanism":"cgroup"' >/dev/null
}

check_limits_stand_in_the_runs_group() {
    local id one found=''
    id=$(ask ann run --detach --memory 64MiB -- sleep 300)
    # A parked worker's group has the id that it was made under, so its limit tells it.
    for one in "$(group)"/run-*; do
        if [[ $(cat "$one/memory.max") == $((64 << 20)) ]]; then found=$one; fi
    done
    [[ -n $found ]]
    [[ $(cat "$found/memory.oom.group") == 1 && $(cat "$found/memory.high") != max ]]
    [[ ! -e $found/memory.swap.max || $(cat "$found/memory.swap.max") == 0 ]]
    [[ $(cat "$found/pids.max") =~ ^[0-9]+$ && $(cat "$found/cpu.weight.nice") =~ ^[0-9]+$ ]]
    # The kernel shares the disk by weight only if it was built so.
    [[ ! -e $found/io.weight || $(cat "$found/io.weight") == 'default '* ]]
    grep -w io "$(group)/cgroup.subtree_control"
    ask ann kill "$id"
}

# The kernel tells of it, and the run goes on.
check_memory_high_warns_and_the_run_goes_on() {
    # Four fifths of its limit are passed, the limit isn't.
    ask ann run --json --memory 100MiB -- perl -e '$x = "x"; $x x= 1 << 20; push @all, $x . $_ for 1 .. 88; sleep 3; print "went on\n"' >/tmp/said
    grep -e 'went on' /tmp/said >/dev/null
    grep -e 'limit' /tmp/said | grep -e 'memory' | grep -ie 'warning' >/dev/null || { cat /tmp/said; return 1; }
}

check_what_held_a_run_up_is_told_where_the_kernel_measures_it() {
    # Two that spin on one processor keep each other waiting.
    ask ann run --json -- taskset -c 0 sh -c 'end=$(($(date +%s) + 3)); spin() { while [ "$(date +%s)" -lt $end ]; do :; done; }; spin & spin; wait' >/tmp/said
    if [[ -e /proc/pressure/cpu ]]; then
        grep -E '"stalled":\{"cpu_us":[1-9][0-9]*,"memory_us":[0-9]+,"io_us":[0-9]+\}' /tmp/said >/dev/null || { cat /tmp/said; return 1; }
    else
        grep -e '"stalled":null' /tmp/said >/dev/null || { cat /tmp/said; return 1; }
    fi
}

check_host_uids_are_shared_by_a_file_of_roots() {
    [[ $(stat -c '%U %a %s' /run/stockade/uids) == 'root 600 0' ]]
    ask ann run -- sleep 4 &
    local run=$! uid inode
    within 20 pgrep -x sleep
    uid=$(stat -c %u "/proc/$(pgrep -xn sleep)")
    ((uid >= 2000000000 && uid % 2 == 0))
    # A lock at its number: the kernel shows neighbours as one.
    inode=$(stat -c %i /run/stockade/uids)
    awk -v inode="$inode" -v uid="$uid" '$2 == "OFDLCK" && $6 ~ ":" inode "$" && $7 <= uid && uid <= $8 { found = 1 } END { exit !found }' /proc/locks
    wait $run
    # One that others may write to is refused by its name, and mended by its removal. A launcher has it open: a new one looks.
    systemctl stop stockade.service stockade-launcher.socket
    chmod 666 /run/stockade/uids
    systemctl start stockade.service
    expect_status 125 ask ann run -- true
    said '/run/stockade/uids'
    rm /run/stockade/uids
    within 20 ask ann run -- true
}

check_pids_max_stops_a_fork_bomb() {
    local before
    before=$(main_pid)
    printf 'extends = "default"\n[limits]\nprocesses = 40\n' >/etc/stockade/policies/few.toml
    systemctl reload stockade.service
    within 20 ask ann run --policy few -- true
    expect_status 125 ask ann run --policy few --timeout 60s -- sh -c 'b() { b | b & b; }; b'
    said 'ended over its processes: '
    [[ $(main_pid) == "$before" ]]
    within 20 serves
    [[ $(ask ann ps | wc -l) -le 1 ]]
    rm /etc/stockade/policies/few.toml
}

check_ready_comes_after_the_launcher() {
    fresh
    systemctl start stockade.service
    # Whoever waited for the start finds a launcher, and it was there first.
    local launcher born ready
    launcher=$(launcher_pid)
    born=$(cut -d' ' -f22 "/proc/$launcher/stat")
    ready=$(unit ActiveEnterTimestampMonotonic)
    ((born * 1000000 / $(getconf CLK_TCK) <= ready))
}

check_no_ready_without_a_launcher() {
    fresh
    drop_in nowhere '[Service]' ExecStart= 'ExecStart=/usr/bin/stockade serve --system --launcher /run/stockade/nobody.sock' TimeoutStartSec=8 Restart=no
    local status=0
    systemctl start stockade.service || status=$?
    ((status != 0))
    [[ $(unit Result) == timeout ]]
    fresh
    serves
}

has_recorded() {
    stockade audit query --key /etc/credstore/stockade-audit.key --outcome exited --json | grep -F -e "$1" >/dev/null
}

check_requests_are_recorded_with_the_units_credential() {
    fresh
    # Without a key the unit starts all the same, and nothing is recorded.
    systemctl start stockade.service
    ask ann run -- true
    [[ ! -e /var/lib/stockade/audit ]]
    local brought=no
    [[ ! -e /etc/credstore ]] || brought=yes
    mkdir -p -m 0700 /etc/credstore
    (umask 077 && head -c 32 /dev/urandom >/etc/credstore/stockade-audit.key)
    systemctl restart stockade.service
    ask ann run -- sh -c 'exit 3' || [[ $? == 3 ]]
    within 10 told 'requests are recorded'
    within 10 has_recorded '"code":3'
    stockade audit verify --key /etc/credstore/stockade-audit.key
    [[ $(stat -c '%U %a' /var/lib/stockade/audit) == 'stockade 700' ]]
    rm /etc/credstore/stockade-audit.key
    # Where systemd doesn't bring that folder it was ours.
    [[ $brought == yes ]] || rmdir /etc/credstore
    systemctl stop stockade.service
}

check_watchdog_restarts_a_daemon_that_hangs() {
    fresh
    drop_in watchdog '[Service]' WatchdogSec=3
    systemctl start stockade.service
    local before
    before=$(main_pid)
    sleep 5
    # It lives: longer than its watchdog's time.
    [[ $(main_pid) == "$before" ]]
    kill -STOP "$before"
    within 90 restarted "$before"
    journalctl -q --no-pager -u stockade.service | grep -e 'Watchdog timeout' >/dev/null
    serves
}
restarted() { [[ $(main_pid) != "$1" && $(main_pid) != 0 ]]; }

check_killed_daemon_is_started_again() {
    fresh
    systemctl start stockade.service
    local before
    before=$(main_pid)
    kill -KILL "$before"
    within 30 restarted "$before"
    serves
}

check_reload_takes_good_policies_and_keeps_the_old_for_bad_ones() {
    fresh
    systemctl start stockade.service
    local before
    before=$(main_pid)
    printf 'extends = "default"\n' >/etc/stockade/policies/mine.toml
    systemctl reload stockade.service
    within 20 ask ann run --policy mine -- true
    # systemctl says so, and doesn't even ask the daemon.
    printf 'no-such-key = 1\n' >/etc/stockade/policies/bad.toml
    expect_status 1 systemctl reload stockade.service
    expect_status 1 stockade config check --system
    said '/etc/stockade/policies/bad.toml:1:1: unknown key `no-such-key`'
    # Asked all the same, the daemon keeps what it has, all of it.
    printf '[runs]\nslots = 33\n' >/etc/stockade/stockade.d/more.toml
    kill -HUP "$before"
    within 20 told 'nothing is reloaded'
    ask root status --json | absent grep -e '"slots":33' >/dev/null
    ask ann run --policy mine -- true
    rm /etc/stockade/policies/bad.toml
    # A file of the configuration that is bad, or that somebody else could write to.
    printf '[runs]\nslots = many\n' >/etc/stockade/stockade.d/bad.toml
    expect_status 1 systemctl reload stockade.service
    printf '[runs]\nslots = 44\n' >/etc/stockade/stockade.d/bad.toml
    chmod 666 /etc/stockade/stockade.d/bad.toml
    expect_status 1 systemctl reload stockade.service
    chmod 644 /etc/stockade/stockade.d/bad.toml
    mv /etc/stockade/stockade.d/bad.toml /etc/stockade/stockade.d/zz-good.toml
    systemctl reload stockade.service
    within 20 has_slots 44
    [[ $(main_pid) == "$before" && $(systemctl is-active stockade.service) == active ]]
    rm /etc/stockade/policies/*.toml /etc/stockade/stockade.d/*.toml
}
has_slots() { ask root status --json | grep -e "\"slots\":$1[,}]" >/dev/null; }
told() { journalctl -q --no-pager -u stockade.service | grep -F "$1" >/dev/null; }

check_bad_configuration_ends_with_its_status_and_no_loop() {
    fresh
    printf 'no-such-key = 1\n' >/etc/stockade/policies/bad.toml
    local status=0
    systemctl start stockade.service || status=$?
    ((status != 0))
    [[ $(unit ExecMainStatus) == 78 && $(unit NRestarts) == 0 ]]
    sleep 3
    [[ $(unit NRestarts) == 0 ]]
    # Whoever connects starts it again, a few times and no more; then nobody listens, and says so.
    fresh
    printf 'no-such-key = 1\n' >/etc/stockade/policies/bad.toml
    journalctl --sync
    local mark starts
    mark=$(journalctl -q -n 0 --show-cursor | sed -n 's/^-- cursor: //p')
    expect_status 125 as ann timeout 60 stockade run --socket /run/stockade/stockade.sock -- true
    within 60 socket_has_failed
    expect_status 125 ask ann run -- true
    journalctl --sync
    starts=$(journalctl -q --no-pager --after-cursor="$mark" -u stockade.service -o cat | grep -c '^Starting ')
    echo "$starts starts"
    ((starts >= 1 && starts <= 5))
    rm /etc/stockade/policies/bad.toml
    fresh
    serves
}

socket_has_failed() { [[ $(systemctl is-active stockade.socket) == failed ]]; }

check_second_daemon_is_refused_with_its_status() {
    serves
    # The service's state is the user stockade's, and root's daemon leaves it alone; with its own it finds the socket served.
    expect_status 77 stockade serve
    said '/var/lib/stockade'
    expect_status 69 stockade serve --state-directory /run/stockade-second
    rm -r /run/stockade-second
    serves
}

check_socket_of_another_type_is_refused_with_its_status() {
    systemd-socket-activate --seqpacket --fdname=clients -l /run/stockade-wrong.sock stockade serve --state-directory /run/stockade-wrong >/tmp/wrong 2>&1 &
    local activating=$!
    within 20 test -S /run/stockade-wrong.sock
    # Any connection starts it.
    perl -MSocket -e 'socket(S, AF_UNIX, SOCK_SEQPACKET, 0); connect(S, sockaddr_un("/run/stockade-wrong.sock")) or die $!'
    local status=0
    wait "$activating" || status=$?
    rm -rf /run/stockade-wrong*
    [[ $status == 78 ]] || { echo "ended with $status"; cat /tmp/wrong; return 1; }
    grep -q "isn't a Unix stream socket" /tmp/wrong
}

check_stop_keeps_runs_and_without_launchers_leaves_nothing() {
    local id unit groups
    serves
    id=$(ask ann run --detach -- sleep 300)
    systemctl stop stockade.service
    [[ $(systemctl is-active stockade.service) == inactive ]]
    [[ ! -e /sys/fs/cgroup/system.slice/stockade.service ]]
    ask ann ps | grep -e "$id" >/dev/null
    unit=$(launcher_unit) groups=$(group)
    systemctl stop stockade-launcher.socket
    [[ $(systemctl is-active stockade.service) == inactive && $(systemctl is-active "$unit") != active ]]
    within 20 absent test -e "$groups"
    absent pgrep -f stockade-launcher
    # The socket listens on; who connects starts another.
    [[ -S /run/stockade/stockade.sock ]]
    serves
}

check_users_unit_works_without_root() {
    local policy
    # The machine has no module of PAM for it, which a login would have.
    mkdir -p /run/systemd/system/user@.service.d
    printf '[Service]\nPAMName=\nEnvironment=XDG_RUNTIME_DIR=/run/user/%%i\n' >/run/systemd/system/user@.service.d/plain.conf
    systemctl daemon-reload
    systemctl start "user@$(id -u bob).service" || { journalctl -q --no-pager -u "user@$(id -u bob)" -u "user-runtime-dir@$(id -u bob)" | tail; return 1; }
    within 30 test -S "/run/user/$(id -u bob)/systemd/private"
    as bob systemctl --user enable --now stockade.socket
    [[ $(ask bob run -- echo mine) == mine ]]
    as bob systemctl --user is-active stockade.service
    [[ $(ask bob run -- id -u) == "$(id -u bob)" ]]
    for policy in strict build loopback moderate minimal; do
        # An older kernel's refusals have a check of their own.
        if [[ -e $folder/older && $policy == m* ]]; then continue; fi
        [[ $(ask bob run --policy "$policy" -- sh -c 'echo is $((40 + 2))') == 'is 42' ]]
    done
    # Its own daemon, not the system's: that one wouldn't have him.
    ask bob status --json | grep -e "\"pid\":$(as bob systemctl --user show -p MainPID --value stockade.service)" >/dev/null
    ask bob run --json -- true | grep -e '"memory_mechanism":"cgroup"' >/dev/null
    expect_status 137 ask bob run --memory 48MiB -- tail /dev/zero
    as bob systemctl --user disable --now stockade.socket stockade.service
    as bob systemctl --user stop stockade-launcher.socket
    [[ ! -e /run/user/$(id -u bob)/stockade/stockade.sock ]]
    systemctl stop "user@$(id -u bob).service"
}

check_journal_has_the_daemons_lines_and_their_fields() {
    local id entry field
    id=$(ask ann run --detach --policy strict -- sh -c 'exit 7')
    journalctl --sync
    told 'serving'
    told 'accepted'
    within 20 has_its_end_in_the_journal "$id" || { journalctl -q --no-pager -o verbose -u stockade.service -n 3; return 1; }
    entry=$(journalctl -q -o export --no-pager "STOCKADE_EXEC_ID=$id" | tr -d '\0')
    for field in "STOCKADE_OWNER=$(id -u ann)" STOCKADE_POLICY=strict 'STOCKADE_COMMAND=sh -c exit 7' STOCKADE_OUTCOME=exited \
        PRIORITY=6 SYSLOG_IDENTIFIER=stockade _SYSTEMD_UNIT=stockade.service; do
        grep -qxF -- "$field" <<<"$entry" || { echo "no $field:"; echo "$entry"; return 1; }
    done
    # By one field all that is about one run is found, and nothing else.
    [[ $(journalctl -q -o cat --no-pager "STOCKADE_EXEC_ID=$id" | sort | uniq -d) == '' ]]
}
has_its_end_in_the_journal() { journalctl --sync; [[ -n $(journalctl -q -o cat --no-pager "STOCKADE_EXEC_ID=$1" STOCKADE_OUTCOME=exited) ]]; }

# A run of a minute that says a number each second.
minute() { ask ann run --detach --policy build -- sh -c 'for i in $(seq 60); do echo "line $i"; sleep 1; done; echo over'; }
# Whether a run that its supervisor was taken from is still known.
is_known() { ask ann ps | grep -e "$1" >/dev/null; }
has_ended() { ask ann attach "$1" >/tmp/said 2>&1 </dev/null; }
survives() { # id, what was done
    if within 15 is_known "$1"; then
        within 150 has_ended "$1"
        diff <(for i in $(seq 60); do echo "line $i"; done; echo over) /tmp/said
        note "a run of a minute: kept with all its output after $2"
    else
        echo "the run isn't known any more"
        return 1
    fi
}

check_killed_daemon_and_a_run_of_a_minute() {
    fresh
    serves
    local id before
    id=$(minute)
    sleep 3
    before=$(main_pid)
    kill -KILL "$before"
    within 30 restarted "$before"
    within 30 serves
    survives "$id" 'kill -9 of the supervisor'
}

door() { find /var/lib/stockade -name 'launcher-*.sock'; }
check_killed_daemon_finds_its_launcher_by_what_systemd_holds() {
    fresh
    serves
    [[ $(unit NFileDescriptorStore) == 1 ]]
    local id before
    id=$(minute)
    before=$(main_pid)
    # Its name is gone: only what is held leads there.
    [[ -S $(door) ]]
    rm "$(door)"
    kill -9 "$before"
    within 20 restarted "$before"
    within 20 is_known "$id"
    ask ann kill "$id"
    within 20 has_ended_otherwise "$id"
    [[ $(unit NFileDescriptorStore) == 1 ]]
}
has_ended_otherwise() { ! ask ann attach "$1" >/tmp/said 2>&1 </dev/null && grep -e cancel -e signal -e kill /tmp/said >/dev/null; }

check_package_upgrade_and_a_run_of_a_minute() {
    fresh
    serves
    local id before
    id=$(minute)
    sleep 3
    before=$(main_pid)
    dpkg -i ./*.deb
    within 30 restarted "$before"
    within 30 serves
    survives "$id" 'an upgrade of the package'
}

check_upgrade_replaces_the_daemon_and_keeps_socket_and_policies() {
    fresh
    serves
    local before socket
    before=$(main_pid) socket=$(stat -c %i /run/stockade/stockade.sock)
    printf 'extends = "default"\n' >/etc/stockade/policies/mine.toml
    printf '[runs]\nslots = 77\n' >>/etc/stockade/stockade.toml
    dpkg -i ./*.deb
    within 30 restarted "$before"
    [[ $(stat -c %i /run/stockade/stockade.sock) == "$socket" ]]
    ask ann run --policy mine -- true
    ask root status --json | grep -e '"slots":77' >/dev/null
    stockade config default >/etc/stockade/stockade.toml
    rm /etc/stockade/policies/mine.toml
}

check_socket_that_was_switched_off_stays_off_after_an_upgrade() {
    systemctl disable --now stockade.socket stockade.service
    dpkg -i ./*.deb
    [[ $(systemctl is-enabled stockade.socket) == disabled ]]
    systemctl enable --now stockade.socket
    serves
}

check_remove_keeps_policies_and_purge_leaves_nothing() {
    printf 'extends = "default"\n' >/etc/stockade/policies/mine.toml
    serves
    dpkg -r stockade
    [[ -e /etc/stockade/policies/mine.toml ]]
    [[ ! -e /usr/bin/stockade && ! -S /run/stockade/stockade.sock ]]
    [[ $(systemctl is-active stockade.service) == inactive ]]
    absent pgrep -x stockade
    dpkg -P stockade
    names >/tmp/names-after
    diff /tmp/names-before /tmp/names-after
    absent getent group stockade
}

check_install_script_installs_and_removes() {
    names >/tmp/names-before
    mkdir /tmp/unpacked
    tar -xf ./*.tar.gz -C /tmp/unpacked
    local script
    script=$(echo /tmp/unpacked/*/install.sh)
    sh "$script" --dry-run >/tmp/said
    said 'would: '
    names | diff /tmp/names-before -
    sh "$script"
    systemctl enable --now stockade.socket
    usermod -a -G stockade ann
    [[ $(as ann /usr/local/bin/stockade run --socket /run/stockade/stockade.sock -- echo unpacked) == unpacked ]]
    [[ $(readlink "/proc/$(main_pid)/exe") == /usr/local/bin/stockade ]]
    [[ -s /usr/local/share/man/man5/stockade.toml.5 && -s /usr/local/share/man/man1/stockade-run.1 ]]
    diff /etc/stockade/stockade.toml <(/usr/local/bin/stockade config default)
    # What an operator has written there stays, at an upgrade and at the end.
    printf '[runs]\nslots = 77\n' >>/etc/stockade/stockade.toml
    sh "$script" >/tmp/said
    said 'kept: /etc/stockade/stockade.toml'
    sh "$script" --uninstall
    absent pgrep -x stockade
    grep -q 'slots = 77' /etc/stockade/stockade.toml
    rm -rf /etc/stockade /var/lib/stockade /var/log/stockade /run/stockade
    gpasswd -d ann stockade
    userdel stockade
    if getent group stockade; then groupdel stockade; fi
    names | grep -v '/usr/local/' >/tmp/names-after
    diff <(grep -v '/usr/local/' /tmp/names-before) /tmp/names-after
    [[ -z $(find /usr/local /etc/systemd -name '*stockade*') ]]
    # A user's own, without root. What his own runs and daemon leave is his.
    find /home/bob -not -path '*/.cache*' -not -path '*/.local/state*' | sort >/tmp/names-before
    as bob sh "$script" --user
    [[ $(as bob /home/bob/.local/bin/stockade run --embedded -- echo mine) == mine ]]
    [[ -s /home/bob/.config/stockade/stockade.toml ]]
    as bob sh "$script" --uninstall --user
    find /home/bob -not -path '*/.cache*' -not -path '*/.local/state*' -not -type d | sort >/tmp/names-after
    diff <(grep -Fxf /tmp/names-after /tmp/names-before) /tmp/names-after
}

# Each alone, in a shell that stops at the first failure.
passed=0 failed=0
if (($# == 0)); then
    mapfile -t checks < <(sed -n 's/^\(check_[a-z_]*\)() {$/\1/p' "$0")
    [[ -e $folder/older ]] || mapfile -t checks < <(printf '%s\n' "${checks[@]}" | grep -v '^check_older_')
else
    checks=("$@")
fi
for check in "${checks[@]}"; do
    began=$SECONDS
    (
        set -e
        trap 'echo "line $LINENO: $BASH_COMMAND" >&2' ERR
        set -E
        "$check"
    ) >/tmp/check-output 2>&1 </dev/null
    status=$?
    if ((status == 0)); then
        passed=$((passed + 1))
        echo "ok ${check#check_} ($((SECONDS - began)) s)"
    else
        failed=$((failed + 1))
        echo "FAILED ${check#check_}"
        sed 's/^/    /' /tmp/check-output | tail -n 30
    fi
done
cat /tmp/exposure /tmp/notes 2>/dev/null
echo "checks: $passed passed, $failed failed; kernel $(uname -r), systemd $(systemctl --version | awk 'NR == 1 { print $2 }')"
((failed == 0))
