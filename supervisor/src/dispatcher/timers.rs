//! Who has to be looked at when: at most one time a run.

use std::collections::{BTreeSet, HashMap};

use stockade_protocol::ExecId;

/// Times in milliseconds, soonest first.
#[derive(Debug, Default)]
pub(super) struct Timers {
    order: BTreeSet<(u64, ExecId)>,
    times: HashMap<ExecId, u64>,
}

impl Timers {
    /// Sets or replaces a run's time; `None` clears it.
    pub(super) fn set(&mut self, run: ExecId, at: Option<u64>) {
        let old = match at {
            Some(at) => self.times.insert(run, at),
            None => self.times.remove(&run),
        };
        if let Some(old) = old {
            self.order.remove(&(old, run));
        }
        if let Some(at) = at {
            self.order.insert((at, run));
        }
    }

    /// Whether a run has a time.
    pub(super) fn has(&self, run: ExecId) -> bool {
        self.times.contains_key(&run)
    }

    /// The soonest time.
    pub(super) fn next(&self) -> Option<u64> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes a run whose time has come.
    pub(super) fn take_due(&mut self, now: u64) -> Option<ExecId> {
        let (at, run) = *self.order.first()?;
        if at > now {
            return None;
        }
        self.set(run, None);
        Some(run)
    }
}
