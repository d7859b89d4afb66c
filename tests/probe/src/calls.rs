//! System calls by number and argument, each under a name of its own: what a filter is asked, with nothing of a library
//! around it. `call NUMBER WORD…` makes any other.
//!
//! The words: a number (all 64 bits of it); `'text`; `[N`, a buffer of N zeros; `=HEX`, a buffer that begins with these
//! bytes; `$`, the caller's own process id; `<PATH`, `>PATH`, a descriptor opened for reading, or for writing and made where
//! it's missing.

use std::ffi::CString;
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::raw::{self, Word};
use crate::{Answer, Arguments, Refused};

/// Name, number on x86-64, words.
const CALLS: &[(&str, i64, &str)] = &[
    ("x32-getpid", 0x4000_0027, ""),
    ("x32-execve", 0x4000_0208, "'/bin/true 0 0"),
    ("io-uring-setup", 425, "1 [120"),
    ("io-uring-enter", 426, "-1 0 0 0 0 0"),
    ("io-uring-register", 427, "-1 0 0 0"),
    ("io-setup", 206, "1 [8"),
    ("clone3-user", 435, "=000000100000000000000000000000000000000000000000000000000000000011 88"),
    ("clone3-plain", 435, "=000000000000000000000000000000000000000000000000000000000000000011 88"),
    ("clone-mount", 56, "0x20011 0 0 0 0"),
    ("clone-cgroup", 56, "0x2000011 0 0 0 0"),
    ("clone-uts", 56, "0x4000011 0 0 0 0"),
    ("clone-ipc", 56, "0x8000011 0 0 0 0"),
    ("clone-user", 56, "0x10000011 0 0 0 0"),
    ("clone-user-high-bits", 56, "0x110000011 0 0 0 0"),
    ("clone-pid", 56, "0x20000011 0 0 0 0"),
    ("clone-net", 56, "0x40000011 0 0 0 0"),
    ("unshare-user", 272, "0x10000000"),
    ("unshare-user-high-bits", 272, "0x110000000"),
    ("unshare-mount", 272, "0x20000"),
    ("unshare-pid", 272, "0x20000000"),
    ("unshare-net", 272, "0x40000000"),
    ("unshare-ipc", 272, "0x8000000"),
    ("unshare-uts", 272, "0x4000000"),
    ("unshare-cgroup", 272, "0x2000000"),
    ("unshare-time", 272, "0x80"),
    ("setns-net", 308, "</proc/self/ns/net 0"),
    ("setns-user", 308, "</proc/self/ns/user 0"),
    ("setns-mount", 308, "</proc/self/ns/mnt 0"),
    ("setns-cgroup", 308, "</proc/self/ns/cgroup 0"),
    ("no-randomisation", 135, "0x40000"),
    ("no-randomisation-high-bits", 135, "0x100040000"),
    ("read-implies-execute", 135, "0x400000"),
    ("other-personality", 135, "8"),
    ("trace-me", 101, "0 0 0 0"),
    ("trace-and-suspend-filters", 101, "0x4206 -1 0 0x200000"),
    ("process-vm-readv", 310, "$ 0 0 0 0 0"),
    ("process-vm-writev", 311, "$ 0 0 0 0 0"),
    ("process-madvise", 440, "-1 0 0 0 0"),
    ("process-mrelease", 448, "-1 0"),
    ("pidfd-getfd", 438, "-1 0 0"),
    ("kcmp", 312, "$ $ 0 1 1"),
    ("bpf", 321, "0 [128 128"),
    ("perf-event-open", 298, "=0100000070000000+128 0 -1 -1 0"),
    ("userfaultfd", 323, "0"),
    ("userfaultfd-user-mode", 323, "1"),
    ("keyctl", 250, "0 -3 0"),
    ("keyctl-join-session", 250, "1 0"),
    ("add-key", 248, "'user 'stockade-probe 'x 1 -2"),
    ("request-key", 249, "'user 'stockade-none 0 0"),
    ("kexec-load", 246, "0 1000 0 0"),
    ("kexec-file-load", 320, "-1 -1 0 0 0x100"),
    ("init-module", 175, "' 0 '"),
    ("finit-module", 313, "-1 ' 0"),
    ("delete-module", 176, "'stockade-none 2048"),
    ("modify-ldt", 154, "0 [16 16"),
    ("quotactl", 179, "0x80000100 0 0 0"),
    ("quotactl-fd", 443, "-1 0x80000100 0 0"),
    ("swapon", 167, "'/stockade-none 0"),
    ("swapoff", 168, "'/stockade-none"),
    ("settimeofday", 164, "0 0"),
    ("clock-settime", 227, "0 0"),
    ("clock-adjtime", 305, "9 =0040+256"),
    ("adjtimex", 159, "=0040+256"),
    ("sethostname", 170, "'x -1"),
    ("setdomainname", 171, "'x -1"),
    ("reboot", 169, "0 0 0 0"),
    ("fanotify-init", 300, "0 0"),
    ("fanotify-init-unprivileged", 300, "0x200 0"),
    ("fanotify-mark", 301, "-1 1 2 -100 '."),
    ("open-by-handle-at", 304, "-100 [8 0"),
    ("name-to-handle-at", 303, "-100 '. =80000000+136 [8 0"),
    ("iopl", 172, "0"),
    ("ioperm", 173, "0x80 1 0"),
    ("acct", 163, "'/stockade-none"),
    ("kernel-log", 103, "10 0 0"),
    ("vhangup", 153, ""),
    ("mount", 165, "'none '/stockade-none 'tmpfs 0 0"),
    ("mount-propagation", 165, "0 '. 0 0x100000 0"),
    ("umount", 166, "'/stockade-none 2"),
    ("fsopen", 430, "'tmpfs 0"),
    ("fsconfig", 431, "-1 0 0 0 0"),
    ("fsmount", 432, "-1 0 0"),
    ("fspick", 433, "-100 '/stockade-none 0"),
    ("open-tree-clone", 428, "-100 '. 1"),
    ("move-mount", 429, "-1 ' -1 ' 4"),
    ("mount-setattr", 442, "-100 '. 0 [32 32"),
    ("pivot-root", 155, "'. '."),
    ("chroot", 161, "'."),
    ("secret-memory", 447, "0"),
    ("migrate-pages", 256, "$ 0 0 0"),
    ("move-pages", 279, "$ 0 0 0 0 0"),
    ("set-mempolicy", 238, "0 0 0"),
    ("statmount", 457, "0 0 0 0"),
    ("listmount", 458, "0 0 0 0"),
    ("set-label-of-self", 460, "100 [32 32 0"),
    ("rewrite-own-map", 157, "35 8 0 0 0"),
    ("raise-ambient-capability", 157, "47 2 21 0 0"),
    ("set-securebits", 157, "28 0 0 0 0"),
    ("gain-capabilities", 126, "=2205082000000000 =ffffffffffffffff00000000ffffffffffffffff00000000"),
    ("become-uid-0", 117, "0 0 0"),
    ("become-gid-0", 119, "0 0 0"),
    ("take-group-0", 116, "1 =00000000"),
    ("realtime-priority", 144, "0 1 =01000000"),
    (
        "deadline-priority",
        314,
        "0 =300000000600000000000000000000000000000000000000809698000000000000e1f5050000000000e1f50500000000 0",
    ),
    ("realtime-io", 251, "1 0 0x2000"),
    ("higher-priority", 141, "0 0 -20"),
    ("lock-much-memory", 325, "0 0x7fffffff000 0"),
    // What leaves privilege on a disk.
    ("open-setuid", 2, "'b1 0x41 0o4755"),
    ("openat-setgid", 257, "-100 'b2 0x41 0o2755"),
    ("openat-setuid-high-bits", 257, "-100 'b8 0x100000041 0x1000009ed"),
    ("temporary-setuid", 257, "-100 '. 0o20200001 0o4755"),
    ("creat-setuid", 85, "'b3 0o4755"),
    ("mkdir-setgid", 83, "'b4 0o2755"),
    ("mkdirat-setgid", 258, "-100 'b5 0o2755"),
    ("mknod-setuid", 133, "'b6 0o104755 0"),
    ("mknodat-setuid", 259, "-100 'b7 0o104755 0"),
    ("chmod-setgid", 90, "'mine 0o2755"),
    ("chmod-setuid-high-bits", 90, "'mine 0x1000009ed"),
    ("fchmod-setuid", 91, ">mine 0o4755"),
    ("fchmodat-setgid", 268, "-100 'mine 0o2755"),
    ("fchmodat2-setuid", 452, "-100 'mine 0o6755 0"),
    ("character-device", 133, "'d1 0o20666 0x103"),
    ("character-device-high-bits", 133, "'d6 0x1000021b6 0x103"),
    ("block-device", 259, "-100 'd2 0o60666 0x700"),
    ("whiteout-device", 133, "'d3 0o20666 0"),
    ("rename-whiteout", 316, "-100 'yours -100 'd4 4"),
    ("fifo", 133, "'d5 0o10644 0"),
    ("fifo-at", 259, "-100 'd7 0o10644 0"),
    ("socket-node", 133, "'d8 0o140644 0"),
    ("file-capability", 188, "'mine 'security.capability =0100000200040000000000000000000000000000 20 0"),
    ("trusted-attribute", 188, "'mine 'trusted.probe 'x 1 0"),
    // Ways to other processes. The one argument is a process's.
    ("signal-thread", 200, "$1 0"),
    ("signal-thread-of-group", 234, "$1 $1 0"),
    ("signal-with-value", 129, "$1 0 =0000000000000000ffffffff"),
    ("open-process", 434, "$1 0"),
    ("affinity-of", 203, "$1 8 =ff"),
    ("scheduler-of", 144, "$1 3 =00000000"),
    ("attributes-of", 314, "$1 =30000000030000000000000000000000 0"),
    ("parameters-of", 142, "$1 =00000000"),
    ("priority-of", 141, "0 $1 19"),
    ("io-priority-of", 251, "1 $1 0x4007"),
    ("limits-of", 302, "$1 7 0 [16"),
    ("lower-limits-of", 302, "$1 4 =0000000000000000ffffffffffffffff 0"),
    ("trace", 101, "0x4206 $1 0 0"),
    ("futexes-of", 274, "$1 [8 [8"),
    ("pages-of", 279, "$1 0 0 0 0 0"),
    ("compare-with", 312, "$1 $ 0 0 0"),
    ("core-schedule-with", 157, "62 2 $1 0 0"),
    ("session-of", 124, "$1"),
    ("group-of", 121, "$1"),
    // What the kernel keeps by name or key. The one argument is a key or a name.
    ("shared-memory", 29, "$1 0 0"),
    ("semaphores", 64, "$1 0 0"),
    ("message-queue", 68, "$1 0"),
    ("posix-queue", 240, "'$1 0 0 0"),
    ("make-posix-queue", 240, "'$1 0o102 0o600 =000000000000000001000000000000004000000000000000"),
    ("remove-posix-queue", 241, "'$1"),
    // Sockets.
    ("packet-socket", 41, "17 3 0"),
    ("packet-socket-high-bits", 41, "0x100000011 3 0"),
    ("raw-socket", 41, "2 3 1"),
    ("raw-socket-of-ipv6", 41, "10 3 58"),
    ("ping-socket", 41, "2 2 1"),
    ("ping-socket-of-ipv6", 41, "10 2 58"),
    ("sctp", 41, "2 1 132"),
    ("dccp", 41, "2 6 33"),
    ("udp-lite", 41, "2 2 136"),
    ("multipath-tcp", 41, "2 1 262"),
    ("multipath-tcp-of-ipv6", 41, "10 1 262"),
    ("internet-stream", 41, "2 1 0"),
    ("internet-stream-of-ipv6", 41, "10 1 0"),
    ("internet-datagram", 41, "2 2 0"),
    ("internet-datagram-of-ipv6", 41, "10 2 0"),
    ("netlink-route", 41, "16 3 0"),
    ("netlink-sock-diag", 41, "16 3 4"),
    ("netlink-xfrm", 41, "16 3 6"),
    ("netlink-audit", 41, "16 3 9"),
    ("netlink-connector", 41, "16 3 11"),
    ("netlink-netfilter", 41, "16 3 12"),
    ("netlink-uevent", 41, "16 3 15"),
    ("netlink-generic", 41, "16 3 16"),
    ("vsock", 41, "40 1 0"),
    ("kernel-crypto", 41, "38 5 0"),
    ("key-management", 41, "15 3 2"),
    ("bluetooth", 41, "31 3 1"),
    ("express-data-path", 41, "44 3 0"),
    ("can-bus", 41, "29 3 1"),
    ("tipc", 41, "30 1 0"),
    ("kernel-connection-multiplexor", 41, "41 2 0"),
    ("reliable-datagrams", 41, "21 5 0"),
    ("smc", 41, "43 1 0"),
    ("rxrpc", 41, "33 2 2"),
    ("point-to-point", 41, "24 1 0"),
    ("nfc", 41, "39 3 0"),
    ("ieee-802-15-4", 41, "36 2 0"),
    ("amateur-radio", 41, "3 5 0"),
    ("pair-of-internet-sockets", 53, "2 1 0 [8"),
];

