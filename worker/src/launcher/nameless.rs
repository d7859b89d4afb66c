//! Children that were reaped before anybody had told of them: a template clones a worker first and names it afterwards, and a
//! worker whose set-up fails at once may be quicker.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};

use crate::sys::{self, Reaped};

/// The most ends that are kept. Orphans of runs without a pid namespace are nobody's, too.
const KEPT: usize = 256;

/// How they ended, the latest last.
#[derive(Debug, Default)]
pub(super) struct Nameless(VecDeque<Reaped>);

impl Nameless {
    /// One that is nobody's so far.
    pub(super) fn keep(&mut self, end: Reaped) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(end);
    }

    /// How a child ended of which we hear only now. `None`: it wasn't reaped, and will be.
    pub(super) fn end_of(&mut self, pid: Pid, pidfd: BorrowedFd<'_>) -> Option<Reaped> {
        // Its number may have been another's before.
        let looked = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        if waitid(WaitId::PidFd(pidfd), looked).err() != Some(Errno::CHILD) {
            return None;
        }
        let at = self.0.iter().rposition(|end| end.pid == pid);
        // Of one that so many have followed nothing is known but that it's gone.
        let unknown = || Reaped { pid, status: Signal::KILL.as_raw(), usage: sys::empty_usage() };
        Some(at.and_then(|at| self.0.remove(at)).unwrap_or_else(unknown))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::process::Command;

    use rustix::process::{PidfdFlags, pidfd_open};

    use super::*;

    /// Starts a child that ends with this code. It, and its number.
    #[expect(clippy::disallowed_methods, clippy::zombie_processes, reason = "a child for `reap`")]
    fn child(code: u8) -> (Pid, std::os::fd::OwnedFd) {
        let child = Command::new("/bin/sh").args(["-c", &format!("exit {code}")]).spawn().unwrap();
        let pid = Pid::from_child(&child);
        (pid, pidfd_open(pid, PidfdFlags::empty()).unwrap())
    }

    fn reap(pid: Pid) -> Reaped {
        loop {
            if let Some(end) = sys::try_wait(Some(pid)).unwrap() {
                return end;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_end_of_a_child_that_was_reaped_before_it_was_named_is_known() {
        let (pid, pidfd) = child(7);
        let mut nameless = Nameless::default();
        assert!(nameless.end_of(pid, pidfd.as_fd()).is_none(), "nobody has reaped it");
        // An earlier one of the same number.
        nameless.keep(Reaped { pid, status: 9, usage: sys::empty_usage() });
        assert!(nameless.end_of(pid, pidfd.as_fd()).is_none(), "that was another");
        nameless.keep(reap(pid));
        assert_eq!(nameless.end_of(pid, pidfd.as_fd()).unwrap().status, 7 << 8);
    }

    #[test]
    fn of_one_that_too_many_have_followed_it_is_known_that_it_has_ended() {
        let (pid, pidfd) = child(7);
        let mut nameless = Nameless::default();
        nameless.keep(reap(pid));
        for number in 0..KEPT {
            let pid = Pid::from_raw(i32::MAX - i32::try_from(number).unwrap()).unwrap();
            nameless.keep(Reaped { pid, status: 0, usage: sys::empty_usage() });
        }
        assert_eq!(nameless.0.len(), KEPT);
        assert_eq!(nameless.end_of(pid, pidfd.as_fd()).unwrap().status, 9);
    }
}
