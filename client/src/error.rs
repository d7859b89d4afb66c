//! Why a connection, or something asked over it, came to nothing.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

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

/// Why something asked over a connection came to nothing.
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
    /// The connection has ended.
    #[error("the supervisor closed the connection")]
    Closed,
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

impl ClientError {
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::Io { doing, source: errno.into() }
    }
}
