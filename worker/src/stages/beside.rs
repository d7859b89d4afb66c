//! What holders make while the worker builds its root: the run's network namespace, which takes longest of all (0.3 ms and
//! more), and in the system plan its user namespace, both owned by root's.
//!
//! ```text
//! holders: network ─────────────── held     user namespace ────── held
//! worker:      root … ── joins the network ── maps its ids, enters it ── lets both go
//! ```
//!
//! A holder shares the worker's memory and makes system calls only ([`sys::hold`]).

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sched::CloneFlags;
use rustix::process::WaitOptions;
use stockade_protocol::confinement::Plan;
use stockade_protocol::outcome::SetupStage;
use stockade_wire::socket;

use crate::failure::{At, Staged, failed};
use crate::messages::Prepare;
use crate::stages::identity::{self, IdMap};
use crate::stages::limits;
use crate::stages::network::{self, Slot, Traces};
use crate::sys;

/// A process that holds namespaces. Dropped, it ends, and they with it unless somebody has entered them.
#[derive(Debug)]
pub(crate) struct Holder {
    pidfd: OwnedFd,
    socket: OwnedFd,
}

impl Holder {
    /// Starts one. `born` and `unshare`: see [`sys::hold`].
    ///
    /// # Errors
    /// Those of socketpair(2) and clone(2).
    pub(crate) fn start(born: i32, unshare: i32) -> io::Result<Self> {
        let (ours, theirs) = socket::seqpacket_pair()?;
        let pidfd = sys::hold(born, unshare, ours.as_fd(), theirs.as_fd())?;
        Ok(Self { pidfd, socket: ours })
    }

    /// Its number in a `/proc`.
    ///
    /// # Errors
    /// As [`identity::number_in`].
    pub(crate) fn number_in(&self, proc: &OwnedFd) -> io::Result<String> {
        identity::number_in(proc, &self.pidfd)
    }

    /// Waits until its namespaces are there.
    fn wait(&self) -> io::Result<()> {
        let mut told = [0; size_of::<i32>()];
        let read = rustix::io::read(&self.socket, &mut told)?;
        match i32::from_ne_bytes(told) {
            0 if read == told.len() => Ok(()),
            0 => Err(io::Error::from_raw_os_error(libc::EPIPE)),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// Namespaces that are being made.
#[derive(Debug)]
pub(crate) struct Beside {
    /// `None`: the worker is in its network already, or stays in the host's.
    network: Option<Holder>,
    user: Option<UserNamespace>,
}

/// The run's user namespace, before the worker enters it.
#[derive(Debug)]
struct UserNamespace {
    holder: Holder,
    /// The host's `/proc`, and the holder's number in it.
    proc: OwnedFd,
    number: String,
    is_mapped: bool,
}

impl Beside {
    /// Begins to make what the spec wants. While the host's `/proc` is still in sight. `used`: a network namespace to use
    /// again, and how a fresh one looks.
    ///
    /// # Errors
    /// `UserNamespace`, `Network`.
    pub(crate) fn begin(prepare: &Prepare, used: Option<(Slot, &Traces)>) -> Staged<Self> {
        let own_network = prepare.plan != Plan::Minimal && network::is_own(&prepare.spec);
        let used = used.filter(|_| network::is_reusable(&prepare.spec));
        let entered = match used {
            Some((slot, fresh)) => slot.enter(&identity::open_proc()?, fresh)?,
            None => false,
        };
        let network = (own_network && !entered).then(|| Holder::start(0, libc::CLONE_NEWNET));
        let network = network.transpose().at(SetupStage::Network, "clone")?;
        let user = if prepare.plan == Plan::System { Some(user_namespace()?) } else { None };
        Ok(Self { network, user })
    }

    /// Joins the network, when it's there.
    ///
    /// # Errors
    /// `Network` with the errno of unshare(2) or setns(2).
    pub(crate) fn join_network(&mut self) -> Staged<()> {
        const STAGE: SetupStage = SetupStage::Network;
        let Some(holder) = self.network.take() else { return Ok(()) };
        holder.wait().at(STAGE, "unshare")?;
        nix::sched::setns(&holder.pidfd, CloneFlags::CLONE_NEWNET).at(STAGE, "setns")
    }

    /// A user namespace for the run's idmapped mounts: its own where that maps the same (not for root's runs, whose ids inside
    /// are others than the owner's).
    ///
    /// # Errors
    /// `UserNamespace`, `Idmap`.
    pub(crate) fn idmap(&mut self, prepare: &Prepare) -> Staged<OwnedFd> {
        let map = prepare.owner_map();
        match &mut self.user {
            Some(user) if prepare.run_map() == map => {
                user.map(map)?;
                identity::user_namespace(&user.proc, &user.number)
            }
            _ => identity::mapped_namespace(map, &identity::open_proc()?),
        }
    }

    /// Maps the run's user namespace and enters it.
    ///
    /// # Errors
    /// `UserNamespace`.
    pub(crate) fn enter_user(self, map: IdMap) -> Staged<()> {
        const STAGE: SetupStage = SetupStage::UserNamespace;
        let mut user = self.user.ok_or_else(|| failed(STAGE, libc::EBADF, "namespace"))?;
        user.map(map)?;
        nix::sched::setns(&user.holder.pidfd, CloneFlags::CLONE_NEWUSER).at(STAGE, "setns")?;
        limits::bound_watchers(&user.proc)
    }
}

/// How a fresh network namespace looks.
///
/// # Errors
/// `Network`. The caller must have no other child: this one is waited for.
pub(crate) fn fresh_network() -> Staged<Traces> {
    const STAGE: SetupStage = SetupStage::Network;
    let proc = identity::open_proc()?;
    let holder = Holder::start(0, libc::CLONE_NEWNET).at(STAGE, "clone")?;
    holder.wait().at(STAGE, "unshare")?;
    let number = holder.number_in(&proc).at(STAGE, "pidfd")?;
    let traces = Traces::of(&proc, &number).at(STAGE, "traces");
    drop(holder);
    rustix::process::wait(WaitOptions::empty()).at(STAGE, "wait")?;
    traces
}

impl UserNamespace {
    /// Maps it, if it isn't yet.
    fn map(&mut self, map: IdMap) -> Staged<()> {
        if !core::mem::replace(&mut self.is_mapped, true) {
            map.write_for_a_run(&self.proc, &self.number)?;
        }
        Ok(())
    }
}

fn user_namespace() -> Staged<UserNamespace> {
    const STAGE: SetupStage = SetupStage::UserNamespace;
    let holder = Holder::start(libc::CLONE_NEWUSER, 0).at(STAGE, "clone")?;
    let proc = identity::open_proc()?;
    let number = holder.number_in(&proc).at(STAGE, "pidfd")?;
    Ok(UserNamespace { holder, proc, number, is_mapped: false })
}
