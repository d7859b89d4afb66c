//! Files outside what the policy names.

use super::{Attack, Filter, GONE, Landlock, Namespaces, READ_ONLY, ROOTED, Twin, attack};

const BOTH: &[super::Layer] = &[Namespaces, Landlock];
const MINIMAL_LOOKS: &str = "Landlock has no say in names, sizes and times: `minimal` shows them";
const MINIMAL_CHANGES: &str = "Landlock has no say in modes, times and attributes: at `minimal` those of the user's own files can be changed";
const MINIMAL_PROC: &str = "`minimal` reads the host's /proc, as far as its user may";
const CROSSING: &[&str] = &["errno=2", "errno=13", "errno=1", "errno=18", "errno=30"];
const CLOSED: &[&str] = &["errno=1", "errno=2", "errno=13", "errno=30", "errno=6", "errno=3", "errno=5"];

const fn away(name: &'static str, words: &'static str) -> Attack {
    attack(name, words, GONE).by(BOTH)
}

const fn change(name: &'static str, words: &'static str) -> Attack {
    attack(name, words, READ_ONLY).by(BOTH)
}

/// What only root may open outside.
const fn roots(name: &'static str, words: &'static str) -> Attack {
    attack(name, words, CLOSED).by(BOTH).twin(Twin::Root)
}

pub(super) const ATTACKS: &[Attack] = &[
    away("read-outside", "read {secret}"),
    away("list-outside", "list {outside}"),
    away("read-by-own-root", "read /proc/self/root{secret}"),
    away("read-by-own-working-directory", "read /proc/self/cwd/../outside/secret.txt"),
    away("read-by-thread", "read /proc/thread-self/root{secret}"),
    away("read-by-link", "read-by-link {secret}"),
    away("read-by-link-through-proc", "read-by-link /proc/self/root{secret}"),
    roots("read-by-first-process", "read /proc/1/root{secret}"),
    roots("read-by-first-process-working-directory", "read /proc/1/cwd{secret}"),
    away("climb-out-of-working-directory", "climb {secret}"),
    away("read-home", "read {home}/secret.txt"),
    change("create-outside", "create {outside}/new1"),
    change("append-outside", "append {outside}/u0"),
    change("unlink-outside", "unlink {outside}/u1"),
    attack("rename-out-of", "rename {outside}/u2 {work}/moved", CROSSING).by(BOTH),
    attack("rename-into", "rename {work}/mine2 {outside}/new2", CROSSING).by(BOTH),
    attack("exchange-across", "rename-exchange {work}/mine3 {outside}/u11", CROSSING).by(BOTH),
    attack("link-from-outside", "link {secret} {work}/hard", CROSSING).by(BOTH),
    attack("link-to-outside", "link {work}/mine {outside}/new6", CROSSING).by(BOTH),
    change("truncate-outside", "truncate {outside}/u3"),
    change("open-and-truncate-outside", "open-truncate {outside}/u4"),
    change("reopen-a-path-descriptor", "open-path-reopen {outside}/u5"),
    change("mkdir-outside", "mkdir {outside}/new3"),
    change("rmdir-outside", "rmdir {outside}/empty"),
    change("symlink-outside", "symlink x {outside}/new4"),
    change("fifo-outside", "make-fifo {outside}/new5"),
    change("socket-outside", "bind-unix {outside}/new7.sock"),
    change("chmod-outside", "chmod {outside}/u6 600").by(&[Namespaces]).only(ROOTED, MINIMAL_CHANGES),
    change("touch-outside", "touch {outside}/u7").by(&[Namespaces]).only(ROOTED, MINIMAL_CHANGES),
    change("attribute-outside", "set-attribute {outside}/u8 user.probe")
        .by(&[Namespaces])
        .only(ROOTED, MINIMAL_CHANGES),
    change("owner-outside", "chown {outside}/u9 0 0")
        .by(&[Namespaces])
        .twin(Twin::Root)
        .only(ROOTED, "at `minimal` root is root, without capabilities, and owns its files"),
    away("stat-outside", "stat {secret}").by(&[Namespaces]).only(ROOTED, MINIMAL_LOOKS),
    away("watch-outside", "watch {outside}/u10").by(&[Namespaces]).only(ROOTED, MINIMAL_LOOKS),
    away("stand-outside", "change-directory {outside}").by(&[Namespaces]).only(ROOTED, MINIMAL_LOOKS),
    away("lock-outside", "lock {outside}/u12"),
    away("execute-outside", "execute {outside}/tool"),
    roots("read-home-of-root", "read /root/.profile"),
    roots("write-usr", "create /usr/{id}"),
    roots("write-etc", "create /etc/{id}"),
    roots("write-root", "create /{id}"),
    roots("core-pattern", "write-nothing /proc/sys/kernel/core_pattern"),
    roots("module-loader", "write-nothing /proc/sys/kernel/modprobe"),
    roots("hotplug-program", "write-nothing /sys/kernel/uevent_helper"),
    roots("format-handlers", "write-nothing /proc/sys/fs/binfmt_misc/register"),
    roots("kernel-log-device", "read /dev/kmsg"),
    roots("kernel-memory-device", "read /dev/mem"),
    roots("kernel-port-device", "read /dev/port"),
    roots("kernel-core-file", "read /proc/kcore"),
    away("kernel-keys", "read /proc/keys").by(&[Namespaces]).only(ROOTED, MINIMAL_PROC),
    roots("kernel-timers", "read /proc/timer_list").by(&[Namespaces]).only(ROOTED, MINIMAL_PROC),
    roots("system-request-trigger", "write-nothing /proc/sysrq-trigger"),
    roots("first-process-image", "write-own-image /proc/1/exe"),
    roots("first-process-memory", "write-nothing /proc/1/mem"),
    roots("first-process-environment", "read /proc/1/environ"),
    roots("first-process-descriptors", "list /proc/1/fd").by(&[Namespaces]).only(ROOTED, MINIMAL_PROC),
    roots("first-process-mappings", "list /proc/1/map_files"),
    change("adjust-who-is-killed-first", "write-nothing /proc/self/oom_score_adj").by(&[Landlock]),
    away("control-groups", "list /sys/fs/cgroup"),
    roots("devices-of-the-host", "list /dev/input"),
    roots("disk", "read {disk}"),
    away("debug-of-the-kernel", "list /sys/kernel/debug"),
    away("firmware-variables", "list /sys/firmware"),
    roots("password-hashes", "read /etc/shadow")
        .by(&[Namespaces])
        .only(ROOTED, "at `minimal` root is root, without capabilities, and owns this file"),
    attack("openat2-past-landlock", "openat2 {secret}", &["errno=38"]).by(&[Filter]),
];
