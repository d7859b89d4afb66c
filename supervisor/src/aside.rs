//! What may wait for a filesystem or a peer that never answers, done aside: on threads, a few for each owner.
//!
//! The event loop is everybody's one thread. A client can pass a descriptor whose very close(2) waits (a file of a
//! FUSE server of its own is flushed, a socket may linger), and no time limit ends such a wait. So what clients
//! pass is held as [`Foreign`], which closes itself aside unless it is known to be harmless. An owner whose jobs
//! hang has hung his own threads: his other jobs wait for those, and his clients aren't read while too many of his
//! descriptors wait to be closed. Nobody else notices.
//!
//! ```text
//! Foreign dropped ──> harmless: closed at once
//!                └──> job ──> queue of its owner ──> one of the owner's threads ──> done, or stuck there
//! ```

use core::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;

use rustix::io::Errno;
use tokio::sync::{Notify, oneshot};

use crate::descriptors::{self, Kind};
use crate::mounts::Mounts;

/// Jobs of one owner that are done at once.
const THREADS_PER_OWNER: usize = 8;
/// Jobs that are done at once.
const THREADS: usize = 256;
/// Descriptors of one owner that may wait to be closed before his clients are no longer read.
const CLOSINGS_PER_OWNER: usize = 64;
/// Whose a descriptor is that came from somebody the kernel couldn't tell us about.
const NOBODY: u32 = u32::MAX;

/// The threads, and what has to be known to do without them. One a daemon.
#[derive(Debug, Clone, Default)]
pub(crate) struct Aside {
    mounts: Rc<RefCell<Mounts>>,
    crew: Arc<Crew>,
}

impl Aside {
    /// What is local is what is so for this process: a launcher in a mount namespace other than ours.
    pub(crate) fn see_by(&self, pid: i32) {
        self.mounts.borrow_mut().be_seen_by(pid);
    }

    /// Takes charge of a client's descriptor.
    pub(crate) fn hold(&self, owner: Option<u32>, descriptor: OwnedFd) -> Foreign {
        let owner = owner.unwrap_or(NOBODY);
        Foreign { descriptor: Some(Arc::new(descriptor)), owner, aside: self.clone() }
    }

    /// Waits until not too many of an owner's descriptors wait to be closed.
    pub(crate) async fn caught_up(&self, owner: u32) {
        loop {
            let changed = self.crew.closed.notified();
            if !self.crew.is_behind(owner) {
                return;
            }
            changed.await;
        }
    }

    /// Whether [`Aside::caught_up`] would wait.
    pub(crate) fn is_behind(&self, owner: Option<u32>) -> bool {
        self.crew.is_behind(owner.unwrap_or(NOBODY))
    }

    fn close(&self, owner: u32, descriptor: OwnedFd) {
        if !self.closes_at_once(&descriptor) {
            Crew::give(&self.crew, owner, Job::Close(descriptor));
        }
    }

    /// Whether no filesystem, peer or device has a say in the close.
    fn closes_at_once(&self, descriptor: &OwnedFd) -> bool {
        let harmless = |kind| {
            matches!(kind, Kind::Pipe | Kind::File | Kind::Harmless | Kind::Directory | Kind::PathOnly)
        };
        descriptors::kind(descriptor).is_ok_and(harmless) && self.mounts.borrow_mut().is_local(descriptor)
    }
}

/// A client's descriptor. When it is dropped it is closed, aside if the close may wait.
#[derive(Debug)]
pub(crate) struct Foreign {
    /// Shared with the job that reads it, which closes it if it is the last. `None`: given away.
    descriptor: Option<Arc<OwnedFd>>,
    owner: u32,
    aside: Aside,
}

impl Foreign {
    /// The descriptor.
    ///
    /// # Errors
    /// `EBADF`: it has been given away.
    pub(crate) fn get(&self) -> io::Result<&OwnedFd> {
        Ok(self.descriptor.as_deref().ok_or(Errno::BADF)?)
    }

    /// What it is, to whom doesn't trust its filesystem.
    ///
    /// # Errors
    /// As [`descriptors::kind`].
    pub(crate) fn kind(&self) -> io::Result<Kind> {
        let kind = descriptors::kind(self.get()?)?;
        Ok(if kind == Kind::File && !self.is_local()? { Kind::Distant } else { kind })
    }

    /// Whether it is on a filesystem of this machine's kernel.
    ///
    /// # Errors
    /// As [`Foreign::get`].
    pub(crate) fn is_local(&self) -> io::Result<bool> {
        Ok(self.aside.mounts.borrow_mut().is_local(self.get()?))
    }

