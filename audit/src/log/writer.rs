//! The writer's thread: one write and one `fdatasync` for all that wait, heads, the change of segments, and what is done when
//! the disk refuses.

use std::io::Write as _;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use super::copier::Slot;
use super::{Kept, Shared, Told, Unavailable, Waiting, Written};
use crate::error::AuditError;
use crate::event::{Event, nanoseconds};
use crate::files::{Directory, HEAD, Lock};
use crate::flood::Floods;
use crate::keys::Keys;
use crate::retention;
use crate::segment::{Start, Writing};
use crate::survey::{Survey, survey};

/// How often is tried whether what couldn't be written can be.
const AGAIN: Duration = Duration::from_secs(1);
/// How often is looked for what has been kept long enough.
const RETENTION: Duration = Duration::from_secs(6 * 3600);
/// The longest sleep.
const LONGEST: Duration = Duration::from_secs(3600);

/// What the thread owns.
pub(super) struct Writer {
    directory: Directory,
    keys: Arc<Keys>,
    kept: Kept,
    shared: Arc<Shared>,
    copies: Arc<Slot>,
    floods: Floods,
    /// `None`: nothing can be written.
    writing: Option<Writing>,
    /// Bytes of the segments before it.
    before: u64,
    /// The last record that a head was signed for.
    signed: u64,
    /// When the next head may be signed.
    sign_at: Instant,
    /// When to try again.
    again_at: Instant,
    /// When to look for what has been kept long enough.
    erase_at: Instant,
    /// Who does that.
    erasing: Option<JoinHandle<Vec<Event>>>,
    /// Since when nothing could be written, and how much was refused meanwhile.
    refusing: Option<(SystemTime, u64)>,
    _lock: Lock,
}

impl Writer {
    pub(super) fn new(
        directory: Directory,
        (keys, shared): (Arc<Keys>, Arc<Shared>),
        lock: Lock,
        kept: Kept,
        copies: Arc<Slot>,
    ) -> Self {
        let (floods, now) = (Floods::new(kept.flood, kept.operations), Instant::now());
        Self {
            directory,
            keys,
            kept,
            shared,
            copies,
            floods,
            writing: None,
            before: 0,
            signed: 0,
            sign_at: now,
            again_at: now,
            erase_at: now,
            erasing: None,
            refusing: None,
            _lock: lock,
        }
    }

    /// Begins a segment behind what was found, and says there what that was.
    pub(super) fn begin(&mut self, survey: Survey) -> Result<(), AuditError> {
        let Survey { start, macs, mut notes } = survey;
        notes.push(Event::operation("audit-opened", format!("segment {} was begun", start.number)));
        if let Some((since, refused)) = self.refusing {
            let seconds = since.elapsed().unwrap_or_default().as_secs();
            let text = format!("nothing could be written for {seconds} s; {refused} events were refused");
            notes.push(Event::security("audit-unavailable", text));
        }
        let writing = Writing::begin(&self.directory, &self.keys, &macs, &start, &notes)?;
        self.shared.state().durable = writing.line.next - 1;
        self.writing = Some(writing);
        self.refusing = None;
        self.measure();
        Ok(())
    }

    /// Looks how large the segments are, after others have come or gone.
    fn measure(&mut self) {
        if let Some(writing) = &self.writing {
            self.before = self.directory.bytes_beside(writing.number);
            self.shared.state().bytes = self.before + writing.bytes;
        }
    }

    /// The thread.
    pub(super) fn run(mut self) {
        loop {
            let (waiting, closed) = self.shared.take(self.deadline());
            if self.writing.is_none() && Instant::now() >= self.again_at {
                self.try_again();
            }
            self.write(waiting);
            let told = self.floods.over(Instant::now(), closed);
            if self.writing.is_some() && !told.is_empty() {
                let _ = self.write_own(told);
            }
            if closed {
                return self.end();
            }
            self.sign(false);
            self.change_segments();
            self.erase();
        }
    }

