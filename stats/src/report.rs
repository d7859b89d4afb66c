//! What is asked, and what is answered.

use std::collections::BTreeMap;

use crate::cell::Cell;
use crate::tally::{HOUR, Tally};
use crate::words::Kind;

/// Which rows are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question {
    /// Of these kinds; empty: of all.
    pub kinds: Vec<Kind>,
    /// Of this name only.
    pub name: Option<String>,
    /// Since when, in seconds since the epoch. What is kept an hour or a day together counts as a whole.
    pub since: u64,
}

/// One name.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Of what.
    pub kind: Kind,
    /// Which.
    pub name: String,
    /// What was counted.
    pub cell: Cell,
}

/// The answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// When the first stretch of time begins that is in it, in seconds since the epoch; none: there is nothing.
    pub from: Option<u64>,
    /// By kinds in their order, and by names.
    pub rows: Vec<Row>,
    /// Why what is counted isn't on disk, if it isn't.
    pub unwritten: Option<String>,
}

/// An answer that is being added up.
#[derive(Debug, Default)]
pub(crate) struct Sum {
    from: Option<u64>,
    rows: BTreeMap<(Kind, String), Cell>,
}

impl Sum {
    /// One more row, of a stretch of time that begins then.
    pub(crate) fn add(&mut self, start: u64, kind: Kind, name: &str, cell: &Cell) {
        self.from = Some(self.from.map_or(start, |from| from.min(start)));
        match self.rows.get_mut(&(kind, name.to_owned())) {
            Some(sum) => sum.merge(cell),
            None => drop(self.rows.insert((kind, name.to_owned()), cell.clone())),
        }
    }

    /// What isn't written yet.
    pub(crate) fn add_tally(&mut self, tally: &Tally, question: &Question) {
        for (start, kind, name, cell) in tally.rows() {
            if question.wants(kind, name) && start.saturating_add(HOUR) > question.since {
                self.add(start, kind, name, cell);
            }
        }
    }

    pub(crate) fn report(self) -> Report {
        let rows = self.rows.into_iter().map(|((kind, name), cell)| Row { kind, name, cell }).collect();
        Report { from: self.from, rows, unwritten: None }
    }
}

impl Question {
    /// The kinds that are wanted.
    pub(crate) fn kinds(&self) -> &[Kind] {
        if self.kinds.is_empty() { Kind::ALL } else { &self.kinds }
    }

    fn wants(&self, kind: Kind, name: &str) -> bool {
        self.kinds().contains(&kind) && self.name.as_deref().is_none_or(|wanted| wanted == name)
    }
}
