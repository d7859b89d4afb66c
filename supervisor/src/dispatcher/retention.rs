//! How long an ended run is kept: until its client has it, or for the retention, under caps.
//!
//! Two caps with two answers. Over the cap on output, the oldest kept output is given up and the run stays (its
//! follower is told what was lost, and still gets `Exited`). Over the cap on records, the oldest run that nobody
//! is waiting for is forgotten; those that somebody waits for are bounded by the runs a connection may follow.

use std::collections::{BTreeMap, HashMap};

use stockade_protocol::ExecId;

use super::core::Dispatcher;
use super::event::Effect;
use super::run::Run;

/// Ended runs, oldest first, and what they take.
#[derive(Debug, Default)]
pub(super) struct Kept {
    order: BTreeMap<u64, ExecId>,
    next: u64,
    output: u64,
    owners: HashMap<u32, OfOwner>,
}

#[derive(Debug, Default)]
struct OfOwner {
    runs: usize,
    output: u64,
}

impl Kept {
    fn add(&mut self, id: ExecId, run: &mut Run) {
        let place = self.next;
        self.next += 1;
        run.place = Some(place);
        self.order.insert(place, id);
        self.output += run.kept;
        let of_owner = self.owners.entry(run.owner).or_default();
        of_owner.runs += 1;
        of_owner.output += run.kept;
    }

    fn drop_output(&mut self, run: &mut Run) {
        let kept = core::mem::take(&mut run.kept);
        self.output -= kept;
        if let Some(of_owner) = self.owners.get_mut(&run.owner) {
            of_owner.output -= kept;
        }
    }

    fn remove(&mut self, run: &mut Run) {
        let Some(place) = run.place.take() else { return };
        self.drop_output(run);
        self.order.remove(&place);
        if let Some(of_owner) = self.owners.get_mut(&run.owner) {
            of_owner.runs -= 1;
            if of_owner.runs == 0 {
                self.owners.remove(&run.owner);
            }
        }
    }
}

impl Dispatcher {
    /// Keeps a run that has just ended, and makes room.
    pub(super) fn keep(&mut self, now: u64, id: ExecId, effects: &mut Vec<Effect>) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let owner = run.owner;
        self.kept.add(id, run);
        self.timers.set(id, Some(now.saturating_add(self.bounds.retention_ms)));
        self.forget_if_done(id, effects);
        self.make_room_for_output(owner, effects);
        self.make_room_for_runs(owner, effects);
    }

    fn make_room_for_output(&mut self, owner: u32, effects: &mut Vec<Effect>) {
        loop {
            let of_owner = self.kept.owners.get(&owner).map_or(0, |of_owner| of_owner.output);
            let over_owner = of_owner > self.bounds.kept_output_per_owner;
            if !over_owner && self.kept.output <= self.bounds.kept_output {
                return;
            }
            let oldest = self.kept.order.values().copied().find(|id| {
                self.runs.get(id).is_some_and(|run| run.kept > 0 && (!over_owner || run.owner == owner))
            });
            let Some(id) = oldest else { return };
            if let Some(run) = self.runs.get_mut(&id) {
                self.kept.drop_output(run);
            }
            effects.push(Effect::DropOutput { run: id });
        }
    }

    fn make_room_for_runs(&mut self, owner: u32, effects: &mut Vec<Effect>) {
        loop {
            let of_owner = self.kept.owners.get(&owner).map_or(0, |of_owner| of_owner.runs);
            let over_owner = of_owner > self.bounds.kept_runs_per_owner;
            if !over_owner && self.kept.order.len() <= self.bounds.kept_runs {
                return;
            }
            let oldest = self.kept.order.values().copied().find(|id| {
                // Whose client may still come back somebody waits for.
                let is_awaited = |run: &Run| run.is_awaited() || self.claims.has(*id);
                self.runs.get(id).is_some_and(|run| !is_awaited(run) && (!over_owner || run.owner == owner))
            });
            let Some(id) = oldest else { return };
            self.forget(id, effects);
        }
    }

    pub(super) fn forget_if_done(&mut self, id: ExecId, effects: &mut Vec<Effect>) {
        if self.runs.get(&id).is_some_and(Run::is_done_with) {
            self.forget(id, effects);
        }
    }

    /// The retention of a run is over. While somebody still waits for its `Exited`, it is looked at again later.
    pub(super) fn retention_over(&mut self, now: u64, id: ExecId, effects: &mut Vec<Effect>) {
        if self.runs.get(&id).is_some_and(Run::is_awaited) {
            self.timers.set(id, Some(now.saturating_add(self.bounds.retention_ms.max(1))));
        } else {
            self.forget(id, effects);
        }
    }

    fn forget(&mut self, id: ExecId, effects: &mut Vec<Effect>) {
        let Some(mut run) = self.runs.remove(&id) else { return };
        self.kept.remove(&mut run);
        self.timers.set(id, None);
        self.claims.set(id, None);
        effects.push(Effect::Forget { run: id });
    }
}
