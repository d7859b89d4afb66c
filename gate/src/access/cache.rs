//! Decisions that are remembered.
//!
//! By a digest of all that a decision can depend on: a table of them is small, and two questions with one digest nobody can find.
//! What reads the given, the time or the load is never put here.

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};

use super::engine::Decision;
use super::question::named;
use crate::asked::Asked;

/// The most decisions that are remembered: about a megabyte.
pub const MAX_DECISIONS: usize = 16_384;

/// A question, as it's remembered.
pub(super) type Key = [u8; 32];

/// What was decided.
#[derive(Debug, Clone, Default)]
pub(super) struct Decisions {
    known: HashMap<Key, Decision>,
}

impl Decisions {
    pub(super) fn get(&self, key: &Key) -> Option<Decision> {
        self.known.get(key).copied()
    }

    /// Remembers one. Where there is no room everything is forgotten: to ask again costs microseconds, and to keep an order of all
    /// of them would cost every request.
    pub(super) fn put(&mut self, key: Key, decision: Decision) {
        if self.known.len() >= MAX_DECISIONS {
            self.known.clear();
        }
        self.known.insert(key, decision);
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.known.clear();
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }
}

/// The digest of a question to the engine of this number.
pub(super) fn key(engine: usize, asked: &Asked<'_>) -> Key {
    let mut digest = Sha256::new();
    let principal = asked.principal;
    let mut put = |bytes: &[u8]| {
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(bytes);
    };
    // What is there and empty is something else than what isn't there.
    let mut maybe = |bytes: Option<&[u8]>| {
        put(&[u8::from(bytes.is_some())]);
        put(bytes.unwrap_or_default());
    };
    maybe(Some(&(engine as u64).to_le_bytes()));
    maybe(Some(asked.action.name().as_bytes()));
    maybe(Some(&principal.uid.to_le_bytes()));
    let gids: Vec<u8> = principal.gids.iter().flat_map(|gid| gid.to_le_bytes()).collect();
    maybe(Some(&gids));
    maybe(principal.unit.as_deref().map(str::as_bytes));
    maybe(Some(named(asked).as_bytes()));
    maybe(asked.policy.map(str::as_bytes));
    maybe(asked.tool.map(str::as_bytes));
    maybe(Some(&[u8::from(asked.thing.is_shipped)]));
    maybe(asked.owner.map(u32::to_le_bytes).as_ref().map(<[u8; 4]>::as_slice));
    let roles = asked.thing.tool_roles.unwrap_or_default();
    maybe(asked.thing.tool_roles.map(|roles| roles.len().to_le_bytes()).as_ref().map(<[u8; 8]>::as_slice));
    for role in roles {
        maybe(Some(role.as_bytes()));
    }
    digest.finalize().into()
}
