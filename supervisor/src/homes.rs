//! Home directories by user, for the daemon: looked up off the loop, and remembered for a while.
//!
//! A lookup may ask a directory service that takes seconds. Only the client whose user it is waits for it: many
//! requests of one user share one lookup, and a few users are looked up at once.

use core::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};
use tokio::task::{spawn_blocking, spawn_local};

use crate::paths;

/// Users that are remembered.
const USERS: usize = 1024;
/// Lookups at once.
const AT_ONCE: usize = 4;
/// How long an answer is good for: an account that is made or moved is noticed by then.
pub(crate) const FRESH_FOR: Duration = Duration::from_secs(60);

/// How a home is looked up; may block.
pub(crate) type Lookup = fn(u32) -> PathBuf;

/// One user's answer, once there is one.
#[derive(Debug)]
struct Entry {
    since: Instant,
    home: watch::Receiver<Option<PathBuf>>,
}

/// The homes that are known.
#[derive(Debug)]
pub(crate) struct Homes {
    lookup: Lookup,
    fresh_for: Duration,
    known: RefCell<HashMap<u32, Entry>>,
    turns: Arc<Semaphore>,
}

impl Homes {
    pub(crate) fn new(lookup: Lookup, fresh_for: Duration) -> Self {
        Self { lookup, fresh_for, known: RefCell::default(), turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// The home of a user. Within a `LocalSet`. Whoever stops waiting stops nothing: the lookup is everybody's.
    pub(crate) async fn of(&self, uid: u32) -> PathBuf {
        let mut home = self.entry(uid);
        let known = home.wait_for(Option::is_some).await;
        known.ok().and_then(|home| home.clone()).unwrap_or_else(paths::nowhere)
    }

    fn entry(&self, uid: u32) -> watch::Receiver<Option<PathBuf>> {
        let mut known = self.known.borrow_mut();
        known.retain(|_, entry| entry.since.elapsed() < self.fresh_for);
        if known.len() >= USERS {
            known.clear();
        }
        known
            .entry(uid)
            .or_insert_with(|| Entry { since: Instant::now(), home: self.look_up(uid) })
            .home
            .clone()
    }

    /// Begins a lookup.
    fn look_up(&self, uid: u32) -> watch::Receiver<Option<PathBuf>> {
        let (answer, home) = watch::channel(None);
        let (lookup, turns) = (self.lookup, Arc::clone(&self.turns));
        spawn_local(async move {
            // Held by the thread: nothing that is given up here makes room for another there.
            let turn = turns.acquire_owned().await;
            let looked_up = spawn_blocking(move || {
                let _turn = turn;
                lookup(uid)
            });
            let _forgotten = answer.send(Some(looked_up.await.unwrap_or_else(|_died| paths::nowhere())));
        });
        home
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::task::LocalSet;

    use super::*;

    fn within(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, test);
    }

    /// Far more than a test takes.
    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn many_requests_of_one_user_are_one_lookup() {
        static LOOKUPS: AtomicU32 = AtomicU32::new(0);
        let lookup = |uid| {
            LOOKUPS.fetch_add(1, Ordering::SeqCst);
            PathBuf::from(format!("/home/{uid}"))
        };
        within(async move {
            let homes = Rc::new(Homes::new(lookup, LONG));
            let asking = (0..100).map(|index| {
                let homes = Rc::clone(&homes);
                spawn_local(async move { homes.of(7 + index % 2).await })
            });
            for (index, asked) in asking.collect::<Vec<_>>().into_iter().enumerate() {
                assert_eq!(asked.await.unwrap(), PathBuf::from(format!("/home/{}", 7 + index % 2)));
            }
            assert_eq!(LOOKUPS.load(Ordering::SeqCst), 2);
        });
    }

    #[test]
    fn an_answer_that_is_no_longer_good_is_asked_for_again() {
        static LOOKUPS: AtomicU32 = AtomicU32::new(0);
        let lookup = |_| PathBuf::from(format!("/{}", LOOKUPS.fetch_add(1, Ordering::SeqCst)));
        within(async move {
            let homes = Homes::new(lookup, Duration::ZERO);
            assert_eq!(homes.of(7).await, PathBuf::from("/0"));
            assert_eq!(homes.of(7).await, PathBuf::from("/1"));
        });
    }

    #[test]
    fn no_more_users_are_remembered_than_the_bound() {
        within(async {
            let homes = Homes::new(|_| PathBuf::from("/h"), LONG);
            for uid in 0..1500 {
                let _home = homes.entry(uid);
            }
            assert!(homes.known.borrow().len() <= USERS);
        });
    }

    #[test]
    fn a_lookup_outlives_whoever_asked_and_answers_the_next() {
        static LOOKUPS: AtomicU32 = AtomicU32::new(0);
        let lookup = |_| PathBuf::from(format!("/{}", LOOKUPS.fetch_add(1, Ordering::SeqCst)));
        within(async move {
            let homes = Homes::new(lookup, LONG);
            drop(homes.entry(7));
            assert_eq!(homes.of(7).await, PathBuf::from("/0"));
        });
    }
}
