//! Requests for grants, which wait for an answer. They are in memory only: a restart forgets them, and who has asked asks again.

use std::collections::BTreeMap;
use std::time::Duration;

use super::grant::{Clocks, GrantId, Terms, Whom};

/// How long a request waits.
pub const LASTS: Duration = Duration::from_secs(60 * 60);
/// The most that wait.
pub const MAX_REQUESTS: usize = 256;
/// The most of one user.
pub const MAX_REQUESTS_OF_ONE: usize = 16;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Its name.
    pub id: GrantId,
    /// Who asks, and for whom.
    pub to: Whom,
    /// For what.
    pub terms: Terms,
    /// Since when.
    pub since: Clocks,
}

impl Pending {
    /// How long it waits yet. By the clock that never steps: nothing of it outlives a start of the machine.
    #[must_use]
    pub fn left(&self, now: Clocks) -> Duration {
        (self.since.boot + LASTS).saturating_sub(now.boot)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Requests {
    pending: BTreeMap<GrantId, Pending>,
}

impl Requests {
    /// One more, if there is room for it: whether there was.
    pub fn put(&mut self, request: Pending, now: Clocks) -> bool {
        self.pending.retain(|_, pending| !pending.left(now).is_zero());
        let own = self.pending.values().filter(|pending| pending.to.uid == request.to.uid).count();
        if own >= MAX_REQUESTS_OF_ONE || self.pending.len() >= MAX_REQUESTS {
            return false;
        }
        self.pending.insert(request.id, request);
        true
    }

    /// One that waits.
    #[must_use]
    pub fn get(&self, id: GrantId, now: Clocks) -> Option<&Pending> {
        self.pending.get(&id).filter(|pending| !pending.left(now).is_zero())
    }

    /// It's answered, or withdrawn.
    pub fn take(&mut self, id: GrantId, now: Clocks) -> Option<Pending> {
        self.pending.remove(&id).filter(|pending| !pending.left(now).is_zero())
    }

    /// All that wait, in the order of their names.
    pub fn all(&self, now: Clocks) -> impl Iterator<Item = &Pending> {
        self.pending.values().filter(move |pending| !pending.left(now).is_zero())
    }
}
