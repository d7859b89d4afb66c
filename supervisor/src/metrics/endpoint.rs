//! Where the figures are told: a Unix socket or a port of the loopback, and nowhere else. Off unless asked for.

use core::fmt;
use core::str::FromStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use tokio::net::{TcpListener, TcpStream, UnixStream};

use crate::listener::{Access, ListenError, Listener};

/// Before a socket's path.
const UNIX: &str = "unix:";

/// Where to serve metrics and health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket, by its absolute path, in a directory as the daemon's own socket needs it.
    Unix(PathBuf),
    /// A port of 127.0.0.1 or `[::1]`; 0: one that is free, which the log names.
    Loopback(SocketAddr),
}

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// It says neither.
    #[error(
        "`{0}` is no place for metrics: give unix:PATH (absolute), 127.0.0.1:PORT or [::1]:PORT; to have them elsewhere, put a proxy with its own access control before one of these"
    )]
    Address(String),
    /// Its socket can't be.
    #[error("cannot serve metrics")]
    Socket(#[from] ListenError),
    /// Somebody listens there.
    #[error(
        "cannot serve metrics on {0}: another program listens there; stop it, or name another port with --metrics"
    )]
    Taken(SocketAddr),
    /// Something else.
    #[error("cannot serve metrics on {address}; name another address with --metrics, or leave it out")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A mistake of ours: the table of metrics.
    #[error("cannot make the metrics")]
    Table(#[source] Box<dyn core::error::Error + Send + Sync>),
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let wrong = || EndpointError::Address(text.to_owned());
        if let Some(path) = text.strip_prefix(UNIX) {
            let path = PathBuf::from(path);
            return if path.is_absolute() { Ok(Self::Unix(path)) } else { Err(wrong()) };
        }
        let address: SocketAddr = text.parse().map_err(|_not_one| wrong())?;
        let is_ours = match address.ip() {
            IpAddr::V4(ip) => ip == Ipv4Addr::LOCALHOST,
            IpAddr::V6(ip) => ip == Ipv6Addr::LOCALHOST,
        };
        if is_ours { Ok(Self::Loopback(address)) } else { Err(wrong()) }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
            Self::Loopback(address) => address.fmt(f),
        }
    }
}

/// An endpoint that is bound: who asks from now on waits for us.
pub(crate) enum Door {
    Unix(Listener),
    Loopback(TcpListener, SocketAddr),
}

/// One who asks.
pub(super) enum Visitor {
    Unix(UnixStream),
    Loopback(TcpStream),
}

impl Door {
    /// Binds. Within a tokio runtime.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub(crate) async fn open(endpoint: &Endpoint, access: Access<'_>) -> Result<Self, EndpointError> {
        match endpoint {
            Endpoint::Unix(path) => Ok(Self::Unix(Listener::bind(path, access)?)),
            Endpoint::Loopback(address) => {
                let failed = |source: io::Error| match source.kind() {
                    io::ErrorKind::AddrInUse => EndpointError::Taken(*address),
                    _ => EndpointError::Bind { address: *address, source },
                };
                let listener = TcpListener::bind(address).await.map_err(failed)?;
                let bound = listener.local_addr().map_err(failed)?;
                Ok(Self::Loopback(listener, bound))
            }
        }
    }

    /// Where it is, as whoever asks has to write it.
    pub(crate) fn endpoint(&self) -> Endpoint {
        match self {
            Self::Unix(listener) => Endpoint::Unix(listener.path.clone()),
            Self::Loopback(_, address) => Endpoint::Loopback(*address),
        }
    }

    pub(super) async fn next(&self) -> io::Result<Visitor> {
        match self {
            Self::Unix(listener) => {
                let socket: OwnedFd = listener.accept().await?;
                UnixStream::from_std(socket.into()).map(Visitor::Unix)
            }
            Self::Loopback(listener, _) => {
                listener.accept().await.map(|(stream, _)| Visitor::Loopback(stream))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_socket_or_the_loopback_is_a_place() {
        for text in ["unix:/run/stockade/metrics.sock", "127.0.0.1:9747", "[::1]:9747", "127.0.0.1:0"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "9747",
            ":9747",
            "0.0.0.0:9747",
            "[::]:9747",
            "192.0.2.1:9747",
            "127.0.0.2:9747",
            "localhost:9747",
            "127.0.0.1",
            "127.0.0.1:65536",
            "[::ffff:127.0.0.1]:9747",
            "unix:",
            "unix:relative",
            "/run/x",
        ] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert!(error.to_string().contains("unix:PATH"), "{text}: {error}");
        }
    }
}