    /// Gives it away: to the launcher, say.
    pub(crate) fn give(mut self) -> Option<OwnedFd> {
        Arc::into_inner(self.descriptor.take()?)
    }

    /// Does aside what may wait for it.
    ///
    /// # Errors
    /// Those of the job; `EBADF`.
    pub(crate) async fn with<T: Send + 'static>(
        &self,
        job: impl FnOnce(&OwnedFd) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let descriptor = Arc::clone(self.descriptor.as_ref().ok_or(Errno::BADF)?);
        let (tell, told) = oneshot::channel();
        let job = Box::new(move || {
            let result = job(&descriptor);
            // Let go of before anybody is told, so that it is closed here if it is closed by this.
            drop(descriptor);
            let _gone = tell.send(result);
        });
        Crew::give(&self.aside.crew, self.owner, Job::Other(job));
        told.await.map_err(io::Error::other)?
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        if let Some(descriptor) = self.descriptor.take().and_then(Arc::into_inner) {
            self.aside.close(self.owner, descriptor);
        }
    }
}

enum Job {
    Close(OwnedFd),
    Other(Box<dyn FnOnce() + Send>),
}

/// The threads. They come as there is something to do, and go when there is nothing.
#[derive(Debug, Default)]
struct Crew {
    jobs: Mutex<Jobs>,
    /// Rung when a descriptor has been closed.
    closed: Notify,
}

impl Crew {
    /// Nothing that holds the lock can panic, so what it guards is whole.
    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_behind(&self, owner: u32) -> bool {
        self.jobs().owners.get(&owner).is_some_and(|own| own.closings > CLOSINGS_PER_OWNER)
    }

    fn give(crew: &Arc<Self>, owner: u32, job: Job) {
        let mut jobs = crew.jobs();
        if jobs.put(owner, job) {
            tracing::warn!(owner, "descriptors of this user can't be closed: his clients have to wait");
        }
        if !jobs.enlist(owner) {
            return;
        }
        let worker = Arc::clone(crew);
        if let Err(error) = Builder::new().name("aside".to_owned()).spawn(move || worker.work(owner)) {
            // The job waits for one of those there are, or for the next job.
            jobs.dismiss(owner);
            tracing::error!(%error, "no thread for what may wait");
        }
    }

    /// A thread's life: an owner's jobs, and then those of an owner who has none of the threads.
    fn work(&self, mut owner: u32) {
        let mut jobs = self.jobs();
        loop {
            while let Some(job) = jobs.take(owner) {
                drop(jobs);
                let closes = matches!(job, Job::Close(_));
                match job {
                    Job::Close(descriptor) => drop(descriptor),
                    Job::Other(job) => job(),
                }
                jobs = self.jobs();
                if closes {
                    jobs.closed(owner);
                    self.closed.notify_waiters();
                }
            }
            jobs.dismiss(owner);
            let Some(next) = jobs.without_threads() else { return };
            owner = next;
        }
    }
}

/// What is to be done, and how many threads do it for whom.
#[derive(Default)]
struct Jobs {
    owners: HashMap<u32, Own>,
    threads: usize,
}

#[derive(Default)]
struct Own {
    waiting: VecDeque<Job>,
    threads: usize,
    /// Descriptors to be closed, those under way included.
    closings: usize,
}

impl core::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Jobs").field("threads", &self.threads).finish_non_exhaustive()
    }
}

impl Jobs {
    /// Adds a job. Whether its owner has just come to be behind.
    fn put(&mut self, owner: u32, job: Job) -> bool {
        let own = self.owners.entry(owner).or_default();
        let closes = matches!(job, Job::Close(_));
        own.closings += usize::from(closes);
        own.waiting.push_back(job);
        closes && own.closings == CLOSINGS_PER_OWNER + 1
    }

    fn take(&mut self, owner: u32) -> Option<Job> {
        self.owners.get_mut(&owner)?.waiting.pop_front()
    }

    fn closed(&mut self, owner: u32) {
        if let Some(own) = self.owners.get_mut(&owner) {
            own.closings -= 1;
        }
    }

    /// Counts another thread for an owner, if there may be one.
    fn enlist(&mut self, owner: u32) -> bool {
        let Some(own) = self.owners.get_mut(&owner) else { return false };
        let may = self.threads < THREADS && own.threads < THREADS_PER_OWNER;
        if may {
            own.threads += 1;
            self.threads += 1;
        }
        may
    }

