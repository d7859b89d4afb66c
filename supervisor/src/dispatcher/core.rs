//! The function itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use stockade_protocol::ExecId;
use stockade_protocol::denied::{Denied, DenyReason};
use stockade_protocol::outcome::{CancelReason, Clock, Outcome, SetupFailure, SetupStage};
use stockade_protocol::ring::FIRST_SEQ;

use super::bounds::{Bounds, CLOSING_MS, OVERDUE_MS, STARTING_MS, UNANSWERED_MS};
use super::event::{ConnectionId, Effect, Emission, Event, LauncherId, Request};
use super::queue::{FairQueue, QueueBytes};
use super::retention::Kept;
use super::run::{Follower, Phase, Run};
use super::timers::Timers;

/// The weight of the newest run in the mean of durations, as a divisor.
const MEAN_DIVISOR: u64 = 8;
/// What a run is taken to last before any has ended, in milliseconds.
const FIRST_MEAN_MS: u64 = 1_000;
/// Bounds of what `retry_after` says, in milliseconds.
const RETRY_MS: core::ops::RangeInclusive<u64> = 50..=60_000;

/// Decides about runs. See the module above.
#[derive(Debug)]
pub struct Dispatcher {
    pub(super) bounds: Bounds,
    pub(super) runs: HashMap<ExecId, Run>,
    pub(super) kept: Kept,
    pub(super) timers: Timers,
    /// Until when adopted runs wait for their clients.
    pub(super) claims: Timers,
    pub(super) queue: FairQueue,
    pub(super) queue_bytes: QueueBytes,
    /// Runs each connection follows whose `Exited` it hasn't taken.
    followed: HashMap<ConnectionId, BTreeSet<ExecId>>,
    pub(super) running: usize,
    /// Slots held by each owner that holds any.
    pub(super) holding: HashMap<u32, usize>,
    pub(super) launcher: Launcher,
    pub(super) drain: Option<Drain>,
    mean_ms: u64,
    pub(super) totals: Totals,
    /// Ended runs whose processes the kernel hasn't let go, and whose launchers they are. They outlive their records.
    pub(super) unreaped: BTreeMap<ExecId, LauncherId>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Launcher {
    Up(LauncherId),
    /// Dead or not there yet; expected soon.
    Down,
    Unavailable(String),
}

/// How far a drain is.
#[derive(Debug)]
pub(super) struct Drain {
    pub(super) grace_until: u64,
    pub(super) stop_by: u64,
    pub(super) killed: bool,
    pub(super) stopped: bool,
}

#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) accepted: u64,
    denied: u64,
    ended: u64,
}

/// Figures for `Status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Runs that hold a slot.
    pub running: usize,
    /// Runs that wait.
    pub queued: usize,
    /// Runs accepted since start.
    pub accepted: u64,
    /// Requests denied since start, here or before.
    pub denied: u64,
    /// Runs ended since start.
    pub ended: u64,
    /// Ended runs whose processes the kernel hasn't let go.
    pub unreaped: usize,
    /// Whether new runs are refused because the daemon stops.
    pub draining: bool,
}

/// Why nothing new is taken by a daemon that ends.
pub(crate) fn draining() -> Denied {
    Denied::new(DenyReason::Draining, "the daemon is stopping").remedy("try again once it is back")
}

