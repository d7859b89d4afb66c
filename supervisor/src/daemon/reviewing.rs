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
use std::sync::Arc;
use std::time::{Duration, Instant};

use stockade_audit::{Principal, Request};
use stockade_gate::approve::{Answer, Budgets, Charge, Opinion, Panel, Sitting, Spent};
use stockade_gate::tools::hex;
use stockade_protocol::approval::{ApprovalEnd, ReviewOpinion, ReviewPanel, ReviewerReport};
use stockade_protocol::denied::{Denied, DenyReason};
use stockade_protocol::outcome::{CancelReason, Outcome};
use stockade_protocol::{Bytes, ExecId};
use tokio::task::{spawn_blocking, spawn_local};

use super::approving::{Waits, about, milliseconds, not_approved};
use super::following::is_whole;
use super::review_run::{self, Room};
use super::state::State;
use crate::dispatcher::Event;
use crate::gate::PlacedReviews;

/// Reviewers' runs at once, together and for one asker's questions. Others wait, by their panel's time.
const REVIEWS: usize = 16;
const REVIEWS_OF_ONE: usize = 4;
/// The most reviewers that a refusal names.
const NAMED: usize = 3;

/// The reviewers of one file, about one question.
#[derive(Debug)]
pub(super) struct Convened {
    of: Arc<PlacedReviews>,
    pub(super) panel: Panel,
    /// What it has cost; `None`: the asker's budget is spent, and nobody of them looks.
    charge: Option<Charge>,
    /// Which of them were begun.
    begun: Vec<bool>,
}

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
    /// By the directories of the files: each has a budget of its own.
    budgets: BTreeMap<PathBuf, Budgets>,
    /// Where each has a directory of its own.
    pub(super) place: PathBuf,
}

impl Reviews {
    pub(super) fn len(&self) -> usize {
        self.running.len()
    }
}

impl Convened {
    fn standing(&self) -> Sitting {
        if self.charge.is_some() { self.panel.standing() } else { Sitting::LetsThrough }
    }

    /// The next reviewer that is to be begun.
    fn next(&self) -> Option<usize> {
        if self.standing() != Sitting::Waits {
            return None;
        }
        self.begun.iter().position(|begun| !begun)
    }

    /// What those have cost that were never begun.
    fn unspent(&self) -> u32 {
        let reviewers = self.of.reviews.reviewers.iter().zip(&self.begun);
        reviewers.filter(|(_, begun)| !**begun).map(|(one, _)| one.cost).sum()
    }

    /// As who answers is told of it. `most`: bytes of each part that are shown.
    pub(super) fn report(&self, most: usize) -> ReviewPanel {
        let seats = if is_whole(most) { self.panel.seats() } else { &[] };
        let reviewers = seats.iter().map(|seat| ReviewerReport {
            name: seat.name().to_owned(),
            opinion: match seat.opinion() {
                Opinion::Open if self.charge.is_some() => ReviewOpinion::Open,
                Opinion::Yes => ReviewOpinion::Yes,
                Opinion::No => ReviewOpinion::No,
                Opinion::Open | Opinion::Nothing => ReviewOpinion::Nothing,
            },
            reason: seat.reason().to_owned(),
        });
        ReviewPanel {
            needed: self.panel.needed(),
            approved: self.panel.yes(),
            is_spent: self.charge.is_none(),
            reviewers: reviewers.collect(),
        }
    }

    /// Bytes of that, roughly.
    pub(super) fn size(&self, most: usize) -> usize {
        let seats = if is_whole(most) { self.panel.seats() } else { &[] };
        24 + seats.iter().map(|seat| seat.name().len() + seat.reason().len() + 24).sum::<usize>()
    }
}

/// What all panels together make of it.
fn together(panels: &[Convened]) -> Sitting {
    let all: Vec<Sitting> = panels.iter().map(Convened::standing).collect();
    if all.contains(&Sitting::Refuses) {
        Sitting::Refuses
    } else if all.contains(&Sitting::Waits) {
        Sitting::Waits
    } else {
        Sitting::LetsThrough
    }
}

/// How long they have together: each file's says, and the shortest holds.
pub(super) fn within(panels: &[Convened]) -> Option<Duration> {
    let waits = panels.iter().filter(|one| one.standing() == Sitting::Waits);
    waits.map(|one| one.of.reviews.within).min()
}

/// Who of them let it through, as the record of the run has it.
pub(super) fn because(panels: &[Convened]) -> impl Iterator<Item = String> {
    let seats = panels.iter().flat_map(|one| one.panel.seats());
    let yes = seats.filter(|seat| seat.opinion() == Opinion::Yes);
    yes.map(|seat| format!("approved by the reviewer {}", seat.name()))
}

