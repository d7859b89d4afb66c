//! The cell, the clock, and the effects.

use core::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use stockade_audit::Principal;
use stockade_policies::PolicySet;
use stockade_protocol::ExecId;
use stockade_protocol::client::{ExecEvent, ServerMessage};
use stockade_protocol::launch::ToLauncher;
use tokio::sync::Notify;

use super::approving::Approvals;
use super::promising;
use super::readings::Readings;
use crate::aside::Aside;
use crate::dispatcher::{ConnectionId, Dispatcher, Effect, Emission, Event, LauncherId};
use crate::frames::Workshop;
use crate::gate::Gate;
use crate::grants::Grants;
use crate::homes::{self, Homes, Lookup};
use crate::ledger::Ledger;
use crate::limits::Limits;
use crate::links::Links;
use crate::metrics::{self, Figures};
use crate::openers::{self, Openers};
use crate::outbox::Outbox;
use crate::output::Place;
use crate::paths::Scope;
use crate::peer::Viewer;
use crate::record::{Needless, Record};
use crate::runs::{Exited, Run};
use crate::spare::Table;
use crate::specs::Specs;
use crate::statistics::Statistics;
use crate::traces::Traces;
use crate::words;

/// The longest that the timer's task sleeps.
const FAR: Duration = Duration::from_secs(24 * 60 * 60);

/// Bytes of one read from a client.
const RECEIVED: usize = 64 * 1024;

/// What doesn't change while the daemon lives.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) uid: u32,
    pub(crate) scope: Scope,
    /// Whether launchers are started elsewhere, and may be another user's and see other mounts than we.
    pub(crate) apart: bool,
    pub(crate) pid: i32,
    /// How long the opening frame may take, and any other.
    pub(crate) hello_within: Duration,
    pub(crate) frame_within: Duration,
    /// How long a launcher that is there already may take to say who it is.
    pub(crate) met_within: Duration,
    /// How a user's home is looked up.
    pub(crate) home_of: Lookup,
    /// How openers are started, if not by launchers.
    pub(crate) opener: Option<openers::Start>,
}

impl Settings {
    /// Whether launchers have more privilege than we, and so want to see who asks.
    pub(crate) fn has_to_prove(&self) -> bool {
        self.scope.is_machine() && self.uid != 0
    }

    pub(crate) fn is_user_mode(&self) -> bool {
        !self.scope.is_machine()
    }
}

/// The daemon: the state and what its tasks wait for.
#[derive(Debug)]
pub(crate) struct Daemon {
    pub(crate) state: RefCell<State>,
    pub(crate) settings: Settings,
    pub(crate) homes: Homes,
    /// What opens directories as their owners.
    pub(crate) openers: Openers,
    /// What every connection reads into.
    pub(crate) received: RefCell<Box<[u8]>>,
    /// Where what clients pass is closed.
    pub(crate) aside: Aside,
    /// Rung when the next deadline is sooner than the timer's.
    pub(crate) timer: Rc<Notify>,
    /// Rung once, when everything is taken over that another supervisor has left.
    pub(crate) adopted: Notify,
    /// Rung once, when a drain has nothing left to wait for.
    pub(crate) stop: Rc<Notify>,
    /// Rung when somebody has asked for a reload.
    pub(crate) reload: Rc<Notify>,
    /// Rung after each event, for who tells others how we are.
    pub(crate) changed: Rc<Notify>,
}

