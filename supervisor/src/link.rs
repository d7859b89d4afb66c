//! The supervisor's side of one launcher: what waits to be sent to it and to its relay.
//!
//! Sending never blocks. A message that the socket doesn't take waits in a queue of packed datagrams;
//! acknowledgements to the relay are kept as one number a run, so a relay that doesn't read costs nothing more.
//! [`crate::launch_link`] has the tasks that move bytes.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stockade_protocol::ExecId;
use stockade_protocol::confinement::{Plan, Warmth};
use stockade_protocol::launch::{Launch, Program, SpecNumber, ToLauncher, ToRelay};
use stockade_protocol::outcome::MemoryMechanism;
use stockade_protocol::spec::SandboxSpec;
use stockade_wire::channel::{ChannelError, Packed};
use tokio::sync::Notify;

use crate::told::Told;
use crate::watched::Watched;

/// Messages that may wait for the launcher before clients are no longer read.
pub(crate) const QUEUE: usize = 1024;

/// Ended runs that the launcher is told in one message that nobody needs, and how long the first of them waits for that: what
/// is kept of a run without output meanwhile is small.
const RELEASED: usize = 32;
const RELEASED_AFTER: Duration = Duration::from_millis(100);

/// What the launcher said of itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Introduction {
    pub(crate) plan: Plan,
    pub(crate) memory: MemoryMechanism,
    pub(crate) program: Program,
    /// Whether another program has that one's name by now.
    pub(crate) replaced: bool,
    /// Its process id, as it says itself.
    pub(crate) pid: u32,
}

/// A socket of a launcher or relay, shared with the task that reads it.
pub(crate) type Socket = Rc<Watched>;

/// When a launcher is to start what it is handed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// At once.
    Now,
    /// When it's told to.
    Told,
}

/// A message that waits for the channel.
#[derive(Debug)]
struct Queued {
    packed: Packed,
    descriptors: Vec<OwnedFd>,
    /// The run that it hands over.
    run: Option<ExecId>,
}

/// The way to one launcher that is alive.
#[derive(Debug, Default)]
pub(crate) struct Link {
    pub(crate) channel: Option<Socket>,
    pub(crate) relay: Option<Socket>,
    /// What it said of itself.
    pub(crate) introduction: Option<Introduction>,
    /// What its templates did.
    pub(crate) warmth: Warmth,
    /// Its process id as the kernel told it, before it introduced itself; else as it said.
    pub(crate) pid: Option<i32>,
    /// What it was found by when it had introduced itself, if it was started elsewhere.
    pub(crate) pidfd: Option<OwnedFd>,
    queue: VecDeque<Queued>,
    /// Runs whose launch the channel has taken since this was asked for.
    taken: Vec<ExecId>,
    /// Of what has been queued, too.
    told: Told,
    acknowledged: HashMap<ExecId, u64>,
    /// Runs with an acknowledgement to be sent, in order.
    acknowledge: VecDeque<ExecId>,
    forget: VecDeque<ExecId>,
    /// Runs that it may forget and wasn't told of yet.
    released: Vec<ExecId>,
    /// When it's told at the latest.
    pub(crate) release_at: Option<Instant>,
    /// Rung when something waits, or when it's to be replaced.
    pub(crate) bell: Rc<Notify>,
    /// Rung when the queue has become shorter.
    pub(crate) room: Rc<Notify>,
    /// Why it's to be replaced.
    pub(crate) replace: Option<String>,
}

impl Link {
    /// To the launcher at the other end of a channel.
    pub(crate) fn new(channel: Socket, pid: Option<i32>) -> Self {
        Self { channel: Some(channel), pid, ..Self::default() }
    }

