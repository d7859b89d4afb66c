//! The attacks: what is tried, which layer stops it, what the answer inside must be, who can do it outside.

/// How a probe is carried.
#[derive(Debug, Clone, Copy)]
pub(crate) enum How {
    /// Words for our own probe.
    Probe(&'static str),
    /// Perl; `a(…)` prints a system call's result.
    Perl(&'static str),
    /// Python; prints its result itself, `ok` or `errno=E`.
    Python(&'static str),
    /// A line of bash: `ok` when it succeeds.
    Shell(&'static str),
}

/// Who can do the same without the sandbox: the twin of the pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outside {
    /// The client's own user.
    Caller,
    /// Root: an unprivileged user is refused by the kernel itself, whatever the sandbox does.
    Root,
}

/// One attack.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attack {
    /// Its name.
    pub(crate) name: &'static str,
    /// The layer that stops it.
    pub(crate) layer: &'static str,
    /// What is tried.
    pub(crate) how: How,
    /// Answers that mean it was stopped.
    pub(crate) inside: &'static [&'static str],
    /// Who can do it outside: there the answer must be none of `inside`.
    pub(crate) outside: Outside,
    /// The policies that promise to stop it.
    pub(crate) policies: &'static [&'static str],
}

pub(crate) const ALL: &[&str] = &["strict", "default", "moderate", "minimal"];
/// Those with a root of their own.
pub(crate) const ROOTED: &[&str] = &["strict", "default", "moderate"];
/// Those that let the workspace be written.
pub(crate) const WRITABLE: &[&str] = &["default", "moderate", "minimal"];
/// Those without a network namespace.
const FLAT: &[&str] = &["moderate", "minimal"];

const NO: &[&str] = &["errno=1", "errno=38"];
const GONE: &[&str] = &["errno=2", "errno=13", "errno=1"];
const NOBODY: &[&str] = &["errno=3", "errno=1"];
const UNREACHABLE: &[&str] = &["errno=101", "errno=111", "errno=1", "errno=13", "errno=97", "errno=113"];
const FAMILY: &[&str] = &["errno=1", "errno=97", "errno=13", "errno=38", "errno=93", "errno=22"];
const FAILED: &[&str] = &["failed"];
const READ_ONLY: &[&str] = &["errno=30", "errno=13", "errno=1", "errno=2"];

const fn call(name: &'static str, code: &'static str, outside: Outside) -> Attack {
    Attack { name, layer: "seccomp", how: How::Perl(code), inside: NO, outside, policies: ALL }
}

const fn probe(
    name: &'static str,
    layer: &'static str,
    words: &'static str,
    inside: &'static [&'static str],
    outside: Outside,
    policies: &'static [&'static str],
) -> Attack {
    Attack { name, layer, how: How::Probe(words), inside, outside, policies }
}

use Outside::{Caller, Root};

const INT_80: &str = "import ctypes, mmap
m = mmap.mmap(-1, 4096, prot=7)
m.write(bytes([0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0xc3]))
r = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))()
print('ok' if r > 0 else 'errno=%d' % -r)";

/// In a session of its own with a terminal of its own, so that only the filter can refuse.
const TERMINAL: &str = "import os, pty, fcntl, termios, ctypes
p = os.fork()
if p:
    os.waitpid(p, 0); os._exit(0)
os.setsid()
m, s = os.openpty()
fcntl.ioctl(s, termios.TIOCSCTTY, 0)
l = ctypes.CDLL(None, use_errno=True)
r = l.syscall(16, s, ctypes.c_ulong(NUMBER), ctypes.c_char_p(b'x'))
os.write(1, b'ok\\n' if r >= 0 else b'errno=%d\\n' % ctypes.get_errno())
os._exit(0)";

