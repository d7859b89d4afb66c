//! The run's network: whose namespace, and its loopback interface.

use std::os::fd::AsFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use stockade_protocol::outcome::SetupStage;
use stockade_protocol::spec::{Level, NetworkMode, SandboxSpec};

use crate::failure::{At, Staged};
use crate::sys;

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
