//! Why a connection, or something asked over it, came to nothing.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use stockade_protocol::ExecId;
use stockade_protocol::client::ProtocolError;
use stockade_protocol::codec::CodecError;
use stockade_protocol::denied::Denied;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The socket can't be reached: `NotFound` (no such socket), `ConnectionRefused` (a socket nobody listens on),
    /// `PermissionDenied`.
    #[error("cannot connect to {}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody listens, but no conversation came about.
    #[error("cannot open a conversation over {}", path.display())]
    Handshake {
        /// Where.
        path: PathBuf,
        /// Why.
        source: ClientError,
    },
}

/// Why something asked over a connection came to nothing. Most are the end of the connection; those that
/// [`ClientError::about`] names a run or a request for concern that alone, and everything else goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// A system call failed.
    #[error("cannot {doing}")]
    Io {
        /// What the client was doing.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// What arrived is no message, or what should be sent is too large for one.
    #[error("message")]
    Codec(#[from] CodecError),
    /// The supervisor has closed the connection, and said why.
    #[error("the supervisor closed the connection: {0}")]
    Refused(ProtocolError),
    /// The connection has ended. Where runs were followed, it could not be made again: the client has no path.
    #[error("the supervisor closed the connection")]
    Closed,
    /// The connection broke, and no supervisor came in time. The runs that were followed may go on.
    #[error("the supervisor went away and did not come back within {within:?}")]
    Gone {
        /// How long it had.
        within: Duration,
        /// Why the last try to connect failed, if it did.
        source: Option<io::Error>,
    },
    /// The connection broke after an `Exec` was sent and before it was answered. It isn't sent again, since the run may
    /// have been started: [`Client::list`](crate::Client::list), or `stockade ps`, tells.
    #[error("the connection broke before the supervisor answered; the run may have been started")]
    Unanswered {
        /// What [`Client::begin`](crate::Client::begin) returned.
        request_id: u64,
    },
    /// The same, of one that waited until somebody had approved it: nothing of it runs before that, and what waited is forgotten.
    #[error("the connection broke while somebody was asked to approve it; nothing runs before a yes")]
    Unapproved {
        /// What [`Client::begin`](crate::Client::begin) returned.
        request_id: u64,
    },
    /// After a break the supervisor doesn't know the run any more, or not as far as we do: it was restarted without it.
    #[error("run {exec_id} is lost: the supervisor was restarted meanwhile: {denied}")]
    Lost {
        /// The run.
        exec_id: ExecId,
        /// What the supervisor said.
        denied: Denied,
    },
    /// The connection broke while a run's standard input was sent as messages: what was sent last may not have arrived.
    /// The run goes on and so do its events; whether to end it, to close its input or to send more is the caller's to
    /// decide.
    #[error(
        "run {exec_id} may lack some of its standard input, since the connection broke while it was sent"
    )]
    InputInDoubt {
        /// The run.
        exec_id: ExecId,
    },
    /// A request was refused.
    #[error("denied: {0}")]
    Denied(Denied),
    /// Nothing came in time.
    #[error("the supervisor did not answer within {0:?}")]
    Silent(Duration),
    /// The supervisor speaks another version.
    #[error("the supervisor speaks version {theirs} of the wire, this client version {ours}")]
    Version {
        /// The supervisor's.
        theirs: u16,
        /// This crate's.
        ours: u16,
    },
    /// A message that doesn't answer what was asked.
    #[error("the supervisor sent an unexpected message: {0}")]
    Unexpected(&'static str),
}

/// What an error is about, where it isn't the whole connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// One request, by the number that [`Client::begin`](crate::Client::begin) returned.
    Request(u64),
    /// One run.
    Run(ExecId),
}

impl ClientError {
    /// The one run or request that this is about; `None`: the connection, or the call that returned it.
    #[must_use]
    pub fn about(&self) -> Option<About> {
        match self {
            Self::Unanswered { request_id } | Self::Unapproved { request_id } => {
                Some(About::Request(*request_id))
            }
            Self::Lost { exec_id, .. } | Self::InputInDoubt { exec_id } => Some(About::Run(*exec_id)),
            _ => None,
        }
    }

    pub(crate) fn io(doing: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::Io { doing, source: errno.into() }
    }
}
