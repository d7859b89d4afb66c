//! The supervisor's side of a launcher: what waits to be sent to it and to its relay.
//!
//! Sending never blocks. A message that the socket doesn't take waits in a queue of packed datagrams;
//! acknowledgements to the relay are kept as one number a run, so a relay that doesn't read costs nothing more.
//! [`crate::launch_link`] has the tasks that move bytes.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use stockade_protocol::ExecId;
use stockade_protocol::confinement::{Plan, Warmth};
use stockade_protocol::launch::{Launch, ToLauncher, ToRelay};
use stockade_protocol::outcome::MemoryMechanism;
use stockade_protocol::spec::SandboxSpec;
use stockade_wire::channel::{ChannelError, Packed};
use tokio::sync::Notify;

use crate::told::Told;
use crate::watched::Watched;

/// Messages that may wait for the launcher before clients are no longer read.
pub(crate) const QUEUE: usize = 1024;

/// What the launcher said of itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Introduction {
    pub(crate) plan: Plan,
    pub(crate) memory: MemoryMechanism,
}

/// A socket of a launcher or relay, shared with the task that reads it.
pub(crate) type Socket = Rc<Watched>;

/// The way to the launcher that is alive, if one is.
#[derive(Debug, Default)]
pub(crate) struct Link {
    pub(crate) channel: Option<Socket>,
    pub(crate) relay: Option<Socket>,
    /// Of the launcher that is alive, or the last one.
    pub(crate) introduction: Option<Introduction>,
    /// What the launcher's templates did.
    pub(crate) warmth: Warmth,
    /// Its process id as we started it, before it introduced itself.
    pub(crate) child: Option<i32>,
    queue: VecDeque<(Packed, Vec<OwnedFd>)>,
    /// Of what has been queued, too.
    told: Told,
    acknowledged: HashMap<ExecId, u64>,
    /// Runs with an acknowledgement to be sent, in order.
    acknowledge: VecDeque<ExecId>,
    forget: VecDeque<ExecId>,
    /// Rung when something waits, or when the launcher is to be replaced.
    pub(crate) bell: Rc<Notify>,
    /// Rung when the queue has become shorter.
    pub(crate) room: Rc<Notify>,
    /// Rung when a launcher has gone.
    pub(crate) gone: Rc<Notify>,
    /// Why the launcher is to be replaced.
    pub(crate) replace: Option<String>,
    /// Whether a launcher that goes is the last one.
    pub(crate) is_last: bool,
}

impl Link {
    /// Everything that belonged to a launcher that has gone.
    pub(crate) fn reset(&mut self) {
        let Self { bell, room, gone, introduction, is_last, .. } = core::mem::take(self);
        *self = Self { bell, room, gone, introduction, is_last, ..Self::default() };
        self.room.notify_waiters();
        self.gone.notify_waiters();
    }

    /// Whether there is a launcher that has introduced itself.
    pub(crate) fn is_up(&self) -> bool {
        self.relay.is_some()
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
        if self.channel.is_none() {
            return Ok(());
        }
        self.queue.push_back((Packed::new(message)?, descriptors));
        if self.flush().is_err() {
            self.bell.notify_one();
        }
        Ok(())
    }

    /// Sends a launch, and before it what it is confined to, if this launcher doesn't know that yet.
    ///
    /// # Errors
    /// As [`Link::send`].
    pub(crate) fn launch(
        &mut self,
        launch: Launch,
        spec: Arc<SandboxSpec>,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), ChannelError> {
        let number = launch.spec;
        if self.channel.is_some() && !self.told.knows(number) {
            let told = Packed::new(&ToLauncher::Spec { number, spec })?;
            while let Some(number) = self.told.forgets(told.size()) {
                self.queue.push_back((Packed::new(&ToLauncher::ForgetSpec { number })?, Vec::new()));
            }
            self.told.learns(number, told.size());
            self.queue.push_back((told, Vec::new()));
        }
        self.send(&ToLauncher::Launch(Box::new(launch)), descriptors)
    }

    /// What is below an offset may be written over.
    pub(crate) fn acknowledge(&mut self, run: ExecId, offset: u64) {
        if self.relay.is_some() && self.acknowledged.insert(run, offset).is_none() {
            self.acknowledge.push_back(run);
        }
    }

    /// A run's ring is needed no more.
    pub(crate) fn forget(&mut self, run: ExecId) {
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
        while let Some((packed, descriptors)) = self.queue.front() {
            let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            packed.send(channel.get_ref(), &borrowed).map_err(into_io)?;
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

/// Full in-flight descriptors (`ETOOMANYREFS`) pass by themselves, like a full socket.
fn into_io(error: ChannelError) -> io::Error {
    match error {
        ChannelError::Io(error)
            if error.raw_os_error() == Some(rustix::io::Errno::TOOMANYREFS.raw_os_error()) =>
        {
            io::ErrorKind::WouldBlock.into()
        }
        ChannelError::Io(error) => error,
        other => io::Error::other(other),
    }
}
