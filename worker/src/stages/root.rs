//! Builds the run's root: a fresh tmpfs with binds, small filesystems and masks, then pivots into it and lets the
//! old root go. Runs in the template, which holds the privilege to mount and executes nothing of the tool's.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use nix::sched::CloneFlags;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use stockade_protocol::Bytes;
use stockade_protocol::confinement::Plan;
use stockade_protocol::outcome::SetupStage;
use stockade_protocol::spec::{Mount, MountKind, SandboxSpec};

use crate::failure::{At, Staged, failed};
use crate::messages::Prepare;
use crate::stages::foundation::{Laid, Place};
use crate::stages::sources::Source;
use crate::stages::{guard, mounts, placeholder};

const STAGE: SetupStage = SetupStage::Mount;
/// Bound of the root's own tmpfs, in bytes: it holds directories and link texts only, then is sealed.
const SKELETON: u64 = 1024 * 1024;
/// Bound of `/dev`'s own tmpfs, in bytes: nodes are binds, so it holds names only, then is sealed.
const DEV: u64 = 256 * 1024;
/// Terminals a run may have at once: all of a machine's come out of one pool (`kernel.pty.max`), which one run could empty.
const TERMINALS: u32 = 128;

/// The process stands in the finished root; the host's is gone from its sight.
#[derive(Debug)]
pub(crate) struct Pivoted {
    /// Binds whose source doesn't exist.
    pub(crate) absent: Vec<Bytes>,
    /// Binds whose source is a link, which was made again; perhaps not all of them.
    pub(crate) links: Vec<Bytes>,
    /// Paths that carry a mask.
    pub(crate) guarded: Vec<Bytes>,
    /// Protected paths that don't exist (yet).
    pub(crate) missing: Vec<Bytes>,
    /// The run's writable tmpfs mounts, for whoever counts its memory.
    pub(crate) tmpfs: Vec<Rc<OwnedFd>>,
}

/// The root while it's being built: attached nowhere that a tool could see.
struct Skeleton<'a> {
    root: Rc<OwnedFd>,
    prepare: &'a Prepare,
    /// Devices of our own filesystems, the only places where directories may be made; whether what is made there
    /// is the run's.
    own: BTreeMap<u64, bool>,
    /// Directories of them that are known: what is made next lies in one of them, and needs no look-up then.
    known: BTreeMap<Vec<u8>, Known>,
    absent: Vec<Bytes>,
    links: Vec<Bytes>,
    tmpfs: Vec<Rc<OwnedFd>>,
}

/// Where something is to be attached: what a descriptor is (no name), or a name that was just made in one of our own.
struct Point {
    at: Rc<OwnedFd>,
    name: OsString,
}

impl Point {
    fn attach(&self, mount: BorrowedFd<'_>) -> io::Result<()> {
        if self.name.is_empty() {
            mounts::attach(mount, self.at.as_fd())
        } else {
            mounts::attach_at(mount, &*self.at, self.name.as_os_str())
        }
    }
}

impl From<Rc<OwnedFd>> for Point {
    fn from(there: Rc<OwnedFd>) -> Self {
        Self { at: there, name: OsString::new() }
    }
}

/// A directory of our own, not covered by any mount.
#[derive(Debug, Clone)]
struct Known {
    directory: Rc<OwnedFd>,
    /// Whether what is made in it is the run's.
    of_run: bool,
}

/// Detached copies of the sources: made while still in the mount namespace that they belong to.
#[derive(Debug)]
pub(crate) struct Trees(Vec<Tree>);

#[derive(Debug)]
enum Tree {
    /// `common`: it's the same for all runs of a template.
    Detached {
        tree: OwnedFd,
        directory: bool,
        common: bool,
    },
    /// It's in the foundation.
    Laid,
    Link(Vec<u8>),
    Absent,
    Unneeded,
}

