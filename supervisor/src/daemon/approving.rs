//! Requests that wait until somebody has approved them.
//!
//! ```text
//! gate says ask, admitted ──> waits ──enough yes, and still the same──> the record ──> runs
//!                 (programs first, if there are any: `reviewing`)
//!                               ├── one no, no answer in time ──────────────────────> Denied NotApproved
//!                               ├── files read again, the program or the directory is another ──> Denied NotApproved
//!                               └── its client cancels or leaves, the daemon ends ──> nothing, or Denied
//! ```
//!
//! What waits is whole: admitted, its descriptors held, nothing of it told to a launcher. So what was shown is what runs, and an
//! answer names its digest. What the daemon doesn't hold itself is looked at again when the last yes comes.
//!
//! Nobody answers for himself. A run can't answer at all: it can't be a client (`peer.rs` refuses whoever descends from a launcher
//! or lives in foreign namespaces), and in root's daemon it has a uid of its own, which no rule has heard of.

use core::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::rc::Weak;
use std::time::{Duration, Instant};

use stockade_audit::{Principal, Request};
use stockade_gate::approve::{Barred, Person, Question, Standing};
use stockade_gate::tools::hex;
use stockade_gate::{Action, Ask};
use stockade_protocol::ExecId;
use stockade_protocol::approval::ApprovalEnd;
use stockade_protocol::bounds::{MAX_APPROVAL_REASON, MAX_APPROVAL_SHOWN, MAX_FRAME};
use stockade_protocol::client::ServerMessage;
use stockade_protocol::denied::{Denied, DenyReason};
use tokio::task::JoinHandle;

use super::breakers::may_operate;
use super::following::factors;
use super::panels::{self, Convened, not_yet};
use super::review_run::Brief;
use super::reviewing::Reviews;
use super::shown::Shown;
use super::state::State;
use crate::descriptors;
use crate::dispatcher::{ConnectionId, Share, draining};
use crate::gate::Gate;
use crate::metrics::Timing;
use crate::runs::Run;
use crate::statistics::stage;

/// Requests that may wait, together and of one owner.
pub(super) const WAITING: usize = 256;
const WAITING_OF_ONE: usize = 16;
/// Who has so few of them finds room where many have taken the rest.
const FEW: usize = 2;
/// Bytes that they may hold, together.
const WAITING_BYTES: usize = 64 * 1024 * 1024;
/// When to ask again while too many wait, in milliseconds.
const FULL_MS: u64 = 5_000;

/// What a client answers.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) digest: [u8; 32],
    pub(super) approve: bool,
    pub(super) reason: String,
}

/// A request's connection, its number, whether it goes on without its client, and the bytes that it holds in the queue.
pub(super) type Of = (ConnectionId, u64, bool, usize);

/// What somebody is asked about, why, and the bytes that it holds while it waits.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) shown: Shown,
    pub(super) ask: Ask,
    pub(super) held: usize,
}

/// One that waits.
#[derive(Debug)]
pub(super) struct Waits {
    pub(super) run: Run,
    pub(super) of: Of,
    request: Option<Request>,
    /// What tells it from other questions in the record.
    asks: Option<String>,
    /// Who asks, as it's written down: his connection may be gone when it's answered.
    pub(super) principal: Principal,
    pub(super) question: Question,
    pub(super) ask: Ask,
    pub(super) shown: Shown,
    /// Programs that look at it, and what they are given, once one is.
    pub(super) panels: Vec<Convened>,
    pub(super) brief: OnceCell<Brief>,
    /// Whether people have to say yes at all, and whether it's their turn: programs come first.
    pub(super) needs_people: bool,
    pub(super) is_with_people: bool,
    /// Bytes that it holds.
    held: usize,
    /// Of which files it was let through.
    generation: u64,
    since: Instant,
    pub(super) until: Instant,
    _alarm: Alarm,
}

/// Rings when nobody has answered in time. Dropped, it doesn't.
#[derive(Debug)]
struct Alarm(JoinHandle<()>);

