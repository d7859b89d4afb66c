//! One run in the relay: its two pipes, its ring, its output limit and its idle clock. Knows no socket.
//!
//! ```text
//!             room again                     over the limit, forgotten, or the ring failed
//!   Stalled <────────────> Keeping ───────────────────────────────────────> Discarding
//!             ring full                                                         │
//!                              both pipes ended: Drained <──────────────────────┘
//! ```
//!
//! While `Stalled` nobody reads the pipes, so the tool blocks once they are full; its idle clock stands still.
//! While `Discarding` everything is read and dropped, so that nothing of the run ever blocks on output again.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use stockade_protocol::ExecId;
use stockade_protocol::bounds::{MARKED_RECORD, MAX_OUTPUT_CHUNK};
use stockade_protocol::client::Stream;
use stockade_protocol::ring::HEADER;

use super::quiet::{Quiet, STREAMS};
use crate::ring::{RecordBuffer, RingWriter};

/// Bytes one pipe may bring before the others have their turn.
pub const TURN_BYTES: usize = 256 * 1024;
/// A record's payload may be cut to fit the room that is left, but not below this many bytes.
pub const MIN_PAYLOAD: usize = 512;

/// Bytes of a pipe that was found full once: the tool writes on while it's read, and both are woken a quarter as
/// often. Below it, whoever doesn't write much takes no more of what the kernel lets one user's pipes have
/// (`fs.pipe-user-pages-soft`).
pub const GROWN_PIPE: usize = 256 * 1024;

/// From so many waiting bytes on, those of a grown pipe are read straight into the ring: fewer are copied sooner than the
/// kernel is asked three times.
const IN_BULK: usize = 16 * 1024;

/// What one turn of a pipe brought.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// The pipe has ended and is closed.
    pub ended: bool,
    /// The ring is full: neither pipe may be polled until [`Run::acknowledge`] says otherwise.
    pub stalled: bool,
    /// The ring has new records.
    pub wrote: bool,
    /// This turn passed the output limit.
    pub exceeded: bool,
    /// The ring can't be written, with this errno.
    pub failed: Option<i32>,
}

/// Time since the last output, while it runs.
#[derive(Debug)]
struct IdleClock {
    limit: Duration,
    /// What had passed when it was last stopped.
    spent: Duration,
    /// Since when it runs again; `None`: it stands.
    since: Option<Instant>,
    told: bool,
}

impl IdleClock {
    fn reset(&mut self, now: Instant) {
        self.spent = Duration::ZERO;
        self.since = Some(now);
    }

    fn stop(&mut self, now: Instant) {
        if let Some(since) = self.since.take() {
            self.spent += now.saturating_duration_since(since);
        }
    }

    fn go_on(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    fn deadline(&self) -> Option<Instant> {
        if self.told { None } else { Some(self.since? + self.limit.saturating_sub(self.spent)) }
    }
}

/// One run.
#[derive(Debug)]
pub struct Run {
    /// Its name.
    pub exec_id: ExecId,
    pipes: [Option<OwnedFd>; 2],
    /// Which of them were found full, and grown if the kernel permits it.
    grown: [bool; 2],
    ring: Option<RingWriter>,
    /// Bytes within the limit so far: in the ring, or dropped after [`Run::forget`].
    bytes: u64,
    limit: Option<u64>,
    idle: Option<IdleClock>,
    /// Where silence is marked.
    quiet: Option<Quiet>,
    stalled: bool,
    discarding: bool,
}

/// The index of a stream's pipe.
#[must_use]
pub fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

impl Run {
    /// A run that was just added. The pipes' read ends become non-blocking.
    ///
    /// # Errors
    /// Those of fcntl(2).
    pub fn new(
        exec_id: ExecId,
        pipes: [OwnedFd; 2],
        ring: RingWriter,
        limit: Option<u64>,
        idle: Option<Duration>,
        now: Instant,
    ) -> io::Result<Self> {
        for pipe in &pipes {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        let idle =
            idle.map(|limit| IdleClock { limit, spent: Duration::ZERO, since: Some(now), told: false });
        let pipes = pipes.map(Some);
        let ring = Some(ring);
        let (grown, bytes, stalled, discarding) = ([false; 2], 0, false, false);
        let quiet = None;
        Ok(Self { exec_id, pipes, grown, ring, bytes, limit, idle, quiet, stalled, discarding })
    }

    /// The same, with short records and marks of silence.
    #[must_use]
    pub fn marked(mut self) -> Self {
        self.quiet = Some(Quiet::default());
        self
    }

    /// When a stream may have been silent for long enough; `None`: there is nothing to be marked.
    #[must_use]
    pub fn silent_at(&self) -> Option<Instant> {
        // Behind the end of both there is nothing that anybody would wait for.
        self.quiet.as_ref().filter(|_| !self.is_drained()).and_then(Quiet::deadline)
    }

    /// Marks the silence of streams that is due. Whether the ring has new records.
    pub fn mark_silence(&mut self, buffer: &mut RecordBuffer, now: Instant) -> bool {
        let mut wrote = false;
        for stream in STREAMS {
            let has_more = self.has_more(stream);
            let Some(quiet) = self.quiet.as_mut().filter(|quiet| quiet.is_due(stream, now)) else { continue };
            if has_more {
                quiet.spoke(stream, now);
                continue;
            }
            match self.ring.as_mut().filter(|_| !self.discarding).map(|ring| ring.append(stream, buffer, 0)) {
                Some(Err(error)) if error.kind() == io::ErrorKind::StorageFull => {
                    quiet.wait();
                    continue;
                }
                // Where the ring can't be written, the next output tells.
                Some(Err(_)) | None => {}
                Some(Ok(())) => wrote = true,
            }
            quiet.settle(stream);
        }
        wrote
    }

    /// Whether a stream has said something that isn't read yet, as far as the kernel tells.
    fn has_more(&self, stream: Stream) -> bool {
        let pipe = self.pipes[index(stream)].as_ref();
        pipe.is_some_and(|pipe| rustix::io::ioctl_fionread(pipe).map_or(true, |bytes| bytes > 0))
    }

    /// The most bytes of one record.
    fn longest(&self) -> usize {
        if self.quiet.is_some() { MARKED_RECORD } else { MAX_OUTPUT_CHUNK }
    }

    /// A stream's pipe, until it has ended.
    #[must_use]
    pub fn pipe(&self, stream: Stream) -> Option<BorrowedFd<'_>> {
        self.pipes[index(stream)].as_ref().map(AsFd::as_fd)
    }