impl Dispatcher {
    /// With no runs, and no launcher yet.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            runs: HashMap::new(),
            kept: Kept::default(),
            timers: Timers::default(),
            claims: Timers::default(),
            queue: FairQueue::default(),
            queue_bytes: QueueBytes::default(),
            followed: HashMap::new(),
            running: 0,
            holding: HashMap::new(),
            launcher: Launcher::Down,
            drain: None,
            mean_ms: FIRST_MEAN_MS,
            totals: Totals::default(),
            unreaped: BTreeMap::new(),
        }
    }

    /// Takes what happened; says what to do, in order.
    pub fn handle(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Request(request) => self.request(&request, &mut effects),
            Event::Adopted(adopted) => self.adopt(&adopted),
            Event::Started { now, run } => self.started(now, run, &mut effects),
            Event::Ended { now, run, outcome, reaped } => self.ended(now, run, outcome, reaped, &mut effects),
            Event::Reaped { run } => {
                self.unreaped.remove(&run);
            }
            Event::Wrote { now, run, next_seq, kept, eof, held } => {
                self.wrote(now, run, (next_seq, kept, eof), held, &mut effects);
            }
            Event::Taken { now, run, held } => self.progress(now, run, held),
            Event::Cancel { now, connection, owner, run } => {
                if self.is_of(run, owner) {
                    self.cancel(now, run, CancelReason::Asked, &mut effects);
                } else {
                    effects.push(unknown_run(connection, run));
                }
            }
            Event::End { now, run, reason } => self.cancel(now, run, reason, &mut effects),
            Event::Fail { now, run, reason } => self.fail(now, run, reason, &mut effects),
            Event::Attach { connection, owner, run, after_seq, is_stranger } => {
                self.attach(connection, (owner, run), after_seq, is_stranger, &mut effects);
            }
            Event::Delivered { connection, run } => self.delivered(connection, run, &mut effects),
            Event::Acknowledged { owner, run, seq } => self.acknowledged(owner, run, seq, &mut effects),
            Event::Disconnected { now, connection } => self.disconnected(now, connection, &mut effects),
            Event::Bounds { now, bounds } => {
                self.bounds = *bounds;
                self.fill_slots(now, &mut effects);
            }
            Event::LauncherUp { now, launcher } => {
                self.launcher = Launcher::Up(launcher);
                self.fill_slots(now, &mut effects);
                self.hold_all(&mut effects);
            }
            Event::LauncherLeaves { launcher } => self.launcher_leaves(launcher),
            Event::LauncherDown { now, launcher, reason } => {
                self.launcher_down(now, launcher, &reason, &mut effects);
            }
            Event::LauncherUnavailable { now, reason } => self.unavailable(now, reason, &mut effects),
            Event::Drain { now, grace } => self.start_drain(now, grace, &mut effects),
            Event::Leave { now } => self.leave(now, &mut effects),
            Event::Kill { now } => self.start_drain(now, 0, &mut effects),
            Event::Tick { now } => self.tick(now, &mut effects),
        }
        self.check_drained(&mut effects);
        effects
    }

    /// When a [`Event::Tick`] is due at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let drain = self
            .drain
            .as_ref()
            .filter(|drain| !drain.stopped)
            .map(|drain| if drain.killed { drain.stop_by } else { drain.grace_until });
        [self.timers.next(), self.claims.next(), drain].into_iter().flatten().min()
    }

    /// Where a run stands; `None`: not known, or not this owner's.
    #[must_use]
    pub fn phase(&self, run: ExecId, owner: u32) -> Option<&Phase> {
        self.runs.get(&run).filter(|run| run.owner == owner).map(|run| &run.phase)
    }

    /// The last sequence number of a run.
    #[must_use]
    pub fn last_seq(&self, run: ExecId) -> u64 {
        self.runs.get(&run).map_or(0, |run| run.next_seq - 1)
    }

    /// Counts a request that was denied before it came here.
    pub fn count_denied(&mut self) {
        self.totals.denied += 1;
    }

    /// Figures.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            running: self.running,
            queued: self.queue.len(),
            accepted: self.totals.accepted,
            denied: self.totals.denied,
            ended: self.totals.ended,
            unreaped: self.unreaped.len(),
            draining: self.drain.is_some(),
        }
    }

    fn is_of(&self, run: ExecId, owner: u32) -> bool {
        self.runs.get(&run).is_some_and(|run| run.owner == owner)
    }

    fn request(&mut self, request: &Request, effects: &mut Vec<Effect>) {
        if let Some(denied) = self.refusal(request) {
            self.totals.denied += 1;
            let &Request { connection, request_id, .. } = request;
            effects.push(Effect::Deny { connection, request_id, run: None, denied });
            return;
        }
        self.totals.accepted += 1;
        let run = Run {
            owner: request.owner,
            origin: Some(request.connection),
            origin_gone: false,
            origin_delivered: false,
            detach: request.detach,
            relayed: request.relayed,
            wall_ms: request.wall_ms,
            bytes: request.bytes,
            phase: Phase::Queued,
            waits_for: request.connection,
            held: false,
            launcher: None,
            started_at: 0,
            next_seq: 2,
            has_started: false,
            ring_next_seq: FIRST_SEQ,
            eof: false,
            kept: 0,
            cancelled: false,
            overdue: None,
            acknowledged: false,
            place: None,
            followers: BTreeMap::from([(request.connection, Follower::default())]),
        };
        self.runs.insert(request.run, run);
        self.followed.entry(request.connection).or_default().insert(request.run);
        let accepted = Emission::Accepted { request_id: request.request_id };
        effects.push(Effect::Emit { run: request.run, seq: 1, what: accepted });
        effects.push(Effect::Follow { connection: request.connection, run: request.run, after_seq: 0 });
        self.queue.push(request.owner, request.connection, request.run);
        self.queue_bytes.put(request.owner, request.bytes);
        self.fill_slots(request.now, effects);
        self.hold(request.run, effects);
    }

    fn refusal(&self, request: &Request) -> Option<Denied> {
        if self.drain.is_some() {
            return Some(draining());
        }
        if let Launcher::Unavailable(reason) = &self.launcher {
            let message = format!("no launcher can be started: {reason}");
            return Some(Denied::new(DenyReason::Unavailable, message).retry_after(*RETRY_MS.end()));
        }
        if self
            .followed
            .get(&request.connection)
            .is_some_and(|runs| runs.len() >= self.bounds.runs_per_connection)
        {
            let message = format!("this connection follows {} runs already", self.bounds.runs_per_connection);
            return Some(Denied::new(DenyReason::Busy, message).retry_after(self.retry_after()));
        }
        let owner = request.owner;
        let full = !self.bounds.queue.allows(self.queue.len(), self.queue.len_of(owner), 1)
            || !self.bounds.queue_bytes.allows(
                self.queue_bytes.total,
                self.queue_bytes.of(owner),
                request.bytes,
            );
        (full && !self.starts_at_once(owner)).then(|| {
            let (running, queued) = (self.running, self.queue.len());
            let message = format!("{running} runs are going on and {queued} wait: the queue is full");
            Denied::new(DenyReason::Busy, message).retry_after(self.retry_after())
        })
    }

    /// Whether an owner's next request needs no place in the queue. Whoever waits there now can't start now.
    fn starts_at_once(&self, owner: u32) -> bool {
        matches!(self.launcher, Launcher::Up(_)) && self.queue.len_of(owner) == 0 && self.may_start(owner)
    }

    fn held_by(&self, owner: u32) -> usize {
        self.holding.get(&owner).copied().unwrap_or(0)
    }

    fn may_start(&self, owner: u32) -> bool {
        self.bounds.slots.allows(self.running, self.held_by(owner), 1)
    }

    /// Who is next: those who have no slot before those who have one.
    fn next(&mut self) -> Option<ExecId> {
        let (slots, running, holding) = (self.bounds.slots, self.running, &self.holding);
        let held = |owner| holding.get(&owner).copied().unwrap_or(0);
        let first = self.queue.pop(|owner| held(owner) == 0 && slots.allows(running, 0, 1));
        first.or_else(|| self.queue.pop(|owner| slots.allows(running, held(owner), 1)))
    }

    /// How long it takes, going by the mean, until what waits has been started.
    fn retry_after(&self) -> u64 {
        let waiting = self.queue.len() as u64 + 1;
        let slots = (self.bounds.slots.total as u64).max(1);
        (self.mean_ms.saturating_mul(waiting) / slots).clamp(*RETRY_MS.start(), *RETRY_MS.end())
    }

    fn fill_slots(&mut self, now: u64, effects: &mut Vec<Effect>) {
        while let Launcher::Up(launcher) = self.launcher
            && self.drain.is_none()
            && let Some(id) = self.next()
        {
            let Some(run) = self.runs.get_mut(&id) else { continue };
            *self.holding.entry(run.owner).or_default() += 1;
            self.queue_bytes.take(run.owner, run.bytes);
            run.phase = Phase::Starting;
            // One that was adopted while it waited its own launcher has.
            run.launcher.get_or_insert(launcher);
            run.held = false;
            run.started_at = now;
            self.running += 1;
            self.timers.set(id, Some(now + STARTING_MS));
            effects.push(Effect::Start { run: id });
        }
    }

    fn started(&mut self, now: u64, id: ExecId, effects: &mut Vec<Effect>) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        if run.phase != Phase::Starting {
            return;
        }
        run.phase = Phase::Running;
        run.has_started = true;
        run.next_seq = run.ring_next_seq.max(FIRST_SEQ);
        if !run.cancelled {
            let overdue = run.wall_ms.map(|wall| now.saturating_add(wall).saturating_add(OVERDUE_MS));
            self.timers.set(id, overdue);
        }
        effects.push(Effect::Emit { run: id, seq: FIRST_SEQ - 1, what: Emission::Started });
    }

    fn ended(&mut self, now: u64, id: ExecId, outcome: Outcome, reaped: bool, effects: &mut Vec<Effect>) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        if !run.holds_slot() {
            return;
        }
        let lasted = now.saturating_sub(run.started_at);
        self.mean_ms = (self.mean_ms * (MEAN_DIVISOR - 1) + lasted) / MEAN_DIVISOR;
        if let (false, Some(launcher)) = (reaped, run.launcher) {
            self.unreaped.insert(id, launcher);
        }
        let outcome = match (outcome, run.overdue.take()) {
            (Outcome::Cancelled { .. }, Some(overdue)) => overdue,
            (outcome, _) => outcome,
        };
        let waits = run.relayed && run.has_started && !run.eof;
        run.phase = Phase::Closing { outcome };
        self.finish(id, effects);
        if waits {
            self.timers.set(id, Some(now + CLOSING_MS));
        } else {
            self.exit(now, id, effects);
        }
        self.fill_slots(now, effects);
    }

    pub(super) fn finish(&mut self, id: ExecId, effects: &mut Vec<Effect>) {
        self.running -= 1;
        if let Some(owner) = self.runs.get(&id).map(|run| run.owner) {
            let left = self.holding.get(&owner).map_or(0, |held| held.saturating_sub(1));
            if left == 0 {
                self.holding.remove(&owner);
            } else {
                self.holding.insert(owner, left);
            }
        }
        effects.push(Effect::Finish { run: id });
    }

    /// Puts `Exited` out: the last event of a run, from whichever phase.
    pub(super) fn exit(&mut self, now: u64, id: ExecId, effects: &mut Vec<Effect>) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let Phase::Closing { outcome } = &run.phase else { return };
        let outcome = outcome.clone();
        let seq = run.next_seq;
        run.next_seq += 1;
        run.phase = Phase::Ended { outcome: outcome.clone() };
        self.totals.ended += 1;
        effects.push(Effect::Emit { run: id, seq, what: Emission::Exited { outcome } });
        self.keep(now, id, effects);
    }

    fn wrote(
        &mut self,
        now: u64,
        id: ExecId,
        (next_seq, kept, eof): (u64, u64, bool),
        held: bool,
        effects: &mut Vec<Effect>,
    ) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        if matches!(run.phase, Phase::Ended { .. } | Phase::Queued) {
            return;
        }
        run.ring_next_seq = run.ring_next_seq.max(next_seq);
        run.kept = run.kept.max(kept);
        run.eof |= eof;
        if run.has_started {
            run.next_seq = run.ring_next_seq;
        }
        if matches!(run.phase, Phase::Closing { .. }) && run.eof {
            self.exit(now, id, effects);
        } else {
            self.progress(now, id, held);
        }
    }

    /// Output moved. While it is held up by a client, the end of output is waited for without a bound: the client
    /// stops its own run only.
    fn progress(&mut self, now: u64, id: ExecId, held: bool) {
        let closing = |run: &Run| matches!(run.phase, Phase::Closing { .. });
        if self.runs.get(&id).is_some_and(closing) {
            self.timers.set(id, (!held).then_some(now + CLOSING_MS));
        }
    }

    pub(super) fn leave_queue(&mut self, owner: u32, origin: ConnectionId, id: ExecId) {
        if self.queue.remove(owner, origin, id)
            && let Some(run) = self.runs.get(&id)
        {
            self.queue_bytes.take(run.owner, run.bytes);
        }
    }

    fn attach(
        &mut self,
        connection: ConnectionId,
        (owner, id): (u32, ExecId),
        after_seq: u64,
        is_stranger: bool,
        effects: &mut Vec<Effect>,
    ) {
        let bound = self.bounds.runs_per_connection;
        let followed = self.followed.entry(connection).or_default();
        let full = followed.len() >= bound && !followed.contains(&id);
        let Some(run) = self.runs.get_mut(&id).filter(|run| run.owner == owner) else {
            effects.push(unknown_run(connection, id));
            return;
        };
        let refusal = if full {
            Some(Denied::new(DenyReason::Busy, format!("this connection follows {bound} runs already")))
        } else if after_seq >= run.next_seq {
            let last = run.next_seq - 1;
            let message = format!("the run's last event has number {last}, not {after_seq}");
            Some(Denied::new(DenyReason::BadRequest, message).remedy("attach after a number you have seen"))
        } else {
            None
        };
        if let Some(denied) = refusal {
            effects.push(Effect::Deny { connection, request_id: 0, run: Some(id), denied });
            return;
        }
        run.followers.insert(connection, Follower { delivered: false, is_stranger });
        followed.insert(id);
        // Who was cut off has seen something of it.
        if after_seq > 0 && !is_stranger {
            self.claim(connection, id);
        }
        effects.push(Effect::Follow { connection, run: id, after_seq });
    }

    /// Whether a connection follows a run, or has followed it to its end.
    pub(crate) fn has_follower(&self, connection: ConnectionId, id: ExecId) -> bool {
        self.runs.get(&id).is_some_and(|run| run.followers.contains_key(&connection))
    }

    fn delivered(&mut self, connection: ConnectionId, id: ExecId, effects: &mut Vec<Effect>) {
        if let Some(followed) = self.followed.get_mut(&connection) {
            followed.remove(&id);
        }
        let Some(run) = self.runs.get_mut(&id) else { return };
        if let Some(follower) = run.followers.get_mut(&connection) {
            follower.delivered = true;
        }
        run.origin_delivered |= run.origin == Some(connection);
        self.forget_if_done(id, effects);
    }

    fn acknowledged(&mut self, owner: u32, id: ExecId, seq: u64, effects: &mut Vec<Effect>) {
        let Some(run) = self.runs.get_mut(&id).filter(|run| run.owner == owner) else { return };
        if matches!(run.phase, Phase::Ended { .. }) && seq == run.next_seq - 1 {
            run.acknowledged = true;
            self.forget_if_done(id, effects);
        }
    }

    fn disconnected(&mut self, now: u64, connection: ConnectionId, effects: &mut Vec<Effect>) {
        let mut gone: Vec<ExecId> = Vec::new();
        for (id, run) in &mut self.runs {
            let followed = run.followers.remove(&connection).is_some();
            if run.origin == Some(connection) {
                run.origin_gone = true;
            }
            if followed || run.origin == Some(connection) {
                gone.push(*id);
            }
        }
        self.followed.remove(&connection);
        gone.sort_unstable();
        for id in gone {
            let Some(run) = self.runs.get(&id) else { continue };
            if run.origin == Some(connection) && !run.detach {
                self.cancel(now, id, CancelReason::ClientGone, effects);
            }
            self.progress(now, id, false);
            self.forget_if_done(id, effects);
        }
    }

    fn tick(&mut self, now: u64, effects: &mut Vec<Effect>) {
        while let Some(id) = self.timers.take_due(now) {
            let Some(run) = self.runs.get_mut(&id) else { continue };
            match run.phase {
                Phase::Starting | Phase::Running if run.cancelled => {
                    let reason = format!("run {id} could not be ended within {UNANSWERED_MS} ms");
                    effects.extend(run.launcher.map(|launcher| Effect::ReplaceLauncher { launcher, reason }));
                }
                Phase::Starting => {
                    let failure = SetupFailure {
                        stage: SetupStage::Template,
                        errno: rustix::io::Errno::TIMEDOUT.raw_os_error(),
                        subject: "no worker was made in time".into(),
                    };
                    run.overdue = Some(Outcome::SetupFailed { failure });
                    self.cancel(now, id, CancelReason::Asked, effects);
                }
                Phase::Running => {
                    let limit_ms = run.wall_ms.unwrap_or_default();
                    run.overdue = Some(Outcome::TimedOut { clock: Clock::Wall, limit_ms });
                    self.cancel(now, id, CancelReason::Asked, effects);
                }
                Phase::Closing { .. } => self.exit(now, id, effects),
                Phase::Ended { .. } => self.retention_over(now, id, effects),
                Phase::Queued => {}
            }
        }
        self.unclaimed(now, effects);
        self.drain_tick(now, effects);
    }
}

fn unknown_run(connection: ConnectionId, run: ExecId) -> Effect {
    Effect::Deny { connection, request_id: 0, run: Some(run), denied: no_such_run(run) }
}

/// What is said of a run that isn't there, or isn't for who asks to know of.
pub(crate) fn no_such_run(run: ExecId) -> Denied {
    Denied::new(DenyReason::UnknownRun, format!("no run {run} of yours is known"))
        .remedy("`stockade ps` lists your runs; ended ones are kept for a while only")
}
