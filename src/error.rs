//! Why a subcommand could not do what it was asked: what we were doing, then why, then what would help.

use std::error::Error;
use std::path::PathBuf;

use stockade_client::{ClientError, ConnectError};
use stockade_protocol::denied::Denied;
use stockade_wire::channel::ChannelError;

use crate::{escape, exit, words};

/// An error of the command line's own.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CliError {
    /// No connection to a daemon that is there, or should be.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// No daemon where one is needed.
    #[error("{what} needs a daemon, and none is at {}", places(.tried))]
    NoDaemon {
        /// What needs it.
        what: &'static str,
        /// Where we looked.
        tried: Vec<PathBuf>,
    },
    /// The conversation failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Refused, by a daemon or by admission here.
    #[error("{}", words::denied(.0))]
    Denied(Denied),
    /// The launcher could not be started.
    #[error("cannot run without a daemon")]
    Embedded(#[source] Box<dyn Error + Send + Sync>),
    /// It was started, and can't be spoken with any more.
    #[error("cannot speak with the launcher")]
    Launcher(#[source] ChannelError),
    /// A policy, or a set of them.
    #[error("policies")]
    Policies(#[source] Box<dyn Error + Send + Sync>),
    /// A system call.
    #[error("cannot {doing}")]
    Io {
        /// What we were doing.
        doing: String,
        /// Why.
        source: std::io::Error,
    },
    /// Two things asked for that don't go together, or one that can't be.
    #[error("{0}")]
    Asked(String),
    /// The daemon's configuration.
    #[error("configuration")]
    Configuration(#[from] stockade_supervisor::config::Mistakes),
    /// The gate's files.
    #[error(transparent)]
    Gate(#[from] stockade_supervisor::Faults),
    /// The record.
    #[error(transparent)]
    Audit(#[from] stockade_audit::AuditError),
    /// The statistics.
    #[error(transparent)]
    Statistics(#[from] stockade_supervisor::statistics::ReadError),
    /// The daemon could not serve.
    #[error(transparent)]
    Serve(#[from] stockade_supervisor::ServeError),
}

impl CliError {
    /// For a failed system call.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    /// What would help, where we know.
    pub(crate) fn remedy(&self) -> Option<&'static str> {
        use std::io::ErrorKind;
        match self {
            Self::Connect(ConnectError::Socket { source, .. }) => match source.kind() {
                ErrorKind::ConnectionRefused => Some(
                    "nobody listens there (a daemon that died?): start `stockade serve`, remove the socket, or pass --embedded",
                ),
                ErrorKind::PermissionDenied => Some(
                    "join the group that owns the socket, start a daemon of your own, or pass --embedded",
                ),
                ErrorKind::NotFound => Some("start `stockade serve`, or leave --socket away"),
                _ => None,
            },
            Self::Connect(ConnectError::Handshake { .. }) => Some("pass --embedded to run without a daemon"),
            Self::NoDaemon { .. } => Some("start one with `stockade serve`"),
            Self::Client(ClientError::Unanswered { .. }) => Some("`stockade ps --all` shows whether it was"),
            Self::Client(ClientError::Unapproved { .. }) => Some(
                "ask again once the daemon is back; `stockade ps --all` shows it if somebody has just said yes",
            ),
            Self::Client(ClientError::Lost { .. }) => {
                Some("what became of it is in the daemon's log, if anywhere; run it again if need be")
            }
            Self::Client(ClientError::Closed | ClientError::Gone { .. }) => {
                Some("the daemon went away; once it is back, `stockade ps` shows what became of the run")
            }
            Self::Serve(error) => error.remedy(),
            Self::Audit(error) => error.remedy(),
            Self::Statistics(error) => error.remedy(),
            _ => None,
        }
    }

    /// What the process exits with.
    pub(crate) fn status(&self, running: bool) -> u8 {
        match self {
            Self::Serve(error) => error.status(),
            Self::Configuration(_) => stockade_supervisor::sysexits::CONFIG,
            _ if running => exit::OURS,
            _ => exit::FAILED,
        }
    }
}

fn places(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    paths.join(" or ")
}

/// An error and all its sources, in one escaped line. A source that the message above it ends with isn't repeated.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = error.source();
    }
    escape::text(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_chain_says_what_we_did_and_then_why() {
        let source = io::Error::from_raw_os_error(13);
        let error = CliError::Connect(ConnectError::Socket { path: "/run/x.sock".into(), source });
        assert_eq!(chain(&error), "cannot connect to /run/x.sock: Permission denied (os error 13)");
        assert!(error.remedy().is_some_and(|remedy| remedy.contains("group")));
    }

    #[test]
    fn no_daemon_names_every_place_we_looked() {
        let error = CliError::NoDaemon { what: "--detach", tried: vec!["/a".into(), "/b".into()] };
        assert_eq!(chain(&error), "--detach needs a daemon, and none is at /a or /b");
    }

    #[test]
    fn only_a_run_exits_with_125() {
        let error = CliError::Asked("x".into());
        assert_eq!((error.status(true), error.status(false)), (125, 1));
    }
}
