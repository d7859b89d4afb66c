//! Opens every bind's source as the owner, so that a run never sees what its owner couldn't.
//!
//! In the system plan the template is root, so a child of it, the *opener*, takes the owner's uid, gids and groups
//! for good, opens the paths (`O_PATH`, last component not followed) and sends the descriptors up. A dead FUSE or
//! NFS mount stops that child and its template, which the launcher can kill, and nobody else. In the user plan the
//! template already is the owner.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::unistd::{Gid, Uid};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use stockade_protocol::Bytes;
use stockade_protocol::bounds::MAX_DESCRIPTORS;
use stockade_protocol::confinement::Plan;
use stockade_protocol::launch::Owner;
use stockade_protocol::outcome::{SetupFailure, SetupStage};
use stockade_protocol::spec::{Mount, MountKind, SandboxSpec};
use stockade_wire::channel::Channel;
use stockade_wire::socket;

use crate::failure::{At, Staged, failed};
use crate::messages::{self, Prepare};
use crate::stages::foundation::Laid;
use crate::stages::guard::is_beneath;
use crate::stages::listing::{Listing, WORTH_IT};
use crate::stages::mounts;
use crate::stages::placeholder::{self, Held, Placed};
use crate::sys::{self, Cloned};

/// What the source of one mount of the spec is.
#[derive(Debug)]
pub(crate) enum Source {
    /// Opened.
    Open(OwnedFd),
    /// A symbolic link with this text.
    Link(Vec<u8>),
    /// Nothing is there, or nothing that the owner may reach.
    Absent,
    /// The mount needs none.
    Unneeded,
    /// It's in the foundation.
    Laid,
}

/// What was opened, and what was put in place of denied paths that don't exist.
#[derive(Debug)]
pub(crate) struct Sources {
    /// One a mount of the spec, in its order.
    pub(crate) sources: Vec<Source>,
    /// Placeholders.
    pub(crate) placed: Placed,
    /// What is to be guarded beside what the spec names.
    pub(crate) led_to: LedTo,
    /// Guarded paths in the workspace where nothing is, and that no link leads to.
    pub(crate) missing: HashSet<Bytes>,
}

/// What guarded paths lead to by links of the host: guarded like them.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct LedTo {
    denied: Vec<Bytes>,
    protected: Vec<Bytes>,
}

impl LedTo {
    /// Adds them to the spec's own.
    pub(crate) fn extend(self, spec: &mut Arc<SandboxSpec>) {
        if self.denied.is_empty() && self.protected.is_empty() {
            return;
        }
        let spec = Arc::make_mut(spec);
        spec.deny.extend(self.denied);
        spec.protect.extend(self.protected);
    }
}

/// A source in a message; the descriptors come beside it.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Open,
    Link(Vec<u8>),
    Absent,
    Unneeded,
    Laid,
}

#[derive(Debug, Serialize, Deserialize)]
enum Batch {
    Sources(Vec<Answer>),
    /// Placeholders; a lock for each beside it.
    Held(Vec<Bytes>),
    /// The last: directories made for placeholders, and what else is to be guarded.
    Made {
        made: Vec<Bytes>,
        led_to: LedTo,
        missing: HashSet<Bytes>,
    },
    Failed(SetupFailure),
}

/// Opens the sources as the owner: by an opener where the caller is another user, else directly. `laid`: what needs none.
///
/// # Errors
/// `Open` with the path that couldn't be opened.
pub(crate) fn open(prepare: &Prepare, workspace: Option<OwnedFd>, laid: Option<&Laid>) -> Staged<Sources> {
    if prepare.plan == Plan::System && prepare.owner.uid != 0 {
        return through_opener(prepare, workspace, laid);
    }
    directly(prepare, workspace, laid)
}

fn directly(prepare: &Prepare, workspace: Option<OwnedFd>, laid: Option<&Laid>) -> Staged<Sources> {
    let spec = &prepare.spec;
    let sources = open_all(prepare, workspace, laid)?;
    let mut look = Look::new(spec, &sources);
    let led_to = look.led_to();
    let missing = look.missing;
    let placed = placeholder::place(spec, &led_to.denied)?;
    Ok(Sources { sources, placed, led_to, missing })
}

