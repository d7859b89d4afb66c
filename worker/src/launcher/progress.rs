//! A run's way through the launcher: what its worker says, what it's told, how it ends.

use std::time::Instant;

use nix::sys::signal::Signal;
use stockade_protocol::launch::FromLauncher;
use stockade_protocol::outcome::{CancelReason, Outcome};

use super::outlet::Relayed;
use super::run::{self, Progress, Run, Source, Stand};
use super::{Launcher, MESSAGES_A_TURN, REFILL_AFTER_END, strays};
use crate::monitor::MonitorCommand;
use crate::relay::RelayCommand;
use crate::sys;

impl Launcher {
    pub(super) fn hear_worker(&mut self, number: u64) {
        for _ in 0..MESSAGES_A_TURN {
            let Some(run) = self.runs.get_mut(&number) else { return };
            match run.receive(&self.namespaces) {
                Ok(Progress::Nothing) => return,
                Ok(Progress::More) => {}
                Ok(Progress::Named) => self.named(number),
                Ok(Progress::Parked) => self.parked(number),
                Ok(Progress::Stale) => return self.stale(number),
                Ok(Progress::Running) => self.announce(number),
                Ok(Progress::Ended) => return self.settle(number),
                Ok(Progress::Closed) => {
                    run.stop_listening(&self.poller);
                    return self.settle(number);
                }
                Err(_) if run.may_be_replaced() => return self.stale(number),
                Err(failure) => {
                    let template = run.template.filter(|_| run.is_spare());
                    self.condemn(number, Outcome::SetupFailed { failure });
                    if let Some(template) = template {
                        self.templates.give_up(template);
                    }
                }
            }
        }
    }

    /// A worker has a name. Its template writes to one socket with it, and is on another processor: it may have parked before, or
    /// ended, so that its end was nobody's.
    fn named(&mut self, number: u64) {
        let Some(run) = self.runs.get_mut(&number) else { return };
        let Some((pid, pidfd)) = run.unreaped_init() else { return };
        let end = self.nameless.end_of(pid, pidfd);
        if end.is_some_and(|end| run.reaped(&end)) {
            // What it said before it died comes next, then the end of its channel.
            return;
        }
        if run.waits_to_be_read() {
            self.parked(number);
        }
    }

    /// A worker waits, locked: read back what holds, arm the watchers, and let it start its tool, if it has one.
    pub(super) fn parked(&mut self, number: u64) {
        let Some(run) = self.runs.get_mut(&number) else { return };
        // Of one that was reaped nothing can be read back: its number may be another's.
        if run.is_condemned() || run.is_over() {
            return;
        }
        let parked_at = run.measured_age();
        if let Err(failure) = run.verify(&self.namespaces, &self.poller, number) {
            if run.may_be_replaced() {
                return self.stale(number);
            }
            return self.condemn(number, Outcome::SetupFailed { failure });
        }
        self.templates.made(parked_at.and_then(|parked_at| run.made(parked_at)));
        if run.is_spare() {
            let template = run.template.and_then(|number| self.templates.get(number));
            run.furnish(template.is_some_and(|template| template.relayed));
            self.templates.parked(run.age());
        } else {
            self.start(number);
        }
    }

    /// Lets a worker start its tool.
    pub(super) fn start(&mut self, number: u64) {
        let Some(run) = self.runs.get_mut(&number) else { return };
        if run.is_relayed() && self.relay.is_none() {
            return self.condemn(number, run::no_satellite("relay"));
        }
        run.start();
    }

    /// Tells that the tool runs, or ran, and has its output relayed: once. The relay comes first, so that it knows the run
    /// when the supervisor speaks of it.
    pub(super) fn announce(&mut self, number: u64) {
        let Some(run) = self.runs.get_mut(&number) else { return };
        let Some((message, relayed)) = run.announce() else { return };
        let mut beside = Vec::new();
        if let (Some((command, Relayed { for_relay, ring })), Some(relay)) = (relayed, self.relay.as_mut()) {
            relay.send(&command, for_relay, &self.poller);
            beside.push(ring);
        }
        self.supervisor.send(message, beside, &self.poller);
        if !run.is_over() {
            run.let_go();
        }
    }

