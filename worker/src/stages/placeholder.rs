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
//! removes nothing that has content. The directories above it that had to be made tell themselves in the same way,
//! by [`ABOVE`], and go with the last placeholder beneath them.
//!
//! Nothing is reached by its whole path: a run may swap a directory for a link meanwhile. Down from the top of the
//! mount it goes by openat2(2) without links, up from a placeholder by `..` of its descriptor.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
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
/// Sticky and its owner's: directories above a placeholder that didn't exist. Whoever puts something there keeps it.
const ABOVE: u32 = 0o1700;
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
        let Some(mount) = holder(spec, path).filter(|mount| is_writable_bind(mount)) else { continue };
        let Ok(rest) = path.as_path().strip_prefix(mount.target.as_path()) else { continue };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(mount.target.as_path(), flags, Mode::empty()) {
            Ok(top) => place_one(&top, rest, path, &mut placed)?,
            // A bind of a file has nothing beneath it; one of nothing is refused where it is opened.
            Err(Errno::NOTDIR | Errno::NOENT) => {}
            Err(errno) => return Err(errno).at(STAGE, path.clone()),
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

fn place_one(top: &OwnedFd, rest: &Path, path: &Bytes, placed: &mut Placed) -> Staged<()> {
    if rest.file_name().is_none() {
        return Ok(());
    }
    for _ in 0..TRIES {
        match open(top, rest, OFlags::PATH) {
            Ok(there) if has_mode(&there, MARK) => {}
            Ok(_) => return Ok(()),
            Err(Errno::NOENT) => make(top, rest, path)?,
            // Beneath something that isn't a directory nothing can come to be while that stands, and it's pinned;
            // where a link leads to is held for itself.
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            Err(errno) => return Err(errno).at(STAGE, path.clone()),
        }
        if let Some(lock) = lock(top, rest, path)? {
            take_over(&lock, rest, path, placed);
            placed.held.push(Held { path: path.clone(), lock });
            return Ok(());
        }
    }
    Err(failed(STAGE, libc::EAGAIN, path.clone()))
}

/// Opens what is beneath a directory, through no link.
fn open(top: &OwnedFd, rest: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(top, rest, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), how)
}

/// Whether it is a directory of this mode.
fn has_mode(directory: &OwnedFd, mode: u32) -> bool {
    rustix::fs::fstat(directory)
        .is_ok_and(|there| FileType::from_raw_mode(there.st_mode).is_dir() && there.st_mode & 0o7777 == mode)
}

/// Makes a placeholder and what is missing above it, step by step from directories that are held.
fn make(top: &OwnedFd, rest: &Path, path: &Bytes) -> Staged<()> {
    let mut here = top.try_clone().at(STAGE, path.clone())?;
    for name in rest.parent().into_iter().flatten() {
        match rustix::fs::mkdirat(&here, name, Mode::from_raw_mode(ABOVE)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).at(STAGE, path.clone()),
        }
        here = match open(&here, Path::new(name), OFlags::PATH | OFlags::DIRECTORY) {
            Ok(next) => next,
            // Something else has come to be there: the next try sees what.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            Err(errno) => return Err(errno).at(STAGE, path.clone()),
        };
    }
    let Some(name) = rest.file_name() else { return Ok(()) };
    match rustix::fs::mkdirat(&here, name, Mode::from_raw_mode(MARK)) {
        // NOENT: what is above has been swept, and is made again by the next try.
        Ok(()) | Err(Errno::EXIST | Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno).at(STAGE, path.clone()),
    }
}

/// Notes the directories above a placeholder that are there for placeholders only, whoever made them.
fn take_over(lock: &OwnedFd, rest: &Path, path: &Bytes, placed: &mut Placed) {
    let mut above = Vec::new();
    let mut here = up(lock);
    // Never the top of the mount itself.
    let beneath = rest.components().count();
    for directory in path.as_path().ancestors().take(beneath).skip(1) {
        let Some(there) = here.filter(|there| has_mode(there, ABOVE)) else { break };
        above.push(Bytes::from(directory));
        here = up(&there);
    }
    above.retain(|directory| !placed.made.contains(directory));
    placed.made.extend(above.into_iter().rev());
}

