//! Descriptors in the event loop.
//!
//! tokio 1.54 has deprecated the safe constructors of `AsyncFd` because some types may answer `as_raw_fd` with
//! another number each time, or close it early. `OwnedFd` does neither, and it is the only type used here; the
//! replacement is an unsafe function, which this crate doesn't have.

use std::cell::OnceCell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

/// Watches a descriptor for what is of interest.
///
/// # Errors
/// Those of epoll_ctl(2): `EPERM` for what can't be waited for, like a file.
#[allow(deprecated, reason = "an OwnedFd keeps what the replacement's caller has to promise")]
pub(crate) fn watch(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, interest)
}

/// As [`watch`], of one that somebody else has, too.
///
/// # Errors
/// Those of epoll_ctl(2).
#[allow(deprecated, reason = "a shared OwnedFd keeps what the replacement's caller has to promise")]
pub(crate) fn watch_shared(descriptor: &Rc<OwnedFd>, interest: Interest) -> io::Result<AsyncFd<Rc<OwnedFd>>> {
    AsyncFd::with_interest(Rc::clone(descriptor), interest)
}

/// A socket that is read, and written until it takes no more.
///
/// A socket that is watched for room tells of it each time its peer has read something, which wakes the loop for nothing
/// after almost every message. So it's watched for reading alone, and for room by a second descriptor, from the first
/// time that it was full.
#[derive(Debug)]
pub(crate) struct Watched {
    socket: AsyncFd<OwnedFd>,
    room: OnceCell<AsyncFd<OwnedFd>>,
}

impl Watched {
    /// # Errors
    /// As [`watch`].
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { socket: watch(socket, Interest::READABLE)?, room: OnceCell::new() })
    }

    /// The socket.
    pub(crate) fn get_ref(&self) -> &OwnedFd {
        self.socket.get_ref()
    }

    /// The socket, watched no more.
    pub(crate) fn into_inner(self) -> OwnedFd {
        self.socket.into_inner()
    }

    /// Waits until there may be something to read.
    ///
    /// # Errors
    /// The loop is at its end.
    pub(crate) async fn readable(&self) -> io::Result<AsyncFdReadyGuard<'_, OwnedFd>> {
        self.socket.readable().await
    }

    /// Waits until there may be room, given how the socket is copied.
    ///
    /// # Errors
    /// The loop is at its end, or no descriptor is left.
    pub(crate) async fn writable(
        &self,
        copy: impl FnOnce(&OwnedFd) -> io::Result<OwnedFd>,
    ) -> io::Result<AsyncFdReadyGuard<'_, OwnedFd>> {
        let room = match self.room.get() {
            Some(room) => room,
            None => {
                let again = watch(copy(self.socket.get_ref())?, Interest::WRITABLE)?;
                self.room.get_or_init(|| again)
            }
        };
        room.writable().await
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn within(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    /// Ours, watched; and the peer's.
    fn pair() -> (Watched, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Watched::new(ours.into()).unwrap(), theirs)
    }

    fn write(watched: &Watched) -> io::Result<usize> {
        Ok(rustix::io::write(watched.get_ref(), &[0; 4096])?)
    }

    #[test]
    fn room_is_told_each_time_that_it_has_come_again() {
        within(async {
            let (watched, mut peer) = pair();
            for _ in 0..3 {
                let mut full = 0;
                let error = loop {
                    match write(&watched) {
                        Ok(written) => full += written,
                        Err(error) => break error,
                    }
                };
                assert!(full > 0 && error.kind() == ErrorKind::WouldBlock);
                let mut buffer = vec![0; full];
                peer.read_exact(&mut buffer).unwrap();
                let again = async {
                    while let Err(_would_block) =
                        watched.writable(OwnedFd::try_clone).await.unwrap().try_io(|_room| write(&watched))
                    {
                    }
                };
                timeout(Duration::from_secs(20), again).await.expect("nobody tells that there is room");
            }
        });
    }

    #[test]
    fn a_socket_that_was_never_full_has_one_descriptor_and_one_that_was_gives_it_back() {
        within(async {
            let (watched, mut peer) = pair();
            write(&watched).unwrap();
            assert!(watched.room.get().is_none());
            drop(watched.writable(OwnedFd::try_clone).await.unwrap());
            assert!(watched.room.get().is_some());
            peer.write_all(b"x").unwrap();
            watched.readable().await.unwrap().retain_ready();
            drop(watched.into_inner());
            // Both are closed: the peer sees the end behind what was written.
            let mut rest = Vec::new();
            let end = peer.read_to_end(&mut rest);
            assert!(end.is_ok() || end.unwrap_err().kind() == ErrorKind::ConnectionReset);
        });
    }
}
