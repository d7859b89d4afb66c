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
//! Reading order: this loop, [`check`], [`preparation`], [`spares`], [`progress`], [`mod@run`], [`templates`], [`bank`],
//! [`pressure`], [`verify`], [`satellites`], [`openers`], [`spawn`], [`outlet`], [`outbox`], [`upward`], [`records`], [`keeping`],
//! [`holding`], [`proof`], [`watchdog`].

pub use embedded::Embedded;
pub use spawn::{copy_as_launcher, may_copy};

mod bank;
pub(crate) mod check;
mod embedded;
mod holding;
mod keeping;
mod nameless;
mod openers;
mod outbox;
mod outlet;
mod preparation;
mod pressure;
mod progress;
mod proof;
mod records;
mod run;
mod satellites;
mod spares;
pub(crate) mod spawn;
mod specs;
mod strays;
mod templates;
mod uids;
mod upward;
mod verify;
mod watchdog;

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
use stockade_protocol::launch::{FromLauncher, Launch, ToLauncher};
use stockade_protocol::outcome::{CancelReason, Outcome};
use stockade_protocol::spec::SandboxSpec;

use crate::cgroup::{Cgroups, RunCgroup};
use crate::failure::Staged;
use crate::poller::{Interest, Poller, Ready};
use check::Permitted;
use holding::Held;
use keeping::{CALLER, DOOR, Keeping};
use nameless::Nameless;
use outbox::Outbox;
use pressure::Pressure;
use run::{Due, Run, Source};
use satellites::Satellite;
use specs::Specs;
use templates::Templates;
use uids::Uids;
use upward::Upward;
use watchdog::Watchdog;

const SUPERVISOR: u64 = 0;
const SIGNALS: u64 = 1;
const MONITOR: u64 = 2;
const RELAY: u64 = 3;
/// A run's number is its first token ([`Source`]). Below it are these, [`DOOR`] and [`CALLER`].
const FIRST_RUN: u64 = 2 * Source::COUNT;
/// A template's token is its number and this: no run's number ever comes so far.
const FIRST_TEMPLATE: u64 = 1 << 63;
/// Messages taken from one socket before the others have their turn.
const MESSAGES_A_TURN: usize = 32;