    /// Whether something waits to be sent.
    pub(crate) fn has_something_to_send(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether so much waits that no more should come from clients.
    pub(crate) fn is_full(&self) -> bool {
        self.queue.len() >= QUEUE
    }

    /// Sends a message, now or once there is room.
    ///
    /// # Errors
    /// Only those of encoding: the message will never be sent.
    pub(crate) fn send(
        &mut self,
        message: &ToLauncher,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), ChannelError> {
        self.push(message, descriptors, None)?;
        // What stood before it has gone along.
        if !self.taken.is_empty() {
            self.bell.notify_one();
        }
        Ok(())
    }

    fn push(
        &mut self,
        message: &ToLauncher,
        descriptors: Vec<OwnedFd>,
        run: Option<ExecId>,
    ) -> Result<(), ChannelError> {
        if self.channel.is_none() {
            return Ok(());
        }
        self.queue.push_back(Queued { packed: Packed::new(message)?, descriptors, run });
        if self.flush().is_err() {
            self.bell.notify_one();
        }
        Ok(())
    }

    /// The runs whose launch the channel has taken since the last time: they happen, whatever becomes of us.
    pub(crate) fn take_taken(&mut self) -> Vec<ExecId> {
        core::mem::take(&mut self.taken)
    }

    /// Hands a launch over, and before it what it is confined to, if this launcher doesn't know that yet. Whoever does
    /// asks [`Link::take_taken`] then.
    ///
    /// # Errors
    /// As [`Link::send`].
    pub(crate) fn hand(
        &mut self,
        launch: Launch,
        spec: Arc<SandboxSpec>,
        descriptors: Vec<OwnedFd>,
        when: When,
    ) -> Result<(), ChannelError> {
        self.tell_spec(launch.spec, spec)?;
        let run = launch.exec_id;
        let launch = Box::new(launch);
        let message = match when {
            When::Now => ToLauncher::Launch(launch),
            When::Told => ToLauncher::Hold(launch),
        };
        self.push(&message, descriptors, Some(run))
    }

    fn tell_spec(&mut self, number: SpecNumber, spec: Arc<SandboxSpec>) -> Result<(), ChannelError> {
        if self.channel.is_some() && !self.told.knows(number) {
            let told = Packed::new(&ToLauncher::Spec { number, spec })?;
            while let Some(number) = self.told.forgets(told.size()) {
                let packed = Packed::new(&ToLauncher::ForgetSpec { number })?;
                self.queue.push_back(Queued { packed, descriptors: Vec::new(), run: None });
            }
            self.told.learns(number, told.size());
            self.queue.push_back(Queued { packed: told, descriptors: Vec::new(), run: None });
        }
        Ok(())
    }

    /// What is below an offset may be written over.
    pub(crate) fn acknowledge(&mut self, run: ExecId, offset: u64) {
        if self.relay.is_some() && self.acknowledged.insert(run, offset).is_none() {
            self.acknowledge.push_back(run);
        }
    }

    /// A run's output is given up: there were so many records of it.
    pub(crate) fn drop_output(&mut self, run: ExecId, next_seq: u64) {
        self.forget(run);
        self.say(&ToLauncher::ReleaseOutput { exec_id: run, next_seq });
    }

    /// An ended run is needed no more. A ring takes memory and is given back at once.
    pub(crate) fn release(&mut self, run: ExecId, has_ring: bool) {
        if has_ring {
            self.forget(run);
        }
        self.released.push(run);
        if has_ring || self.released.len() >= RELEASED {
            self.tell_released();
        } else if self.release_at.is_none() {
            self.release_at = Some(Instant::now() + RELEASED_AFTER);
            self.bell.notify_one();
        }
    }

    /// Tells which runs are needed no more.
    pub(crate) fn tell_released(&mut self) {
        self.release_at = None;
        let exec_ids = core::mem::take(&mut self.released);
        if !exec_ids.is_empty() {
            self.say(&ToLauncher::Release { exec_ids });
        }
    }

    fn say(&mut self, message: &ToLauncher) {
        if let Err(error) = self.send(message, Vec::new()) {
            tracing::error!(%error, "a message for the launcher can't be sent");
        }
    }

    /// A run's ring is needed no more.
    fn forget(&mut self, run: ExecId) {
        if self.acknowledged.remove(&run).is_some() {
            self.acknowledge.retain(|other| *other != run);
        }
        if self.relay.is_some() {
            self.forget.push_back(run);
        }
    }

    /// Sends what waits for the launcher.
    ///
    /// # Errors
    /// `WouldBlock`: the rest still waits. Anything else: the launcher is gone.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let Some(channel) = &self.channel else { return Ok(()) };
        while let Some(Queued { packed, descriptors, run }) = self.queue.front() {
            let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            packed.send(channel.get_ref(), &borrowed).map_err(into_io)?;
            self.taken.extend(*run);
            self.queue.pop_front();
        }
        self.room.notify_waiters();
        Ok(())
    }

