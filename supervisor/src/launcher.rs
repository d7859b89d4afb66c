//! Starts a launcher: the one process that stays with the supervisor (or the embedded command line), or has one started
//! elsewhere.
//!
//! Ours is our own binary, executed afresh in the role `launcher`, by `Command` without `pre_exec`: no line of ours
//! runs between fork and exec in a process that may have threads. Its `SOCK_SEQPACKET` channel is its standard
//! input; it has a process group of its own, so that a Ctrl-C at the terminal reaches us and not it; its
//! environment is empty and its working directory `/`, so that nothing of the caller's leaks into templates.
//!
//! Elsewhere is a unit of the launcher's own, whose socket starts a launcher for each connection (`Accept=yes`), and makes that
//! the launcher's channel. So a launcher can be root's while its supervisor isn't, and the units' lives are apart.
//!
//! Nothing here needs a runtime, and nothing here may decide what runs.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use stockade_wire::channel::Channel;
use stockade_wire::socket;

use crate::door;

/// Ourselves, also when the file has been replaced on disk by an upgrade.
const OURSELVES: &str = "/proc/self/exe";

/// Why there is no launcher.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LauncherError {
    /// No channel for it.
    #[error("cannot make the launcher's channel")]
    Channel(#[source] io::Error),
    /// It can't be executed.
    #[error("cannot start the launcher from {OURSELVES}")]
    Spawn(#[source] io::Error),
    /// Nobody starts one there.
    #[error(
        "cannot reach a launcher at {path}; is its unit's socket started (systemctl status stockade-launcher.socket)?"
    )]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody else would.
    #[error("user {uid} listens at {path}, who isn't root and not us: what answers there could run anything")]
    Stranger {
        /// The socket.
        path: PathBuf,
        /// Whose.
        uid: u32,
    },
}

/// What a launcher is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// One run: it passes descriptors only, without a relay.
    Embedded,
    /// A daemon's runs.
    Daemon,
}

/// Starts a launcher and returns the supervisor's end of its channel (blocking, close-on-exec), with which it ends.
///
/// # Errors
/// [`LauncherError`]; nothing is left running then.
pub fn start(purpose: Purpose) -> Result<(Channel, Child), LauncherError> {
    let (ours, theirs) = socket::seqpacket_pair().map_err(LauncherError::Channel)?;
    let child = spawn(purpose, theirs).map_err(LauncherError::Spawn)?;
    Ok((Channel::new(ours), child))
}

/// Has a launcher started by whoever listens there, and returns its channel. It doesn't end with us.
///
/// # Errors
/// [`LauncherError::Connect`], [`LauncherError::Stranger`].
pub fn connect(path: &Path) -> Result<Channel, LauncherError> {
    let failed = |errno: Errno| LauncherError::Connect { path: path.to_owned(), source: errno.into() };
    let address = SocketAddrUnix::new(path).map_err(failed)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .and_then(|socket| rustix::net::connect(&socket, &address).map(|()| socket))
        .map_err(failed)?;
    let listener = getsockopt(&socket, PeerCredentials)
        .map_err(|errno| LauncherError::Connect { path: path.to_owned(), source: errno.into() })?;
    if !door::may_be_a_launchers(listener.uid()) {
        return Err(LauncherError::Stranger { path: path.to_owned(), uid: listener.uid() });
    }
    rustix::io::ioctl_fionbio(&socket, false).map_err(failed)?;
    Ok(Channel::new(socket))
}

#[allow(clippy::disallowed_methods, reason = "the place where a process is started")]
fn spawn(purpose: Purpose, channel: OwnedFd) -> io::Result<Child> {
    let mut command = Command::new(OURSELVES);
    command.arg0("stockade").arg("launcher");
    if purpose == Purpose::Embedded {
        command.arg("--embedded");
    }
    command
        .env_clear()
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::from(channel))
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
}
