//! The relay: a process of its own that reads the pipes of runs into their rings.
//!
//! It exists so that a run's output depends on nobody: not on a supervisor that is being replaced, nor on a client
//! that doesn't read. What it reads goes into a bounded memfd ring a run (`stockade_protocol::ring`); the
//! supervisor reads the same memfd, is told how far it was written ([`FromRelay::Wrote`], at most one a
//! run and turn of the loop) and tells how far it has read ([`ToRelay::Acknowledge`]). A ring that is full of
//! unacknowledged output stops its own run's pipes, and no other's.
//!
//! Beside that it holds the two limits that only a reader of output can hold: bytes, and silence. It reports them
//! to the launcher, which ends the run; the relay never ends anything.
//!
//! ```text
//!   launcher ── RelayCommand ──> relay ── RelayReport ──> launcher      SOCK_SEQPACKET, blocking nowhere
//!   supervisor ── ToRelay ──> relay ── FromRelay ──> supervisor         the same; replaced by each new supervisor
//! ```
//!
//! It must never block on anybody, never write over what wasn't acknowledged, and never outlive the launcher: when
//! the control channel closes, it ends. Its memory is bounded by [`MAX_RUNS`].

pub mod quiet;
pub mod run;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use stockade_protocol::ExecId;
use stockade_protocol::bounds::MAX_LAUNCH_INLINE;
use stockade_protocol::client::Stream;
use stockade_protocol::launch::{FromRelay, ToRelay};
use stockade_wire::channel::{self, Channel, ChannelError};
use stockade_wire::socket;

use crate::poller::{Interest, Poller, Ready};
use crate::ring::{RecordBuffer, RingWriter};
use run::{Run, Turn};

/// The most runs at once, ended ones whose ring is still kept included. Three descriptors each.
pub const MAX_RUNS: usize = 8192;
/// Acknowledgements kept for runs that weren't added yet.
pub const MAX_EARLY: usize = 1024;
/// Messages taken from one socket before the pipes have their turn.
const MESSAGES_A_TURN: usize = 64;
/// With so many reports unsent no more commands are taken.
const MAX_REPORTS: usize = 1024;

const CONTROL: u64 = u64::MAX;
const SUPERVISOR: u64 = u64::MAX - 1;

/// From the launcher. Both ends are one build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RelayCommand {
    /// A supervisor's `SOCK_SEQPACKET` socket is beside it and replaces the one before. It's told at once where
    /// every ring stands.
    Supervisor,
    /// A run. Beside it: the read ends of its standard output and error, its ring's memfd.
    Add {
        /// The run.
        exec_id: ExecId,
        /// Capacity of the ring in bytes, within [`crate::ring::MIN_RING`]..=[`crate::ring::MAX_RING`].
        ring_bytes: u64,
        /// The most bytes of output, both streams together.
        output_limit: Option<u64>,
        /// The longest silence, in milliseconds, counted from now.
        idle_ms: Option<u64>,
        /// Whether records are short and silence is marked: see `LaunchOutput::Marked`.
        is_marked: bool,
    },
    /// The tool has ended: its idle clock stops. Its pipes are still read to their end.
    Ended {
        /// The run.
        exec_id: ExecId,
    },
    /// Everything of the run is closed and forgotten, whatever state it's in. An unknown run is no error.
    Remove {
        /// The run.
        exec_id: ExecId,
    },
}

