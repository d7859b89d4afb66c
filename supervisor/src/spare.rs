//! What of our table of descriptors is kept from clients: launchers and relays pass us some, and one that doesn't fit is lost, and
//! its launcher with it.
//!
//! The kernel gives the lowest number that is free (POSIX, "file descriptor allocation"), so a descriptor's number says how full
//! the table is: nobody has to count. What clients have us open is looked at once it is open: a connection when it is accepted,
//! what comes with a message, and what we copy for them. The first that is too much makes the table tight. Numbers say nothing then,
//! for what was let go leaves holes below: as long as anything stands where only ours should, a message that might bring
//! descriptors stays in its socket unless there is room for all that it can bring.

use core::cell::Cell;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};
use stockade_wire::socket::KERNEL_DESCRIPTORS;

/// Open files of a run that goes on.
pub(crate) const PER_RUN: u64 = 3;
/// For what comes from launchers, and files that are opened for a moment.
const OURS: u64 = 48;
/// That, and what one message of a client's may bring before it can be refused. What doesn't fit the kernel closes then and
/// there, on the loop, and the close of what a stranger sends may wait for ever.
pub(crate) const SPARE: u64 = OURS + KERNEL_DESCRIPTORS as u64;
/// How often a tight table is looked at: that takes a system call or two for each number.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How many descriptors we may have.
#[derive(Debug)]
pub(crate) struct Table {
    most: u64,
    /// When a tight one was last looked at. `None`: nothing was too much.
    tight: Cell<Option<Instant>>,
}

impl Table {
    /// This process's.
    pub(crate) fn of_this_process() -> Self {
        Self::of(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
    }

    fn of(most: u64) -> Self {
        Self { most, tight: Cell::new(None) }
    }

    /// The first number that is kept from clients, while so many slots are free.
    fn kept_from(&self, free_slots: usize) -> u64 {
        let runs = u64::try_from(free_slots).unwrap_or(u64::MAX).saturating_mul(PER_RUN);
        self.most.saturating_sub(runs.saturating_add(SPARE))
    }

    /// Whether a client's descriptor takes room that runs of so many slots will want, of which these are free.
    pub(crate) fn is_too_full_for(&self, descriptor: BorrowedFd<'_>, free_slots: usize) -> bool {
        let number = u64::try_from(descriptor.as_raw_fd()).unwrap_or(0);
        let is_full = number >= self.kept_from(free_slots);
        if is_full {
            self.is_full();
        }
        is_full
    }

    /// Whether something was too much, and may still be.
    pub(crate) fn is_tight(&self) -> bool {
        self.tight.get().is_some()
    }

    /// Whether there is room for whatever one message brings.
    pub(crate) fn has_room_for_a_message(&self, free_slots: usize) -> bool {
        let Some(looked) = self.tight.get() else { return true };
        let now = Instant::now();
        if now.saturating_duration_since(looked) < LOOK_EVERY {
            return false;
        }
        self.tight.set(Some(now));
        let first = self.kept_from(free_slots);
        if are_free(first, self.most.saturating_sub(first)) {
            // All that there is stands where it may, so that the next number tells again.
            self.tight.set(None);
            return true;
        }
        are_free(0, SPARE)
    }

    /// Whether there is room for a connection that will be refused.
    pub(crate) fn has_room_to_refuse(&self) -> bool {
        !self.is_tight() || are_free(0, OURS * 2)
    }

    /// No descriptor was left.
    pub(crate) fn is_full(&self) {
        if self.tight.get().is_none() {
            let limit = self.most;
            tracing::warn!(
                limit,
                "no descriptor is left for clients: they wait, or are refused, until others have gone"
            );
            // To be looked at when it's next asked.
            self.tight.set(Instant::now().checked_sub(LOOK_EVERY).or_else(|| Some(Instant::now())));
        }
    }
}

/// Whether so many numbers are free from this one on.
fn are_free(first: u64, many: u64) -> bool {
    let Ok(first) = RawFd::try_from(first) else { return false };
    let next = || rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), first);
    (0..many).map(|_| next()).collect::<Result<Vec<OwnedFd>, _>>().is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn the_number_of_a_descriptor_says_whether_it_is_one_too_many() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let number = u64::try_from(file.as_raw_fd()).unwrap();
        let full = |most, free| Table::of(most).is_too_full_for(file.as_fd(), free);
        assert!(full(number + SPARE, 0) && !full(number + SPARE + 1, 0));
        assert!(full(number + SPARE + 1, 1) && full(number + SPARE + PER_RUN, 1));
        assert!(!full(number + SPARE + PER_RUN + 1, 1));
        // However few there are, and however many slots: full, not free.
        assert!(full(0, usize::MAX) && full(u64::MAX, usize::MAX));
    }

    #[test]
    fn it_is_tight_from_what_was_too_much_on() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let table = Table::of(SPARE);
        assert!(!table.is_tight() && table.has_room_for_a_message(0), "nobody has asked for too much");
        assert!(table.is_too_full_for(file.as_fd(), 0));
        assert!(table.is_tight() && table.has_room_to_refuse());
    }
}