/// The directory above one.
fn up(directory: &OwnedFd) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(directory, "..", flags, Mode::empty()).ok()
}

/// A shared lock on a placeholder; `None` if it is being removed.
fn lock(top: &OwnedFd, rest: &Path, path: &Bytes) -> Staged<Option<OwnedFd>> {
    let directory = match open(top, rest, OFlags::RDONLY | OFlags::DIRECTORY) {
        Ok(directory) => directory,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        Err(errno) => return Err(errno).at(STAGE, path.clone()),
    };
    match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None),
        Err(errno) => return Err(errno).at(STAGE, path.clone()),
    }
    let links = rustix::fs::fstat(&directory).at(STAGE, path.clone())?.st_nlink;
    Ok((links > 0 && has_mode(&directory, MARK)).then_some(directory))
}

/// The sweeper's life: removes what was placed for a run that has ended, as far as nobody else holds it and nothing
/// is in it. What can't be removed stays: it's the user's by then, or another run's.
pub(crate) fn sweep(channel: OwnedFd) -> std::process::ExitCode {
    let channel = Channel::new(channel);
    let mut is_owner = false;
    let mut above = Vec::new();
    while let Ok(Some((sweep, locks))) = channel.receive::<Sweep>() {
        let privileged = rustix::process::geteuid().is_root() && sweep.owner.uid != 0;
        if privileged && !is_owner && sources::become_owner(&sweep.owner).is_err() {
            return std::process::ExitCode::FAILURE;
        }
        is_owner = true;
        for (path, lock) in sweep.held.iter().zip(locks) {
            above.extend(remove(path.as_path(), &lock));
        }
        // In the last message, after every placeholder.
        if !sweep.made.is_empty() {
            above.drain(..).for_each(|(directory, here): (PathBuf, _)| climb(&directory, here, &sweep.made));
        }
    }
    std::process::ExitCode::SUCCESS
}

/// Removes a placeholder that nobody else holds. The directory above it.
fn remove(path: &Path, lock: &OwnedFd) -> Option<(PathBuf, OwnedFd)> {
    rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive).ok()?;
    let above = remove_one(path, lock, MARK)?;
    Some((path.parent()?.to_owned(), above))
}

/// Removes what was made above a placeholder, up to the first that has content.
fn climb(directory: &Path, mut here: OwnedFd, made: &[Bytes]) {
    let is_made = |directory: &&Path| made.iter().any(|made| made.as_path() == *directory);
    for directory in directory.ancestors().take_while(is_made) {
        let Some(above) = remove_one(directory, &here, ABOVE) else { return };
        here = above;
    }
}

/// Removes a directory of this mode, if it is empty and still has its name. The one above it.
fn remove_one(path: &Path, here: &OwnedFd, mode: u32) -> Option<OwnedFd> {
    let (above, name) = (up(here)?, path.file_name()?);
    let is_it = has_mode(here, mode) && is_at(here, &above, name);
    (is_it && rustix::fs::unlinkat(&above, name, AtFlags::REMOVEDIR).is_ok()).then_some(above)
}

