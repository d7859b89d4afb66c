//! What a run's worker says and what it's told, and what others are told of it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::process::Pid;
use stockade_protocol::confinement::Plan;
use stockade_protocol::launch::FromLauncher;
use stockade_protocol::outcome::{SetupFailure, SetupStage};
use stockade_wire::channel::ChannelError;

use super::{Assigned, Progress, Run};
use crate::failure::{At, Staged};
use crate::launcher::verify;
use crate::messages::{FromWorker, ToWorker};
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
            Ok(None) | Err(_) => return Ok(Progress::Closed),
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
                // Template and init write to one socket: an init with little to set up may be first.
                Ok(if self.parked.is_some() { Progress::Parked } else { Progress::More })
            }
            FromWorker::Parked(parked) => {
                self.parked = Some((*parked, descriptors));
                Ok(if self.init.is_some() { Progress::Parked } else { Progress::More })
            }
            FromWorker::Rooted => {
                if let Some((pid, _)) = &self.init {
                    let rooted = verify::Rooted::read(&self.prepare, *pid, namespaces);
                    self.rooted = Some(rooted.map_err(|failure| self.own_failure().unwrap_or(failure))?);
                }
                Ok(Progress::More)
            }
            FromWorker::Stale => Ok(Progress::Stale),
            FromWorker::Running => {
                self.started = Some(Instant::now());
                Ok(Progress::Running)
            }
            FromWorker::Failed(failure) => Err(failure),
            FromWorker::Ended(ended) => {
                self.ended = Some(ended);
                self.ended_at = Some(Instant::now());
                Ok(Progress::Ended)
            }
        }
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
    pub(crate) fn watch_order(&mut self) -> (MonitorCommand, Vec<OwnedFd>) {
        let mut descriptors = Vec::new();
        let pidfd = self.init.as_ref().and_then(|(_, fd)| fd.try_clone().ok());
        descriptors.extend(pidfd);
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
        (command, descriptors)
    }

    /// What the relay is asked, with its descriptors.
    pub(crate) fn relay_order(&mut self) -> Option<(RelayCommand, Vec<OwnedFd>)> {
        let relayed = self.assigned.as_mut()?.stdio.relayed.as_mut()?;
        let [stdout, stderr] = relayed.pipes.take()?;
        let ring = relayed.ring.try_clone().ok()?;
        let command = RelayCommand::Add {
            exec_id: self.exec_id,
            ring_bytes: relayed.ring_bytes,
            output_limit: self.limits.output,
            idle_ms: self.limits.idle_ms,
        };
        Some((command, vec![stdout, stderr, ring]))
    }

    /// Tells the worker what to run. One that is gone shows at its channel's end.
    pub(crate) fn start(&mut self) {
        let Some(Assigned { command, stdio, .. }) = &mut self.assigned else { return };
        if let Some(confinement) = &mut self.confinement {
            verify::complete(confinement, command, stdio.paths);
        }
        if self.template.is_none() {
            drop(self.channel.send(&ToWorker::Go, &[]));
            self.commanded = true;
        } else {
            let message = ToWorker::Start(Box::new(command.clone()));
            let ends: Vec<_> = stdio.ends.iter().map(AsFd::as_fd).collect();
            self.commanded = self.channel.send(&message, &ends).is_ok();
        }
    }

    /// The message that the tool runs. Its descriptors are its own alone from now on.
    pub(crate) fn started(&mut self) -> (FromLauncher, Vec<OwnedFd>) {
        let confinement = self.confinement.clone().unwrap_or_else(|| Box::new(verify::empty(&self.prepare)));
        let stdio = self.assigned.as_mut().map(|assigned| &mut assigned.stdio);
        let ring = stdio.and_then(|stdio| {
            stdio.ends.clear();
            stdio.relayed.as_ref()?.ring.try_clone().ok()
        });
        if let Some(assigned) = &mut self.assigned {
            assigned.workspace = None;
        }
        (FromLauncher::Started { exec_id: self.exec_id, confinement }, ring.into_iter().collect())
    }

    /// Passes a signal on; before the tool runs there is nobody to take it.
    pub(crate) fn signal(&mut self, number: u8) {
        if self.started.is_some() && self.ended.is_none() {
            drop(self.channel.send(&ToWorker::Signal(number), &[]));
        }
    }
}
