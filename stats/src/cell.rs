//! One row: what was counted of one name in one stretch of time.

use crate::spread::Spread;
use crate::words::{Ending, Stage};

/// See the module.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cell {
    pub(crate) endings: [u64; Ending::COUNT],
    pub(crate) denials: [u64; Stage::COUNT],
    /// From the command's start to its end, in microseconds: of runs whose command began and whose end is known.
    pub wall: Spread,
    /// The peak of memory of the same runs, in bytes.
    pub memory: Spread,
}

impl Cell {
    /// Counts the end of a run; `used`: its wall time in microseconds and its peak of memory in bytes, if they are known.
    pub fn end(&mut self, ending: Ending, used: Option<(u64, u64)>) {
        self.endings[ending.place()] += 1;
        if let Some((wall, memory)) = used {
            self.wall.add(wall);
            self.memory.add(memory);
        }
    }

    /// Counts a denial.
    pub fn deny(&mut self, stage: Stage) {
        self.denials[stage.place()] += 1;
    }

    /// Counts all that another has counted.
    pub fn merge(&mut self, other: &Self) {
        let add = |(ours, theirs): (&mut u64, &u64)| *ours = ours.saturating_add(*theirs);
        self.endings.iter_mut().zip(&other.endings).for_each(add);
        self.denials.iter_mut().zip(&other.denials).for_each(add);
        self.wall.merge(&other.wall);
        self.memory.merge(&other.memory);
    }

    /// Runs that ended.
    #[must_use]
    pub fn runs(&self) -> u64 {
        self.endings.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Requests that were denied.
    #[must_use]
    pub fn denied(&self) -> u64 {
        self.denials.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Runs by how they ended, in the order of the words.
    pub fn endings(&self) -> impl Iterator<Item = (Ending, u64)> {
        Ending::ALL.iter().copied().zip(self.endings)
    }

    /// Denials by who refused, in the order of the words.
    pub fn denials(&self) -> impl Iterator<Item = (Stage, u64)> {
        Stage::ALL.iter().copied().zip(self.denials)
    }
}