    /// Counts one less.
    fn dismiss(&mut self, owner: u32) {
        self.threads -= 1;
        if let Some(own) = self.owners.get_mut(&owner) {
            own.threads -= 1;
            if own.threads == 0 && own.waiting.is_empty() {
                self.owners.remove(&owner);
            }
        }
    }

    /// Counts another thread for an owner whose jobs have none, if there is one.
    fn without_threads(&mut self) -> Option<u32> {
        let forgotten =
            |(owner, own): (&u32, &Own)| (own.threads == 0 && !own.waiting.is_empty()).then_some(*owner);
        let owner = self.owners.iter().find_map(forgotten)?;
        self.enlist(owner).then_some(owner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    /// A job that tells that it runs and then waits for its end.
    fn stuck(begun: &Sender<u32>, owner: u32) -> (Job, Sender<()>) {
        let (end, ended): (Sender<()>, Receiver<()>) = channel();
        let begun = begun.clone();
        let job = Box::new(move || {
            begun.send(owner).unwrap();
            let _over = ended.recv();
        });
        (Job::Other(job), end)
    }

    #[test]
    fn an_owner_whose_jobs_hang_keeps_no_other_owner_from_his() {
        let crew = Arc::new(Crew::default());
        let (begun, begins) = channel();
        let mut ends = Vec::new();
        for _ in 0..4 * THREADS_PER_OWNER {
            let (job, end) = stuck(&begun, 1);
            Crew::give(&crew, 1, job);
            ends.push(end);
        }
        for _ in 0..THREADS_PER_OWNER {
            assert_eq!(begins.recv_timeout(LONG), Ok(1));
        }
        let (job, end) = stuck(&begun, 2);
        Crew::give(&crew, 2, job);
        assert_eq!(begins.recv_timeout(LONG), Ok(2), "the other owner's comes before those that wait");
        assert_eq!(crew.jobs().threads, THREADS_PER_OWNER + 1);
        drop((ends, end));
        for _ in 0..3 * THREADS_PER_OWNER {
            assert_eq!(begins.recv_timeout(LONG), Ok(1), "what waited is done once there is room");
        }
    }

    #[test]
    fn an_owner_who_finds_every_thread_hung_gets_the_first_that_is_free() {
        let mut jobs = Jobs { threads: THREADS, ..Jobs::default() };
        jobs.put(2, Job::Other(Box::new(|| ())));
        assert!(!jobs.enlist(2));
        assert_eq!(jobs.without_threads(), None);
        jobs.dismiss(1);
        assert_eq!(jobs.without_threads(), Some(2));
        assert_eq!(jobs.threads, THREADS);
    }

    #[test]
    fn an_owner_is_behind_while_too_many_of_his_descriptors_wait() {
        let mut jobs = Jobs::default();
        let put = |jobs: &mut Jobs| jobs.put(1, Job::Close(rustix::pipe::pipe().unwrap().0));
        for _ in 0..CLOSINGS_PER_OWNER {
            assert!(!put(&mut jobs));
        }
        assert!(put(&mut jobs), "it is said once");
        assert!(!put(&mut jobs));
        let crew = Crew { jobs: Mutex::new(jobs), ..Crew::default() };
        assert!(crew.is_behind(1));
        assert!(!crew.is_behind(2));
        for _ in 0..2 {
            drop(crew.jobs().take(1).unwrap());
            crew.jobs().closed(1);
        }
        assert!(!crew.is_behind(1));
    }

    #[test]
    fn what_is_harmless_is_closed_at_once_and_anything_else_aside() {
        let aside = Aside::default();
        let close = |descriptor: OwnedFd| drop(aside.hold(Some(1), descriptor));
        close(rustix::pipe::pipe().unwrap().0);
        close(tempfile::tempfile().unwrap().into());
        close(std::fs::File::open("/").unwrap().into());
        assert_eq!(aside.crew.jobs().threads, 0);
        // A file that isn't known to be local, and a socket, which may linger.
        let (socket, mut other) = std::os::unix::net::UnixStream::pair().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        for descriptor in [std::fs::File::open("/proc/self/status").unwrap().into(), socket.into()] {
            runtime.block_on(async {
                let mut closed = core::pin::pin!(aside.crew.closed.notified());
                closed.as_mut().enable();
                close(descriptor);
                tokio::time::timeout(LONG, closed).await.expect("no thread has closed it");
            });
        }
        other.set_read_timeout(Some(LONG)).unwrap();
        assert_eq!(io::Read::read(&mut other, &mut [0]).unwrap(), 0, "closed all the same");
    }
}