/// Why they don't let it through.
fn refusal(waits: &Waits) -> Denied {
    let refusing = waits.panels.iter().filter(|one| one.standing() == Sitting::Refuses);
    let seats: Vec<_> = refusing
        .flat_map(|one| one.panel.seats())
        .filter(|seat| matches!(seat.opinion(), Opinion::No | Opinion::Nothing))
        .collect();
    let mut said: Vec<String> = seats
        .iter()
        .take(NAMED)
        .map(|seat| {
            let what =
                if seat.opinion() == Opinion::No { "has refused it" } else { "has said nothing that counts" };
            format!("the reviewer {} {what}: {}", seat.name(), seat.reason())
        })
        .collect();
    if seats.len() > NAMED {
        said.push(format!("and {} more", seats.len() - NAMED));
    }
    not_approved("reviewers", format!("{}; asked because of {}", said.join("; "), waits.ask.said()))
        .remedy("ask for something else, or talk to whoever has these programs look")
}

fn spent(after: Option<Duration>) -> Denied {
    let text = "what programs look at for you in a day is spent, and nobody else may approve it";
    let denied = not_approved("budget", text);
    match after {
        Some(after) => denied
            .retry_after(milliseconds(after).saturating_add(1))
            .remedy("ask again then; an operator may raise `budget` in approval.toml"),
        None => denied.remedy("an operator has to raise `budget` in approval.toml"),
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
            panels.push(Convened { panel, charge, begun: vec![false; reviews.reviewers.len()], of });
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
        let running = &self.approvals.reviews.running;
        if running.len() >= REVIEWS || self.dispatcher.counts().draining {
            return None;
        }
        let is_full = |asker| running.values().filter(|one| one.asker == asker).count() >= REVIEWS_OF_ONE;
        self.approvals.waiting.iter().find_map(|(id, waits)| {
            let next = waits.panels.iter().enumerate().find_map(|(at, one)| Some((at, one.next()?)))?;
            (!waits.is_with_people && !is_full(waits.run.owner)).then_some((*id, next))
        })
    }

    /// Begins one that has its directory.
    fn begin_review(&mut self, id: ExecId, home: PathBuf, room: Room) -> Result<(), String> {
        // Its question may be over by now.
        let Some(of) = self.approvals.reviews.running.get(&id) else {
            review_run::clear(self.approvals.reviews.place.join(id.to_string()));
            return Ok(());
        };
        let (question, seat) = (of.question, of.seat);
        let Some(waits) = self.approvals.waiting.get(&question) else { return Ok(()) };
        let reviewer = waits.panels[seat.0].of.reviews.reviewers[seat.1].clone();
        let digest = waits.question.digest();
        let input = waits.brief().map_err(|why| format!("it can't be shown what waits: {why}"))?;
        let left = waits.until.saturating_duration_since(Instant::now());
        let sought = review_run::Sought { id, question, reviewer: &reviewer, input, left };
        let run = self.review_run(sought, home, room);
        let (run, bytes) = run.map_err(|denied| format!("it can't be run: {}", denied.message))?;
        let about = about(question, &digest);
        let principal = self.own_principal();
        let text = format!("the reviewer {} (tool {}) looks at it: {id}", reviewer.name, reviewer.tool.value);
        self.watch_answer(principal.clone(), "review-begun", text, &about);
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

    pub(super) fn own_principal(&self) -> Principal {
        Principal { uid: self.settings.uid, pid: Some(self.settings.pid), ..Principal::default() }
    }

    /// A reviewer's run has ended, or came to nothing: told once what goes on now is over. `said`: its answer, or why it has none.
    pub(super) fn reviewed_later(&self, id: ExecId, said: Result<Answer, String>) {
        if !self.approvals.reviews.running.contains_key(&id) {
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
        review_run::clear(self.approvals.reviews.place.join(id.to_string()));
        let Some(Reviewing { question, seat: (panel, seat), .. }) =
            self.approvals.reviews.running.remove(&id)
        else {
            return;
        };
        if let Some(waits) = self.approvals.waiting.get_mut(&question) {
            let about = about(question, &waits.question.digest());
            let panel = &mut waits.panels[panel].panel;
            let _standing = panel.answer(seat, said);
            let seat = &panel.seats()[seat];
            let (opinion, word) = (seat.opinion(), word(seat.opinion()));
            let text = format!("the reviewer {}: {word}: {}", seat.name(), seat.reason());
            tracing::info!(run = %id, %question, reviewer = seat.name(), reason = seat.reason(), "a reviewer says {word}");
            self.figures.gated.reviewed(opinion);
            self.watch_answer(self.own_principal(), "reviewed", text, &about);
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
                let is_no = |one: &Convened| {
                    one.panel.seats().iter().any(|seat| seat.opinion() == Opinion::No)
                        && one.standing() == Sitting::Refuses
                };
                let (denied, is_no) = (refusal(waits), waits.panels.iter().any(is_no));
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
        let ended: Vec<ExecId> =
            running.extract_if(|_, one| one.question == id).map(|(run, _)| run).collect();
        for run in ended {
            self.handle(Event::End { now: self.now(), run, reason: CancelReason::Unneeded });
        }
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
        if self.approvals.reviews.running.contains_key(&id) {
            self.reviewed_later(id, said);
        } else {
            review_run::clear(self.approvals.reviews.place.join(id.to_string()));
        }
        self.handle(Event::Acknowledged { owner, run: id, seq });
    }
}

fn word(opinion: Opinion) -> &'static str {
    match opinion {
        Opinion::Yes => "yes",
        Opinion::No => "no",
        Opinion::Open | Opinion::Nothing => "nothing",
    }
}

impl Waits {
    /// What a reviewer is given: the request, as who approves is shown it, and nothing of answers.
    fn brief(&self) -> serde_json::Result<Bytes> {
        if let Some(made) = self.brief.get() {
            return Ok(made.clone());
        }
        let made = review_run::brief(|most| self.summary(false, most))?;
        Ok(self.brief.get_or_init(|| made).clone())
    }
}

/// People are asked once programs have let it through.
pub(super) fn not_yet() -> Denied {
    let text = "reviewer programs look at it first: it isn't anybody's to approve yet";
    let denied = Denied::new(DenyReason::NotPermitted, text).decided_by("approve", "reviewers");
    denied.remedy("answer once it's asked; who has a reason against it can refuse it now")
}

/// Nobody goes on with a reviewer's run but the daemon.
pub(super) fn not_yours() -> Denied {
    let text = "it's the run of a reviewer program, and the daemon's own";
    Denied::new(DenyReason::NotPermitted, text).decided_by("approve", "reviewers")
}

#[cfg(test)]
mod tests {
    use stockade_gate::approve;

    use super::*;

    /// A file's panel of one reviewer, with what that has said.
    fn convened(said: Option<bool>, is_spent: bool) -> Convened {
        let text = "[[reviewer]]\nname = \"a\"\ntool = \"a\"\ncost = 1\n";
        let Some(reviews) = approve::read("approval.toml", text).unwrap().reviews else {
            panic!("no reviewers")
        };
        let mut panel = Panel::new([7; 32], 1, ["a".to_owned()]);
        if let Some(approve) = said {
            let text = format!("{{\"digest\":\"{}\",\"approve\":{approve},\"reason\":\"\"}}", hex(&[7; 32]));
            let _standing = panel.answer(0, Answer::read(text.as_bytes()));
        }
        let charge = Budgets::default().take(1, 1, 1, Duration::ZERO).unwrap();
        let of = Arc::new(PlacedReviews { directory: PathBuf::new(), reviews });
        Convened { of, panel, charge: (!is_spent).then_some(charge), begun: vec![false] }
    }

    #[test]
    fn each_files_panel_has_to_let_it_through_and_any_refuses() {
        let (yes, no, open) = (Some(true), Some(false), None);
        let standing = |all: &[Option<bool>]| {
            together(&all.iter().map(|said| convened(*said, false)).collect::<Vec<_>>())
        };
        assert_eq!(standing(&[yes, yes]), Sitting::LetsThrough);
        assert_eq!((standing(&[yes, open]), standing(&[open, yes])), (Sitting::Waits, Sitting::Waits));
        for all in [[yes, no], [no, yes], [open, no], [no, no]] {
            assert_eq!(standing(&all), Sitting::Refuses, "{all:?}");
        }
        assert_eq!(together(&[]), Sitting::LetsThrough);
    }

    #[test]
    fn a_panel_whose_budget_is_spent_begins_nobody_and_stands_in_nobodys_way() {
        let spent = convened(None, true);
        assert_eq!((spent.next(), spent.standing()), (None, Sitting::LetsThrough));
        assert!(within(&[spent]).is_none());
        let open = convened(None, false);
        assert_eq!((open.next(), open.unspent()), (Some(0), 1));
        assert_eq!(together(&[convened(None, true), open]), Sitting::Waits);
        assert_eq!(together(&[convened(None, true), convened(Some(false), false)]), Sitting::Refuses);
    }
}
