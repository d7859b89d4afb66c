//! The monitor: a process of its own that looks at runs every few milliseconds, where no control group bounds them.
//!
//! ```text
//!   launcher ── MonitorCommand ──> monitor ── MonitorReport ──> launcher      SOCK_SEQPACKET
//!
//!   every TICK: each watched run: processes? processor time? memory? ── over ──> Breach, and SIGKILL to its init
//! ```
//!
//! It's a process of its own so that nothing else delays it, at raised priority where that is permitted. It reads
//! ([`read`]) the kernel's figures of a run's processes ([`source`]) and decides ([`watch`]); what a run could make it
//! wait for is asked of another process ([`survey`]). While nothing is watched it sleeps.
//!
//! Sampling can be raced: between two looks a run may pass its limit by what it can touch in [`TICK`], and what
//! [`NOT_COUNTED`] names isn't seen at all. Guarantees are for control groups; the monitor's are measured figures.
//!
//! It must never stop looking at one run because of another, never kill what it can't name by pidfd, and never
//! outlive the launcher: when the control channel closes, it ends.

pub mod read;
pub mod source;
pub mod survey;
pub mod watch;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use stockade_protocol::ExecId;
use stockade_protocol::bounds::MAX_LAUNCH_INLINE;
use stockade_wire::channel::{self, Channel, ChannelError};
use stockade_wire::socket;

use crate::launcher::spawn;
use crate::poller::{Interest, Poller, Ready};
use crate::sys;
use read::Reader;
use source::Source;
use survey::Answer;
use watch::{Bounds, Machine, Mark, Peaks, Watch};

/// How often a run is looked at.
pub const TICK: Duration = Duration::from_millis(10);
/// How often a quiet one is: it has used nothing for a while and is far from its limits.
pub const QUIET_TICK: Duration = Duration::from_millis(20);
/// The most runs watched at once.
pub const MAX_WATCHED: usize = 8192;
/// What the monitor may take of a core before quiet runs are looked at less often, in percent. With some hundred
/// quiet runs it's passed; the interval of quiet ones is doubled then, up to [`MAX_STRETCH`] times.
pub const DUTY: u32 = 15;
/// The most a quiet run's interval is stretched.
pub const MAX_STRETCH: u32 = 8;
/// The nice value asked for, where real-time scheduling isn't permitted.
pub const NICE: i32 = -5;
/// Memory a run can hold that the monitor doesn't see, for `Confinement`.
pub const NOT_COUNTED: &str = "pipe and socket buffers, System V segments that nobody has attached, memfds in flight \
    over sockets and open nowhere, other kernel memory; figures are samples every 10 ms, of memfds every 50 ms";

/// Rising peaks are told at most so often, unless they rose by a thirty-second.
const TELL: Duration = Duration::from_millis(100);
/// Whether memory may be hidden in swap or huge pages is asked so often.
const LOOK_AROUND: Duration = Duration::from_secs(1);
/// The most surveyors. One that a run keeps waiting answers nobody else meanwhile. Each works a quarter of a core at
/// most.
const MAX_SURVEYORS: usize = 3;
/// A surveyor that died, or couldn't be started, is followed by another one so much later.
const SURVEYOR_REST: Duration = Duration::from_secs(1);
/// The token of the control channel; a surveyor's is its index.
const CONTROL: u64 = u64::MAX;
/// The longest rest after a long look.
const MAX_PAUSE: Duration = Duration::from_millis(20);
/// Commands taken before the next look.
const COMMANDS_A_TURN: usize = 64;
/// With so many reports unsent no more commands are taken.
const MAX_REPORTS: usize = 1024;

/// From the launcher. Both ends are one build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MonitorCommand {
    /// Looks at a run from now on. Beside it: what [`Tree`] says, then `O_PATH` descriptors of its tmpfs mounts.
    Watch {
        /// The run.
        exec_id: ExecId,
        /// Memory of the whole tree, tmpfs included, in bytes.
        memory: Option<u64>,
        /// Processes and threads, the init of ours not counted.
        processes: u64,
        /// Processor time of the whole tree, in milliseconds.
        cpu_ms: Option<u64>,
        /// Which processes are the run's.
        tree: Tree,
    },
    /// Looks at it no more. Answered by a last [`MonitorReport::Peak`], unless the run is unknown.
    Unwatch {
        /// The run.
        exec_id: ExecId,
    },
}