/// Copies each source into a detached tree with its attributes. The system plan does so before it leaves the
/// initial mount namespace, the user plan after (it may not before).
///
/// # Errors
/// `Mount` (`EINVAL`: a descriptor of another mount namespace) and `Idmap` with the path.
pub(crate) fn detach(prepare: &Prepare, sources: Vec<Source>, idmap: Option<&OwnedFd>) -> Staged<Trees> {
    let (spec, home) = (&prepare.spec, prepare.normalised_home());
    let trees = spec
        .mounts
        .iter()
        .zip(sources)
        .map(|(mount, source)| detach_one(prepare, &home, mount, source, idmap));
    trees.collect::<Staged<Vec<_>>>().map(Trees)
}

fn detach_one(
    prepare: &Prepare,
    home: &Bytes,
    mount: &Mount,
    source: Source,
    idmap: Option<&OwnedFd>,
) -> Staged<Tree> {
    let source = match source {
        Source::Open(fd) => fd,
        Source::Link(text) => return Ok(Tree::Link(text)),
        Source::Absent => return Ok(Tree::Absent),
        Source::Unneeded => return Ok(Tree::Unneeded),
        Source::Laid => return Ok(Tree::Laid),
    };
    let status = mounts::status(&source).at(STAGE, mount.target.clone())?;
    let directory = mounts::is_directory(&status);
    if mount.kind == MountKind::Workspace && !directory {
        return Err(failed(SetupStage::Open, libc::ENOTDIR, mount.target.clone()));
    }
    let owners = guard::is_beneath(&mount.target, home)
        || (prepare.owner.uid != 0 && status.st_uid == prepare.owner.uid);
    let idmap = idmap.filter(|_| mount.access.write || mount.kind == MountKind::Workspace || owners);
    let tree = mounts::clone_tree(source.as_fd()).at(STAGE, mount.target.clone())?;
    let stage = if idmap.is_some() { SetupStage::Idmap } else { STAGE };
    mounts::restrict_tree(tree.as_fd(), mounts::attributes(mount.access), idmap.map(AsFd::as_fd))
        .at(stage, mount.target.clone())?;
    let common = idmap.is_none() && !mount.access.write && mount.kind == MountKind::Bind { create: false };
    Ok(Tree::Detached { tree, directory, common })
}

/// Enters a mount namespace of its own, cut off from propagation in both directions.
pub(crate) fn enter_mount_namespace() -> Staged<()> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).at(SetupStage::Namespaces, "mount")?;
    cut_propagation()
}

/// Makes every mount of this namespace private.
pub(crate) fn cut_propagation() -> Staged<()> {
    use rustix::mount::MountPropagationFlags;
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", flags).at(STAGE, "/")
}

/// Builds the root from the trees and pivots into it. `missing`: guarded paths where nothing is.
///
/// # Errors
/// `Mount` or `Guard` with the path that failed. The process must end then: it stands in a half-built root.
pub(crate) fn build(prepare: &Prepare, trees: Trees, missing: &HashSet<Bytes>) -> Staged<Pivoted> {
    let (mut skeleton, host_proc, devices) = Skeleton::begin(prepare)?;
    let mut devices = devices.into_iter();
    for (mount, tree) in prepare.spec.mounts.iter().zip(trees.0) {
        let nodes = if matches!(mount.kind, MountKind::Dev { .. }) { devices.next() } else { None };
        skeleton.place(mount, tree, nodes, host_proc.as_ref().map(AsFd::as_fd))?;
    }
    skeleton.fill_denied()?;
    let guards = guard::mask(skeleton.root.as_fd(), &prepare.spec, missing)?;
    mounts::seal(skeleton.root.as_fd()).at(STAGE, "/")?;
    let Skeleton { root, absent, links, tmpfs, .. } = skeleton;
    pivot(root.as_fd())?;
    Ok(Pivoted { absent, links, guarded: guards.masked, missing: guards.missing, tmpfs })
}