/// System calls by number (x86-64), and what a filter is easily fooled by.
pub(crate) const SYSTEM_CALLS: &[Attack] = &[
    call("x32-number", "a(syscall(0x40000000|39))", Caller),
    Attack {
        name: "int-80",
        layer: "seccomp",
        how: How::Python(INT_80),
        inside: &["killed", "errno=1", "errno=38"],
        outside: Caller,
        policies: ALL,
    },
    call("io-uring-setup", "my $b = \"\\0\" x 120; a(syscall(425, 1, $b))", Caller),
    call("io-uring-register", "a(syscall(427, -1, 0, 0, 0))", Caller),
    call(
        "clone3-with-a-user-namespace",
        "my $b = pack('Q11', 0x10000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0); \
         my $r = syscall(435, $b, 88); POSIX::_exit(0) if $r == 0; a($r)",
        Caller,
    ),
    call(
        "clone-with-a-user-namespace",
        "my $r = syscall(56, 0x10000000|17, 0, 0, 0, 0); POSIX::_exit(0) if $r == 0; a($r)",
        Caller,
    ),
    Attack {
        name: "terminal-input-by-ioctl",
        layer: "seccomp",
        how: How::Python(TERMINAL_STI),
        inside: NO,
        outside: Root,
        policies: &["default", "loopback"],
    },
    Attack {
        name: "terminal-input-by-ioctl-with-high-bits",
        layer: "seccomp",
        how: How::Python(TERMINAL_STI_HIGH),
        inside: NO,
        outside: Root,
        policies: &["default", "loopback"],
    },
    Attack {
        name: "console-selection-by-ioctl",
        layer: "seccomp",
        how: How::Python(TERMINAL_LINUX),
        inside: NO,
        outside: Caller,
        policies: &["default", "loopback"],
    },
    call("trace-me", "a(syscall(101, 0, 0, 0, 0))", Caller),
    call("disable-address-randomisation", "a(syscall(135, 0x0040000))", Caller),
    call("bpf", "my $b = \"\\0\" x 128; a(syscall(321, 0, $b, 128))", Root),
    call(
        "perf-event-open",
        "my $b = pack('LLQ14', 1, 112, (0) x 14); a(syscall(298, $b, 0, -1, -1, 0))",
        Root,
    ),
    call("userfaultfd", "a(syscall(323, 0))", Root),
    call("keyctl", "a(syscall(250, 0, -3, 0))", Caller),
    call(
        "add-key",
        "my ($t, $n, $v) = ('user', 'stockade-probe', 'x'); a(syscall(248, $t, $n, $v, 1, -2))",
        Caller,
    ),
    call("request-key", "my ($t, $n) = ('user', 'stockade-none'); a(syscall(249, $t, $n, 0, 0))", Caller),
    call("kexec-load", "a(syscall(246, 0, 1000, 0, 0))", Root),
    call("init-module", "my $e = ''; a(syscall(175, $e, 0, $e))", Root),
    call("finit-module", "my $e = ''; a(syscall(313, -1, $e, 0))", Root),
    call("delete-module", "my $n = 'stockade-none'; a(syscall(176, $n, 2048))", Root),
    call("modify-ldt", "my $b = \"\\0\" x 16; a(syscall(154, 0, $b, 16))", Caller),
    call("quotactl", "a(syscall(179, 0x80000100, 0, 0, 0))", Root),
    call("swapon", "my $n = '/stockade-none'; a(syscall(167, $n, 0))", Root),
    call("swapoff", "my $n = '/stockade-none'; a(syscall(168, $n))", Root),
    call("settimeofday", "a(syscall(164, 0, 0))", Root),
    call("clock-settime", "a(syscall(227, 0, 0))", Root),
    call(
        "clock-adjtime",
        "my $b = \"\\0\" x 256; substr($b, 0, 4) = pack('L', 0x4000); a(syscall(305, 9, $b))",
        Root,
    ),
    call("sethostname", "my $n = 'x'; a(syscall(170, $n, -1))", Root),
    call("setdomainname", "my $n = 'x'; a(syscall(171, $n, -1))", Root),
    call("reboot", "a(syscall(169, 0, 0, 0, 0))", Root),
    call("fanotify-init", "a(syscall(300, 0, 0))", Root),
    call("open-by-handle-at", "my $b = \"\\0\" x 8; a(syscall(304, -100, $b, 0))", Root),
    call(
        "name-to-handle-at",
        "my ($n, $b, $m) = ('.', pack('Ll', 128, 0) . \"\\0\" x 128, \"\\0\" x 8); a(syscall(303, -100, $n, $b, $m, 0))",
        Caller,
    ),
    call("kcmp", "a(syscall(312, $$, $$, 0, 1, 1))", Caller),
    call("iopl", "a(syscall(172, 0))", Root),
    call("ioperm", "a(syscall(173, 0x80, 1, 0))", Root),
    call("acct", "my $n = '/stockade-none'; a(syscall(163, $n))", Root),
    call("kernel-log", "a(syscall(103, 10, 0, 0))", Root),
    call("pidfd-getfd", "a(syscall(438, -1, 0, 0))", Caller),
    call("process-vm-readv", "my $b = \"\\0\" x 16; a(syscall(310, $$, 0, 0, 0, 0, 0))", Caller),
    call("process-vm-writev", "a(syscall(311, $$, 0, 0, 0, 0, 0))", Caller),
    call("unshare-mounts", "a(syscall(272, 0x00020000))", Root),
    call("unshare-network", "a(syscall(272, 0x40000000))", Root),
    call("unshare-user", "a(syscall(272, 0x10000000))", Caller),
    call("unshare-time", "a(syscall(272, 0x00000080))", Root),
    call("setns", "open F, '<', '/proc/self/ns/net'; a(syscall(308, fileno F, 0))", Root),
    call(
        "mount",
        "my ($n, $p, $t) = ('none', '/stockade-none', 'tmpfs'); a(syscall(165, $n, $p, $t, 0, 0))",
        Root,
    ),
    call("umount", "my $n = '/stockade-none'; a(syscall(166, $n, 2))", Root),
    call("fsopen", "my $n = 'tmpfs'; a(syscall(430, $n, 0))", Root),
    call("open-tree", "my $n = '.'; a(syscall(428, -100, $n, 1))", Root),
    call("move-mount", "my $n = ''; a(syscall(429, -1, $n, -1, $n, 4))", Root),
    call("mount-setattr", "my ($n, $b) = ('.', \"\\0\" x 32); a(syscall(442, -100, $n, 0, $b, 32))", Root),
    call("pivot-root", "my $n = '.'; a(syscall(155, $n, $n))", Root),
    call("chroot", "my $n = '.'; a(syscall(161, $n))", Root),
    call("secret-memory", "a(syscall(447, 0))", Caller),
];

