//! Deny inside allow, on a live tree: masks on denied paths, read-only binds on protected ones, and every ancestor
//! bound onto itself.
//!
//! A mount point can't be renamed, unlinked or linked away from inside its mount namespace (`EBUSY`, `EXDEV`), so
//! `mv .git .git2; mkdir -p .git/hooks` fails at its first step. What a mask can't hold: a rename by another
//! program on the host, which detaches the mount (the launcher watches the run's mountinfo), and another hard link
//! to the same file elsewhere in the tree.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use stockade_protocol::Bytes;
use stockade_protocol::outcome::SetupStage;
use stockade_protocol::spec::{MountKind, SandboxSpec};

use crate::failure::{At, Staged, failed};
use crate::stages::mounts;
use crate::sys::{self, MountAttributes};

const STAGE: SetupStage = SetupStage::Guard;
/// The sources of masks: an unreadable directory and file, in the root's own tmpfs until it's finished.
const VOID_DIRECTORY: &str = ".void-directory";
const VOID_FILE: &str = ".void-file";

/// What holds.
#[derive(Debug, Default)]
pub(crate) struct Guards {
    /// Mount points that must stay mounted: masks and pinned ancestors.
    pub(crate) masked: Vec<Bytes>,
    /// Protected paths where nothing exists.
    pub(crate) missing: Vec<Bytes>,
}

/// Masks the spec's denied and protected paths in the root being built. `missing`: where nothing is, as a look-up in
/// the workspace has just told.
///
/// # Errors
/// `Guard` with the path.
pub(crate) fn mask(root: BorrowedFd<'_>, spec: &SandboxSpec, missing: &HashSet<Bytes>) -> Staged<Guards> {
    let mut guards = Guards::default();
    let (nothing, protected) =
        writable(spec, &spec.protect).cloned().partition::<Vec<_>, _>(|path| missing.contains(path));
    guards.missing = nothing;
    let Existing { there: mut protect, stems } = existing(root, &protected, &mut guards.missing)?;
    // `.git` of a work tree is a file that says where hooks and settings are: it's as good as they.
    protect.extend(stems);
    let Existing { there: deny, stems } = existing(root, &spec.deny, &mut Vec::new())?;
    let mut pins = ancestors(spec, protect.iter().chain(&deny).chain(&stems));
    pins.extend(stems);
    for path in pins {
        let here = open(root, &path).at(STAGE, path.clone())?;
        let tree = mounts::clone_tree(here.as_fd()).at(STAGE, path.clone())?;
        attach(&tree, &here, &path)?;
        guards.masked.push(path.into());
    }
    for path in protect {
        let here = open(root, &path).at(STAGE, path.clone())?;
        let tree = mounts::clone_tree(here.as_fd()).at(STAGE, path.clone())?;
        let set = libc::MOUNT_ATTR_RDONLY;
        sys::mount_setattr(tree.as_fd(), true, MountAttributes { set, ..MountAttributes::default() })
            .at(STAGE, path.clone())?;
        attach(&tree, &here, &path)?;
        guards.masked.push(path.into());
    }
    if !deny.is_empty() {
        hide(root, deny, &mut guards)?;
    }
    Ok(guards)
}

fn hide(root: BorrowedFd<'_>, deny: BTreeSet<PathBuf>, guards: &mut Guards) -> Staged<()> {
    let nobody = Mode::empty();
    rustix::fs::mkdirat(root, VOID_DIRECTORY, nobody).at(STAGE, VOID_DIRECTORY)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::openat(root, VOID_FILE, flags, nobody).at(STAGE, VOID_FILE)?;
    for path in deny {
        let here = open(root, &path).at(STAGE, path.clone())?;
        let directory = mounts::is_directory(&mounts::status(&here).at(STAGE, path.clone())?);
        let void = Path::new(if directory { VOID_DIRECTORY } else { VOID_FILE });
        let source = mounts::open_in_nofollow(root, void).at(STAGE, path.clone())?;
        let tree = mounts::clone_tree(source.as_fd()).at(STAGE, path.clone())?;
        let set = mounts::INERT | libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOEXEC;
        mounts::restrict_tree(tree.as_fd(), set, None).at(STAGE, path.clone())?;
        attach(&tree, &here, &path)?;
        guards.masked.push(path.into());
    }
    rustix::fs::unlinkat(root, VOID_DIRECTORY, AtFlags::REMOVEDIR).at(STAGE, VOID_DIRECTORY)?;
    rustix::fs::unlinkat(root, VOID_FILE, AtFlags::empty()).at(STAGE, VOID_FILE)
}

