//! Requests for grants, which wait for an answer. They are in memory only: a restart forgets them, and who has asked asks again.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::grant::{Clocks, GrantId, Terms, Whom};

/// How long a request waits.
pub const LASTS: Duration = Duration::from_secs(60 * 60);
/// The most that wait.
pub const MAX_REQUESTS: usize = 256;
/// The most of one user.
pub const MAX_REQUESTS_OF_ONE: usize = 16;

/// The most that somebody asks for in a minute, and all together.
pub const MAX_A_MINUTE_OF_ONE: usize = 16;
const MAX_A_MINUTE: usize = 256;
const MINUTE: Duration = Duration::from_secs(60);

/// Why there can't be one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRequest {
    /// Too many wait.
    #[error("too many requests for grants wait for an answer")]
    Many,
    /// Too many were asked for just now; in so long there is room again.
    #[error("too many grants were asked for in the last minute")]
    Often(Duration),
}

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
    /// With which reading of the daemon's files: what it names may be another thing after the next.
    pub generation: u64,
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
    /// Who has asked within the last minute, and when: withdrawn requests among them.
    asked: VecDeque<(u32, Duration)>,
}

impl Requests {
    /// One more.
    ///
    /// # Errors
    /// Too many wait, or too many were asked for in the last minute.
    pub fn put(&mut self, request: Pending, now: Clocks) -> Result<(), NoRequest> {
        self.pending.retain(|_, pending| !pending.left(now).is_zero());
        let uid = request.to.uid;
        let own = self.pending.values().filter(|pending| pending.to.uid == uid).count();
        if own >= MAX_REQUESTS_OF_ONE || self.pending.len() >= MAX_REQUESTS {
            return Err(NoRequest::Many);
        }
        while self.asked.front().is_some_and(|(_, at)| *at + MINUTE <= now.boot) {
            self.asked.pop_front();
        }
        let mut own = self.asked.iter().filter(|(of, _)| *of == uid).map(|(_, at)| *at);
        let first = own.next().filter(|_| own.count() + 1 >= MAX_A_MINUTE_OF_ONE);
        let full = self.asked.front().filter(|_| self.asked.len() >= MAX_A_MINUTE).map(|(_, at)| *at);
        if let Some(at) = first.or(full) {
            return Err(NoRequest::Often((at + MINUTE).saturating_sub(now.boot)));
        }
        self.asked.push_back((uid, now.boot));
        self.pending.insert(request.id, request);
        Ok(())
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
