//! The template: builds the root for one (policy, workspace, owner), and clones a worker in it.
//!
//! It's a fresh exec, so that nothing of another owner's is in its memory, and the only process of ours that stands
//! both outside (with the owner's directories open) and inside (with the finished root). It clones with
//! `CLONE_PARENT`, so that the launcher is the worker's real parent and its own death loses no run. It runs no code
//! of the tool's and never waits for one.

use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use rustix::fs::Mode;
use stockade_protocol::confinement::Plan;
use stockade_protocol::outcome::{SetupFailure, SetupStage};
use stockade_wire::channel::Channel;
use stockade_wire::socket;

use crate::failure::{At, Staged, failed};
use crate::init::{self, Born};
use crate::messages::{FromWorker, Prepare};
use crate::plan::{self, Builder, Passed};
use crate::stages::root::Pivoted;
use crate::stages::worker::{self, Mapper};
use crate::stages::{identity, network};
use crate::sys::{self, Cloned};

/// The template's life: one `Prepare`, one worker, the end.
pub(crate) fn run(channel: OwnedFd) -> ExitCode {
    let channel = Channel::new(channel);
    sys::reset_signals();
    rustix::process::umask(Mode::from_raw_mode(0o022));
    match make(&channel) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            drop(channel.send(&FromWorker::Failed(failure), &[]));
            ExitCode::FAILURE
        }
    }
}

fn make(channel: &Channel) -> Staged<()> {
    identity::die_with_parent()?;
    let proc = identity::open_proc()?;
    let (mut prepare, passed) = plan::receive(channel)?;
    let Passed { workspace, stdio, cgroup } = passed;
    let pivoted = plan::enter_root(channel, &mut prepare, workspace, Builder::Template(&proc))?;
    clone_worker(channel, &prepare, &proc, (pivoted, stdio), cgroup.as_ref())
}

fn clone_worker(
    channel: &Channel,
    prepare: &Prepare,
    proc: &OwnedFd,
    (pivoted, stdio): (Pivoted, [OwnedFd; 3]),
    cgroup: Option<&OwnedFd>,
) -> Staged<()> {
    const STAGE: SetupStage = SetupStage::Namespaces;
    let (ours, theirs) = socket::seqpacket_pair().at(STAGE, "socketpair")?;
    let rooted = prepare.plan != Plan::Minimal;
    let mut flags = worker::namespaces(prepare.plan) | libc::CLONE_PARENT;
    flags |= if rooted { libc::CLONE_NEWNS } else { 0 };
    flags |= if rooted && network::is_own(&prepare.launch.spec) { libc::CLONE_NEWNET } else { 0 };
    let cloned = sys::clone_process(flags, cgroup.map(AsFd::as_fd)).at(STAGE, "clone")?;
    let Cloned::Parent { pid, pidfd } = cloned else {
        drop(ours);
        let born = Born { pivoted, stdio, mapper: Mapper::Template(theirs), network: None };
        crate::role::leave(init::run(channel, prepare, born));
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
    prepare.run_map().write(proc, &pid.to_string())?;
    rustix::io::write(mapper, &[0]).at(STAGE, "id map")?;
    Ok(())
}
