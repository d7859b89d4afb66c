//! The run's own `/proc`: its pid namespace's, `/proc/sys` read-only, and a few files that tell of the machine
//! masked.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::OpenTreeFlags;
use stockade_protocol::outcome::SetupStage;

use crate::failure::{At, Staged};
use crate::stages::mounts;

const STAGE: SetupStage = SetupStage::Mount;
/// Read-only: what a run could turn knobs with if its uid were ever mistaken.
const READ_ONLY: [&str; 1] = ["/proc/sys"];
/// Masked by a device node that a `nodev` mount won't open.
const MASKED: [&str; 5] =
    ["/proc/kcore", "/proc/keys", "/proc/key-users", "/proc/sysrq-trigger", "/proc/timer_list"];

/// Mounts `/proc` of the calling process's pid namespace over `/proc`, and gives a descriptor of it.
pub(crate) fn mount() -> Staged<OwnedFd> {
    let set = mounts::INERT | libc::MOUNT_ATTR_NOEXEC;
    let proc = mounts::filesystem("proc", &[], set).at(STAGE, "/proc")?;
    let point = open("/proc").at(STAGE, "/proc")?;
    mounts::attach(proc.as_fd(), point.as_fd()).at(STAGE, "/proc")?;
    for path in READ_ONLY {
        let tree = clone(path).at(STAGE, path)?;
        mounts::restrict_tree(tree.as_fd(), set | libc::MOUNT_ATTR_RDONLY, None).at(STAGE, path)?;
        let point = open(path).at(STAGE, path)?;
        mounts::attach(tree.as_fd(), point.as_fd()).at(STAGE, path)?;
    }
    for path in MASKED {
        // Which of them exist depends on the kernel's configuration.
        let Ok(point) = open(path) else { continue };
        let Ok(tree) = clone("/dev/null") else { break };
        mounts::restrict_tree(tree.as_fd(), set | libc::MOUNT_ATTR_RDONLY, None).at(STAGE, path)?;
        mounts::attach(tree.as_fd(), point.as_fd()).at(STAGE, path)?;
    }
    Ok(proc)
}

fn open(path: &str) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn clone(path: &str) -> rustix::io::Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(CWD, path, flags)
}
