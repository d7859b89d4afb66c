//! The run's own `/proc`: its pid namespace's, `/proc/sys` read-only, and a few files that tell of the machine
//! masked.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Access, AtFlags, CWD};
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

/// The node that masks. A policy may have none, and no masks then.
const NOTHING: &str = "/dev/null";

/// Mounts `/proc` of the calling process's pid namespace over `/proc`, and gives a descriptor of it.
pub(crate) fn mount() -> Staged<OwnedFd> {
    let set = mounts::INERT | libc::MOUNT_ATTR_NOEXEC;
    let proc = mounts::filesystem("proc", &[], set).at(STAGE, "/proc")?;
    mounts::attach_at(proc.as_fd(), CWD, "/proc").at(STAGE, "/proc")?;
    let restricted = |source: &str, path: &str| {
        let tree = clone(source).at(STAGE, path)?;
        mounts::restrict_tree(tree.as_fd(), set | libc::MOUNT_ATTR_RDONLY, None).at(STAGE, path)?;
        Ok(tree)
    };
    for path in READ_ONLY {
        let tree = restricted(path, path)?;
        mounts::attach_at(tree.as_fd(), CWD, path).at(STAGE, path)?;
    }
    if rustix::fs::accessat(CWD, NOTHING, Access::EXISTS, AtFlags::empty()).is_err() {
        return Ok(proc);
    }
    let mut left = None;
    for path in MASKED {
        let tree = left.take().map_or_else(|| restricted(NOTHING, path), Ok)?;
        match mounts::attach_at(tree.as_fd(), CWD, path) {
            Ok(()) => {}
            // Which of them exist depends on the kernel's configuration.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => left = Some(tree),
            Err(error) => return Err(error).at(STAGE, path),
        }
    }
    Ok(proc)
}

fn clone(path: &str) -> rustix::io::Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(CWD, path, flags)
}
