//! A daemon of a test's own, with its counts, its templates and its spares.

use std::cell::Cell;
use std::os::unix::fs::MetadataExt as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use stockade_tests::left::{self, Process};
use stockade_tests::setting::Started;
use stockade_tests::{Daemon, Ended, Ground, Mode, Run, Setting, wait_until};

/// Of what may take long on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How often a spare is made anew that grew old while a busy machine kept the test waiting.
const TRIES: u32 = 6;

/// What a daemon says of its templates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) templates: u64,
    pub(crate) parked: u64,
    pub(crate) hits: u64,
    pub(crate) misses: u64,
}

/// A client with a ground of its own, and a daemon that only this test uses.
pub(crate) struct Warm {
    pub(crate) setting: Setting,
    /// How many runs the daemon was asked for, by all its clients.
    asked: Rc<Cell<u64>>,
}

impl Warm {
    /// One for each mode with a daemon that can be tested here.
    pub(crate) fn each() -> impl Iterator<Item = Self> {
        Mode::daemons_here().into_iter().map(Self::new)
    }

    pub(crate) fn new(mode: Mode) -> Self {
        let daemon = Arc::new(Daemon::start(mode.server(), &[]));
        let setting = Setting { mode, ground: Ground::new(mode.client()), daemon: Some(daemon) };
        Self { setting, asked: Rc::default() }
    }

    /// Another client of the same daemon, with a ground of its own.
    pub(crate) fn beside(&self, mode: Mode) -> Self {
        assert_eq!(mode.server(), self.setting.mode.server());
        let daemon = self.setting.daemon.clone();
        let setting = Setting { mode, ground: Ground::new(mode.client()), daemon };
        Self { setting, asked: Rc::clone(&self.asked) }
    }

    /// The client of another user that the same daemon can have.
    pub(crate) fn other_owner(&self) -> Option<Self> {
        match self.setting.mode {
            Mode::RootDaemonForRoot => Some(self.beside(Mode::RootDaemonForUser)),
            Mode::RootDaemonForUser => Some(self.beside(Mode::RootDaemonForRoot)),
            _ => None,
        }
    }

    pub(crate) fn ground(&self) -> &Ground {
        &self.setting.ground
    }

    pub(crate) fn daemon(&self) -> &Daemon {
        self.setting.daemon.as_ref().unwrap()
    }

    fn status(&self) -> serde_json::Value {
        let ended = Ended::of(self.setting.ask(&["status", "--json"]));
        serde_json::from_str(&ended.text()).unwrap_or_else(|error| panic!("{error}: {}", ended.story()))
    }

    /// What the daemon says just now, which may be a tenth of a second old.
    pub(crate) fn counts(&self) -> Counts {
        let status = self.status();
        let count = |name: &str| status["warmth"][name].as_u64().unwrap();
        Counts {
            templates: count("templates"),
            parked: count("parked"),
            hits: count("hits"),
            misses: count("misses"),
        }
    }

    /// What it says when it has counted every run it was asked for.
    #[track_caller]
    pub(crate) fn counted(&self) -> Counts {
        let mut counts = self.counts();
        let asked = self.asked.get();
        let all = wait_until(PATIENCE, || {
            counts = self.counts();
            counts.hits + counts.misses >= asked
        });
        assert!(all && counts.hits + counts.misses == asked, "{asked} runs asked for, but {counts:?}");
        counts
    }

    /// Goes on from what the daemon has counted, where a run may have taken more than one spare.
    pub(crate) fn recount(&self) -> Counts {
        let asked = self.asked.get();
        let mut counts = self.counts();
        // Two answers with more time between them than the daemon takes to tell.
        wait_until(PATIENCE, || {
            let before = counts;
            std::thread::sleep(Duration::from_millis(300));
            counts = self.counts();
            counts == before && counts.hits + counts.misses >= asked
        });
        self.asked.set(counts.hits + counts.misses);
        counts
    }