    /// When there is something to do, were nothing handed over.
    fn deadline(&self) -> Instant {
        let now = Instant::now();
        let mut deadline = (now + LONGEST).min(self.erase_at.max(now));
        match &self.writing {
            None => deadline = deadline.min(self.again_at),
            Some(writing) => {
                if writing.line.next - 1 > self.signed {
                    deadline = deadline.min(self.sign_at);
                }
                let age = Duration::from_nanos(nanoseconds(SystemTime::now()).saturating_sub(writing.time));
                deadline = deadline.min(now + self.kept.segment_age.saturating_sub(age));
            }
        }
        if self.erasing.is_some() {
            deadline = deadline.min(now + AGAIN);
        }
        if self.floods.is_quiet() { deadline } else { deadline.min(now + self.kept.flood.window) }
    }

    /// Writes all that waits, and tells each.
    fn write(&mut self, waiting: Vec<Waiting>) {
        let mut waiting = waiting.into_iter();
        while waiting.len() > 0 {
            let Some(writing) = &mut self.writing else {
                let why = self.shared.state().unavailable.clone().unwrap_or(Unavailable::Closed);
                let told: Vec<Told> = waiting.map(|one| one.told).collect();
                return self.refuse(told, &why);
            };
            // A segment has room for a batch or is changed before the next one: no batch is larger than the queue's bound.
            let (mut bytes, mut told, mut counted) = (Vec::new(), Vec::new(), Vec::new());
            let mut failed = None;
            let now = Instant::now();
            for mut one in waiting.by_ref() {
                if !self.floods.lets_through(&mut one.event, one.time, now) {
                    counted.push(one.told);
                    continue;
                }
                match writing.line.event(one.event.class(), one.time, one.event.encode(), &mut bytes) {
                    Ok(number) => told.push((number, one.told)),
                    Err(error) => {
                        failed = Some(error.to_string());
                        told.push((0, one.told));
                        break;
                    }
                }
                if writing.bytes + bytes.len() as u64 >= self.kept.segment_bytes {
                    break;
                }
            }
            let done = failed.map_or_else(|| self.put(&bytes), Err);
            counted.into_iter().for_each(|told| told(Ok(Written::Counted)));
            match done {
                Ok(()) => told.into_iter().for_each(|(number, told)| told(Ok(Written::Durable(number)))),
                Err(why) => {
                    let told = told.into_iter().map(|(_, told)| told).collect();
                    self.refuse(told, &Unavailable::Failed(why));
                }
            }
            self.change_segments();
        }
    }

    /// Makes bytes durable; if that fails, nothing more is written to this segment: what of it is on the disk nobody knows.
    fn put(&mut self, bytes: &[u8]) -> Result<(), String> {
        let Some(writing) = &mut self.writing else { return Err("no segment".to_owned()) };
        if bytes.is_empty() {
            return Ok(());
        }
        match writing.file.write_all(bytes).and_then(|()| writing.file.sync_data()) {
            Ok(()) => {
                writing.bytes += bytes.len() as u64;
                let mut state = self.shared.state();
                (state.durable, state.syncs) = (writing.line.next - 1, state.syncs + 1);
                state.bytes = self.before + writing.bytes;
                Ok(())
            }
            Err(error) => {
                let why = error.to_string();
                self.fail(&why);
                Err(why)
            }
        }
    }

    /// Writes events of our own.
    fn write_own(&mut self, events: Vec<Event>) -> Result<(), String> {
        let Some(writing) = &mut self.writing else { return Err("no segment".to_owned()) };
        let (mut bytes, time) = (Vec::new(), nanoseconds(SystemTime::now()));
        for event in events {
            let put = writing.line.event(event.class(), time, event.encode(), &mut bytes);
            put.map_err(|error| error.to_string())?;
        }
        self.put(&bytes)
    }

    fn refuse(&mut self, told: Vec<Told>, why: &Unavailable) {
        let many = told.len() as u64;
        self.shared.state().refused += many;
        if let Some((_, refused)) = &mut self.refusing {
            *refused += many;
        }
        told.into_iter().for_each(|told| told(Err(why.clone())));
    }

