//! The run's network: whose namespace, what an earlier run left in it, and its loopback interface.
//!
//! A namespace takes as long to make as all else of a worker together, so that of an ended run is used again, for the same
//! owner, policy and workspace, where it's as it was when it was made: [`Traces`] says whether it is. Only one whose loopback
//! interface is down comes into question: nothing is ever connected or delivered in it, and who ran there had no privilege
//! over it, so what can be left is little. Sockets that somebody still holds, flow labels, which outlive their socket, and
//! group memberships show in [`TRACES`]; so do the counters, which tell of an attempt that found no way. Routes, addresses, rules, filters
//! and settings need a privilege that no run has.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use stockade_protocol::outcome::SetupStage;
use stockade_protocol::spec::{Level, NetworkMode, SandboxSpec};

use crate::failure::{At, Staged};
use crate::sys;

const STAGE: SetupStage = SetupStage::Network;
/// What tells of use, beneath a process's `net` in `/proc` (proc_pid_net(5)).
const TRACES: [&str; 9] =
    ["snmp", "snmp6", "netstat", "dev", "ip6_flowlabel", "igmp", "igmp6", "mcfilter", "mcfilter6"];
/// Counts the sockets of the namespace, whoever holds them, in its first line; some others are of the whole machine.
const SOCKETS: &str = "sockstat";
const NO_SOCKET: &[u8] = b"sockets: used 0\n";
/// Room for one of them at once, which is several times what any has; a longer one isn't a fresh namespace's.
const ROOM: usize = 16 * 1024;

/// Whether the spec's workers have a network namespace of their own.
pub(crate) fn is_own(spec: &SandboxSpec) -> bool {
    match spec.network.mode {
        NetworkMode::Host => false,
        NetworkMode::Loopback => true,
        NetworkMode::None => spec.level == Level::Strict,
    }
}

/// Whether the namespace of an ended run may be another's: not where an interface was up.
pub(crate) fn is_reusable(spec: &SandboxSpec) -> bool {
    is_own(spec) && spec.network.mode == NetworkMode::None
}

/// What a network namespace shows of its use. Equal to a fresh one's: nothing has been done in it that another could see.
#[derive(Debug)]
pub(crate) struct Traces(Vec<u8>);

impl Traces {
    /// Of the namespace that a process is in. `proc`: a `/proc` that shows it as `process`.
    ///
    /// # Errors
    /// Those of open(2) and read(2); `EBUSY`: there are sockets in it.
    pub(crate) fn of(proc: &OwnedFd, process: &str) -> io::Result<Self> {
        let mut all = Vec::new();
        each(proc, process, |text| all.extend_from_slice(text))?;
        Ok(Self(all))
    }

    /// Whether the caller's namespace shows these, and no socket. A worker keeps what it has touched of its memory for as
    /// long as it waits, so nothing is put together here.
    fn are_ours(&self, proc: &OwnedFd) -> bool {
        let mut rest = Some(&self.0[..]);
        let seen = each(proc, "self", |text| rest = rest.and_then(|rest| rest.strip_prefix(text)));
        seen.is_ok() && rest.is_some_and(<[u8]>::is_empty)
    }
}

/// Gives what is in each of the [`TRACES`] to `see`.
fn each(proc: &OwnedFd, process: &str, mut see: impl FnMut(&[u8])) -> io::Result<()> {
    let directory = Path::new(process).join("net");
    let directory = rustix::fs::openat(proc, &directory, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let mut room = Vec::with_capacity(ROOM);
    read(&directory, SOCKETS, &mut room)?;
    if !room.starts_with(NO_SOCKET) {
        return Err(Errno::BUSY.into());
    }
    for name in TRACES {
        read(&directory, name, &mut room)?;
        see(&room);
    }
    Ok(())
}

/// What is in a file. A kernel without IPv6 has no files of it.
fn read(directory: &OwnedFd, name: &str, room: &mut Vec<u8>) -> io::Result<()> {
    room.clear();
    let file = match rustix::fs::openat(directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    while room.len() < ROOM {
        if rustix::io::read(&file, rustix::buffer::spare_capacity(room))? == 0 {
            return Ok(());
        }
    }
    Err(Errno::FBIG.into())
}

/// The namespace of an ended run, which nobody else has.
#[derive(Debug)]
pub(crate) struct Slot(OwnedFd);

impl Slot {
    /// The namespace that a process is in.
    ///
    /// # Errors
    /// Those of open(2).
    pub(crate) fn of(process: i32) -> io::Result<Self> {
        let path = PathBuf::from(format!("/proc/{process}/ns/net"));
        let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self(file))
    }

    /// One that came in a message.
    pub(crate) fn received(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }

    /// Enters it, if it's as a fresh one is. `false`: the caller is somewhere that it must leave for a fresh one.
    ///
    /// # Errors
    /// `Network` with the errno of setns(2).
    pub(crate) fn enter(self, proc: &OwnedFd, fresh: &Traces) -> Staged<bool> {
        nix::sched::setns(&self.0, CloneFlags::CLONE_NEWNET).at(STAGE, "setns")?;
        Ok(fresh.are_ours(proc))
    }
}

impl From<Slot> for OwnedFd {
    fn from(slot: Slot) -> Self {
        slot.0
    }
}

impl AsFd for Slot {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Brings the loopback interface of a fresh network namespace up.
pub(crate) fn loopback_up() -> Staged<()> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None);
    sys::loopback_up(socket.at(STAGE, "lo")?.as_fd()).at(STAGE, "lo")
}
