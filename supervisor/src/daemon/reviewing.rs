//! Reviewer programs: what waits for an approval is looked at by them first, or by nobody else.
//!
//! ```text
//! asked ──budget──> convened: each reviewer is a run of its own ──ends──> its answer ──> panel
//!            │                                                                            ├── enough yes: people are asked, or it runs
//!            └── spent: people alone, or Denied                                           └── too few left, or late: Denied
//! ```
//!
//! A reviewer is a call of its tool that nobody has made: the daemon's own user is its owner, and its tool's file and policy confine
//! it as any call. No rule of access and no approval is asked for it, so none waits for another. Nobody follows, signals or cancels it.
//! It's begun in an empty directory of its own, which is gone afterwards, with the request on standard input, and nothing of what it
//! does counts but one answer on standard output. What becomes of it otherwise is no yes.
//!
//! Its run ends with the question, and with the daemon: one that is taken over after a restart is ended ([`State::end_if_review`]).

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::rc::Weak;
use std::time::Instant;

use stockade_audit::{Principal, Request};
use stockade_gate::approve::{Answer, Budgets, Panel, Sitting, Spent};
use stockade_gate::tools::hex;
use stockade_protocol::ExecId;
use stockade_protocol::approval::ApprovalEnd;
use stockade_protocol::bounds::MAX_STDIN_CHUNK;
use stockade_protocol::denied::{Denied, DenyReason};
use stockade_protocol::outcome::{CancelReason, Outcome};
use tokio::task::{spawn_blocking, spawn_local};

use super::approving::Waits;
use super::panels::{Convened, is_refused, refusal, spent, together, word};
use super::review_run::{self, Brief, Room};
use super::state::State;
use crate::dispatcher::{Event, Share};

/// Reviewers' runs at once, together and for one asker's questions; in root's daemon the last quarter is for askers for whom none looks.
/// Others wait, by their panel's time.
const REVIEWS: usize = 16;
const REVIEWS_OF_ONE: usize = 4;

/// A reviewer's run.
#[derive(Debug)]
struct Reviewing {
    /// What it looks at, and whose that is.
    question: ExecId,
    asker: u32,
    /// Which of its panels, and which of that one's reviewers.
    seat: (usize, usize),
}

/// Reviewers that look, and what askers have spent.
#[derive(Debug, Default)]
pub(super) struct Reviews {
    running: HashMap<ExecId, Reviewing>,
    /// Runs of those that nobody needs any more and that haven't ended yet, with whose questions they looked at: who asks and gives up
    /// again and again has no more of them than who waits.
    ending: HashMap<ExecId, u32>,
    /// By the directories of the files: each has a budget of its own.
    budgets: BTreeMap<PathBuf, Budgets>,
    /// Where each has a directory of its own.
    pub(super) place: PathBuf,
}

impl Reviews {
    pub(super) fn len(&self) -> usize {
        self.running.len()
    }

    /// Whether another may run, of somebody's questions.
    fn has_room_for(&self, asker: u32, many_owners: bool) -> bool {
        let all = self.running.values().map(|one| one.asker).chain(self.ending.values().copied());
        let (count, own) = all.fold((0, 0), |(all, own), of| (all + 1, own + usize::from(of == asker)));
        own < REVIEWS_OF_ONE && Share::new(REVIEWS, 1, many_owners).allows(count, own, 1)
    }
}

impl State {
    /// Has the reviewers of all files sit about something, and what they cost spent.
    ///
    /// # Errors
    /// The asker's budget is spent, and nobody else would decide.
    pub(super) fn convene(&mut self, owner: u32, digest: [u8; 32]) -> Result<Vec<Convened>, Denied> {
        let (now, people) = (self.uptime(), self.gate.needs_people());
        let mut panels: Vec<Convened> = Vec::new();
        for of in self.gate.reviews() {
            let budgets = self.approvals.reviews.budgets.entry(of.directory.clone()).or_default();
            let reviews = &of.reviews;
            let charge = match budgets.take(owner, reviews.cost(), reviews.budget, now) {
                Ok(charge) => Some(charge),
                Err(Spent { .. }) if people => None,
                Err(Spent { after }) => {
                    self.give_back(&mut panels);
                    return Err(spent(after));
                }
            };
            let names = reviews.reviewers.iter().map(|one| one.name.clone());
            let panel = Panel::new(digest, reviews.needed, names);
            panels.push(Convened::new(of, panel, charge));
        }
        Ok(panels)
    }

    /// Gives back what was spent for reviewers that weren't begun; none of them is begun any more.
    fn give_back(&mut self, panels: &mut [Convened]) {
        for one in panels {
            let cost = one.unspent();
            one.begun.fill(true);
            let budgets = self.approvals.reviews.budgets.get_mut(&one.of.directory);
            if let (Some(charge), Some(budgets)) = (one.charge, budgets) {
                budgets.give_back(charge, cost);
            }
        }
    }

