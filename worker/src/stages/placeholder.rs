//! Placeholders: empty directories that hold the place of denied paths where nothing exists yet, so that a mask has
//! something to stand on and a run can't make what it was denied.
//!
//! ```text
//! place (as the owner, before the mounts) ── shared lock held by the launcher ── sweep (as the owner, at the end)
//! ```
//!
//! A placeholder tells itself from anything of the user's: an empty directory of mode [`MARK`]. So no journal can
//! be lost: whatever a crash leaves behind is taken over, and swept, by the next run that denies the same path. Runs
//! that share one hold shared `flock`s on it; only who gets the exclusive one removes it, with `rmdir`, which
//! removes nothing that has content.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};
use stockade_protocol::Bytes;
use stockade_protocol::outcome::SetupStage;
use stockade_protocol::spec::{Mount, MountKind, SandboxSpec};
use stockade_wire::channel::Channel;

use crate::failure::{At, Staged, failed};
use crate::messages::Sweep;
use crate::stages::{guard, sources};

const STAGE: SetupStage = SetupStage::Guard;
/// Sticky, readable for its owner, writable for nobody: a mode that people don't give to directories.
const MARK: u32 = 0o1500;
/// How often a placeholder may vanish while we lock it (another run's sweep) before we give up.
const TRIES: usize = 16;

/// One path that is held.
#[derive(Debug)]
pub(crate) struct Held {
    /// The placeholder itself.
    pub(crate) path: Bytes,
    /// Its directory, with a shared lock.
    pub(crate) lock: OwnedFd,
}

/// Everything that was placed for one run.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    /// Placeholders, ours or taken over.
    pub(crate) held: Vec<Held>,
    /// Directories above them that didn't exist, topmost first. Left alone if anything comes to be in them.
    pub(crate) made: Vec<Bytes>,
}

/// Makes, or takes over, a placeholder for each denied path of the spec that doesn't exist on a writable bind.
///
/// # Errors
/// `Guard` with the path.
pub(crate) fn place(spec: &SandboxSpec, also_denied: &[Bytes]) -> Staged<Placed> {
    let mut placed = Placed::default();
    for path in spec.deny.iter().chain(also_denied) {
        if holder(spec, path).is_some_and(is_writable_bind) {
            place_one(path, &mut placed)?;
        }
    }
    Ok(placed)
}

/// The mount of the spec that a path lies on.
pub(crate) fn holder<'a>(spec: &'a SandboxSpec, path: &[u8]) -> Option<&'a Mount> {
    let holds = |mount: &&Mount| guard::is_beneath(path, &mount.target);
    spec.mounts.iter().filter(holds).max_by_key(|mount| mount.target.len())
}

fn is_writable_bind(mount: &Mount) -> bool {
    mount.access.write && matches!(mount.kind, MountKind::Workspace | MountKind::Bind { .. })
}

fn place_one(path: &Bytes, placed: &mut Placed) -> Staged<()> {
    let here = path.as_path();
    for _ in 0..TRIES {
        match here.symlink_metadata() {
            Ok(there) if is_mark(&there) => {}
            Ok(_) => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => make(here, placed)?,
            // Beneath something that isn't a directory nothing can come to be while that stands, and it's pinned.
            Err(error) if error.raw_os_error() == Some(libc::ENOTDIR) => return Ok(()),
            Err(error) => return Err(error).at(STAGE, path.clone()),
        }
        if let Some(lock) = lock(here)? {
            placed.held.push(Held { path: path.clone(), lock });
            return Ok(());
        }
    }
    Err(failed(STAGE, libc::EAGAIN, path.clone()))
}

fn is_mark(there: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    there.is_dir() && there.mode() & 0o7777 == MARK
}

fn make(path: &Path, placed: &mut Placed) -> Staged<()> {
    let above = path.parent().into_iter().flat_map(Path::ancestors);
    let missing: Vec<&Path> = above.take_while(|p| p.symlink_metadata().is_err()).collect();
    for directory in missing.into_iter().rev() {
        match rustix::fs::mkdir(directory, Mode::RWXU) {
            Ok(()) => placed.made.push(directory.into()),
            Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => return Err(errno).at(STAGE, directory),
        }
    }
    match rustix::fs::mkdir(path, Mode::from_raw_mode(MARK)) {
        // mkdir(2) doesn't keep the sticky bit everywhere.
        Ok(()) => rustix::fs::chmod(path, Mode::from_raw_mode(MARK)).at(STAGE, path),
        Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno).at(STAGE, path),
    }
}

/// A shared lock on a placeholder; `None` if it is being removed.
fn lock(path: &Path) -> Staged<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
        Ok(directory) => directory,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno).at(STAGE, path),
    };
    match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        Err(errno) => return Err(errno).at(STAGE, path),
    }
    let links = rustix::fs::fstat(&directory).at(STAGE, path)?.st_nlink;
    Ok((links > 0).then_some(directory))
}

/// The sweeper's life: removes what was placed for a run that has ended, as far as nobody else holds it and nothing
/// is in it. What can't be removed stays: it's the user's by then, or another run's.
pub(crate) fn sweep(channel: OwnedFd) -> std::process::ExitCode {
    let channel = Channel::new(channel);
    let mut is_owner = false;
    while let Ok(Some((sweep, locks))) = channel.receive::<Sweep>() {
        let privileged = rustix::process::geteuid().is_root() && sweep.owner.uid != 0;
        if privileged && !is_owner && sources::become_owner(&sweep.owner).is_err() {
            return std::process::ExitCode::FAILURE;
        }
        is_owner = true;
        for (path, lock) in sweep.held.iter().zip(locks) {
            remove(path.as_path(), &lock);
        }
        for path in sweep.made.iter().rev() {
            let _ = rustix::fs::unlinkat(CWD, path.as_path(), AtFlags::REMOVEDIR);
        }
    }
    std::process::ExitCode::SUCCESS
}

fn remove(path: &Path, lock: &OwnedFd) {
    let alone = rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive).is_ok();
    if alone && path.symlink_metadata().is_ok_and(|there| is_mark(&there)) {
        let _ = rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR);
    }
}
