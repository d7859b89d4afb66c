//! The signals that are the command's, as something a poll loop can read.
//!
//! The first SIGINT, SIGTERM, SIGHUP or SIGQUIT goes to the command. The second of any of them cancels the run; the
//! third stops waiting for the end. A signal that was ignored when we were started (`nohup`, a shell's background
//! job) stays ignored.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use stockade_worker::Dispositions;

/// What a signal asks of the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Give this signal to the command.
    Forward(u8),
    /// End the run.
    Cancel,
    /// Wait no longer; the status says this signal.
    Leave(u8),
}

/// From here on the signals come here and end nobody.
#[derive(Debug)]
pub(crate) struct Signals {
    fd: SignalFd,
    seen: u32,
}

impl Signals {
    /// Takes the signals. Call it after the launcher is started: a blocked signal is inherited.
    pub(crate) fn take() -> std::io::Result<Self> {
        let ignored = Dispositions::own().map_or(0, |own| own.ignored);
        let mut set = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
            if ignored & (1 << (signal as i32 - 1)) == 0 {
                set.add(signal);
            }
        }
        set.thread_block()?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { fd, seen: 0 })
    }

    /// The next wish, if a signal has come.
    pub(crate) fn next(&mut self) -> Option<Wish> {
        let signal = u8::try_from(self.fd.read_signal().ok()??.ssi_signo).ok()?;
        self.seen += 1;
        Some(wish(self.seen, signal))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn wish(seen: u32, signal: u8) -> Wish {
    match seen {
        1 => Wish::Forward(signal),
        2 => Wish::Cancel,
        _ => Wish::Leave(signal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_forwarded_the_second_cancels_the_third_leaves() {
        assert_eq!(wish(1, 2), Wish::Forward(2));
        assert_eq!(wish(2, 15), Wish::Cancel);
        assert_eq!(wish(3, 2), Wish::Leave(2));
        assert_eq!(wish(9, 2), Wish::Leave(2));
    }
}