impl Drop for Alarm {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// All that wait, and who is told of them.
#[derive(Debug, Default)]
pub(crate) struct Approvals {
    /// The oldest first: that is how runs are numbered.
    pub(super) waiting: BTreeMap<ExecId, Waits>,
    /// Who is told, and by which files he may be.
    pub(super) followers: HashMap<ConnectionId, u64>,
    /// Programs that look at what waits.
    pub(super) reviews: Reviews,
}

impl Approvals {
    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// How many programs look at what waits.
    pub(crate) fn reviewing(&self) -> usize {
        self.reviews.len()
    }

    fn has_room_for(&self, owner: u32, bytes: usize, many_owners: bool) -> bool {
        let waiting = self.waiting.values().map(|waits| (waits.run.owner, waits.held));
        has_room(waiting, owner, bytes, many_owners)
    }
}

/// Whether another of an owner may wait beside these, each an owner's with the bytes that it holds.
fn has_room(
    waiting: impl Iterator<Item = (u32, usize)>,
    owner: u32,
    bytes: usize,
    many_owners: bool,
) -> bool {
    let (mut taken, mut own) = ((0, 0), (0, 0));
    for (of, bytes) in waiting {
        taken = (taken.0 + 1, taken.1 + bytes);
        if of == owner {
            own = (own.0 + 1, own.1 + bytes);
        }
    }
    own.0 < WAITING_OF_ONE
        && Share::new(WAITING, FEW, many_owners).allows(taken.0, own.0, 1)
        && Share::new(WAITING_BYTES, MAX_FRAME as usize, many_owners).allows(taken.1, own.1, bytes)
}

pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// By whom it was approved, and what of it they were shown, as the record of the run itself has it.
fn because(waits: &Waits) -> Vec<String> {
    let by = waits.question.approvers().iter().map(|who| {
        let unit = who.unit.as_deref().map(|unit| format!("+{unit}")).unwrap_or_default();
        format!("approved by {}{unit}", who.uid)
    });
    let programs = panels::because(&waits.panels);
    programs.chain(by).chain([format!("approved as {}", hex(&waits.shown.digest))]).collect()
}

pub(super) fn not_approved(rule: &str, text: impl Into<String>) -> Denied {
    Denied::new(DenyReason::NotApproved, text).decided_by("approve", rule)
}

/// What it's called in the record: which run, and what of it was shown.
fn about(run: ExecId, digest: &[u8; 32]) -> String {
    format!("{run} {}", hex(digest))
}

impl State {
    /// What requests have to pass from the start. `reviews`: where programs that look have their directories.
    pub(crate) fn judge_by(&mut self, gate: Gate, reviews: PathBuf) {
        self.gate = gate;
        self.approvals.reviews.place = reviews;
    }

    /// Whether another of an owner may wait, before anything is worked out of it.
    ///
    /// # Errors
    /// Too many wait, or the daemon ends.
    pub(super) fn may_wait(&self, owner: u32, bytes: usize) -> Result<(), Denied> {
        if self.dispatcher.counts().draining {
            return Err(draining());
        }
        if self.approvals.has_room_for(owner, bytes, self.settings.scope.is_machine()) {
            return Ok(());
        }
        let text = "too many requests wait until somebody has approved them";
        let busy = Denied::new(DenyReason::Busy, text).decided_by("approve", "waiting");
        Err(busy.retry_after(FULL_MS).remedy("have those answered that wait: `stockade approve`"))
    }

