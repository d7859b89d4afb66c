//! The thread that has the file.
//!
//! All that waits goes into one transaction, and is on disk together. Whoever hands over waits for nothing: he's told. What takes a
//! grant away is kept, and tried again, if it can't be written: all else only makes grants fewer when it's lost.
//!
//! How much is left of a grant is no order unless a run waits for it: clients could have any number of those, and a disk that hangs
//! would leave them all in memory. It stands in a slot, one for each grant, and is written with the next order, or a moment later. An
//! order takes its grant's slot with it, so that what is in a slot is always newer than all orders before it: nothing older than a run's
//! order is ever written after it.
//!
//! While there are grants the time is written now and then, also when nothing else is: what has run by then is over, also on a machine
//! whose calendar begins anew with each start.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use stockade_gate::grants::{GrantId, MAX_GRANTS};

use super::store::Store;
use super::{Write, clocks};
use crate::admission::chain;

/// The most that is written at once.
const MOST_AT_ONCE: usize = 512;
/// The most orders that may wait: of what clients may ask for again.
const MOST_WAITING: usize = 4_096;
/// The most that may be owed to a disk that takes nothing before it's given no more: what a start owes, and as much again.
const MOST_OWED: usize = 2 * MAX_GRANTS;
/// How long what nobody waits for may wait for something to go with.
const SHORT: Duration = Duration::from_millis(100);
/// How often the time is written while there are grants.
const TICK: Duration = Duration::from_secs(60);
/// How often what couldn't be written is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Who is told that it's on disk, or why not: called on the thread.
pub(super) type Told = Box<dyn FnOnce(Result<(), Arc<str>>) + Send>;

struct Order {
    writes: Vec<Write>,
    told: Option<Told>,
}

/// How much is left of grants, where nobody waits until that is on disk.
type Slots = Mutex<BTreeMap<GrantId, u32>>;

/// The thread's other end. Dropped, the thread writes what it has and ends; [`Writer::close`] waits for that.
#[derive(Debug)]
pub(super) struct Writer {
    orders: Sender<Order>,
    waiting: Arc<AtomicUsize>,
    owing: Arc<AtomicUsize>,
    slots: Arc<Slots>,
    thread: JoinHandle<()>,
}

impl Writer {
    /// Starts the thread. `owed`: what has to be written before anything else is.
    ///
    /// # Errors
    /// There can be none.
    pub(super) fn start(directory: PathBuf, store: Option<Store>, owed: Vec<Write>) -> io::Result<Self> {
        Self::start_with(directory, store, owed, TICK)
    }

    fn start_with(
        directory: PathBuf,
        store: Option<Store>,
        owed: Vec<Write>,
        tick: Duration,
    ) -> io::Result<Self> {
        let (orders, received) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let (count, slots) = (Arc::clone(&waiting), Arc::new(Slots::default()));
        let (boot, is_failing) = (clocks::boot(), !owed.is_empty());
        let owing = Arc::new(AtomicUsize::new(owed.len()));
        let desk = Desk {
            directory,
            // Whether there is any nobody has looked yet.
            holds: store.is_some(),
            tick,
            store,
            boot,
            slots: Arc::clone(&slots),
            owed,
            owing: Arc::clone(&owing),
            is_failing,
        };
        let thread = Builder::new().name("grants".to_owned()).spawn(move || desk.serve(&received, &count))?;
        Ok(Self { orders, waiting, owing, slots, thread })
    }

    /// Whether one more may wait.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.load(Ordering::Acquire) < MOST_WAITING && self.owing.load(Ordering::Acquire) < MOST_OWED
    }

    /// Has these written, together.
    pub(super) fn write(&self, mut writes: Vec<Write>, told: Option<Told>) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let were_empty = slots.is_empty();
        if told.is_none() {
            writes.retain(|write| match write {
                Write::Left(id, left) => {
                    slots.insert(*id, *left);
                    false
                }
                Write::Put(_) | Write::Drop(_) => true,
            });
        }
        for write in &writes {
            slots.remove(&write.id());
        }
        let has_to_wake = were_empty && !slots.is_empty();
        drop(slots);
        if writes.is_empty() && told.is_none() && !has_to_wake {
            return;
        }
        self.waiting.fetch_add(1, Ordering::AcqRel);
        // A thread that is gone has died of a bug: nobody is told, and what waits is given up after a while.
        let _ = self.orders.send(Order { writes, told });
    }

    /// Ends it, once everything is written that can be.
    pub(super) fn close(self) {
        drop(self.orders);
        let _ended = self.thread.join();
    }
}

