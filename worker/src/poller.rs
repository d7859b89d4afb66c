//! One epoll instance, level-triggered, for the processes whose whole life is a loop over it.
//!
//! A source is known by the token it was added with. Closing a source's last descriptor removes it; a source that
//! shouldn't be heard for a while must be removed, because a hang-up is told whatever was asked for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};

/// The most answers of one wait.
pub const BATCH: usize = 64;

/// What a source is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Only its end: a hang-up or an error.
    End,
    /// Something to read, or its end.
    Read,
    /// Room to write, or its end.
    Write,
    /// Both.
    ReadWrite,
}

impl Interest {
    /// The interest in reading, in writing, in both or in neither.
    #[must_use]
    pub fn of(read: bool, write: bool) -> Self {
        match (read, write) {
            (false, false) => Self::End,
            (true, false) => Self::Read,
            (false, true) => Self::Write,
            (true, true) => Self::ReadWrite,
        }
    }

    fn flags(self) -> epoll::EventFlags {
        match self {
            Self::End => epoll::EventFlags::empty(),
            Self::Read => epoll::EventFlags::IN,
            Self::Write => epoll::EventFlags::OUT,
            Self::ReadWrite => epoll::EventFlags::IN | epoll::EventFlags::OUT,
        }
    }
}

/// What happened to a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// The source's token.
    pub token: u64,
    /// A read would tell something: bytes, the end, or an error.
    pub readable: bool,
    /// A write would tell something.
    pub writable: bool,
}

/// The epoll instance.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
}

impl AsFd for Poller {
    /// Readable when something is ready: an epoll instance can itself be waited for.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Poller {
    /// A new one, close-on-exec.
    ///
    /// # Errors
    /// Those of epoll_create1(2).
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)? })
    }

    /// Adds a source.
    ///
    /// # Errors
    /// Those of epoll_ctl(2): `EPERM` for what can't be waited for (a file, a directory), `EEXIST`, `ENOSPC`.
    pub fn add(&self, source: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, source, epoll::EventData::new_u64(token), interest.flags())?)
    }

    /// Changes what a source is waited for.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn modify(&self, source: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, source, epoll::EventData::new_u64(token), interest.flags())?)
    }

    /// Removes a source.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn remove(&self, source: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, source)?)
    }

    /// Waits until a source is ready, or until `timeout` is over (`None`: for ever), and puts at most [`BATCH`]
    /// answers into `ready`, whose former content is gone. The kernel takes turns among more.
    ///
    /// # Errors
    /// Those of epoll_pwait2(2), but `EINTR`, which is an early end without answers.
    pub fn wait(&self, ready: &mut Vec<Ready>, timeout: Option<Duration>) -> io::Result<()> {
        let mut events = [const { core::mem::MaybeUninit::<epoll::Event>::uninit() }; BATCH];
        ready.clear();
        let timeout = timeout.map(|duration| Timespec {
            tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: duration.subsec_nanos().into(),
        });
        let events = match epoll::wait(&self.epoll, &mut events, timeout.as_ref()) {
            Ok((events, _)) => events,
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        let end = epoll::EventFlags::HUP | epoll::EventFlags::ERR;
        ready.extend(events.iter().map(|event| {
            let flags = event.flags;
            Ready {
                token: event.data.u64(),
                readable: flags.intersects(end | epoll::EventFlags::IN),
                writable: flags.intersects(end | epoll::EventFlags::OUT),
            }
        }));
        Ok(())
    }
}