    /// Has a request wait until somebody has approved it. There is [room](Self::may_wait) for it.
    pub(super) fn ask_first(&mut self, run: Run, of: Of, request: Option<Request>, asking: Asking) {
        let (connection, request_id, ..) = of;
        let principal = self.principal(connection);
        let Asking { shown, ask, held } = asking;
        let panels = match self.convene(run.owner, shown.digest) {
            Ok(panels) => panels,
            Err(denied) => {
                self.turn_away(&run, principal, request, &denied);
                return self.refuse(connection, request_id, denied);
            }
        };
        let (id, settings) = (run.exec_id, self.gate.approving());
        let asker = self.person(connection);
        let question = Question::new(asker, shown.digest, settings);
        let asks = request.as_ref().map(Request::digest);
        let question_of = (id, &shown.digest, asks.clone());
        self.watch_answer((principal.clone(), "approval-asked"), ask.said(), question_of);
        tracing::info!(run = %id, owner = run.owner, score = ask.score, because = ask.said(), "waits for an approval");
        let (programs, needs_people) = (panels::within(&panels), self.gate.needs_people());
        let is_with_people = programs.is_none();
        let people = if needs_people { settings.within } else { Duration::ZERO };
        let told = ServerMessage::AwaitsApproval {
            request_id,
            exec_id: id,
            within_ms: milliseconds(programs.unwrap_or_default() + people),
            score: ask.score,
            factors: factors(&ask, MAX_APPROVAL_SHOWN).0,
        };
        let (generation, since) = (self.gate.generation(), Instant::now());
        let until = since + programs.unwrap_or(settings.within);
        self.gate.waits(id, run.tool.as_ref());
        let _alarm = self.alarm(id, until);
        let waits = Waits {
            run,
            of,
            request,
            asks,
            principal,
            question,
            ask,
            shown,
            panels,
            brief: OnceCell::new(),
            needs_people,
            is_with_people,
            held,
            generation,
            since,
            until,
            _alarm,
        };
        self.approvals.waiting.insert(id, waits);
        self.answer(connection, &told);
        if is_with_people {
            self.tell_asked(id);
        } else {
            self.begin_reviews();
        }
    }

    /// It's the people's turn, and their time begins.
    pub(super) fn ask_people(&mut self, id: ExecId) {
        let until = Instant::now() + self.gate.approving().within;
        let alarm = self.alarm(id, until);
        let Some(waits) = self.approvals.waiting.get_mut(&id) else { return };
        (waits.is_with_people, waits.until, waits._alarm) = (true, until, alarm);
        waits.brief.take();
        self.tell_asked(id);
    }

    /// Wakes when nobody has answered by then.
    fn alarm(&self, id: ExecId, until: Instant) -> Alarm {
        let daemon = Weak::clone(&self.daemon);
        Alarm(tokio::task::spawn_local(async move {
            tokio::time::sleep_until(until.into()).await;
            if let Some(daemon) = daemon.upgrade() {
                daemon.state.borrow_mut().late(id);
            }
        }))
    }

    fn late(&mut self, id: ExecId) {
        let Some(waits) = self.approvals.waiting.get(&id) else { return };
        if !waits.is_with_people {
            return self.late_reviews(id);
        }
        let (yes, needed) = (waits.question.yes(), waits.question.needed());
        let text = format!("nobody has approved it in time: {yes} of {needed}; {}", waits.ask.said());
        let denied = not_approved("within", text)
            .remedy("ask again while somebody is there who may approve: `stockade approve` is how he does");
        self.over(id, ApprovalEnd::Late, Some(denied));
    }

    /// Somebody as votes know him.
    pub(super) fn person(&self, connection: ConnectionId) -> Person {
        let outbox = self.connections.get(&connection);
        // Clients of a test are one process: each has a unit of its own.
        #[cfg(test)]
        let unit = Some(format!("{connection:?}.service"));
        #[cfg(not(test))]
        let unit = outbox.and_then(|outbox| outbox.unit.clone());
        Person { uid: outbox.map_or(u32::MAX, |outbox| outbox.owner.uid), unit }
    }

    /// A client answers for what waits.
    pub(super) fn approve(&mut self, connection: ConnectionId, uid: u32, id: ExecId, answer: &Answer) {
        if let Err(denied) = self.try_answer(connection, uid, id, answer) {
            self.answer(connection, &ServerMessage::Denied { request_id: 0, exec_id: Some(id), denied });
        }
    }

