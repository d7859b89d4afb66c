//! The stage.

use core::time::Duration;
use std::collections::BTreeSet;

use crate::asked::{Action, Asked, Load};
use crate::rate::cells::{Cells, Full, Key, MAX_KEYS};
use crate::rate::limits::{Limits, Stated, What};
use crate::rate::pace::{Pace, Pressure, Virtual};
use crate::rate::quota::{Charge, Limit, Never};
use crate::refusal::{Reason, Refusal};
use crate::row::{Stage, StageName};
use crate::verdict::Verdict;

/// Tables of keys that are gone through each time that the load is told: all of them in about a minute.
const TABLES_A_LOOK: usize = 16;

/// How the limiter stands, for `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// What is left of limits now, in millionths.
    pub share: u32,
    /// How busy the machine is, for limits.
    pub pressure: Pressure,
    /// Keys that are kept: principals with something that they have asked for of late, and principals.
    pub keys: usize,
}

/// The limiter: a [`Stage`] that runs and calls go through. All else passes: nobody is too often to end his own run.
#[derive(Debug, Clone)]
pub struct Limiter {
    limits: Limits,
    pace: Pace,
    each: Cells,
    total: Cells,
}

/// A cell of a request.
#[derive(Debug, Clone, Copy)]
struct Cell<'a> {
    key: Key,
    stated: &'a Stated,
    /// `None`: no limit.
    charge: Option<Result<Charge, Never>>,
    owed: Virtual,
    /// What holds of the stated limit, in hundredths.
    percent: u32,
}

impl Limiter {
    /// With these limits, and nobody owing anything.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self::with_most(limits, MAX_KEYS)
    }

    pub(super) fn with_most(limits: Limits, most: usize) -> Self {
        let pace = Pace::new(limits.adaptive);
        Self { limits, pace, each: Cells::new(most), total: Cells::new(most) }
    }

    /// Other limits from now on. What is owed stays owed, up to what the new limits allow to owe.
    pub fn set(&mut self, limits: Limits) {
        self.pace.adapt(limits.adaptive);
        self.limits = limits;
    }

    /// Says how busy the machine is. To be told once a second; a load holds until the next is told, or comes with a request.
    pub fn observe(&mut self, uptime: Duration, load: &Load) {
        let now = self.pace.observe(uptime, load);
        self.each.drop_idle(TABLES_A_LOOK, now);
        self.total.drop_idle(TABLES_A_LOOK, now);
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        let keys = self.each.len() + self.total.len();
        Status { share: self.pace.share(), pressure: self.pace.pressure(), keys }
    }

    /// How long the limit on all that a principal without a role asks for lets nothing of it pass; `None`: something passes. One
    /// that never lets anything pass has no end: [`Duration::MAX`]. Nothing is charged.
    pub fn waits(&mut self, uid: u32, uptime: Duration, load: &Load) -> Option<Duration> {
        let now = self.pace.observe(uptime, load);
        let holding = self.limits.holding(What::Nothing, &BTreeSet::new());
        match holding.total.limit.charge(holding.percent)? {
            Err(Never) => Some(Duration::MAX),
            Ok(charge) => {
                let when = charge.when(self.total.owed(Key { uid, what: 0 }), now);
                (when > now).then(|| self.pace.until(when))
            }
        }
    }

    fn pass(&mut self, what: What<'_>, asked: &Asked<'_>) -> Result<(), Refusal> {
        let now = self.pace.observe(asked.at.uptime, &asked.load);
        let holding = self.limits.holding(what, &asked.principal.roles);
        let uid = asked.principal.uid;
        let (kind, name) = match what {
            What::Tool(name) => (0, name),
            What::Policy(name) => (1, name),
            What::Nothing => (2, ""),
        };
        let percent = holding.percent;
        let key = Key { uid, what: self.each.digest(kind, name) };
        let charge = holding.each.limit.charge(percent);
        let each = Cell { key, stated: holding.each, charge, owed: self.each.owed(key), percent };
        let key = Key { uid, what: 0 };
        let charge = holding.total.limit.charge(percent);
        let total = Cell { key, stated: holding.total, charge, owed: self.total.owed(key), percent };
        refusal(what, &[each, total], now, &self.pace)?;

        let sides = [(&mut self.each, each), (&mut self.total, total)];
        for (cells, cell) in sides {
            if cell.charge.is_some() {
                cells.room_for(cell.key, now).map_err(|Full| too_many_keys())?;
            }
        }
        for (cells, cell) in [(&mut self.each, each), (&mut self.total, total)] {
            if let Some(Ok(charge)) = cell.charge {
                cells.set(cell.key, charge.take(cell.owed, now), now);
            }
        }
        Ok(())
    }
}