impl Daemon {
    pub(crate) fn new(settings: Settings, limits: Limits, policies: PolicySet, figures: Figures) -> Rc<Self> {
        let timer = Rc::new(Notify::new());
        let stop = Rc::new(Notify::new());
        let reload = Rc::new(Notify::new());
        let changed = Rc::new(Notify::new());
        Rc::new_cyclic(|daemon| {
            let state = State {
                daemon: Weak::clone(daemon),
                started: Instant::now(),
                dispatcher: Dispatcher::new(limits.bounds.clone()),
                runs: HashMap::new(),
                connections: HashMap::new(),
                next_connection: 0,
                ledger: Ledger::new(limits.memory),
                links: Links::default(),
                specs: Specs::new(policies),
                gate: Gate::default(),
                grants: None,
                record: None,
                approvals: Approvals::default(),
                readings: Readings::default(),
                statistics: None,
                table: Table::of_this_process(),
                figures,
                traces: None,
                workshop: Workshop::default(),
                events: VecDeque::new(),
                is_handling: false,
                armed: Cell::new(None),
                timer: Rc::clone(&timer),
                stop: Rc::clone(&stop),
                reload: Rc::clone(&reload),
                reloads: Vec::new(),
                changed: Rc::clone(&changed),
                settings: settings.clone(),
                limits,
            };
            let received = RefCell::new(vec![0; RECEIVED].into_boxed_slice());
            let homes = Homes::new(settings.home_of, homes::FRESH_FOR);
            let aside = Aside::default();
            let adopted = Notify::new();
            Self {
                state: RefCell::new(state),
                settings,
                homes,
                openers: Openers::default(),
                received,
                aside,
                timer,
                adopted,
                stop,
                reload,
                changed,
            }
        })
    }
}

/// Everything the daemon knows.
#[derive(Debug)]
pub(crate) struct State {
    /// For the tasks that feed runs.
    pub(super) daemon: Weak<Daemon>,
    pub(super) started: Instant,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) runs: HashMap<ExecId, Run>,
    pub(crate) connections: HashMap<ConnectionId, Outbox>,
    next_connection: u64,
    /// What connections hold.
    pub(crate) ledger: Ledger,
    pub(crate) links: Links,
    pub(crate) specs: Specs,
    /// What requests have to pass.
    pub(crate) gate: Gate,
    /// How many descriptors we may have.
    pub(crate) table: Table,
    /// What is on disk of grants, and who waits for that; none before the daemon begins and after it has ended.
    pub(crate) grants: Option<Grants>,
    /// Where requests are written down, if they are.
    pub(crate) record: Option<Record>,
    /// What waits until somebody has approved it.
    pub(crate) approvals: Approvals,
    /// Who reads the record.
    pub(super) readings: Readings,
    /// What runs came to, over restarts, if that is counted.
    pub(crate) statistics: Option<Statistics>,
    /// What is counted.
    pub(crate) figures: Figures,
    /// Where spans go, if they go anywhere.
    pub(crate) traces: Option<Rc<Traces>>,
    pub(super) workshop: Workshop,
    events: VecDeque<Event>,
    is_handling: bool,
    /// What the timer's task waits for.
    pub(crate) armed: Cell<Option<u64>>,
    timer: Rc<Notify>,
    stop: Rc<Notify>,
    pub(super) reload: Rc<Notify>,
    /// Who has asked for one, and isn't answered.
    pub(super) reloads: Vec<(ConnectionId, Principal)>,
    changed: Rc<Notify>,
    pub(crate) settings: Settings,
    pub(crate) limits: Limits,
}

impl State {
    /// Milliseconds since the daemon's start.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Since the daemon's start.
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    fn free_slots(&self) -> usize {
        self.limits.bounds.slots.total.saturating_sub(self.dispatcher.counts().running)
    }

    /// Whether a client's descriptor takes room that launchers will want.
    pub(crate) fn is_too_full_for(&self, descriptor: impl AsFd) -> bool {
        self.table.is_too_full_for(descriptor.as_fd(), self.free_slots())
    }

    /// Whether there is room for whatever one message brings.
    pub(crate) fn has_room_for_a_message(&self) -> bool {
        self.table.has_room_for_a_message(self.free_slots())
    }

    /// A client's descriptor again, if there is room for it.
    ///
    /// # Errors
    /// `EMFILE`: there isn't, or none beside what launchers will want.
    pub(crate) fn copy(&self, descriptor: &OwnedFd) -> io::Result<OwnedFd> {
        let copy = descriptor.try_clone()?;
        if self.is_too_full_for(&copy) { Err(Errno::MFILE.into()) } else { Ok(copy) }
    }

