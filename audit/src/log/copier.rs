//! The second place of heads: a thread of its own, since a place on another machine may keep it waiting and no run may wait
//! for that. Nor may the end: a thread that doesn't come back is left.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use super::{OnHead, Shared, lock};
use crate::error::AuditError;
use crate::head::Head;

/// The copies' file is put aside at so many bytes, over the one that was put aside before.
const LARGEST: u64 = 64 * 1024 * 1024;
/// When a head that couldn't be copied is tried again, were there no newer one.
const AGAIN: Duration = Duration::from_secs(1);
/// How long the end waits for the last copy.
const LAST: Duration = Duration::from_secs(2);

/// Where the writer leaves the newest head: those between two copies aren't missed.
#[derive(Default)]
pub(super) struct Slot {
    newest: Mutex<(Option<Head>, bool)>,
    wake: Condvar,
}

impl Slot {
    pub(super) fn put(&self, head: Head) {
        lock(&self.newest).0 = Some(head);
        self.wake.notify_one();
    }

    fn close(&self) {
        lock(&self.newest).1 = true;
        self.wake.notify_one();
    }

    /// The newest head, and whether it's the end; waits for either, or for `longest`, if that's given.
    fn take(&self, longest: Option<Duration>) -> (Option<Head>, bool) {
        let until = longest.map(|longest| Instant::now() + longest);
        let mut newest = lock(&self.newest);
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if newest.0.is_some() || newest.1 || left.is_some_and(|left| left.is_zero()) {
                return (newest.0.take(), newest.1);
            }
            newest = match left {
                Some(left) => self.wake.wait_timeout(newest, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.wake.wait(newest).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

/// The thread. Dropped, it copies what it still has, and ends.
pub(super) struct Copier {
    slot: Arc<Slot>,
    thread: Option<JoinHandle<()>>,
    /// Disconnected once the thread is over. Behind a lock so that a log can be shared.
    over: Mutex<Receiver<()>>,
}

impl Copier {
    pub(super) fn start(
        path: Option<PathBuf>,
        mut on_head: Option<OnHead>,
        shared: &Arc<Shared>,
    ) -> Result<Self, AuditError> {
        let slot = Arc::new(Slot::default());
        let (its_slot, shared) = (Arc::clone(&slot), Arc::clone(shared));
        let (alive, over) = channel();
        let work = move || {
            let _alive = alive;
            // One that isn't at the second place yet.
            let mut failed = None;
            loop {
                let (new, closed) = its_slot.take(failed.map(|_| AGAIN));
                if let Some(head) = new.or(failed) {
                    let copied = path.as_deref().map_or(Ok(()), |path| copy(path, &head, failed.is_some()));
                    failed = copied.is_err().then_some(head);
                    shared.state().copy = copied.err().map(|error| error.to_string());
                }
                match (new, &mut on_head) {
                    (Some(head), Some(on_head)) => on_head(&head),
                    (None, _) if closed => return,
                    _ => {}
                }
            }
        };
        let thread = std::thread::Builder::new().name("audit-copies".to_owned()).spawn(work);
        let thread = thread.map_err(|source| AuditError::System { doing: "start a thread", source })?;
        Ok(Self { slot, thread: Some(thread), over: Mutex::new(over) })
    }

    pub(super) fn slot(&self) -> Arc<Slot> {
        Arc::clone(&self.slot)
    }
}

impl Drop for Copier {
    fn drop(&mut self) {
        self.slot.close();
        // A place that doesn't answer is no reason for the daemon not to end.
        if lock(&self.over).recv_timeout(LAST) == Err(RecvTimeoutError::Disconnected)
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

/// Adds a head; `behind_half` a line that may not be whole.
fn copy(path: &Path, head: &Head, behind_half: bool) -> io::Result<()> {
    let mut file = open(path)?;
    if file.metadata()?.len() > LARGEST {
        let mut aside = path.as_os_str().to_owned();
        aside.push(".1");
        std::fs::rename(path, aside)?;
        file = open(path)?;
    }
    let before = if behind_half { "\n" } else { "" };
    file.write_all(format!("{before}{head}\n").as_bytes())?;
    file.sync_data()
}

/// A file, and no link to one: whatever else it is could keep us waiting, or take lines and keep none.
fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC).bits().cast_signed();
    let file = OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it's no file")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_that_is_tried_again_has_a_line_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("heads");
        let head = Head::example();
        copy(&path, &head, false).unwrap();
        let whole = std::fs::metadata(&path).unwrap().len();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(whole - 10).unwrap();
        copy(&path, &head, true).unwrap();
        let lines = std::fs::read_to_string(&path).unwrap();
        let heads: Vec<_> = lines.lines().map(Head::parse).collect();
        assert_eq!(heads, [None, Some(head)]);
    }
}
