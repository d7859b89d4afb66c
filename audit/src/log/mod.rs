//! The log: one thread that owns the files, and what hands events to it.
//!
//! ```text
//! append ──> queue (bounded) ──> writer: encode all that wait, one write, one fdatasync ──> each is told
//!                                   │ every second, where it moved
//!                                   └──> head: signed, beside the segments ──> copier: a second place, the journal
//! ```
//!
//! The writer's states: it writes; or it can't, and tells so to everybody who asks, and tries once a second whether it can
//! again. What was told to be durable is; what wasn't may be.

mod copier;
mod writer;

use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crate::error::AuditError;
use crate::event::{Event, What, nanoseconds};
use crate::files::{Directory, KEYS};
use crate::flood::Flood;
use crate::head::Head;
use crate::keys::{Keys, MasterKey};
use crate::survey::survey;
use copier::Copier;
use writer::Writer;

/// Bytes of all texts that wait.
const QUEUE_BYTES: usize = 16 * 1024 * 1024;
/// The largest segment that can be asked for, in bytes.
const LARGEST_SEGMENT: u64 = 256 * 1024 * 1024;

/// What is told of each head.
pub type OnHead = Box<dyn FnMut(&Head) + Send>;
/// What is told when an event is durable, or can't be made so. Called by the log's thread, or by [`Log::append`] itself where
/// the log can't take the event: it must neither wait nor take a lock that is held over a call of `append`.
pub type Told = Box<dyn FnOnce(Result<Written, Unavailable>) + Send>;

/// How a log is kept.
pub struct Settings {
    /// Where: a directory of ours alone, made where there is none.
    pub directory: PathBuf,
    /// What its keys are wrapped with.
    pub master: MasterKey,
    /// A new log writes the first secret of its MACs there, and doesn't keep it: whoever moves that file away can check
    /// records that nobody here can make again. `None`: it's kept, wrapped.
    pub verification: Option<PathBuf>,
    /// A segment is ended at so many bytes, 4 KiB to 256 MiB.
    pub segment_bytes: u64,
    /// And after so long.
    pub segment_age: Duration,
    /// The most events that wait. Half as many, where they're neither intents nor outcomes: refusals may come as fast as a
    /// caller asks, and must not keep runs out. An outcome always finds room: there are no more than intents were let in.
    pub queue: usize,
    /// Days that each class is kept: security, access, operation.
    pub days: [u16; 3],
    /// Of events of operation one in so many is written.
    pub operations: u32,
    /// Like events of which only the first are written.
    pub flood: Flood,
    /// How often a head that moved is signed and copied.
    pub head_every: Duration,
    /// A file at a second place, to which each head is added as a line.
    pub copy: Option<PathBuf>,
    /// Told each head: for a journal. Called by a thread of its own, which it may hold up.
    pub on_head: Option<OnHead>,
}

impl core::fmt::Debug for Settings {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Settings").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Settings {
    /// The usual ones.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>, master: MasterKey) -> Self {
        Self {
            directory: directory.into(),
            master,
            verification: None,
            segment_bytes: 64 * 1024 * 1024,
            segment_age: Duration::from_secs(24 * 3600),
            queue: 4096,
            days: [366, 184, 92],
            operations: 1,
            flood: Flood::default(),
            head_every: Duration::from_secs(1),
            copy: None,
            on_head: None,
        }
    }
}

/// What of the settings is needed as long as the log is open.
struct Kept {
    segment_bytes: u64,
    segment_age: Duration,
    days: [u16; 3],
    operations: u32,
    flood: Flood,
    head_every: Duration,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It's durable, under this number.
    Durable(u64),
    /// It's one of a flood, or not of the sample, and was counted. Never so with an intent or an outcome.
    Counted,
}

/// Nothing can be written down now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// More waits than may.
    #[error("the record has a full queue")]
    Full,
    /// The files can't be written.
    #[error("the record can't be written: {0}")]
    Failed(String),
    /// The log was closed.
    #[error("the record is closed")]
    Closed,
}

/// How a log does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Why nothing can be written now; `None`: it can.
    pub unavailable: Option<Unavailable>,
    /// The newest head that was signed.
    pub head: Option<Head>,
    /// The newest record that is durable.
    pub durable: u64,
    /// Bytes of all segments.
    pub bytes: u64,
    /// How often something was made durable: `durable` by it is what one `fdatasync` is shared by.
    pub syncs: u64,
    /// Why the newest head isn't at the second place, if it isn't.
    pub copy: Option<String>,
    /// Events that were told to be unavailable, since the log was opened.
    pub refused: u64,
}

/// An event that waits.
struct Waiting {
    event: Event,
    time: u64,
    told: Told,
}

struct Queue {
    waiting: Vec<Waiting>,
    bytes: usize,
    closed: bool,
}

/// What the writer and those who hand events to it share.
pub(crate) struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    state: Mutex<State>,
    most: usize,
}

/// A lock whose holder never panics while it's held: what is behind it is whole in any case.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// All that waits; waits itself until there is something, or `deadline`. `true`: the log is closed.
    fn take(&self, deadline: Instant) -> (Vec<Waiting>, bool) {
        let mut queue = lock(&self.queue);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if !queue.waiting.is_empty() || queue.closed || left.is_zero() {
                queue.bytes = 0;
                return (core::mem::take(&mut queue.waiting), queue.closed);
            }
            queue = self.wake.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// An open log. Dropping it ends its segment, once all that waits is written.
pub struct Log {
    shared: Arc<Shared>,
    directory: PathBuf,
    keys: Arc<Keys>,
    thread: Option<JoinHandle<()>>,
    copier: Option<Copier>,
}

impl core::fmt::Debug for Log {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Log").field("state", &*self.shared.state()).finish_non_exhaustive()
    }
}