    /// A run of a line of bash.
    pub(crate) fn line(&self, policy: &str, line: &str) -> Run<'_> {
        self.setting.run(policy).words(["bash", "-c", line])
    }

    /// Starts a run.
    pub(crate) fn start(&self, run: Run<'_>) -> Started {
        self.asked.set(self.asked.get() + 1);
        run.start()
    }

    /// Runs something to its end.
    #[track_caller]
    pub(crate) fn finish(&self, run: Run<'_>) -> Ended {
        self.start(run).finish()
    }

    /// Starts a run that gets a spare: the spare waits before, and the daemon counts a hit.
    #[track_caller]
    pub(crate) fn start_hit(&self, run: Run<'_>) -> Started {
        let before = self.counted();
        assert!(wait_until(PATIENCE, || !self.spares().is_empty()), "no spare waits: {:?}", self.counts());
        let started = self.start(run);
        let after = self.counted();
        assert_eq!(
            (after.hits, after.misses),
            (before.hits + 1, before.misses),
            "not a hit; the daemon said:\n{}",
            self.daemon().log()
        );
        started
    }

    /// Runs something to its end on a spare.
    #[track_caller]
    pub(crate) fn hit(&self, run: Run<'_>) -> Ended {
        self.start_hit(run).finish()
    }

    /// Has a spare for the client's runs under a policy.
    #[track_caller]
    pub(crate) fn heat(&self, policy: &str) {
        for _ in 0..TRIES {
            self.finish(self.setting.run(policy).words(["true"])).expect_code(0);
            if wait_until(PATIENCE / TRIES, || !self.spares().is_empty()) {
                return;
            }
        }
        panic!("no spare: {:?}\n{}", self.counts(), self.daemon().log());
    }

    /// The daemon's launcher.
    pub(crate) fn launcher(&self) -> u32 {
        u32::try_from(self.status()["launcher_pid"].as_u64().unwrap()).unwrap()
    }

    /// The launcher's children of a name.
    pub(crate) fn named(&self, name: &str) -> Vec<Process> {
        // The kernel keeps 15 bytes of a name.
        let name = &name[..name.len().min(15)];
        let launcher = self.launcher();
        let is_one = |process: &Process| {
            let found = std::fs::read_to_string(format!("/proc/{}/comm", process.pid));
            process.parent == launcher
                && process.state != 'Z'
                && found.is_ok_and(|found| found.trim() == name)
        };
        left::processes().into_iter().filter(is_one).collect()
    }

    /// The templates of all owners.
    pub(crate) fn templates(&self) -> Vec<Process> {
        self.named("stockade-template")
    }

    /// The spares that wait, locked, in this client's workspace.
    pub(crate) fn spares(&self) -> Vec<Process> {
        let work = format!(" {} ", self.ground().work().display());
        let is_here = |process: &Process| {
            let mounts = std::fs::read_to_string(format!("/proc/{}/mountinfo", process.pid));
            mounts.is_ok_and(|mounts| mounts.contains(&work))
        };
        self.named("stockade-init")
            .into_iter()
            .filter(|process| is_parked(process.pid) && is_here(process))
            .collect()
    }
}

/// Whether an init has its filter, and hasn't been told to start anything: then its files are its user's.
fn is_parked(pid: u32) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    let value =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
    let uid = value("Uid:").split_whitespace().next().and_then(|uid| uid.parse::<u32>().ok());
    let owner = std::fs::metadata(format!("/proc/{pid}/status")).ok().map(|of| of.uid());
    value("Seccomp:") == "2" && owner.is_some() && uid == owner
}

/// Sends a signal to each of some processes.
pub(crate) fn signal(processes: &[Process], signal: Signal) {
    for process in processes {
        let pid = Pid::from_raw(i32::try_from(process.pid).unwrap()).unwrap();
        let sent = kill_process(pid, signal);
        // One may have died of another's death.
        assert!(matches!(sent, Ok(()) | Err(rustix::io::Errno::SRCH)), "{sent:?}");
    }
}

/// Fails the test unless all of these end.
#[track_caller]
pub(crate) fn expect_gone(processes: &[Process]) {
    let gone = wait_until(PATIENCE, || left::alive(processes).is_empty());
    assert!(gone, "still there: {:#?}", left::alive(processes));
}
