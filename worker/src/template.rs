//! The template: builds the root for one (policy, workspace, owner), and clones a worker in it.
//!
//! It's a fresh exec, so that nothing of another owner's is in its memory, and the only process of ours that stands
//! both outside (with the owner's directories open) and inside (with the finished root). It clones with
//! `CLONE_PARENT`, so that the launcher is the worker's real parent and its own death loses no run. It runs no code
//! of the tool's and never waits for one.

use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use nix::sched::CloneFlags;
use rustix::fs::{CWD, Mode, OFlags};
use stockade_protocol::confinement::Plan;
use stockade_protocol::outcome::{SetupFailure, SetupStage};
use stockade_protocol::spec::NetworkMode;
use stockade_wire::channel::Channel;
use stockade_wire::socket;

use crate::failure::{At, Staged, failed};
use crate::init::{self, Born};
use crate::messages::{FromWorker, Prepare, ToWorker};
use crate::stages::identity::{self, IdMap};
use crate::stages::placeholder::Placed;
use crate::stages::root::{self, Pivoted};
use crate::stages::sources::{self, Sources};
use crate::stages::worker::{self, Mapper};
use crate::sys::{self, Cloned};

/// The descriptors beside `Prepare`.
#[derive(Debug)]
struct Passed {
    workspace: Option<OwnedFd>,
    stdio: [OwnedFd; 3],
    cgroup: Option<OwnedFd>,
}

/// Whether a template was started before its run was known, and has entered its network namespace meanwhile: of all
/// namespaces the one that takes long to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// For a run that is known.
    Called,
    /// Ahead of a run that will have a network namespace of its own, while it's being decided.
    Ahead,
}

/// The template's life: one `Prepare`, one worker, the end.
pub(crate) fn run(channel: OwnedFd, start: Start) -> ExitCode {
    let channel = Channel::new(channel);
    sys::reset_signals();
    rustix::process::umask(Mode::from_raw_mode(0o022));
    match make(&channel, start) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            drop(channel.send(&FromWorker::Failed(failure), &[]));
            ExitCode::FAILURE
        }
    }
}

fn make(channel: &Channel, start: Start) -> Staged<()> {
    identity::die_with_parent()?;
    let proc = identity::open_proc()?;
    if start == Start::Ahead {
        enter_network(&proc)?;
    }
    let (mut prepare, passed) = receive(channel)?;
    let Passed { workspace, stdio, cgroup } = passed;
    prepare.network_entered = start == Start::Ahead;
    if prepare.network_entered && prepare.launch.spec.network.mode == NetworkMode::Loopback {
        worker::loopback_up()?;
    }
    let pivoted = match prepare.plan {
        Plan::System => system_root(channel, &mut prepare, workspace, &proc)?,
        Plan::User => user_root(channel, &mut prepare, workspace.as_ref(), &proc)?,
        _ => no_root(&prepare),
    };
    clone_worker(channel, &prepare, &proc, Born { pivoted, stdio }, cgroup.as_ref())
}

fn receive(channel: &Channel) -> Staged<(Box<Prepare>, Passed)> {
    const STAGE: SetupStage = SetupStage::Template;
    let gone = || failed(STAGE, libc::EPIPE, "channel");
    let (message, descriptors) = channel.receive().map_err(|_| gone())?.ok_or_else(gone)?;
    let ToWorker::Prepare(prepare) = message else { return Err(gone()) };
    let mut descriptors = descriptors.into_iter();
    let mut next = || descriptors.next().ok_or_else(|| failed(STAGE, libc::EBADF, "descriptors"));
    let workspace = if prepare.launch.workspace_passed { Some(next()?) } else { None };
    let stdio = [next()?, next()?, next()?];
    let cgroup = if prepare.cgroup { Some(next()?) } else { None };
    Ok((prepare, Passed { workspace, stdio, cgroup }))
}

/// A user may make one only inside a user namespace, which then is the one that owns the run's root, too.
fn enter_network(proc: &OwnedFd) -> Staged<()> {
    if rustix::process::geteuid().is_root() {
        return nix::sched::unshare(CloneFlags::CLONE_NEWNET).at(SetupStage::Network, "unshare");
    }
    enter_user_namespace(CloneFlags::CLONE_NEWNET, proc)
}