/// Whether a directory has this name in the one above it.
fn is_at(directory: &OwnedFd, above: &OwnedFd, name: &OsStr) -> bool {
    let named = rustix::fs::statat(above, name, AtFlags::SYMLINK_NOFOLLOW);
    let itself = rustix::fs::fstat(directory);
    matches!((named, itself), (Ok(a), Ok(b)) if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir, create_dir_all, rename, write};
    use std::os::unix::fs::symlink;

    use super::*;

    /// A tree with a folder to place in, and another that must stay as it is.
    struct Ground {
        _all: tempfile::TempDir,
        top: PathBuf,
        elsewhere: PathBuf,
    }

    impl Ground {
        fn new() -> Self {
            let all = tempfile::tempdir().unwrap();
            let (top, elsewhere) = (all.path().join("top"), all.path().join("elsewhere"));
            create_dir(&top).unwrap();
            create_dir(&elsewhere).unwrap();
            Self { _all: all, top, elsewhere }
        }

        fn place(&self, rest: &str) -> Placed {
            let top = rustix::fs::open(&self.top, OFlags::PATH, Mode::empty()).unwrap();
            let mut placed = Placed::default();
            place_one(&top, Path::new(rest), &self.path(rest), &mut placed).unwrap();
            placed
        }

        fn path(&self, rest: &str) -> Bytes {
            Bytes::from(self.top.join(rest))
        }

        fn is_bare(&self) -> bool {
            self.top.read_dir().unwrap().count() == 0
        }
    }

    fn sweep(placed: Placed) {
        let made = placed.made;
        let removed = placed.held.into_iter().filter_map(|held| remove(held.path.as_path(), &held.lock));
        let above: Vec<_> = removed.collect();
        above.into_iter().for_each(|(directory, here)| climb(&directory, here, &made));
    }

    #[test]
    fn a_placeholder_and_what_was_made_above_it_go_together() {
        let ground = Ground::new();
        let placed = ground.place("a/b/c");
        assert!(ground.top.join("a/b/c").is_dir());
        assert_eq!(placed.made, [ground.path("a"), ground.path("a/b")]);
        sweep(placed);
        assert!(ground.is_bare());
    }

    #[test]
    fn what_a_crash_has_left_goes_with_the_next_run() {
        let ground = Ground::new();
        drop(ground.place("a/b/c"));
        // Before the placeholder was made, too.
        create_dir_all(ground.top.join("d/e")).unwrap();
        for left in ["d", "d/e"] {
            rustix::fs::chmod(ground.top.join(left), Mode::from_raw_mode(ABOVE)).unwrap();
        }
        sweep(ground.place("a/b/c"));
        sweep(ground.place("d/e/f"));
        assert!(ground.is_bare());
    }

    #[test]
    fn the_last_of_two_runs_removes_what_the_first_has_made() {
        let ground = Ground::new();
        let (first, second) = (ground.place("a/b/c"), ground.place("a/b/c"));
        sweep(first);
        assert!(ground.top.join("a/b/c").is_dir(), "the second holds it");
        sweep(second);
        assert!(ground.is_bare());
    }

    #[test]
    fn what_has_content_or_was_there_stays() {
        let ground = Ground::new();
        let placed = ground.place("a/b/c");
        write(ground.top.join("a/kept"), "").unwrap();
        sweep(placed);
        assert!(ground.top.join("a/kept").exists());
        assert!(!ground.top.join("a/b").exists());
        create_dir(ground.top.join("old")).unwrap();
        sweep(ground.place("old/c"));
        assert!(ground.top.join("old").exists());
    }

    #[test]
    fn the_top_stays_whatever_its_mode() {
        let ground = Ground::new();
        rustix::fs::chmod(&ground.top, Mode::from_raw_mode(ABOVE)).unwrap();
        sweep(ground.place("a/b"));
        assert!(ground.is_bare());
    }

    #[test]
    fn a_link_on_the_way_leads_nowhere() {
        let ground = Ground::new();
        symlink(&ground.elsewhere, ground.top.join("a")).unwrap();
        for rest in ["a/b", "a/b/c"] {
            assert!(ground.place(rest).held.is_empty());
        }
        assert_eq!(ground.elsewhere.read_dir().unwrap().count(), 0);
    }

    #[test]
    fn a_link_that_was_put_in_place_of_a_directory_misleads_no_sweep() {
        let ground = Ground::new();
        let placed = ground.place("a/b/c");
        create_dir_all(ground.elsewhere.join("b/c")).unwrap();
        for (like, mode) in [("b", ABOVE), ("b/c", MARK)] {
            rustix::fs::chmod(ground.elsewhere.join(like), Mode::from_raw_mode(mode)).unwrap();
        }
        rename(ground.top.join("a"), ground.top.join("moved")).unwrap();
        symlink(&ground.elsewhere, ground.top.join("a")).unwrap();
        sweep(placed);
        assert!(ground.elsewhere.join("b/c").is_dir(), "removed through a link");
        assert!(!ground.top.join("moved/b").exists(), "the real one is removed where it is");
    }
}