    /// Whether both pipes have ended.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.pipes.iter().all(Option::is_none)
    }

    /// Whether the ring is full.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// The ring, unless it's forgotten.
    #[must_use]
    pub fn ring(&self) -> Option<&RingWriter> {
        self.ring.as_ref()
    }

    /// Bytes of output within the limit so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The output limit, or `u64::MAX`.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit.unwrap_or(u64::MAX)
    }

    /// Takes what a pipe has, at most [`TURN_BYTES`].
    pub fn turn(&mut self, stream: Stream, buffer: &mut RecordBuffer, now: Instant) -> Turn {
        let mut turn = Turn::default();
        let mut budget = TURN_BYTES;
        while budget > 0 && !turn.ended {
            let want = self.want();
            if want == 0 {
                self.stall(now);
                turn.stalled = true;
                break;
            }
            let Some(read) = self.move_some(stream, buffer, want, &mut turn) else { break };
            if read > 0
                && let Some(idle) = &mut self.idle
            {
                idle.reset(now);
            }
            budget = budget.saturating_sub(read);
            // A pipe that gave less than asked for is empty; whether it has ended, the next turn tells.
            if read < want {
                break;
            }
        }
        if let Some(quiet) = self.quiet.as_mut().filter(|_| turn.wrote) {
            quiet.spoke(stream, now);
        }
        turn
    }

    /// Moves at most `want` bytes from a pipe to where they belong. `None`: there is nothing now.
    fn move_some(
        &mut self,
        stream: Stream,
        buffer: &mut RecordBuffer,
        want: usize,
        turn: &mut Turn,
    ) -> Option<usize> {
        if let Some(available) = self.in_bulk(stream) {
            return self.move_in_bulk(stream, available.min(want), turn);
        }
        let read = self.read(stream, &mut buffer.payload_mut()[..want], turn)?;
        if read > 0 {
            self.take(stream, buffer, read, turn);
        }
        if read == self.longest() {
            self.grow(stream);
        }
        Some(read)
    }

    /// How many bytes wait in a pipe, if they are many and belong into the ring.
    fn in_bulk(&mut self, stream: Stream) -> Option<usize> {
        let at = index(stream);
        if !self.grown[at] || self.discarding || self.bytes >= self.limit() || !self.ring.as_mut()?.map() {
            return None;
        }
        let available = rustix::io::ioctl_fionread(self.pipes[at].as_ref()?).ok()?;
        usize::try_from(available).ok().filter(|available| *available >= IN_BULK)
    }

    fn move_in_bulk(&mut self, stream: Stream, length: usize, turn: &mut Turn) -> Option<usize> {
        let pipe = self.pipes[index(stream)].as_ref()?;
        let moved = self.ring.as_mut()?.append_from(stream, pipe.as_fd(), length);
        match moved {
            Ok(0) => None,
            Ok(read) => {
                turn.wrote = true;
                self.bytes += read as u64;
                Some(read)
            }
            Err(error) => {
                self.fail(&error, turn);
                // What couldn't be kept waits in the pipe, and is dropped in the next round.
                Some(length)
            }
        }
    }

    fn fail(&mut self, error: &io::Error, turn: &mut Turn) {
        self.discarding = true;
        turn.failed = Some(error.raw_os_error().unwrap_or(Errno::IO.raw_os_error()));
    }

    /// Makes a pipe larger, once. Where the kernel refuses, the pipe does as well as it is, only slower.
    fn grow(&mut self, stream: Stream) {
        let at = index(stream);
        if core::mem::replace(&mut self.grown[at], true) {
            return;
        }
        if let Some(pipe) = &self.pipes[at]
            && rustix::pipe::fcntl_getpipe_size(pipe).is_ok_and(|size| size < GROWN_PIPE)
        {
            let _as_it_is = rustix::pipe::fcntl_setpipe_size(pipe, GROWN_PIPE);
        }
    }

    /// How many bytes to ask a pipe for. 0: the ring is full.
    fn want(&self) -> usize {
        let left = self.limit().saturating_sub(self.bytes);
        match &self.ring {
            // One byte over the limit is enough to know that it was passed, and none of it is kept.
            _ if self.discarding || left == 0 => MAX_OUTPUT_CHUNK,
            Some(ring) if ring.room() < MIN_PAYLOAD => 0,
            Some(ring) => ring.room().min(self.longest()).min(usize::try_from(left).unwrap_or(usize::MAX)),
            None => MAX_OUTPUT_CHUNK.min(usize::try_from(left).unwrap_or(usize::MAX)),
        }
    }

    /// Reads; `None`: there is nothing now. An end, or an error (there is none a pipe could have), closes it.
    fn read(&mut self, stream: Stream, into: &mut [u8], turn: &mut Turn) -> Option<usize> {
        let slot = &mut self.pipes[index(stream)];
        let pipe = slot.as_ref()?;
        loop {
            match rustix::io::read(pipe, &mut *into) {
                Ok(0) => break,
                Ok(read) => return Some(read),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return None,
                Err(_) => break,
            }
        }
        *slot = None;
        turn.ended = true;
        Some(0)
    }

    /// Keeps or drops what was read.
    fn take(&mut self, stream: Stream, buffer: &mut RecordBuffer, read: usize, turn: &mut Turn) {
        if self.discarding {
            return;
        }
        if self.bytes >= self.limit() {
            self.discarding = true;
            turn.exceeded = true;
            return;
        }
        match self.ring.as_mut().map(|ring| ring.append(stream, buffer, read)) {
            Some(Err(error)) => {
                self.fail(&error, turn);
                return;
            }
            Some(Ok(())) => turn.wrote = true,
            None => {}
        }
        self.bytes += read as u64;
    }

    fn stall(&mut self, now: Instant) {
        self.stalled = true;
        if let Some(idle) = &mut self.idle {
            idle.stop(now);
        }
        if let Some(quiet) = &mut self.quiet {
            quiet.wait();
        }
    }

    /// Everything below `offset` of the ring may be written over. Answers whether a stalled run goes on: with a
    /// quarter of the ring free (or all that is ever free), so that a slow reader doesn't make tiny records.
    pub fn acknowledge(&mut self, offset: u64, now: Instant) -> bool {
        let Some(ring) = &mut self.ring else { return false };
        ring.acknowledge(offset);
        if let Some(quiet) = self.quiet.as_mut().filter(|_| !self.stalled) {
            quiet.go_on();
        }
        let enough = usize::try_from(ring.capacity() / 4).unwrap_or(usize::MAX) - HEADER;
        let resumes = self.stalled && ring.room() >= enough.max(MIN_PAYLOAD);
        if resumes {
            self.go_on(now);
        }
        resumes
    }

    /// Nobody will read the ring: it's closed, and output is only counted. Answers whether a stalled run goes on.
    pub fn forget(&mut self, now: Instant) -> bool {
        self.ring = None;
        let resumes = self.stalled;
        if resumes {
            self.go_on(now);
        }
        resumes
    }

    fn go_on(&mut self, now: Instant) {
        self.stalled = false;
        if let Some(idle) = &mut self.idle {
            idle.go_on(now);
        }
        if let Some(quiet) = &mut self.quiet {
            quiet.listen(now);
        }
    }

    /// The tool has ended: silence means nothing any more.
    pub fn stop_idle_clock(&mut self) {
        self.idle = None;
    }

    /// When the idle clock runs out, if it runs.
    #[must_use]
    pub fn idle_deadline(&self) -> Option<Instant> {
        self.idle.as_ref().and_then(IdleClock::deadline)
    }

    /// The idle limit in milliseconds, once, when its time is over.
    pub fn idle_expired(&mut self, now: Instant) -> Option<u64> {
        let idle = self.idle.as_mut()?;
        if idle.deadline()? > now {
            return None;
        }
        idle.told = true;
        Some(u64::try_from(idle.limit.as_millis()).unwrap_or(u64::MAX))
    }
}
