//! One run as the launcher sees it: its processes, what they say and what they are told. Its deadlines are in `clock`, the
//! one outcome it will have in `report`, what holds of its worker in `held`, its standard
//! descriptors in `ends`, what is said in `talk`.

mod clock;
mod ends;
mod held;
mod report;
mod talk;

pub(crate) use report::{failed_to_begin, never_begun, output_lost};

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use stockade_protocol::confinement::{Confinement, Plan};
use stockade_protocol::outcome::{Clock, Outcome, SetupFailure, SetupStage};
use stockade_protocol::spec::Limits;
use stockade_protocol::{Bytes, ExecId};
use stockade_wire::channel::Channel;

use super::preparation::{Order, Stdio, take_ids};
use super::templates::{Template, Templates};
use super::uids::Uids;
use super::{SWEEP_BOUND, WORKERS_IN_VAIN, spawn, verify};
use crate::cgroup::{CgroupError, Cgroups, Counters, Growth, RunCgroup};
use crate::failure::{At, Staged, failed};
use crate::init;
use crate::messages::{Command, Ended, Parked, Prepare, Sweep, ToTemplate, Used};
use crate::monitor::{Breached, MonitorReport};
use crate::poller::Poller;
use crate::stages::network::Slot;
use crate::stages::sources;
use crate::sys::Reaped;
use ends::Ends;

/// Which of a run's descriptors has something to tell: what is added to its number for their tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The worker's channel.
    Worker = 0,
    /// Its mount table.
    Mounts = 1,
    /// Its control group's memory events.
    Memory = 2,
    /// Its control group's process events.
    Processes = 3,
}

impl Source {
    /// How many tokens a run has.
    pub(crate) const COUNT: u64 = 4;

    /// The run's number and the source that a token stands for.
    pub(crate) fn of(token: u64) -> (u64, Self) {
        let source = match token % Self::COUNT {
            0 => Self::Worker,
            1 => Self::Mounts,
            2 => Self::Memory,
            _ => Self::Processes,
        };
        (token - token % Self::COUNT, source)
    }
}

/// What a message from a worker means for the launcher.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// No message waits.
    Nothing,
    /// Taken; nothing to do.
    More,
    /// Its worker is known by now, and may have ended before.
    Named,
    /// The worker is parked.
    Parked,
    /// It can't be used any more, and has started nothing.
    Stale,
    /// The tool runs.
    Running,
    /// The tool has ended and nothing of the run is left but init.
    Ended,
    /// Nobody is at the other end any more.
    Closed,
}

/// Who makes a worker.
#[derive(Debug)]
pub(crate) enum Maker<'a> {
    /// A template, which is asked as soon as its channel has room, with a network namespace to use again.
    Template(&'a mut Template, Option<Slot>, &'a Poller),
    /// The launcher itself (embedded), with the workspace if it was passed, and what it will run.
    Launcher(Option<OwnedFd>, &'a Command, [&'a OwnedFd; 3]),
}

/// What a worker is told when it's parked. Until the tool runs, so that another can be told if this one is stale.
#[derive(Debug)]
pub(crate) struct Assigned {
    pub(crate) command: Command,
    pub(crate) workspace: Option<OwnedFd>,
    pub(crate) stdio: Stdio,
    /// How many workers were of no use to it before this one.
    pub(crate) in_vain: u8,
}

/// One run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) exec_id: ExecId,
    pub(crate) limits: Limits,
    prepare: Prepare,
    /// `None`: a spare, which has been told nothing yet.
    assigned: Option<Assigned>,
    /// Its standard descriptors, as far as they are ours.
    ends: Ends,
    /// When it's told its command again: too many descriptors were on their way.
    start_at: Option<Instant>,
    /// Whether it was said that the tool runs.
    announced: bool,
    /// The number of its template.
    pub(crate) template: Option<u64>,
    channel: Channel,
    init: Option<(Pid, OwnedFd)>,
    parked: Option<(Parked, Vec<OwnedFd>)>,
    /// What was read back of it before it was parked.
    early: verify::Early,
    /// Read back when it's parked.
    confinement: Option<Box<Confinement>>,
    mountinfo: Option<File>,
    /// Its network namespace, if another may have it when this run is over.
    network: Option<Slot>,
    cgroup: Option<RunCgroup>,
    growth: Option<Growth>,
    counters: Option<Counters>,
    placed: Vec<(Bytes, OwnedFd)>,
    made: Vec<Bytes>,
    sweeper: Option<(Pid, Instant)>,
    listening: bool,
    begun: Instant,
    started: Option<Instant>,
    ended_at: Option<Instant>,
    condemned_at: Option<Instant>,
    /// When its processes were last killed.
    killed_at: Option<Instant>,
    /// Since when there have been orphans of it, and when they are looked for again.
    astray: Option<(Instant, Instant)>,
    unexplained_since: Option<Instant>,
    verdict: Option<Outcome>,
    ended: Option<Box<Ended>>,
    init_end: Option<(i32, Used)>,
    sampled: (u64, u64),
    watched: bool,
    warned: bool,
    told: bool,
    unreaped: bool,
    /// Whether it was made before its run was asked for.
    pub(crate) ahead: bool,
    /// Whether its worker was told its command.
    commanded: bool,
    /// Whether its worker said that it didn't start the tool.
    refused: bool,
    /// Whether it was condemned before it was cloned, and its template was asked in vain.
    stuck: bool,
}

