//! What was counted and isn't written yet. Bounded: so many names of a kind in an hour, the rest together; so many hours.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;

use crate::cell::Cell;
use crate::words::{Ending, Kind, Stage};

/// Tools, policies and principals that have rows of their own in an hour or a day; those after them have one together, [`OTHER`].
pub const MOST_TOOLS: usize = 2_048;
/// See [`MOST_TOOLS`].
pub const MOST_POLICIES: usize = 512;
/// See [`MOST_TOOLS`].
pub const MOST_PRINCIPALS: usize = 2_048;
/// The row of names that have none.
pub const OTHER: &str = "(other)";
/// The row of names that nobody knows: whoever asks chooses them.
pub const UNKNOWN: &str = "(unknown)";
/// The longest name, in bytes; a longer one counts as [`OTHER`].
const LONGEST_NAME: usize = 128;
/// The most hours at once. More come together only while nothing can be written; the oldest then counts to the one after it, so
/// that what has waited for longer stands in the earliest of the last three.
const MOST_HOURS: usize = 3;
/// The most runs that are remembered as counted. A run beyond that is counted again if a daemon takes it over once it has ended.
const MOST_COUNTED: usize = 65_536;

/// A run's own id, whatever it looks like outside.
pub type RunId = [u8; 16];

/// How many names of a kind have rows of their own.
pub(crate) const fn most(kind: Kind) -> usize {
    match kind {
        Kind::Tool => MOST_TOOLS,
        Kind::Policy => MOST_POLICIES,
        Kind::Principal => MOST_PRINCIPALS,
    }
}

/// To whom something is counted.
#[derive(Debug, Clone, Copy)]
pub struct Who<'a> {
    /// The tool, of a call.
    pub tool: Option<&'a str>,
    /// The policy, if one is known.
    pub policy: Option<&'a str>,
    /// Who asked.
    pub uid: u32,
}

/// The rows of one hour, a table a kind.
type Hour = [HashMap<Box<str>, Cell>; Kind::COUNT];

/// See the module.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tally {
    /// By the hour's first second.
    hours: BTreeMap<u64, Hour>,
    /// Runs that were counted and that a launcher may tell of again.
    pub(crate) counted: BTreeSet<RunId>,
    /// Runs that were counted before this tally: the file may have them already.
    pub(crate) remembered: BTreeSet<RunId>,
    /// Runs that none tells of any more, and that the file may have.
    pub(crate) forgotten: BTreeSet<RunId>,
    uid: String,
}

/// The seconds of an hour, and of a day.
pub(crate) const HOUR: u64 = 60 * 60;
pub(crate) const DAY: u64 = 24 * HOUR;

impl Tally {
    /// Counts the end of a run. `now`: in seconds since the epoch; `used`: see [`Cell::end`].
    pub fn end(&mut self, now: u64, run: RunId, who: Who<'_>, ending: Ending, used: Option<(u64, u64)>) {
        if self.counted.len() < MOST_COUNTED {
            self.counted.insert(run);
        }
        self.count(now, who, |cell| cell.end(ending, used));
    }

    /// Counts a denial.
    pub fn deny(&mut self, now: u64, who: Who<'_>, stage: Stage) {
        self.count(now, who, |cell| cell.deny(stage));
    }

    /// A run was counted before, and may be told of again.
    pub fn remember(&mut self, run: RunId) {
        self.forgotten.remove(&run);
        if self.remembered.len() < MOST_COUNTED {
            self.remembered.insert(run);
        }
    }

    /// Nobody tells of a run any more.
    pub fn forget(&mut self, run: RunId) {
        // What was first counted here the file hasn't got.
        let is_only_here = !self.remembered.remove(&run) & self.counted.remove(&run);
        if !is_only_here && self.forgotten.len() < MOST_COUNTED {
            self.forgotten.insert(run);
        }
    }

    fn count(&mut self, now: u64, who: Who<'_>, mut count: impl FnMut(&mut Cell)) {
        self.uid.clear();
        // Writing to a text can't fail.
        let _ = write!(self.uid, "{}", who.uid);
        let hour = self.hours.entry(now - now % HOUR).or_default();
        if let Some(tool) = who.tool {
            count_to(hour, Kind::Tool, tool, &mut count);
        }
        if let Some(policy) = who.policy {
            count_to(hour, Kind::Policy, policy, &mut count);
        }
        count_to(hour, Kind::Principal, &self.uid, count);
        self.bound();
    }

    /// Counts all that another has counted since.
    pub fn merge(&mut self, later: &Self) {
        for (start, theirs) in &later.hours {
            let hour = self.hours.entry(*start).or_default();
            for (kind, rows) in Kind::ALL.iter().zip(theirs) {
                rows.iter().for_each(|(name, more)| count_to(hour, *kind, name, |cell| cell.merge(more)));
            }
        }
        self.bound();
        for run in &later.forgotten {
            self.forget(*run);
        }
        let room = MOST_COUNTED.saturating_sub(self.counted.len());
        self.counted.extend(later.counted.iter().take(room));
        for run in &later.remembered {
            self.remember(*run);
        }
    }

    fn bound(&mut self) {
        while self.hours.len() > MOST_HOURS {
            let Some((_, oldest)) = self.hours.pop_first() else { return };
            let Some(mut next) = self.hours.first_entry() else { return };
            for (kind, rows) in Kind::ALL.iter().zip(&oldest) {
                rows.iter()
                    .for_each(|(name, more)| count_to(next.get_mut(), *kind, name, |cell| cell.merge(more)));
            }
        }
    }

    /// Whether there is nothing to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let runs = [&self.counted, &self.remembered, &self.forgotten];
        self.hours.is_empty() && runs.into_iter().all(BTreeSet::is_empty)
    }

    /// Every row: the hour's first second, the kind, the name, and what was counted.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (u64, Kind, &str, &Cell)> {
        self.hours.iter().flat_map(|(start, hour)| {
            let tables = Kind::ALL.iter().zip(hour);
            tables.flat_map(|(kind, rows)| rows.iter().map(|(name, cell)| (*start, *kind, &**name, cell)))
        })
    }
}

/// Counts to the row of a name: its own, if it may have one. A name that is there costs no allocation.
fn count_to(hour: &mut Hour, kind: Kind, name: &str, count: impl FnOnce(&mut Cell)) {
    let table = &mut hour[kind.place()];
    if let Some(cell) = table.get_mut(name) {
        return count(cell);
    }
    let name = own_or_other(table.len(), kind, name);
    count(table.entry(name.into()).or_default());
}

/// The name of the row of a name that has none yet, in a table of so many.
pub(crate) fn own_or_other(rows: usize, kind: Kind, name: &str) -> &str {
    if rows >= most(kind) || name.len() > LONGEST_NAME { OTHER } else { name }
}

#[cfg(test)]
#[path = "tally_tests.rs"]
mod tests;