/// Lays the foundation: takes of the trees what is in it, seals it and pivots into it. What is the run's own is missing.
///
/// # Errors
/// As [`build`].
pub(crate) fn lay(prepare: &Prepare, trees: &mut Trees, opened: Duration) -> Staged<Laid> {
    let spec = &prepare.spec;
    let places = places(spec, trees);
    let (mut skeleton, _, devices) = Skeleton::begin(prepare)?;
    let mut devices = devices.into_iter();
    for ((mount, tree), place) in spec.mounts.iter().zip(&mut trees.0).zip(&places) {
        match (place, &mount.kind) {
            (Place::Laid, MountKind::Dev { .. }) => {
                skeleton.dev(mount, devices.next().unwrap_or_default())?;
                *tree = Tree::Laid;
            }
            (Place::Laid, _) => skeleton.place(mount, core::mem::replace(tree, Tree::Laid), None, None)?,
            (Place::Point { directory }, _) => drop(skeleton.point(&mount.target, *directory)?),
            (Place::Nothing | Place::Above, _) => {}
        }
    }
    mounts::seal(skeleton.root.as_fd()).at(STAGE, "/")?;
    pivot(skeleton.root.as_fd())?;
    Ok(Laid::new(places, skeleton.absent, opened))
}

/// Adds to a copy of the foundation, in which the process stands, what is the run's own.
///
/// # Errors
/// As [`build`].
pub(crate) fn finish(
    prepare: &Prepare,
    trees: Trees,
    missing: &HashSet<Bytes>,
    laid: Laid,
) -> Staged<Pivoted> {
    let root = rustix::fs::openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at(STAGE, "/")?;
    let (own, known) = (BTreeMap::new(), BTreeMap::new());
    let root = Rc::new(root);
    let mut skeleton =
        Skeleton { root, prepare, own, known, absent: laid.absent, links: Vec::new(), tmpfs: Vec::new() };
    for (mount, tree) in prepare.spec.mounts.iter().zip(trees.0) {
        skeleton.place(mount, tree, None, None)?;
    }
    let Skeleton { root, absent, links, tmpfs, .. } = skeleton;
    let guards = guard::mask(root.as_fd(), &prepare.spec, missing)?;
    Ok(Pivoted { absent, links, guarded: guards.masked, missing: guards.missing, tmpfs })
}

/// What of each mount is in the foundation.
fn places<'a>(spec: &'a SandboxSpec, trees: &Trees) -> Vec<Place> {
    let mut own: Vec<&Bytes> = Vec::new();
    let mut place_of = |mount: &'a Mount, tree: &Tree| {
        if own.iter().any(|above| guard::is_beneath(&mount.target, above)) {
            return Place::Above;
        }
        let place = match (&mount.kind, tree) {
            (MountKind::Bind { .. }, Tree::Detached { common: true, .. } | Tree::Link(_))
            | (MountKind::Dev { .. }, _) => return Place::Laid,
            (MountKind::Workspace | MountKind::Bind { .. }, Tree::Detached { directory, .. }) => {
                Place::Point { directory: *directory }
            }
            (MountKind::Tmpfs { .. } | MountKind::Proc, _) => Place::Point { directory: true },
            _ => return Place::Nothing,
        };
        own.push(&mount.target);
        place
    };
    spec.mounts.iter().zip(&trees.0).map(|(mount, tree)| place_of(mount, tree)).collect()
}

impl Trees {
    /// Whether they can be put on a foundation: what it has no place for isn't there, and what it has one for is.
    pub(crate) fn fit(&self, laid: &Laid) -> bool {
        let fits = |(tree, place): (&Tree, &Place)| match (place, tree) {
            (Place::Above, _) | (Place::Laid, Tree::Laid) => true,
            (Place::Point { directory }, Tree::Detached { directory: now, .. }) => directory == now,
            (Place::Point { directory }, Tree::Unneeded) => *directory,
            (Place::Nothing, Tree::Absent) => true,
            _ => false,
        };
        self.0.len() == laid.places.len() && self.0.iter().zip(&laid.places).all(fits)
    }
}