const TERMINAL_STI: &str = "NUMBER = 0x5412\n";
const TERMINAL_STI_HIGH: &str = "NUMBER = 0x100005412\n";
const TERMINAL_LINUX: &str = "NUMBER = 0x541C\n";

/// The python that runs after one of the numbers above.
pub(crate) const AFTER_NUMBER: &str = TERMINAL;

/// Bits that give privilege to whoever executes a file later.
pub(crate) const PRIVILEGE_BITS: &[Attack] = &[
    bits("open", "open F, '>', 'x'; my $n = 'b1'; a(syscall(2, $n, 0x41, 04755))"),
    bits("openat", "my $n = 'b2'; a(syscall(257, -100, $n, 0x41, 02755))"),
    bits("open-temporary", "my $n = '.'; a(syscall(257, -100, $n, 020200001, 04755))"),
    bits("creat", "my $n = 'b3'; a(syscall(85, $n, 04755))"),
    bits("mkdir", "my $n = 'b4'; a(syscall(83, $n, 02755))"),
    bits("mkdirat", "my $n = 'b5'; a(syscall(258, -100, $n, 02755))"),
    bits("mknod", "my $n = 'b6'; a(syscall(133, $n, 0104755, 0))"),
    bits("mknodat", "my $n = 'b7'; a(syscall(259, -100, $n, 0104755, 0))"),
    bits("chmod", "open F, '>', 'c1'; my $n = 'c1'; a(syscall(90, $n, 04755))"),
    bits("fchmod", "open F, '>', 'c2'; a(syscall(91, fileno F, 04755))"),
    bits("fchmodat", "open F, '>', 'c3'; my $n = 'c3'; a(syscall(268, -100, $n, 02755))"),
    bits("fchmodat2", "open F, '>', 'c4'; my $n = 'c4'; a(syscall(452, -100, $n, 06755, 0))"),
    Attack {
        policies: WRITABLE,
        ..call("device-node", "my $n = 'd1'; a(syscall(133, $n, 020666, 0x103))", Root)
    },
    Attack {
        policies: WRITABLE,
        ..call("block-device-node", "my $n = 'd2'; a(syscall(259, -100, $n, 060666, 0x0700))", Root)
    },
];

