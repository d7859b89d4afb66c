//! A launcher within its caller's own process: a command line without a daemon, which makes one run and has one thread.
//!
//! A process of its own for it would be a copy of the caller with all its page faults, and two hand-overs more. What it
//! costs is that a stopped caller (`SIGSTOP`) watches no limit: a run's init keeps the wall clock itself then, and the
//! monitor is a process of its own. A run that would need somebody after the caller's death (no pid namespace that dies
//! with it; placeholders to sweep) has its launcher in a process of its own.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use stockade_protocol::launch::{FromLauncher, Launch, ToLauncher};
use stockade_protocol::spec::{Level, SandboxSpec};

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
    /// Whether a run of this spec may have its launcher in this process, which must have one thread.
    #[must_use]
    pub fn may_launch(spec: &SandboxSpec) -> bool {
        spec.level != Level::Minimal
            && spec.deny.is_empty()
            && spec.deny_elsewhere.is_empty()
            && super::may_copy()
    }

    /// Starts the run; `descriptors` are as beside `ToLauncher::Launch`. The caller blocks `SIGCHLD` from now on, and must
    /// [`turn`](Self::turn) it.
    ///
    /// # Errors
    /// Those of the system calls; what is wrong with the run is [said](Self::take).
    pub fn start(launch: Launch, spec: Arc<SandboxSpec>, descriptors: Vec<OwnedFd>) -> io::Result<Self> {
        let mut launcher = Launcher::new(None, true)?;
        launcher.launch_alone(launch, spec, descriptors);
        Ok(Self { launcher })
    }

    /// The first thing that it has said and that wasn't taken yet.
    pub fn take(&mut self) -> Option<FromLauncher> {
        self.launcher.supervisor.take()
    }

    /// Says something to it.
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

    /// When it wants to be turned though nothing has happened: at once, where it has said something.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if self.launcher.supervisor.waits() { Some(Instant::now()) } else { self.launcher.next_deadline() }
    }
}

impl AsFd for Embedded {
    /// Readable when it wants to be turned.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.launcher.poller.as_fd()
    }
}
