//! Reviewers of a question: one panel for each file that has any, and what they make of it together.
//!
//! Each file's panel has to let it through by itself; the first that can't any more refuses it for all. A panel whose asker has
//! spent his budget says nothing: where that may be, people are asked in any case.

use std::sync::Arc;
use std::time::Duration;

use stockade_gate::approve::{Charge, Opinion, Panel, Sitting};
use stockade_protocol::approval::{ReviewOpinion, ReviewPanel, ReviewerReport};
use stockade_protocol::denied::{Denied, DenyReason};

use super::approving::{Waits, milliseconds, not_approved};
use super::following::is_whole;
use crate::gate::PlacedReviews;

/// The most reviewers that a refusal names.
const NAMED: usize = 3;

/// The reviewers of one file, about one question.
#[derive(Debug)]
pub(super) struct Convened {
    pub(super) of: Arc<PlacedReviews>,
    pub(super) panel: Panel,
    /// What it has cost; `None`: the asker's budget is spent, and nobody of them looks.
    pub(super) charge: Option<Charge>,
    /// Which of them were begun.
    pub(super) begun: Vec<bool>,
}

impl Convened {
    pub(super) fn new(of: Arc<PlacedReviews>, panel: Panel, charge: Option<Charge>) -> Self {
        let begun = vec![false; of.reviews.reviewers.len()];
        Self { of, panel, charge, begun }
    }

    fn standing(&self) -> Sitting {
        if self.charge.is_some() { self.panel.standing() } else { Sitting::LetsThrough }
    }

    /// The next reviewer that is to be begun.
    pub(super) fn next(&self) -> Option<usize> {
        if self.standing() != Sitting::Waits {
            return None;
        }
        self.begun.iter().position(|begun| !begun)
    }

    /// What those have cost that were never begun.
    pub(super) fn unspent(&self) -> u32 {
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
pub(super) fn together(panels: &[Convened]) -> Sitting {
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

/// Whether one of those that don't let it through has said no.
pub(super) fn is_refused(panels: &[Convened]) -> bool {
    let refusing = panels.iter().filter(|one| one.standing() == Sitting::Refuses);
    refusing.flat_map(|one| one.panel.seats()).any(|seat| seat.opinion() == Opinion::No)
}

/// Why they don't let it through.
pub(super) fn refusal(waits: &Waits) -> Denied {
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

/// Why nobody looks, and nobody else would decide.
pub(super) fn spent(after: Option<Duration>) -> Denied {
    let text = "what programs look at for you in a day is spent, and nobody else may approve it";
    let denied = not_approved("budget", text);
    match after {
        Some(after) => denied
            .retry_after(milliseconds(after).saturating_add(1))
            .remedy("ask again then; an operator may raise `budget` in approval.toml"),
        None => denied.remedy("an operator has to raise `budget` in approval.toml"),
    }
}

/// What is written of it.
pub(super) fn word(opinion: Opinion) -> &'static str {
    match opinion {
        Opinion::Yes => "yes",
        Opinion::No => "no",
        Opinion::Open | Opinion::Nothing => "nothing",
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
    use std::path::PathBuf;

    use stockade_gate::approve::{self, Answer, Budgets};
    use stockade_gate::tools::hex;

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
        Convened::new(of, panel, (!is_spent).then_some(charge))
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
