//! What is known of a user: what of his has run before, and when he was last refused or failed.
//!
//! By uid, whatever the unit: nobody gets another past by another unit. It's kept in memory; after a restart everything is new
//! again, and so asked about rather than not.

use core::time::Duration;
use std::collections::{HashMap, VecDeque};

use sha2::{Digest as _, Sha256};

use crate::row::Ending;

/// How long a refusal or a failure counts.
pub const LATELY: Duration = Duration::from_secs(60 * 60);
/// The most users that something is known of: who was idle for longest is forgotten first.
pub const MAX_PRINCIPALS: usize = 1_024;
/// The most tools and programs that are known of one user: the oldest is forgotten first.
pub const MAX_KNOWN: usize = 256;
/// The most runs that go on and whose end is waited for. Of those beyond, nothing is learned.
const MAX_GOING: usize = 8_192;

/// A tool, or a program under a policy.
pub(super) type Key = [u8; 16];

/// What is known.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    of: HashMap<u32, Past>,
    going: HashMap<u128, (u32, Key)>,
}

#[derive(Debug, Clone, Default)]
struct Past {
    known: VecDeque<Key>,
    refused: Option<Duration>,
    failed: Option<Duration>,
    last: Duration,
}

/// The key of a tool (`kind` 0) or of a program (1) by its name, with the policy that it runs under.
pub(super) fn key(kind: u8, policy: &str, name: &[u8]) -> Key {
    let mut digest = Sha256::new();
    digest.update([kind]);
    digest.update((policy.len() as u64).to_le_bytes());
    digest.update(policy);
    digest.update(name);
    let mut key = Key::default();
    key.copy_from_slice(&digest.finalize()[..16]);
    key
}

fn is_lately(at: Option<Duration>, now: Duration) -> bool {
    at.is_some_and(|at| now.saturating_sub(at) < LATELY)
}

impl History {
    /// Whether nothing of that kind of his has ever run to its end.
    pub(super) fn is_first(&self, uid: u32, key: &Key) -> bool {
        self.of.get(&uid).is_none_or(|past| !past.known.contains(key))
    }

    pub(super) fn was_refused(&self, uid: u32, now: Duration) -> bool {
        is_lately(self.of.get(&uid).and_then(|past| past.refused), now)
    }

    pub(super) fn has_failed(&self, uid: u32, now: Duration) -> bool {
        is_lately(self.of.get(&uid).and_then(|past| past.failed), now)
    }

    /// Something of his was refused.
    pub(super) fn refused(&mut self, uid: u32, now: Duration) {
        self.past(uid, now).refused = Some(now);
    }

    /// Something of his was let through.
    pub(super) fn goes(&mut self, run: u128, uid: u32, key: Key) {
        if self.going.len() < MAX_GOING {
            self.going.insert(run, (uid, key));
        }
    }

    /// It came to nothing.
    pub(super) fn forget(&mut self, run: u128) {
        self.going.remove(&run);
    }

    /// It has ended.
    pub(super) fn ended(&mut self, run: u128, ending: Ending, now: Duration) {
        let Some((uid, key)) = self.going.remove(&run) else { return };
        if ending == Ending::Neither {
            return;
        }
        let past = self.past(uid, now);
        if ending == Ending::Failure {
            past.failed = Some(now);
        }
        if !past.known.contains(&key) {
            if past.known.len() >= MAX_KNOWN {
                past.known.pop_front();
            }
            past.known.push_back(key);
        }
    }

    fn past(&mut self, uid: u32, now: Duration) -> &mut Past {
        if !self.of.contains_key(&uid)
            && self.of.len() >= MAX_PRINCIPALS
            && let Some(idlest) = self.of.iter().min_by_key(|(_, past)| past.last).map(|(uid, _)| *uid)
        {
            self.of.remove(&idlest);
        }
        let past = self.of.entry(uid).or_default();
        past.last = now;
        past
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        let most = self.of.values().map(|past| past.known.len()).max().unwrap_or_default();
        (self.of.len(), most, self.going.len())
    }
}
