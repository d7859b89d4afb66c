//! Which processes a run has.
//!
//! A run with a pid namespace has a `/proc` that lists exactly its processes. One without (level `minimal`) has a
//! subreaper, to which orphans return, so its descendants are the run: `/proc/PID/task/*/children`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::read::Reader;

/// Where a run's processes are found.
#[derive(Debug)]
pub enum Source {
    /// In its own pid namespace.
    Namespace {
        /// The init's pidfd.
        init: OwnedFd,
        /// The namespace's `/proc`, open for listing.
        proc: OwnedFd,
        /// Position of the first process in it; 0: not known yet.
        first: u64,
    },
    /// Below a subreaper.
    Descendants {
        /// Its pidfd.
        root: OwnedFd,
        /// Its process id as the monitor sees it.
        pid: i32,
        /// Kept buffer of thread ids.
        threads: Vec<i32>,
    },
}

impl Source {
    /// A pid namespace: its init's pidfd, and an `O_PATH` descriptor of its `/proc`.
    ///
    /// # Errors
    /// Those of openat(2); `EINVAL`: the directory is no procfs.
    pub fn namespace(init: OwnedFd, proc: &OwnedFd) -> io::Result<Self> {
        if rustix::fs::fstatfs(proc)?.f_type != rustix::fs::PROC_SUPER_MAGIC {
            return Err(Errno::INVAL.into());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = rustix::fs::openat(proc, ".", flags, Mode::empty())?;
        Ok(Self::Namespace { init, proc, first: 0 })
    }

    /// The descendants of the process `root` is the pidfd of.
    ///
    /// # Errors
    /// `ENOSYS`: the kernel doesn't list children (`CONFIG_PROC_CHILDREN`).
    pub fn descendants(root: OwnedFd, pid: i32, host_proc: &OwnedFd) -> io::Result<Self> {
        let lists = rustix::fs::accessat(
            host_proc,
            "thread-self/children",
            rustix::fs::Access::EXISTS,
            rustix::fs::AtFlags::empty(),
        );
        lists.map_err(|_| Errno::NOSYS)?;
        Ok(Self::Descendants { root, pid, threads: Vec::new() })
    }

    /// The pidfd of the process at the top.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Namespace { init, .. } => init.as_fd(),
            Self::Descendants { root, .. } => root.as_fd(),
        }
    }

    /// The init's pidfd, if its end is the end of all.
    #[must_use]
    pub fn namespace_init(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Namespace { init, .. } => Some(init.as_fd()),
            Self::Descendants { .. } => None,
        }
    }

    /// The process of ours at the top, which no limit counts.
    #[must_use]
    pub fn root(&self) -> i32 {
        match self {
            Self::Namespace { .. } => 1,
            Self::Descendants { pid, .. } => *pid,
        }
    }

    /// The `/proc` in which the listed ids mean these processes.
    #[must_use]
    pub fn proc<'a>(&'a self, host_proc: &'a OwnedFd) -> &'a OwnedFd {
        match self {
            Self::Namespace { proc, .. } => proc,
            Self::Descendants { .. } => host_proc,
        }
    }

    /// Lists the processes, the root included, at most about `most`. `false`: the run has ended.
    pub fn list(
        &mut self,
        reader: &mut Reader,
        host_proc: &OwnedFd,
        most: usize,
        pids: &mut Vec<i32>,
    ) -> bool {
        pids.clear();
        match self {
            Self::Namespace { init, proc, first } => {
                if has_ended(init) {
                    return false;
                }
                if let Ok(position) = reader.list(proc, *first, most, pids) {
                    *first = position;
                }
                true
            }
            Self::Descendants { root, pid, threads } => {
                if has_ended(root) {
                    return false;
                }
                pids.push(*pid);
                descend(reader, host_proc, most, threads, pids);
                true
            }
        }
    }
}

/// Appends every descendant of the processes in `pids`.
pub(super) fn descend(
    reader: &mut Reader,
    proc: &OwnedFd,
    most: usize,
    threads: &mut Vec<i32>,
    pids: &mut Vec<i32>,
) {
    let mut next = 0;
    while next < pids.len() && pids.len() < most {
        // One that has just ended has no children any more: they went to the root, which the next look asks again.
        let _ = reader.children(proc, pids[next], threads, pids);
        next += 1;
    }
}

/// Whether the process of a pidfd has ended.
fn has_ended(pidfd: &OwnedFd) -> bool {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(rustix::event::poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&at_once)), Ok(1))
}
