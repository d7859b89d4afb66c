//! Small steps of the mount API (fsopen(2), `open_tree(2)`, `move_mount(2)`, `mount_setattr(2)`) on descriptors.
//!
//! Everything is made detached, given its attributes, and only then attached: nothing is ever visible with more
//! rights than it should have.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};
use stockade_protocol::spec::Access;

use crate::sys::{self, MountAttributes};

/// What every mount of a run is: no setuid, no devices.
pub(crate) const INERT: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;

/// The attributes that an access stands for.
pub(crate) fn attributes(access: Access) -> u64 {
    let mut set = INERT;
    if !access.write {
        set |= libc::MOUNT_ATTR_RDONLY;
    }
    if !access.execute {
        set |= libc::MOUNT_ATTR_NOEXEC;
    }
    set
}

/// A detached tmpfs. `owner`: uid and gid of its root directory, as seen from the mounting user namespace.
pub(crate) fn tmpfs(size: u64, mode: u32, owner: Option<(u32, u32)>, set: u64) -> io::Result<OwnedFd> {
    let mut options = vec![("size", size.to_string()), ("mode", format!("{mode:o}"))];
    if let Some((uid, gid)) = owner {
        options.push(("uid", uid.to_string()));
        options.push(("gid", gid.to_string()));
    }
    // One inode for every 4 KiB, but never fewer than a small program needs: inodes are kernel memory.
    options.push(("nr_inodes", (size / 4096).max(1024).to_string()));
    filesystem("tmpfs", &options, set)
}

/// A detached filesystem of a type that user namespaces may mount.
pub(crate) fn filesystem(kind: &str, options: &[(&str, String)], set: u64) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(&context, *key, value.as_str())?;
    }
    rustix::mount::fsconfig_create(&context)?;
    let flags = MountAttrFlags::from_bits_retain(u32::try_from(set).unwrap_or(u32::MAX));
    Ok(rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags)?)
}

/// A detached copy of what `source` is, submounts included, cut off from propagation.
pub(crate) fn clone_tree(source: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(rustix::mount::open_tree(source, "", flags)?)
}

/// As [`clone_tree`], of what is at an absolute path and no link.
pub(crate) fn clone_tree_at(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    rustix::mount::open_tree(CWD, path, flags)
}

/// Gives a detached tree its attributes, all submounts alike, and makes it private. Flags are only ever added: a
/// submount that was read-only stays so.
pub(crate) fn restrict_tree(tree: BorrowedFd<'_>, set: u64, idmap: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let attributes =
        MountAttributes { set, idmap, propagation: libc::MS_PRIVATE, ..MountAttributes::default() };
    sys::mount_setattr(tree, true, attributes)
}

/// Makes the one mount that `mount` is read-only.
pub(crate) fn seal(mount: BorrowedFd<'_>) -> io::Result<()> {
    let set = libc::MOUNT_ATTR_RDONLY;
    sys::mount_setattr(mount, false, MountAttributes { set, ..MountAttributes::default() })
}

/// Attaches a detached mount onto what `target` is.
pub(crate) fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, "", target, "", flags)?)
}

/// Attaches a detached mount at a path beneath `at`, whose last component isn't followed. For paths that nobody else changes.
pub(crate) fn attach_at(
    mount: BorrowedFd<'_>,
    at: impl AsFd,
    path: impl rustix::path::Arg,
) -> io::Result<()> {
    Ok(rustix::mount::move_mount(mount, "", at, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Opens a path as if `root` were `/`, without following magic links. The last component is followed too.
pub(crate) fn open_in(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    resolve(root, path, OFlags::PATH | OFlags::CLOEXEC)
}

/// As [`open_in`], but the last component is not followed.
pub(crate) fn open_in_nofollow(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    resolve(root, path, OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW)
}

fn resolve(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(root, path, flags, Mode::empty(), how)?)
}

/// What an `O_PATH` descriptor is.
pub(crate) fn status(fd: impl AsFd) -> io::Result<Stat> {
    Ok(rustix::fs::statat(fd, "", AtFlags::EMPTY_PATH)?)
}

/// Whether a status is a directory's.
pub(crate) fn is_directory(status: &Stat) -> bool {
    FileType::from_raw_mode(status.st_mode) == FileType::Directory
}

/// Whether a status is a symbolic link's.
pub(crate) fn is_symlink(status: &Stat) -> bool {
    FileType::from_raw_mode(status.st_mode) == FileType::Symlink
}