/// Which processes are a run's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tree {
    /// Those of a pid namespace. Descriptors: its init's pidfd, an `O_PATH` one of its `/proc`.
    Namespace,
    /// Those below a subreaper. Descriptor: its pidfd.
    Descendants {
        /// Its process id.
        pid: i32,
    },
}

/// Which limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Breached {
    /// Bytes.
    Memory,
    /// Processes and threads.
    Processes,
    /// Milliseconds of processor time.
    Cpu,
}

impl Breached {
    /// 0, 1, 2.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::Memory => 0,
            Self::Processes => 1,
            Self::Cpu => 2,
        }
    }
}

/// To the launcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MonitorReport {
    /// The first message: the priority it got.
    Ready {
        /// [`NICE`], if that was permitted.
        nice: i32,
        /// Whether it's scheduled before everything that isn't real time.
        real_time: bool,
    },
    /// A limit was passed; the run isn't looked at any more. The init of a [`Tree::Namespace`] is killed;
    /// another run is the launcher's to kill.
    Breach {
        /// The run.
        exec_id: ExecId,
        /// Which limit.
        limit: Breached,
        /// The limit.
        bound: u64,
        /// What was seen.
        seen: u64,
    },
    /// The most seen so far. Memory of several processes may count pages they share for each, as long as that makes
    /// no difference to a limit or a warning; processor time is a lower bound.
    Peak {
        /// The run.
        exec_id: ExecId,
        /// Bytes.
        memory: u64,
        /// Processes and threads, without init.
        processes: u64,
        /// Milliseconds.
        cpu_ms: u64,
    },
    /// A limit is near (over 80 %): once a run and limit.
    Warning {
        /// The run.
        exec_id: ExecId,
        /// Which limit.
        limit: Breached,
        /// Its value now.
        value: u64,
        /// The limit.
        bound: u64,
    },
    /// The run can't be watched.
    Refused {
        /// The run.
        exec_id: ExecId,
        /// `EMFILE`: the descriptors didn't arrive whole; `EUSERS`: [`MAX_WATCHED`]; `EEXIST`; `ENOSYS`: the kernel
        /// lists no children; else what the kernel said.
        errno: i32,
    },
}

