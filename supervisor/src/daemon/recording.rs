//! Requests between the gate and the dispatcher: those whose intent isn't durable yet. Before them stand those that take a use of a
//! grant ([`super::redeeming`]).

use std::time::Instant;

use stockade_audit::{Principal, Request};
use stockade_gate::grants::GrantId;
use stockade_protocol::ExecId;
use stockade_protocol::client::ServerMessage;
use stockade_protocol::denied::{Denied, DenyReason};
use stockade_protocol::launch::CalledTool;
use stockade_protocol::outcome::Outcome;
use stockade_stats::Stage;

use super::redeeming::Redeeming;
use super::state::State;
use crate::dispatcher::event;
use crate::dispatcher::{ConnectionId, Event, draining};
use crate::record::{self, Needless, WITHIN};
use crate::runs::Run;
use crate::statistics::stage;

/// A request that was let through, and has only to be recorded.
#[derive(Debug)]
pub(crate) struct Undecided {
    pub(super) run: Run,
    pub(super) connection: ConnectionId,
    /// Who asks, as it's written down: his connection may be gone.
    pub(super) principal: Principal,
    pub(super) request_id: u64,
    pub(super) detach: bool,
    pub(super) bytes: usize,
    /// Since when it waits.
    pub(super) since: Instant,
    /// Its client has given it up, and was told so. It keeps its place: what waits for a disk that hangs is bounded by what is held.
    pub(super) is_cancelled: bool,
}

impl Undecided {
    /// Whose it is, and how many bytes it holds.
    pub(crate) fn held(&self) -> (u32, usize) {
        (self.run.owner, self.bytes)
    }
}

impl State {
    /// Has a request's grant written down, if it was let through by one, then the request recorded, if there is a record, and then run.
    pub(super) fn decide(
        &mut self,
        run: Run,
        asked: (ConnectionId, u64, bool, usize),
        request: Option<Request>,
    ) {
        let principal = self.principal(asked.0);
        self.decide_for(principal, run, asked, request);
    }

    /// The same of what somebody has asked for who may be gone by now.
    pub(super) fn decide_for(
        &mut self,
        principal: Principal,
        run: Run,
        (connection, request_id, detach, bytes): (ConnectionId, u64, bool, usize),
        request: Option<Request>,
    ) {
        let id = run.exec_id;
        let since = Instant::now();
        let is_cancelled = false;
        let undecided =
            Undecided { run, connection, principal, request_id, detach, bytes, since, is_cancelled };
        match self.gate.redeemed(id) {
            Some(redeemed) => self.redeem(undecided, request, redeemed),
            None => self.record_intent(undecided, request),
        }
    }

    /// Has a request recorded, if there is a record, and then run.
    pub(super) fn record_intent(&mut self, mut undecided: Undecided, request: Option<Request>) {
        let Undecided { connection, request_id, bytes, .. } = undecided;
        let id = undecided.run.exec_id;
        let principal = undecided.principal.clone();
        // The record's own patience begins here.
        undecided.since = Instant::now();
        match (&mut self.record, request) {
            (Some(record), Some(request)) if !record.has_room_for(undecided.run.owner, bytes) => {
                let denied = record::full();
                record.refused(principal, request, &denied);
                self.count_refused_run(&undecided.run, stage(&denied));
                self.came_to_nothing(id, undecided.run.tool.as_ref());
                self.refuse(connection, request_id, denied);
            }
            (Some(record), Some(request)) => record.intend(id, undecided, principal, request),
            _ => self.dispatch(undecided),
        }
    }

    /// What the gate has let pass is no run: what was taken for it is given back.
    pub(super) fn came_to_nothing(&mut self, id: ExecId, tool: Option<&CalledTool>) {
        self.gate.never_began(id, tool, self.uptime());
        self.reviewed_later(id, Err("it couldn't be begun just now".to_owned()));
        self.write_grants();
    }

    /// Who asks by a connection, as it's written down.
    pub(super) fn principal(&self, connection: ConnectionId) -> Principal {
        self.connections.get(&connection).map_or_else(Principal::default, |outbox| Principal {
            uid: outbox.owner.uid,
            pid: Some(outbox.pid).filter(|pid| *pid != 0),
            unit: outbox.unit.clone(),
            roles: outbox.asker.iter().flat_map(|(_, asker)| asker.roles.iter().cloned()).collect(),
        })
    }