    fn try_answer(
        &mut self,
        connection: ConnectionId,
        uid: u32,
        id: ExecId,
        answer: &Answer,
    ) -> Result<(), Denied> {
        self.may_approve(connection, uid)?;
        if answer.reason.len() > MAX_APPROVAL_REASON {
            let text = format!("a reason has {MAX_APPROVAL_REASON} bytes at most");
            return Err(Denied::new(DenyReason::BadRequest, text));
        }
        let (person, who) = (self.person(connection), self.principal(connection));
        let Some(waits) = self.approvals.waiting.get_mut(&id) else {
            let text = "nothing waits for an approval under that number: it was answered, or is too late";
            return Err(
                Denied::new(DenyReason::UnknownRun, text).remedy("see what waits: `stockade approve`")
            );
        };
        // Who has a reason against it needn't wait for programs.
        if answer.approve && !waits.is_with_people {
            return Err(not_yet());
        }
        let standing = waits.question.answer(&person, answer.digest, answer.approve);
        let standing = standing.map_err(|barred| {
            let denied = barred_from(barred);
            if let Some(record) = &self.record {
                record.not_permitted(who.clone(), &denied, &about(id, &answer.digest));
            }
            denied
        })?;
        let because = waits.ask.said();
        let asker = (waits.principal.uid, waits.principal.unit.clone());
        let said = if answer.approve { "approved" } else { "not-approved" };
        tracing::info!(run = %id, uid, reason = answer.reason, "{said}");
        // What was asked, too: who asks often enough has his questions counted, and not written one by one.
        let text = if answer.reason.is_empty() { "" } else { "; " };
        let text = format!("{}{text}asked by user {} because of {because}", answer.reason, asker.0);
        self.watch_answer((who, said), text, (id, &answer.digest, None));
        let (missing, how) = match standing {
            Standing::Waits(missing) => (missing, None),
            Standing::Refused => {
                self.gate.not_approved((asker.0, asker.1.as_deref()), self.uptime());
                self.tell_locked(connection);
                let denied = self.refused_by(id, uid, &answer.reason);
                self.over(id, ApprovalEnd::Refused, Some(denied));
                (0, Some(ApprovalEnd::Refused))
            }
            Standing::Approved => (0, Some(self.go_on(id))),
        };
        self.answer(connection, &ServerMessage::ApprovalAnswered { exec_id: id, missing, how });
        Ok(())
    }

    /// What who asked is told of a no: by whom, if he may look into the daemon.
    fn refused_by(&mut self, id: ExecId, by: u32, reason: &str) -> Denied {
        let asker = self.approvals.waiting.get(&id).map(|waits| (waits.of.0, waits.run.owner));
        let sees = asker.is_some_and(|(connection, owner)| {
            if !self.gate.has_rules() {
                return may_operate(owner, self.settings.uid, "").is_ok();
            }
            let (asker, uptime) = (self.asker(connection).ok(), self.uptime());
            asker.is_some_and(|asker| self.gate.inspects(&asker, uptime))
        });
        let who = if sees { format!("user {by}") } else { "somebody".to_owned() };
        let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        let because = self.approvals.waiting.get(&id).map(|waits| waits.ask.said()).unwrap_or_default();
        not_approved(
            "refused",
            format!("{who} who was asked has refused it{why}; asked because of {because}"),
        )
        .remedy("ask for something else, or talk to whoever answers")
    }

    /// As many have said yes as it takes: it runs, if it's still what they were asked about.
    pub(super) fn go_on(&mut self, id: ExecId) -> ApprovalEnd {
        if let Err(denied) = self.is_still(id).and_then(|()| self.passes_again(id)) {
            self.over(id, ApprovalEnd::Changed, Some(denied));
            return ApprovalEnd::Changed;
        }
        let Some(waits) = self.over(id, ApprovalEnd::Approved, None) else { return ApprovalEnd::Withdrawn };
        let because = because(&waits);
        let Waits { mut run, of, request, principal, since, is_with_people, .. } = waits;
        // How long somebody thinks says nothing of how long a run takes to begin.
        if is_with_people {
            self.figures.gated.approved_after(since.elapsed());
        }
        run.timing = Timing::asked();
        let request = request.map(|mut request| {
            request.because.extend(because);
            request
        });
        self.decide_for(principal, run, of, request);
        ApprovalEnd::Approved
    }

