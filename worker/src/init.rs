//! Init: pid 1 of a run (or its subreaper, without namespaces). Locked before it's told what to start.
//!
//! ```text
//! born ─ stages ─> parked ── Start ──> running ── tool ends ──> ending ── all reaped ──> Ended, exit
//!                                         └─ goes on for a while: Running
//! ```
//!
//! It reaps, forwards signals and reports numbers. It never executes anything but the tool, and the end of its
//! channel (the launcher is gone) is the end of the run. As pid 1 its death is the death of the tree, so it dies with
//! its launcher; without a pid namespace it must outlive it by the moment that killing the tree takes.

use std::borrow::Cow;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Access, AtFlags, CWD};
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions};
use stockade_protocol::Bytes;
use stockade_protocol::bounds::MAX_DESCRIPTORS;
use stockade_protocol::confinement::Plan;
use stockade_protocol::outcome::{SetupFailure, SetupStage};
use stockade_wire::channel::Channel;

use crate::failure::{At, Staged, failed};
use crate::laps::{Lap, Laps};
use crate::messages::{Command, Ended, FromWorker, Parked, Prepare, Standard, ToWorker, Used, say};
use crate::program::Openings;
use crate::room::ToolStack;
use crate::stages::beside::Beside;
use crate::stages::missing::came_to_be;
use crate::stages::root::Pivoted;
use crate::stages::worker::{self, Locked, Unconfined};
use crate::sys::{self, ExecPlan, ExecStep};

/// Directories of `PATH` that are tried.
const MAX_PATH_DIRECTORIES: usize = 128;
/// Where a tool is looked for when its environment has no `PATH` (as execvp(3) does).
const DEFAULT_PATH: &[u8] = b"/usr/bin:/bin";

/// How long a tool runs before its launcher is told that it does. One that has ended by then is told of once, when it has
/// ended: a message less on the way of every short run, and two turns less of those who pass it on.
const TOLD_AFTER: Duration = Duration::from_millis(2);
/// How much later than its launcher an init ends a run at its wall time.
const STOPPED: Duration = Duration::from_secs(2);

/// An init's name in `/proc`.
const INIT_NAME: &core::ffi::CStr = c"stockade-init";

/// What a worker is born with.
#[derive(Debug)]
pub(crate) struct Born {
    /// The root it stands in.
    pub(crate) pivoted: Pivoted,
    /// The namespaces that were made beside the root.
    pub(crate) beside: Beside,
    /// How long that took.
    pub(crate) laps: Laps,
}

/// What a worker that was made for one run will run, and the tool's standard descriptors. `None`: it will be told, perhaps
/// long after it was made.
pub(crate) type Told<'a> = Option<(&'a Command, [OwnedFd; 3])>;

/// The life of an init. Gives its exit code, which nobody reads.
pub(crate) fn run(channel: &Channel, prepare: &Prepare, born: Born, told: Told<'_>) -> i32 {
    match live(channel, prepare, born, told) {
        Ok(()) => 0,
        Err(failure) => {
            drop(say(channel, &FromWorker::Failed(failure), &[]));
            1
        }
    }
}

