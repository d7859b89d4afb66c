//! The thread that has the file: writes what it's handed, and answers.
//!
//! ```text
//!              ┌──────────── what can't be written waits here, is added to what comes, and is tried again
//! Tally ──> pending ──> Store
//!              └───────────┴──> answers: what is written and what isn't
//! ```
//!
//! It sleeps until somebody has something for it; by itself it wakes only while something can't be written. Whoever hands over waits
//! for nothing: one tally may be on its way, the next is kept back until the thread has taken it ([`Writer::is_busy`]), and so many
//! questions ([`MOST_QUESTIONS`]).

use std::collections::BTreeSet;
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::report::{Question, Report, Sum};
use crate::store::{Settings, Store, StoreError, set_aside};
use crate::tally::{RunId, Tally};

/// Questions that may wait to be answered.
pub const MOST_QUESTIONS: usize = 16;
/// How often what couldn't be written is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// What there is to be logged.
#[derive(Debug)]
pub enum Said {
    /// The file was damaged; it's there now, and another one was begun.
    SetAside {
        /// Where it is.
        path: PathBuf,
        /// What was wrong.
        why: String,
    },
    /// It can't be written for now, or at all. Said once, until it can be written again.
    Unwritten {
        /// Why.
        why: String,
    },
    /// It can be written again.
    Written,
    /// The oldest rows were dropped: the file is as large as it may be.
    Dropped,
}

/// Who logs it: called on the thread.
pub type Tell = Box<dyn Fn(Said) + Send>;

/// Who gets an answer: called on the thread.
type Answer = Box<dyn FnOnce(Report) + Send>;

enum Order {
    Write(Box<Tally>),
    Ask(Question, Answer),
}

/// The thread's other end. Dropped, the thread writes what it has and ends; [`Writer::close`] waits for that.
#[derive(Debug)]
pub struct Writer {
    orders: Sender<Order>,
    is_busy: Arc<AtomicBool>,
    questions: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

/// A writer, and the runs that an earlier one has counted and that may be told of again; none: the file can't be read yet, and nobody
/// knows.
pub type Opened = (Writer, Option<BTreeSet<RunId>>);

/// Opens the file, and starts the thread. A file that can't be used is no error: what is counted then waits in memory.
///
/// # Errors
/// There can be no thread.
pub fn open(settings: Settings, tell: Tell) -> io::Result<Opened> {
    let mut desk =
        Desk { settings, tell, store: None, pending: Tally::default(), unwritten: None, is_refused: false };
    let counted = desk.counted();
    let (orders, received) = channel();
    let (is_busy, questions) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let told = (Arc::clone(&is_busy), Arc::clone(&questions));
    let thread = Builder::new().name("statistics".to_owned()).spawn(move || desk.serve(&received, &told))?;
    Ok((Writer { orders, is_busy, questions, thread }, counted))
}

impl Writer {
    /// Whether the tally that was handed over last isn't taken yet: keep the next one back.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.is_busy.load(Ordering::Acquire)
    }

    /// Whether one more question may wait.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.questions.load(Ordering::Acquire) < MOST_QUESTIONS
    }

    /// Has this written.
    pub fn write(&self, tally: Tally) {
        self.is_busy.store(true, Ordering::Release);
        // A thread that is gone has died of a bug; the daemon goes on.
        let _ = self.orders.send(Order::Write(Box::new(tally)));
    }

    /// Has a question answered, with all that was handed over before; whether it will be: too many may wait.
    pub fn ask(&self, question: Question, answer: impl FnOnce(Report) + Send + 'static) -> bool {
        if !self.has_room() {
            return false;
        }
        self.questions.fetch_add(1, Ordering::AcqRel);
        self.orders.send(Order::Ask(question, Box::new(answer))).is_ok()
    }

    /// Ends it, once everything is written that can be.
    pub fn close(self) {
        drop(self.orders);
        let _ended = self.thread.join();
    }
}

/// What the thread has.
struct Desk {
    settings: Settings,
    tell: Tell,
    store: Option<Store>,
    pending: Tally,
    /// Why the last write failed, if it did.
    unwritten: Option<String>,
    /// Whether there is no use in trying again: a newer stockade's file.
    is_refused: bool,
}