    /// Stages that may have changed their mind while somebody thought.
    fn passes_again(&mut self, id: ExecId) -> Result<(), Denied> {
        let tool = self.approvals.waiting.get(&id).and_then(|waits| waits.run.tool.clone());
        let uptime = self.uptime();
        self.gate.goes_on(id, tool.as_ref(), uptime)
    }

    /// What isn't held by the daemon, looked at again.
    pub(super) fn is_still(&self, id: ExecId) -> Result<(), Denied> {
        let Some(waits) = self.approvals.waiting.get(&id) else {
            return Err(not_approved("waiting", "it waits no more"));
        };
        let again = "ask again: it's judged anew";
        if waits.generation != self.gate.generation() {
            let text = "the daemon has read its files again since somebody was asked";
            return Err(not_approved("reload", text).remedy(again));
        }
        if self.gate.redeemed(id).is_some_and(|of| self.gate.held().get(of.id).is_none()) {
            let text =
                "the grant by which it was let through was revoked, or is over, since somebody was asked";
            return Err(not_approved("grant", text).remedy(again));
        }
        if let Some(tool) = &waits.run.tool {
            self.gate.check_pin_of(&tool.name, self.settings.uid)?;
        }
        let waiting = waits.run.waiting.as_ref();
        let place = waiting.and_then(|waiting| {
            let passed = waiting.workspace.as_ref()?.get().ok()?;
            descriptors::directory_path(passed).ok().flatten()
        });
        if place.as_deref() != Some(waits.shown.workspace.as_path()) {
            let text = "the workspace was moved or removed since somebody was asked";
            return Err(not_approved("workspace", text).remedy(again));
        }
        Ok(())
    }

    /// Ends the wait; `denied`: with that, if it doesn't run.
    pub(super) fn over(&mut self, id: ExecId, how: ApprovalEnd, denied: Option<Denied>) -> Option<Waits> {
        self.dismiss(id);
        let mut waits = self.approvals.waiting.remove(&id)?;
        self.figures.gated.approval_over(how);
        if let Some(denied) = denied {
            self.turn_away(&waits.run, waits.principal.clone(), waits.request.take(), &denied);
            self.refuse(waits.of.0, waits.of.1, denied);
        }
        if how != ApprovalEnd::Approved && how != ApprovalEnd::Refused {
            let word = crate::metrics::approval_word(how).to_owned();
            let text = format!("not approved: {word}");
            let who = (waits.principal.clone(), "approval-over");
            self.watch_answer(who, text, (id, &waits.shown.digest, waits.asks.take()));
        }
        tracing::info!(run = %id, ?how, "waits for an approval no more");
        self.tell_followers(&ServerMessage::ApprovalOver { exec_id: id, how });
        if how != ApprovalEnd::Draining {
            self.begin_reviews();
        }
        Some(waits)
    }

    /// What the gate had let pass comes to nothing.
    fn turn_away(&mut self, run: &Run, principal: Principal, request: Option<Request>, denied: &Denied) {
        self.came_to_nothing(run.exec_id, run.tool.as_ref());
        self.count_refused_run(run, stage(denied));
        if let (Some(record), Some(request)) = (&self.record, request) {
            record.refused(principal, request, denied);
        }
    }

    /// Writes what has become of a question, or that it's asked: which run, its digest, and what tells it from other questions.
    pub(super) fn watch_answer(
        &self,
        who: (Principal, &str),
        text: String,
        (run, digest, asks): (ExecId, &[u8; 32], Option<String>),
    ) {
        if let Some(record) = &self.record {
            record.questioned(run, who, text, (&hex(digest), asks));
        }
    }

