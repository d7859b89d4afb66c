//! The grants that there are, and the runs that were let through by them and haven't begun.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::exactly;
use super::grant::{Clocks, Grant, GrantId, Uses, What, Whom};
use crate::asked::{Action, Asked, Principal};

/// The most grants.
pub const MAX_GRANTS: usize = 4_096;
/// The most of one user.
pub const MAX_OF_ONE: usize = 256;

/// What has to be written down: of each grant one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A grant has so many uses left.
    Left(GrantId, u32),
    /// A grant isn't any more.
    Drop(GrantId),
}

/// By what a run was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redeemed {
    /// The grant.
    pub id: GrantId,
    /// Whether the run ends with it.
    pub ends_runs: bool,
    /// The uses that it has left, if they are counted: the one that was taken has to be written down before anything runs.
    pub left: Option<u32>,
}

/// There are too many grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// In all.
    #[error("there are {MAX_GRANTS} grants, and there can be no more")]
    All,
    /// Of one user.
    #[error("user {0} has {MAX_OF_ONE} grants, and can have no more")]
    Of(u32),
}

/// What a grant is found by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    to: Whom,
    what: What,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Held {
    grants: BTreeMap<GrantId, Grant>,
    by_key: HashMap<Key, Vec<GrantId>>,
    of_one: HashMap<u32, usize>,
    /// Of runs that haven't begun.
    redeemed: HashMap<u128, Redeemed>,
    /// Grants of which more or less is left than was handed over.
    changed: BTreeSet<GrantId>,
    gone: Vec<GrantId>,
    /// What is left as it was handed over last, of those whose uses are counted.
    handed: HashMap<GrantId, u32>,
    now: Clocks,
}

impl Held {
    /// What the clocks say, before anything is asked.
    pub fn tell_time(&mut self, now: Clocks) {
        self.now = now;
    }

    /// What they said last.
    #[must_use]
    pub fn now(&self) -> Clocks {
        self.now
    }

