//! What of our table of descriptors is kept from clients: launchers and relays pass us some, and one that doesn't fit is lost, and
//! its launcher with it.
//!
//! The kernel gives the lowest number that is free (POSIX, "file descriptor allocation"), so a descriptor's number says how full
//! the table is: nobody has to count. What clients have us open is looked at once it is open: a connection when it is accepted,
//! what comes with a message, and what we copy for them. From the first that is too much on, a message that brings any is left
//! in its socket.

use core::cell::Cell;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

use rustix::process::{Resource, getrlimit};
use stockade_wire::socket::KERNEL_DESCRIPTORS;

/// Open files of a run that goes on.
pub(crate) const PER_RUN: u64 = 3;
/// For what comes from launchers, and files that are opened for a moment.
const OURS: u64 = 48;
/// That, and what one message of a client's may bring before it can be refused. What doesn't fit the kernel closes then and
/// there, on the loop, and the close of what a stranger sends may wait for ever.
pub(crate) const SPARE: u64 = OURS + KERNEL_DESCRIPTORS as u64;

/// How many descriptors we may have.
#[derive(Debug)]
pub(crate) struct Table {
    most: u64,
    /// Something was too much, and it hasn't been seen since that there is room.
    is_tight: Cell<bool>,
}

impl Table {
    /// This process's.
    pub(crate) fn of_this_process() -> Self {
        Self { most: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), is_tight: Cell::new(false) }
    }

    /// Whether a client's descriptor takes room that runs of so many slots will want, of which these are free.
    pub(crate) fn is_too_full_for(&self, descriptor: BorrowedFd<'_>, free_slots: usize) -> bool {
        let kept =
            u64::try_from(free_slots).unwrap_or(u64::MAX).saturating_mul(PER_RUN).saturating_add(SPARE);
        let number = u64::try_from(descriptor.as_raw_fd()).unwrap_or(0);
        let is_full = number >= self.most.saturating_sub(kept);
        if is_full {
            self.is_full();
        }
        is_full
    }

    /// Whether there may be no room for what a message brings. Costs nothing while nothing was too much.
    pub(crate) fn is_tight(&self) -> bool {
        if self.is_tight.get() {
            // The lowest that is free.
            let next = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 0);
            let is_tight = next.map_or(true, |next| self.is_too_full_for(next.as_fd(), 0));
            self.is_tight.set(is_tight);
        }
        self.is_tight.get()
    }

    /// No descriptor was left.
    pub(crate) fn is_full(&self) {
        if !self.is_tight.replace(true) {
            tracing::warn!(
                limit = self.most,
                "no descriptor is left for clients: they are refused until others have gone"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn the_number_of_a_descriptor_says_whether_it_is_one_too_many() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let number = u64::try_from(file.as_raw_fd()).unwrap();
        let table = |most| Table { most, is_tight: Cell::new(false) };
        let full = |most, free| table(most).is_too_full_for(file.as_fd(), free);
        assert!(full(number + SPARE, 0) && !full(number + SPARE + 1, 0));
        assert!(full(number + SPARE + 1, 1) && full(number + SPARE + PER_RUN, 1));
        assert!(!full(number + SPARE + PER_RUN + 1, 1));
        // However few there are, and however many slots: full, not free.
        assert!(full(0, usize::MAX) && full(u64::MAX, usize::MAX));
    }

    #[test]
    fn it_is_tight_from_what_was_too_much_until_there_is_room() {
        let table = Table::of_this_process();
        let files: Vec<_> = (0..200).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let last = files.last().unwrap();
        let number = u64::try_from(last.as_raw_fd()).unwrap();
        let table = Table { most: number + SPARE, ..table };
        assert!(!table.is_tight(), "nobody has asked for too much");
        assert!(table.is_too_full_for(last.as_fd(), 0));
        assert!(table.is_tight());
        drop(files);
        // Other tests of this process have some open, too.
        assert!(!Table { most: number + SPARE + 1000, is_tight: Cell::new(true) }.is_tight());
        table.is_full();
        assert!(table.is_tight.get());
    }
}
