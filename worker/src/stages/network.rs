//! The run's network namespace. Of all namespaces it takes longest to make (0.3 ms and more), so a lone worker has a child
//! make it while it builds the root, and joins it then.

use std::os::fd::{AsFd, OwnedFd};

use nix::sched::CloneFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use stockade_protocol::outcome::SetupStage;
use stockade_protocol::spec::{Level, NetworkMode, SandboxSpec};

use crate::failure::{At, Staged, failed};
use crate::sys::{self, Cloned};

const STAGE: SetupStage = SetupStage::Network;

/// Whether the spec's workers have a network namespace of their own.
pub(crate) fn is_own(spec: &SandboxSpec) -> bool {
    match spec.network.mode {
        NetworkMode::Host => false,
        NetworkMode::Loopback => true,
        NetworkMode::None => spec.level == Level::Strict,
    }
}

/// Brings the loopback interface of a fresh network namespace up.
pub(crate) fn loopback_up() -> Staged<()> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None);
    sys::loopback_up(socket.at(STAGE, "lo")?.as_fd()).at(STAGE, "lo")
}

/// A network namespace that is being made. Dropped, it's gone again.
#[derive(Debug)]
pub(crate) struct Making {
    /// The child that makes it, which holds it until it's joined.
    maker: OwnedFd,
    /// A byte up: it's there. Its end: the child may go.
    told: OwnedFd,
}

impl Making {
    /// Has a child begin. The caller's user namespace will own it.
    ///
    /// # Errors
    /// `Network`.
    pub(crate) fn begin() -> Staged<Self> {
        let (ours, theirs) = stockade_wire::socket::seqpacket_pair().at(STAGE, "socketpair")?;
        match sys::clone_process(0, None).at(STAGE, "clone")? {
            Cloned::Parent { pidfd, .. } => Ok(Self { maker: pidfd, told: ours }),
            Cloned::Child => {
                drop(ours);
                let errno = match nix::sched::unshare(CloneFlags::CLONE_NEWNET) {
                    Ok(()) => 0,
                    Err(errno) => errno as i32,
                };
                let told = rustix::io::write(&theirs, &errno.to_ne_bytes()).is_ok();
                // Until the worker is in it, or gone.
                let _ = rustix::io::read(&theirs, &mut [0]);
                crate::role::leave(i32::from(!told));
            }
        }
    }

    /// Waits for it and joins it.
    ///
    /// # Errors
    /// `Network` with the errno of unshare(2) or setns(2).
    pub(crate) fn join(self) -> Staged<()> {
        let mut errno = [0; size_of::<i32>()];
        let read = rustix::io::read(&self.told, &mut errno).at(STAGE, "unshare")?;
        match i32::from_ne_bytes(errno) {
            0 if read == errno.len() => {
                nix::sched::setns(&self.maker, CloneFlags::CLONE_NEWNET).at(STAGE, "setns")
            }
            0 => Err(failed(STAGE, libc::EPIPE, "unshare")),
            errno => Err(failed(STAGE, errno, "unshare")),
        }
    }
}