fn live(channel: &Channel, prepare: &Prepare, born: Born, told: Told<'_>) -> Staged<()> {
    let Born { pivoted, beside, mut laps } = born;
    // By this name a supervisor tells that a peer is a process of a run, whoever's launcher it has.
    rustix::thread::set_name(INIT_NAME).at(SetupStage::Template, "name")?;
    if prepare.plan == Plan::Minimal {
        rustix::process::set_child_subreaper(Some(Pid::INIT)).at(SetupStage::Namespaces, "subreaper")?;
    }
    let signals = listen_for_children()?;
    let already = if prepare.plan == Plan::Minimal { processes_of_owner() } else { 1 };
    let isolated = Unconfined::new(prepare, beside).isolate()?;
    laps.end(Lap::Network);
    // While it's read back how the root is, the rest is done.
    let gone = |_| failed(SetupStage::Template, libc::EPIPE, "channel");
    channel.send(&FromWorker::Rooted, &[]).map_err(gone)?;
    let identified = isolated.identify()?;
    laps.end(Lap::Identity);
    let limited = identified.limit(already)?;
    laps.end(Lap::Rlimits);
    let unprivileged = limited.drop_privileges()?;
    laps.end(Lap::Capabilities);
    let filtered = unprivileged.filter()?;
    laps.end(Lap::Seccomp);
    if told.is_some() {
        // Its run waits for it: the launcher reads back what it can meanwhile.
        let installed = filtered.installed;
        channel.send(&FromWorker::Filtered { installed }, &[]).map_err(gone)?;
    }
    let mut locked = filtered.lock(&pivoted)?;
    reap_our_own();
    laps.end(Lap::Landlock);
    park(channel, &pivoted, &locked, &laps)?;
    let missing = pivoted.missing;
    drop((pivoted.tmpfs, locked.proc.take()));
    let Some(Start { plan, command }) = ready(channel, &missing, &mut locked, told)? else { return Ok(()) };
    worker::dumpable(false)?;
    let began = Instant::now();
    let tool = start(plan, &command)?;
    let mut used = Used::default();
    let clock = Clock { began, told_at: Some(tell_at(prepare, began)), until: until(prepare, began) };
    let ended = watch(channel, &signals, tool, clock, &mut used);
    let wall = began.elapsed();
    // Whatever ended it, and also where the launcher is gone: what isn't in a pid namespace would outlive us.
    end_the_rest(prepare.plan, &mut used);
    if let Some(status) = ended? {
        report(channel, status, wall, used, &missing);
    }
    Ok(())
}

/// Waits for the children that opened the sources and made the network namespace: they have nothing left to do but to end,
/// are no part of the run, and would be seen by it.
fn reap_our_own() {
    while rustix::process::wait(WaitOptions::empty()).is_ok() {}
}

/// Children are told by a descriptor: nothing ever runs in a signal handler.
fn listen_for_children() -> Staged<SignalFd> {
    const STAGE: SetupStage = SetupStage::Namespaces;
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&children), None).at(STAGE, "signals")?;
    SignalFd::with_flags(&children, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).at(STAGE, "signalfd")
}

/// Without a user namespace of its own, `RLIMIT_NPROC` counts all processes of the uid.
fn processes_of_owner() -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let me = rustix::process::geteuid().as_raw();
    let is_process = |name: &OsStr| name.to_str().is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
    let Ok(entries) = std::fs::read_dir("/proc") else { return 0 };
    let mine = entries.flatten().filter(|e| is_process(&e.file_name()));
    let mine = mine.filter(|e| e.metadata().is_ok_and(|m| m.uid() == me));
    let threads = |path: &Path| std::fs::read_dir(path.join("task")).map_or(0, Iterator::count);
    mine.map(|e| threads(&e.path()) as u64).sum()
}

fn park(channel: &Channel, pivoted: &Pivoted, locked: &Locked, laps: &Laps) -> Staged<()> {
    let delta = u32::try_from(locked.delta.len()).unwrap_or(u32::MAX);
    let room = MAX_DESCRIPTORS - 1;
    let tmpfs: Vec<&OwnedFd> = pivoted.tmpfs.iter().map(AsRef::as_ref).take(room).collect();
    let parked = Parked {
        absent: pivoted.absent.clone(),
        guarded: pivoted.guarded.clone(),
        landlock_abi: locked.landlock.abi,
        landlock_rules: locked.landlock.rules,
        filters: locked.installed.saturating_add(delta),
        filters_installed: locked.installed,
        tmpfs: u32::try_from(tmpfs.len()).unwrap_or(0),
        took_ns: laps.took_ns(),
    };
    let descriptors: Vec<BorrowedFd<'_>> = match &locked.proc {
        Some(proc) => core::iter::once(proc).chain(tmpfs).map(AsFd::as_fd).collect(),
        None => Vec::new(),
    };
    say(channel, &FromWorker::Parked(Box::new(parked)), &descriptors)
}

