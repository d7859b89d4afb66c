//! What of our table of descriptors is kept from clients: launchers and relays pass us some, and one that doesn't fit is lost, and
//! its launcher with it.
//!
//! The kernel gives the lowest number that is free (POSIX, "file descriptor allocation"), so a descriptor's number says how full
//! the table is: nobody has to count.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::process::{Resource, getrlimit};

/// Open files of a run that goes on.
pub(crate) const PER_RUN: u64 = 3;
/// For what comes from launchers, files that are opened for a moment, and what one message of a client's may bring.
const SPARE: u64 = 48;

/// How many descriptors we may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table {
    most: u64,
}

impl Table {
    /// This process's.
    pub(crate) fn of_this_process() -> Self {
        Self { most: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) }
    }

    /// Whether a client's descriptor takes room that runs of so many slots will want, of which these are free.
    pub(crate) fn is_too_full_for(self, descriptor: BorrowedFd<'_>, free_slots: usize) -> bool {
        let kept =
            u64::try_from(free_slots).unwrap_or(u64::MAX).saturating_mul(PER_RUN).saturating_add(SPARE);
        let number = u64::try_from(descriptor.as_raw_fd()).unwrap_or(0);
        number >= self.most.saturating_sub(kept)
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
        let full = |most, free| Table { most }.is_too_full_for(file.as_fd(), free);
        assert!(full(number + SPARE, 0) && !full(number + SPARE + 1, 0));
        assert!(full(number + SPARE + 1, 1) && full(number + SPARE + PER_RUN, 1));
        assert!(!full(number + SPARE + PER_RUN + 1, 1));
        // However few there are, and however many slots: full, not free.
        assert!(full(0, usize::MAX) && full(u64::MAX, usize::MAX));
    }
}