/// Looks up what is to be guarded, on the host and as the owner: what the owner can't reach, the run can't either.
struct Look<'a> {
    spec: &'a SandboxSpec,
    /// The workspace as it was opened, and its path: most of what is protected lies there.
    top: Option<(&'a Bytes, &'a OwnedFd)>,
    /// What is in it.
    names: Listing,
    missing: HashSet<Bytes>,
}

impl<'a> Look<'a> {
    fn new(spec: &'a SandboxSpec, sources: &'a [Source]) -> Self {
        let workspace =
            spec.mounts.iter().zip(sources).find_map(|(mount, source)| match (&mount.kind, source) {
                (MountKind::Workspace, Source::Open(fd)) => Some((&mount.target, fd)),
                _ => None,
            });
        // With a link on the way to it every path beneath it leads elsewhere.
        let plain =
            |(path, _): &(&Bytes, &OwnedFd)| lookup(CWD, path.as_path(), ResolveFlags::empty()).is_ok();
        let top = workspace.filter(plain);
        let names = top.filter(|_| spec.protect.len() >= WORTH_IT);
        let names = names.map(|(_, fd)| Listing::of(fd, Path::new("."))).unwrap_or_default();
        Self { spec, top, names, missing: HashSet::with_capacity(spec.protect.len()) }
    }

    /// What guarded paths lead to by links of the host, where that is another path and a host's file of the spec: a rule
    /// that names `/var/run/x` means `/run/x`, too.
    fn led_to(&mut self) -> LedTo {
        let spec = self.spec;
        let denied = spec.deny.iter().chain(&spec.deny_elsewhere);
        LedTo {
            denied: denied.filter_map(|path| self.elsewhere(path, &spec.deny)).collect(),
            protected: spec.protect.iter().filter_map(|path| self.elsewhere(path, &spec.protect)).collect(),
        }
    }

    fn elsewhere(&mut self, path: &Bytes, known: &[Bytes]) -> Option<Bytes> {
        let beneath = self.top.and_then(|(top, fd)| {
            let rest = path.strip_prefix(&top.0[..])?.strip_prefix(b"/")?;
            Some((fd, Path::new(OsStr::from_bytes(rest))))
        });
        if beneath.is_some_and(|(_, rest)| is_lacking(&self.names, rest)) {
            self.missing.insert(path.clone());
            return None;
        }
        let found = match beneath {
            Some((fd, rest)) => lookup(fd.as_fd(), rest, ResolveFlags::BENEATH),
            None => lookup(CWD, path.as_path(), ResolveFlags::empty()),
        };
        match found {
            // No link on the way, as far as there is one.
            Ok(_) | Err(Errno::NOTDIR | Errno::ACCESS) => return None,
            Err(Errno::NOENT) => {
                if beneath.is_some() {
                    self.missing.insert(path.clone());
                }
                return None;
            }
            // A link (ELOOP), or what only the long way can tell.
            Err(_) => {}
        }
        let real = Bytes::from(real(path.as_path())?);
        let holder = placeholder::holder(self.spec, &real)?;
        let on_host = matches!(holder.kind, MountKind::Workspace | MountKind::Bind { .. });
        (on_host && !known.contains(&real)).then_some(real)
    }
}

/// Whether a relative path certainly leads nowhere, by a listing of where it begins.
fn is_lacking(names: &Listing, path: &Path) -> bool {
    path.iter().next().is_some_and(|first| names.lacks(first.as_bytes()))
}

/// Looks a path up that leads over no link.
fn lookup(from: BorrowedFd<'_>, path: &Path, how: ResolveFlags) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::openat2(from, path, flags, Mode::empty(), how | ResolveFlags::NO_SYMLINKS)
}

/// A path with every link in what exists of it resolved.
fn real(path: &Path) -> Option<PathBuf> {
    path.ancestors().find_map(|above| {
        let rest = path.strip_prefix(above).ok()?;
        let real = std::fs::canonicalize(above).ok()?;
        // Joined with nothing a path gets a slash at its end.
        Some(if rest.as_os_str().is_empty() { real } else { real.join(rest) })
    })
}