    /// Begins reviewers, the oldest question's first, as many as may run.
    pub(super) fn begin_reviews(&mut self) {
        while let Some((question, seat)) = self.next_review() {
            let Some(waits) = self.approvals.waiting.get_mut(&question) else { return };
            waits.panels[seat.0].begun[seat.1] = true;
            let (id, asker) = (ExecId::generate(), waits.run.owner);
            self.approvals.reviews.running.insert(id, Reviewing { question, asker, seat });
            let (daemon, place) = (Weak::clone(&self.daemon), self.approvals.reviews.place.clone());
            let has_to_prove = self.settings.has_to_prove();
            spawn_local(async move {
                let Some(daemon) = daemon.upgrade() else { return };
                let home = daemon.homes.of(daemon.settings.uid).await;
                let room = spawn_blocking(move || Room::make(&place, id, has_to_prove)).await;
                let room = room.unwrap_or_else(|died| Err(std::io::Error::other(died)));
                let mut state = daemon.state.borrow_mut();
                let begun = room
                    .map_err(|error| format!("no directory can be made for it: {error}"))
                    .and_then(|room| state.begin_review(id, home, room));
                if let Err(why) = begun {
                    state.reviewed(id, Err(why));
                }
            });
        }
    }

    fn next_review(&self) -> Option<(ExecId, (usize, usize))> {
        if self.dispatcher.counts().draining {
            return None;
        }
        let (reviews, many_owners) = (&self.approvals.reviews, self.settings.scope.is_machine());
        self.approvals.waiting.iter().find_map(|(id, waits)| {
            let next = waits.panels.iter().enumerate().find_map(|(at, one)| Some((at, one.next()?)))?;
            (!waits.is_with_people && reviews.has_room_for(waits.run.owner, many_owners))
                .then_some((*id, next))
        })
    }

    /// Begins one that has its directory.
    fn begin_review(&mut self, id: ExecId, home: PathBuf, room: Room) -> Result<(), String> {
        // Its question may be over by now.
        let Some(of) = self.approvals.reviews.running.get(&id) else {
            self.reviewed(id, Err(String::new()));
            return Ok(());
        };
        let (question, seat) = (of.question, of.seat);
        let Some(waits) = self.approvals.waiting.get(&question) else { return Ok(()) };
        let reviewer = waits.panels[seat.0].of.reviews.reviewers[seat.1].clone();
        let digest = waits.question.digest();
        let brief = waits.brief().map_err(|why| format!("it can't be shown what waits: {why}"))?;
        // What it doesn't see nobody else would look at.
        if brief.is_cut && !self.gate.needs_people() {
            return Err("what is asked for is longer than a program is shown".to_owned());
        }
        let input = brief.text;
        let left = waits.until.saturating_duration_since(Instant::now());
        let sought = review_run::Sought { id, question, reviewer: &reviewer, input, left };
        let run = self.review_run(sought, home, room);
        // Where its tool and its directory are is nothing for who asks.
        let (run, bytes) = run.map_err(|denied| {
            tracing::warn!(%question, reviewer = reviewer.name, why = denied.message, "a reviewer can't be run");
            match denied.reason {
                DenyReason::ToolChanged => format!("it can't be run: {}", denied.message),
                _ => "it can't be run".to_owned(),
            }
        })?;
        let principal = self.own_principal();
        let text = format!("the reviewer {} (tool {}) looks at it: {id}", reviewer.name, reviewer.tool.value);
        self.watch_answer((principal.clone(), "review-begun"), text, (question, &digest, None));
        tracing::info!(run = %id, %question, reviewer = reviewer.name, "a reviewer looks");
        let request = Request {
            action: "review".to_owned(),
            exec: Some(id.to_string()),
            tool: Some(reviewer.tool.value.clone()),
            policy: Some(run.policy.clone()),
            because: vec![format!("reviews {question}"), format!("reviews as {}", hex(&digest))],
            ..Request::default()
        };
        self.decide_for(principal, run, (review_run::NOBODY, 0, true, bytes), Some(request));
        Ok(())
    }

    /// Bytes that what programs are given takes while it waits, where there are any.
    pub(super) fn brief_bytes(&self) -> usize {
        if self.gate.reviews().is_empty() { 0 } else { MAX_STDIN_CHUNK }
    }

    pub(super) fn own_principal(&self) -> Principal {
        Principal { uid: self.settings.uid, pid: Some(self.settings.pid), ..Principal::default() }
    }

    /// A reviewer's run has ended, or came to nothing: told once what goes on now is over. `said`: its answer, or why it has none.
    pub(super) fn reviewed_later(&self, id: ExecId, said: Result<Answer, String>) {
        let is_known =
            |reviews: &Reviews| reviews.running.contains_key(&id) || reviews.ending.contains_key(&id);
        if !is_known(&self.approvals.reviews) {
            return;
        }
        let daemon = Weak::clone(&self.daemon);
        spawn_local(async move {
            if let Some(daemon) = daemon.upgrade() {
                daemon.state.borrow_mut().reviewed(id, said);
            }
        });
    }