/// Enters a user namespace with the caller's own ids mapped, and other namespaces with it.
fn enter_user_namespace(others: CloneFlags, proc: &OwnedFd) -> Staged<()> {
    let ids = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    nix::sched::unshare(CloneFlags::CLONE_NEWUSER | others).at(SetupStage::UserNamespace, "unshare")?;
    // A change of credentials clears both.
    identity::die_with_parent()?;
    worker::dumpable(true)?;
    IdMap { inside: ids, outside: ids }.write(proc, &identity::pid_text(rustix::process::getpid()))
}

/// Root's plan: copies are made while in the initial mount namespace (descriptors of another one can't be bound),
/// idmapped while in the initial user namespace (from inside one that's EPERM).
fn system_root(
    channel: &Channel,
    prepare: &mut Prepare,
    workspace: Option<OwnedFd>,
    proc: &OwnedFd,
) -> Staged<Pivoted> {
    let Sources { sources, placed, led_to } = sources::open(&prepare.launch, prepare.plan, workspace)?;
    hand_up(channel, placed)?;
    led_to.extend(&mut prepare.launch.spec);
    let owner = &prepare.launch.owner;
    let map = IdMap { inside: (owner.uid, owner.gid), outside: (prepare.host_uid, prepare.host_gid) };
    let idmap = if prepare.idmap { Some(identity::mapping_namespace(map, proc)?) } else { None };
    let trees = root::detach(prepare, sources, idmap.as_ref())?;
    root::enter_mount_namespace()?;
    root::build(prepare, trees)
}

/// A user's plan: a user namespace first, since only there may it mount. That also leaves the mount namespace that
/// a passed descriptor belongs to, so the workspace is carried over as the working directory, which follows.
fn user_root(
    channel: &Channel,
    prepare: &mut Prepare,
    workspace: Option<&OwnedFd>,
    proc: &OwnedFd,
) -> Staged<Pivoted> {
    if let Some(workspace) = workspace {
        rustix::process::fchdir(workspace).at(SetupStage::Open, prepare.launch.workspace.clone())?;
    }
    if prepare.network_entered {
        nix::sched::unshare(CloneFlags::CLONE_NEWNS).at(SetupStage::Namespaces, "mount")?;
    } else {
        enter_user_namespace(CloneFlags::CLONE_NEWNS, proc)?;
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
    let Sources { sources, placed, led_to } = sources::open(&prepare.launch, prepare.plan, workspace)?;
    hand_up(channel, placed)?;
    led_to.extend(&mut prepare.launch.spec);
    let trees = root::detach(prepare, sources, None)?;
    root::build(prepare, trees)
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

fn clone_worker(
    channel: &Channel,
    prepare: &Prepare,
    proc: &OwnedFd,
    born: Born,
    cgroup: Option<&OwnedFd>,
) -> Staged<()> {
    const STAGE: SetupStage = SetupStage::Namespaces;
    let (ours, theirs) = socket::seqpacket_pair().at(STAGE, "socketpair")?;
    let flags = worker::namespaces(prepare) | libc::CLONE_PARENT;
    let cloned = sys::clone_process(flags, cgroup.map(AsFd::as_fd)).at(STAGE, "clone")?;
    let Cloned::Parent { pid, pidfd } = cloned else {
        drop(ours);
        crate::role::leave(init::run(channel, prepare, born, Mapper(theirs)));
    };
    drop(theirs);
    let pid = pid.as_raw_nonzero().get();
    channel
        .send(&FromWorker::Cloned { pid }, &[pidfd.as_fd()])
        .map_err(|_| failed(STAGE, libc::EPIPE, "channel"))?;
    hand_over_maps(prepare, proc, pid, &ours)
}

/// Writes the worker's id maps: before it goes on (user plan), or when it asks (system plan).
fn hand_over_maps(prepare: &Prepare, proc: &OwnedFd, pid: i32, mapper: &OwnedFd) -> Result<(), SetupFailure> {
    const STAGE: SetupStage = SetupStage::UserNamespace;
    if prepare.plan == Plan::Minimal {
        return Ok(());
    }
    if prepare.plan == Plan::System {
        let mut byte = [0];
        if rustix::io::read(mapper, &mut byte).at(STAGE, "id map")? == 0 {
            // The worker failed earlier and has said so itself.
            return Ok(());
        }
    }
    let inside = (prepare.inside_uid, prepare.inside_gid);
    let outside = match prepare.plan {
        Plan::User => inside,
        _ => (prepare.host_uid, prepare.host_gid),
    };
    IdMap { inside, outside }.write(proc, &pid.to_string())?;
    rustix::io::write(mapper, &[0]).at(STAGE, "id map")?;
    Ok(())
}
