//! `poll(2)` over what is wanted now.
//!
//! A descriptor that isn't wanted isn't polled at all: a hang-up is told whether asked for or not, and would keep
//! the loop spinning.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

/// Waits until one of the wanted descriptors is ready, or until the deadline. Says for each whether it is.
///
/// # Errors
/// Those of `poll(2)`; an interruption is none.
pub(crate) fn wait<const N: usize>(
    descriptors: [Option<(BorrowedFd<'_>, PollFlags)>; N],
    deadline: Option<Instant>,
) -> std::io::Result<[bool; N]> {
    let mut polled: Vec<_> =
        descriptors.iter().flatten().map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
    // Rounded up: a deadline is never found not quite there.
    let left = deadline.map(|at| at.saturating_duration_since(Instant::now()) + Duration::from_micros(1));
    let left = left.and_then(|left| Timespec::try_from(left).ok());
    match rustix::event::poll(&mut polled, left.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let mut ready = polled.iter().map(|fd| !fd.revents().is_empty());
    Ok(descriptors.map(|wanted| wanted.is_some() && ready.next().unwrap_or(false)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn each_descriptor_gets_its_own_answer_and_unwanted_ones_none() {
        let (quiet, _open) = rustix::pipe::pipe().unwrap();
        let (full, writer) = rustix::pipe::pipe().unwrap();
        rustix::io::write(&writer, b"x").unwrap();
        let ready =
            wait([Some((quiet.as_fd(), PollFlags::IN)), None, Some((full.as_fd(), PollFlags::IN))], None);
        assert_eq!(ready.unwrap(), [false, false, true]);
    }

    #[test]
    fn a_deadline_ends_the_wait() {
        let (quiet, _open) = rustix::pipe::pipe().unwrap();
        let at = Instant::now() + Duration::from_millis(20);
        assert_eq!(wait([Some((quiet.as_fd(), PollFlags::IN))], Some(at)).unwrap(), [false]);
        assert!(Instant::now() >= at);
    }
}