/// The launcher's life. `embedded`: one run of the CLI's, without relay and template.
pub(crate) fn run(channel: OwnedFd, embedded: bool) -> ExitCode {
    let launcher = alone().and_then(|()| Launcher::new(Some(channel), embedded));
    match launcher.and_then(|mut launcher| launcher.serve()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The life of an embedded launcher that is born with its run.
pub(crate) fn run_one(channel: OwnedFd, launch: Launch, spec: Arc<SandboxSpec>, descriptors: Vec<OwnedFd>) {
    // Whoever started it sees the end of its channel, whatever ends it.
    drop(alone().and_then(|()| Launcher::new(Some(channel), true)).and_then(|mut launcher| {
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
    satellites: HashMap<Pid, Satellite>,
    /// How many openers were started.
    openers_made: u64,
    /// Children that have ended and were nobody's.
    nameless: Nameless,
    runs: HashMap<u64, Run>,
    by_id: HashMap<ExecId, u64>,
    next_run: u64,
    specs: Specs,
    templates: Templates,
    /// Whether there is memory for spares.
    pressure: Pressure,
    /// When another spare is made, if one is wanted then: when a run has ended, or the one that took a spare goes on.
    refill_at: Option<Instant>,
    /// What was last said of the templates, and when there may be more to say.
    warmth: (Warmth, Option<Instant>),
    uids: Uids,
    cgroups: Option<Cgroups>,
    /// Groups of ended runs that the kernel hasn't let go yet.
    dying_groups: Vec<RunCgroup>,
    /// The namespaces that no run may be in.
    namespaces: verify::Namespaces,
    /// Runs that wait to be started.
    held: Held,
    /// What it has if it outlives its supervisor.
    keeping: Option<Keeping>,
    /// The supervisor has said so, or is gone for good: no new run, and the end once all have ended.
    closing: bool,
    /// Who ends a loop that doesn't turn, if anybody does.
    watchdog: Option<Watchdog>,
    /// Whether what the supervisor says of a run's owner needs no [`proof`]. `None`: nobody has greeted it, and nothing is done.
    believes: Option<bool>,
}

impl Launcher {
    /// `channel`: to the supervisor; `None`: within its process.
    fn new(channel: Option<OwnedFd>, embedded: bool) -> io::Result<Self> {
        let mut heard = SigSet::empty();
        heard.add(Signal::SIGCHLD);
        // An embedded one's is the command line's.
        if !embedded {
            heard.add(Signal::SIGTERM);
        }
        let mut blocked = heard;
        if !embedded {
            // What a stopped process gets from the kernel when its parent dies, before it's continued: runs outlive supervisors.
            blocked.add(Signal::SIGHUP);
        }
        nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&blocked), None)?;
        let signals = SignalFd::with_flags(&heard, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
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
            satellites: HashMap::new(),
            openers_made: 0,
            nameless: Nameless::default(),
            runs: HashMap::new(),
            by_id: HashMap::new(),
            next_run: FIRST_RUN,
            specs: Specs::default(),
            templates: Templates::default(),
            pressure: Pressure::default(),
            refill_at: None,
            warmth: (Warmth::default(), None),
            uids: Uids::new(embedded),
            // An embedded launcher lives in its caller's group, which isn't its own to rearrange.
            cgroups: if embedded { None } else { delegated() },
            dying_groups: Vec::new(),
            namespaces: verify::Namespaces::default(),
            held: Held::new(),
            keeping: None,
            closing: false,
            watchdog: if embedded { None } else { Watchdog::of_this_process() },
            // Within its caller's process there is nobody else.
            believes: embedded.then_some(true),
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
        // First what has become of guards: that a mount table has changed is told once, so with this untold a spare without its
        // guard would look fresh to whatever gives it out.
        ready.sort_by_key(|event| !is_of_a_guard(event.token));
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
            DOOR => self.hear_door(),
            CALLER => self.hear_caller(),
            token if token >= FIRST_TEMPLATE => self.order(token - FIRST_TEMPLATE),
            token => match Source::of(token) {
                (number, Source::Worker) => self.hear_worker(number),
                (number, Source::Mounts) => self.check_guard(number),
                (number, source) => self.hear_group(number, source),
            },
        }
    }

    fn hear_supervisor(&mut self, event: Ready) {
        if event.writable {
            drop(self.supervisor.outbox_mut().map(|outbox| outbox.flush(&self.poller)));
        }
        for _ in 0..if event.readable { MESSAGES_A_TURN } else { 0 } {
            let Some(outbox) = self.supervisor.outbox() else { return };
            match outbox.channel().receive::<ToLauncher>() {
                Ok(Some((message, descriptors))) => self.command(message, descriptors),
                Err(error) if error.would_block() => return,
                // It has died with something of ours unread. What it had said comes next.
                Err(error) if error.is_reset() => {}
                // A message we can't read is one we can't answer: the two aren't of one version.
                Ok(None) | Err(_) => return self.lose_supervisor(),
            }
        }
    }

    pub(super) fn command(&mut self, message: ToLauncher, descriptors: Vec<OwnedFd>) {
        // Who speaks is looked at when he greets.
        if self.believes.is_none() && !matches!(message, ToLauncher::Hello { .. }) {
            return self.close();
        }
        match message {
            ToLauncher::Hello { version, keep, parked } => self.hello(version, keep, parked, descriptors),
            ToLauncher::Spec { number, spec } => self.specs.take(number, spec, self.plan),
            ToLauncher::ForgetSpec { number } => self.specs.forget(number),
            ToLauncher::Launch(launch) => {
                let mut descriptors = descriptors;
                let proved = self.prove(&launch.owner, launch.proved, &mut descriptors);
                let within = proved.and_then(|()| self.specs.find(launch.spec));
                self.launch(*launch, within, descriptors);
            }
            ToLauncher::Hold(launch) => {
                let mut descriptors = descriptors;
                let proved = self.prove(&launch.owner, launch.proved, &mut descriptors);
                let within = proved.and_then(|()| self.specs.find(launch.spec));
                self.hold(*launch, within, descriptors);
            }
            ToLauncher::Start { exec_id } => self.start_held(exec_id),
            ToLauncher::Signal { exec_id, signal } => {
                if let Some(run) = self.run_mut(exec_id) {
                    run.signal(signal);
                }
            }
            ToLauncher::Cancel { exec_id, reason } => self.condemn_id(exec_id, Outcome::Cancelled { reason }),
            ToLauncher::Release { exec_ids } => {
                for exec_id in exec_ids {
                    self.release(exec_id);
                }
            }
            ToLauncher::ReleaseOutput { exec_id, next_seq } => self.release_output(exec_id, next_seq),
            ToLauncher::InputEnded { exec_id, bytes } => {
                if let Some(records) = self.supervisor.records_mut() {
                    records.input_ended(exec_id, bytes);
                }
            }
            ToLauncher::OutputExceeded { exec_id } => {
                let limit = self.run_mut(exec_id).and_then(|run| run.limits.output).unwrap_or(0);
                self.output_ended(exec_id, Some(Outcome::OutputExceeded { limit }));
            }
            ToLauncher::Shutdown => self.close(),
            ToLauncher::Opener { owner, proved } => self.start_opener(owner, proved, descriptors),
            // Terminals aren't there yet.
            _ => {}
        }
    }

    /// Ends every run, and the launcher after them.
    fn close(&mut self) {
        self.closing = true;
        drop(self.supervisor.outbox().map(|outbox| self.poller.remove(outbox.channel())));
        self.templates.clear();
        self.held.clear();
        let all: Vec<u64> = self.runs.keys().copied().collect();
        for number in all {
            self.condemn(number, Outcome::Cancelled { reason: CancelReason::Draining });
        }
    }

    /// The one launch of an embedded launcher, whose spec needs no number.
    fn launch_alone(&mut self, launch: Launch, spec: Arc<SandboxSpec>, descriptors: Vec<OwnedFd>) {
        let within = check::permit(spec, self.plan);
        self.launch(launch, within, descriptors);
    }

    fn launch(&mut self, launch: Launch, within: Staged<Permitted>, mut descriptors: Vec<OwnedFd>) {
        let input = if launch.note.fed { descriptors.pop() } else { None };
        if let Some(records) = self.supervisor.records_mut() {
            records.begin(&launch, input);
        }
        self.launch_recorded(launch, within, descriptors);
    }

    fn launch_recorded(&mut self, launch: Launch, within: Staged<Permitted>, descriptors: Vec<OwnedFd>) {
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

    fn run_mut(&mut self, exec_id: ExecId) -> Option<&mut Run> {
        self.by_id.get(&exec_id).and_then(|number| self.runs.get_mut(number))
    }

    fn condemn_id(&mut self, exec_id: ExecId, outcome: Outcome) {
        match self.by_id.get(&exec_id).copied() {
            Some(number) => self.condemn(number, outcome),
            None => self.give_up_held(exec_id, outcome),
        }
    }

    /// Decides a run's outcome, once, and kills it.
    fn condemn(&mut self, number: u64, outcome: Outcome) {
        if let Some(run) = self.runs.get_mut(&number) {
            run.condemn(outcome);
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let keeping = self.keeping_deadline();
        let runs = self.runs.values().filter_map(Run::deadline);
        let outboxes = [self.supervisor.outbox(), self.monitor.as_ref(), self.relay.as_ref()];
        let full = outboxes.into_iter().flatten().filter_map(Outbox::retry_at);
        let look = self.pressure.deadline().filter(|_| self.templates.has_spares());
        let pat = self.watchdog.as_ref().map(Watchdog::due);
        let ours = full.chain(look).chain(self.refill_at).chain(self.warmth.1).chain(keeping).chain(pat);
        runs.chain(ours).chain(self.templates.deadline()).min()
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
                Due::Start => self.start(number),
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
        self.retry(now);
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.pat(now);
        }
        for spare in self.templates.expired(now) {
            self.dismiss(spare);
        }
        if self.templates.has_spares() && self.pressure.is_short(now) {
            for spare in self.templates.shed() {
                self.dismiss(spare);
            }
        }
        self.refill(now);
        self.tell_warmth(now);
        self.end_rest(now);
        self.end_unclaimed(now);
        if self.alone_until().is_some_and(|at| at <= now) {
            self.close();
        }
    }

    /// Tries again what couldn't be sent because too many descriptors were on their way.
    fn retry(&mut self, now: Instant) {
        let ours = [self.supervisor.outbox_mut(), self.monitor.as_mut(), self.relay.as_mut()];
        for outbox in ours.into_iter().flatten().chain(self.templates.orders()) {
            if outbox.retry_at().is_some_and(|at| at <= now) {
                drop(outbox.flush(&self.poller));
            }
        }
    }

    /// Says what the templates did, a while after that has changed.
    fn tell_warmth(&mut self, now: Instant) {
        let (told, at) = self.warmth;
        let warmth = self.templates.warmth();
        self.warmth = match at {
            Some(at) if at <= now => {
                let made = self.templates.take_made();
                self.supervisor.send(FromLauncher::Warmth { warmth, made }, Vec::new(), &self.poller);
                (warmth, None)
            }
            None if (warmth != told || self.templates.has_made()) && !self.closing => {
                (told, Some(now + TELL_AFTER))
            }
            at => (told, at),
        };
    }
}

/// Whether a token is of a run's mount table.
fn is_of_a_guard(token: u64) -> bool {
    (FIRST_RUN..FIRST_TEMPLATE).contains(&token) && Source::of(token).1 == Source::Mounts
}

/// The delegated control group, if there is one that works. Else the monitor bounds memory, and every report says so.
fn delegated() -> Option<Cgroups> {
    let groups = Cgroups::detect().ok().flatten()?;
    // What a killed launcher left. Occupied ones are another launcher's, or dying.
    drop(groups.remove_leftovers());
    Some(groups)
}

/// How long after a change the supervisor is told what the templates did.
const TELL_AFTER: Duration = Duration::from_millis(100);
/// How long after a run took a spare another is made, if no run has ended before: most end sooner, and the processors are
/// theirs until then.
const REFILL_AFTER: Duration = Duration::from_millis(5);
/// How long after the end of a run was told: by then its client has heard of it, and goes on.
const REFILL_AFTER_END: Duration = Duration::from_micros(400);
/// How long after a spare the next one is made, if more are wanted.
const REFILL_NEXT: Duration = Duration::from_micros(500);
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
