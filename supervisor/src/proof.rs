//! How launchers know for whom a connection's runs are: what they ask the kernel of it, if they don't believe us.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::rc::Rc;

use nix::sys::socket::{UnixAddr, getpeername};
use stockade_protocol::denied::{Denied, DenyReason};

/// How launchers know for whom a connection's runs are.
#[derive(Debug, Clone, Default)]
pub(crate) enum Proof {
    /// They believe us.
    #[default]
    NotNeeded,
    /// They want to see the connection itself.
    Connection(Rc<OwnedFd>),
    /// They would want to, and it shows nothing: a client whose socket has a name can't be told from one that we have connected
    /// to.
    Nothing,
}

impl Proof {
    /// Of a connection to launchers that don't believe us, given how it is copied.
    ///
    /// # Errors
    /// Those of getpeername(2) and of the copy.
    pub(crate) fn of(
        connection: &OwnedFd,
        copy: impl FnOnce(&OwnedFd) -> io::Result<OwnedFd>,
    ) -> io::Result<Self> {
        let client: UnixAddr = getpeername(connection.as_raw_fd())?;
        if client.path().is_some() || client.as_abstract().is_some() {
            return Ok(Self::Nothing);
        }
        Ok(Self::Connection(Rc::new(copy(connection)?)))
    }

    /// What is shown along with a run.
    ///
    /// # Errors
    /// Launchers would refuse it.
    pub(crate) fn shown(&self) -> Result<Option<Rc<OwnedFd>>, Denied> {
        match self {
            Self::NotNeeded => Ok(None),
            Self::Connection(connection) => Ok(Some(Rc::clone(connection))),
            Self::Nothing => {
                let message = "the client's socket has a name, so it doesn't show launchers who asks";
                Err(Denied::new(DenyReason::NotPermitted, message)
                    .remedy("connect with a socket that isn't bound to an address"))
            }
        }
    }
}
