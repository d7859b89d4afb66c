//! The surveyor: a process of its own that finds out how much of a run's memory is shared.
//!
//! Its questions are those whose answers can be kept waiting. `smaps_rollup` and `smaps` are read under the lock of
//! the address space they describe, kcmp(2) under that of an exec: a run whose processes are many, slow and busy
//! mapping makes a reader wait for as long as it likes. The monitor must not wait for one run while others grow, so it
//! asks, and goes on looking.
//!
//! ```text
//!   monitor ── Question(processes as it saw them) ──> surveyor ── Answer(bytes) ──> monitor
//! ```
//!
//! Shares divide each page by the processes that map it. What they don't show is told apart here: two processes with
//! one address space (`vfork`) count once, and shared memory that is a mapped file of the run's tmpfs or a memfd, which
//! counts as a file already, counts once.
//!
//! It must never hold anything of a run longer than its question, and never decide.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use stockade_wire::channel::{Channel, ChannelError};

use super::read::{Memory, Reader, Share, Stat};
use super::source::descend;
use crate::sys;

/// The most processes of one question. A run that may have more is judged by these.
pub const MAX_SUBJECTS: usize = 8192;
/// The most memfds that are known by name to one question.
pub const MAX_KNOWN_MEMFDS: usize = 4096;
/// After a question it rests so many times as long as it worked.
const REST: u32 = 3;
/// A process without memory of its own (same address space as its parent: `vfork`) is this young where the kernel
/// can't be asked, in clock ticks.
const VFORK_TICKS: u64 = 10;

/// One process, as the monitor saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Its id in the passed `/proc`.
    pub pid: i32,
    /// What `stat` said.
    pub stat: Stat,
    /// What `status` said.
    pub memory: Memory,
}

/// What is asked of a run. Beside it: its `/proc`, the pidfd of the process at its top.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Which question.
    pub number: u64,
    /// Above this many bytes nothing more needs to be known.
    pub bound: u64,
    /// Above this many bytes doubts are worth being cleared.
    pub near: u64,
    /// Bytes in files of its tmpfs mounts and in memfds, which count whoever maps them.
    pub files: u64,
    /// Its processes.
    pub subjects: Vec<Subject>,
    /// Devices of its tmpfs mounts.
    pub devices: Vec<u64>,
    /// The device of memfds.
    pub memfd_device: u64,
    /// The inodes of the memfds that are counted in `files`, sorted.
    pub memfds: Vec<u64>,
    /// Whether the ids are those of a pid namespace, not the host's.
    pub namespaced: bool,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Of which question.
    pub number: u64,
    /// Bytes in use; if over the question's bound, at least so many.
    pub exact: u64,
}

/// Answers questions until the monitor closes `control`.
///
/// # Errors
/// [`ChannelError`]; the monitor starts another one.
pub fn run(control: OwnedFd) -> Result<(), ChannelError> {
    // A child of the monitor begins without its priority. Beside a thousand busy processes a question took seconds
    // without it. Not permitted to an ordinary user.
    let _ = sys::be_real_time();
    let _ = rustix::process::setpriority_process(None, super::NICE);
    let control = Channel::new(control);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let host_proc = rustix::fs::open("/proc", flags, Mode::empty()).map_err(io::Error::from)?;
    let ticks = rustix::param::clock_ticks_per_second();
    let mut reader = Reader::default();
    while let Some((question, descriptors)) = control.receive::<Question>()? {
        let Ok([proc, pidfd]) = <[OwnedFd; 2]>::try_from(descriptors) else {
            return Err(ChannelError::Framing("a question without its descriptors"));
        };
        let number = question.number;
        let before = processor_time();
        let survey = Survey { question, proc, pidfd, host_proc: &host_proc, ticks };
        let exact = survey.answer(&mut reader);
        drop(survey);
        control.send(&Answer { number, exact }, &[])?;
        rest(processor_time().saturating_sub(before) * REST);
    }
    Ok(())
}

/// What this thread has worked.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Leaves the processor to others: it may run before everything else.
fn rest(time: Duration) {
    let timeout = Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    };
    let _ = rustix::event::poll(&mut [], Some(&timeout));
}

struct Survey<'a> {
    question: Question,
    proc: OwnedFd,
    pidfd: OwnedFd,
    host_proc: &'a OwnedFd,
    ticks: u64,
}