impl Log {
    /// Opens a log, or begins one: takes the directory's lock, looks at what an earlier writer has left, and begins a segment.
    ///
    /// # Errors
    /// [`AuditError`]: another writer has it, the key is another one's, or the disk refuses.
    pub fn open(mut settings: Settings) -> Result<Self, AuditError> {
        let directory = Directory::prepare(&settings.directory)?;
        let lock = directory.lock()?;
        let mut keys = match directory.read(KEYS)? {
            Some(_) => Keys::read(directory.path(), &settings.master, None)?,
            None => create(&directory, &settings)?,
        };
        let survey = survey(&directory, &keys, settings.days)?;
        let state = State {
            unavailable: None,
            head: None,
            durable: survey.start.first - 1,
            bytes: 0,
            syncs: 0,
            copy: None,
            refused: 0,
        };
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue { waiting: Vec::new(), bytes: 0, closed: false }),
            wake: Condvar::new(),
            state: Mutex::new(state),
            most: settings.queue.max(1),
        });
        let copier = Copier::start(settings.copy.take(), settings.on_head.take(), &shared)?;
        let kept = Kept {
            segment_bytes: settings.segment_bytes.clamp(4096, LARGEST_SEGMENT),
            segment_age: settings.segment_age,
            days: settings.days,
            operations: settings.operations,
            flood: settings.flood,
            head_every: settings.head_every,
        };
        // Neither the master key nor the first secret of the MACs is needed from here on.
        keys.root = None;
        drop(settings);
        let (path, keys) = (directory.path().to_owned(), Arc::new(keys));
        let shares = (Arc::clone(&keys), Arc::clone(&shared));
        let mut writer = Writer::new(directory, shares, lock, kept, copier.slot());
        writer.begin(survey)?;
        let thread = std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || writer.run())
            .map_err(|source| AuditError::System { doing: "start a thread", source })?;
        Ok(Self { shared, directory: path, keys, thread: Some(thread), copier: Some(copier) })
    }

    /// Hands an event over; `told` is called once it's durable, or can't be, by the log's thread, or right here where the
    /// log can't take it.
    pub fn append(&self, event: Event, told: Told) {
        let time = nanoseconds(SystemTime::now());
        // An estimate will do for a bound; it's measured where the event has a text of the caller's.
        let bytes = 512
            + event
                .request()
                .and_then(|request| request.given.as_ref())
                .map_or(0, |given| given.text.iter().map(String::len).sum::<usize>());
        let (most, most_bytes) = match &event.what {
            What::Outcome(_) => (usize::MAX, usize::MAX),
            What::Intent(_) => (self.shared.most, QUEUE_BYTES),
            _ => (self.shared.most.div_ceil(2), QUEUE_BYTES / 2),
        };
        let refused = {
            let mut queue = lock(&self.shared.queue);
            if queue.closed {
                Some((told, Unavailable::Closed))
            } else if queue.waiting.len() >= most || queue.bytes + bytes > most_bytes {
                Some((told, Unavailable::Full))
            } else {
                queue.bytes += bytes;
                queue.waiting.push(Waiting { event, time, told });
                None
            }
        };
        match refused {
            None => self.shared.wake.notify_one(),
            Some((told, why)) => {
                self.shared.state().refused += 1;
                told(Err(why));
            }
        }
    }

    /// As [`Self::append`], and waits for it.
    ///
    /// # Errors
    /// It isn't durable.
    pub fn append_and_wait(&self, event: Event) -> Result<Written, Unavailable> {
        let (tell, told): (SyncSender<_>, _) = sync_channel(1);
        self.append(
            event,
            Box::new(move |result| {
                let _ = tell.try_send(result);
            }),
        );
        told.recv().unwrap_or(Err(Unavailable::Closed))
    }

    /// How it does now. Asked before a run is let through.
    #[must_use]
    pub fn state(&self) -> State {
        self.shared.state().clone()
    }

    /// The newest record that is durable.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.shared.state().durable
    }

    /// Where it is, and the keys that it was opened with, for who reads in it: whatever its master key is meanwhile, they open all that
    /// it has written and all before.
    #[must_use]
    pub fn for_reading(&self) -> (PathBuf, Arc<Keys>) {
        (self.directory.clone(), Arc::clone(&self.keys))
    }

    /// Ends it: all that waits is written, the segment is sealed, the head copied.
    pub fn close(mut self) {
        self.end();
    }

    fn end(&mut self) {
        lock(&self.shared.queue).closed = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.copier = None;
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.end();
    }
}

fn create(directory: &Directory, settings: &Settings) -> Result<Keys, AuditError> {
    if let Some(number) = directory.segments()?.first() {
        let path = directory.join(KEYS);
        return Err(AuditError::damaged(&path, format!("it's gone, and segment {number} is there")));
    }
    Keys::create(directory, &settings.master, settings.verification.as_deref())
}

/// An error and what caused it, in one line.
fn chain(error: &AuditError) -> String {
    use core::error::Error as _;
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