impl Desk {
    fn serve(mut self, orders: &Receiver<Order>, (is_busy, questions): &(Arc<AtomicBool>, Arc<AtomicUsize>)) {
        loop {
            let waits = !self.pending.is_empty() && !self.is_refused;
            let order = if waits { orders.recv_timeout(AGAIN) } else { orders.recv().map_err(Into::into) };
            match order {
                Ok(Order::Write(tally)) => {
                    self.pending.merge(&tally);
                    is_busy.store(false, Ordering::Release);
                    self.write();
                }
                Ok(Order::Ask(question, answer)) => {
                    answer(self.answer(&question));
                    questions.fetch_sub(1, Ordering::AcqRel);
                }
                Err(RecvTimeoutError::Timeout) => self.write(),
                Err(RecvTimeoutError::Disconnected) => return self.write(),
            }
        }
    }

    /// The runs that the file has as counted; those of a damaged one went with what was counted of them.
    fn counted(&mut self) -> Option<BTreeSet<RunId>> {
        let mut read = self.opened().and_then(|store| store.counted());
        if let Err(error) = &read
            && error.is_damage()
        {
            read = self.begin_another(error).and_then(|store| self.store.insert(store).counted());
        }
        read.inspect_err(|error| self.went_wrong(error)).ok()
    }

    /// The file, opened if it isn't yet.
    fn opened(&mut self) -> Result<&mut Store, StoreError> {
        let store = match self.store.take() {
            Some(store) => store,
            None => match Store::open(&self.settings) {
                Err(error) if error.is_damage() => self.begin_another(&error)?,
                other => other?,
            },
        };
        Ok(self.store.insert(store))
    }

    fn begin_another(&mut self, error: &StoreError) -> Result<Store, StoreError> {
        // Closed before it's moved: closing writes.
        self.store = None;
        let path = set_aside(self.settings.directory())?;
        (self.tell)(Said::SetAside { path, why: chain(error) });
        Store::open(&self.settings)
    }

    /// Writes what waits. What can't be written stays.
    fn write(&mut self) {
        if self.is_refused {
            return;
        }
        match self.mending(Self::try_to_write) {
            Ok(()) => {
                self.pending = Tally::default();
                if self.unwritten.take().is_some() {
                    (self.tell)(Said::Written);
                }
                self.tend();
            }
            Err(error) => self.went_wrong(&error),
        }
    }

    /// Does something with the file, and once more where what is wrong can be mended: it's damaged, or as large as it may be.
    fn mending(&mut self, act: impl Fn(&mut Self) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let Err(error) = act(self) else { return Ok(()) };
        if error.is_damage() {
            self.store = Some(self.begin_another(&error)?);
        } else if error.is_full() && self.opened().and_then(Store::make_room).is_ok_and(|dropped| dropped) {
            (self.tell)(Said::Dropped);
        } else {
            return Err(error);
        }
        act(self)
    }

    fn try_to_write(&mut self) -> Result<(), StoreError> {
        let pending = core::mem::take(&mut self.pending);
        let written = self.opened().and_then(|store| store.write(&pending));
        self.pending = pending;
        written
    }

    /// What is too old. All is written before, so that nothing is lost if this fails: the next write tries again.
    fn tend(&mut self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let tended = self.mending(|desk| desk.store.as_mut().map_or(Ok(()), |store| store.tend(now)));
        if let Err(error) = tended
            && !self.pending.is_empty()
        {
            self.went_wrong(&error);
        }
    }

    /// A file that couldn't be opened before is tried again.
    fn reopen(&mut self) {
        if !self.pending.is_empty() {
            return self.write();
        }
        match self.opened().map(drop) {
            Ok(()) if self.unwritten.take().is_some() => (self.tell)(Said::Written),
            Ok(()) => {}
            Err(error) => self.went_wrong(&error),
        }
    }

    fn answer(&mut self, question: &Question) -> Report {
        if self.store.is_none() && !self.is_refused {
            self.reopen();
        }
        let mut unread = None;
        let mut sum = match self.store.as_ref().map(|store| store.sum(question)) {
            None => Sum::default(),
            Some(Ok(sum)) => sum,
            Some(Err(error)) => {
                // Of a damaged one other rows may be whole, and nobody could tell.
                let begun = if error.is_damage() { self.begin_another(&error) } else { Err(error) };
                match begun {
                    Ok(store) => self.store = Some(store),
                    Err(error) => unread = Some(chain(&error)),
                }
                Sum::default()
            }
        };
        sum.add_tally(&self.pending, question);
        Report { unwritten: self.unwritten.clone().or(unread), ..sum.report() }
    }

    /// Says so, once.
    fn went_wrong(&mut self, error: &StoreError) {
        self.is_refused |= matches!(error, StoreError::Newer { .. });
        let why = chain(error);
        if self.unwritten.replace(why.clone()).is_none() {
            (self.tell)(Said::Unwritten { why });
        }
    }
}

/// An error and its sources, in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
