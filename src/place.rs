//! Where the daemon is: `--socket`, else `$STOCKADE_SOCKET`, else the user's, else the system's.
//!
//! Only a socket that isn't there means that there is no daemon. One that is there and can't be used is an error:
//! a run must not quietly take another way than the one that was set up.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use stockade_client::{Client, ConnectError};

use crate::error::CliError;
use crate::sources;

/// What looking for a daemon found.
#[derive(Debug)]
pub(crate) enum Found {
    /// It.
    Daemon(Client),
    /// Nothing at any of these.
    Nobody(Vec<PathBuf>),
}

/// Looks for the daemon.
///
/// # Errors
/// [`CliError::Connect`]: a socket is there, or was named, and can't be used.
pub(crate) fn look(named: Option<&Path>) -> Result<Found, CliError> {
    if let Some(path) = named {
        return Ok(Found::Daemon(Client::connect(path)?));
    }
    let candidates = sources::surroundings().sockets();
    for path in &candidates {
        match Client::connect(path) {
            Ok(client) => return Ok(Found::Daemon(client)),
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
        Found::Daemon(client) => Ok(client),
        Found::Nobody(tried) => Err(CliError::NoDaemon { what, tried }),
    }
}
