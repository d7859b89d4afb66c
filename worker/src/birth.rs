//! A worker's birth: from a fresh clone in its namespaces to the root that it has built and stands in. Then it's the
//! run's init.
//!
//! ```text
//! cloned by its template (embedded: by its launcher) ──> root built ──> init, parked ── Start ──> …
//! ```
//!
//! What it needs is in its memory when it's cloned. Nothing that it can change is shared with another worker: each has mounts
//! and ids of its own, a network namespace that's fresh or looks so, and perhaps the names beneath its mounts from a worker
//! before it.

use std::os::fd::OwnedFd;

use rustix::fs::Mode;
use stockade_protocol::confinement::Plan;
use stockade_wire::channel::Channel;

use crate::failure::Staged;
use crate::init::{self, Born, Told};
use crate::laps::{Lap, Laps};
use crate::messages::{FromWorker, Prepare, say};
use crate::plan;
use crate::stages::beside::Beside;
use crate::stages::foundation::Ground;
use crate::stages::identity::{self, IdMap};
use crate::stages::network::{Slot, Traces};
use crate::sys;

/// What a worker is handed by who clones it.
#[derive(Debug, Default)]
pub(crate) struct Handed<'a> {
    /// The workspace, if it was passed.
    pub(crate) workspace: Option<OwnedFd>,
    /// A network namespace to use again, and how a fresh one looks.
    pub(crate) network: Option<(Slot, &'a Traces)>,
    /// What workers of one template share of their roots.
    pub(crate) ground: Option<Ground>,
}

/// What a worker is to have of its maker: a template has it already when it clones one. `changed`: the signals that may not be
/// as they are by default.
pub(crate) fn have_defaults(changed: u64) {
    sys::reset_signals(changed);
    rustix::process::umask(Mode::from_raw_mode(0o022));
}

/// The life of a worker with [defaults](have_defaults). Gives its exit code, which nobody reads. `told`: what
/// it will run, with its standard descriptors, where that is known when it's made.
pub(crate) fn run(channel: OwnedFd, prepare: &mut Prepare, handed: Handed<'_>, told: Told<'_>) -> i32 {
    let channel = Channel::new(channel);
    let laps = Laps::begin(told.is_none());
    match make(&channel, prepare, handed, laps) {
        Ok(born) => init::run(&channel, prepare, born, told),
        Err(failure) => {
            drop(say(&channel, &FromWorker::Failed(failure), &[]));
            1
        }
    }
}

fn make(channel: &Channel, prepare: &mut Prepare, handed: Handed<'_>, mut laps: Laps) -> Staged<Born> {
    if prepare.plan == Plan::User {
        IdMap::own_of(&prepare.owner).write(identity::open_proc()?, "self")?;
    }
    let mut beside = Beside::begin(prepare, handed.network)?;
    if prepare.plan != Plan::Minimal {
        // A mount that never answers may stop us before we'd see the end of the channel.
        identity::die_with_parent()?;
    }
    laps.end(Lap::Namespaces);
    let pivoted =
        plan::enter_root(channel, prepare, handed.workspace, handed.ground, (&mut beside, &mut laps))?;
    laps.end(Lap::Mount);
    Ok(Born { pivoted, beside, laps })
}
