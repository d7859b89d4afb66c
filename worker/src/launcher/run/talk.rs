//! What a run's worker says and what it's told, and what others are told of it.

use std::borrow::Cow;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::process::Pid;
use stockade_protocol::confinement::Plan;
use stockade_protocol::launch::FromLauncher;
use stockade_protocol::outcome::{SetupFailure, SetupStage};
use stockade_wire::channel::ChannelError;

use super::{Assigned, Progress, Run};
use crate::failure::{At, Staged};
use crate::launcher::outbox::IN_FLIGHT_PAUSE;
use crate::launcher::outlet::Relayed;
use crate::launcher::verify;
use crate::messages::{FromWorker, Standard, ToWorker};
use crate::monitor::{MonitorCommand, Tree};
use crate::poller::{Interest, Poller};
use crate::relay::RelayCommand;

impl Run {
    /// Listens to its worker under `token`.
    pub(crate) fn listen(mut self, poller: &Poller, token: u64) -> Staged<Self> {
        poller.add(&self.channel, token, Interest::Read).at(SetupStage::Template, "poller")?;
        self.listening = true;
        Ok(self)
    }

    /// The other end is gone.
    pub(crate) fn stop_listening(&mut self, poller: &Poller) {
        if core::mem::take(&mut self.listening) {
            drop(poller.remove(&self.channel));
        }
    }