impl Survey<'_> {
    fn answer(&self, reader: &mut Reader) -> u64 {
        let mut shares = Vec::with_capacity(self.question.subjects.len());
        let mut sum = 0;
        let mut exact = 0;
        for subject in &self.question.subjects {
            // One that has ended has nothing any more, and is read as having nothing.
            let alive =
                reader.stat(&self.proc, subject.pid).is_some_and(|stat| stat.started == subject.stat.started);
            let unreadable = Share { anonymous: subject.memory.anonymous, shared: subject.memory.shared };
            let share = if alive {
                reader.share(&self.proc, subject.pid).unwrap_or(unreadable)
            } else {
                Share::default()
            };
            shares.push(share);
            sum += share.anonymous + share.shared;
            // The doubts are only worth clearing when they can matter, and once more each time it has grown by much.
            if sum + self.question.files > self.question.bound && sum > exact + exact / 8 {
                exact = self.exact(reader, &shares);
                if exact > self.question.bound {
                    return exact;
                }
            }
        }
        self.exact(reader, &shares)
    }

    /// The memory in use, by the shares that are known.
    fn exact(&self, reader: &mut Reader, shares: &[Share]) -> u64 {
        let Question { files, near, .. } = self.question;
        let mut anonymous: u64 = shares.iter().map(|share| share.anonymous).sum();
        let mut shared: u64 = shares.iter().map(|share| share.shared).sum();
        let known = || self.question.subjects.iter().zip(shares);
        let mut tables: u64 = known().map(|(subject, _)| subject.memory.tables).sum();
        if anonymous + shared.max(files) + tables > near {
            for (subject, share) in known().filter(|(subject, _)| self.is_vforked(subject, reader)) {
                anonymous -= share.anonymous;
                shared -= share.shared;
                tables -= subject.memory.tables;
            }
        }
        let most = anonymous + shared + files + tables;
        if most <= near || shared == 0 || files == 0 {
            return most;
        }
        let counts = |device: u64, inode: u64| {
            self.question.devices.contains(&device)
                || device == self.question.memfd_device && self.question.memfds.binary_search(&inode).is_ok()
        };
        let mapped: u64 = known()
            .filter(|(_, share)| share.shared > 0)
            .map(|(subject, _)| reader.share_of_files(&self.proc, subject.pid, counts))
            .sum();
        most - mapped.min(shared).min(files)
    }

    /// Whether a process has its parent's address space: it was vforked and hasn't executed anything yet. Looks
    /// like a fork that copied everything; only the kernel can tell.
    fn is_vforked(&self, child: &Subject, reader: &mut Reader) -> bool {
        let alike = |one: u64, other: u64| one.abs_diff(other) <= one / 16;
        let Some(parent) = self.question.subjects.iter().find(|subject| subject.pid == child.stat.parent)
        else {
            return false;
        };
        if !alike(parent.stat.virtual_bytes, child.stat.virtual_bytes)
            || !alike(parent.stat.resident_pages, child.stat.resident_pages)
        {
            return false;
        }
        self.share_address_space(reader, parent.pid, child.pid).unwrap_or_else(|| {
            let uptime = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
            let now = u64::try_from(uptime.tv_sec).unwrap_or(0) * self.ticks
                + u64::try_from(uptime.tv_nsec).unwrap_or(0) * self.ticks / 1_000_000_000;
            now.saturating_sub(child.stat.started) < VFORK_TICKS
        })
    }

    /// Whether two processes of the run have one address space. `None`: the kernel doesn't tell.
    fn share_address_space(&self, reader: &mut Reader, one: i32, other: i32) -> Option<bool> {
        let [one, other] = if self.question.namespaced {
            let mut pids = vec![pid_of(&self.pidfd)?];
            descend(reader, self.host_proc, usize::MAX, &mut Vec::new(), &mut pids);
            [one, other].map(|wanted| {
                pids.iter().copied().find(|pid| reader.namespaced_pid(self.host_proc, *pid) == Some(wanted))
            })
        } else {
            [Some(one), Some(other)]
        };
        sys::share_address_space(Pid::from_raw(one?)?, Pid::from_raw(other?)?).ok()
    }
}

/// The process id of a pidfd, as this process sees it.
fn pid_of(pidfd: &OwnedFd) -> Option<i32> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()?;
    (pid > 0).then_some(pid)
}
