//! The two spawn plans: how a process comes to stand in the run's finished root.
//!
//! * System: copies of the sources are made in the initial mount namespace (descriptors of another one can't be bound)
//!   and idmapped in the initial user namespace (from inside one that's `EPERM`); the user namespace comes last.
//! * User: a user namespace first, since only there may it mount.
//!
//! Two processes do this: a template, which then clones workers in that root, and a lone worker, which goes on as the
//! one init of it.

use std::os::fd::{AsFd, OwnedFd};

use nix::sched::CloneFlags;
use rustix::fs::{CWD, Mode, OFlags};
use stockade_protocol::confinement::Plan;
use stockade_protocol::launch::Owner;
use stockade_protocol::outcome::SetupStage;
use stockade_wire::channel::Channel;

use crate::failure::{At, Staged, failed};
use crate::messages::{FromWorker, Prepare, ToWorker};
use crate::stages::identity::{self, IdMap};
use crate::stages::placeholder::Placed;
use crate::stages::root::{self, Pivoted};
use crate::stages::sources::{self, Sources};

/// The descriptors beside `Prepare`.
#[derive(Debug)]
pub(crate) struct Passed {
    pub(crate) workspace: Option<OwnedFd>,
    pub(crate) stdio: [OwnedFd; 3],
    pub(crate) cgroup: Option<OwnedFd>,
}

/// Who builds a root.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Builder<'a> {
    /// A template, with the launcher's `/proc`: it makes what it needs itself.
    Template(&'a OwnedFd),
    /// A lone worker: born in its namespaces, and its launcher makes what its own can't.
    Lone,
}

impl Passed {
    /// Of the descriptors as they come.
    ///
    /// # Errors
    /// `Template`: one is missing.
    pub(crate) fn new(prepare: &Prepare, descriptors: Vec<OwnedFd>) -> Staged<Self> {
        let mut descriptors = descriptors.into_iter();
        let mut next =
            || descriptors.next().ok_or_else(|| failed(SetupStage::Template, libc::EBADF, "descriptors"));
        let workspace = if prepare.launch.workspace_passed { Some(next()?) } else { None };
        let stdio = [next()?, next()?, next()?];
        let cgroup = if prepare.cgroup { Some(next()?) } else { None };
        Ok(Self { workspace, stdio, cgroup })
    }
}

/// Waits for `Prepare`.
///
/// # Errors
/// `Template` where the launcher has gone, or says something else.
pub(crate) fn receive(channel: &Channel) -> Staged<(Box<Prepare>, Passed)> {
    let gone = || failed(SetupStage::Template, libc::EPIPE, "channel");
    let (message, descriptors) = channel.receive().map_err(|_| gone())?.ok_or_else(gone)?;
    let ToWorker::Prepare(prepare) = message else { return Err(gone()) };
    let passed = Passed::new(&prepare, descriptors)?;
    Ok((prepare, passed))
}

/// Builds the root that the plan asks for, and steps into it.
///
/// # Errors
/// Those of the stages. The process must end then: it may stand in a half-built root.
pub(crate) fn enter_root(
    channel: &Channel,
    prepare: &mut Prepare,
    workspace: Option<OwnedFd>,
    builder: Builder<'_>,
) -> Staged<Pivoted> {
    match prepare.plan {
        Plan::System => system_root(channel, prepare, workspace, builder),
        Plan::User => user_root(channel, prepare, workspace.as_ref(), builder),
        _ => Ok(no_root(prepare)),
    }
}

fn system_root(
    channel: &Channel,
    prepare: &mut Prepare,
    workspace: Option<OwnedFd>,
    builder: Builder<'_>,
) -> Staged<Pivoted> {
    let Sources { sources, placed, led_to, missing } =
        sources::open(&prepare.launch, prepare.plan, workspace)?;
    hand_up(channel, placed)?;
    led_to.extend(&mut prepare.launch.spec);
    let idmap = if prepare.idmap { Some(mapping(channel, prepare, builder)?) } else { None };
    let trees = root::detach(prepare, sources, idmap.as_ref())?;
    root::enter_mount_namespace()?;
    root::build(prepare, trees, &missing)
}