    /// Takes one message of the worker's. `namespaces`: ours.
    ///
    /// # Errors
    /// The worker's own failure, or `Verify`: what doesn't hold of it.
    pub(crate) fn receive(&mut self, namespaces: &verify::Namespaces) -> Staged<Progress> {
        if !self.listening {
            return Ok(Progress::Nothing);
        }
        let heard = match self.channel.receive() {
            // Closed with something unread in it: what it was told last, it never heard. What it had said comes next.
            Err(ChannelError::Io(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
                self.commanded = false;
                self.channel.receive()
            }
            other => other,
        };
        let (message, mut descriptors) = match heard {
            Ok(Some(received)) => received,
            Err(error) if error.would_block() => return Ok(Progress::Nothing),
            Ok(None) => return Ok(Progress::Closed),
            Err(_) => return Ok(self.unheard()),
        };
        match message {
            FromWorker::Placed { held, made } => {
                self.placed.extend(held.into_iter().zip(descriptors));
                self.made.extend(made);
                Ok(Progress::More)
            }
            FromWorker::Cloned { pid } => {
                self.init = Pid::from_raw(pid).zip(descriptors.pop());
                if self.is_condemned() {
                    self.kill();
                }
                Ok(Progress::Named)
            }
            FromWorker::Parked(parked) => {
                self.parked = Some((*parked, descriptors));
                Ok(if self.init.is_some() { Progress::Parked } else { Progress::More })
            }
            FromWorker::Rooted => {
                if let (Some((pid, _)), false) = (&self.init, self.is_over()) {
                    let rooted = verify::Rooted::read(&self.prepare, *pid, namespaces);
                    self.early.rooted =
                        Some(rooted.map_err(|failure| self.own_failure().unwrap_or(failure))?);
                }
                Ok(Progress::More)
            }
            FromWorker::Filtered { installed } => {
                if let (Some((pid, _)), false) = (&self.init, self.is_over()) {
                    let filtered = verify::Filtered::read(&self.prepare, installed, *pid, namespaces);
                    self.early.filtered =
                        Some(filtered.map_err(|failure| self.own_failure().unwrap_or(failure))?);
                }
                Ok(Progress::More)
            }
            FromWorker::Stale => {
                self.refused = true;
                Ok(Progress::Stale)
            }
            FromWorker::Running(since_us) => {
                self.started = Some(ago(since_us));
                Ok(Progress::Running)
            }
            FromWorker::Failed(failure) => {
                self.refused = true;
                Err(failure)
            }
            FromWorker::Ended(ended) => {
                self.started.get_or_insert_with(|| ago(ended.wall_us));
                self.ended = Some(ended);
                self.ended_at = Some(Instant::now());
                Ok(Progress::Ended)
            }
        }
    }

    /// A worker that can't be understood any more mustn't go on.
    fn unheard(&mut self) -> Progress {
        self.kill();
        Progress::Closed
    }

    /// Why the worker has ended, if it said so: that it couldn't be read back says less.
    fn own_failure(&self) -> Option<SetupFailure> {
        while let Ok(Some((message, _))) = self.channel.receive::<FromWorker>() {
            if let FromWorker::Failed(failure) = message {
                return Some(failure);
            }
        }
        None
    }

    /// What the monitor is asked, with its descriptors.
    ///
    /// # Errors
    /// Those of dup(2): no descriptor is left.
    pub(crate) fn watch_order(&mut self) -> io::Result<(MonitorCommand, Vec<OwnedFd>)> {
        let pidfd = self.init.as_ref().map(|(_, fd)| fd.try_clone()).transpose()?;
        let mut descriptors = Vec::from_iter(pidfd);
        let tree = match (&self.init, self.prepare.plan) {
            (Some((pid, _)), Plan::Minimal) => Tree::Descendants { pid: pid.as_raw_nonzero().get() },
            _ => Tree::Namespace,
        };
        if let Some((_, from_worker)) = self.parked.as_mut() {
            descriptors.append(from_worker);
        }
        let command = MonitorCommand::Watch {
            exec_id: self.exec_id,
            // A control group bounds memory exactly; processor time is still the monitor's.
            memory: self.limits.memory.filter(|_| self.cgroup.is_none()),
            processes: self.limits.processes,
            cpu_ms: self.limits.cpu_ms,
            tree,
        };
        Ok((command, descriptors))
    }

    /// Tells the worker what to run. One that is gone shows at its channel's end.
    pub(crate) fn start(&mut self) {
        self.start_at = None;
        let Some(Assigned { command, stdio, .. }) = &self.assigned else { return };
        let told = if self.template.is_none() {
            self.channel.send(&ToWorker::Go, &[])
        } else {
            let given = stdio.passed.or(&self.ends.unsent);
            let message = ToWorker::Start(Cow::Borrowed(command), given.map(|fd| fd.is_some()));
            let beside: Vec<_> = given.into_iter().flatten().collect();
            self.channel.send(&message, &beside)
        };
        if told.as_ref().is_err_and(ChannelError::will_pass) {
            self.start_at = Some(Instant::now() + IN_FLIGHT_PAUSE);
        }
        // The embedded one's worker knows its command, and may have begun it for all we can tell.
        self.commanded = told.is_ok() || self.template.is_none();
    }

    /// The message that the tool runs, or ran, and what the relay is asked and given, if its output is relayed: once. A tool
    /// that has ended without output needs no relay; its end is that of its output.
    pub(crate) fn announce(&mut self) -> Option<(FromLauncher, Option<(RelayCommand, Relayed)>)> {
        if core::mem::replace(&mut self.announced, true) {
            return None;
        }
        let mut confinement =
            self.confinement.take().unwrap_or_else(|| Box::new(verify::empty(&self.prepare)));
        self.ends.unsent = Standard::default();
        let mut ring = None;
        if let Some(Assigned { command, stdio, .. }) = &self.assigned {
            verify::complete(&mut confinement, command, stdio.paths);
            ring = stdio.ring_bytes.map(|bytes| (bytes, stdio.is_marked));
        }
        let relayed = ring.and_then(|(bytes, is_marked)| self.hand_over_output(bytes, is_marked));
        Some((FromLauncher::Started { exec_id: self.exec_id, confinement }, relayed))
    }

    /// Passes a signal on; before the tool runs there is nobody to take it.
    pub(crate) fn signal(&mut self, number: u8) {
        if self.started.is_some() && self.ended.is_none() {
            drop(self.channel.send(&ToWorker::Signal(number), &[]));
        }
    }
}

/// So many microseconds before now.
fn ago(us: u64) -> Instant {
    let now = Instant::now();
    now.checked_sub(Duration::from_micros(us)).unwrap_or(now)
}
