//! What a child of the worker makes while the worker builds its root: the run's network namespace, which takes longest of
//! all (0.3 ms and more), and in the system plan its user namespace, both owned by root's.
//!
//! ```text
//! child: network ── user namespace ── tells, holds them, ends
//! worker:   root … ── joins the network ── maps the ids ── enters the user namespace
//! ```

use std::io;
use std::os::fd::OwnedFd;

use nix::sched::CloneFlags;
use stockade_protocol::confinement::Plan;
use stockade_protocol::outcome::SetupStage;
use stockade_wire::socket;

use crate::failure::{At, Staged, failed};
use crate::messages::Prepare;
use crate::stages::identity::{self, IdMap};
use crate::stages::network;
use crate::sys::{self, Cloned};

/// Namespaces that are being made. Dropped, they're gone again.
#[derive(Debug)]
pub(crate) struct Beside {
    /// The child, which holds them until they're entered.
    child: OwnedFd,
    /// The host's `/proc`, and the child's number in it.
    proc: OwnedFd,
    number: String,
    /// Up: which step failed and why, or that none did. Its end: the child may go.
    socket: OwnedFd,
    own_network: bool,
}

/// What the child may fail at.
const NETWORK: i32 = 1;
const USER: i32 = 2;

impl Beside {
    /// Has a child begin, if the spec wants anything of what it makes. While the host's `/proc` is still in sight.
    ///
    /// # Errors
    /// `UserNamespace`, `Network`.
    pub(crate) fn begin(prepare: &Prepare) -> Staged<Option<Self>> {
        let own_network = prepare.plan != Plan::Minimal && network::is_own(&prepare.spec);
        let system = prepare.plan == Plan::System;
        if !system && !own_network {
            return Ok(None);
        }
        let stage = if system { SetupStage::UserNamespace } else { SetupStage::Network };
        let (ours, theirs) = socket::seqpacket_pair().at(stage, "socketpair")?;
        let Cloned::Parent { pidfd, .. } = sys::clone_process(0, None).at(stage, "clone")? else {
            drop(ours);
            crate::role::leave(i32::from(make(&theirs, own_network, system).is_err()));
        };
        let proc = identity::open_proc()?;
        let number = identity::number_in(&proc, &pidfd).at(stage, "pidfd")?;
        Ok(Some(Self { child: pidfd, proc, number, socket: ours, own_network }))
    }

    /// Waits until all is made, and joins the network.
    ///
    /// # Errors
    /// `Network`, `UserNamespace` with the child's errno, or that of setns(2).
    pub(crate) fn join_network(&self) -> Staged<()> {
        let mut told = [0; 2 * size_of::<i32>()];
        let read = rustix::io::read(&self.socket, &mut told).at(SetupStage::Network, "child")?;
        if read != told.len() {
            return Err(failed(SetupStage::Network, libc::EPIPE, "child"));
        }
        let (step, errno) = told.split_at(size_of::<i32>());
        let number = |bytes: &[u8]| bytes.try_into().map_or(libc::EIO, i32::from_ne_bytes);
        match number(step) {
            0 if self.own_network => {
                nix::sched::setns(&self.child, CloneFlags::CLONE_NEWNET).at(SetupStage::Network, "setns")
            }
            0 => Ok(()),
            USER => Err(failed(SetupStage::UserNamespace, number(errno), "unshare")),
            _ => Err(failed(SetupStage::Network, number(errno), "unshare")),
        }
    }

    /// Maps the run's user namespace and enters it. After [`join_network`](Self::join_network).
    ///
    /// # Errors
    /// `UserNamespace`.
    pub(crate) fn enter_user(self, map: IdMap) -> Staged<()> {
        map.write(&self.proc, &self.number)?;
        nix::sched::setns(&self.child, CloneFlags::CLONE_NEWUSER).at(SetupStage::UserNamespace, "setns")
    }
}

/// The child's life.
fn make(socket: &OwnedFd, own_network: bool, system: bool) -> io::Result<()> {
    let unshare =
        |step: i32, flags: CloneFlags| nix::sched::unshare(flags).map_err(|errno| (step, errno as i32));
    let network = if own_network { unshare(NETWORK, CloneFlags::CLONE_NEWNET) } else { Ok(()) };
    let user = |()| if system { unshare(USER, CloneFlags::CLONE_NEWUSER) } else { Ok(()) };
    let (step, errno) = network.and_then(user).err().unwrap_or((0, 0));
    rustix::io::write(socket, &[step.to_ne_bytes(), errno.to_ne_bytes()].concat())?;
    // Until they're entered, or the worker is gone.
    rustix::io::read(socket, &mut [0; 1])?;
    Ok(())
}