/// The refusal by the cell that makes one wait longest, if any makes one wait.
fn refusal(what: What<'_>, cells: &[Cell<'_>; 2], now: Virtual, pace: &Pace) -> Result<(), Refusal> {
    let mut latest: Option<(Virtual, &Cell<'_>, bool)> = None;
    for (is_total, cell) in [false, true].into_iter().zip(cells) {
        match cell.charge {
            None => {}
            Some(Err(Never)) => return Err(never(what, is_total, cell.stated)),
            Some(Ok(charge)) => {
                let when = charge.when(cell.owed, now);
                if when > now && latest.is_none_or(|(latest, ..)| when > latest) {
                    latest = Some((when, cell, is_total));
                }
            }
        }
    }
    match latest {
        None => Ok(()),
        Some((when, cell, is_total)) => Err(later(what, is_total, cell, pace.until(when))),
    }
}

/// As it stands in a sentence.
fn said(what: What<'_>, is_total: bool) -> String {
    match what {
        _ if is_total => "all that one user asks for".into(),
        What::Tool(name) => format!("calls of tool `{name}` by one user"),
        What::Policy(name) => format!("runs under policy `{name}` by one user"),
        What::Nothing => "requests by one user for what there isn't".into(),
    }
}

fn never(what: What<'_>, is_total: bool, stated: &Stated) -> Refusal {
    let message = format!("the limit on {} is 0: never", said(what, is_total));
    Refusal::new(StageName::Rate, Reason::RateLimited, &stated.rule, message)
        .remedy("an operator can set another limit in limits.toml")
}

fn later(what: What<'_>, is_total: bool, cell: &Cell<'_>, wait: Duration) -> Refusal {
    let Cell { stated, percent, .. } = cell;
    let limit = match stated.limit {
        Limit::At(quota) => quota.said(*percent),
        Limit::Never | Limit::None => String::new(),
    };
    let message = format!("the limit on {} ({limit}) is reached", said(what, is_total));
    Refusal::new(StageName::Rate, Reason::RateLimited, &stated.rule, message)
        .remedy("ask again later, or have an operator set another limit in limits.toml")
        .retry_after(wait)
}

fn too_many_keys() -> Refusal {
    let message = format!("{MAX_KEYS} users and tools owe something to their limits, and no more are kept");
    Refusal::new(StageName::Rate, Reason::RateLimited, "built-in", message).remedy("ask again later")
}

impl Stage for Limiter {
    fn name(&self) -> StageName {
        StageName::Rate
    }

    fn judge(&mut self, asked: &Asked<'_>) -> Result<Verdict, Refusal> {
        match (asked.action, asked.tool, asked.policy) {
            (Action::Call, Some(tool), _) => self.pass(What::Tool(tool), asked),
            (Action::Run, _, Some(policy)) => self.pass(What::Policy(policy), asked),
            (Action::Call | Action::Run, ..) => self.pass(What::Nothing, asked),
            _ => Ok(()),
        }
        .map(|()| Verdict::Pass)
    }

    // `take_back` gives nothing back: see this module's page.
}
