//! The processes beside the launcher that watch its runs: the relay reads their output, the monitor measures them. Which
//! of its children these are, and its [openers](super::openers).

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, Signal};
use stockade_protocol::ExecId;
use stockade_protocol::launch::FromLauncher;
use stockade_protocol::outcome::{Clock, Outcome};
use stockade_wire::channel::ChannelError;

use super::outbox::Outbox;
use super::run::Run;
use super::{Launcher, MESSAGES_A_TURN, MONITOR, RELAY, run, spawn};
use crate::monitor::MonitorReport;
use crate::poller::Ready;
use crate::relay::{RelayCommand, RelayReport};

/// What a process beside us is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Satellite {
    /// Reads output.
    Relay,
    /// Measures.
    Monitor,
    /// Opens directories as this user; the so-manieth.
    Opener(u32, u64),
    /// Was one of these, and is of no use any more.
    Replaced,
}

impl Launcher {
    /// A socket to the relay for a supervisor, which takes the place of the one before; the first has the relay started.
    pub(super) fn relay_socket(&mut self) -> io::Result<OwnedFd> {
        let (ours, theirs) = stockade_wire::socket::seqpacket_pair()?;
        let relay = match &mut self.relay {
            Some(relay) => relay,
            none => {
                let (pid, channel) = spawn::satellite("relay")?;
                self.satellites.insert(pid, Satellite::Relay);
                none.insert(Outbox::new(channel, RELAY, &self.poller)?)
            }
        };
        relay.send(&RelayCommand::Supervisor, vec![theirs], &self.poller);
        Ok(ours)
    }

    /// Started with the first run that lives long enough to be watched.
    pub(super) fn start_monitor(&mut self) -> io::Result<()> {
        if self.monitor.is_none() {
            let (pid, channel) = spawn::satellite("monitor")?;
            self.satellites.insert(pid, Satellite::Monitor);
            self.monitor = Some(Outbox::new(channel, MONITOR, &self.poller)?);
        }
        Ok(())
    }

    pub(super) fn watch(&mut self, number: u64) {
        let started = self.start_monitor();
        let Some(run) = self.runs.get_mut(&number) else { return };
        match started.and_then(|()| run.watch_order()) {
            Ok((command, descriptors)) => {
                if let Some(monitor) = &mut self.monitor {
                    monitor.send(&command, descriptors, &self.poller);
                }
            }
            // Its tool has begun.
            Err(error) => {
                let reason = format!("the process that watches it can't be started, or told of it: {error}");
                run.condemn(Outcome::Lost { reason });
            }
        }
    }

    /// One of them was reaped.
    pub(super) fn satellite_died(&mut self, pid: Pid) {
        match self.satellites.remove(&pid) {
            Some(Satellite::Monitor) => self.monitor_lost(),
            Some(Satellite::Relay) => self.relay_lost(),
            // Who asks it sees the end of its socket.
            Some(Satellite::Opener(..) | Satellite::Replaced) | None => {}
        }
    }

    /// Limits of the runs that it watched don't hold any more: they end. The next that is to be watched has another started.
    fn monitor_lost(&mut self) {
        self.monitor = None;
        self.replace(Satellite::Monitor);
        self.lose_all(Run::is_watched);
    }

    /// Nobody knows any more what runs have written: every run ends, and so does this launcher, for its supervisor has lost
    /// its way to the relay, too.
    fn relay_lost(&mut self) {
        self.relay = None;
        self.replace(Satellite::Relay);
        self.lose_all(|run| !run.is_spare());
        self.close();
    }

    /// What is left of those that there are is nothing to us when it's reaped, and mustn't linger until then.
    fn replace(&mut self, which: Satellite) {
        for (pid, satellite) in self.satellites.iter_mut().filter(|(_, satellite)| **satellite == which) {
            // Our own child, and not reaped yet: the pid is still its.
            let _ = rustix::process::kill_process(*pid, Signal::KILL);
            *satellite = Satellite::Replaced;
        }
    }

    fn lose_all(&mut self, which: impl Fn(&Run) -> bool) {
        let lost: Vec<u64> =
            self.runs.iter().filter(|(_, run)| which(run)).map(|(number, _)| *number).collect();
        for number in lost {
            let reason = "a process that watches the run died".to_owned();
            if let Some(run) = self.runs.get_mut(&number) {
                run.output_ended(Some(Outcome::Lost { reason }));
            }
            self.settle(number);
        }
    }

    pub(super) fn hear_monitor(&mut self, event: Ready) {
        let Some(monitor) = self.monitor.as_mut() else { return };
        if event.writable {
            drop(monitor.flush(&self.poller));
        }
        for _ in 0..if event.readable { MESSAGES_A_TURN } else { 0 } {
            let Some(monitor) = self.monitor.as_ref() else { return };
            match monitor.channel().receive::<MonitorReport>() {
                Ok(Some((report, _))) => self.monitored(&report),
                other => {
                    if closed(&other) {
                        self.monitor_lost();
                    }
                    return;
                }
            }
        }
    }

    pub(super) fn monitored(&mut self, report: &MonitorReport) {
        let Some(exec_id) = run::subject_of(report) else { return };
        let Some(number) = self.by_id.get(&exec_id).copied() else { return };
        let Some(run) = self.runs.get_mut(&number) else { return };
        if let Some(outcome) = run.monitored(report) {
            self.condemn(number, outcome);
            return self.settle(number);
        }
        if let MonitorReport::Warning { limit, value, bound, .. } = report {
            let (limit, value, bound) = (run::limit_name(*limit).to_owned(), *value, *bound);
            let message = FromLauncher::Warning { exec_id, limit, value, bound };
            self.supervisor.send(message, Vec::new(), &self.poller);
        }
    }

    pub(super) fn hear_relay(&mut self, event: Ready) {
        let Some(relay) = self.relay.as_mut() else { return };
        if event.writable {
            drop(relay.flush(&self.poller));
        }
        for _ in 0..if event.readable { MESSAGES_A_TURN } else { 0 } {
            let Some(relay) = self.relay.as_ref() else { return };
            match relay.channel().receive::<RelayReport>() {
                Ok(Some((report, _))) => self.relayed(report),
                other => {
                    if closed(&other) {
                        self.relay_lost();
                    }
                    return;
                }
            }
        }
    }

    pub(super) fn relayed(&mut self, report: RelayReport) {
        match report {
            RelayReport::OutputExceeded { exec_id, limit } => {
                self.output_ended(exec_id, Some(Outcome::OutputExceeded { limit }));
            }
            RelayReport::Idle { exec_id, limit_ms } => {
                self.condemn_id(exec_id, Outcome::TimedOut { clock: Clock::Idle, limit_ms });
            }
            RelayReport::Failed { exec_id, errno } => {
                self.output_ended(exec_id, Some(run::output_lost(errno)));
            }
            RelayReport::Drained { exec_id, .. } => self.output_ended(exec_id, None),
        }
    }

    pub(super) fn output_ended(&mut self, exec_id: ExecId, outcome: Option<Outcome>) {
        let Some(number) = self.by_id.get(&exec_id).copied() else { return };
        let Some(run) = self.runs.get_mut(&number) else { return };
        let awaited = run.awaits_relay();
        run.output_ended(outcome);
        if awaited {
            self.settle(number);
        }
    }
}

/// Whether a receive says that the other end is gone, or speaks another language.
fn closed<T>(received: &Result<Option<T>, ChannelError>) -> bool {
    match received {
        Ok(None) => true,
        Ok(Some(_)) => false,
        Err(error) => !error.would_block(),
    }
}