/// Why the monitor can't go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MonitorError {
    /// The host's `/proc`.
    #[error("monitor: open /proc")]
    Proc(#[source] io::Error),
    /// A memfd of its own, to learn where they are.
    #[error("monitor: make a memfd")]
    Memfd(#[source] io::Error),
    /// Waiting.
    #[error("monitor: wait for the next tick")]
    Wait(#[source] io::Error),
    /// The control channel failed otherwise than by closing.
    #[error("monitor: control channel")]
    Control(#[source] ChannelError),
    /// The launcher speaks another language: not the same build.
    #[error("monitor: command from the launcher")]
    Command(#[source] ChannelError),
}

/// Looks at runs until the launcher closes `control`.
///
/// # Errors
/// [`MonitorError`]; nothing is watched any more then, so the launcher must end the runs that rely on it.
pub fn run(control: OwnedFd) -> Result<(), MonitorError> {
    run_with(control, || Ok(spawn::satellite("survey")?.1))
}

/// Like [`run`], with surveyors from elsewhere: `surveyor` starts one and gives the channel to it.
///
/// # Errors
/// As [`run`].
pub fn run_with(control: OwnedFd, surveyor: impl FnMut() -> io::Result<OwnedFd>) -> Result<(), MonitorError> {
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    // Beside 500 busy processes of a run one look took 100 ms at this nice value, and takes 3 ms in real time, where it
    // works half of the time at most (see `look`). Neither is permitted to an ordinary user; `Ready` says what came
    // of it.
    let real_time = sys::be_real_time().is_ok();
    let _ = rustix::process::setpriority_process(None, NICE);
    Monitor::new(control, real_time, surveyor)?.serve()
}

struct Monitor<S> {
    poller: Poller,
    control: Channel,
    control_interest: Interest,
    start_surveyor: S,
    surveyors: Vec<Surveyor>,
    next_surveyor: Instant,
    questions: u64,
    machine: Machine,
    reader: Reader,
    pids: Vec<i32>,
    watched: HashMap<ExecId, Watch>,
    reports: VecDeque<MonitorReport>,
    datagram: Vec<u8>,
    load: Load,
    next_look_around: Instant,
    /// No look begins earlier.
    not_before: Instant,
    closed: bool,
}

/// A process that answers one question at a time.
struct Surveyor {
    channel: Option<Channel>,
    asked: Option<ExecId>,
}

/// How much of its time the monitor works, and how much less often it looks at quiet runs for that.
struct Load {
    since: Instant,
    worked: Duration,
    stretch: u32,
}

impl Load {
    fn add(&mut self, now: Instant, worked: Duration) {
        self.worked += worked;
        let window = now.saturating_duration_since(self.since);
        if window < LOOK_AROUND / 4 {
            return;
        }
        if self.worked > window * DUTY / 100 {
            self.stretch = (self.stretch * 2).min(MAX_STRETCH);
        } else if self.worked < window * DUTY / 300 {
            self.stretch = (self.stretch / 2).max(1);
        }
        self.since = now;
        self.worked = Duration::ZERO;
    }
}

impl<S: FnMut() -> io::Result<OwnedFd>> Monitor<S> {
    fn new(control: OwnedFd, real_time: bool, start_surveyor: S) -> Result<Self, MonitorError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = rustix::fs::open("/proc", flags, Mode::empty())
            .map_err(|errno| MonitorError::Proc(errno.into()))?;
        rustix::io::ioctl_fionbio(&control, true)
            .map_err(|errno| MonitorError::Control(ChannelError::Io(errno.into())))?;
        let poller = Poller::new().map_err(MonitorError::Wait)?;
        poller.add(&control, CONTROL, Interest::Read).map_err(MonitorError::Wait)?;
        let nice = rustix::process::getpriority_process(None).unwrap_or(0);
        let now = Instant::now();
        Ok(Self {
            poller,
            control: Channel::new(control),
            control_interest: Interest::Read,
            start_surveyor,
            surveyors: Vec::new(),
            next_surveyor: now,
            questions: 0,
            machine: Machine {
                page: rustix::param::page_size() as u64,
                ticks: rustix::param::clock_ticks_per_second(),
                hidden_memory: memory_can_hide(),
                memfd_device: memfd_device().map_err(MonitorError::Memfd)?,
                proc,
            },
            reader: Reader::default(),
            pids: Vec::new(),
            watched: HashMap::new(),
            reports: VecDeque::from([MonitorReport::Ready { nice, real_time }]),
            datagram: vec![0; MAX_LAUNCH_INLINE + 1],
            load: Load { since: now, worked: Duration::ZERO, stretch: 1 },
            next_look_around: now + LOOK_AROUND,
            not_before: now,
            closed: false,
        })
    }

    fn serve(mut self) -> Result<(), MonitorError> {
        let mut ready = Vec::new();
        while !self.closed {
            self.send_reports()?;
            let timeout = self.timeout();
            self.poller.wait(&mut ready, timeout).map_err(MonitorError::Wait)?;
            for event in &ready {
                self.handle(*event)?;
            }
            self.look();
            self.ask();
        }
        Ok(())
    }

    /// Until the next run is due.
    fn timeout(&self) -> Option<Duration> {
        let now = Instant::now();
        let due = self.watched.values().filter(|watch| watch.is_alive() && watch.breach.is_none());
        due.map(|watch| watch.due.max(self.not_before).saturating_duration_since(now)).min()
    }

    fn handle(&mut self, event: Ready) -> Result<(), MonitorError> {
        match usize::try_from(event.token) {
            Ok(index) if event.token != CONTROL => {
                self.take_answer(index);
                Ok(())
            }
            _ if event.readable => self.take_commands(),
            _ => Ok(()),
        }
    }

    fn take_commands(&mut self) -> Result<(), MonitorError> {
        for _ in 0..COMMANDS_A_TURN {
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
                Err(error) => return Err(MonitorError::Control(error.into())),
            };
            if received.length == 0 {
                self.closed = true;
                break;
            }
            let (command, descriptors) =
                channel::unpack(&self.datagram[..received.length], received.descriptors)
                    .map_err(MonitorError::Command)?;
            self.obey(command, descriptors);
        }
        Ok(())
    }

    fn obey(&mut self, command: MonitorCommand, descriptors: Vec<OwnedFd>) {
        match command {
            MonitorCommand::Watch { exec_id, memory, processes, cpu_ms, tree } => {
                let bounds = Bounds { memory, processes, cpu_ms };
                if let Err(error) = self.watch(exec_id, bounds, tree, descriptors) {
                    let errno = error.raw_os_error().unwrap_or(Errno::IO.raw_os_error());
                    self.reports.push_back(MonitorReport::Refused { exec_id, errno });
                }
            }
            MonitorCommand::Unwatch { exec_id } => {
                if let Some(watch) = self.watched.remove(&exec_id) {
                    self.reports.push_back(peak(exec_id, watch.peaks));
                }
            }
        }
    }

    fn watch(
        &mut self,
        exec_id: ExecId,
        bounds: Bounds,
        tree: Tree,
        descriptors: Vec<OwnedFd>,
    ) -> io::Result<()> {
        if self.watched.contains_key(&exec_id) {
            return Err(Errno::EXIST.into());
        }
        if self.watched.len() >= MAX_WATCHED {
            return Err(Errno::USERS.into());
        }
        let mut descriptors = descriptors.into_iter();
        let mut next = || descriptors.next().ok_or_else(|| io::Error::from(Errno::MFILE));
        let source = match tree {
            Tree::Namespace => Source::namespace(next()?, &next()?)?,
            Tree::Descendants { pid } => Source::descendants(next()?, pid, &self.machine.proc)?,
        };
        let watch = Watch::new(exec_id, bounds, source, descriptors.collect(), Instant::now());
        self.watched.insert(exec_id, watch);
        Ok(())
    }

    /// Looks at every run that is due.
    fn look(&mut self) {
        let started = Instant::now();
        if started < self.not_before {
            return;
        }
        if started >= self.next_look_around && !self.watched.is_empty() {
            self.machine.hidden_memory = memory_can_hide();
            self.next_look_around = started + LOOK_AROUND;
        }
        let mut looked = false;
        for watch in self.watched.values_mut() {
            if !watch.is_alive() || watch.breach.is_some() || watch.due > started {
                continue;
            }
            looked = true;
            let passed = watch.sample(&mut self.reader, &self.machine, &mut self.pids);
            let interval = if watch.is_quiet() { QUIET_TICK * self.load.stretch } else { TICK };
            watch.due = (watch.due + interval).max(started + interval / 2);
            report(watch, started, &mut self.reports);
            if passed {
                end(watch, &self.control, &mut self.reports);
            }
        }
        if looked {
            let now = Instant::now();
            let took = now.saturating_duration_since(started);
            self.load.add(now, took);
            // It may run before everything else, so it must leave half of its time to everything else.
            self.not_before = now + took.min(MAX_PAUSE);
        }
    }

    /// Asks what is wanted of surveyors that have nothing to do.
    fn ask(&mut self) {
        for watch in self.watched.values_mut().filter(|watch| watch.wants_survey()) {
            let now = Instant::now();
            let free = self
                .surveyors
                .iter()
                .position(|surveyor| surveyor.channel.is_some() && surveyor.asked.is_none());
            let index = match free {
                Some(index) => index,
                None if now < self.next_surveyor => return,
                None => {
                    let dead = self.surveyors.iter().position(|surveyor| surveyor.channel.is_none());
                    let Some(index) =
                        dead.or((self.surveyors.len() < MAX_SURVEYORS).then_some(self.surveyors.len()))
                    else {
                        return;
                    };
                    let Ok(channel) = surveyor(&mut self.start_surveyor, &self.poller, index) else {
                        self.next_surveyor = now + SURVEYOR_REST;
                        return;
                    };
                    let started = Surveyor { channel: Some(channel), asked: None };
                    match self.surveyors.get_mut(index) {
                        Some(place) => *place = started,
                        None => self.surveyors.push(started),
                    }
                    index
                }
            };
            self.questions += 1;
            let exec_id = watch.exec_id;
            let Some((question, descriptors)) = watch.ask(self.questions, &self.machine) else { continue };
            let Some(Surveyor { channel: Some(channel), asked }) = self.surveyors.get_mut(index) else {
                return;
            };
            // It has answered everything before this, so its queue is empty: what it doesn't take it never will.
            if channel.send(&question, &descriptors).is_ok() {
                *asked = Some(exec_id);
            } else {
                watch.unanswered();
                self.lose_surveyor(index);
                return;
            }
        }
    }

    fn take_answer(&mut self, index: usize) {
        let Some(Surveyor { channel: Some(channel), asked }) = self.surveyors.get_mut(index) else { return };
        match channel.receive::<Answer>() {
            Ok(Some((answer, _))) => {
                let Some(watch) = asked.take().and_then(|exec_id| self.watched.get_mut(&exec_id)) else {
                    return;
                };
                let passed = watch.answered(answer);
                report(watch, Instant::now(), &mut self.reports);
                if passed {
                    end(watch, &self.control, &mut self.reports);
                }
            }
            Err(error) if error.would_block() => {}
            Ok(None) | Err(_) => self.lose_surveyor(index),
        }
    }

    /// A surveyor has died. Whom it was asked about is asked about again.
    fn lose_surveyor(&mut self, index: usize) {
        // It was our child.
        while let Ok(Some(_)) = sys::try_wait(None) {}
        self.next_surveyor = Instant::now() + SURVEYOR_REST;
        let Some(surveyor) = self.surveyors.get_mut(index) else { return };
        surveyor.channel = None;
        if let Some(watch) = surveyor.asked.take().and_then(|exec_id| self.watched.get_mut(&exec_id)) {
            watch.unanswered();
        }
    }

    fn send_reports(&mut self) -> Result<(), MonitorError> {
        match send(&self.control, &mut self.reports) {
            Err(ChannelError::Io(error))
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected
                ) =>
            {
                self.closed = true;
            }
            sent => sent.map_err(MonitorError::Control)?,
        }
        let interest = Interest::of(self.reports.len() < MAX_REPORTS, !self.reports.is_empty());
        if interest != self.control_interest {
            self.poller.modify(&self.control, CONTROL, interest).map_err(MonitorError::Wait)?;
            self.control_interest = interest;
        }
        Ok(())
    }
}

fn surveyor(
    start: &mut impl FnMut() -> io::Result<OwnedFd>,
    poller: &Poller,
    index: usize,
) -> io::Result<Channel> {
    let socket = start()?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    poller.add(&socket, index as u64, Interest::Read)?;
    Ok(Channel::new(socket))
}

/// Ends a run that has passed a limit. It's told before it's done, so that the launcher can't see the end first and
/// not know why; what the launcher doesn't take at once doesn't hold up the kill.
fn end(watch: &mut Watch, control: &Channel, reports: &mut VecDeque<MonitorReport>) {
    let _ = send(control, reports);
    if let Some(init) = watch.init() {
        let _ = rustix::process::pidfd_send_signal(init, Signal::KILL);
    }
    watch.let_go();
}

/// Sends what the launcher takes; the rest stays.
fn send(control: &Channel, reports: &mut VecDeque<MonitorReport>) -> Result<(), ChannelError> {
    while let Some(report) = reports.front() {
        match control.send(report, &[]) {
            Ok(()) => drop(reports.pop_front()),
            Err(error) if error.would_block() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn peak(exec_id: ExecId, peaks: Peaks) -> MonitorReport {
    let Peaks { memory, processes, cpu_ms } = peaks;
    MonitorReport::Peak { exec_id, memory, processes, cpu_ms }
}

/// Queues what is to be told of a run after a look. While the launcher doesn't read, peaks wait where they are; a
/// breach and three warnings a run are all that is ever queued beside them.
fn report(watch: &mut Watch, now: Instant, reports: &mut VecDeque<MonitorReport>) {
    let exec_id = watch.exec_id;
    let (told, at) = watch.told;
    let rose = watch.peaks.memory > told.memory + told.memory / 32 || watch.peaks.processes > told.processes;
    let due = watch.peaks != told && (rose || now >= at + TELL || watch.breach.is_some());
    if due && reports.len() < MAX_REPORTS {
        watch.told = (watch.peaks, now);
        reports.push_back(peak(exec_id, watch.peaks));
    }
    for Mark { limit, bound, seen } in watch.warnings.iter_mut().filter_map(Option::take) {
        reports.push_back(MonitorReport::Warning { exec_id, limit, value: seen, bound });
    }
    if let Some(Mark { limit, bound, seen }) = watch.breach {
        reports.push_back(MonitorReport::Breach { exec_id, limit, bound, seen });
    }
}

/// The device on which the kernel keeps memfds, and other shared memory without a mount.
fn memfd_device() -> io::Result<u64> {
    let memfd = rustix::fs::memfd_create("stockade-monitor", MemfdFlags::CLOEXEC)?;
    Ok(rustix::fs::fstat(memfd)?.st_dev)
}

/// Whether memory can be where a process's resident pages don't show it: swapped out, or in huge pages of a pool.
fn memory_can_hide() -> bool {
    let any = |path: &std::path::Path| std::fs::read_to_string(path).is_ok_and(|text| text.trim() != "0");
    if rustix::system::sysinfo().totalswap > 0 {
        return true;
    }
    let pools = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    pools
        .map(|pool| pool.path())
        .any(|pool| any(&pool.join("nr_hugepages")) || any(&pool.join("nr_overcommit_hugepages")))
}
