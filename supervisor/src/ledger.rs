//! What connections hold of the daemon's memory, by owner.
//!
//! Each buffer that a client can fill (frames that aren't whole, messages that wait for it, input that no tool has
//! read) writes down its size here. A little is free, so that who only asks is never refused; beyond that an owner
//! has a bound, and all owners together have another, the last part of which is for owners with little. What to do
//! at the bound is the buffer's: output waits in its ring, whatever came unasked is refused.

use core::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use tokio::sync::Notify;

use crate::dispatcher::Share;

/// Bytes of a buffer that don't count. A message below it is never refused.
const FREE: usize = 32 * 1024;

/// The bounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// Of all owners.
    pub(crate) share: Share,
    /// Of one.
    pub(crate) per_owner: usize,
}

/// What is held. One a daemon.
#[derive(Debug, Clone)]
pub(crate) struct Ledger(Rc<Book>);

#[derive(Debug)]
struct Book {
    memory: Cell<Memory>,
    taken: Cell<usize>,
    owners: RefCell<HashMap<u32, usize>>,
    /// To be rung when something is given back.
    starved: RefCell<Vec<Rc<Notify>>>,
}

impl Ledger {
    pub(crate) fn new(memory: Memory) -> Self {
        let (taken, owners, starved) = Default::default();
        Self(Rc::new(Book { memory: Cell::new(memory), taken, owners, starved }))
    }

    /// Other bounds from now on. What is held already may stay.
    pub(crate) fn set_bounds(&self, memory: Memory) {
        self.0.memory.set(memory);
        self.0.starved.borrow_mut().drain(..).for_each(|bell| bell.notify_one());
    }

    /// An entry for one buffer of an owner, empty.
    pub(crate) fn entry(&self, owner: u32) -> Entry {
        Entry { ledger: self.clone(), owner, counted: Cell::new(0) }
    }

    /// Everything that counts.
    pub(crate) fn taken(&self) -> usize {
        self.0.taken.get()
    }
}

/// What one buffer holds. Dropped, nothing.
#[derive(Debug)]
pub(crate) struct Entry {
    ledger: Ledger,
    owner: u32,
    counted: Cell<usize>,
}

impl Entry {
    /// Writes down how large the buffer is now.
    pub(crate) fn set(&self, bytes: usize) {
        let new = bytes.saturating_sub(FREE);
        let old = self.counted.replace(new);
        if new == old {
            return;
        }
        let book = &self.ledger.0;
        book.taken.set(book.taken.get() - old + new);
        let mut owners = book.owners.borrow_mut();
        let own = owners.entry(self.owner).or_default();
        *own = *own - old + new;
        if *own == 0 {
            owners.remove(&self.owner);
        }
        if new < old {
            book.starved.borrow_mut().drain(..).for_each(|bell| bell.notify_one());
        }
    }

    /// Whether the buffer may be so large.
    pub(crate) fn allows(&self, bytes: usize) -> bool {
        let counted = self.counted.get();
        let more = bytes.saturating_sub(FREE).saturating_sub(counted);
        let book = &self.ledger.0;
        let memory = book.memory.get();
        let own = book.owners.borrow().get(&self.owner).copied().unwrap_or(0);
        more == 0
            || (own.saturating_add(more) <= memory.per_owner
                && memory.share.allows(book.taken.get(), own, more))
    }

    /// Rings this once something has been given back, by anybody.
    pub(crate) fn ring_when_freed(&self, bell: &Rc<Notify>) {
        let mut starved = self.ledger.0.starved.borrow_mut();
        if !starved.iter().any(|other| Rc::ptr_eq(other, bell)) {
            starved.push(Rc::clone(bell));
        }
    }

    /// What is said at the bound.
    pub(crate) fn refusal(&self) -> String {
        let mebibytes = self.ledger.0.memory.get().per_owner >> 20;
        format!(
            "user {} has too much of the daemon's memory: at most {mebibytes} MiB may wait in his connections, \
             less while others need it; read what waits, or use fewer connections",
            self.owner
        )
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;

    fn ledger() -> Ledger {
        let share = Share::new(400 * KIB, 50 * KIB, true);
        Ledger::new(Memory { share, per_owner: 200 * KIB })
    }

    #[test]
    fn an_owner_has_his_bound_and_the_last_quarter_is_for_who_has_little() {
        let ledger = ledger();
        let first = ledger.entry(1);
        assert!(first.allows(200 * KIB + FREE));
        assert!(!first.allows(200 * KIB + FREE + 1));
        first.set(200 * KIB + FREE);
        let second = ledger.entry(1);
        assert!(second.allows(FREE), "a little is free");
        assert!(!second.allows(FREE + 1));
        let other = ledger.entry(2);
        assert!(!other.allows(101 * KIB + FREE), "a quarter is kept");
        other.set(100 * KIB + FREE);
        let newcomer = ledger.entry(3);
        assert!(newcomer.allows(50 * KIB + FREE));
        assert!(!newcomer.allows(51 * KIB + FREE));
        drop(first);
        assert!(second.allows(200 * KIB));
        drop((second, other, newcomer));
        assert_eq!(ledger.taken(), 0);
        assert!(ledger.0.owners.borrow().is_empty());
    }

    #[test]
    fn what_is_held_already_may_stay() {
        let ledger = ledger();
        let entry = ledger.entry(1);
        entry.set(1024 * KIB);
        assert!(entry.allows(1024 * KIB));
        assert!(!entry.allows(1024 * KIB + 1));
        entry.set(0);
        assert_eq!(ledger.taken(), 0);
    }

    #[test]
    fn other_bounds_hold_from_then_on() {
        let ledger = ledger();
        let entry = ledger.entry(1);
        entry.set(100 * KIB + FREE);
        let bounds = |per_owner| Memory { share: Share::new(400 * KIB, 50 * KIB, true), per_owner };
        ledger.set_bounds(bounds(120 * KIB));
        assert!(entry.allows(120 * KIB + FREE) && !entry.allows(121 * KIB + FREE));
        ledger.set_bounds(bounds(50 * KIB));
        assert!(entry.allows(100 * KIB + FREE), "what is held already");
        assert!(!entry.allows(101 * KIB + FREE));
    }

    #[test]
    fn who_is_starved_is_rung_when_something_is_given_back() {
        let ledger = ledger();
        let entry = ledger.entry(1);
        entry.set(200 * KIB);
        let bell = Rc::new(Notify::new());
        ledger.entry(2).ring_when_freed(&bell);
        let mut rung = Box::pin(bell.notified());
        let mut poll = || {
            let waker = std::task::Waker::noop();
            rung.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_ready()
        };
        entry.set(210 * KIB);
        assert!(!poll());
        entry.set(100 * KIB);
        assert!(poll());
    }
}
