//! A program whose system calls, and those of all it starts, wait for us: one of them is answered with a fault.
//!
//! ```text
//! stockade-injector ── connects, says who it is ──> us ── take its listener (pidfd_getfd) ──> every call of the list comes to us
//!        └── becomes stockade serve ── launcher ── relay, monitor, template ── init ── tool
//! ```
//!
//! What waits goes on as if nothing were there, but for the one call that is armed: of a role, by its number, the nth.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, kill_process, pidfd_getfd, pidfd_open};
use stockade_tests::binaries::build_directory;
use stockade_tests::scratch::Scratch;
use stockade_tests::seccomp::{self, Answer, Held};
use stockade_tests::{Ground, Person, left, wait_until};
use syscalls::Sysno;

use crate::roles::{self, Role};

/// How long those may take to be reaped whom another outlives.
const REAPED_WITHIN: Duration = Duration::from_secs(2);

/// What happens at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// It fails with this errno.
    Fail(i32),
    /// Whoever calls is killed before.
    Kill,
    /// Every process of this role is killed before.
    KillAll(Role),
    /// Every process of this role is killed before, and reaped.
    Outlive(Role),
    /// Every process of this role stops before, for so long.
    Stop(Role, Duration),
    /// It takes so long.
    Pause(Duration),
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Whose call.
    pub(crate) role: Role,
    /// Which.
    pub(crate) call: Sysno,
    /// The how manyeth, from 1.
    pub(crate) nth: u32,
    pub(crate) deed: Deed,
}

impl core::fmt::Display for Fault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?}'s {} number {}: {:?}", self.role, self.call, self.nth, self.deed)
    }
}

/// How often each role makes each call.
pub(crate) type Counts = BTreeMap<(Role, Sysno), u32>;

#[derive(Debug, Default)]
struct State {
    /// The supervisor of now, and every root of a tree there has been.
    supervisor: u32,
    armed: Option<(Fault, u32)>,
    fired: Option<u32>,
    counts: Option<Counts>,
    /// Where launchers are written down.
    register: PathBuf,
}

/// The harness's side.
#[derive(Debug)]
pub(crate) struct Injector {
    place: Scratch,
    calls: String,
    state: Arc<Mutex<State>>,
    over: Arc<AtomicBool>,
}

impl Injector {
    /// One for a person's programs.
    pub(crate) fn new(person: Person, calls: &[Sysno]) -> Self {
        let place = Scratch::new("injector");
        person.own(place.path());
        let program = place.path().join("stockade-injector");
        std::fs::copy(build_directory().join("stockade-injector"), &program).unwrap();
        let socket = place.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        std::fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
        let calls = calls.iter().map(Sysno::name).collect::<Vec<_>>().join(",");
        let injector = Self { place, calls, state: Arc::default(), over: Arc::default() };
        let (state, over) = (Arc::clone(&injector.state), Arc::clone(&injector.over));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let pid = getsockopt(&stream.unwrap(), PeerCredentials).unwrap().pid();
                let pid = u32::try_from(pid).unwrap();
                locked(&state).supervisor = pid;
                let state = Arc::clone(&state);
                std::thread::spawn(move || {
                    // Killed before it has made one: there is nothing to listen to.
                    if let Some(listener) = listener_of(pid) {
                        serve(&Arc::new(listener), &state);
                    }
                });
            }
        });
        injector
    }

    /// A command that does what `stockade` does, with its calls waiting for us.
    pub(crate) fn stockade(&self, ground: &Ground) -> Command {
        locked(&self.state).register = ground.base().join("state/launchers.json");
        let mut command = ground.command(self.place.path().join("stockade-injector"));
        command.arg(self.place.path().join("socket")).arg(&self.calls).arg(&ground.binaries.stockade);
        command
    }

    /// Has a fault happen, once.
    pub(crate) fn arm(&self, fault: Fault) {
        let mut state = locked(&self.state);
        (state.armed, state.fired) = (Some((fault, 0)), None);
    }

    /// Nothing happens any more. The process it has happened to, if it has.
    pub(crate) fn disarm(&self) -> Option<u32> {
        let mut state = locked(&self.state);
        state.armed = None;
        state.fired.take()
    }

    /// Counts calls while something is done.
    pub(crate) fn count<T>(&self, what: impl FnOnce() -> T) -> (T, Counts) {
        locked(&self.state).counts = Some(Counts::new());
        let done = what();
        (done, locked(&self.state).counts.take().unwrap())
    }

    /// The processes of a role that are there.
    pub(crate) fn processes(&self, role: Role) -> Vec<u32> {
        let (supervisor, roots) = roots(&self.state);
        roles::beneath(&roots, role, supervisor)
    }
}

impl Drop for Injector {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = std::os::unix::net::UnixStream::connect(self.place.path().join("socket"));
    }
}