fn open_all(prepare: &Prepare, mut workspace: Option<OwnedFd>, laid: Option<&Laid>) -> Staged<Vec<Source>> {
    let home = prepare.normalised_home();
    let in_home = |mount: &&Mount| is_beneath(&mount.target, &home);
    let many = prepare.spec.mounts.iter().filter(in_home).count() >= WORTH_IT;
    let names = if many { Listing::of(CWD, home.as_path()) } else { Listing::default() };
    let is_lacking = |path: &Bytes| {
        let rest = Some(path).filter(|path| is_beneath(path, &home)).and_then(|path| path.get(home.len()..));
        let rest = rest.map(|rest| rest.strip_prefix(b"/").unwrap_or(rest));
        rest.is_some_and(|rest| is_lacking(&names, Path::new(OsStr::from_bytes(rest))))
    };
    prepare
        .spec
        .mounts
        .iter()
        .enumerate()
        .map(|(at, mount)| match &mount.kind {
            _ if laid.is_some_and(|laid| laid.has(at)) => Ok(Source::Laid),
            MountKind::Workspace => match workspace.take() {
                Some(passed) => Ok(Source::Open(passed)),
                None => match open_one(mount.target.as_path(), false)? {
                    Source::Absent => Err(failed(SetupStage::Open, libc::ENOENT, mount.target.clone())),
                    other => Ok(other),
                },
            },
            MountKind::Bind { create: false } if is_lacking(&mount.target) => Ok(Source::Absent),
            MountKind::Bind { create } => open_one(mount.target.as_path(), *create),
            _ => Ok(Source::Unneeded),
        })
        .collect()
}

fn open_one(path: &Path, create: bool) -> Staged<Source> {
    if create {
        make_if_permitted(path)?;
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
        Ok(fd) => {
            let status = mounts::status(&fd).at(SetupStage::Open, path)?;
            if !mounts::is_symlink(&status) {
                return Ok(Source::Open(fd));
            }
            let text = rustix::fs::readlinkat(&fd, "", Vec::new()).at(SetupStage::Open, path)?;
            Ok(Source::Link(text.into_bytes()))
        }
        // Nothing is granted for what the owner can't reach; `Confinement` lists it.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => Ok(Source::Absent),
        Err(errno) => Err(failed(SetupStage::Open, errno.raw_os_error(), path)),
    }
}

/// Makes the directories that the spec wants made, where no root is built that would need them opened.
pub(crate) fn make_wanted(spec: &SandboxSpec) -> Staged<()> {
    let wanted = spec.mounts.iter().filter(|mount| mount.kind == MountKind::Bind { create: true });
    wanted.map(|mount| mount.target.as_path()).try_for_each(make_if_permitted)
}

/// As [`make_directories`]; where the owner may not (an account without a home), the path stays absent, so nothing is
/// granted for it.
fn make_if_permitted(path: &Path) -> Staged<()> {
    match make_directories(path) {
        Err(failure) if matches!(failure.errno, libc::EACCES | libc::EPERM | libc::EROFS | libc::ENOTDIR) => {
            Ok(())
        }
        made => made,
    }
}

/// Makes a private directory and those above it that don't exist.
fn make_directories(path: &Path) -> Staged<()> {
    let mut missing: Vec<&Path> = path.ancestors().take_while(|p| !p.exists()).collect();
    while let Some(directory) = missing.pop() {
        match rustix::fs::mkdir(directory, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed(SetupStage::Open, errno.raw_os_error(), directory)),
        }
    }
    Ok(())
}

