//! What askers have cost in the last day, each by himself.
//!
//! A day is the last 24 hours by a clock that never steps, not one of the calendar. What was spent is kept by half hours: it counts
//! until all of its half hour is a day ago, so never for less than a day. It's kept in memory, and forgotten at a restart.

use core::time::Duration;
use std::collections::{HashMap, VecDeque};

/// How long what was spent counts.
pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// What was spent within one of these is one sum.
const PART: Duration = Duration::from_secs(30 * 60);
/// The most users that have spent anything. For another there is no budget until one of them has none to account for.
pub const MAX_SPENDERS: usize = 4_096;

/// Something was spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    uid: u32,
    part: u64,
}

/// Nothing was: there is too little left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// How long until there is enough; `None`: there never is.
    pub after: Option<Duration>,
}

/// What users have spent, in half hours, the oldest first.
#[derive(Debug, Clone, Default)]
pub struct Budgets {
    of: HashMap<u32, VecDeque<(u64, u32)>>,
}

fn part(now: Duration) -> u64 {
    now.as_secs() / PART.as_secs()
}

/// When what was spent in a part doesn't count any more.
fn end(part: u64) -> Duration {
    Duration::from_secs((part + 1).saturating_mul(PART.as_secs())).saturating_add(DAY)
}

impl Budgets {
    /// Spends something of a user's budget, or nothing.
    ///
    /// # Errors
    /// There is too little left.
    pub fn take(&mut self, uid: u32, cost: u32, budget: u32, now: Duration) -> Result<Charge, Spent> {
        if cost > budget {
            return Err(Spent { after: None });
        }
        self.forget(uid, now);
        if !self.of.contains_key(&uid) && self.of.len() >= MAX_SPENDERS {
            let all: Vec<u32> = self.of.keys().copied().collect();
            all.into_iter().for_each(|one| self.forget(one, now));
            if self.of.len() >= MAX_SPENDERS {
                return Err(Spent { after: Some(PART) });
            }
        }
        let spent = self.of.get(&uid).map_or(0, |parts| sum(parts.iter()));
        let mut over = (spent + u64::from(cost)).saturating_sub(budget.into());
        if over == 0 {
            let (parts, now) = (self.of.entry(uid).or_default(), part(now));
            match parts.back_mut().filter(|(last, _)| *last == now) {
                Some((_, units)) => *units = units.saturating_add(cost),
                None => parts.push_back((now, cost)),
            }
            return Ok(Charge { uid, part: now });
        }
        let enough = self.of.get(&uid).into_iter().flatten().find(|(_, units)| {
            over = over.saturating_sub((*units).into());
            over == 0
        });
        Err(Spent { after: enough.map(|(part, _)| end(*part).saturating_sub(now)) })
    }

    /// Gives so much of a charge back: what it was for wasn't begun.
    pub fn give_back(&mut self, charge: Charge, cost: u32) {
        let Some(parts) = self.of.get_mut(&charge.uid) else { return };
        if let Some((_, units)) = parts.iter_mut().find(|(part, _)| *part == charge.part) {
            *units = units.saturating_sub(cost);
        }
        parts.retain(|(_, units)| *units > 0);
        if parts.is_empty() {
            self.of.remove(&charge.uid);
        }
    }

    /// What a user has spent that still counts.
    #[must_use]
    pub fn spent(&self, uid: u32, now: Duration) -> u64 {
        let parts = self.of.get(&uid).into_iter().flatten();
        sum(parts.filter(|(part, _)| end(*part) > now))
    }

    fn forget(&mut self, uid: u32, now: Duration) {
        let Some(parts) = self.of.get_mut(&uid) else { return };
        parts.retain(|(part, _)| end(*part) > now);
        if parts.is_empty() {
            self.of.remove(&uid);
        }
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.of.len(), self.of.values().map(VecDeque::len).max().unwrap_or_default())
    }
}

fn sum<'a>(parts: impl Iterator<Item = &'a (u64, u32)>) -> u64 {
    parts.map(|(_, units)| u64::from(*units)).sum()
}