/// Makes everything ready for the tool, and waits until it may be started. `None`: the launcher has gone, or needs this
/// worker no more, or it's stale, which it has said.
fn ready<'a>(
    channel: &Channel,
    missing: &[Bytes],
    locked: &mut Locked,
    told: Told<'a>,
) -> Staged<Option<Start<'a>>> {
    let strange = || failed(SetupStage::Template, libc::EPROTO, "channel");
    let stack = ToolStack::new();
    let prepare = |command: &Command, stdio| {
        rustix::process::chdir(command.cwd.as_path()).at(SetupStage::Cwd, command.cwd.clone())?;
        exec_plan(command, stdio, locked, stack)
    };
    if let Some((command, stdio)) = told {
        let plan = prepare(command, stdio)?;
        return match channel.receive::<ToWorker<'_>>() {
            Ok(Some((ToWorker::Go, _))) => Ok(Some(Start { plan, command: Cow::Borrowed(command) })),
            Ok(None) => Ok(None),
            _ => Err(strange()),
        };
    }
    let mut own = Standard::default();
    loop {
        match channel.receive::<ToWorker<'_>>() {
            Ok(Some((ToWorker::Own(which), beside))) => {
                own = Standard::beside(which, beside).ok_or_else(strange)?;
            }
            Ok(Some((ToWorker::Start(command, which), beside))) => {
                // However short it waited: a repository may be made between the look and the request, and a run right after.
                if !came_to_be(missing).is_empty() {
                    drop(channel.send(&FromWorker::Stale, &[]));
                    return Ok(None);
                }
                let stdio = Standard::beside(which, beside).and_then(|passed| passed.all(own));
                let plan = prepare(&command, stdio.ok_or_else(strange)?)?;
                return Ok(Some(Start { plan, command }));
            }
            Ok(None) => return Ok(None),
            _ => return Err(strange()),
        }
    }
}

/// A tool that can be started at once.
struct Start<'a> {
    plan: ExecPlan,
    command: Cow<'a, Command>,
}

fn exec_plan(
    command: &Command,
    stdio: [OwnedFd; 3],
    locked: &mut Locked,
    stack: ToolStack,
) -> Staged<ExecPlan> {
    let strings = |all: &[Bytes]| all.iter().map(|one| c_string(&one.0)).collect::<Staged<Vec<_>>>();
    let entry = |(name, value): &(Bytes, Bytes)| c_string([&name.0[..], b"=", &value.0[..]].concat());
    let environment = command.environment.iter().map(entry).collect::<Staged<Vec<_>>>()?;
    let candidates =
        worth_trying(candidates(command)).into_iter().map(c_string).collect::<Staged<Vec<_>>>()?;
    let landlock = locked.landlock.ruleset.take();
    let delta = core::mem::take(&mut locked.delta);
    let openings = openings(command)?;
    let locks = (landlock, delta);
    Ok(ExecPlan::new(candidates, strings(&command.argv)?, environment, stdio, locks, openings, stack))
}

/// What is opened for the tool, as steps from the workspace.
fn openings(command: &Command) -> Staged<Openings> {
    let mut openings = Openings::default();
    for opening in &command.openings {
        let names = opening.path.split(|byte| *byte == b'/').filter(|name| !matches!(name, [] | [b'.']));
        let steps = core::iter::once(&command.workspace.0[..]).chain(names);
        let steps = steps.map(c_string).collect::<Staged<Vec<_>>>()?;
        openings.add(opening.number, steps);
    }
    Ok(openings)
}

/// What couldn't be opened.
fn opened(command: &Command, which: usize) -> Vec<u8> {
    command.openings.get(which).map(|opening| opening.path.0.clone()).unwrap_or_default()
}

fn c_string(bytes: impl AsRef<[u8]>) -> Staged<CString> {
    CString::new(bytes.as_ref()).map_err(|_| failed(SetupStage::Check, libc::EINVAL, "NUL in a string"))
}

