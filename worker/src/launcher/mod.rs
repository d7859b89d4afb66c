//! The launcher: one thread, no parser, privileged in system mode. It clones, waits, forwards and checks.
//!
//! A run's states here:
//!
//! ```text
//! Preparing ── Parked, verified ──> (a spare waits) ──> Starting ── Running ──> Running ── Ended / init's death ──> Ended (sent)
//!     └────────────┴── Failed, limit, cancel ──> verdict set, killed ── init reaped ──> Ended (sent)
//! ```
//!
//! Every limit that ends a run is armed here or in a process of this tree (monitor, relay), so limits hold while
//! nobody supervises. It never touches a client's filesystem, and never waits for anything but its poller.
//! Reading order: this loop, [`mod@run`], [`check`], `specs`, [`preparation`], [`templates`], [`verify`], [`spawn`], [`outbox`].

pub use embedded::Embedded;
pub use spawn::{copy_as_launcher, may_copy};

mod check;
mod embedded;
mod outbox;
mod preparation;
mod run;
pub(crate) mod spawn;
mod specs;
mod strays;
mod templates;
mod uids;
mod upward;
mod verify;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::Pid;
use stockade_protocol::ExecId;
use stockade_protocol::confinement::{Plan, Warmth};
use stockade_protocol::launch::{FromLauncher, LAUNCH_VERSION, Launch, ToLauncher};
use stockade_protocol::outcome::{CancelReason, Clock, MemoryMechanism, Outcome, SetupStage};
use stockade_protocol::spec::SandboxSpec;
use stockade_wire::channel::ChannelError;

use crate::cgroup::{Cgroups, RunCgroup};
use crate::failure::{Staged, failed};
use crate::messages::Prepare;
use crate::monitor::{MonitorCommand, MonitorReport};
use crate::poller::{Interest, Poller, Ready};
use crate::relay::{RelayCommand, RelayReport};
use crate::sys;
use check::Permitted;
use outbox::Outbox;
use preparation::Order;
use run::{Assigned, Due, Maker, Progress, Run, Source, Stand};
use specs::Specs;
use templates::Templates;
use uids::Uids;
use upward::Upward;

const SUPERVISOR: u64 = 0;
const SIGNALS: u64 = 1;
const MONITOR: u64 = 2;
const RELAY: u64 = 3;
/// A run's number is its first token ([`Source`]).
const FIRST_RUN: u64 = Source::COUNT;
/// Messages taken from one socket before the others have their turn.
const MESSAGES_A_TURN: usize = 32;