/// How a run stands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stand {
    /// Something of it is alive, or its death isn't explained yet.
    Alive,
    /// Its processes are gone, its placeholders aren't.
    Sweep,
    /// Nothing is left but to tell.
    Over,
}

/// What a deadline that has come asks of the launcher.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing, or what was to do is done; perhaps the run is over.
    Settle,
    /// The run has lived long enough to be watched by the monitor.
    Watch,
    /// The worker has to be told its command again.
    Start,
    /// The run has to be told as ended though it isn't reaped.
    Unreaped,
    /// It was condemned before it was cloned, and its template has said nothing.
    Stuck,
}

fn cgroup_failed(error: &CgroupError) -> SetupFailure {
    let source = std::error::Error::source(error).and_then(|e| e.downcast_ref::<io::Error>());
    let errno = source.and_then(io::Error::raw_os_error).unwrap_or(libc::EIO);
    failed(SetupStage::Cgroup, errno, error.to_string())
}

/// The outcome of a run whose watcher can't be had.
pub(crate) fn no_satellite(name: &str) -> Outcome {
    Outcome::SetupFailed { failure: failed(SetupStage::Cgroup, libc::ESRCH, name) }
}

/// Whom a report of the monitor is about.
pub(crate) fn subject_of(report: &MonitorReport) -> Option<ExecId> {
    match report {
        MonitorReport::Ready { .. } => None,
        MonitorReport::Breach { exec_id, .. }
        | MonitorReport::Peak { exec_id, .. }
        | MonitorReport::Warning { exec_id, .. }
        | MonitorReport::Refused { exec_id, .. } => Some(*exec_id),
    }
}

/// A limit's name in a policy.
pub(crate) fn limit_name(limit: Breached) -> &'static str {
    match limit {
        Breached::Memory => "memory",
        Breached::Processes => "processes",
        Breached::Cpu => "cpu-time",
    }
}

/// Has a template clone a worker. Our end of its channel.
fn by_template(
    template: &mut Template,
    prepare: &Prepare,
    slot: Option<Slot>,
    group: Option<BorrowedFd<'_>>,
    poller: &Poller,
) -> Staged<Channel> {
    const STAGE: SetupStage = SetupStage::Template;
    let (ours, theirs) = stockade_wire::socket::seqpacket_pair().at(STAGE, "socketpair")?;
    let group = group.map(|group| group.try_clone_to_owned()).transpose().at(STAGE, "control group")?;
    let order = ToTemplate::Make { ids: prepare.ids, network: slot.is_some() };
    let beside = core::iter::once(theirs).chain(slot.map(OwnedFd::from)).chain(group).collect();
    template.make(&order, beside, poller)?;
    Ok(Channel::new(ours))
}

/// Our end of a fresh worker's channel; the worker and its template, as far as they are known by now.
type Made = (Channel, Option<(Pid, OwnedFd)>, Option<u64>);

fn made_by(maker: Maker<'_>, prepare: &mut Prepare, group: Option<BorrowedFd<'_>>) -> Staged<Made> {
    let made = match maker {
        Maker::Template(template, slot, poller) => {
            let number = template.number;
            (by_template(template, prepare, slot, group, poller)?, None, Some(number))
        }
        Maker::Launcher(workspace, command, ends) => {
            let lone = spawn::lone(prepare, workspace, (command, ends))?;
            (Channel::new(lone.channel), Some((lone.pid, lone.pidfd)), None)
        }
    };
    rustix::io::ioctl_fionbio(&made.0, true).at(SetupStage::Template, "channel")?;
    Ok(made)
}

impl Run {
    /// Has a worker made. It's a spare until it's [assigned](Self::assign).
    ///
    /// # Errors
    /// What its maker could not do.
    pub(crate) fn begin(
        mut prepare: Prepare,
        maker: Maker<'_>,
        uids: &mut Uids,
        cgroups: Option<&Cgroups>,
    ) -> Staged<Self> {
        prepare.ids = take_ids(&prepare, uids)?;
        let uid = prepare.ids.host_uid;
        Self::make(prepare, maker, cgroups).inspect_err(|_| uids.give_back(uid))
    }