/// The paths a program's name stands for: itself if it has a `/`, else beneath each directory of the run's `PATH`.
fn candidates(command: &Command) -> Vec<Vec<u8>> {
    let Some(program) = command.argv.first() else { return Vec::new() };
    if program.contains(&b'/') {
        return vec![program.0.clone()];
    }
    let path = command.environment.iter().find(|(name, _)| name.0 == b"PATH");
    let path = path.map_or(DEFAULT_PATH, |(_, value)| &value.0[..]);
    let under = |directory: &[u8]| match directory {
        [] => [b"./", &program.0[..]].concat(),
        _ => [directory, b"/", &program.0[..]].concat(),
    };
    path.split(|byte| *byte == b':').take(MAX_PATH_DIRECTORIES).map(under).collect()
}

/// Without what isn't there: an exec that fails costs several look-ups. All of them where nothing is, so that the failure is
/// execve's own.
fn worth_trying(candidates: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let is_there = |path: &&Vec<u8>| {
        !matches!(
            rustix::fs::accessat(CWD, path.as_slice(), Access::EXISTS, AtFlags::empty()),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR)
        )
    };
    let there: Vec<Vec<u8>> = candidates.iter().filter(is_there).cloned().collect();
    if there.is_empty() { candidates } else { there }
}

fn start(plan: ExecPlan, command: &Command) -> Staged<Pid> {
    let outcome = plan.start().at(SetupStage::Exec, "clone")?;
    outcome.map_err(|(step, errno)| {
        let tried = || candidates(command).join(&b':');
        let (stage, subject) = match step {
            ExecStep::Session => (SetupStage::Terminal, b"setsid".to_vec()),
            ExecStep::Stdio => (SetupStage::Exec, b"standard descriptors".to_vec()),
            ExecStep::Landlock => (SetupStage::Landlock, b"restrict".to_vec()),
            ExecStep::Close => (SetupStage::Exec, b"close_range".to_vec()),
            ExecStep::Open(which) => (SetupStage::File, opened(command, which)),
            ExecStep::Seccomp => (SetupStage::Seccomp, b"delta filter".to_vec()),
            ExecStep::Exec => (SetupStage::Exec, tried()),
        };
        failed(stage, errno, subject)
    })
}

/// How long the tool may run by our own clock: longer than by the launcher's, which may be stopped.
fn until(prepare: &Prepare, began: Instant) -> Option<Instant> {
    prepare.spec.limits.wall_ms.and_then(|wall| began.checked_add(Duration::from_millis(wall) + STOPPED))
}

/// When the launcher is told that the tool runs: not later than it would end it.
fn tell_at(prepare: &Prepare, began: Instant) -> Instant {
    let wall = prepare.spec.limits.wall_ms.map_or(TOLD_AFTER, Duration::from_millis);
    began + TOLD_AFTER.min(wall)
}

/// The times of a tool that runs.
#[derive(Debug, Clone, Copy)]
struct Clock {
    began: Instant,
    /// When the launcher is told that it runs; `None`: it was.
    told_at: Option<Instant>,
    /// When it's ended.
    until: Option<Instant>,
}

impl Clock {
    /// How long nothing is to be done.
    fn left(&self, now: Instant) -> Option<Timespec> {
        let next = self.told_at.or(self.until)?;
        Timespec::try_from(next.saturating_duration_since(now)).ok()
    }