const fn bits(name: &'static str, code: &'static str) -> Attack {
    Attack { policies: WRITABLE, ..call(name, code, Caller) }
}

/// Files outside what the policy names.
pub(crate) const FILESYSTEM: &[Attack] = &[
    probe("read-outside", "root", "read {secret}", GONE, Caller, ALL),
    probe("list-outside", "root", "list {outside}", GONE, Caller, ALL),
    probe("read-by-own-root", "root", "read /proc/self/root{secret}", GONE, Caller, ALL),
    probe("read-by-first-process", "root", "read /proc/1/root{secret}", GONE, Root, ALL),
    probe("climb-out-of-working-directory", "root", "climb {secret}", GONE, Caller, ALL),
    probe("read-home", "root", "read {home}/secret.txt", GONE, Caller, ALL),
    probe("create-outside", "root", "create {outside}/new1", READ_ONLY, Caller, ALL),
    probe("append-outside", "root", "append {outside}/u0", READ_ONLY, Caller, ALL),
    probe("unlink-outside", "root", "unlink {outside}/u1", READ_ONLY, Caller, ALL),
    probe("rename-out-of", "root", "rename {outside}/u2 {work}/moved", READ_ONLY, Caller, ALL),
    probe(
        "rename-into",
        "root",
        "rename {work}/mine {outside}/new2",
        &["errno=2", "errno=13", "errno=1", "errno=18", "errno=30"],
        Caller,
        ALL,
    ),
    probe(
        "link-from-outside",
        "root",
        "link {secret} {work}/hard",
        &["errno=2", "errno=13", "errno=1", "errno=18", "errno=30"],
        Caller,
        ALL,
    ),
    probe("truncate-outside", "root", "truncate {outside}/u3", READ_ONLY, Caller, ALL),
    probe("open-and-truncate-outside", "root", "open-truncate {outside}/u4", READ_ONLY, Caller, ALL),
    probe("reopen-a-path-descriptor", "root", "open-path-reopen {outside}/u5", READ_ONLY, Caller, ALL),
    probe("mkdir-outside", "root", "mkdir {outside}/new3", READ_ONLY, Caller, ALL),
    probe("symlink-outside", "root", "symlink x {outside}/new4", READ_ONLY, Caller, ALL),
    probe("fifo-outside", "root", "make-fifo {outside}/new5", READ_ONLY, Caller, ALL),
    probe("chmod-outside", "root", "chmod {outside}/u6 600", READ_ONLY, Caller, ROOTED),
    probe("touch-outside", "root", "touch {outside}/u7", READ_ONLY, Caller, ROOTED),
    probe("attribute-outside", "root", "set-attribute {outside}/u8 user.probe", READ_ONLY, Caller, ROOTED),
    probe("owner-outside", "root", "chown {outside}/u9 0 0", READ_ONLY, Root, ROOTED),
    probe("stat-outside", "root", "stat {secret}", GONE, Caller, ROOTED),
    probe("watch-outside", "root", "watch {outside}/u10", GONE, Caller, ROOTED),
    probe("execute-outside", "root", "execute {outside}/tool", GONE, Caller, ALL),
    Attack {
        name: "symlink-that-leads-outside",
        layer: "root",
        how: How::Shell("rm -f leads; ln -s {secret} leads 2>/dev/null; cat leads || cat {secret}"),
        inside: FAILED,
        outside: Caller,
        policies: ALL,
    },
    probe("openat2", "seccomp", "openat2 /etc/hostname", &["errno=38"], Caller, ALL),
    Attack {
        name: "write-the-system",
        layer: "root",
        how: How::Shell("mkdir /usr/{id} && rmdir /usr/{id}"),
        inside: FAILED,
        outside: Root,
        policies: ALL,
    },
    Attack {
        name: "write-etc",
        layer: "root",
        how: How::Shell("mkdir /etc/{id} && rmdir /etc/{id}"),
        inside: FAILED,
        outside: Root,
        policies: ALL,
    },
    opens("core-pattern", "a(open(F, '>>', '/proc/sys/kernel/core_pattern') ? 0 : -1)"),
    opens("kernel-log-device", "a(open(F, '<', '/dev/kmsg') ? 0 : -1)"),
    opens("kernel-memory-device", "a(open(F, '<', '/dev/mem') ? 0 : -1)"),
    opens("kernel-core-file", "a(open(F, '<', '/proc/kcore') ? 0 : -1)"),
    opens("system-request-trigger", "a(open(F, '>>', '/proc/sysrq-trigger') ? 0 : -1)"),
    opens("first-process-image", "a(open(F, '+<', '/proc/1/exe') ? 0 : -1)"),
    opens("first-process-memory", "a(open(F, '+<', '/proc/1/mem') ? 0 : -1)"),
    opens("first-process-environment", "a(open(F, '<', '/proc/1/environ') ? 0 : -1)"),
    opens("control-groups", "a(opendir(F, '/sys/fs/cgroup') ? 0 : -1)"),
    opens(
        "disk",
        "a(open(F, '<', glob('/dev/[vsx]d[a-z] /dev/nvme0n1 /dev/mmcblk0') // '/dev/vda') ? 0 : -1)",
    ),
    // At minimal a root caller stays root without capabilities, and root owns this file: a gap of that level.
    Attack { policies: ROOTED, ..opens("password-hashes", "a(open(F, '<', '/etc/shadow') ? 0 : -1)") },
];

