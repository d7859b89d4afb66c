//! What this process does with signals, as the kernel says: read once, before it's copied.

use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags};

/// Room for a `/proc/PID/status`: one read then.
const ROOM: usize = 8 * 1024;

/// Sets of signals: bit n-1 is signal n.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dispositions {
    /// What is ignored.
    pub ignored: u64,
    /// What has a handler.
    pub caught: u64,
}

impl Dispositions {
    /// This process's, when they were first asked for. `None`: `/proc` doesn't say.
    #[must_use]
    pub fn own() -> Option<Self> {
        static OWN: OnceLock<Option<Dispositions>> = OnceLock::new();
        *OWN.get_or_init(|| Self::of(&status().ok()?))
    }

    /// What isn't as it is in a process that has changed nothing; all there are where it isn't known.
    pub(crate) fn changed() -> u64 {
        Self::own().map_or(u64::MAX, |own| own.ignored | own.caught)
    }

    /// Of a `/proc/PID/status` (proc(5)).
    fn of(status: &[u8]) -> Option<Self> {
        let set = |name: &[u8]| {
            let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name))?;
            u64::from_str_radix(core::str::from_utf8(line.trim_ascii()).ok()?, 16).ok()
        };
        Some(Self { ignored: set(b"SigIgn:")?, caught: set(b"SigCgt:")? })
    }
}

fn status() -> rustix::io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file: OwnedFd = rustix::fs::open("/proc/self/status", flags, Mode::empty())?;
    let mut text = Vec::with_capacity(ROOM);
    while rustix::io::read(&file, rustix::buffer::spare_capacity(&mut text))? > 0 {
        text.reserve(1);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_from_their_lines() {
        let status = b"Name:\tSigIgn:\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001003\nSigCgt:\tff\n";
        assert_eq!(Dispositions::of(status), Some(Dispositions { ignored: 0x1003, caught: 0xff }));
        assert_eq!(Dispositions::of(b"Name:\tx\nSigIgn:\t0\n"), None);
    }

    /// A Rust program's runtime ignores SIGPIPE and catches SIGSEGV.
    #[test]
    fn own_dispositions_are_what_the_runtime_has_made_them() {
        let own = Dispositions::own().unwrap();
        assert_ne!(own.ignored & 1 << (libc::SIGPIPE - 1), 0);
        assert_ne!(own.caught & 1 << (libc::SIGSEGV - 1), 0);
        assert_eq!(Dispositions::changed() & 1 << (libc::SIGUSR2 - 1), 0);
    }
}
