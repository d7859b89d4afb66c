//! Who owes what: a number for each key that owes something. A key that owes nothing isn't kept.
//!
//! Keys lie in many small tables, so that none takes long to grow or to be gone through: with every few keys that come one table
//! is gone through for keys that owe nothing any more.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use crate::rate::pace::Virtual;

/// The most keys. A table that is full of keys that owe something lets no other in.
pub const MAX_KEYS: usize = 1 << 20;
/// Tables: a thousand keys or so in each when there are a million.
const TABLES: usize = 1_024;
/// Tables that are gone through when there are too many keys.
const TABLES_WHEN_FULL: usize = 8;
/// With so many keys that come one table is gone through.
const KEYS_A_TABLE: usize = 16;

/// A principal, and the digest of what it asks for: 64 bits, keyed by a number that nobody knows, so that names which strangers
/// choose take no memory, and none can be chosen to be another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) uid: u32,
    pub(super) what: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Cells {
    tables: Vec<HashMap<Key, Virtual, RandomState>>,
    hashes: RandomState,
    next: usize,
    came: usize,
    len: usize,
    most: usize,
}

/// There are too many keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

impl Cells {
    pub(super) fn new(most: usize) -> Self {
        let hashes = RandomState::new();
        let tables = (0..TABLES).map(|_| HashMap::with_hasher(hashes.clone())).collect();
        Self { tables, hashes, next: 0, came: 0, len: 0, most }
    }

    /// The digest of a name of a kind.
    pub(super) fn digest(&self, kind: u8, name: &str) -> u64 {
        self.hashes.hash_one((kind, name))
    }

    fn table(&self, key: Key) -> usize {
        let hash = self.hashes.hash_one((key.uid, key.what));
        usize::try_from(hash >> 32).unwrap_or(0) % TABLES
    }

    /// What a key owes: nothing, unless something is known.
    pub(super) fn owed(&self, key: Key) -> Virtual {
        self.tables[self.table(key)].get(&key).copied().unwrap_or_default()
    }

    /// Whether there is room for one more key, if this one isn't there.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn room_for(&mut self, key: Key, now: Virtual) -> Result<(), Full> {
        if self.len < self.most || self.tables[self.table(key)].contains_key(&key) {
            return Ok(());
        }
        self.drop_idle(TABLES_WHEN_FULL, now);
        if self.len < self.most { Ok(()) } else { Err(Full) }
    }

    /// Has a key owe something.
    pub(super) fn set(&mut self, key: Key, owed: Virtual, now: Virtual) {
        let table = self.table(key);
        if self.tables[table].insert(key, owed).is_none() {
            self.len += 1;
            self.came = (self.came + 1) % KEYS_A_TABLE;
            if self.came == 0 {
                self.drop_idle(1, now);
            }
        }
    }

    /// Goes through so many tables more.
    pub(super) fn drop_idle(&mut self, tables: usize, now: Virtual) {
        for _ in 0..tables.min(TABLES) {
            let table = &mut self.tables[self.next];
            let before = table.len();
            table.retain(|_, owed| *owed > now);
            self.len -= before - table.len();
            if table.capacity() > 32 && table.len() < table.capacity() / 4 {
                table.shrink_to(table.len() * 2);
            }
            self.next = (self.next + 1) % TABLES;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(uid: u32) -> Key {
        Key { uid, what: 7 }
    }

    #[test]
    fn keys_that_owe_nothing_are_dropped_and_the_others_kept() {
        let mut cells = Cells::new(MAX_KEYS);
        for uid in 0..5_000 {
            cells.set(key(uid), Virtual(if uid % 2 == 0 { 10 } else { 20 }), Virtual(0));
        }
        assert_eq!(cells.len(), 5_000);
        cells.drop_idle(TABLES, Virtual(10));
        assert_eq!(cells.len(), 2_500);
        assert_eq!((cells.owed(key(4)), cells.owed(key(5))), (Virtual(0), Virtual(20)));
        cells.drop_idle(TABLES, Virtual(20));
        assert_eq!(cells.len(), 0);
        assert!(cells.tables.iter().all(|table| table.capacity() <= 32));
    }

    #[test]
    fn no_more_keys_than_there_may_be_and_those_that_are_there_go_on() {
        let mut cells = Cells::new(100);
        for uid in 0..100 {
            assert_eq!(cells.room_for(key(uid), Virtual(0)), Ok(()));
            cells.set(key(uid), Virtual(10), Virtual(0));
        }
        assert_eq!(cells.room_for(key(100), Virtual(5)), Err(Full));
        assert_eq!(cells.room_for(key(7), Virtual(5)), Ok(()));
        // When they owe nothing any more there is room, at the latest when all tables have been gone through.
        let tries = (0..TABLES).position(|_| cells.room_for(key(100), Virtual(10)).is_ok());
        assert!(tries.is_some());
    }
}