    fn fail(&mut self, why: &str) {
        self.writing = None;
        self.again_at = Instant::now() + AGAIN;
        self.refusing.get_or_insert((SystemTime::now(), 0));
        self.shared.state().unavailable = Some(Unavailable::Failed(why.to_owned()));
    }

    /// Goes on in a new segment, behind whatever the failed one has.
    fn try_again(&mut self) {
        let begun = survey(&self.directory, &self.keys, self.kept.days).and_then(|survey| self.begin(survey));
        match begun {
            Ok(()) => self.shared.state().unavailable = None,
            Err(error) => self.fail(&super::chain(&error)),
        }
    }

    /// Signs the head, where it moved and its time has come.
    fn sign(&mut self, at_once: bool) {
        let Some(writing) = &self.writing else { return };
        if writing.line.next - 1 <= self.signed || !(at_once || Instant::now() >= self.sign_at) {
            return;
        }
        let head = writing.head(&self.keys);
        self.signed = head.sequence;
        self.sign_at = Instant::now() + self.kept.head_every;
        // It's beside the segments for whoever verifies them; the next writer finds the records themselves.
        let _ = self.directory.replace(HEAD, format!("{head}\n").as_bytes(), false);
        self.shared.state().head = Some(head);
        self.copies.put(head);
    }

    /// Ends a segment that is full or old, and begins the next one.
    fn change_segments(&mut self) {
        let Some(writing) = &self.writing else { return };
        let age = Duration::from_nanos(nanoseconds(SystemTime::now()).saturating_sub(writing.time));
        if writing.bytes < self.kept.segment_bytes && age < self.kept.segment_age {
            return;
        }
        if self.seal().is_err() {
            return;
        }
        let Some(writing) = &self.writing else { return };
        let start = Start {
            number: writing.number + 1,
            first: writing.line.next,
            before: writing.line.link.digest(),
            tail: (0, [0; 32]),
            days: self.kept.days,
            time: nanoseconds(SystemTime::now()),
            newest: writing.line.newest,
        };
        match Writing::begin(&self.directory, &self.keys, &writing.behind, &start, &[]) {
            Ok(next) => {
                self.writing = Some(next);
                self.measure();
            }
            Err(error) => self.fail(&super::chain(&error)),
        }
    }

    fn seal(&mut self) -> Result<(), String> {
        let Some(writing) = &mut self.writing else { return Err("no segment".to_owned()) };
        let (head, mut bytes) = (writing.head(&self.keys), Vec::new());
        writing.line.seal(&head, &mut bytes);
        self.put(&bytes)?;
        self.sign(true);
        Ok(())
    }

    /// Looks for what has been kept long enough, beside: segments are read and written anew, and no run waits for that.
    fn erase(&mut self) {
        if self.erasing.as_ref().is_some_and(JoinHandle::is_finished) {
            self.erased();
        }
        let now = Instant::now();
        let Some(writing) = &self.writing else { return };
        if now < self.erase_at || self.erasing.is_some() {
            return;
        }
        self.erase_at = now + RETENTION;
        let (directory, active, days) = (self.directory.clone(), writing.number, self.kept.days);
        let work = move || match retention::enforce(&directory, active, days, SystemTime::now()) {
            Ok(done) => done.events(),
            Err(error) => vec![Event::security("audit-not-erased", super::chain(&error))],
        };
        // Without a thread now there may be one the next time.
        self.erasing = std::thread::Builder::new().name("audit-retention".to_owned()).spawn(work).ok();
    }

    /// Says what was erased; waits for it where it isn't over.
    fn erased(&mut self) {
        let told = self.erasing.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        if !told.is_empty() {
            let _ = self.write_own(told);
            self.measure();
        }
    }

    fn end(mut self) {
        self.erased();
        if self.seal().is_err() {
            // The next writer says that it's there without an end.
            self.sign(true);
        }
    }
}