/// The namespace that maps the owner's ids to the run's.
fn mapping(channel: &Channel, prepare: &Prepare, builder: Builder<'_>) -> Staged<OwnedFd> {
    match builder {
        Builder::Template(proc) => identity::mapped_namespace(prepare.owner_map(), proc),
        Builder::Lone => namespace(channel),
    }
}

/// Receives a user namespace that the launcher made.
///
/// # Errors
/// `UserNamespace`: the launcher has gone.
pub(crate) fn namespace(channel: &Channel) -> Staged<OwnedFd> {
    let gone = || failed(SetupStage::UserNamespace, libc::EPIPE, "channel");
    match channel.receive::<ToWorker>() {
        Ok(Some((ToWorker::Namespace, mut descriptors))) => descriptors.pop().ok_or_else(gone),
        _ => Err(gone()),
    }
}

/// Leaves the mount namespace that a passed descriptor belongs to, so the workspace is carried over as the working
/// directory, which follows.
fn user_root(
    channel: &Channel,
    prepare: &mut Prepare,
    workspace: Option<&OwnedFd>,
    builder: Builder<'_>,
) -> Staged<Pivoted> {
    if let Some(workspace) = workspace {
        rustix::process::fchdir(workspace).at(SetupStage::Open, prepare.launch.workspace.clone())?;
    }
    match builder {
        Builder::Template(proc) => enter_user_namespace(&prepare.launch.owner, proc)?,
        Builder::Lone => {
            nix::sched::unshare(CloneFlags::CLONE_NEWNS).at(SetupStage::Namespaces, "mount")?;
        }
    }
    root::cut_propagation()?;
    let workspace = match workspace {
        None => None,
        Some(_) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let again = rustix::fs::openat(CWD, ".", flags, Mode::empty());
            Some(again.at(SetupStage::Open, prepare.launch.workspace.clone())?)
        }
    };
    let Sources { sources, placed, led_to, missing } =
        sources::open(&prepare.launch, prepare.plan, workspace)?;
    hand_up(channel, placed)?;
    led_to.extend(&mut prepare.launch.spec);
    let trees = root::detach(prepare, sources, None)?;
    root::build(prepare, trees, &missing)
}

/// Enters a user namespace with the caller's own ids mapped, and a mount namespace with it.
fn enter_user_namespace(owner: &Owner, proc: &OwnedFd) -> Staged<()> {
    let map = IdMap::own_of(owner);
    nix::sched::unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
        .at(SetupStage::UserNamespace, "unshare")?;
    // A change of credentials clears both.
    identity::die_with_parent()?;
    crate::stages::worker::dumpable(true)?;
    map.write(proc, &identity::pid_text(rustix::process::getpid()))
}

/// The launcher keeps the locks on placeholders for as long as the run lives, and has them swept.
fn hand_up(channel: &Channel, placed: Placed) -> Staged<()> {
    let gone = |_| failed(SetupStage::Guard, libc::EPIPE, "channel");
    if !placed.made.is_empty() {
        let message = FromWorker::Placed { held: Vec::new(), made: placed.made };
        channel.send(&message, &[]).map_err(gone)?;
    }
    for batch in sources::batches(placed.held) {
        let locks: Vec<_> = batch.iter().map(|held| held.lock.as_fd()).collect();
        let held = batch.iter().map(|held| held.path.clone()).collect();
        channel.send(&FromWorker::Placed { held, made: Vec::new() }, &locks).map_err(gone)?;
    }
    Ok(())
}

/// Without namespaces the host's root stays, and Landlock alone decides what of it can be used.
fn no_root(prepare: &Prepare) -> Pivoted {
    let missing = |path: &&stockade_protocol::Bytes| path.as_path().symlink_metadata().is_err();
    let spec = &prepare.launch.spec;
    Pivoted {
        absent: Vec::new(),
        guarded: Vec::new(),
        missing: spec.protect.iter().filter(missing).cloned().collect(),
        tmpfs: Vec::new(),
    }
}