/// Makes a named call, or `call NUMBER WORD…`; `None` if nothing is called that.
pub(crate) fn make(name: &str, arguments: &Arguments) -> Option<Answer> {
    if name == "call" {
        return Some(by_number(arguments));
    }
    let (_, number, words) = CALLS.iter().find(|(known, ..)| *known == name)?;
    Some(of(*number, words.split(' ').filter(|word| !word.is_empty()), arguments))
}

fn by_number(arguments: &Arguments) -> Answer {
    let (first, words) =
        arguments.0.split_first().ok_or_else(|| Refused::Usage("a number is missing".to_owned()))?;
    let number = i64::try_from(number(first)?).map_err(|_| Refused::Usage(format!("no call: {first}")))?;
    of(number, words.iter().map(String::as_str), &Arguments(Vec::new()))
}

fn of<'a>(number: i64, words: impl Iterator<Item = &'a str>, arguments: &Arguments) -> Answer {
    if cfg!(not(target_arch = "x86_64")) {
        return Err(Refused::NotSo("the numbers are x86-64's".to_owned()));
    }
    let mut held = Vec::new();
    let mut all = words.map(|word| read(word, arguments, &mut held)).collect::<Result<Vec<_>, _>>()?;
    let answer = raw::call(number, &mut all).map_err(Refused::Errno)?;
    if FORKS.contains(&number) && answer == 0 {
        raw::leave(0);
    }
    // A new process of our own is waited for; where it isn't ours to wait for, that's no answer to the question.
    if FORKS.contains(&number) {
        let _ = nix::sys::wait::wait();
    }
    Ok(String::new())
}