    /// How many there are, those that are over and weren't looked for among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.grants.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.grants.is_empty()
    }

    /// Those that aren't over, in the order of their names.
    pub fn all(&self) -> impl Iterator<Item = &Grant> {
        self.grants.values().filter(|grant| !grant.is_over(self.now))
    }

    /// One that isn't over.
    #[must_use]
    pub fn get(&self, id: GrantId) -> Option<&Grant> {
        self.grants.get(&id).filter(|grant| !grant.is_over(self.now))
    }

    /// Whether one more of a user's has room, with so many `others` and so many of them his that are on their way.
    ///
    /// # Errors
    /// It hasn't.
    pub fn has_room_for(&self, uid: u32, (others, his): (usize, usize)) -> Result<(), Full> {
        if self.grants.len() + others >= MAX_GRANTS {
            return Err(Full::All);
        }
        let own = self.of_one.get(&uid).copied().unwrap_or(0);
        if own + his >= MAX_OF_ONE { Err(Full::Of(uid)) } else { Ok(()) }
    }

    /// Has one hold from now on: it's written down.
    pub fn put(&mut self, grant: Grant) {
        let (id, key) = (grant.id, Key { to: grant.to.clone(), what: grant.what.clone() });
        *self.of_one.entry(grant.to.uid).or_default() += 1;
        self.by_key.entry(key).or_default().push(id);
        if let Some(uses) = grant.uses {
            self.handed.insert(id, uses.left);
        }
        self.grants.insert(id, grant);
    }

    /// Takes one away. That has to be written down.
    pub fn revoke(&mut self, id: GrantId) -> Option<Grant> {
        let grant = self.grants.remove(&id)?;
        let key = Key { to: grant.to.clone(), what: grant.what.clone() };
        if let Some(ids) = self.by_key.get_mut(&key) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_key.remove(&key);
            }
        }
        if let Some(count) = self.of_one.get_mut(&grant.to.uid) {
            *count -= 1;
            if *count == 0 {
                self.of_one.remove(&grant.to.uid);
            }
        }
        self.handed.remove(&id);
        self.gone.push(id);
        Some(grant)
    }

    /// Takes those away that are over.
    pub fn sweep(&mut self) -> Vec<Grant> {
        let over: Vec<GrantId> =
            self.grants.values().filter(|grant| grant.is_over(self.now)).map(|grant| grant.id).collect();
        over.into_iter().filter_map(|id| self.revoke(id)).collect()
    }

    /// Lets a run through by the narrowest grant that fits, and takes a use of it. `None`: none fits.
    pub fn redeem(&mut self, asked: &Asked<'_>) -> Option<Redeemed> {
        let id = self.fitting(asked)?;
        let grant = self.grants.get_mut(&id)?;
        if let Some(uses) = &mut grant.uses {
            uses.left = uses.left.checked_sub(1)?;
            self.changed.insert(id);
        }
        let left = grant.uses.map(|uses| uses.left);
        let redeemed = Redeemed { id, ends_runs: grant.ends_runs, left };
        self.redeemed.insert(asked.run, redeemed);
        Some(redeemed)
    }

    /// The narrowest grant by which something would be let through: one for these arguments before one for any, one for the unit before
    /// one for any; of several the one that is over first.
    #[must_use]
    pub fn fitting(&self, asked: &Asked<'_>) -> Option<GrantId> {
        if self.grants.is_empty() {
            return None;
        }
        let what = match asked.action {
            Action::Run => What::Policy(asked.policy?.to_owned()),
            Action::Call => What::Tool(asked.tool?.to_owned()),
            _ => return None,
        };
        let (own, any) = keys(asked.principal, what);
        let ids = [own, any].into_iter().filter_map(|key| self.by_key.get(&key)).flatten();
        let usable =
            |grant: &&Grant| !grant.is_over(self.now) && grant.uses.is_none_or(|Uses { left, .. }| left > 0);
        let found: Vec<&Grant> = ids.filter_map(|id| self.grants.get(id)).filter(usable).collect();
        let is_exact = found.iter().any(|grant| grant.given.is_some());
        let digest = if is_exact { exactly::of(asked.given) } else { None };
        let fits = |grant: &&Grant| {
            grant.given.as_ref().is_none_or(|given| digest.is_some_and(|digest| digest == given.digest))
        };
        let narrow =
            |grant: &&Grant| (grant.given.is_none(), grant.to.unit.is_none(), grant.left(self.now), grant.id);
        found.into_iter().filter(fits).min_by_key(narrow).map(|grant| grant.id)
    }

    /// By what a run that hasn't begun was let through.
    #[must_use]
    pub fn redeemed(&self, run: u128) -> Option<Redeemed> {
        self.redeemed.get(&run).copied()
    }

    /// A run has begun: its use isn't given back any more.
    pub fn began(&mut self, run: u128) {
        self.redeemed.remove(&run);
    }

    /// Nothing came of a run: its use is given back, if it was taken and the grant is there.
    pub fn give_back(&mut self, run: u128) -> Option<GrantId> {
        let Redeemed { id, .. } = self.redeemed.remove(&run)?;
        if let Some(uses) = self.grants.get_mut(&id).and_then(|grant| grant.uses.as_mut()) {
            uses.left = uses.of.min(uses.left + 1);
            self.changed.insert(id);
        }
        Some(id)
    }

    /// When the first of them is over, in so long; none: there is none.
    #[must_use]
    pub fn next_end(&self) -> Option<Duration> {
        self.grants.values().map(|grant| grant.left(self.now)).min()
    }

    #[cfg(test)]
    pub(super) fn by_key_is_empty(&self) -> bool {
        self.by_key.is_empty() && self.of_one.is_empty() && self.handed.is_empty()
    }

    /// What has to be written down since this was last asked: how it is now. A use that was taken and given back meanwhile is nothing.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let Self { grants, changed, gone, handed, .. } = self;
        let left = core::mem::take(changed).into_iter().filter_map(|id| {
            let left = grants.get(&id)?.uses?.left;
            let before = handed.insert(id, left);
            (before != Some(left)).then_some(Change::Left(id, left))
        });
        left.chain(core::mem::take(gone).into_iter().map(Change::Drop)).collect()
    }
}

/// What grants to somebody are found by: those for his unit, and those for any.
fn keys(principal: &Principal, what: What) -> (Key, Key) {
    let uid = principal.uid;
    let unit = principal.unit.clone().unwrap_or_default();
    let own = Key { to: Whom { uid, unit: Some(unit) }, what: what.clone() };
    (own, Key { to: Whom { uid, unit: None }, what })
}