    fn reviewed(&mut self, id: ExecId, said: Result<Answer, String>) {
        self.clear_room(id);
        let is_over = self.approvals.reviews.ending.remove(&id).is_some();
        let Some(Reviewing { question, seat: (panel, seat), .. }) =
            self.approvals.reviews.running.remove(&id)
        else {
            if is_over {
                self.begin_reviews();
            }
            return;
        };
        if let Some(waits) = self.approvals.waiting.get_mut(&question) {
            let digest = waits.question.digest();
            let panel = &mut waits.panels[panel].panel;
            let _standing = panel.answer(seat, said);
            let seat = &panel.seats()[seat];
            let (opinion, word) = (seat.opinion(), word(seat.opinion()));
            let text = format!("the reviewer {}: {word}: {}", seat.name(), seat.reason());
            tracing::info!(run = %id, %question, reviewer = seat.name(), reason = seat.reason(), "a reviewer says {word}");
            self.figures.gated.reviewed(opinion);
            self.watch_answer((self.own_principal(), "reviewed"), text, (question, &digest, None));
            self.settle_review(question);
        }
        self.begin_reviews();
    }

    /// What panels make of a question by now.
    fn settle_review(&mut self, id: ExecId) {
        let Some(waits) = self.approvals.waiting.get(&id).filter(|waits| !waits.is_with_people) else {
            return;
        };
        match together(&waits.panels) {
            Sitting::Waits => {}
            Sitting::LetsThrough => self.let_through(id),
            Sitting::Refuses => {
                let (denied, is_no) = (refusal(waits), is_refused(&waits.panels));
                if is_no {
                    let (connection, asker) = (waits.of.0, waits.principal.clone());
                    self.gate.not_approved((asker.uid, asker.unit.as_deref()), self.uptime());
                    self.tell_locked(connection);
                }
                let how = if is_no { ApprovalEnd::Refused } else { ApprovalEnd::Late };
                self.over(id, how, Some(denied));
            }
        }
    }

    /// The programs have let it through: people are asked, or nobody else.
    fn let_through(&mut self, id: ExecId) {
        self.dismiss(id);
        if !self.gate.needs_people() || self.is_still(id).is_err() {
            let _how = self.go_on(id);
            return;
        }
        self.ask_people(id);
    }

    /// Their time is over.
    pub(super) fn late_reviews(&mut self, id: ExecId) {
        let Some(waits) = self.approvals.waiting.get_mut(&id) else { return };
        for one in &mut waits.panels {
            let _standing = one.panel.late();
        }
        self.settle_review(id);
        self.begin_reviews();
    }

    /// Nobody needs the reviewers of a question any more: their runs end, and those that weren't begun cost nothing.
    pub(super) fn dismiss(&mut self, id: ExecId) {
        let Some(mut waits) = self.approvals.waiting.remove(&id) else { return };
        self.give_back(&mut waits.panels);
        self.approvals.waiting.insert(id, waits);
        let running = &mut self.approvals.reviews.running;
        let ended: Vec<(ExecId, u32)> =
            running.extract_if(|_, one| one.question == id).map(|(run, one)| (run, one.asker)).collect();
        for (run, asker) in ended {
            // Also what hasn't come so far: it has its directory made, or waits for the record, until it's told that it's over.
            self.approvals.reviews.ending.insert(run, asker);
            self.handle(Event::End { now: self.now(), run, reason: CancelReason::Unneeded });
        }
    }

    /// Removes the directory of a reviewer's run.
    pub(super) fn clear_room(&self, id: ExecId) {
        review_run::clear(self.approvals.reviews.place.join(id.to_string()));
    }

    /// Whether a reviewer's run is one that nobody needs any more.
    pub(super) fn is_needless_review(&self, run: &crate::runs::Run) -> bool {
        run.reviews.is_some() && !self.approvals.reviews.running.contains_key(&run.exec_id)
    }

    /// A run has been taken over, or begun: a reviewer's that nobody waits for ends.
    pub(super) fn end_if_review(&mut self, id: ExecId) {
        if self.runs.get(&id).is_some_and(|run| self.is_needless_review(run)) {
            self.handle(Event::End { now: self.now(), run: id, reason: CancelReason::Unneeded });
        }
    }

    /// Whether a run is a reviewer's: it's nobody's to go on with.
    pub(super) fn is_review(&self, id: ExecId) -> bool {
        self.runs.get(&id).is_some_and(|run| run.reviews.is_some())
    }

    /// A reviewer's run has ended. Its output is read here; nobody else needs it.
    pub(super) fn review_ended(&mut self, id: ExecId, outcome: &Outcome) {
        let Some(run) = self.runs.get(&id).filter(|run| run.reviews.is_some()) else { return };
        let (owner, seq) = (run.owner, run.exited.as_ref().map_or(0, |exited| exited.seq));
        let said = review_run::said(run, outcome);
        if run.is_adopted {
            self.clear_room(id);
        }
        self.reviewed_later(id, said);
        self.handle(Event::Acknowledged { owner, run: id, seq });
    }
}

impl Waits {
    /// What a reviewer is given: the request, as who approves is shown it, and nothing of answers.
    fn brief(&self) -> serde_json::Result<Brief> {
        if let Some(made) = self.brief.get() {
            return Ok(made.clone());
        }
        let made = review_run::brief(|most| self.summary(false, most))?;
        Ok(self.brief.get_or_init(|| made).clone())
    }
}
