//! A launcher's process, as far as we have it: how it ends, and that it doesn't outlive us where it mustn't.

use core::cell::Cell;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, ExitStatus};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::io::Interest;
use tokio::time::{sleep, timeout};

use crate::watched::watch;

/// A launcher's process: killed if it is still there when we let go of it, unless we leave.
pub(crate) struct Keeper {
    process: Process,
    leaving: Rc<Cell<bool>>,
}

/// What we have of a launcher's process.
pub(crate) enum Process {
    /// We have started it.
    Child(Child),
    /// Another supervisor has.
    Other { pid: i32, pidfd: OwnedFd },
    /// It has ended, or is none.
    Nobody,
}

/// How a launcher's process ended.
pub(crate) enum How {
    /// By itself.
    Itself(ExitStatus),
    /// We have killed it.
    Killed,
}

impl Keeper {
    /// Of a process. `leaving`: whether it goes on when we don't.
    pub(crate) fn new(process: Process, leaving: Rc<Cell<bool>>) -> Self {
        Self { process, leaving }
    }

    /// It is this process, as it was found later.
    pub(crate) fn found(&mut self, pid: i32, pidfd: OwnedFd) {
        self.process = Process::Other { pid, pidfd };
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Option<i32> {
        match &self.process {
            Process::Child(child) => i32::try_from(child.id()).ok(),
            Process::Other { pid, .. } => Some(*pid),
            Process::Nobody => None,
        }
    }

    /// Waits a little for its end, then kills it. How it ended.
    pub(crate) async fn end(&mut self) -> Option<How> {
        const PATIENCE: Duration = Duration::from_millis(500);
        match &mut self.process {
            Process::Nobody => return None,
            Process::Child(child) => {
                let until = Instant::now() + PATIENCE;
                loop {
                    match child.try_wait() {
                        Ok(Some(status)) => {
                            self.process = Process::Nobody;
                            return Some(How::Itself(status));
                        }
                        Ok(None) if Instant::now() < until => sleep(Duration::from_millis(5)).await,
                        Ok(None) | Err(_) => break,
                    }
                }
            }
            Process::Other { pidfd, .. } => {
                let watched = pidfd.as_fd().try_clone_to_owned().and_then(|fd| watch(fd, Interest::READABLE));
                if let Ok(watched) = watched
                    && timeout(PATIENCE, watched.readable()).await.is_ok()
                {
                    self.process = Process::Nobody;
                    return None;
                }
            }
        }
        self.kill().then_some(How::Killed)
    }

    /// Whether it is killed: one that is root's we can't kill, and its unit's watchdog ends it.
    fn kill(&mut self) -> bool {
        let killed = match core::mem::replace(&mut self.process, Process::Nobody) {
            Process::Child(mut child) => child.kill().and_then(|()| child.wait().map(drop)),
            Process::Other { pidfd, .. } => {
                rustix::process::pidfd_send_signal(pidfd, Signal::KILL).map_err(io::Error::from)
            }
            Process::Nobody => Ok(()),
        };
        if let Err(error) = &killed {
            tracing::error!(%error, "the launcher can't be killed: its unit's watchdog ends it, if it hangs");
        }
        killed.is_ok()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if !self.leaving.get() {
            self.kill();
        }
    }
}