    /// How long it runs, in microseconds.
    fn ran_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// Until the tool ends: its raw wait status. `None`: the launcher has gone or doesn't watch, so must we.
fn watch(
    channel: &Channel,
    signals: &SignalFd,
    tool: Pid,
    mut clock: Clock,
    used: &mut Used,
) -> Result<Option<i32>, SetupFailure> {
    const STAGE: SetupStage = SetupStage::Exec;
    loop {
        // Looked at in every turn: a tool whose orphans die without a pause leaves no moment in which nothing else is to do.
        let now = Instant::now();
        if clock.until.is_some_and(|at| at <= now) {
            return Ok(None);
        }
        if clock.told_at.take_if(|at| *at <= now).is_some()
            && say(channel, &FromWorker::Running(clock.ran_us()), &[]).is_err()
        {
            return Ok(None);
        }
        let mut sources = [PollFd::new(channel, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        match rustix::event::poll(&mut sources, clock.left(now).as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno).at(STAGE, "poll"),
        }
        let [from_launcher, from_children] = sources.map(|source| !source.revents().is_empty());
        if from_children {
            while let Ok(Some(_)) = signals.read_signal() {}
            if let Ok(Some(status)) = reap(Some(tool), used) {
                return Ok(Some(status));
            }
        }
        if from_launcher {
            match channel.receive::<ToWorker<'_>>() {
                Ok(Some((ToWorker::Signal(number), _))) => forward(tool, number),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return Ok(None),
            }
        }
    }
}

/// Reaps everything that has ended, and counts what it used. `Ok`: the status of `tool`, if it's among them; an error
/// (`ECHILD`) where no child is left.
fn reap(tool: Option<Pid>, used: &mut Used) -> io::Result<Option<i32>> {
    let mut status = None;
    while let Some(reaped) =
        sys::try_wait(None).or_else(|error| if status.is_some() { Ok(None) } else { Err(error) })?
    {
        used.add(Used::from(&reaped.usage));
        if Some(reaped.pid) == tool {
            status = Some(reaped.status);
        }
    }
    Ok(status)
}

/// The tool leads its session, so its process group is its pid.
fn forward(tool: Pid, number: u8) {
    if let Ok(signal) = Signal::try_from(i32::from(number)) {
        // ESRCH: it has just ended, which the next turn of the loop sees.
        let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(tool.as_raw_nonzero().get()), signal);
    }
}

/// Kills and reaps all that the tool left behind. Its orphans are our children, so without a child nothing is left.
fn end_the_rest(plan: Plan, used: &mut Used) {
    while reap(None, used).is_ok() {
        kill_others(plan);
        // Something is still dying: wait for it without a clock, and leave it to be reaped and counted.
        let end = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let _ = rustix::process::waitid(WaitId::All, end);
    }
}

fn kill_others(plan: Plan) {
    if plan == Plan::Minimal {
        kill_below("self");
    } else {
        // In a pid namespace: everything but ourselves (kill(2)).
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(-1), Signal::SIGKILL);
    }
}

/// Kills every process below another, again and again until none is found: a fork bomb forks while it is read.
pub(crate) fn kill_descendants(of: Pid) {
    kill_below(&of.as_raw_nonzero().to_string());
}

/// Rounds of looking for descendants before it's left to the next sweep.
const KILL_ROUNDS: usize = 16;

fn kill_below(process: &str) {
    for _ in 0..KILL_ROUNDS {
        let all = descendants(process);
        if all.is_empty() {
            return;
        }
        for pid in all {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// Every process below one.
fn descendants(of: &str) -> Vec<Pid> {
    let mut all = children(of);
    let mut seen = 0;
    while let Some(process) = all.get(seen) {
        let below = children(&process.as_raw_nonzero().to_string());
        all.extend(below);
        seen += 1;
    }
    all
}

/// A process's children, by the kernel's own lists (proc(5), `task/TID/children`).
pub(crate) fn children(of: &str) -> Vec<Pid> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{of}/task")) else { return Vec::new() };
    let lists = threads.flatten().filter_map(|t| std::fs::read_to_string(t.path().join("children")).ok());
    let pids = |list: String| -> Vec<Pid> {
        list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok().and_then(Pid::from_raw)).collect()
    };
    lists.flat_map(pids).collect()
}

fn report(channel: &Channel, status: i32, wall: Duration, used: Used, missing: &[Bytes]) {
    let wall_us = u64::try_from(wall.as_micros()).unwrap_or(u64::MAX);
    let trusted_files = came_to_be(missing);
    drop(say(channel, &FromWorker::Ended(Box::new(Ended { status, wall_us, used, trusted_files })), &[]));
}