    /// An intent is durable, or why it isn't.
    pub(crate) fn decided(&mut self, id: ExecId, recorded: Result<(), String>) {
        let Some(record) = &mut self.record else { return };
        let is_required = record.is_required;
        let Some(undecided) = record.undecided.remove(&id) else {
            if let Some((owner, tool)) = record.given_up.remove(&id)
                && recorded.is_ok()
            {
                record.not_started(owner, tool.as_deref(), id);
            }
            return;
        };
        if recorded.is_ok() {
            self.figures.gated.recorded(undecided.since.elapsed());
        }
        if self.is_given_up(&undecided) {
            let Undecided { run, is_cancelled, .. } = undecided;
            self.came_to_nothing(id, run.tool.as_ref());
            if is_cancelled {
                self.count_refused_run(&run, stage(&cancelled()));
            }
            if recorded.is_ok() {
                self.record_not_started(&run);
            }
            return;
        }
        if self.is_needless_review(&undecided.run) {
            let Undecided { run, .. } = undecided;
            self.came_to_nothing(id, run.tool.as_ref());
            self.clear_room(id);
            if recorded.is_ok() {
                self.record_not_started(&run);
            }
            return;
        }
        if self.has_lost_its_grant(&undecided.run) {
            if recorded.is_ok() {
                self.record_not_started(&undecided.run);
            }
            return self.refuse_before_it_begins(undecided, grant_over());
        }
        match recorded {
            Ok(()) => self.dispatch(undecided),
            Err(why) if is_required => self.refuse_undecided(undecided, &why),
            Err(why) => {
                tracing::warn!(why, run = %id, "a run isn't recorded, and starts all the same: audit.required is off");
                self.dispatch(undecided);
            }
        }
    }

    /// Whether nobody wants it any more.
    pub(super) fn is_given_up(&self, undecided: &Undecided) -> bool {
        let is_gone = !undecided.detach && !self.connections.contains_key(&undecided.connection);
        undecided.is_cancelled || is_gone
    }

    /// A client gives up what waits for a disk: it's answered at once, whenever that disk answers. Whether there is any such.
    pub(super) fn give_up(&mut self, is_it: impl Fn(&Undecided) -> bool) -> bool {
        let recording = self.record.as_mut().into_iter().flat_map(|record| record.undecided.values_mut());
        let redeeming = self.grants.as_mut().into_iter().flat_map(|grants| grants.redeeming.values_mut());
        let all = recording.chain(redeeming.map(Redeeming::undecided));
        let Some(undecided) = all.into_iter().find(|undecided| !undecided.is_cancelled && is_it(undecided))
        else {
            return false;
        };
        undecided.is_cancelled = true;
        let (connection, request_id) = (undecided.connection, undecided.request_id);
        self.refuse(connection, request_id, cancelled());
        true
    }

    /// Refuses what has waited for the record for too long.
    pub(crate) fn give_up_undecided(&mut self) {
        let Some(record) = &mut self.record else { return };
        let now = Instant::now();
        let late: Vec<ExecId> = record
            .undecided
            .iter()
            .filter(|(_, waits)| now.duration_since(waits.since) >= WITHIN)
            .map(|(id, _)| *id)
            .collect();
        for id in &late {
            if let Some(waits) = record.undecided.get(id).filter(|_| record.is_required) {
                let tool = waits.run.tool.as_ref().map(|tool| tool.name.clone());
                record.given_up.insert(*id, (waits.run.owner, tool));
            }
        }
        for id in late {
            self.decided(id, Err(format!("the disk hasn't answered for {WITHIN:?}")));
        }
    }

    /// Refuses all that waits for the record: the daemon ends.
    pub(crate) fn refuse_all_undecided(&mut self) {
        self.refuse_all_redeeming();
        let all = self.record.as_mut().map(|record| core::mem::take(&mut record.undecided));
        for (id, undecided) in all.into_iter().flatten() {
            let Undecided { run, connection, request_id, is_cancelled, .. } = undecided;
            self.came_to_nothing(id, run.tool.as_ref());
            self.record_not_started(&run);
            self.count_refused_run(&run, Stage::Queue);
            if !is_cancelled {
                self.refuse(connection, request_id, draining());
            }
        }
    }