/// What the thread has.
struct Desk {
    directory: PathBuf,
    store: Option<Store>,
    boot: String,
    slots: Arc<Slots>,
    /// What has to be written before anything else: grants that were taken away and are on disk still, and what a start has found.
    owed: Vec<Write>,
    /// How much that is.
    owing: Arc<AtomicUsize>,
    is_failing: bool,
    /// Whether there are grants.
    holds: bool,
    tick: Duration,
}

impl Desk {
    fn serve(mut self, orders: &Receiver<Order>, waiting: &AtomicUsize) {
        let mut wait = self.patience();
        loop {
            let first = match wait {
                None => orders.recv().map_err(Into::into),
                Some(wait) => orders.recv_timeout(wait),
            };
            let mut batch = match first {
                Ok(order) => vec![order],
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => {
                    let _last = self.write(&[]);
                    return;
                }
            };
            while batch.len() < MOST_AT_ONCE
                && let Ok(order) = orders.try_recv()
            {
                batch.push(order);
            }
            let is_wake = batch.iter().all(|order| order.writes.is_empty() && order.told.is_none());
            if is_wake && !batch.is_empty() {
                waiting.fetch_sub(batch.len(), Ordering::AcqRel);
                wait = Some(SHORT);
                continue;
            }
            let result = self.write(&batch);
            self.owing.store(self.owed.len(), Ordering::Release);
            waiting.fetch_sub(batch.len(), Ordering::AcqRel);
            for told in batch.into_iter().filter_map(|order| order.told) {
                told(result.clone());
            }
            wait = self.patience();
        }
    }

    /// How long it waits for orders.
    fn patience(&self) -> Option<Duration> {
        let tick = self.holds.then_some(self.tick);
        if self.owed.is_empty() { tick } else { Some(AGAIN) }
    }

    fn write(&mut self, batch: &[Order]) -> Result<(), Arc<str>> {
        // After the orders: what is in there is newer.
        let slots = core::mem::take(&mut *self.slots.lock().unwrap_or_else(PoisonError::into_inner));
        if batch.is_empty() && self.owed.is_empty() && slots.is_empty() && !self.holds {
            return Ok(());
        }
        let slots: Vec<Write> = slots.into_iter().map(|(id, left)| Write::Left(id, left)).collect();
        let store = match self.store.take() {
            Some(store) => Ok(store),
            None => Store::open(&self.directory),
        };
        #[cfg(test)]
        let store = trouble(&self.directory).and(store);
        let written = store.and_then(|store| {
            let writes = batch.iter().flat_map(|order| &order.writes);
            let all = self.owed.iter().chain(writes).chain(&slots);
            self.store.insert(store).write(all, &self.boot, clocks::now())
        });
        match written {
            Ok(holds) => {
                self.holds = holds;
                if core::mem::take(&mut self.is_failing) {
                    tracing::info!("grants can be written again");
                }
                self.owed.clear();
                Ok(())
            }
            Err(error) => {
                let why = chain(&error);
                if !core::mem::replace(&mut self.is_failing, true) {
                    tracing::error!(
                        why,
                        "grants can't be written: none is added, and none whose uses are counted is used, until they can"
                    );
                }
                // Of what was to be added nobody knows whether it's there: it isn't to be.
                self.owed.extend(batch.iter().flat_map(|order| &order.writes).filter_map(Write::undone));
                Err(why.into())
            }
        }
    }
}

/// Tests have a disk that hangs while there is a file `hangs` beside it, for a while at the most, and one that takes nothing while there
/// is `fails`.
#[cfg(test)]
fn trouble(directory: &std::path::Path) -> Result<(), super::GrantsError> {
    let since = std::time::Instant::now();
    while directory.join("hangs").exists() && since.elapsed() < 3 * crate::record::WITHIN {
        std::thread::park_timeout(Duration::from_millis(2));
    }
    let path = directory.join("fails");
    let source = io::Error::from(io::ErrorKind::StorageFull);
    if path.exists() { Err(super::GrantsError::Io { path, source }) } else { Ok(()) }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
