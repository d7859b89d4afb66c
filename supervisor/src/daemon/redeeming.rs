//! Runs that were let through by a grant: from the gate to the record, and the end of those that end with it.
//!
//! A use that is counted is on disk before anything else happens to the run; what waits for that stands beside what waits for the
//! record ([`super::recording`]), under bounds like its, and goes there next.

use std::collections::HashMap;
use std::time::Duration;

use stockade_audit::Request;
use stockade_gate::grants::{GrantId, Redeemed};
use stockade_protocol::ExecId;
use stockade_protocol::denied::{Denied, DenyReason};
use stockade_protocol::launch::GrantNote;
use stockade_protocol::outcome::CancelReason;
use stockade_stats::Stage;

use super::recording::{Undecided, cancelled};
use super::state::State;
use crate::dispatcher::{Event, draining};
use crate::grants::{Told, Write, is_late, late};
use crate::metrics::GrantEvent;
use crate::runs::Run;
use crate::statistics::stage;

/// When to ask again while too many wait, in milliseconds.
const FULL_MS: u64 = 100;

/// How often the calendar is looked at while runs end with their grants: somebody may have set it forward.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// A run whose use isn't on disk yet.
#[derive(Debug)]
pub(crate) struct Redeeming {
    undecided: Undecided,
    request: Option<Request>,
}

impl Redeeming {
    /// Whose it is, and how many bytes it holds.
    fn held(&self) -> (u32, usize) {
        self.undecided.held()
    }

    pub(super) fn undecided(&mut self) -> &mut Undecided {
        &mut self.undecided
    }
}

/// A grant as people are told of it.
pub(super) fn name(id: GrantId) -> String {
    ExecId::from_bytes(id.0).to_string()
}

impl State {
    /// Has a use written down, if it's counted, and then the run recorded.
    pub(super) fn redeem(&mut self, mut undecided: Undecided, request: Option<Request>, redeemed: Redeemed) {
        let id = undecided.run.exec_id;
        let note = GrantNote { id: redeemed.id.0, ends_run: redeemed.ends_runs };
        undecided.run.grant = Some(note);
        if let Some(waiting) = &mut undecided.run.waiting {
            waiting.launch.note.grant = Some(note);
        }
        let because = format!("grant {}", name(redeemed.id));
        let request = request.map(|mut request| {
            request.because.push(because);
            request
        });
        let redeeming = Redeeming { undecided, request };
        let mut writes = self.grant_writes();
        // As it is now, whatever was or wasn't written of it meanwhile: a run that somebody was asked about took its use long ago, and
        // nobody was told whether that is on disk.
        let left = self.gate.held().get(redeemed.id).and_then(|grant| grant.uses).map(|uses| uses.left);
        let Some(grants) = &mut self.grants else { return self.refuse_redeeming(redeeming, full()) };
        if redeemed.left.is_none() {
            grants.write(writes);
            return self.has_redeemed(redeeming);
        }
        writes.extend(left.map(|left| Write::Left(redeemed.id, left)));
        let (owner, bytes) = redeeming.held();
        let waiting = grants.redeeming.values().map(Redeeming::held);
        if !grants.has_room() || !grants.most.allow(waiting, owner, bytes) {
            grants.write(writes);
            return self.refuse_redeeming(redeeming, full());
        }
        grants.redeeming.insert(id, redeeming);
        grants.tell(writes, move |result| Told::Redeemed(id, result));
    }

    fn has_redeemed(&mut self, redeeming: Redeeming) {
        self.figures.gated.granted(GrantEvent::Redeemed);
        self.record_intent(redeeming.undecided, redeeming.request);
    }

