//! Starts a launcher: the one process that stays with the supervisor (or the embedded command line).
//!
//! It is our own binary, executed afresh in the role `launcher`, by `Command` without `pre_exec`: no line of ours
//! runs between fork and exec in a process that may have threads. Its `SOCK_SEQPACKET` channel is its standard
//! input; it has a process group of its own, so that a Ctrl-C at the terminal reaches us and not it; its
//! environment is empty and its working directory `/`, so that nothing of the caller's leaks into templates.
//!
//! Nothing here needs a runtime, and nothing here may decide what runs.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use stockade_wire::channel::Channel;
use stockade_wire::socket;

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
}

/// What a launcher is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// One run: it passes descriptors only, without a relay.
    Embedded,
    /// A daemon's runs.
    Daemon {
        /// The most workers parked for one user, policy and workspace.
        parked: u32,
    },
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

#[allow(clippy::disallowed_methods, reason = "the place where a process is started")]
fn spawn(purpose: Purpose, channel: OwnedFd) -> io::Result<Child> {
    let mut command = Command::new(OURSELVES);
    command.arg0("stockade").arg("launcher");
    match purpose {
        Purpose::Embedded => command.arg("--embedded"),
        Purpose::Daemon { parked } => command.arg(format!("--parked={parked}")),
    };
    command
        .env_clear()
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::from(channel))
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
}
