//! Descriptors in the event loop.
//!
//! tokio 1.54 has deprecated the safe constructors of `AsyncFd` because some types may answer `as_raw_fd` with
//! another number each time, or close it early. `OwnedFd` does neither, and it is the only type used here; the
//! replacement is an unsafe function, which this crate doesn't have.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches a descriptor for what is of interest.
///
/// # Errors
/// Those of epoll_ctl(2): `EPERM` for what can't be waited for, like a file.
#[allow(deprecated, reason = "an OwnedFd keeps what the replacement's caller has to promise")]
pub(crate) fn watch(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, interest)
}

/// For reading and writing.
pub(crate) fn both() -> Interest {
    Interest::READABLE | Interest::WRITABLE
}