    /// A use is on disk, or why it isn't.
    pub(crate) fn redeemed(&mut self, id: ExecId, result: Result<(), String>) {
        // One that was given up has been refused, and its use given back.
        let Some(redeeming) = self.grants.as_mut().and_then(|grants| grants.redeeming.remove(&id)) else {
            return;
        };
        if redeeming.undecided.is_cancelled {
            return self.refuse_redeeming(redeeming, cancelled());
        }
        if self.is_given_up(&redeeming.undecided) {
            let tool = redeeming.undecided.run.tool.clone();
            return self.came_to_nothing(id, tool.as_ref());
        }
        if let Err(why) = result {
            tracing::error!(why, run = %id, "the use of a grant can't be written, and the run isn't started");
            let text = "the use of your grant can't be written down just now, and so nothing is run";
            let denied = Denied::new(DenyReason::Unavailable, text)
                .decided_by("access", "grant")
                .remedy("ask again later; the daemon's log has the reason (a full disk?)");
            return self.refuse_redeeming(redeeming, denied);
        }
        let is_there = self.gate.redeemed(id).is_some_and(|of| self.gate.held().get(of.id).is_some());
        if is_there {
            self.has_redeemed(redeeming);
        } else {
            let text = "the grant was revoked, or is over, before anything was run";
            let denied = Denied::new(DenyReason::NotPermitted, text).decided_by("access", "grant");
            self.refuse_redeeming(redeeming, denied);
        }
    }

    fn refuse_redeeming(&mut self, redeeming: Redeeming, denied: Denied) {
        let Redeeming { undecided, request } = redeeming;
        let Undecided { run, connection, principal, request_id, is_cancelled, .. } = undecided;
        self.came_to_nothing(run.exec_id, run.tool.as_ref());
        self.count_refused_run(&run, stage(&denied));
        if let (Some(record), Some(request)) = (&self.record, request) {
            record.refused(principal, request, &denied);
        }
        // Who has cancelled it was told so then.
        if !is_cancelled {
            self.refuse(connection, request_id, denied);
        }
    }

    /// Refuses what has waited for the disk for too long.
    pub(crate) fn give_up_grants(&mut self) {
        let Some(grants) = &self.grants else { return };
        let runs: Vec<ExecId> = grants
            .redeeming
            .iter()
            .filter(|(_, waits)| is_late(waits.undecided.since))
            .map(|(id, _)| *id)
            .collect();
        let making: Vec<GrantId> =
            grants.making.iter().filter(|(_, waits)| is_late(waits.since)).map(|(id, _)| *id).collect();
        let going: Vec<GrantId> =
            grants.going.iter().filter(|(_, waits)| is_late(waits.since)).map(|(id, _)| *id).collect();
        runs.into_iter().for_each(|id| self.redeemed(id, Err(late())));
        making.into_iter().for_each(|id| self.give_up_making(id));
        going.into_iter().for_each(|id| self.grant_gone(id, Err(late())));
    }

    /// Refuses all that waits for the disk: the daemon ends.
    pub(super) fn refuse_all_redeeming(&mut self) {
        let all = self.grants.as_mut().map(|grants| core::mem::take(&mut grants.redeeming));
        for redeeming in all.into_iter().flat_map(HashMap::into_values) {
            let Undecided { run, connection, request_id, is_cancelled, .. } = redeeming.undecided;
            self.came_to_nothing(run.exec_id, run.tool.as_ref());
            self.count_refused_run(&run, Stage::Queue);
            if !is_cancelled {
                self.refuse(connection, request_id, draining());
            }
        }
    }

    /// What is to be on disk of grants since this was last asked.
    pub(super) fn grant_writes(&mut self) -> Vec<Write> {
        self.gate.take_grant_changes().into_iter().map(Write::from).collect()
    }

    /// Has written what is to be on disk, and nobody waits for.
    pub(super) fn write_grants(&mut self) {
        let writes = self.grant_writes();
        if let Some(grants) = self.grants.as_ref().filter(|_| !writes.is_empty()) {
            grants.write(writes);
        }
    }