    /// Sends what waits for the relay.
    ///
    /// # Errors
    /// As [`Link::flush`].
    pub(crate) fn flush_relay(&mut self) -> io::Result<()> {
        let Some(relay) = &self.relay else { return Ok(()) };
        while let Some(&run) = self.acknowledge.front() {
            if let Some(&offset) = self.acknowledged.get(&run) {
                let message = ToRelay::Acknowledge { exec_id: run, offset };
                Packed::new(&message).and_then(|p| p.send(relay.get_ref(), &[])).map_err(into_io)?;
                self.acknowledged.remove(&run);
            }
            self.acknowledge.pop_front();
        }
        while let Some(&run) = self.forget.front() {
            let message = ToRelay::Forget { exec_id: run };
            Packed::new(&message).and_then(|p| p.send(relay.get_ref(), &[])).map_err(into_io)?;
            self.forget.pop_front();
        }
        Ok(())
    }

    /// Sends to the relay what can be sent; the task sends the rest.
    pub(crate) fn nudge_relay(&mut self) {
        if self.flush_relay().is_err() {
            self.bell.notify_one();
        }
    }
}

/// What passes by itself is like a full socket.
fn into_io(error: ChannelError) -> io::Error {
    match error {
        error if error.will_pass() => io::ErrorKind::WouldBlock.into(),
        ChannelError::Io(error) => error,
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use stockade_wire::channel::Channel;
    use stockade_wire::socket;

    use super::*;

    /// What was said to be taken is what the other end reads when nothing more is sent, and the rest is said later.
    #[test]
    fn a_launch_is_said_to_be_taken_when_the_channel_has_it_and_not_before() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _entered = runtime.enter();
        let (ours, theirs) = socket::seqpacket_pair().unwrap();
        rustix::io::ioctl_fionbio(&ours, true).unwrap();
        rustix::io::ioctl_fionbio(&theirs, true).unwrap();
        let theirs = Channel::new(theirs);
        let mut link = Link::new(Rc::new(Watched::new(ours).unwrap()), None);
        // Whatever is handed over: the link doesn't look at it.
        let message = ToLauncher::Release { exec_ids: vec![ExecId::from_bytes([7; 16]); 100] };
        let mut handed = Vec::new();
        while link.queue.len() < 3 {
            let run = ExecId::generate();
            handed.push(run);
            link.push(&message, Vec::new(), Some(run)).unwrap();
        }
        let taken = link.take_taken();
        let arrived = || std::iter::from_fn(|| theirs.receive::<ToLauncher>().ok()).count();
        assert_eq!(arrived(), taken.len());
        assert_eq!((taken.as_slice(), taken.len()), (&handed[..taken.len()], handed.len() - 3));
        assert!(link.take_taken().is_empty());
        // A message of another kind takes them along, and rings for who is to ask.
        link.send(&message, Vec::new()).unwrap();
        let rung = runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(20), link.bell.notified()).await.is_ok()
        });
        assert!(rung);
        assert_eq!((link.take_taken().as_slice(), arrived()), (&handed[taken.len()..], 4));
    }
}