/// To the launcher. At most one of each kind for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RelayReport {
    /// More output than the limit. Exactly the limit is in the ring; the rest is read and dropped.
    OutputExceeded {
        /// The run.
        exec_id: ExecId,
        /// The limit, in bytes.
        limit: u64,
    },
    /// Silence for longer than the limit.
    Idle {
        /// The run.
        exec_id: ExecId,
        /// The limit, in milliseconds.
        limit_ms: u64,
    },
    /// Both pipes have ended.
    Drained {
        /// The run.
        exec_id: ExecId,
        /// Bytes of output within the limit.
        bytes: u64,
    },
    /// The run's output is lost from here on: it couldn't be added (its pipes are closed), or its ring couldn't be
    /// written (its pipes are drained and dropped).
    Failed {
        /// The run.
        exec_id: ExecId,
        /// `EMFILE`: the descriptors didn't arrive whole; `EUSERS`: [`MAX_RUNS`]; `EEXIST`; `EINVAL`: the ring's
        /// capacity; else what the kernel said.
        errno: i32,
    },
}

/// Why the relay can't go on. What concerns one run only is a [`RelayReport::Failed`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// The poller.
    #[error("relay: wait for pipes and sockets")]
    Poll(#[source] io::Error),
    /// The control channel failed otherwise than by closing.
    #[error("relay: control channel")]
    Control(#[source] ChannelError),
    /// The launcher speaks another language: not the same build.
    #[error("relay: command from the launcher")]
    Command(#[source] ChannelError),
}

/// Reads pipes until the launcher closes `control`.
///
/// # Errors
/// [`RelayError`]; every run's pipes are closed then, so the launcher must treat its runs' output as lost.
pub fn run(control: OwnedFd) -> Result<(), RelayError> {
    // Three descriptors a run: the default soft limit of 1024 would be the bound. What the kernel refuses shows as
    // `Failed` for the run it concerns.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    Relay::new(control)?.serve()
}

struct Relay {
    poller: Poller,
    control: Channel,
    /// What `control` is registered for.
    control_interest: Interest,
    supervisor: Option<Channel>,
    supervisor_blocked: bool,
    /// Whether the supervisor isn't told of everything yet that there was when it came.
    is_new: bool,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    names: HashMap<ExecId, usize>,
    early: EarlyAcknowledgements,
    /// Slots whose position the supervisor hasn't been told; each at most once ([`Slot::dirty`]).
    dirty: VecDeque<usize>,
    reports: VecDeque<RelayReport>,
    /// A time before which no idle clock runs out. Output only moves deadlines away, so it's looked at again then.
    next_idle: Option<Instant>,
    /// Slots with a stream whose silence isn't marked yet; each at most once ([`Slot::awaits`]).
    awaiting: Vec<usize>,
    /// When they are looked at: [`quiet::GRID`].
    next_mark: Option<Instant>,
    began: Instant,
    now: Instant,
    datagram: Vec<u8>,
    buffer: RecordBuffer,
    closed: bool,
}

struct Slot {
    run: Run,
    dirty: bool,
    awaits: bool,
}

/// Acknowledgements that came before their run: bounded, the oldest go first.
#[derive(Default)]
struct EarlyAcknowledgements {
    offsets: HashMap<ExecId, u64>,
    order: VecDeque<ExecId>,
}

impl EarlyAcknowledgements {
    fn keep(&mut self, exec_id: ExecId, offset: u64) {
        if let Some(known) = self.offsets.get_mut(&exec_id) {
            *known = offset.max(*known);
            return;
        }
        if self.order.len() >= MAX_EARLY
            && let Some(oldest) = self.order.pop_front()
        {
            self.offsets.remove(&oldest);
        }
        self.order.push_back(exec_id);
        self.offsets.insert(exec_id, offset);
    }

    fn take(&mut self, exec_id: ExecId) -> u64 {
        let Some(offset) = self.offsets.remove(&exec_id) else { return 0 };
        self.order.retain(|known| *known != exec_id);
        offset
    }
}

fn token(slot: usize, stream: Stream) -> u64 {
    (slot as u64) << 1 | run::index(stream) as u64
}

impl Relay {
    fn new(control: OwnedFd) -> Result<Self, RelayError> {
        let poller = Poller::new().map_err(RelayError::Poll)?;
        rustix::io::ioctl_fionbio(&control, true)
            .map_err(|errno| RelayError::Control(ChannelError::Io(errno.into())))?;
        poller.add(&control, CONTROL, Interest::Read).map_err(RelayError::Poll)?;
        Ok(Self {
            poller,
            control: Channel::new(control),
            control_interest: Interest::Read,
            supervisor: None,
            supervisor_blocked: false,
            is_new: false,
            slots: Vec::new(),
            free: Vec::new(),
            names: HashMap::new(),
            early: EarlyAcknowledgements::default(),
            dirty: VecDeque::new(),
            reports: VecDeque::new(),
            next_idle: None,
            awaiting: Vec::new(),
            next_mark: None,
            began: Instant::now(),
            now: Instant::now(),
            datagram: vec![0; MAX_LAUNCH_INLINE + 1],
            buffer: RecordBuffer::default(),
            closed: false,
        })
    }

    fn serve(mut self) -> Result<(), RelayError> {
        let mut ready = Vec::new();
        while !self.closed {
            let timeout = earlier(self.next_idle, self.next_mark)
                .map(|next| next.saturating_duration_since(Instant::now()));
            self.poller.wait(&mut ready, timeout).map_err(RelayError::Poll)?;
            self.now = Instant::now();
            for event in &ready {
                self.handle(*event)?;
            }
            self.check_idle();
            self.mark_silence();
            self.send_reports()?;
            self.send_positions();
        }
        Ok(())
    }

    fn handle(&mut self, event: Ready) -> Result<(), RelayError> {
        match event.token {
            CONTROL if event.readable => self.take_commands(),
            CONTROL => Ok(()),
            SUPERVISOR => {
                if event.writable {
                    self.unblock_supervisor();
                }
                // What the launcher said before it told the supervisor of a run must be known before what the
                // supervisor says of that run.
                self.take_commands()?;
                self.take_supervisor_messages();
                Ok(())
            }
            pipe => {
                let stream = if pipe & 1 == 0 { Stream::Stdout } else { Stream::Stderr };
                self.read_pipe(usize::try_from(pipe >> 1).unwrap_or(usize::MAX), stream);
                Ok(())
            }
        }
    }

    fn take_commands(&mut self) -> Result<(), RelayError> {
        for _ in 0..MESSAGES_A_TURN {
            if self.closed || self.reports.len() >= MAX_REPORTS {
                break;
            }
            let received = match socket::receive(&self.control, &mut self.datagram) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    self.closed = true;
                    break;
                }
                Err(error) => return Err(RelayError::Control(error.into())),
            };
            if received.length == 0 {
                self.closed = true;
                break;
            }
            // A truncated one lacks descriptors; the command that misses them says so by name.
            let (command, descriptors) =
                channel::unpack(&self.datagram[..received.length], received.descriptors)
                    .map_err(RelayError::Command)?;
            self.obey(command, descriptors);
        }
        Ok(())
    }

    fn obey(&mut self, command: RelayCommand, mut descriptors: Vec<OwnedFd>) {
        match command {
            RelayCommand::Supervisor => {
                if let Some(socket) = descriptors.pop() {
                    self.replace_supervisor(socket);
                }
            }
            RelayCommand::Add { exec_id, ring_bytes, output_limit, idle_ms, is_marked } => {
                let idle = idle_ms.map(Duration::from_millis);
                if let Err(errno) =
                    self.add(exec_id, descriptors, (ring_bytes, is_marked), output_limit, idle)
                {
                    self.reports.push_back(RelayReport::Failed { exec_id, errno });
                }
            }
            RelayCommand::Ended { exec_id } => {
                if let Some(slot) = self.named(exec_id) {
                    slot.run.stop_idle_clock();
                }
            }
            RelayCommand::Remove { exec_id } => self.remove(exec_id),
        }
    }

    fn named(&mut self, exec_id: ExecId) -> Option<&mut Slot> {
        let index = *self.names.get(&exec_id)?;
        self.slots.get_mut(index)?.as_mut()
    }

    fn add(
        &mut self,
        exec_id: ExecId,
        descriptors: Vec<OwnedFd>,
        (ring_bytes, is_marked): (u64, bool),
        limit: Option<u64>,
        idle: Option<Duration>,
    ) -> Result<(), i32> {
        let errno = |error: io::Error| error.raw_os_error().unwrap_or(Errno::IO.raw_os_error());
        let [stdout, stderr, memfd] =
            <[OwnedFd; 3]>::try_from(descriptors).map_err(|_| Errno::MFILE.raw_os_error())?;
        if self.names.contains_key(&exec_id) {
            return Err(Errno::EXIST.raw_os_error());
        }
        if self.names.len() >= MAX_RUNS {
            return Err(Errno::USERS.raw_os_error());
        }
        let mut ring = RingWriter::new(memfd, ring_bytes).map_err(errno)?;
        ring.acknowledge(self.early.take(exec_id));
        let run = Run::new(exec_id, [stdout, stderr], ring, limit, idle, self.now).map_err(errno)?;
        let run = if is_marked { run.marked() } else { run };
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        if let Err(error) = poll_pipes(&self.poller, &run, index) {
            self.free.push(index);
            return Err(errno(error));
        }
        self.next_idle = earlier(self.next_idle, run.idle_deadline());
        self.slots[index] = Some(Slot { run, dirty: false, awaits: false });
        self.names.insert(exec_id, index);
        Ok(())
    }

    fn remove(&mut self, exec_id: ExecId) {
        if let Some(index) = self.names.remove(&exec_id) {
            // Closing the pipes takes them out of the poller. An answer for them that is already in this turn's
            // batch finds an empty slot, or another run's pipe that has nothing to read.
            self.slots[index] = None;
            self.dirty.retain(|dirty| *dirty != index);
            self.awaiting.retain(|awaiting| *awaiting != index);
            self.free.push(index);
        }
    }

    fn read_pipe(&mut self, index: usize, stream: Stream) {
        let Some(Some(slot)) = self.slots.get_mut(index) else { return };
        if slot.run.is_stalled() || slot.run.pipe(stream).is_none() {
            return;
        }
        let turn = slot.run.turn(stream, &mut self.buffer, self.now);
        let exec_id = slot.run.exec_id;
        if turn.stalled {
            for pipe in
                [Stream::Stdout, Stream::Stderr].into_iter().filter_map(|stream| slot.run.pipe(stream))
            {
                let _ = self.poller.remove(pipe);
            }
        }
        self.await_silence(index);
        self.report_turn(index, exec_id, turn);
    }

    fn report_turn(&mut self, index: usize, exec_id: ExecId, turn: Turn) {
        let Some(Some(slot)) = self.slots.get(index) else { return };
        if turn.exceeded {
            self.reports.push_back(RelayReport::OutputExceeded { exec_id, limit: slot.run.limit() });
        }
        if let Some(errno) = turn.failed {
            self.reports.push_back(RelayReport::Failed { exec_id, errno });
        }
        let drained = turn.ended && slot.run.is_drained();
        if drained {
            self.reports.push_back(RelayReport::Drained { exec_id, bytes: slot.run.bytes() });
        }
        if drained && slot.run.ring().is_none() {
            self.remove(exec_id);
        } else if turn.wrote || drained {
            self.mark_dirty(index);
        }
    }

    fn mark_dirty(&mut self, index: usize) {
        if let Some(Some(slot)) = self.slots.get_mut(index)
            && !slot.dirty
        {
            slot.dirty = true;
            self.dirty.push_back(index);
        }
    }

    fn check_idle(&mut self) {
        if self.next_idle.is_none_or(|next| next > self.now) {
            return;
        }
        self.next_idle = None;
        for slot in self.slots.iter_mut().flatten() {
            if let Some(limit_ms) = slot.run.idle_expired(self.now) {
                self.reports.push_back(RelayReport::Idle { exec_id: slot.run.exec_id, limit_ms });
            }
            self.next_idle = earlier(self.next_idle, slot.run.idle_deadline());
        }
    }

    /// Has a run looked at again when a stream of it may have been silent for long enough.
    fn await_silence(&mut self, index: usize) {
        let Some(Some(slot)) = self.slots.get_mut(index) else { return };
        let Some(deadline) = slot.run.silent_at() else { return };
        self.next_mark = earlier(self.next_mark, Some(quiet::on_grid(self.began, deadline)));
        if !core::mem::replace(&mut slot.awaits, true) {
            self.awaiting.push(index);
        }
    }

    /// Looks at those runs alone that have spoken of late.
    fn mark_silence(&mut self) {
        if self.next_mark.is_none_or(|next| next > self.now) {
            return;
        }
        self.next_mark = None;
        for index in core::mem::take(&mut self.awaiting) {
            let Some(Some(slot)) = self.slots.get_mut(index) else { continue };
            slot.awaits = false;
            if slot.run.mark_silence(&mut self.buffer, self.now) {
                self.mark_dirty(index);
            }
            self.await_silence(index);
        }
    }

    fn send_reports(&mut self) -> Result<(), RelayError> {
        while let Some(report) = self.reports.front() {
            match self.control.send(report, &[]) {
                Ok(()) => drop(self.reports.pop_front()),
                Err(error) if error.would_block() => break,
                Err(error) if is_gone(&error) => {
                    self.closed = true;
                    return Ok(());
                }
                Err(error) => return Err(RelayError::Control(error)),
            }
        }
        let interest = Interest::of(self.reports.len() < MAX_REPORTS, !self.reports.is_empty());
        if interest != self.control_interest {
            self.poller.modify(&self.control, CONTROL, interest).map_err(RelayError::Poll)?;
            self.control_interest = interest;
        }
        Ok(())
    }
}