fn attach(tree: &OwnedFd, target: &OwnedFd, path: &Path) -> Staged<()> {
    mounts::attach(tree.as_fd(), target.as_fd()).at(STAGE, path)
}

/// Protected paths matter where something can be changed at all.
fn writable<'a>(spec: &SandboxSpec, paths: &'a [Bytes]) -> impl Iterator<Item = &'a Bytes> {
    paths.iter().filter(|path| {
        let holder = spec.mounts.iter().rev().find(|mount| is_beneath(path, &mount.target));
        holder.is_some_and(|mount| mount.access.write)
    })
}

/// What there is of some paths, parents first.
#[derive(Debug, Default)]
struct Existing {
    /// Those that exist.
    there: BTreeSet<PathBuf>,
    /// What stands above some of the others and isn't a directory: a file, while which stands they can't come to be, or
    /// a link, which must lead where it did.
    stems: BTreeSet<PathBuf>,
}

/// Looks the paths up; those where nothing is and something could come to be go to `missing`.
fn existing(root: BorrowedFd<'_>, paths: &[Bytes], missing: &mut Vec<Bytes>) -> Staged<Existing> {
    let mut existing = Existing::default();
    for path in paths {
        match open(root, path.as_path()) {
            // A link is guarded as the link it is; what it leads to is guarded beside it (`sources::LedTo`).
            Ok(_) => drop(existing.there.insert(path.as_path().to_owned())),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT) => missing.push(path.clone()),
                Some(libc::ELOOP) => existing.stems.extend([link(root, path)?]),
                Some(libc::ENOTDIR) => existing.stems.extend(stem(root, path.as_path())),
                _ => return Err(error).at(STAGE, path.clone()),
            },
        }
    }
    Ok(existing)
}

/// The first link on the way to a path.
fn link(root: BorrowedFd<'_>, path: &Bytes) -> Staged<PathBuf> {
    let mut way: Vec<&Path> = path.as_path().ancestors().collect();
    way.reverse();
    let is_link = |here: &&&Path| {
        open(root, here).and_then(|fd| mounts::status(&fd)).is_ok_and(|status| mounts::is_symlink(&status))
    };
    let found = way.iter().find(is_link).map(|here| (*here).to_owned());
    found.ok_or_else(|| failed(STAGE, libc::ELOOP, path.clone()))
}

/// The lowest thing there is above a path where nothing is.
fn stem(root: BorrowedFd<'_>, path: &Path) -> Option<PathBuf> {
    path.ancestors().skip(1).find(|above| open(root, above).is_ok()).map(Path::to_owned)
}

/// Everything between a guarded path and the top of the mount that holds it, parents first.
fn ancestors<'a>(spec: &SandboxSpec, paths: impl Iterator<Item = &'a PathBuf>) -> BTreeSet<PathBuf> {
    let mut pins = BTreeSet::new();
    for path in paths {
        let bytes = path.as_os_str().as_bytes();
        let holds = |top: &&Bytes| is_beneath(bytes, top) && bytes != &top.0[..];
        let tops = spec.mounts.iter().filter(|m| m.kind != MountKind::Proc).map(|m| &m.target);
        let Some(top) = tops.filter(holds).max_by_key(|top| top.len()) else { continue };
        let between = path.ancestors().skip(1).take_while(|ancestor| *ancestor != top.as_path());
        pins.extend(between.map(Path::to_owned));
    }
    pins
}

/// Whether a normalised path is `top` or lies beneath it. Bytes, since it is asked for every path and mount.
pub(crate) fn is_beneath(path: &[u8], top: &[u8]) -> bool {
    match path.get(top.len()) {
        // Looked at first, because most paths differ here already.
        Some(b'/') => path.starts_with(top),
        None => path == top,
        Some(_) => top == b"/",
    }
}

/// Opens a path inside without following any link.
fn open(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    Ok(rustix::fs::openat2(root, path, flags, Mode::empty(), how)?)
}
