//! Runs that another supervisor has accepted, and its launcher has kept: they are taken over where they stand, hold their
//! slots, and wait a while for the clients that were cut off.

use std::collections::BTreeMap;

use stockade_protocol::ExecId;
use stockade_protocol::bounds::UNCLAIMED_MS;
use stockade_protocol::outcome::CancelReason;
use stockade_protocol::ring::FIRST_SEQ;

use super::bounds::{OVERDUE_MS, STARTING_MS};
use super::core::Dispatcher;
use super::event::{Adopted, ConnectionId, Effect};
use super::run::{Phase, Run};

impl Dispatcher {
    /// Takes a run over. Its launcher says next whether it has started, and whether it has ended.
    pub(super) fn adopt(&mut self, adopted: &Adopted) {
        let &Adopted { now, run: id, launcher, owner, detach, relayed, wall_ms } = adopted;
        let run = Run {
            owner,
            origin: None,
            origin_gone: false,
            origin_delivered: false,
            detach,
            relayed,
            wall_ms,
            bytes: 0,
            phase: Phase::Starting,
            launcher: Some(launcher),
            started_at: now,
            next_seq: 2,
            has_started: false,
            ring_next_seq: FIRST_SEQ,
            eof: false,
            kept: 0,
            cancelled: false,
            overdue: None,
            acknowledged: false,
            place: None,
            followers: BTreeMap::new(),
        };
        if self.runs.insert(id, run).is_some() {
            return;
        }
        self.totals.accepted += 1;
        // It runs already: there may be more runs than slots until some have ended.
        self.running += 1;
        *self.holding.entry(owner).or_default() += 1;
        // At the latest then it should have started, or ended: the launcher arms its limits itself.
        self.timers.set(id, Some(now.saturating_add(STARTING_MS).saturating_add(OVERDUE_MS)));
        self.claims.set(id, Some(now.saturating_add(UNCLAIMED_MS)));
    }

    /// Somebody follows a run. Of one that nobody has claimed yet, he is from now on who asked for it.
    pub(super) fn claim(&mut self, connection: ConnectionId, id: ExecId) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        if run.origin.is_none() && !run.origin_gone {
            run.origin = Some(connection);
            self.claims.set(id, None);
        }
    }

    /// Ends the runs that nobody has claimed in time, unless they may go on without a client.
    pub(super) fn unclaimed(&mut self, now: u64, effects: &mut Vec<Effect>) {
        while let Some(id) = self.claims.take_due(now) {
            let Some(run) = self.runs.get_mut(&id) else { continue };
            run.origin_gone = true;
            let detach = run.detach;
            effects.push(Effect::Unclaimed { run: id });
            if !detach {
                self.cancel(now, id, CancelReason::ClientGone, effects);
            }
            self.forget_if_done(id, effects);
        }
    }
}