fn through_opener(prepare: &Prepare, workspace: Option<OwnedFd>, laid: Option<&Laid>) -> Staged<Sources> {
    const STAGE: SetupStage = SetupStage::Open;
    let (ours, theirs) = socket::seqpacket_pair().at(STAGE, "opener")?;
    // Whoever is left of it when the template ends is the launcher's orphan, who reaps it.
    let Cloned::Parent { .. } = sys::clone_process(0, None).at(STAGE, "opener")? else {
        drop(ours);
        let channel = Channel::new(theirs);
        let outcome = become_owner(&prepare.owner)
            .and_then(|()| directly(prepare, workspace, laid))
            .and_then(|sources| answer(&channel, sources));
        if let Err(failure) = outcome {
            // If even this can't be sent, the template sees the end of the channel.
            drop(channel.send(&Batch::Failed(failure), &[]));
        }
        crate::role::leave(0);
    };
    drop(theirs);
    drop(workspace);
    collect(&Channel::new(ours), prepare.spec.mounts.len())
}

/// Takes the owner's identity for good: groups, gid, uid, each real, effective and saved.
pub(crate) fn become_owner(owner: &Owner) -> Staged<()> {
    const STAGE: SetupStage = SetupStage::Identity;
    let groups: Vec<Gid> = owner.groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    nix::unistd::setgroups(&groups).at(STAGE, "supplementary groups")?;
    nix::unistd::setresgid(gid, gid, gid).at(STAGE, "gid")?;
    nix::unistd::setresuid(uid, uid, uid).at(STAGE, "uid")
}

fn answer(channel: &Channel, sources: Sources) -> Staged<()> {
    // As the owner, whose other descriptors that are on their way in sockets count with these.
    let send = |batch: &Batch, beside: &[BorrowedFd<'_>]| {
        messages::send(channel, batch, beside).at(SetupStage::Open, "opener")
    };
    let Sources { sources, placed, led_to, missing } = sources;
    for batch in batches(sources) {
        let mut descriptors = Vec::new();
        let answers = batch
            .into_iter()
            .map(|source| match source {
                Source::Open(fd) => {
                    descriptors.push(fd);
                    Answer::Open
                }
                Source::Link(text) => Answer::Link(text),
                Source::Absent => Answer::Absent,
                Source::Unneeded => Answer::Unneeded,
                Source::Laid => Answer::Laid,
            })
            .collect();
        let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        send(&Batch::Sources(answers), &borrowed)?;
    }
    for batch in batches(placed.held) {
        let borrowed: Vec<_> = batch.iter().map(|held| held.lock.as_fd()).collect();
        let paths = batch.iter().map(|held| held.path.clone()).collect();
        send(&Batch::Held(paths), &borrowed)?;
    }
    let last = Batch::Made { made: placed.made, led_to, missing };
    send(&last, &[])
}

/// Pieces small enough that each one's descriptors fit beside one message.
pub(crate) fn batches<T>(mut all: Vec<T>) -> Vec<Vec<T>> {
    let mut batches = Vec::new();
    while all.len() > MAX_DESCRIPTORS {
        let rest = all.split_off(MAX_DESCRIPTORS);
        batches.push(core::mem::replace(&mut all, rest));
    }
    if !all.is_empty() {
        batches.push(all);
    }
    batches
}

fn collect(channel: &Channel, count: usize) -> Staged<Sources> {
    let gone = || failed(SetupStage::Open, libc::EPIPE, "opener");
    let mut sources = Vec::with_capacity(count);
    let mut placed = Placed::default();
    loop {
        let (batch, descriptors) = channel.receive::<Batch>().map_err(|_| gone())?.ok_or_else(gone)?;
        let mut descriptors = descriptors.into_iter();
        match batch {
            Batch::Sources(answers) => {
                for answer in answers {
                    sources.push(match answer {
                        Answer::Open => Source::Open(descriptors.next().ok_or_else(gone)?),
                        Answer::Link(text) => Source::Link(text),
                        Answer::Absent => Source::Absent,
                        Answer::Unneeded => Source::Unneeded,
                        Answer::Laid => Source::Laid,
                    });
                }
            }
            Batch::Held(paths) => {
                placed
                    .held
                    .extend(paths.into_iter().zip(descriptors).map(|(path, lock)| Held { path, lock }));
            }
            Batch::Made { made, led_to, missing } if sources.len() == count => {
                placed.made = made;
                return Ok(Sources { sources, placed, led_to, missing });
            }
            Batch::Made { .. } => return Err(gone()),
            Batch::Failed(failure) => return Err(failure),
        }
    }
}