    pub(super) fn reap(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            // Whoever started us wants us to end: systemd, where we are a unit of our own.
            if signal.ssi_signo == Signal::SIGTERM as u32 {
                self.close();
            }
        }
        while let Ok(Some(reaped)) = sys::try_wait(None) {
            let found = self.runs.iter_mut().find_map(|(number, run)| run.reaped(&reaped).then_some(*number));
            if let Some(number) = found {
                // What it said before it died is still in the channel, and decides what its death means.
                self.hear_worker(number);
                self.settle(number);
            } else if self.satellites.contains_key(&reaped.pid) {
                self.satellite_died(reaped.pid);
            } else {
                for spare in self.templates.died(reaped.pid) {
                    self.dismiss(spare);
                }
                self.nameless.keep(reaped);
            }
        }
    }

    /// Ends a run whose processes are gone.
    pub(super) fn settle(&mut self, number: u64) {
        let Some(run) = self.runs.get_mut(&number) else { return };
        run.set_astray(run.may_leave_strays() && strays::kill());
        match run.stand() {
            Stand::Alive => {}
            Stand::Sweep => {
                run.sweep();
                // Nothing to wait for where no sweeper could be started.
                if run.stand() == Stand::Over {
                    self.finish(number, true);
                }
            }
            Stand::Over if self.runs.get(&number).is_some_and(Run::may_be_replaced) => self.stale(number),
            Stand::Over => self.finish(number, true),
        }
    }

    /// Tells the supervisor how a run ended, once, and forgets it when its last process is reaped.
    pub(super) fn finish(&mut self, number: u64, reaped: bool) {
        if self.runs.get(&number).is_some_and(Run::may_have_run) {
            self.announce(number);
        }
        let Some(run) = self.runs.get_mut(&number) else { return };
        if run.awaits_relay() {
            return;
        }
        let exec_id = run.exec_id;
        if let Some(message) = run.end(reaped) {
            self.supervisor.send(message, Vec::new(), &self.poller);
            if let (true, Some(monitor)) = (run.is_watched(), self.monitor.as_mut()) {
                monitor.send(&MonitorCommand::Unwatch { exec_id }, Vec::new(), &self.poller);
            }
            if let (true, Some(relay)) = (run.has_idle_clock(), self.relay.as_mut()) {
                relay.send(&RelayCommand::Ended { exec_id }, Vec::new(), &self.poller);
            }
            run.let_go();
            self.refill_at = self.refill_at.map(|at| at.min(Instant::now() + REFILL_AFTER_END));
        }
        if run.is_reaped() {
            if run.was_unreaped() {
                self.supervisor.send(FromLauncher::Reaped { exec_id }, Vec::new(), &self.poller);
            }
            self.forget(number);
        }
    }

    pub(super) fn forget(&mut self, number: u64) {
        if let Some(run) = self.runs.remove(&number) {
            self.templates.forget_spare(number);
            if self.by_id.get(&run.exec_id) == Some(&number) {
                self.by_id.remove(&run.exec_id);
            }
            self.dying_groups.extend(run.release(&self.poller, &mut self.uids, &mut self.templates));
            self.dying_groups.retain(|group| !group.try_remove().unwrap_or(true));
        }
    }

    /// The run's mount table has changed: are all its masks still there?
    pub(super) fn check_guard(&mut self, number: u64) {
        // Of one that is over, we take away ourselves what masks lay on.
        let Some(run) = self.runs.get_mut(&number).filter(|run| !run.is_over()) else { return };
        if let Some(path) = run.dissolved_guard() {
            if run.may_be_replaced() {
                return self.stale(number);
            }
            self.condemn(number, Outcome::Cancelled { reason: CancelReason::GuardDissolved { path } });
        }
    }

    /// The run's control group tells that a limit was met, or is near.
    pub(super) fn hear_group(&mut self, number: u64, source: Source) {
        let Some(run) = self.runs.get_mut(&number) else { return };
        let exec_id = run.exec_id;
        let (outcome, warning) = run.group_event(source);
        if let Some((value, bound)) = warning {
            let message = FromLauncher::Warning { exec_id, limit: "memory".to_owned(), value, bound };
            self.supervisor.send(message, Vec::new(), &self.poller);
        }
        if let Some(outcome) = outcome {
            self.condemn(number, outcome);
        }
    }
}
