//! The template: clones the workers of one (policy, workspace, owner).
//!
//! It's a fresh exec, so that nothing of another owner's is in its memory, and has everything that a worker is made from
//! in it, so that a worker is a clone and no message. It clones with `CLONE_PARENT`: the launcher is the worker's real
//! parent, and the template's own death loses no run. It stands outside of every namespace of a run's, touches no file of
//! its owner's, and runs no code of the tool's.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

use rustix::process::{Signal, pidfd_send_signal};
use stockade_protocol::outcome::SetupStage;
use stockade_wire::channel::Channel;

use crate::birth::{self, Handed};
use crate::failure::{At, Staged, failed};
use crate::messages::{FromWorker, Prepare, ToTemplate, say};
use crate::stages::foundation::{Ground, Keeper};
use crate::stages::network::{Slot, Traces};
use crate::stages::{beside, identity, worker};
use crate::sys::{self, Cloned};

/// The template's life: until its channel ends.
pub(crate) fn run(channel: OwnedFd) -> ExitCode {
    let channel = Channel::new(channel);
    birth::have_defaults(u64::MAX);
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
    let ToTemplate::Prepare(prepare) = message else { return Err(strange()) };
    let keeper = Keeper::new(&prepare).at(STAGE, "socketpair")?;
    let mut template = Template { prepare, workspace: beside.pop(), fresh: None, keeper };
    while let Some((message, beside)) = channel.receive().map_err(|_| strange())? {
        let ToTemplate::Make { ids, network } = message else { return Err(strange()) };
        let mut beside = beside.into_iter();
        let theirs = Channel::new(beside.next().ok_or_else(strange)?);
        let network = if network { Some(Slot::received(beside.next().ok_or_else(strange)?)) } else { None };
        template.prepare.ids = ids;
        if let Err(failure) = template.make(&theirs, network, beside.next().as_ref()) {
            drop(theirs.send(&FromWorker::Failed(failure), &[]));
        }
    }
    Ok(())
}

/// What workers are made from.
struct Template {
    prepare: Box<Prepare>,
    workspace: Option<OwnedFd>,
    /// How a fresh network namespace looks, found out when one may be used again.
    fresh: Option<Traces>,
    /// What workers share of their roots, if they can.
    keeper: Option<Keeper>,
}

impl Template {
    /// Clones a worker, which takes over `channel`.
    fn make(&mut self, channel: &Channel, network: Option<Slot>, cgroup: Option<&OwnedFd>) -> Staged<()> {
        if network.is_some() && self.fresh.is_none() {
            self.fresh = beside::fresh_network().ok();
        }
        // What can't be compared isn't used again: the worker makes one of its own.
        let network = network.filter(|_| self.fresh.is_some());
        if let Some(keeper) = &mut self.keeper {
            keeper.refresh();
        }
        let plan = self.prepare.plan;
        let flags = worker::namespaces(plan) | libc::CLONE_PARENT;
        match sys::clone_process(flags, cgroup.map(AsFd::as_fd)).at(worker::birth_stage(plan), "clone")? {
            Cloned::Parent { pid, pidfd } => {
                let pid = pid.as_raw_nonzero().get();
                say(channel, &FromWorker::Cloned { pid }, &[pidfd.as_fd()]).inspect_err(|_| {
                    // Nobody else could: the launcher doesn't know it.
                    let _ = pidfd_send_signal(&pidfd, Signal::KILL);
                })
            }
            Cloned::Child => crate::role::leave(self.be(channel, network).unwrap_or(1)),
        }
    }

    /// The worker's life: with nothing of its template's but what it needs.
    fn be(&mut self, channel: &Channel, network: Option<Slot>) -> io::Result<i32> {
        let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned();
        let channel = own(channel.as_fd())?;
        let workspace = self.workspace.as_ref().map(|workspace| own(workspace.as_fd())).transpose()?;
        let kept = workspace.iter().chain([&channel]).map(AsFd::as_fd);
        let ground = self.keeper.take().map(Keeper::into_ground);
        let shared = ground.iter().flat_map(Ground::descriptors);
        let kept: Vec<_> = kept.chain(network.as_ref().map(AsFd::as_fd)).chain(shared).collect();
        sys::close_all_but(&kept)?;
        let handed = Handed { workspace, network: network.zip(self.fresh.as_ref()), ground };
        Ok(birth::run(channel, &mut self.prepare, handed, None))
    }
}