impl<'a> Skeleton<'a> {
    /// An empty root over the old one, the host's `/proc`, and the nodes for each `/dev`.
    fn begin(prepare: &'a Prepare) -> Staged<(Self, Option<OwnedFd>, Vec<Nodes>)> {
        let spec = &prepare.spec;
        let root = mounts::tmpfs(SKELETON, 0o755, None, mounts::INERT).at(STAGE, "/")?;
        let own = BTreeMap::from([(mounts::status(&root).at(STAGE, "/")?.st_dev, false)]);
        // Detached trees can be attached only to a mount of this namespace, so the root gets a place first. Whatever
        // it covers is not needed any more: sources are open.
        let place =
            rustix::fs::openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at(STAGE, "/")?;
        let host_proc = rustix::fs::openat(CWD, "/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let devices = devices(spec)?;
        mounts::attach(root.as_fd(), place.as_fd()).at(STAGE, "/")?;
        let root = Rc::new(root);
        let top = Known { directory: Rc::clone(&root), of_run: false };
        let known = BTreeMap::from([(b"/".to_vec(), top)]);
        let skeleton =
            Skeleton { root, prepare, own, known, absent: Vec::new(), links: Vec::new(), tmpfs: Vec::new() };
        Ok((skeleton, host_proc.ok(), devices))
    }
}

/// `pivot_root(2)`'s own idiom: the new root over the old, then the old one is let go.
fn pivot(root: BorrowedFd<'_>) -> Staged<()> {
    rustix::process::fchdir(root).at(STAGE, "pivot")?;
    rustix::process::pivot_root(".", ".").at(STAGE, "pivot")?;
    rustix::mount::unmount(".", rustix::mount::UnmountFlags::DETACH).at(STAGE, "old root")?;
    rustix::process::chdir("/").at(STAGE, "/")
}

type Nodes = Vec<(Bytes, Option<OwnedFd>)>;

/// Copies of the host's device nodes, made while the host's `/dev` is still in sight.
fn devices(spec: &SandboxSpec) -> Staged<Vec<Nodes>> {
    let nodes_of = |mount: &Mount| match &mount.kind {
        MountKind::Dev { nodes, .. } => Some(nodes.clone()),
        _ => None,
    };
    let copy = |name: Bytes| {
        let path = Path::new("/dev").join(name.as_path());
        match mounts::clone_tree_at(&path) {
            Ok(node) => Ok((name, Some(node))),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::LOOP) => Ok((name, None)),
            Err(errno) => Err(errno).at(STAGE, path),
        }
    };
    let copied = |nodes: Vec<Bytes>| nodes.into_iter().map(copy).collect();
    spec.mounts.iter().filter_map(nodes_of).map(copied).collect()
}

