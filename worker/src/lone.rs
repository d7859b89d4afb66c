//! The lone worker: template and init of one run in one process, for an embedded launcher.
//!
//! ```text
//! cloned by the launcher into its namespaces, ahead of the run ── Prepare ──> root built ──> init, parked ──> …
//! ```
//!
//! A CLI without a daemon makes one run and ends, so a template that could make others would be a process for nothing:
//! a fork, its page faults, and two hand-overs. It is cloned while its run is still being decided, since a network
//! namespace takes longest to make of all.

use std::os::fd::OwnedFd;

use rustix::fs::Mode;
use stockade_protocol::confinement::Plan;
use stockade_wire::channel::Channel;

use crate::failure::Staged;
use crate::init::{self, Born};
use crate::messages::{FromWorker, Prepare};
use crate::plan::{self, Builder, Passed};
use crate::stages::identity;
use crate::stages::worker::Mapper;
use crate::sys;

/// The life of a lone worker. Gives its exit code, which nobody reads.
pub(crate) fn run(channel: OwnedFd) -> i32 {
    let channel = Channel::new(channel);
    sys::reset_signals();
    rustix::process::umask(Mode::from_raw_mode(0o022));
    match make(&channel) {
        Ok((prepare, born, mapper)) => init::run(&channel, &prepare, born, mapper),
        Err(failure) => {
            drop(channel.send(&FromWorker::Failed(failure), &[]));
            1
        }
    }
}

fn make(channel: &Channel) -> Staged<(Box<Prepare>, Born, Mapper)> {
    let (mut prepare, passed) = plan::receive(channel)?;
    let Passed { workspace, stdio, .. } = passed;
    if prepare.plan != Plan::Minimal {
        // A mount that never answers may stop us before we'd see the end of the channel.
        identity::die_with_parent()?;
    }
    let pivoted = plan::enter_root(channel, &mut prepare, workspace, Builder::Lone)?;
    let own = if prepare.plan == Plan::System { Some(plan::namespace(channel)?) } else { None };
    Ok((prepare, Born { pivoted, stdio }, Mapper::Launcher(own)))
}
