//! Network namespaces of ended runs, for the next workers of the same template: nobody else's, and never two workers' at once.
//!
//! ```text
//! worker parked ──> Slot, the run's ── its last process reaped ──> Bank ──> Slot, another worker's
//! ```
//!
//! A slot is a descriptor that is moved and never copied, so while one worker may still be in it there is nothing to give
//! to another. Whether it's fit to be used again is found out by who enters it ([`network`](crate::stages::network)).

use stockade_protocol::confinement::Plan;

use crate::messages::Prepare;
use crate::stages::network::{self, Slot};

/// The most that wait for a worker, of all templates: as many as a burst of runs leaves. Each is 188 KiB of the kernel's memory.
pub(crate) const ALL_SLOTS: usize = 64;

/// Whether a worker's namespace may be another's later. In the user plan it belongs to the worker's own user namespace, from
/// outside of which nobody but root may enter it (`EPERM`).
pub(crate) fn may_keep(prepare: &Prepare) -> bool {
    prepare.plan == Plan::System && network::is_reusable(&prepare.spec)
}

/// Those of one template.
#[derive(Debug, Default)]
pub(crate) struct Bank(Vec<Slot>);

impl Bank {
    /// The last that was given back.
    pub(crate) fn take(&mut self) -> Option<Slot> {
        self.0.pop()
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Keeps one.
    pub(crate) fn keep(&mut self, slot: Slot) {
        self.0.push(slot);
    }
}
