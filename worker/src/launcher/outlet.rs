//! A run's standard descriptors that no client passes: made with its worker, before anybody knows what it will run.
//!
//! The relay hears of a run's pipes when the tool has run for a while, or has ended and left something in them. So a short
//! tool without output costs no ring, no message to the relay and no turn of it: that both pipes are empty and have no
//! writer any more, the launcher sees itself.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, Uid};
use rustix::pipe::PipeFlags;

use crate::messages::Standard;

/// The read ends of a run's standard output and error, until the relay gets them.
#[derive(Debug)]
pub(super) struct Outlet {
    pipes: [OwnedFd; 2],
}

/// What the relay and the supervisor get of a run's output.
#[derive(Debug)]
pub(super) struct Relayed {
    /// For the relay: the read ends and the ring.
    pub(super) for_relay: Vec<OwnedFd>,
    /// For the supervisor.
    pub(super) ring: OwnedFd,
}

impl Outlet {
    /// Two pipes of this user, who may open them again by their names (`/dev/stdout`). Their write ends are beside them.
    ///
    /// # Errors
    /// Those of pipe(2) and fchown(2).
    pub(super) fn new(host_uid: u32) -> io::Result<(Self, [OwnedFd; 2])> {
        let (stdout, stdout_end) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, stderr_end) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        if host_uid != rustix::process::geteuid().as_raw() {
            for end in [&stdout, &stderr] {
                rustix::fs::fchown(end, Some(Uid::from_raw(host_uid)), None)?;
            }
        }
        Ok((Self { pipes: [stdout, stderr] }, [stdout_end, stderr_end]))
    }

    /// Whether both pipes are empty and nobody can write to them any more: poll(2) tells a hang-up and nothing to read.
    pub(super) fn is_quiet(&self) -> bool {
        let mut asked = self.pipes.each_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN));
        let answered = rustix::event::poll(&mut asked, Some(&Timespec::default()));
        answered.is_ok() && asked.iter().all(|pipe| pipe.revents() == PollFlags::HUP)
    }

    /// Gives the pipes up, with a ring of so many bytes for what comes out of them.
    ///
    /// # Errors
    /// Those of memfd_create(2) and ftruncate(2).
    pub(super) fn hand_over(self, ring_bytes: u64) -> io::Result<Relayed> {
        let ring = rustix::fs::memfd_create("stockade-output", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&ring, ring_bytes)?;
        let [stdout, stderr] = self.pipes;
        Ok(Relayed { for_relay: vec![stdout, stderr, ring.try_clone()?], ring })
    }
}

/// Standard input where none is passed. Opened anew for each: what is set on an open file is seen by all who have it.
///
/// # Errors
/// Those of open(2).
pub(super) fn null() -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, "/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// A worker's own standard descriptors: nothing to read, and the pipes of an outlet if its output may be relayed.
///
/// # Errors
/// Those of open(2) and of [`Outlet::new`].
pub(super) fn own(relayed: bool, host_uid: u32) -> io::Result<(Standard, Option<Outlet>)> {
    let stdin = Some(null()?);
    if !relayed {
        return Ok((Standard([stdin, None, None]), None));
    }
    let (outlet, [stdout, stderr]) = Outlet::new(host_uid)?;
    Ok((Standard([stdin, Some(stdout), Some(stderr)]), Some(outlet)))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn only_pipes_without_a_byte_and_without_a_writer_are_quiet() {
        let me = rustix::process::geteuid().as_raw();
        let (outlet, [stdout, stderr]) = Outlet::new(me).unwrap();
        assert!(!outlet.is_quiet(), "both can be written");
        drop(stdout);
        assert!(!outlet.is_quiet(), "one can be written");
        drop(stderr);
        assert!(outlet.is_quiet());
        for which in [0, 1] {
            let (outlet, ends) = Outlet::new(me).unwrap();
            rustix::io::write(&ends[which], b"x").unwrap();
            drop(ends);
            assert!(!outlet.is_quiet(), "something was written");
            let relayed = outlet.hand_over(4096).unwrap();
            let mut byte = [0];
            assert_eq!(rustix::io::read(&relayed.for_relay[which], &mut byte).unwrap(), 1);
        }
    }

    #[test]
    fn a_writer_who_is_no_process_of_the_run_keeps_it_from_being_quiet() {
        let (outlet, ends) = Outlet::new(rustix::process::geteuid().as_raw()).unwrap();
        let kept = ends[0].as_fd().try_clone_to_owned().unwrap();
        drop(ends);
        assert!(!outlet.is_quiet());
        drop(kept);
        assert!(outlet.is_quiet());
    }
}
