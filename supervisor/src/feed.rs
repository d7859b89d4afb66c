//! Feeds a run's standard input through a pipe: what a client streams, or what we read from its descriptor.
//!
//! A feed holds a bounded number of bytes. When it is full, whoever fills it waits: the client's socket isn't read,
//! or its descriptor isn't, and nobody else notices. A tool that closes its input makes the rest vanish quietly,
//! as a pipe would.

use core::cell::{Cell, RefCell};
use core::time::Duration;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use stockade_protocol::Bytes;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::aside::Foreign;
use crate::descriptors::Kind;
use crate::ledger::Entry;
use crate::watched::{watch, watch_shared};

/// Bytes that may wait in one feed, before those of the message that fills it.
const BOUND: usize = 256 * 1024;
/// How long a pipe is left alone that the kernel has no memory for.
const MEMORY_PAUSE: Duration = Duration::from_millis(20);
/// Bytes of one read from a relayed descriptor.
const CHUNK: usize = 64 * 1024;

/// A run's standard input on its way.
#[derive(Debug)]
pub(crate) struct Feed {
    queue: RefCell<VecDeque<Bytes>>,
    queued: Cell<usize>,
    ended: Cell<bool>,
    closed: Cell<bool>,
    taken: Cell<u64>,
    written: Cell<u64>,
    limit: Option<u64>,
    /// What the queue takes.
    entry: Entry,
    changed: Notify,
    room: Notify,
    /// The pipe of one that came to a bad end, until the run has ended: closed, it would look like a good one.
    unfinished: RefCell<Option<Rc<OwnedFd>>>,
}

/// More input than the policy allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OverLimit(pub(crate) u64);

impl Feed {
    /// For at most `limit` bytes.
    pub(crate) fn new(limit: Option<u64>, entry: Entry) -> Rc<Self> {
        let (queue, queued, ended, closed, taken, written, changed, room) = Default::default();
        let unfinished = RefCell::default();
        Rc::new(Self {
            queue,
            queued,
            ended,
            closed,
            taken,
            written,
            limit,
            entry,
            changed,
            room,
            unfinished,
        })
    }

    /// Whether there is memory for so many bytes more.
    pub(crate) fn has_memory_for(&self, bytes: usize) -> bool {
        self.closed.get() || self.ended.get() || self.entry.allows(self.queued.get() + bytes)
    }

    fn set_queued(&self, bytes: usize) {
        self.queued.set(bytes);
        self.entry.set(bytes);
    }

    /// Takes bytes, whether there is room or not: wait for [`Feed::room`] before the next.
    pub(crate) fn push(&self, bytes: Bytes) -> Result<(), OverLimit> {
        if self.closed.get() || self.ended.get() || bytes.is_empty() {
            return Ok(());
        }
        let taken = self.taken.get() + bytes.len() as u64;
        if let Some(limit) = self.limit.filter(|limit| taken > *limit) {
            return Err(OverLimit(limit));
        }
        self.taken.set(taken);
        self.set_queued(self.queued.get() + bytes.len());
        self.queue.borrow_mut().push_back(bytes);
        self.changed.notify_one();
        Ok(())
    }

    /// No more bytes will come.
    pub(crate) fn end(&self) {
        self.ended.set(true);
        self.changed.notify_one();
    }

    /// Nobody will take bytes any more.
    pub(crate) fn close(&self) {
        self.unfinished.take();
        self.closed.set(true);
        self.queue.borrow_mut().clear();
        self.set_queued(0);
        self.changed.notify_one();
        self.room.notify_waiters();
    }

    /// Bytes that reached the pipe.
    pub(crate) fn written(&self) -> u64 {
        self.written.get()
    }

    /// Whether no more bytes will reach the pipe.
    pub(crate) fn is_over(&self) -> bool {
        self.closed.get()
    }

    /// Waits until nobody takes bytes any more.
    async fn closing(&self) {
        while !self.closed.get() {
            self.room.notified().await;
        }
    }

    fn is_full(&self) -> bool {
        self.queued.get() >= BOUND && !self.closed.get()
    }

    /// Waits until there is room for more.
    pub(crate) async fn room(&self) {
        while self.is_full() {
            self.room.notified().await;
        }
    }

    fn took(&self, bytes: usize) {
        self.set_queued(self.queued.get().saturating_sub(bytes));
        self.room.notify_waiters();
    }

    /// Writes what comes to the pipe until the end of input, of the feed or of the reader.
    ///
    /// # Errors
    /// Those of write(2), and of watching the pipe: the reader has less than there was. It sees no end of it before the run's.
    pub(crate) async fn write_to(self: Rc<Self>, pipe: OwnedFd) -> io::Result<()> {
        let pipe = Rc::new(pipe);
        let result = self.write_all(&pipe).await;
        self.close();
        match result {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                self.unfinished.replace(Some(pipe));
                Err(error)
            }
            _ => Ok(()),
        }
    }

    async fn write_all(&self, pipe: &Rc<OwnedFd>) -> io::Result<()> {
        let pipe = watch_shared(pipe, Interest::WRITABLE)?;
        loop {
            let next = self.queue.borrow_mut().pop_front();
            if let Some(bytes) = next {
                self.write_one(&pipe, &bytes).await?;
                self.took(bytes.len());
            } else if self.ended.get() || self.closed.get() {
                return Ok(());
            } else {
                self.changed.notified().await;
            }
        }
    }

    async fn write_one(&self, pipe: &AsyncFd<Rc<OwnedFd>>, bytes: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            if self.closed.get() {
                return Ok(());
            }
            let mut guard = tokio::select! {
                guard = pipe.writable() => guard?,
                () = self.changed.notified() => continue,
            };
            // Would block: the guard has taken the readiness back, so the next turn waits.
            if let Ok(attempt) = guard.try_io(|pipe| Ok(rustix::io::write(pipe, &bytes[done..])?)) {
                let count = match attempt {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                    Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {
                        sleep(MEMORY_PAUSE).await;
                        0
                    }
                    other => other?,
                };
                done += count;
                self.written.set(self.written.get() + count as u64);
            }
        }
        Ok(())
    }
}

