//! rlimits, hard and soft alike so that none is raised again, and the run's priorities. They bind one process; what
//! binds the tree is the control group or the monitor.

use std::os::fd::AsFd;

use rlimit::Resource;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use stockade_protocol::outcome::SetupStage;
use stockade_protocol::spec::{IoPriority, Limits};

use crate::failure::{At, Staged, failed};
use crate::sys;

const STAGE: SetupStage = SetupStage::Rlimits;
/// How far the kernel's hard cap on processes stands above the policy's limit: the limit itself ends the run, the
/// cap holds a fork bomb until it's seen.
pub(crate) const PROCESS_HEADROOM: u64 = 32;
/// Bytes of POSIX message queues a run may hold.
const MESSAGE_QUEUES: u64 = 819_200;
/// Bytes a process may lock in memory.
const LOCKED: u64 = 8 * 1024 * 1024;
/// Signals that may wait, one for each timer too. Counted for whoever made the namespace as well, so few enough that many runs
/// leave the others some.
const PENDING_SIGNALS: u64 = 512;

/// Inotify instances a run may have at once.
const WATCHERS: u32 = 16;

/// Applies all of them to the calling process. `already`: processes that count against `RLIMIT_NPROC` and aren't
/// the run's (init; in a user namespace shared with others, theirs).
///
/// # Errors
/// `Rlimits` with the name of the limit.
pub(crate) fn apply(limits: &Limits, already: u64) -> Staged<()> {
    let processes = limits.processes.saturating_add(PROCESS_HEADROOM).saturating_add(already);
    let table = [
        (Resource::NPROC, "RLIMIT_NPROC", Some(processes)),
        (Resource::NOFILE, "RLIMIT_NOFILE", Some(limits.open_files)),
        (Resource::FSIZE, "RLIMIT_FSIZE", limits.file_size),
        (Resource::CORE, "RLIMIT_CORE", Some(limits.core)),
        (Resource::STACK, "RLIMIT_STACK", Some(limits.stack)),
        (Resource::AS, "RLIMIT_AS", limits.address_space),
        // A whole second behind the tree's own clock, which gives the truthful outcome.
        (Resource::CPU, "RLIMIT_CPU", limits.cpu_ms.map(|ms| ms.div_ceil(1000).saturating_add(1))),
        (Resource::MSGQUEUE, "RLIMIT_MSGQUEUE", Some(MESSAGE_QUEUES)),
        (Resource::MEMLOCK, "RLIMIT_MEMLOCK", Some(LOCKED)),
        (Resource::SIGPENDING, "RLIMIT_SIGPENDING", Some(PENDING_SIGNALS)),
        (Resource::RTPRIO, "RLIMIT_RTPRIO", Some(0)),
        (Resource::NICE, "RLIMIT_NICE", Some(0)),
    ];
    for (resource, name, bound) in table {
        let Some(bound) = bound else { continue };
        let (_, hard) = resource.get().at(STAGE, name)?;
        // Ours may be tighter already; without privilege it can't be widened, and needn't be.
        let bound = bound.min(hard);
        resource.set(bound, bound).at(STAGE, name)?;
    }
    priorities(limits)
}

/// Bounds how many inotify instances the caller's user namespace has. The kernel counts them for whoever made the namespace,
/// too: for root, of all runs of its daemon together, and 128 is all that root has unless an operator says more. Without
/// this one run could leave the host's own services none.
///
/// `proc`: a `/proc` whose `sys` can be written. Needs every capability in the namespace.
///
/// # Errors
/// `Rlimits` with the file.
pub(crate) fn bound_watchers(proc: impl AsFd) -> Staged<()> {
    const FILE: &str = "sys/user/max_inotify_instances";
    let text = format!("{WATCHERS}\n");
    let written = rustix::fs::openat(proc, FILE, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .and_then(|file| rustix::io::write(&file, text.as_bytes()));
    match written {
        // A kernel without inotify has nothing to count.
        Ok(_) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno).at(STAGE, FILE),
    }
}

fn priorities(limits: &Limits) -> Staged<()> {
    if limits.nice > 0 {
        rustix::process::setpriority_process(None, i32::from(limits.nice.min(19))).at(STAGE, "nice")?;
    }
    let (class, level) = match limits.io_priority {
        IoPriority::Idle => (3, 0),
        IoPriority::BestEffort(level) if level <= 7 => (2, i32::from(level)),
        IoPriority::BestEffort(_) => return Err(failed(STAGE, libc::EINVAL, "io-priority")),
    };
    sys::set_io_priority(class, level).at(STAGE, "io-priority")
}
