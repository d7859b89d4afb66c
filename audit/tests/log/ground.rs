//! Logs to try things on.

use core::ops::ControlFlow;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use stockade_audit::{
    Check, Entry, Event, Filter, Keys, Log, MasterKey, Outcome, Principal, Reader, Report, Request, Settings,
    What, verify,
};
use tempfile::TempDir;

/// A place of a test's own; in memory where there is such a place, since thousands of logs are made.
pub(crate) struct Ground {
    folder: TempDir,
}

impl Ground {
    pub(crate) fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let ground = Self { folder: folder.unwrap() };
        MasterKey::create(&ground.key()).unwrap();
        ground
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.folder.path().join("audit")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.folder.path().join("master")
    }

    pub(crate) fn copies(&self) -> PathBuf {
        self.folder.path().join("heads")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn settings(&self) -> Settings {
        settings(&self.log(), &self.key())
    }

    /// Verified with keys, and without.
    pub(crate) fn both(&self) -> [Report; 2] {
        [true, false].map(|with_key| self.verify(with_key))
    }

    pub(crate) fn verify(&self, with_key: bool) -> Report {
        let master = with_key.then(|| MasterKey::read(&self.key()).unwrap());
        verify(&self.log(), &Check { master, ..Check::default() }).unwrap()
    }
}

pub(crate) fn settings(log: &Path, key: &Path) -> Settings {
    let mut settings = Settings::new(log, MasterKey::read(key).unwrap());
    settings.head_every = Duration::from_millis(1);
    settings.segment_bytes = 4096;
    settings
}

pub(crate) fn intent(exec: &str) -> Event {
    let request = Request {
        action: "run".into(),
        exec: Some(exec.into()),
        policy: Some("default".into()),
        ..Request::default()
    };
    let principal = Principal { uid: 1000, pid: Some(7), ..Principal::default() };
    Event { principal: Some(principal), what: What::Intent(request) }
}

pub(crate) fn outcome(exec: &str) -> Event {
    let outcome =
        Outcome { exec: exec.into(), outcome: "exited".into(), code: Some(0), ..Outcome::default() };
    Event { principal: None, what: What::Outcome(outcome) }
}

/// Writes so many events.
pub(crate) fn fill(log: &Log, many: usize) {
    for at in 0..many {
        let exec = (at / 2).to_string();
        let event = if at % 2 == 0 { intent(&exec) } else { outcome(&exec) };
        log.append_and_wait(event).unwrap();
    }
}

/// All that can be read of a log.
pub(crate) fn events(log: &Path, key: &Path) -> Vec<Event> {
    let keys = Keys::read(log, &MasterKey::read(key).unwrap(), None).unwrap();
    let mut events = Vec::new();
    let mut each = |entry: Entry| {
        events.push(entry.event);
        ControlFlow::Continue(())
    };
    let _ = Reader::new(log, &keys).read(&Filter::default(), &mut each).unwrap();
    events
}

/// The segments, in order.
pub(crate) fn segments(log: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|it| it == "segment")).collect();
    paths.sort();
    paths
}

pub(crate) fn copy_all(from: &Path, to: &Path) {
    DirBuilder::new().mode(0o700).create(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// A segment as its documented bytes say: the header, and each record.
pub(crate) fn cut_up(bytes: &[u8]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let header = usize::from(u16::from_le_bytes([bytes[10], bytes[11]]));
    let (mut at, mut records) = (header, Vec::new());
    while at < bytes.len() {
        let length = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
        records.push(bytes[at..at + length].to_vec());
        at += length;
    }
    (bytes[..header].to_vec(), records)
}