    fn make(mut prepare: Prepare, maker: Maker<'_>, cgroups: Option<&Cgroups>) -> Staged<Self> {
        let limits = prepare.spec.limits.clone();
        let exec_id = ExecId::generate();
        let create =
            |groups: &Cgroups| groups.create(&exec_id, &limits).map_err(|error| cgroup_failed(&error));
        let cgroup = cgroups.map(create).transpose()?;
        let group = cgroup.as_ref().map(RunCgroup::directory);
        let (channel, init, template) = match made_by(maker, &mut prepare, group) {
            Ok(made) => made,
            Err(failure) => {
                drop(cgroup.map(|group| group.try_remove()));
                return Err(failure);
            }
        };
        Ok(Self {
            exec_id,
            limits,
            prepare,
            assigned: None,
            ends: Ends::default(),
            start_at: None,
            announced: false,
            template,
            channel,
            init,
            parked: None,
            early: verify::Early::default(),
            confinement: None,
            mountinfo: None,
            network: None,
            cgroup,
            growth: None,
            counters: None,
            placed: Vec::new(),
            made: Vec::new(),
            sweeper: None,
            listening: false,
            begun: Instant::now(),
            started: None,
            ended_at: None,
            condemned_at: None,
            killed_at: None,
            astray: None,
            unexplained_since: None,
            verdict: None,
            ended: None,
            init_end: None,
            sampled: (0, 0),
            watched: false,
            warned: false,
            told: false,
            unreaped: false,
            ahead: false,
            commanded: false,
            refused: false,
            stuck: false,
        })
    }

    /// Gives it what it will run.
    ///
    /// # Errors
    /// `Check`: its pipes can't be made the run's.
    pub(crate) fn assign(&mut self, exec_id: ExecId, mut assigned: Assigned) -> Staged<()> {
        let host_uid = self.prepare.ids.host_uid;
        assigned.stdio.give_pipes(host_uid).at(SetupStage::Check, "pipes")?;
        self.complete(&assigned.stdio).at(SetupStage::Check, "output pipes")?;
        self.exec_id = exec_id;
        self.assigned = Some(assigned);
        self.begun = Instant::now();
        Ok(())
    }

    /// Whether another worker may take its place: made ahead, it came to nothing, and was told nothing that it could have begun.
    pub(crate) fn may_be_replaced(&self) -> bool {
        let begun = self.started.is_some() || self.ended.is_some();
        let may = self.assigned.as_ref().is_some_and(|assigned| assigned.in_vain < WORKERS_IN_VAIN);
        self.ahead && may && !self.commanded && !begun && !self.is_condemned()
    }

    /// Whether it has been told nothing yet.
    pub(crate) fn is_spare(&self) -> bool {
        self.assigned.is_none()
    }

    /// How long ago its worker was asked for, or told its command.
    pub(crate) fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Whether it's parked and was read back.
    pub(crate) fn is_ready(&self) -> bool {
        self.confinement.is_some() && !self.is_condemned() && self.init_end.is_none()
    }

    /// What it was to run, for another worker: this one is stale. `None`: it was cancelled, or so many were of no use that
    /// another won't be: somebody makes and removes guarded names all the time.
    pub(crate) fn take_back(&mut self) -> Option<Order> {
        let may_go_on = |assigned: &mut Assigned| assigned.in_vain < WORKERS_IN_VAIN;
        if self.is_condemned() {
            return None;
        }
        let Assigned { command, workspace, stdio, in_vain } = self.assigned.take_if(may_go_on)?;
        let (exec_id, prepare, in_vain) = (self.exec_id, self.prepare.clone(), in_vain + 1);
        Some(Order { exec_id, prepare, workspace, command, stdio, in_vain })
    }

    /// Decides the outcome, once, and kills.
    pub(crate) fn condemn(&mut self, outcome: Outcome) {
        if self.is_condemned() || self.ended.is_some() {
            return;
        }
        self.verdict = Some(outcome);
        self.condemned_at = Some(Instant::now());
        self.kill();
    }

    pub(crate) fn is_condemned(&self) -> bool {
        self.verdict.is_some()
    }

    fn kill(&mut self) {
        self.killed_at = Some(Instant::now());
        if let Some((pid, pidfd)) = &self.init {
            // Not of one that was reaped: its number may be another's by now.
            if self.prepare.plan == Plan::Minimal && self.init_end.is_none() {
                init::kill_descendants(*pid);
            }
            let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
        }
        if let Some(group) = &self.cgroup {
            drop(group.kill());
        }
    }