const fn opens(name: &'static str, code: &'static str) -> Attack {
    Attack {
        name,
        layer: "root",
        how: How::Perl(code),
        inside: &["errno=1", "errno=2", "errno=13", "errno=30", "errno=6"],
        outside: Root,
        policies: ALL,
    }
}

/// Other processes, identity, limits.
pub(crate) const PROCESSES: &[Attack] = &[
    probe("signal-a-process-of-the-host", "namespaces", "signal {victim} 0", NOBODY, Caller, ALL),
    probe("kill-a-process-of-the-host", "namespaces", "signal {victim} 18", NOBODY, Caller, ALL),
    probe("signal-by-pidfd", "namespaces", "signal-pidfd {victim}", NOBODY, Caller, ALL),
    probe("trace-a-process-of-the-host", "namespaces", "ptrace-seize {victim}", NOBODY, Caller, ALL),
    probe("trace-me-by-library", "seccomp", "ptrace-traceme", NO, Caller, ALL),
    probe("read-memory-of-the-host", "namespaces", "read-memory {victim} 0x1000", NOBODY, Caller, ALL),
    probe("take-a-descriptor", "namespaces", "get-descriptor {victim} 0", NOBODY, Caller, ALL),
    probe("memory-file-of-the-host", "namespaces", "read /proc/{victim}/mem", GONE, Caller, ROOTED),
    probe("environment-of-the-host", "namespaces", "read /proc/{victim}/environ", GONE, Caller, ROOTED),
    probe(
        "root-of-a-process-of-the-host",
        "namespaces",
        "read /proc/{victim}/root{secret}",
        GONE,
        Caller,
        ALL,
    ),
    probe("priority-of-the-host", "namespaces", "foreign-priority {victim}", NOBODY, Caller, ROOTED),
    probe("limit-of-the-host", "namespaces", "foreign-limit {victim}", NOBODY, Caller, ROOTED),
    probe("raise-hard-limit", "rlimits", "raise-limit", &["errno=1", "errno=22"], Root, ALL),
    probe("raise-priority", "identity", "raise-priority", &["errno=1", "errno=13"], Root, ALL),
    probe("become-root", "identity", "become-root", &["errno=1", "errno=22"], Root, ROOTED),
    probe("take-groups", "identity", "take-groups", &["errno=1", "errno=22"], Root, ALL),
    probe("new-user-namespace", "seccomp", "new-namespaces user", NO, Caller, ALL),
    probe("new-mount-namespace", "seccomp", "new-namespaces user,mount", NO, Caller, ALL),
    probe("new-process-namespace", "seccomp", "new-namespaces user,pid", NO, Caller, ALL),
    probe(
        "enter-first-processes-namespace",
        "seccomp",
        "enter-namespace /proc/1/ns/mnt",
        &["errno=1", "errno=13", "errno=38", "errno=2"],
        Root,
        ALL,
    ),
    probe("mount-over-the-workspace", "seccomp", "mount-tmpfs {work}", NO, Root, ALL),
    probe("mount-another-proc", "seccomp", "mount-proc {work}", NO, Root, ALL),
    probe("bind-within-the-workspace", "seccomp", "bind {work} {work}", NO, Root, ALL),
    probe("change-root", "seccomp", "change-root {work}", NO, Root, ALL),
    probe("set-hostname", "seccomp", "set-hostname", NO, Root, ALL),
    probe("randomisation-off", "seccomp", "personality", NO, Caller, ALL),
    Attack {
        name: "shared-memory-of-the-host",
        layer: "namespaces",
        how: How::Perl("a(shmget({key}, 0, 0) // -1)"),
        inside: &["errno=2", "errno=1", "errno=38"],
        outside: Caller,
        policies: ALL,
    },
    Attack {
        name: "message-queue-of-the-host",
        layer: "namespaces",
        how: How::Perl("a(msgget({key}, 0) // -1)"),
        inside: &["errno=2", "errno=1", "errno=38"],
        outside: Caller,
        policies: ALL,
    },
    // To a user's own terminal: at the levels without mounts it would lie there as it does outside.
    probe(
        "terminal-of-the-host",
        "root",
        "append {terminal}",
        &["errno=2", "errno=13", "errno=1", "errno=5"],
        Caller,
        ALL,
    ),
    probe("shared-file-of-the-host", "root", "read {shared}", GONE, Caller, ALL),
];

