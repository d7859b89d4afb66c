//! Where the daemon is: `--socket`, else `$STOCKADE_SOCKET`, else the user's, else the system's.
//!
//! Only a socket that isn't there means that there is no daemon. One that is there and can't be used is an error:
//! a run must not quietly take another way than the one that was set up.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD};
use rustix::io::Errno;
use stockade_client::{Client, ConnectError};

use crate::error::CliError;
use crate::sources;

/// What looking for a daemon found.
#[derive(Debug)]
pub(crate) enum Found {
    /// It, and at which socket. It was greeted, and may not want us yet.
    Daemon(Client, PathBuf),
    /// Nothing at any of these.
    Nobody(Vec<PathBuf>),
}

/// Looks for the daemon.
///
/// # Errors
/// [`CliError::Connect`]: a socket is there, or was named, and can't be used.
pub(crate) fn look(named: Option<&Path>) -> Result<Found, CliError> {
    if let Some(path) = named {
        return Ok(Found::Daemon(Client::open(path)?, path.to_owned()));
    }
    look_at(sources::surroundings().sockets())
}

/// Looks for the daemon at these, in their order.
///
/// # Errors
/// [`CliError::Connect`]: a socket is there, and can't be used.
pub(crate) fn look_at(candidates: Vec<PathBuf>) -> Result<Found, CliError> {
    for path in &candidates {
        // Most often none is there, and to be told so is cheaper than a socket.
        if let Err(Errno::NOENT | Errno::NOTDIR) =
            rustix::fs::accessat(CWD, path, Access::EXISTS, AtFlags::empty())
        {
            continue;
        }
        match Client::open(path) {
            Ok(client) => return Ok(Found::Daemon(client, path.clone())),
            Err(ConnectError::Socket { source, .. })
                if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Found::Nobody(candidates))
}

/// The daemon, where `what` can't do without one.
///
/// # Errors
/// As [`look`], and [`CliError::NoDaemon`].
pub(crate) fn need(what: &'static str, named: Option<&Path>) -> Result<Client, CliError> {
    match look(named)? {
        Found::Daemon(client, path) => greeted(client, path),
        Found::Nobody(tried) => Err(CliError::NoDaemon { what, tried }),
    }
}

/// The client, once the daemon has answered it.
///
/// # Errors
/// [`CliError::Connect`]: it doesn't want us.
pub(crate) fn greeted(mut client: Client, path: PathBuf) -> Result<Client, CliError> {
    match client.wait_for_welcome() {
        Ok(()) => Ok(client),
        Err(source) => Err(ConnectError::Handshake { path, source }.into()),
    }
}