/// The supervisor's side.
impl Relay {
    fn replace_supervisor(&mut self, socket: OwnedFd) {
        // What the one before has acknowledged it has given to its clients.
        self.take_supervisor_messages();
        self.drop_supervisor();
        let channel = Channel::new(socket);
        if rustix::io::ioctl_fionbio(&channel, true).is_err()
            || self.poller.add(&channel, SUPERVISOR, Interest::Read).is_err()
        {
            return;
        }
        self.supervisor = Some(channel);
        self.is_new = true;
        for index in 0..self.slots.len() {
            self.mark_dirty(index);
        }
    }

    /// Without a supervisor the pipes are read until the rings are full.
    fn drop_supervisor(&mut self) {
        if let Some(channel) = self.supervisor.take() {
            let _ = self.poller.remove(&channel);
        }
        self.supervisor_blocked = false;
    }

    fn unblock_supervisor(&mut self) {
        if let Some(supervisor) = self.supervisor.as_ref().filter(|_| self.supervisor_blocked)
            && self.poller.modify(supervisor, SUPERVISOR, Interest::Read).is_ok()
        {
            self.supervisor_blocked = false;
        }
    }

    fn take_supervisor_messages(&mut self) {
        for _ in 0..MESSAGES_A_TURN {
            let Some(supervisor) = &self.supervisor else { return };
            let received = match socket::receive(supervisor, &mut self.datagram) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // It has died with something of ours unread. What it had said comes next.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => continue,
                Err(_) => return self.drop_supervisor(),
            };
            if received.length == 0 {
                return self.drop_supervisor();
            }
            // A supervisor that speaks otherwise is of another version. The launcher accepts those; a message that
            // this relay doesn't know can't be obeyed, and half a conversation would lose output.
            let Ok((message, _)) = channel::unpack(&self.datagram[..received.length], received.descriptors)
            else {
                return self.drop_supervisor();
            };
            match message {
                ToRelay::Acknowledge { exec_id, offset } => self.acknowledge(exec_id, offset),
                ToRelay::Forget { exec_id } => self.forget(exec_id),
                _ => return self.drop_supervisor(),
            }
        }
    }

    fn acknowledge(&mut self, exec_id: ExecId, offset: u64) {
        let now = self.now;
        match self.named(exec_id).map(|slot| slot.run.acknowledge(offset, now)) {
            Some(true) => self.resume(exec_id),
            Some(false) => {}
            None => return self.early.keep(exec_id, offset),
        }
        if let Some(&index) = self.names.get(&exec_id) {
            self.await_silence(index);
        }
    }

    fn forget(&mut self, exec_id: ExecId) {
        let now = self.now;
        let Some(slot) = self.named(exec_id) else { return };
        let resumes = slot.run.forget(now);
        if slot.run.is_drained() {
            self.remove(exec_id);
        } else if resumes {
            self.resume(exec_id);
        }
    }

    /// Polls the pipes of a run that was stalled again, and its idle clock.
    fn resume(&mut self, exec_id: ExecId) {
        let Some(&index) = self.names.get(&exec_id) else { return };
        let Some(Some(slot)) = self.slots.get(index) else { return };
        self.next_idle = earlier(self.next_idle, slot.run.idle_deadline());
        if let Err(error) = poll_pipes(&self.poller, &slot.run, index) {
            // The kernel has no room for the registration: the run's output can't be read on.
            let errno = error.raw_os_error().unwrap_or(Errno::IO.raw_os_error());
            self.reports.push_back(RelayReport::Failed { exec_id, errno });
            self.remove(exec_id);
        }
    }

    /// Tells where the rings stand, each once, as long as the supervisor's queue takes it.
    fn send_positions(&mut self) {
        let Some(supervisor) = &self.supervisor else { return };
        if self.supervisor_blocked {
            return;
        }
        let mut gone = false;
        while let Some(&index) = self.dirty.front() {
            let slot = self.slots.get_mut(index).and_then(Option::as_mut);
            let message = slot.as_ref().and_then(|slot| wrote(&slot.run));
            match message.map(|message| supervisor.send(&message, &[])) {
                Some(Err(error)) if error.would_block() => {
                    self.supervisor_blocked = true;
                    break;
                }
                Some(Err(_)) => {
                    gone = true;
                    break;
                }
                Some(Ok(())) | None => {}
            }
            self.dirty.pop_front();
            if let Some(slot) = slot {
                slot.dirty = false;
            }
        }
        if self.is_new && !gone && self.dirty.is_empty() {
            match supervisor.send(&FromRelay::Told, &[]) {
                Err(error) if error.would_block() => self.supervisor_blocked = true,
                told => {
                    gone = told.is_err();
                    self.is_new = false;
                }
            }
        }
        if self.supervisor_blocked {
            gone |= self.poller.modify(supervisor, SUPERVISOR, Interest::ReadWrite).is_err();
        }
        if gone {
            self.drop_supervisor();
        }
    }
}

fn wrote(run: &Run) -> Option<FromRelay> {
    let ring = run.ring()?;
    let position = ring.position();
    Some(FromRelay::Wrote {
        exec_id: run.exec_id,
        head: position.head,
        next_seq: position.next_seq,
        acknowledged: ring.acknowledged(),
        oldest_offset: position.oldest_offset,
        oldest_seq: position.oldest_seq,
        eof: run.is_drained(),
    })
}

fn poll_pipes(poller: &Poller, run: &Run, index: usize) -> io::Result<()> {
    for stream in [Stream::Stdout, Stream::Stderr] {
        if let Some(pipe) = run.pipe(stream) {
            poller.add(pipe, token(index, stream), Interest::Read)?;
        }
    }
    Ok(())
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn is_gone(error: &ChannelError) -> bool {
    let ChannelError::Io(error) = error else { return false };
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected
    )
}