    /// Whether the grant by which a run was let through isn't there any more.
    pub(super) fn has_lost_its_grant(&self, run: &Run) -> bool {
        run.grant.is_some_and(|note| self.gate.held().get(GrantId(note.id)).is_none())
    }

    fn refuse_undecided(&mut self, undecided: Undecided, why: &str) {
        self.refuse_before_it_begins(undecided, record::unavailable(why));
    }

    fn refuse_before_it_begins(&mut self, undecided: Undecided, denied: Denied) {
        let Undecided { run, connection, request_id, .. } = undecided;
        self.came_to_nothing(run.exec_id, run.tool.as_ref());
        self.count_refused_run(&run, stage(&denied));
        self.refuse(connection, request_id, denied);
    }

    /// Tells a client that nothing comes of its request.
    pub(super) fn refuse(&mut self, connection: ConnectionId, request_id: u64, denied: Denied) {
        self.dispatcher.count_denied();
        self.answer(connection, &ServerMessage::Denied { request_id, exec_id: None, denied });
    }

    fn dispatch(&mut self, undecided: Undecided) {
        let Undecided { run, connection, request_id, detach, bytes, .. } = undecided;
        let (id, owner) = (run.exec_id, run.owner);
        let event = Event::Request(event::Request {
            now: self.now(),
            run: id,
            connection,
            request_id,
            owner,
            detach,
            relayed: run.ring_bytes.is_some(),
            wall_ms: run.waiting.as_ref().and_then(|waiting| waiting.spec.limits.wall_ms),
            bytes,
        });
        self.runs.insert(id, run);
        self.handle(event);
        if !self.connections.contains_key(&connection) {
            // Its client left while it waited, and nobody else tells the dispatcher, or its tool that there is no more input.
            let streaming = self.runs.get(&id).filter(|run| run.streams_input);
            if let Some(feed) = streaming.and_then(|run| run.feed.as_ref()) {
                feed.end();
            }
            self.handle(Event::Disconnected { now: self.now(), connection });
        }
        if self.dispatcher.phase(id, owner).is_none()
            && let Some(run) = self.runs.remove(&id)
        {
            self.came_to_nothing(id, run.tool.as_ref());
            self.record_not_started(&run);
            // The dispatcher has refused it, and told its client.
            self.count_refused_run(&run, Stage::Queue);
        } else {
            self.began(id);
            self.end_if_review(id);
        }
    }

    fn record_not_started(&self, run: &Run) {
        if let Some(record) = &self.record {
            record.not_started(run.owner, run.tool.as_ref().map(|tool| tool.name.as_str()), run.exec_id);
        }
    }

    /// Writes what came of a run.
    pub(super) fn record_end(&mut self, id: ExecId, outcome: &Outcome) {
        if let (Some(record), Some(run)) = (&mut self.record, self.runs.get(&id)) {
            let usage = run.started.then(|| run.final_usage());
            let tool = run.tool.as_ref().map(|tool| tool.name.as_str());
            record.ended(run.owner, tool, id, outcome, usage.as_ref());
        }
    }

    /// Tells a launcher that a run is needed no more, once its outcome is written.
    pub(super) fn release(&mut self, id: ExecId, needless: Needless) {
        let is_held = self.record.as_mut().is_some_and(|record| record.holds(id, needless));
        if !is_held {
            self.links.release(needless.launcher, id, needless.has_ring);
        }
    }

    /// Releases a run that was held until its outcome was written.
    pub(crate) fn release_needless(&mut self, id: Option<ExecId>, needless: Option<Needless>) {
        if let (Some(id), Some(needless)) = (id, needless) {
            self.links.release(needless.launcher, id, needless.has_ring);
            if let Some(launcher) = needless.launcher {
                self.end_elder(launcher);
            }
        }
    }
}

pub(super) fn cancelled() -> Denied {
    Denied::new(DenyReason::Cancelled, "it was cancelled before anything was run")
}

fn grant_over() -> Denied {
    let text = "the grant was revoked, or is over, before anything was run";
    Denied::new(DenyReason::NotPermitted, text).decided_by("access", "grant")
}