/// A client's descriptor that we read for a run.
#[derive(Debug)]
pub(crate) enum Source {
    /// Waited for and read without blocking. A socket is read with `MSG_DONTWAIT`; anything else is a fresh
    /// description of ours, since `O_NONBLOCK` on the client's would change it for everybody who shares it.
    Polled { descriptor: OwnedFd, socket: bool, passed: Foreign },
    /// A file, always "ready", and whatever is on a filesystem that may never answer: read aside.
    Aside(Foreign),
}

impl Source {
    /// Prepares a descriptor for reading.
    ///
    /// # Errors
    /// Those of open(2) on `/proc/self/fd`; `EBADF` for what isn't open for reading.
    pub(crate) fn new(passed: Foreign, kind: Kind) -> io::Result<Self> {
        let descriptor = passed.get()?;
        // Opened anew by us, it would be readable even where the client's own isn't.
        if rustix::fs::fcntl_getfl(descriptor)? & OFlags::RWMODE == OFlags::WRONLY {
            return Err(Errno::BADF.into());
        }
        match kind {
            Kind::Socket => {
                // The watched one is closed here, and by being a second one does nothing more.
                let descriptor = descriptor.try_clone()?;
                Ok(Self::Polled { descriptor, socket: true, passed })
            }
            Kind::Pipe | Kind::Terminal if passed.is_local()? => {
                let path = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
                match rustix::fs::open(path, flags, Mode::empty()) {
                    Ok(descriptor) => Ok(Self::Polled { descriptor, socket: false, passed }),
                    // A pipe is its maker's, and so we are its reader only by the descriptor that we were given.
                    Err(Errno::ACCESS) => Ok(Self::Aside(passed)),
                    Err(errno) => Err(errno.into()),
                }
            }
            // To open a FIFO anew is to ask its filesystem.
            _ => Ok(Self::Aside(passed)),
        }
    }
}

/// Reads a source into a feed until its end, the feed's, or the policy's limit. `over` is called at the limit.
pub(crate) async fn relay(source: Source, feed: Rc<Feed>, over: impl FnOnce(OverLimit)) {
    let mut over = Some(over);
    let mut take = |bytes: Vec<u8>| match feed.push(bytes.into()) {
        Ok(()) => !feed.closed.get(),
        Err(limit) => {
            if let Some(over) = over.take() {
                over(limit);
            }
            false
        }
    };
    let result = match source {
        Source::Polled { descriptor, socket, passed: _held } => {
            poll_all(descriptor, socket, &feed, &mut take).await
        }
        Source::Aside(passed) => read_aside(&passed, &feed, &mut take).await,
    };
    if let Err(error) = result {
        tracing::warn!(%error, "the client's standard input could not be read");
    }
    feed.end();
}

async fn poll_all(
    descriptor: OwnedFd,
    socket: bool,
    feed: &Feed,
    take: &mut impl FnMut(Vec<u8>) -> bool,
) -> io::Result<()> {
    let descriptor = watch(descriptor, Interest::READABLE)?;
    loop {
        feed.room().await;
        let mut guard = tokio::select! {
            guard = descriptor.readable() => guard?,
            () = feed.closing() => return Ok(()),
        };
        let attempt = guard.try_io(|descriptor| {
            let mut chunk = vec![0; CHUNK];
            let count = if socket {
                rustix::net::recv(descriptor, chunk.as_mut_slice(), RecvFlags::DONTWAIT)?.0
            } else {
                rustix::io::read(descriptor, chunk.as_mut_slice())?
            };
            chunk.truncate(count);
            Ok(chunk)
        });
        match attempt {
            Err(_would_block) => {}
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            // A terminal whose other end has gone.
            Ok(Err(error)) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Ok(Ok(chunk)) if chunk.is_empty() => return Ok(()),
            Ok(Ok(chunk)) => {
                if !take(chunk) {
                    return Ok(());
                }
            }
        }
    }
}

/// A read that never ends holds one of its owner's threads, and nothing here.
async fn read_aside(passed: &Foreign, feed: &Feed, take: &mut impl FnMut(Vec<u8>) -> bool) -> io::Result<()> {
    loop {
        feed.room().await;
        let read = passed.with(|descriptor| {
            let mut chunk = vec![0; CHUNK];
            let count = rustix::io::retry_on_intr(|| rustix::io::read(descriptor, chunk.as_mut_slice()))?;
            chunk.truncate(count);
            Ok(chunk)
        });
        let chunk = tokio::select! {
            read = read => read?,
            () = feed.closing() => return Ok(()),
        };
        if chunk.is_empty() || !take(chunk) {
            return Ok(());
        }
    }
}