/// clone and clone3: their child goes on here.
const FORKS: [i64; 2] = [56, 435];

fn read(word: &str, arguments: &Arguments, held: &mut Vec<OwnedFd>) -> Result<Word, Refused> {
    let mut open = |path: &str, flags: OFlags| -> Result<Word, Refused> {
        let fd = rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::from(0o600))?;
        let number = fd.as_raw_fd();
        held.push(fd);
        Ok(Word::Number(u64::from(number.cast_unsigned())))
    };
    let bad = || Refused::Usage(format!("not a word for a call: {word}"));
    match word.split_at_checked(1) {
        Some(("'", "$1")) => text(arguments.text(0)?),
        Some(("'", rest)) => text(rest),
        Some(("[", length)) => Ok(Word::Buffer(vec![0; length.parse().map_err(|_| bad())?])),
        Some(("=", hex)) => bytes(hex).map(Word::Buffer).ok_or_else(bad),
        Some(("$", "1")) => number(arguments.text(0)?).map(Word::Number),
        Some(("$", "")) => Ok(Word::Number(u64::from(std::process::id()))),
        Some(("<", path)) => open(path, OFlags::RDONLY),
        Some((">", path)) => open(path, OFlags::RDWR | OFlags::CREATE),
        _ => number(word).map(Word::Number),
    }
}

fn text(text: &str) -> Result<Word, Refused> {
    CString::new(text).map(Word::Text).map_err(|error| Refused::Usage(error.to_string()))
}

fn number(word: &str) -> Result<u64, Refused> {
    let bad = |_| Refused::Usage(format!("not a number: {word}"));
    if let Some(digits) = word.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).map_err(bad);
    }
    if let Some(digits) = word.strip_prefix("0o") {
        return u64::from_str_radix(digits, 8).map_err(bad);
    }
    word.parse::<i64>().map(i64::cast_unsigned).map_err(bad)
}

/// `HEX`, or `HEX+N`: padded to N bytes. Never shorter than the largest structure that a call here names.
fn bytes(text: &str) -> Option<Vec<u8>> {
    const ROOM: usize = 128;
    let (hex, length) = text.split_once('+').unwrap_or((text, "0"));
    let pairs = hex.as_bytes().chunks(2);
    let mut bytes: Vec<u8> = pairs
        .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok())
        .collect::<Option<_>>()?;
    let length: usize = length.parse().ok()?;
    bytes.resize(bytes.len().max(length).max(ROOM), 0);
    Some(bytes)
}
