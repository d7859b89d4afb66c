//! A launcher within its caller's own process: a command line without a daemon, which makes one run and has one thread.
//!
//! A process of its own for it would be a copy of the caller with all its page faults, and two hand-overs more. What it
//! costs is that a stopped caller (`SIGSTOP`) watches no limit: a run's init keeps the wall clock itself then, and the
//! monitor is a process of its own. A run that would need somebody after the caller's death (no pid namespace that dies
//! with it; placeholders to sweep) has its launcher in a process of its own.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use stockade_protocol::launch::{Launch, ToLauncher};
use stockade_protocol::spec::Level;
use stockade_wire::channel::Channel;
use stockade_wire::socket;

use super::Launcher;

/// A launcher and its run.
pub struct Embedded {
    launcher: Launcher,
}

impl core::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Embedded").finish_non_exhaustive()
    }
}

impl Embedded {
    /// Whether a launch may have its launcher in this process, which must have one thread.
    #[must_use]
    pub fn may_launch(launch: &Launch) -> bool {
        let spec = &launch.spec;
        spec.level != Level::Minimal
            && spec.deny.is_empty()
            && spec.deny_elsewhere.is_empty()
            && super::may_copy()
    }

    /// Starts the run. Gives the launcher and the channel it's heard by; `descriptors` are as beside `ToLauncher::Launch`.
    /// The caller blocks `SIGCHLD` from now on, and must [`turn`](Self::turn) it.
    ///
    /// # Errors
    /// Those of the system calls; what is wrong with the run is told by the channel.
    pub fn start(launch: Launch, descriptors: Vec<OwnedFd>) -> io::Result<(Self, Channel)> {
        let (ours, theirs) = socket::seqpacket_pair()?;
        let mut launcher = Launcher::new(theirs, true, 0)?;
        launcher.launch(launch, descriptors);
        Ok((Self { launcher }, Channel::new(ours)))
    }

    /// Says something to it, without the channel.
    pub fn tell(&mut self, message: ToLauncher) {
        self.launcher.command(message, Vec::new());
    }

    /// Does what is to be done now, without waiting.
    ///
    /// # Errors
    /// Those of `epoll_wait(2)`.
    pub fn turn(&mut self) -> io::Result<()> {
        self.launcher.turn(Some(Duration::ZERO))
    }

    /// When it wants to be turned though nothing has happened.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.launcher.next_deadline()
    }
}

impl AsFd for Embedded {
    /// Readable when it wants to be turned.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.launcher.poller.as_fd()
    }
}