    /// A run has begun, as far as its grant is concerned: the dispatcher has it.
    pub(super) fn began(&mut self, id: ExecId) {
        let Some(run) = self.runs.get(&id) else { return };
        let (note, is_over) = (run.grant, run.exited.is_some());
        if let Some(note) = note {
            self.gate.began(id);
            if note.ends_run && !is_over {
                self.depend(id, GrantId(note.id));
            }
        }
    }

    /// A run that another supervisor has launched is here.
    pub(super) fn adopt_grant(&mut self, id: ExecId) {
        let note = self.runs.get(&id).and_then(|run| run.grant).filter(|note| note.ends_run);
        if let Some(note) = note {
            self.depend(id, GrantId(note.id));
        }
    }

    /// Has a run end with its grant, at once if that is gone.
    fn depend(&mut self, run: ExecId, grant: GrantId) {
        let is_there = self.gate.held().get(grant).is_some();
        match &mut self.grants {
            Some(grants) if is_there => {
                grants.depending.insert(run, grant);
                if grants.depending.len() == 1 {
                    self.wait_for_ends();
                }
            }
            _ => self.end_with_grant(run, grant),
        }
    }

    /// Has the timer ring when the first grant is over.
    pub(crate) fn wait_for_ends(&mut self) {
        let Some(grants) = &mut self.grants else { return };
        let next = next_look(self.gate.held().next_end(), !grants.depending.is_empty());
        grants.ring_after(&self.daemon, next);
    }

    /// A run has ended.
    pub(super) fn depends_no_more(&mut self, run: ExecId) {
        if let Some(grants) = &mut self.grants {
            grants.depending.remove(&run);
        }
    }

    fn end_with_grant(&mut self, run: ExecId, grant: GrantId) {
        let Some(ending) = self.runs.get(&run) else { return };
        tracing::info!(parent: ending.span(), grant = name(grant), "its grant is over, and so it ends");
        self.note_run_ended(ending, grant);
        self.figures.gated.granted(GrantEvent::EndedRun);
        self.handle(Event::End { now: self.now(), run, reason: CancelReason::GrantOver });
    }

    fn note_run_ended(&self, run: &Run, grant: GrantId) {
        if let Some(record) = &self.record {
            let principal = stockade_audit::Principal { uid: run.owner, ..Default::default() };
            let text = format!("a run ends with its grant: {}", name(grant));
            record.watched(principal, "grant-ended-run", text, &run.exec_id.to_string());
        }
    }

    /// Ends the runs whose grants are over or gone; which, and by which grants they ran.
    pub(crate) fn end_with_grants(&mut self) -> Vec<(ExecId, GrantId)> {
        let Some(grants) = &mut self.grants else { return Vec::new() };
        let ending: Vec<(ExecId, GrantId)> = {
            let held = self.gate.held();
            grants.depending.extract_if(|_, grant| held.get(*grant).is_none()).collect()
        };
        for (run, grant) in &ending {
            self.end_with_grant(*run, *grant);
        }
        self.sweep_grants();
        self.write_grants();
        self.wait_for_ends();
        ending
    }
}

/// When to look next whether grants are over. The timer goes by the clock that nobody sets: while runs are to end with theirs, the
/// calendar is looked at, too.
fn next_look(next_end: Option<Duration>, runs_depend: bool) -> Option<Duration> {
    next_end.map(|next| if runs_depend { next.min(LOOK_EVERY) } else { next })
}

fn full() -> Denied {
    let text = "too many runs wait until their grants' uses are written down";
    Denied::new(DenyReason::Busy, text).retry_after(FULL_MS).remedy("ask again in a moment: the disk is slow")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_runs_end_with_their_grants_the_calendar_is_looked_at_and_else_nobody_wakes_for_it() {
        let (short, long) = (Duration::from_secs(5), Duration::from_secs(7_200));
        for (next, depends, expected) in [
            (None, true, None),
            (Some(long), false, Some(long)),
            (Some(long), true, Some(LOOK_EVERY)),
            (Some(short), true, Some(short)),
        ] {
            assert_eq!(next_look(next, depends), expected);
        }
    }
}
