//! The lone worker: template and init of one run in one process, for an embedded launcher.
//!
//! ```text
//! cloned by the launcher into its namespaces, ahead of the run ── Prepare ──> root built ──> init, parked ──> …
//! ```
//!
//! A CLI without a daemon makes one run and ends, so a template that could make others would be a process for nothing:
//! a fork, its page faults, and two hand-overs. It is cloned while its run is still being decided.

use std::os::fd::OwnedFd;

use rustix::fs::Mode;
use stockade_protocol::confinement::Plan;
use stockade_wire::channel::Channel;

use crate::failure::Staged;
use crate::init::{self, Born};
use crate::messages::{FromWorker, Prepare};
use crate::plan::{self, Builder, Passed};
use crate::stages::identity;
use crate::stages::network::{self, Making};
use crate::stages::worker::Mapper;
use crate::sys;

/// The life of a lone worker. Gives its exit code, which nobody reads. `own_network`: whether it will most likely want a
/// network namespace of its own.
pub(crate) fn run(channel: OwnedFd, own_network: bool) -> i32 {
    let channel = Channel::new(channel);
    sys::reset_signals();
    rustix::process::umask(Mode::from_raw_mode(0o022));
    match make(&channel, own_network) {
        Ok((prepare, born)) => init::run(&channel, &prepare, born),
        Err(failure) => {
            drop(channel.send(&FromWorker::Failed(failure), &[]));
            1
        }
    }
}

fn make(channel: &Channel, own_network: bool) -> Staged<(Box<Prepare>, Born)> {
    let ahead = if own_network { Some(Making::begin()?) } else { None };
    let (mut prepare, passed) = plan::receive(channel)?;
    let Passed { workspace, stdio, .. } = passed;
    if prepare.plan != Plan::Minimal {
        // A mount that never answers may stop us before we'd see the end of the channel.
        identity::die_with_parent()?;
    }
    let wanted = prepare.plan != Plan::Minimal && network::is_own(&prepare.launch.spec);
    let network = match ahead {
        Some(making) if wanted => Some(making),
        None if wanted => Some(Making::begin()?),
        _ => None,
    };
    let pivoted = plan::enter_root(channel, &mut prepare, workspace, Builder::Lone)?;
    let own = if prepare.plan == Plan::System { Some(plan::namespace(channel)?) } else { None };
    Ok((prepare, Born { pivoted, stdio, mapper: Mapper::Launcher(own), network }))
}