impl Skeleton<'_> {
    fn place(
        &mut self,
        mount: &Mount,
        tree: Tree,
        nodes: Option<Nodes>,
        host_proc: Option<BorrowedFd<'_>>,
    ) -> Staged<()> {
        match (&mount.kind, tree) {
            (MountKind::Dev { shm_size, .. }, Tree::Laid) => self.dev_of_run(mount, *shm_size),
            (_, Tree::Laid) => Ok(()),
            (MountKind::Workspace | MountKind::Bind { .. }, Tree::Detached { tree, directory, .. }) => {
                let point = self.point(&mount.target, directory)?;
                self.known.remove(&mount.target.0);
                point.attach(tree.as_fd()).at(STAGE, mount.target.clone())
            }
            (MountKind::Workspace, _) => Err(failed(SetupStage::Open, libc::ENOENT, mount.target.clone())),
            (MountKind::Bind { .. }, Tree::Link(text)) => {
                self.links.push(mount.target.clone());
                self.link(&mount.target, &text)
            }
            (MountKind::Bind { .. }, _) => {
                self.absent.push(mount.target.clone());
                Ok(())
            }
            (MountKind::Tmpfs { size, mode }, _) => self.tmpfs(mount, *size, *mode),
            (MountKind::Proc, _) => self.proc(&mount.target, host_proc),
            (MountKind::Dev { shm_size, .. }, _) => {
                self.dev(mount, nodes.unwrap_or_default())?;
                self.dev_of_run(mount, *shm_size)
            }
        }
    }

    /// The run's ids as the mounting user namespace sees them.
    fn run_ids(&self) -> (u32, u32) {
        (self.prepare.ids.host_uid, self.prepare.ids.host_gid)
    }

    fn tmpfs(&mut self, mount: &Mount, size: u64, mode: u32) -> Staged<()> {
        let owner = if mode & 0o1000 == 0 { Some(self.run_ids()) } else { None };
        let set = mounts::attributes(mount.access);
        let tmpfs = mounts::tmpfs(size, mode, owner, set).at(STAGE, mount.target.clone())?;
        let point = self.point(&mount.target, true)?;
        point.attach(tmpfs.as_fd()).at(STAGE, mount.target.clone())?;
        let directory = self.cover(mount.target.as_path(), tmpfs, true)?;
        self.tmpfs.push(directory);
        Ok(())
    }

    /// From now on the top of `filesystem`, one of our own, is what is at `path`.
    fn cover(&mut self, path: &Path, filesystem: OwnedFd, of_run: bool) -> Staged<Rc<OwnedFd>> {
        let device = mounts::status(&filesystem).at(STAGE, path)?.st_dev;
        let directory = Rc::new(filesystem);
        self.own.insert(device, of_run);
        self.known.insert(key(path).to_vec(), Known { directory: Rc::clone(&directory), of_run });
        Ok(directory)
    }

    /// The mount point of `/proc`; init mounts the run's own there. In a user namespace that needs another one in
    /// sight (`mount_too_revealing` in fs/namespace.c), so the host's stands there until the run's covers it.
    fn proc(&mut self, target: &Bytes, host_proc: Option<BorrowedFd<'_>>) -> Staged<()> {
        let point = self.point(target, true)?;
        self.known.remove(&target.0);
        if self.prepare.plan != Plan::User {
            return Ok(());
        }
        let host = host_proc.ok_or_else(|| failed(STAGE, libc::ENOENT, target.clone()))?;
        let tree = mounts::clone_tree(host).at(STAGE, target.clone())?;
        // What hangs in it (systemd's automount for binfmt_misc) stays in the mount table, and is looked at like the rest.
        mounts::restrict_tree(tree.as_fd(), mounts::INERT, None).at(STAGE, target.clone())?;
        point.attach(tree.as_fd()).at(STAGE, target.clone())
    }

    /// `/dev` without what is the run's own, which it has places for.
    fn dev(&mut self, mount: &Mount, nodes: Nodes) -> Staged<()> {
        let at = |name: &str| Bytes::from(mount.target.as_path().join(name));
        let own = mounts::INERT | libc::MOUNT_ATTR_NOEXEC;
        let dev = mounts::tmpfs(DEV, 0o755, None, own).at(STAGE, mount.target.clone())?;
        let point = self.point(&mount.target, true)?;
        point.attach(dev.as_fd()).at(STAGE, mount.target.clone())?;
        let dev = self.cover(mount.target.as_path(), dev, false)?;
        for (name, node) in nodes {
            let path = Bytes::from(mount.target.as_path().join(name.as_path()));
            let Some(node) = node else {
                self.absent.push(path);
                continue;
            };
            let set = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
            mounts::restrict_tree(node.as_fd(), set, None).at(STAGE, path.clone())?;
            self.point(&path, false)?.attach(node.as_fd()).at(STAGE, path)?;
        }
        let links = [
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
            ("ptmx", "pts/ptmx"),
        ];
        for (name, text) in links {
            self.link(&at(name), text.as_bytes())?;
        }
        for name in ["shm", "pts"] {
            self.directory(&at(name))?;
        }
        mounts::seal(dev.as_fd()).at(STAGE, mount.target.clone())
    }

    /// What of `/dev` is the run's own: shared memory and terminals.
    fn dev_of_run(&mut self, mount: &Mount, shm_size: u64) -> Staged<()> {
        let at = |name: &str| Bytes::from(mount.target.as_path().join(name));
        let own = mounts::INERT | libc::MOUNT_ATTR_NOEXEC;
        let shm = mounts::tmpfs(shm_size, 0o1777, None, own).at(STAGE, at("shm"))?;
        self.point(&at("shm"), true)?.attach(shm.as_fd()).at(STAGE, at("shm"))?;
        let shm = self.cover(at("shm").as_path(), shm, true)?;
        self.tmpfs.push(shm);
        let options =
            [("ptmxmode", "0666".to_owned()), ("mode", "0620".to_owned()), ("max", TERMINALS.to_string())];
        let set = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
        let pts = mounts::filesystem("devpts", &options, set).at(STAGE, at("pts"))?;
        self.point(&at("pts"), true)?.attach(pts.as_fd()).at(STAGE, at("pts"))?;
        self.known.remove(&at("pts").0);
        Ok(())
    }

    /// On the run's own tmpfs a denied path gets its directory here: there is nothing of the host's to hold.
    fn fill_denied(&mut self) -> Staged<()> {
        let spec = &self.prepare.spec;
        let on_tmpfs = |path: &&Bytes| {
            let holder = placeholder::holder(spec, path);
            holder.is_some_and(|mount| matches!(mount.kind, MountKind::Tmpfs { .. }))
        };
        for path in spec.deny.iter().filter(on_tmpfs) {
            self.directory(path)?;
        }
        Ok(())
    }

    /// The directory at a path inside, made where it doesn't exist and only on our own filesystems.
    fn directory(&mut self, path: &Bytes) -> Staged<Rc<OwnedFd>> {
        self.directory_at(path.as_path(), path)
    }

    /// `whole` is what a failure names.
    fn directory_at(&mut self, path: &Path, whole: &Bytes) -> Staged<Rc<OwnedFd>> {
        if let Some(known) = self.known.get(key(path)) {
            return Ok(Rc::clone(&known.directory));
        }
        let (parent, name) = parts(path, whole)?;
        if !self.known.contains_key(key(parent)) {
            match mounts::open_in(self.root.as_fd(), path) {
                Ok(there) => return Ok(Rc::new(there)),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(error).at(STAGE, whole.clone()),
            }
        }
        let parent = self.ours(parent, whole)?;
        match self.make(&parent, name) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                return mounts::open_in(self.root.as_fd(), path).map(Rc::new).at(STAGE, whole.clone());
            }
            Err(errno) => return Err(errno).at(STAGE, whole.clone()),
        }
        self.know(path, &parent, name).map(|known| known.directory).at(STAGE, whole.clone())
    }

    /// The directory at a path, which must be one of our own: nothing is ever made on the host's disk.
    fn ours(&mut self, path: &Path, whole: &Bytes) -> Staged<Known> {
        if let Some(known) = self.known.get(key(path)) {
            return Ok(known.clone());
        }
        if let Some(made) = self.fresh(path, whole)? {
            return Ok(made);
        }
        let directory = self.directory_at(path, whole)?;
        let device = mounts::status(&directory).at(STAGE, whole.clone())?.st_dev;
        match self.own.get(&device) {
            Some(of_run) => Ok(Known { directory, of_run: *of_run }),
            None => Err(failed(STAGE, libc::ENOENT, whole.clone())),
        }
    }

    /// The directory at a path of which nothing is there yet beneath the nearest known one: the first name on the way that can be
    /// made says that it wasn't there, and nothing beneath it. `None`: it was, or the root isn't known.
    fn fresh(&mut self, path: &Path, whole: &Bytes) -> Staged<Option<Known>> {
        let mut new: Vec<&Path> = path.ancestors().take_while(|p| !self.known.contains_key(key(p))).collect();
        let above = new.last().and_then(|first| first.parent()).and_then(|above| self.known.get(key(above)));
        let Some(mut above) = above.cloned() else { return Ok(None) };
        while let Some(next) = new.pop() {
            let (_, name) = parts(next, whole)?;
            match self.make(&above, name) {
                Ok(()) => {}
                Err(Errno::EXIST) => return Ok(None),
                Err(errno) => return Err(errno).at(STAGE, whole.clone()),
            }
            above = self.know(next, &above, name).at(STAGE, whole.clone())?;
        }
        Ok(Some(above))
    }

    /// Remembers a directory that was just made in one of our own.
    fn know(&mut self, path: &Path, parent: &Known, name: &OsStr) -> rustix::io::Result<Known> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&*parent.directory, name, flags, Mode::empty())?;
        let known = Known { directory: Rc::new(made), of_run: parent.of_run };
        self.known.insert(key(path).to_vec(), known.clone());
        Ok(known)
    }

    /// Makes a directory in one of our own.
    fn make(&self, parent: &Known, name: &OsStr) -> rustix::io::Result<()> {
        rustix::fs::mkdirat(&*parent.directory, name, Mode::from_raw_mode(0o755))?;
        if parent.of_run { self.give_to_run(&parent.directory, name) } else { Ok(()) }
    }

    /// The directory or file at a path inside, made empty where it doesn't exist and only on our own filesystems: for what is
    /// attached there.
    fn point(&mut self, path: &Bytes, directory: bool) -> Staged<Point> {
        if directory && let Some(known) = self.known.get(&path.0[..]) {
            return Ok(Rc::clone(&known.directory).into());
        }
        let open = if directory { mounts::open_in } else { mounts::open_in_nofollow };
        let there = |skeleton: &Self| open(skeleton.root.as_fd(), path.as_path()).map(Rc::new);
        let (parent, name) = parts(path.as_path(), path)?;
        if !self.known.contains_key(key(parent)) && self.fresh(parent, path)?.is_none() {
            match there(self) {
                Ok(there) => return Ok(there.into()),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(error).at(STAGE, path.clone()),
            }
        }
        let parent = self.ours(parent, path)?;
        let made = if directory {
            self.make(&parent, name)
        } else {
            let mode = Mode::from_raw_mode(0o444);
            rustix::fs::mknodat(&*parent.directory, name, FileType::RegularFile, mode, 0)
        };
        match made {
            Ok(()) => {}
            Err(Errno::EXIST) => return there(self).map(Point::from).at(STAGE, path.clone()),
            Err(errno) => return Err(errno).at(STAGE, path.clone()),
        }
        Ok(Point { at: parent.directory, name: name.to_owned() })
    }

    /// What is made on the run's own tmpfs is the run's: programs make their directories beside it.
    fn give_to_run(&self, parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<()> {
        let (uid, gid) = self.run_ids();
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
    }

    fn link(&mut self, path: &Bytes, text: &[u8]) -> Staged<()> {
        let (parent, name) = parts(path.as_path(), path)?;
        if !self.known.contains_key(key(parent))
            && mounts::open_in_nofollow(self.root.as_fd(), path.as_path()).is_ok()
        {
            // Beneath an earlier bind: the link is there already.
            return Ok(());
        }
        let Known { directory: parent, .. } = self.ours(parent, path)?;
        match rustix::fs::symlinkat(text, &*parent, name) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(errno).at(STAGE, path.clone()),
        }
    }
}

/// By what a directory is known: bytes, since comparing paths means taking them apart.
fn key(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// A path's parent and its name.
fn parts<'p>(path: &'p Path, whole: &Bytes) -> Staged<(&'p Path, &'p OsStr)> {
    let parts = path.parent().zip(path.file_name());
    parts.ok_or_else(|| failed(STAGE, libc::EINVAL, whole.clone()))
}