/// Ways to talk out.
pub(crate) const TALKING: &[Attack] = &[
    probe("tcp-to-the-host", "network", "connect-tcp 127.0.0.1:{port}", UNREACHABLE, Caller, ALL),
    probe("udp-to-the-host", "network", "send-udp 127.0.0.1:{udp}", UNREACHABLE, Caller, ALL),
    probe(
        "tcp-to-own-loopback-is-not-the-hosts",
        "network",
        "connect-tcp 127.0.0.1:{port}",
        UNREACHABLE,
        Caller,
        &["loopback"],
    ),
    probe("udp-out-of-loopback", "network", "send-udp 192.0.2.1:53", UNREACHABLE, Caller, &["loopback"]),
    probe("listen", "network", "bind-tcp 0.0.0.0:0", UNREACHABLE, Caller, FLAT),
    probe(
        "abstract-socket-of-the-host",
        "network",
        "connect-abstract {abstract}",
        &["errno=111", "errno=1"],
        Caller,
        &["strict", "default", "loopback", "moderate", "minimal"],
    ),
    probe("socket-of-the-host", "root", "connect-unix {socket}", GONE, Caller, ROOTED),
    probe("descriptor-to-the-host", "root", "pass-descriptor {socket}", GONE, Caller, ROOTED),
    family("packet-socket", "a(syscall(41, 17, 3, 0))", Root),
    family("raw-socket", "a(syscall(41, 2, 3, 1))", Root),
    family("raw-socket-of-ipv6", "a(syscall(41, 10, 3, 58))", Root),
    family("netlink-audit", "a(syscall(41, 16, 3, 9))", Caller),
    family("netlink-uevents", "a(syscall(41, 16, 3, 15))", Caller),
    family("vsock", "a(syscall(41, 40, 1, 0))", Caller),
    family("kernel-crypto", "a(syscall(41, 38, 5, 0))", Caller),
    family("key-management", "a(syscall(41, 15, 3, 2))", Root),
    family("bluetooth", "a(syscall(41, 31, 3, 1))", Caller),
    family("express-data-path", "a(syscall(41, 44, 3, 0))", Root),
    family("can-bus", "a(syscall(41, 29, 3, 1))", Caller),
    family("tipc", "a(syscall(41, 30, 1, 0))", Caller),
    Attack { policies: FLAT, ..family("multipath-tcp", "a(syscall(41, 2, 1, 262))", Caller) },
    Attack { policies: FLAT, ..family("internet-datagrams", "a(syscall(41, 2, 2, 0))", Caller) },
    Attack { policies: FLAT, ..family("internet-streams", "a(syscall(41, 10, 1, 0))", Caller) },
];

const fn family(name: &'static str, code: &'static str, outside: Outside) -> Attack {
    Attack { name, layer: "seccomp", how: How::Perl(code), inside: FAMILY, outside, policies: ALL }
}