    /// The moment that a number of milliseconds since the start stands for; one that no clock reaches is a day
    /// from now, and looked at again then.
    pub(crate) fn instant(&self, at: u64) -> Instant {
        let far = Instant::now() + FAR;
        self.started.checked_add(Duration::from_millis(at)).map_or(far, |at| at.min(far))
    }

    /// Other limits from now on. Nothing ends for it.
    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.ledger.set_bounds(limits.memory);
        self.handle(Event::Bounds { now: self.now(), bounds: Box::new(limits.bounds.clone()) });
        self.limits = limits;
    }

    /// As whom connections are looked at.
    pub(crate) fn viewer(&self) -> Viewer {
        let Settings { uid, scope, pid, .. } = self.settings;
        Viewer { uid, scope, pid, launchers: self.links.pids() }
    }

    /// Hands an event to the dispatcher and carries out what it says. Events that come up on the way wait for their
    /// turn, so that effects are carried out in the order they were decided, but for the starts among them, which come first.
    pub(crate) fn handle(&mut self, event: Event) {
        self.events.push_back(event);
        if core::mem::replace(&mut self.is_handling, true) {
            return;
        }
        while let Some(event) = self.events.pop_front() {
            let mut effects = self.dispatcher.handle(event);
            starts_first(&mut effects);
            for effect in effects {
                self.carry_out(effect);
            }
        }
        self.is_handling = false;
        self.changed.notify_one();
        self.links.nudge_relays();
        let next = self.dispatcher.next_deadline();
        if next.is_some_and(|next| self.armed.get().is_none_or(|armed| next < armed)) {
            self.timer.notify_one();
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Deny { connection, request_id, run, denied } => {
                self.answer(connection, &ServerMessage::Denied { request_id, exec_id: run, denied });
            }
            Effect::Emit { run, seq, what } => self.emit(run, seq, what),
            Effect::Follow { connection, run, after_seq } => self.follow(connection, run, after_seq),
            Effect::Hold { run } => self.hold(run),
            Effect::Start { run } => self.start(run),
            Effect::Cancel { run, reason } => {
                if let Some(run) = self.runs.get_mut(&run) {
                    run.timing.order_kill();
                    tracing::info!(parent: run.span(), ?reason, "cancelling");
                }
                self.tell_launcher(run, &ToLauncher::Cancel { exec_id: run, reason });
            }
            Effect::Finish { run } => {
                if let Some(feed) = self.runs.get(&run).and_then(|run| run.feed.as_ref()) {
                    feed.close();
                }
            }
            Effect::Unclaimed { run } => {
                if let Some(run) = self.runs.get_mut(&run) {
                    run.is_unclaimed = false;
                }
                self.settle_acknowledgement(run);
            }
            Effect::DropOutput { run } => {
                if let Some(dropped) = self.runs.get_mut(&run) {
                    dropped.ring = None;
                    if let Some(redacting) = &mut dropped.redacting {
                        redacting.forget_values();
                    }
                    self.links.drop_output(dropped.launcher, run, dropped.end_of_output() - dropped.ends());
                }
                self.ring_followers(run);
            }
            Effect::Forget { run } => self.forget(run),
            Effect::ReplaceLauncher { launcher, reason } => {
                tracing::error!(reason, "the launcher doesn't answer and is replaced");
                if let Some(link) = self.links.get_mut(launcher) {
                    link.replace = Some(reason);
                    link.bell.notify_one();
                }
            }
            Effect::Stop => self.stop.notify_one(),
        }
    }

    /// Sends an answer to a client, if it is still there.
    pub(crate) fn answer(&mut self, connection: ConnectionId, message: &ServerMessage) {
        match message {
            ServerMessage::Denied { denied, .. } => self.figures.denied(denied),
            ServerMessage::Error(error) => self.figures.broken(error.code),
            _ => {}
        }
        let Some(outbox) = self.connections.get_mut(&connection) else { return };
        if let Err(error) = outbox.reply(message) {
            tracing::error!(%error, "an answer can't be sent");
        }
    }

    pub(super) fn tell_launcher(&mut self, run: ExecId, message: &ToLauncher) {
        let launcher = self.runs.get(&run).and_then(|run| run.launcher);
        if let Err(error) = self.links.send(launcher, message) {
            tracing::error!(%run, %error, "a message for the launcher can't be sent");
        }
    }

    fn emit(&mut self, id: ExecId, seq: u64, what: Emission) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let mut ended = None;
        match what {
            Emission::Accepted { .. } => tracing::info!(parent: run.span(), "accepted"),
            Emission::Started => {
                run.started = true;
                tracing::info!(parent: run.span(), "started");
            }
            Emission::Exited { outcome } => {
                if let Some(feed) = &run.feed {
                    feed.close();
                }
                run.waiting = None;
                let why = words::outcome(&outcome).map(|sentence| sentence.to_string());
                tracing::info!(parent: run.span(), outcome = metrics::word(&outcome), detail = ?outcome, why, "ended");
                if run.reviews.is_none() {
                    self.gate.ended(id, run.tool.as_ref(), &outcome, self.started.elapsed());
                }
                ended = Some(outcome.clone());
                let usage = run.started.then(|| run.final_usage());
                self.figures.ended(&run.policy, &run.timing, &outcome, usage.as_ref());
                if let Some(called) = &run.tool {
                    let is_loaded = self.gate.tools().find(&called.name).is_some();
                    self.figures.gated.called(is_loaded.then_some(&called.name), &outcome);
                }
                if let Some(statistics) = &mut self.statistics {
                    statistics.ended(run, &outcome, self.gate.is_success(run.tool.as_ref(), &outcome));
                }
                if let Some(traces) = &self.traces {
                    let lost = traces.put(run.spans(&outcome));
                    self.figures.spans(lost, false);
                }
                let promised = run.tool.as_ref().and_then(|called| self.gate.tools().find(&called.name));
                if let Some(tool) = promised.filter(|_| self.gate.is_success(run.tool.as_ref(), &outcome)) {
                    run.result_check = promising::check(run, tool);
                }
                run.exited = Some(Exited { seq, outcome });
            }
        }
        if let Some(outcome) = ended {
            self.record_end(id, &outcome);
            self.depends_no_more(id);
            self.review_ended(id, &outcome);
        }
        self.ring_followers(id);
    }

    /// Tells a run's followers that there is something for them.
    pub(super) fn ring_followers(&mut self, id: ExecId) {
        let Some(run) = self.runs.get(&id) else { return };
        for connection in &run.followers {
            if let Some(outbox) = self.connections.get_mut(connection) {
                outbox.make_ready(id);
            }
        }
    }

    fn follow(&mut self, connection: ConnectionId, id: ExecId, after_seq: u64) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let Some(outbox) = self.connections.get_mut(&connection) else { return };
        let seq = after_seq + 1;
        let offset = if seq >= run.wrote.next_seq {
            // It has everything: nobody else may have told the relay so.
            Some(run.wrote.head)
        } else {
            // A place that has to be looked for may lie below what the relay may write over already.
            (after_seq < stockade_protocol::ring::FIRST_SEQ && run.acknowledged == 0).then_some(0)
        };
        outbox.follow(id, Place { seq, offset }, offset.unwrap_or(0).max(run.taken));
        run.followers.push(connection);
        // Somebody else who looks on, by rules of access, isn't whom it waits for.
        if after_seq > 0 && outbox.owner.uid == run.owner {
            run.is_unclaimed = false;
            self.settle_acknowledgement(id);
        }
    }

    fn forget(&mut self, id: ExecId) {
        let Some(run) = self.runs.remove(&id) else { return };
        for connection in &run.followers {
            if let Some(outbox) = self.connections.get_mut(connection) {
                outbox.unfollow(id);
            }
        }
        // Without a ring the relay knows nothing of it.
        self.release(id, Needless { launcher: run.launcher, has_ring: run.ring.is_some() });
        if let Some(feed) = &run.feed {
            feed.close();
        }
        if let Some(statistics) = &mut self.statistics {
            statistics.forgotten(id);
        }
        tracing::debug!(parent: run.span(), "forgotten");
        if let Some(launcher) = run.launcher {
            self.end_elder(launcher);
        }
    }

    /// Ends a launcher that only stays for the runs it has, once it has none.
    pub(crate) fn end_elder(&mut self, launcher: LauncherId) {
        let has_runs = || {
            let is_held = self.record.as_ref().is_some_and(|record| record.holds_any_of(launcher));
            is_held || self.runs.values().any(|run| run.launcher == Some(launcher))
        };
        if self.links.is_elder(launcher) && !has_runs() {
            tracing::info!(
                launcher = launcher.0,
                "the last run of an older launcher has ended, and so does it"
            );
            if let Err(error) = self.links.send(Some(launcher), &ToLauncher::Shutdown) {
                tracing::error!(%error, "an older launcher can't be asked to end");
            }
        }
    }

    /// A new connection.
    pub(crate) fn connect(&mut self, outbox: Outbox) -> ConnectionId {
        self.next_connection += 1;
        let connection = ConnectionId(self.next_connection);
        self.connections.insert(connection, outbox);
        self.figures.connected();
        connection
    }

    /// A connection has ended.
    pub(crate) fn disconnect(&mut self, connection: ConnectionId) {
        let Some(outbox) = self.connections.remove(&connection) else { return };
        self.withdraw_all_of(connection);
        self.readings.forget(connection);
        let now = self.now();
        // A run's input ends with the client that gave it.
        for run in self.runs.values().filter(|run| run.origin == Some(connection)) {
            if let Some(feed) = run.feed.as_ref().filter(|_| run.streams_input) {
                feed.end();
            }
        }
        for id in outbox.following.keys() {
            if let Some(run) = self.runs.get_mut(id) {
                run.followers.retain(|other| *other != connection);
            }
        }
        self.handle(Event::Disconnected { now, connection });
        for id in outbox.following.keys() {
            self.settle_acknowledgement(*id);
        }
        self.links.nudge_relays();
    }

    /// A limit is near: told to followers at once, numbered as the event before, and not kept.
    pub(super) fn warn_followers(&mut self, id: ExecId, event: &ExecEvent) {
        let Some(run) = self.runs.get(&id) else { return };
        for connection in &run.followers {
            let Some(outbox) = self.connections.get_mut(connection) else { continue };
            let Some(following) = outbox.following.get(&id) else { continue };
            let seq = following.place.seq - 1;
            if following.complete || seq == 0 || outbox.waiting() >= crate::outbox::HIGH {
                continue;
            }
            let message = ServerMessage::Event { exec_id: id, seq, event: event.clone() };
            let workshop = &mut self.workshop;
            if let Err(error) = outbox.say(&message, workshop) {
                tracing::error!(%error, "a warning can't be sent");
            }
        }
    }
}

/// Moves the starts to the front, in their order: what the launcher is told it does while we do the rest, and nothing of the
/// rest is about a run that only starts.
fn starts_first(effects: &mut [Effect]) {
    let mut starts = 0;
    for at in 0..effects.len() {
        if matches!(effects[at], Effect::Start { .. }) {
            effects[starts..=at].rotate_right(1);
            starts += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_come_first_and_the_rest_keeps_its_order() {
        let start = |number| Effect::Start { run: ExecId::from_bytes([number; 16]) };
        let rest = |number| Effect::Finish { run: ExecId::from_bytes([number; 16]) };
        let mut effects = vec![rest(1), start(2), rest(3), rest(4), start(5), start(6), rest(7)];
        starts_first(&mut effects);
        assert_eq!(effects, [start(2), start(5), start(6), rest(1), rest(3), rest(4), rest(7)]);
    }
}
