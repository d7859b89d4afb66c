//! The door of a launcher that outlives us: a socket that we make, the launcher listens on, and our successor connects to.
//!
//! ```text
//! successor ── connect ──> launcher    the launcher looks at its user id
//! successor <── Known ──── launcher    the successor looks at its user id and the launcher's token
//! successor ── Again ────> launcher    the launcher looks at the supervisor's token
//! ```

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::{PeerCredentials, PeerPidfd};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags};
use stockade_protocol::bounds::MAX_LAUNCH_INLINE;
use stockade_protocol::launch::{FromLauncher, Keep, LAUNCH_VERSION, OLDEST_LAUNCH_VERSION};
use stockade_wire::channel::{Channel, ChannelError, unpack};
use stockade_wire::{kin, socket};
use tokio::io::Interest;
use tokio::time::{sleep, timeout};

use crate::watched::watch;

/// The pause before a door with a queue is tried again.
const PAUSE: Duration = Duration::from_millis(10);

/// Why a launcher wasn't met.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DoorError {
    /// Nobody is there.
    #[error("cannot connect to the launcher")]
    Connect(#[source] io::Error),
    /// Somebody else is, or a run.
    #[error("a process of user {0} answers that can't be the launcher")]
    Stranger(u32),
    /// It doesn't know the secret.
    #[error("what answers isn't the launcher that was started")]
    Impostor,
    /// It has no ear for us: it's ending, or lacks something just now.
    #[error("the launcher has closed the connection")]
    Closed,
    /// It says nothing.
    #[error("the launcher says nothing")]
    Silent,
    /// It says what it mustn't.
    #[error("the launcher's greeting can't be understood")]
    Greeting(#[source] ChannelError),
    /// Of another time.
    #[error(
        "the launcher speaks version {0} at most, and this daemon {OLDEST_LAUNCH_VERSION} to {LAUNCH_VERSION}"
    )]
    Version(u16),
}

impl DoorError {
    /// Whether it may answer another time: it is busy, or stopped, or has no descriptor left.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            // A door that is somebody else's doesn't become ours.
            Self::Connect(error) => !self.is_gone() && error.kind() != io::ErrorKind::PermissionDenied,
            other => matches!(other, Self::Silent),
        }
    }

    /// Whether nobody is there any more.
    pub(crate) fn is_gone(&self) -> bool {
        let gone = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
        matches!(self, Self::Connect(error) if gone.contains(&error.kind()))
    }
}

/// The way to a door.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    /// Where it was made.
    pub(crate) path: PathBuf,
    /// The door itself, held for us whatever has become of its name: a path that connect(2) follows to it.
    pub(crate) held: Option<PathBuf>,
}

/// A launcher that was met.
#[derive(Debug)]
pub(crate) struct Met {
    pub(crate) channel: Channel,
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
}

/// Makes a door in a directory that is ours; nobody can connect until the launcher listens.
///
/// # Errors
/// Those of bind(2) and chmod(2).
pub(crate) fn make(directory: &Path, name: &str) -> io::Result<OwnedFd> {
    let (_held, address) = address(directory, name)?;
    let door =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&door, &address)?;
    rustix::fs::chmodat(rustix::fs::CWD, directory.join(name), Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
    Ok(door)
}

/// By way of the directory's descriptor, which must be held: no path is too long for it.
fn address(directory: &Path, name: &str) -> io::Result<(OwnedFd, SocketAddrUnix)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let held = rustix::fs::open(directory, flags, Mode::empty())?;
    let mut path = OsString::from(format!("/proc/self/fd/{}/", held.as_raw_fd()));
    path.push(name);
    let address = SocketAddrUnix::new(path)?;
    Ok((held, address))
}

/// Knocks, and makes sure who answers.
///
/// # Errors
/// [`DoorError`].
pub(crate) async fn meet(door: &Way, keep: &Keep, within: Duration) -> Result<Met, DoorError> {
    let until = Instant::now() + within;
    loop {
        match knock(door, keep, within).await {
            Err(DoorError::Closed) if Instant::now() < until => sleep(PAUSE).await,
            other => return other,
        }
    }
}

async fn knock(door: &Way, keep: &Keep, within: Duration) -> Result<Met, DoorError> {
    let socket = connect(door, within).await.map_err(DoorError::Connect)?;
    let peer = getsockopt(&socket, PeerCredentials).map_err(|errno| DoorError::Connect(errno.into()))?;
    if !may_be_a_launchers(peer.uid()) || !kin::is_no_run(peer.pid()) {
        return Err(DoorError::Stranger(peer.uid()));
    }
    let pidfd = match getsockopt(&socket, PeerPidfd) {
        Ok(pidfd) => pidfd,
        Err(_before_6_5) => {
            let pid = Pid::from_raw(peer.pid()).ok_or(DoorError::Impostor)?;
            rustix::process::pidfd_open(pid, PidfdFlags::empty())
                .map_err(|errno| DoorError::Connect(errno.into()))?
        }
    };
    let known = timeout(within, hear(&socket)).await.map_err(|_elapsed| DoorError::Silent)??;
    match known {
        FromLauncher::Known { version, .. } if version < OLDEST_LAUNCH_VERSION => {
            Err(DoorError::Version(version))
        }
        FromLauncher::Known { token, .. } if token == keep.launcher => {
            Ok(Met { channel: Channel::new(socket), pid: peer.pid(), pidfd })
        }
        _ => Err(DoorError::Impostor),
    }
}

/// Whether a launcher may be this user's: ours, or root's, who is above us both.
pub(crate) fn may_be_a_launchers(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

async fn connect(door: &Way, within: Duration) -> io::Result<OwnedFd> {
    let Way { path, held } = door;
    if let Some(held) = held {
        let connected = connect_to(&SocketAddrUnix::new(held)?, within).await;
        // Behind one that nobody listens at any more there may be another of its name.
        if !connected.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            return connected;
        }
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let (_held, address) = address(directory, name)?;
    connect_to(&address, within).await
}

async fn connect_to(address: &SocketAddrUnix, within: Duration) -> io::Result<OwnedFd> {
    let until = Instant::now() + within;
    loop {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        match rustix::net::connect(&socket, address) {
            Ok(()) => return Ok(socket),
            // Its queue is full.
            Err(Errno::AGAIN) if Instant::now() < until => sleep(PAUSE).await,
            Err(errno) => return Err(errno.into()),
        }
    }
}

async fn hear(socket: &OwnedFd) -> Result<FromLauncher, DoorError> {
    let failed = |error: io::Error| DoorError::Greeting(error.into());
    let watched = socket.try_clone().and_then(|copy| watch(copy, Interest::READABLE)).map_err(failed)?;
    let mut buffer = vec![0; MAX_LAUNCH_INLINE + 1];
    loop {
        let mut guard = watched.readable().await.map_err(failed)?;
        match guard.try_io(|socket| socket::receive(socket, &mut buffer)) {
            Err(_would_block) => {}
            Ok(received) => {
                let received = match received {
                    Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                        return Err(DoorError::Closed);
                    }
                    other => other.map_err(failed)?,
                };
                if received.length == 0 {
                    return Err(DoorError::Closed);
                }
                let greeting = unpack(&buffer[..received.length], received.descriptors);
                return greeting.map(|(message, _none)| message).map_err(DoorError::Greeting);
            }
        }
    }
}