fn locked(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the listener that a process has made, which waits in `execve`.
fn listener_of(pid: u32) -> Option<OwnedFd> {
    let pidfd = pidfd_open(Pid::from_raw(pid.cast_signed())?, PidfdFlags::empty()).ok()?;
    let directory = format!("/proc/{pid}/fd");
    let mut number = None;
    wait_until(Duration::from_secs(20), || {
        let Ok(entries) = std::fs::read_dir(&directory) else { return true };
        number = entries.flatten().find_map(|entry| {
            let is_one = std::fs::read_link(entry.path())
                .is_ok_and(|link| link == Path::new("anon_inode:seccomp notify"));
            if is_one { entry.file_name().to_str()?.parse::<i32>().ok() } else { None }
        });
        number.is_some()
    });
    pidfd_getfd(&pidfd, number?, PidfdGetfdFlags::empty()).ok()
}

fn serve(listener: &Arc<OwnedFd>, state: &Arc<Mutex<State>>) {
    loop {
        let mut ready = [PollFd::new(listener, PollFlags::IN)];
        poll(&mut ready, None).unwrap();
        if !ready[0].revents().contains(PollFlags::IN) {
            // Nobody is left whose calls could come.
            return;
        }
        let Some(held) = seccomp::receive(listener).unwrap() else { continue };
        match deed_at(state, &held) {
            None => answer(listener, &held, Answer::Go),
            Some(Deed::Fail(errno)) => answer(listener, &held, Answer::Fail(fitting(errno, &held))),
            // Nothing more is to be said to it.
            Some(Deed::Kill) => {
                let pid = locked(state).fired.unwrap();
                signal(pid, Signal::KILL);
            }
            Some(Deed::KillAll(role)) => {
                let (supervisor, roots) = roots(state);
                for pid in roles::beneath(&roots, role, supervisor) {
                    signal(pid, Signal::KILL);
                }
                answer(listener, &held, Answer::Go);
            }
            Some(Deed::Outlive(role)) => {
                let (supervisor, roots) = roots(state);
                let killed = roles::beneath(&roots, role, supervisor);
                killed.iter().for_each(|pid| signal(*pid, Signal::KILL));
                let listener = Arc::clone(listener);
                // Whoever reaps them makes calls, too.
                std::thread::spawn(move || {
                    wait_until(REAPED_WITHIN, || killed.iter().all(|pid| left::process(*pid).is_none()));
                    answer(&listener, &held, Answer::Go);
                });
            }
            Some(Deed::Stop(role, how_long)) => {
                let (supervisor, roots) = roots(state);
                let stopped = roles::beneath(&roots, role, supervisor);
                for pid in &stopped {
                    signal(*pid, Signal::STOP);
                }
                answer(listener, &held, Answer::Go);
                std::thread::spawn(move || {
                    std::thread::sleep(how_long);
                    for pid in stopped {
                        signal(pid, Signal::CONT);
                    }
                });
            }
            Some(Deed::Pause(how_long)) => {
                let listener = Arc::clone(listener);
                std::thread::spawn(move || {
                    std::thread::sleep(how_long);
                    answer(&listener, &held, Answer::Go);
                });
            }
        }
    }
}

fn answer(listener: &Arc<OwnedFd>, held: &Held, answer: Answer) {
    seccomp::answer(listener.as_fd(), held, answer).unwrap();
}

/// Whether this is the call that is armed. What it does is noted first.
fn deed_at(state: &Mutex<State>, held: &Held) -> Option<Deed> {
    let mut state = locked(state);
    let is_wanted = state.armed.is_some_and(|(fault, _)| fault.call == held.call) && state.fired.is_none();
    if !is_wanted && state.counts.is_none() {
        return None;
    }
    // Ringing a bell of its own's never fails: whoever does so has no answer to it.
    if held.call == Sysno::write && is_bell(held) {
        return None;
    }
    let known = roles::of(held.thread, state.supervisor)?;
    if let Some(counts) = &mut state.counts {
        *counts.entry((known.role, held.call)).or_default() += 1;
    }
    let (fault, seen) = state.armed.as_mut()?;
    if !is_wanted || fault.role != known.role {
        return None;
    }
    *seen += 1;
    if *seen != fault.nth {
        return None;
    }
    let deed = fault.deed;
    state.fired = Some(known.pid);
    Some(deed)
}

fn is_bell(held: &Held) -> bool {
    target_of(held).is_some_and(|link| link == Path::new("anon_inode:[eventfd]"))
}

/// What a call's first argument, a descriptor, is.
fn target_of(held: &Held) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{}/fd/{}", held.thread, held.arguments[0])).ok()
}

/// Writing to what isn't a file fails for want of memory only.
fn fitting(errno: i32, held: &Held) -> i32 {
    let writes = matches!(held.call, Sysno::write | Sysno::writev);
    if writes && target_of(held).is_some_and(|link| link.is_relative()) { libc::ENOMEM } else { errno }
}

/// The supervisor, and from where everything of it can be reached: launchers outlive their supervisors.
fn roots(state: &Mutex<State>) -> (u32, Vec<u32>) {
    let state = locked(state);
    let mut roots = vec![state.supervisor];
    let text = std::fs::read_to_string(&state.register).unwrap_or_default();
    let register: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let launchers = register["launchers"].as_array().map(Vec::as_slice).unwrap_or_default();
    roots.extend(launchers.iter().filter_map(|entry| u32::try_from(entry["pid"].as_u64()?).ok()));
    (state.supervisor, roots)
}

/// Kills a process that may be gone.
pub(crate) fn kill(pid: u32) {
    signal(pid, Signal::KILL);
}

/// Sends a signal to a process that may be gone.
pub(crate) fn signal(pid: u32, signal: Signal) {
    // It may be gone.
    let _ = kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal);
}
