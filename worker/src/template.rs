//! The template: clones the workers of one (policy, workspace, owner).
//!
//! It's a fresh exec, so that nothing of another owner's is in its memory, and has everything that a worker is made from
//! in it, so that a worker is a clone and no message. It clones with `CLONE_PARENT`: the launcher is the worker's real
//! parent, and the template's own death loses no run. It stands outside of every namespace of a run's, touches no file of
//! its owner's, and runs no code of the tool's.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

use rustix::fs::Mode;
use stockade_protocol::outcome::SetupStage;
use stockade_wire::channel::Channel;

use crate::birth;
use crate::failure::{At, Staged, failed};
use crate::messages::{FromWorker, Prepare, ToTemplate};
use crate::stages::{identity, worker};
use crate::sys::{self, Cloned};

/// The template's life: until its channel ends.
pub(crate) fn run(channel: OwnedFd) -> ExitCode {
    let channel = Channel::new(channel);
    sys::reset_signals();
    rustix::process::umask(Mode::from_raw_mode(0o022));
    match serve(&channel) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever waits for a worker sees the end of its channel.
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve(channel: &Channel) -> Staged<()> {
    const STAGE: SetupStage = SetupStage::Template;
    identity::die_with_parent()?;
    let strange = || failed(STAGE, libc::EPROTO, "channel");
    let (message, mut beside) = channel.receive().map_err(|_| strange())?.ok_or_else(strange)?;
    let ToTemplate::Prepare(mut prepare) = message else { return Err(strange()) };
    let workspace = beside.pop();
    while let Some((message, beside)) = channel.receive().map_err(|_| strange())? {
        let ToTemplate::Make(ids) = message else { return Err(strange()) };
        let mut beside = beside.into_iter();
        let theirs = Channel::new(beside.next().ok_or_else(strange)?);
        prepare.ids = ids;
        let made = make(&mut prepare, &theirs, workspace.as_ref(), beside.next().as_ref());
        if let Err(failure) = made {
            drop(theirs.send(&FromWorker::Failed(failure), &[]));
        }
    }
    Ok(())
}

/// Clones a worker, which takes over `channel`.
fn make(
    prepare: &mut Prepare,
    channel: &Channel,
    workspace: Option<&OwnedFd>,
    cgroup: Option<&OwnedFd>,
) -> Staged<()> {
    let flags = worker::namespaces(prepare.plan) | libc::CLONE_PARENT;
    let stage = worker::birth_stage(prepare.plan);
    match sys::clone_process(flags, cgroup.map(AsFd::as_fd)).at(stage, "clone")? {
        Cloned::Parent { pid, pidfd } => {
            let pid = pid.as_raw_nonzero().get();
            let gone = |_| failed(SetupStage::Template, libc::EPIPE, "channel");
            channel.send(&FromWorker::Cloned { pid }, &[pidfd.as_fd()]).map_err(gone)
        }
        Cloned::Child => crate::role::leave(be(prepare, channel, workspace)),
    }
}

/// The worker's life: with nothing of its template's but what it needs.
fn be(prepare: &mut Prepare, channel: &Channel, workspace: Option<&OwnedFd>) -> i32 {
    let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned();
    let (Ok(channel), Ok(workspace)) =
        (own(channel.as_fd()), workspace.map(|workspace| own(workspace.as_fd())).transpose())
    else {
        return 1;
    };
    let kept: Vec<_> = workspace.iter().chain([&channel]).map(AsFd::as_fd).collect();
    match sys::close_all_but(&kept) {
        Ok(()) => birth::run(channel, prepare, workspace, None),
        Err(_) => 1,
    }
}
