//! The second place of heads: a thread of its own, since a place on another machine may keep it waiting and no run may wait
//! for that.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::{OnHead, Shared, lock};
use crate::error::AuditError;
use crate::head::Head;

/// The copies' file is put aside at so many bytes, over the one that was put aside before.
const LARGEST: u64 = 64 * 1024 * 1024;

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

    fn take(&self) -> Option<Head> {
        let mut newest = lock(&self.newest);
        loop {
            match (newest.0.take(), newest.1) {
                (Some(head), _) => return Some(head),
                (None, true) => return None,
                (None, false) => newest = self.wake.wait(newest).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// The thread. Dropped, it copies what it still has, and ends.
pub(super) struct Copier {
    slot: Arc<Slot>,
    thread: Option<JoinHandle<()>>,
}

impl Copier {
    pub(super) fn start(
        path: Option<PathBuf>,
        mut on_head: Option<OnHead>,
        shared: &Arc<Shared>,
    ) -> Result<Self, AuditError> {
        let slot = Arc::new(Slot::default());
        let (its_slot, shared) = (Arc::clone(&slot), Arc::clone(shared));
        let work = move || {
            while let Some(head) = its_slot.take() {
                let copied = path.as_deref().map_or(Ok(()), |path| copy(path, &head));
                shared.state().copy = copied.err().map(|error| error.to_string());
                if let Some(on_head) = &mut on_head {
                    on_head(&head);
                }
            }
        };
        let thread = std::thread::Builder::new().name("audit-copies".to_owned()).spawn(work);
        let thread = thread.map_err(|source| AuditError::System { doing: "start a thread", source })?;
        Ok(Self { slot, thread: Some(thread) })
    }

    pub(super) fn slot(&self) -> Arc<Slot> {
        Arc::clone(&self.slot)
    }
}

impl Drop for Copier {
    fn drop(&mut self) {
        lock(&self.slot.newest).1 = true;
        self.slot.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn copy(path: &Path, head: &Head) -> io::Result<()> {
    let open = || std::fs::OpenOptions::new().append(true).create(true).mode(0o640).open(path);
    let mut file = open()?;
    if file.metadata()?.len() > LARGEST {
        let mut aside = path.as_os_str().to_owned();
        aside.push(".1");
        std::fs::rename(path, aside)?;
        file = open()?;
    }
    file.write_all(format!("{head}\n").as_bytes())?;
    file.sync_data()
}