    /// Somebody gives up what isn't begun yet: it waits for an approval, or for a disk. Whether anything of his does under that
    /// number.
    pub(super) fn withdraw(&mut self, uid: u32, id: ExecId) -> bool {
        if self.approvals.waiting.get(&id).is_none_or(|waits| waits.run.owner != uid) {
            return self.give_up(|undecided| {
                undecided.run.exec_id == id && undecided.run.owner == uid && undecided.run.reviews.is_none()
            });
        }
        let denied = not_approved("cancelled", "it was cancelled while it waited for an approval");
        self.over(id, ApprovalEnd::Withdrawn, Some(denied));
        true
    }

    /// A connection gives up what it has asked for with a number of its own. The run, if one is there: that is ended as any other.
    pub(crate) fn give_up_asked(&mut self, connection: ConnectionId, number: u64) -> Option<ExecId> {
        let is_it = |(_, waits): &(&ExecId, &Waits)| (waits.of.0, waits.of.1) == (connection, number);
        let waits = self.approvals.waiting.iter().find(is_it).map(|(id, waits)| (*id, waits.run.owner));
        match waits {
            Some((id, owner)) => {
                self.withdraw(owner, id);
            }
            None if self.give_up(|it| (it.connection, it.request_id) == (connection, number)) => {}
            None => return self.asked_for(connection, number),
        }
        None
    }

    /// A connection has ended: what it has asked for ends with it, and it's told of nothing.
    pub(super) fn withdraw_all_of(&mut self, connection: ConnectionId) {
        self.approvals.followers.remove(&connection);
        let of = |waits: &Waits| waits.of.0 == connection && !waits.of.2;
        let ids = self.approvals.waiting.iter().filter(|(_, waits)| of(waits)).map(|(id, _)| *id);
        for id in ids.collect::<Vec<_>>() {
            let denied = not_approved("client", "its client left while it waited for an approval");
            self.over(id, ApprovalEnd::Withdrawn, Some(denied));
        }
    }

    /// The daemon ends: nothing waits any more.
    pub(crate) fn end_approvals(&mut self) {
        for id in self.approvals.waiting.keys().copied().collect::<Vec<_>>() {
            self.over(id, ApprovalEnd::Draining, Some(draining()));
        }
    }

    /// Whether somebody may approve at all, and be told of what waits.
    pub(super) fn may_approve(&mut self, connection: ConnectionId, uid: u32) -> Result<(), Denied> {
        let daemons = self.settings.uid;
        self.operates(connection, Action::Approve, || may_operate(uid, daemons, "approve anything"))
    }
}

fn barred_from(barred: Barred) -> Denied {
    let (reason, rule) = match barred {
        Barred::Himself => (DenyReason::NotPermitted, "own"),
        Barred::Already => (DenyReason::NotPermitted, "needed"),
        Barred::OtherDigest => (DenyReason::BadRequest, "digest"),
    };
    Denied::new(reason, barred.to_string()).decided_by("approve", rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many as wait when everybody of these has asked as often as he can.
    fn fill(owners: core::ops::Range<u32>, bytes: usize, many_owners: bool) -> Vec<(u32, usize)> {
        let mut waiting = Vec::new();
        for owner in owners {
            while has_room(waiting.iter().copied(), owner, bytes, many_owners) {
                waiting.push((owner, bytes));
            }
        }
        waiting
    }

    #[test]
    fn no_more_wait_than_may_and_a_few_users_leave_room_for_another() {
        let of = |owner: u32, all: &[(u32, usize)]| all.iter().filter(|(of, _)| *of == owner).count();
        let full = fill(0..16, 1, true);
        assert!(has_room(full.iter().copied(), 99, 1, true), "{} of few users are all", full.len());
        assert_eq!((of(0, &full), of(15, &full)), (WAITING_OF_ONE, FEW));
        let all = fill(0..1_000, 1, true);
        assert_eq!(all.len(), WAITING, "never more, however many users");
        assert_eq!(fill(0..16, 1, false).len(), WAITING, "and nothing is kept from one user alone");
        let heavy = fill(0..64, WAITING_BYTES / 32, true);
        assert!(heavy.iter().map(|(_, bytes)| bytes).sum::<usize>() <= WAITING_BYTES);
        assert!(has_room(heavy.iter().copied(), 99, 1, true));
    }
}