/// The launcher's life. `embedded`: one run of the CLI's, without relay and template; `parked`: the most workers that wait
/// for one template's next runs.
pub(crate) fn run(channel: OwnedFd, embedded: bool, parked: usize) -> ExitCode {
    let launcher = alone().and_then(|()| Launcher::new(Some(channel), embedded, parked));
    match launcher.and_then(|mut launcher| launcher.serve()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The life of an embedded launcher that is born with its run.
pub(crate) fn run_one(channel: OwnedFd, launch: Launch, spec: Arc<SandboxSpec>, descriptors: Vec<OwnedFd>) {
    // Whoever started it sees the end of its channel, whatever ends it.
    drop(alone().and_then(|()| Launcher::new(Some(channel), true, 0)).and_then(|mut launcher| {
        launcher.launch_alone(launch, spec, descriptors);
        launcher.serve()
    }));
}

/// What befits a process that is a launcher and nothing else.
fn alone() -> io::Result<()> {
    // Two or three descriptors a run. A refusal shows as the failure of the run that finds none.
    drop(rlimit::increase_nofile_limit(u64::MAX));
    // Orphans of runs without a pid namespace come here when their own init is killed.
    Ok(rustix::process::set_child_subreaper(Some(Pid::INIT))?)
}

struct Launcher {
    embedded: bool,
    plan: Plan,
    poller: Poller,
    signals: SignalFd,
    supervisor: Upward,
    monitor: Option<Outbox>,
    relay: Option<Outbox>,
    satellites: Vec<Pid>,
    runs: HashMap<u64, Run>,
    by_id: HashMap<ExecId, u64>,
    next_run: u64,
    specs: Specs,
    templates: Templates,
    /// When another spare is made, if one is wanted then: not while the run that took one starts.
    refill_at: Option<Instant>,
    /// What was last said of the templates, and when there may be more to say.
    warmth: (Warmth, Option<Instant>),
    uids: Uids,
    cgroups: Option<Cgroups>,
    /// Groups of ended runs that the kernel hasn't let go yet.
    dying_groups: Vec<RunCgroup>,
    /// The namespaces that no run may be in.
    namespaces: verify::Namespaces,
    /// The supervisor is gone or has said so: no new run, and the end once all have ended.
    closing: bool,
}

impl Launcher {
    /// `channel`: to the supervisor; `None`: within its process.
    fn new(channel: Option<OwnedFd>, embedded: bool, parked: usize) -> io::Result<Self> {
        let mut children = SigSet::empty();
        children.add(Signal::SIGCHLD);
        nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&children), None)?;
        let signals = SignalFd::with_flags(&children, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let poller = Poller::new()?;
        poller.add(&signals, SIGNALS, Interest::Read)?;
        let supervisor = match channel {
            Some(channel) => Upward::apart(channel, SUPERVISOR, &poller)?,
            None => Upward::Here(VecDeque::new()),
        };
        let plan = if rustix::process::geteuid().is_root() { Plan::System } else { Plan::User };
        Ok(Self {
            embedded,
            plan,
            poller,
            signals,
            supervisor,
            monitor: None,
            relay: None,
            satellites: Vec::new(),
            runs: HashMap::new(),
            by_id: HashMap::new(),
            next_run: FIRST_RUN,
            specs: Specs::default(),
            templates: Templates::new(parked),
            refill_at: None,
            warmth: (Warmth::default(), None),
            uids: Uids::default(),
            // An embedded launcher lives in its caller's group, which isn't its own to rearrange.
            cgroups: if embedded { None } else { delegated() },
            dying_groups: Vec::new(),
            namespaces: verify::Namespaces::default(),
            closing: false,
        })
    }

    fn serve(&mut self) -> io::Result<()> {
        while !(self.closing && self.runs.is_empty()) {
            let timeout = self.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
            self.turn(timeout)?;
        }
        Ok(())
    }

    /// Waits for something to do, so long at the most, and does it.
    fn turn(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let mut ready = Vec::new();
        self.poller.wait(&mut ready, timeout)?;
        for event in &ready {
            self.handle(*event);
        }
        self.expire(Instant::now());
        Ok(())
    }

    fn handle(&mut self, event: Ready) {
        match event.token {
            SUPERVISOR => self.hear_supervisor(event),
            SIGNALS => self.reap(),
            MONITOR => self.hear_monitor(event),
            RELAY => self.hear_relay(event),
            token => match Source::of(token) {
                (number, Source::Worker) => self.hear_worker(number),
                (number, Source::Mounts) => self.check_guard(number),
                (number, source) => self.hear_group(number, source),
            },
        }
    }

    fn hear_supervisor(&mut self, event: Ready) {
        if event.writable {
            self.supervisor.flush(&self.poller);
        }
        for _ in 0..if event.readable { MESSAGES_A_TURN } else { 0 } {
            let Some(channel) = self.supervisor.channel() else { return };
            match channel.receive::<ToLauncher>() {
                Ok(Some((message, descriptors))) => self.command(message, descriptors),
                Err(error) if error.would_block() => return,
                // A message we can't read is one we can't answer: the two aren't of one version.
                Ok(None) | Err(_) => return self.close(),
            }
        }
    }

    fn command(&mut self, message: ToLauncher, descriptors: Vec<OwnedFd>) {
        match message {
            ToLauncher::Hello { version } => self.hello(version),
            ToLauncher::Spec { number, spec } => self.specs.take(number, spec, self.plan),
            ToLauncher::ForgetSpec { number } => self.specs.forget(number),
            ToLauncher::Launch(launch) => {
                let within = self.specs.find(launch.spec);
                self.launch(*launch, within, descriptors);
            }
            ToLauncher::Signal { exec_id, signal } => {
                if let Some(run) = self.run_mut(exec_id) {
                    run.signal(signal);
                }
            }
            ToLauncher::Cancel { exec_id, reason } => self.condemn_id(exec_id, Outcome::Cancelled { reason }),
            ToLauncher::OutputExceeded { exec_id } => {
                let limit = self.run_mut(exec_id).and_then(|run| run.limits.output).unwrap_or(0);
                self.condemn_id(exec_id, Outcome::OutputExceeded { limit });
            }
            ToLauncher::Shutdown => self.close(),
            // Terminals aren't there yet.
            _ => {}
        }
    }

    fn hello(&mut self, version: u16) {
        if version != LAUNCH_VERSION {
            return self.close();
        }
        let mut beside = Vec::new();
        if !self.embedded {
            match self.start_relay() {
                Ok(socket) => beside.push(socket),
                Err(_) => return self.close(),
            }
        }
        let hello = FromLauncher::Hello {
            version: LAUNCH_VERSION,
            pid: std::process::id(),
            plan: self.plan,
            memory: if self.cgroups.is_some() { MemoryMechanism::Cgroup } else { MemoryMechanism::Monitor },
        };
        self.supervisor.send(hello, beside, &self.poller);
    }

    /// Ends every run, and the launcher after them.
    fn close(&mut self) {
        self.closing = true;
        self.supervisor.stop_listening(&self.poller);
        self.templates.clear();
        let all: Vec<u64> = self.runs.keys().copied().collect();
        for number in all {
            self.condemn(number, Outcome::Cancelled { reason: CancelReason::Draining });
        }
    }

    fn start_relay(&mut self) -> io::Result<OwnedFd> {
        let (pid, channel) = spawn::satellite("relay")?;
        let (ours, theirs) = stockade_wire::socket::seqpacket_pair()?;
        let mut relay = Outbox::new(channel, RELAY, &self.poller)?;
        relay.send(&RelayCommand::Supervisor, vec![theirs], &self.poller);
        self.satellites.push(pid);
        self.relay = Some(relay);
        Ok(ours)
    }

    /// Started with the first run that lives long enough to be watched.
    fn start_monitor(&mut self) -> io::Result<()> {
        if self.monitor.is_none() {
            let (pid, channel) = spawn::satellite("monitor")?;
            self.satellites.push(pid);
            self.monitor = Some(Outbox::new(channel, MONITOR, &self.poller)?);
        }
        Ok(())
    }

    fn watch(&mut self, number: u64) {
        let started = self.start_monitor();
        let Some(run) = self.runs.get_mut(&number) else { return };
        match (started, self.monitor.as_mut()) {
            (Ok(()), Some(monitor)) => {
                let (command, descriptors) = run.watch_order();
                monitor.send(&command, descriptors, &self.poller);
            }
            _ => run.condemn(run::no_satellite("monitor")),
        }
    }

    /// The one launch of an embedded launcher, whose spec needs no number.
    fn launch_alone(&mut self, launch: Launch, spec: Arc<SandboxSpec>, descriptors: Vec<OwnedFd>) {
        let within = check::permit(spec, self.plan);
        self.launch(launch, within, descriptors);
    }

    fn launch(&mut self, launch: Launch, within: Staged<Permitted>, descriptors: Vec<OwnedFd>) {
        let exec_id = launch.exec_id;
        let ordered = within.and_then(|within| {
            check::permit_launch(&launch, &within, self.closing)?;
            preparation::order(launch, within, descriptors)
        });
        if let Err(failure) = ordered.and_then(|order| self.carry_out(order)) {
            let ended = run::failed_to_begin(exec_id, failure);
            self.supervisor.send(ended, Vec::new(), &self.poller);
        }
    }

    /// Gives an order to a spare, else to a new worker.
    fn carry_out(&mut self, order: Order) -> Staged<()> {
        let Order { exec_id, prepare, mut workspace, command, stdio, in_vain } = order;
        let number = if self.embedded {
            self.begin_with(prepare, Maker::Launcher(workspace.take(), &command, &stdio))?
        } else {
            let template = self.templates.find(&prepare, workspace.as_ref())?;
            self.refill_at.get_or_insert_with(|| Instant::now() + REFILL_AFTER);
            let spare = self.spare(template);
            self.templates.count(spare.is_some());
            match spare {
                Some(number) => number,
                None => self.begin(template)?,
            }
        };
        let Some(run) = self.runs.get_mut(&number) else { return Ok(()) };
        self.by_id.insert(exec_id, number);
        if let Err(failure) = run.assign(exec_id, Assigned { command, workspace, stdio, in_vain }) {
            self.condemn(number, Outcome::SetupFailed { failure });
        } else if run.is_ready() {
            self.start(number);
        }
        Ok(())
    }

    /// A spare of a template that can be used.
    fn spare(&mut self, template: u64) -> Option<u64> {
        while let Some(number) = self.templates.take_spare(template) {
            if self.runs.get_mut(&number).is_some_and(Run::is_fresh) {
                return Some(number);
            }
            self.dismiss(number);
        }
        None
    }

    /// Has a template make a worker: a spare, until it's assigned.
    fn begin(&mut self, template: u64) -> Staged<u64> {
        let gone = || failed(SetupStage::Template, libc::ESRCH, "template");
        let template = self.templates.get(template).ok_or_else(gone)?;
        let prepare = template.prepare().clone();
        let run = Run::begin(prepare, Maker::Template(template), &mut self.uids, self.cgroups.as_ref())?;
        self.add(run)
    }

    /// Makes a worker for the one run there is.
    fn begin_with(&mut self, prepare: Prepare, maker: Maker<'_>) -> Staged<u64> {
        let run = Run::begin(prepare, maker, &mut self.uids, self.cgroups.as_ref())?;
        self.add(run)
    }

    fn add(&mut self, run: Run) -> Staged<u64> {
        let number = self.next_run;
        let run = run.listen(&self.poller, number)?;
        self.next_run += Source::COUNT;
        self.runs.insert(number, run);
        Ok(number)
    }

    /// Makes a spare, if one is wanted.
    fn refill(&mut self, now: Instant) {
        if self.refill_at.is_none_or(|at| at > now) {
            return;
        }
        self.refill_at = None;
        let Some(template) = self.templates.wanting().filter(|_| !self.closing) else { return };
        match self.begin(template) {
            Ok(number) => {
                self.templates.add_spare(template, number);
                if let Some(run) = self.runs.get_mut(&number) {
                    run.ahead = true;
                }
                self.refill_at = Some(now + REFILL_AFTER);
            }
            // Whoever asks for a run is told why there is none.
            Err(_) => self.templates.give_up(template),
        }
    }

    /// Ends a spare that nobody will use.
    fn dismiss(&mut self, number: u64) {
        self.condemn(number, Outcome::Cancelled { reason: CancelReason::Draining });
        self.settle(number);
    }

    fn run_mut(&mut self, exec_id: ExecId) -> Option<&mut Run> {
        self.by_id.get(&exec_id).and_then(|number| self.runs.get_mut(number))
    }

    fn hear_worker(&mut self, number: u64) {
        for _ in 0..MESSAGES_A_TURN {
            let Some(run) = self.runs.get_mut(&number) else { return };
            match run.receive(&self.namespaces) {
                Ok(Progress::Nothing) => return,
                Ok(Progress::More) => {}
                Ok(Progress::Parked) => self.parked(number),
                Ok(Progress::Stale) => return self.stale(number),
                Ok(Progress::Running) => self.running(number),
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

    /// A worker waits, locked: read back what holds, arm the watchers, and let it start its tool, if it has one.
    fn parked(&mut self, number: u64) {
        let Some(run) = self.runs.get_mut(&number) else { return };
        if run.is_condemned() {
            return;
        }
        if let Err(failure) = run.verify(&self.namespaces, &self.poller, number) {
            if run.may_be_replaced() {
                return self.stale(number);
            }
            return self.condemn(number, Outcome::SetupFailed { failure });
        }
        if run.is_spare() {
            self.templates.parked(run.age());
        } else {
            self.start(number);
        }
    }

    /// Lets a worker start its tool.
    fn start(&mut self, number: u64) {
        let Some(run) = self.runs.get_mut(&number) else { return };
        if let Some((command, descriptors)) = run.relay_order() {
            let Some(relay) = self.relay.as_mut() else {
                return self.condemn(number, run::no_satellite("relay"));
            };
            relay.send(&command, descriptors, &self.poller);
        }
        run.start();
    }

    /// A spare was given out and is of no use: what must be guarded has come to be since, or it died. Another worker takes its
    /// place.
    fn stale(&mut self, number: u64) {
        let Some(order) = self.runs.get_mut(&number).and_then(Run::take_back) else {
            let failure = failed(SetupStage::Guard, libc::ESTALE, "guarded names that come and go");
            // Of one that was cancelled, that's what is told.
            self.condemn(number, Outcome::SetupFailed { failure });
            return self.settle(number);
        };
        self.dismiss(number);
        let exec_id = order.exec_id;
        self.by_id.remove(&exec_id);
        if let Err(failure) = self.carry_out(order) {
            let ended = run::failed_to_begin(exec_id, failure);
            self.supervisor.send(ended, Vec::new(), &self.poller);
        }
    }

    fn running(&mut self, number: u64) {
        let Some(run) = self.runs.get_mut(&number) else { return };
        let (message, descriptors) = run.started();
        self.supervisor.send(message, descriptors, &self.poller);
    }

    fn condemn_id(&mut self, exec_id: ExecId, outcome: Outcome) {
        if let Some(number) = self.by_id.get(&exec_id).copied() {
            self.condemn(number, outcome);
        }
    }

    /// Decides a run's outcome, once, and kills it.
    fn condemn(&mut self, number: u64, outcome: Outcome) {
        if let Some(run) = self.runs.get_mut(&number) {
            run.condemn(outcome);
        }
    }

    fn reap(&mut self) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        while let Ok(Some(reaped)) = sys::try_wait(None) {
            let found = self.runs.iter_mut().find_map(|(number, run)| run.reaped(&reaped).then_some(*number));
            if let Some(number) = found {
                // What it said before it died is still in the channel, and decides what its death means.
                self.hear_worker(number);
                self.settle(number);
            } else if self.satellites.contains(&reaped.pid) {
                self.satellite_died(reaped.pid);
            } else {
                for spare in self.templates.died(reaped.pid) {
                    self.dismiss(spare);
                }
            }
        }
    }

    /// Without a relay or a monitor limits don't hold: every run ends, and so does this launcher.
    fn satellite_died(&mut self, pid: Pid) {
        self.satellites.retain(|other| *other != pid);
        let all: Vec<u64> = self.runs.keys().copied().collect();
        for number in all {
            let reason = "a process that watches the run died".to_owned();
            self.condemn(number, Outcome::Lost { reason });
        }
        self.closing = true;
    }

    /// Ends a run whose processes are gone.
    fn settle(&mut self, number: u64) {
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
    fn finish(&mut self, number: u64, reaped: bool) {
        let Some(run) = self.runs.get_mut(&number) else { return };
        let exec_id = run.exec_id;
        if let Some(message) = run.end(reaped) {
            self.supervisor.send(message, Vec::new(), &self.poller);
            if let Some(monitor) = self.monitor.as_mut() {
                monitor.send(&MonitorCommand::Unwatch { exec_id }, Vec::new(), &self.poller);
            }
            if let (true, Some(relay)) = (run.is_relayed(), self.relay.as_mut()) {
                relay.send(&RelayCommand::Ended { exec_id }, Vec::new(), &self.poller);
            }
        }
        if run.is_reaped() {
            if run.was_unreaped() {
                self.supervisor.send(FromLauncher::Reaped { exec_id }, Vec::new(), &self.poller);
            }
            self.forget(number);
        }
    }

    fn forget(&mut self, number: u64) {
        if let Some(run) = self.runs.remove(&number) {
            self.templates.forget_spare(number);
            if self.by_id.get(&run.exec_id) == Some(&number) {
                self.by_id.remove(&run.exec_id);
            }
            self.dying_groups.extend(run.release(&self.poller, &mut self.uids));
            self.dying_groups.retain(|group| !group.try_remove().unwrap_or(true));
        }
    }

    fn hear_monitor(&mut self, event: Ready) {
        let Some(monitor) = self.monitor.as_mut() else { return };
        if event.writable {
            monitor.flush(&self.poller);
        }
        for _ in 0..if event.readable { MESSAGES_A_TURN } else { 0 } {
            let Some(monitor) = self.monitor.as_ref() else { return };
            match monitor.channel().receive::<MonitorReport>() {
                Ok(Some((report, _))) => self.monitored(&report),
                other => {
                    if closed(&other) {
                        self.monitor = None;
                    }
                    return;
                }
            }
        }
    }

    fn monitored(&mut self, report: &MonitorReport) {
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

    fn hear_relay(&mut self, event: Ready) {
        let Some(relay) = self.relay.as_mut() else { return };
        if event.writable {
            relay.flush(&self.poller);
        }
        for _ in 0..if event.readable { MESSAGES_A_TURN } else { 0 } {
            let Some(relay) = self.relay.as_ref() else { return };
            match relay.channel().receive::<RelayReport>() {
                Ok(Some((report, _))) => self.relayed(report),
                other => {
                    if closed(&other) {
                        self.relay = None;
                    }
                    return;
                }
            }
        }
    }

    fn relayed(&mut self, report: RelayReport) {
        match report {
            RelayReport::OutputExceeded { exec_id, limit } => {
                self.condemn_id(exec_id, Outcome::OutputExceeded { limit });
            }
            RelayReport::Idle { exec_id, limit_ms } => {
                self.condemn_id(exec_id, Outcome::TimedOut { clock: Clock::Idle, limit_ms });
            }
            RelayReport::Failed { exec_id, errno } => {
                let reason = format!("its output could not be relayed (errno {errno})");
                self.condemn_id(exec_id, Outcome::Lost { reason });
            }
            RelayReport::Drained { .. } => {}
        }
    }

    /// The run's mount table has changed: are all its masks still there?
    fn check_guard(&mut self, number: u64) {
        let Some(run) = self.runs.get_mut(&number) else { return };
        if let Some(path) = run.dissolved_guard() {
            if run.may_be_replaced() {
                return self.stale(number);
            }
            self.condemn(number, Outcome::Cancelled { reason: CancelReason::GuardDissolved { path } });
        }
    }

    /// The run's control group tells that a limit was met, or is near.
    fn hear_group(&mut self, number: u64, source: Source) {
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

    fn next_deadline(&self) -> Option<Instant> {
        let runs = self.runs.values().filter_map(Run::deadline);
        runs.chain(self.templates.deadline()).chain(self.refill_at).chain(self.warmth.1).min()
    }

    fn expire(&mut self, now: Instant) {
        let due: Vec<u64> = self
            .runs
            .iter()
            .filter(|(_, run)| run.deadline().is_some_and(|at| at <= now))
            .map(|(n, _)| *n)
            .collect();
        for number in due {
            let Some(run) = self.runs.get_mut(&number) else { continue };
            match run.expire(now) {
                Due::Settle => self.settle(number),
                Due::Watch => self.watch(number),
                Due::Unreaped => self.finish(number, false),
                Due::Stuck => {
                    // Its template didn't even clone it.
                    if let Some(template) = self.runs.get(&number).and_then(|run| run.template) {
                        self.templates.kill(template);
                    }
                    self.settle(number);
                }
            }
        }
        for spare in self.templates.expired(now) {
            self.dismiss(spare);
        }
        self.refill(now);
        self.tell_warmth(now);
    }

    /// Says what the templates did, a while after that has changed.
    fn tell_warmth(&mut self, now: Instant) {
        let (told, at) = self.warmth;
        let warmth = self.templates.warmth();
        self.warmth = match at {
            Some(at) if at <= now => {
                self.supervisor.send(FromLauncher::Warmth { warmth }, Vec::new(), &self.poller);
                (warmth, None)
            }
            None if warmth != told && !self.closing => (told, Some(now + TELL_AFTER)),
            at => (told, at),
        };
    }
}

/// The delegated control group, if there is one that works. Else the monitor bounds memory, and every report says so.
fn delegated() -> Option<Cgroups> {
    let groups = Cgroups::detect().ok().flatten()?;
    // What a killed launcher left. Occupied ones are another launcher's, or dying.
    drop(groups.remove_leftovers());
    Some(groups)
}

/// Whether a receive says that the other end is gone, or speaks another language.
fn closed<T>(received: &Result<Option<T>, ChannelError>) -> bool {
    match received {
        Ok(None) => true,
        Ok(Some(_)) => false,
        Err(error) => !error.would_block(),
    }
}

/// How long after a change the supervisor is told what the templates did.
const TELL_AFTER: Duration = Duration::from_millis(100);
/// How long after a run took a spare another is made.
const REFILL_AFTER: Duration = Duration::from_micros(500);
/// How many workers may be of no use to a run before it fails.
const WORKERS_IN_VAIN: u8 = 16;
/// How long a set-up may take before it's given up: a dead mount stops it for ever.
const SETUP_BOUND: Duration = Duration::from_secs(15);
/// How long after the kill a run may take to be reaped before it's reported as not reaped.
const REAP_BOUND: Duration = Duration::from_secs(2);
/// How long after an unexplained death of init its explanation (the monitor's report) may take.
const WORD_BOUND: Duration = Duration::from_millis(200);
/// How long a run lives before the monitor is told of it: less than the monitor's own tick, so that it misses no
/// sample, and short runs cost no message.
const WATCH_AFTER: Duration = Duration::from_millis(5);
/// How long a run's end may wait for its placeholders to be removed.
const SWEEP_BOUND: Duration = Duration::from_secs(2);
/// How often a dying run without a pid namespace is looked through for new processes.
const SWEEP: Duration = Duration::from_millis(5);