    /// Whether a reaped child was this run's.
    pub(crate) fn reaped(&mut self, child: &Reaped) -> bool {
        if self.sweeper.is_some_and(|(pid, _)| pid == child.pid) {
            self.sweeper = Some((child.pid, Instant::now()));
            return true;
        }
        if self.init.as_ref().is_some_and(|(pid, _)| *pid == child.pid) && self.init_end.is_none() {
            self.init_end = Some((child.status, Used::from(&child.usage)));
            self.ended_at.get_or_insert_with(Instant::now);
            return true;
        }
        false
    }

    /// Its init, if nobody has reaped it as this run's.
    pub(crate) fn unreaped_init(&self) -> Option<(Pid, BorrowedFd<'_>)> {
        let (pid, pidfd) = self.init.as_ref().filter(|_| self.init_end.is_none())?;
        Some((*pid, pidfd.as_fd()))
    }

    /// Whether it has said that it's parked, and wasn't read back.
    pub(crate) fn waits_to_be_read(&self) -> bool {
        self.init.is_some() && self.parked.is_some() && self.confinement.is_none()
    }

    /// What the monitor says: an outcome if a limit is passed.
    pub(crate) fn monitored(&mut self, report: &MonitorReport) -> Option<Outcome> {
        match report {
            MonitorReport::Breach { limit, bound, seen, .. } => Some(match limit {
                Breached::Memory => {
                    self.sampled.0 = self.sampled.0.max(*seen);
                    Outcome::MemoryExceeded { limit: *bound, seen: *seen }
                }
                Breached::Processes => {
                    self.sampled.1 = self.sampled.1.max(*seen);
                    Outcome::ProcessesExceeded { limit: *bound, seen: *seen }
                }
                Breached::Cpu => Outcome::TimedOut { clock: Clock::Cpu, limit_ms: *bound },
            }),
            MonitorReport::Peak { memory, processes, .. } => {
                self.sampled.0 = self.sampled.0.max(*memory);
                self.sampled.1 = self.sampled.1.max(*processes);
                None
            }
            // Unwatched, its limits wouldn't hold.
            MonitorReport::Refused { errno, .. } => {
                Some(Outcome::Lost { reason: format!("the monitor could not watch it (errno {errno})") })
            }
            MonitorReport::Ready { .. } | MonitorReport::Warning { .. } => None,
        }
    }

    /// Has the run's placeholders removed, by a process with the owner's identity. The end waits for it, so that
    /// nobody sees a ghost afterwards, but no longer than [`SWEEP_BOUND`]: the owner's mount may be dead.
    pub(crate) fn sweep(&mut self) {
        let placed = core::mem::take(&mut self.placed);
        let mut made = core::mem::take(&mut self.made);
        let Ok((pid, socket)) = spawn::satellite("sweep") else { return };
        self.sweeper = Some((pid, Instant::now() + SWEEP_BOUND));
        let channel = Channel::new(socket);
        let owner = &self.prepare.owner;
        for batch in sources::batches(placed) {
            let locks: Vec<_> = batch.iter().map(|(_, lock)| lock.as_fd()).collect();
            let held = batch.iter().map(|(path, _)| path.clone()).collect();
            let message = Sweep { owner: owner.clone(), held, made: Vec::new() };
            drop(channel.send(&message, &locks));
        }
        let message = Sweep { owner: owner.clone(), held: Vec::new(), made: core::mem::take(&mut made) };
        drop(channel.send(&message, &[]));
    }

    /// Whether the monitor was told of it.
    pub(crate) fn is_watched(&self) -> bool {
        self.watched
    }

    /// Whether nothing of it runs any more, as far as is known.
    pub(crate) fn is_over(&self) -> bool {
        self.ended.is_some() || self.init_end.is_some()
    }

    /// Whether its tool was started, or may have been: its worker was told to, and said neither that it did nor why not.
    pub(crate) fn may_have_run(&self) -> bool {
        let failed = self.refused || matches!(self.verdict, Some(Outcome::SetupFailed { .. }));
        self.started.is_some() || (self.commanded && !failed)
    }

    /// Whether no process of the run is left for us to wait for.
    pub(crate) fn is_reaped(&self) -> bool {
        let is_gone = if self.init.is_some() { self.init_end.is_some() } else { !self.listening };
        is_gone && self.astray.is_none()
    }

    /// Whether its end was told while a process was left.
    pub(crate) fn was_unreaped(&self) -> bool {
        self.unreaped
    }

    /// Gives back what it held: its last process was reaped.
    pub(crate) fn release(
        mut self,
        poller: &Poller,
        uids: &mut Uids,
        templates: &mut Templates,
    ) -> Option<RunCgroup> {
        self.stop_listening(poller);
        uids.give_back(self.prepare.ids.host_uid);
        if let Some((template, slot)) = self.template.zip(self.network.take()) {
            templates.keep_slot(template, slot);
        }
        self.cgroup.take()
    }
}
