//! The lone worker: template and init of one run in one process, for an embedded launcher.
//!
//! ```text
//! cloned by the launcher into its namespaces ──> root built ──> init, parked ── Start ──> …
//! ```
//!
//! A CLI without a daemon makes one run and ends, so a template that could make others would be a process for nothing:
//! a fork, its page faults, and two hand-overs. What it needs is in its memory when it's cloned.

use std::os::fd::OwnedFd;

use rustix::fs::Mode;
use stockade_protocol::confinement::Plan;
use stockade_wire::channel::Channel;

use crate::failure::Staged;
use crate::init::{self, Born};
use crate::messages::{FromWorker, Prepare};
use crate::plan::{self, Builder, Passed};
use crate::stages::identity::{self, IdMap};
use crate::stages::network::{self, Making};
use crate::stages::worker::Mapper;
use crate::sys;

/// The life of a lone worker. Gives its exit code, which nobody reads. `passed`: the descriptors of its run.
pub(crate) fn run(channel: OwnedFd, prepare: &mut Prepare, passed: Vec<OwnedFd>) -> i32 {
    let channel = Channel::new(channel);
    sys::reset_signals();
    rustix::process::umask(Mode::from_raw_mode(0o022));
    match make(&channel, prepare, passed) {
        Ok(born) => init::run(&channel, prepare, born),
        Err(failure) => {
            drop(channel.send(&FromWorker::Failed(failure), &[]));
            1
        }
    }
}

fn make(channel: &Channel, prepare: &mut Prepare, passed: Vec<OwnedFd>) -> Staged<Born> {
    let Passed { workspace, stdio, .. } = Passed::new(prepare, passed)?;
    if prepare.plan == Plan::User {
        IdMap::own_of(&prepare.launch.owner).write(identity::open_proc()?, "self")?;
    }
    let own_network = prepare.plan != Plan::Minimal && network::is_own(&prepare.launch.spec);
    let network = if own_network { Some(Making::begin()?) } else { None };
    if prepare.plan != Plan::Minimal {
        // A mount that never answers may stop us before we'd see the end of the channel.
        identity::die_with_parent()?;
    }
    let pivoted = plan::enter_root(channel, prepare, workspace, Builder::Lone)?;
    let own = if prepare.plan == Plan::System { Some(plan::namespace(channel)?) } else { None };
    Ok(Born { pivoted, stdio, mapper: Mapper::Launcher(own), network })
}
