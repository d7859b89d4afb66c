//! One run's group.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use stockade_protocol::outcome::Stalled;
use stockade_protocol::spec::{IoPriority, Limits};

use super::{CgroupError, HIGH, OWN_PROCESSES, set, write};

/// The most rounds of signals where the kernel has no `cgroup.kill` (before 5.14). Each finds what was forked
/// during the one before; the group is frozen meanwhile, so the second finds nothing.
const KILL_ROUNDS: u32 = 16;
/// The longest file read here. `cgroup.procs` without `cgroup.kill` is read in rounds.
const TEXT: usize = 16 * 1024;

/// A run's group. It isn't removed when this is dropped: see [`RunCgroup::try_remove`].
#[derive(Debug)]
pub struct RunCgroup {
    path: PathBuf,
    name: String,
    parent: OwnedFd,
    directory: OwnedFd,
}

/// What a group has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes charged now.
    pub memory: u64,
    /// The most bytes ever charged; since kernel 5.19, before it the present value.
    pub memory_peak: u64,
    /// Processes and threads now, init included.
    pub processes: u64,
    /// The most ever, init included; since kernel 6.1, before it the present value.
    pub processes_peak: u64,
    /// Processor time in user mode, in microseconds.
    pub user_us: u64,
    /// Processor time in kernel mode, in microseconds.
    pub system_us: u64,
    /// How long it was held up, where the kernel measures that.
    pub stalled: Option<Stalled>,
}

/// What has happened to a group's memory and processes, counted by the kernel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryEvents {
    /// Times it was over `memory.high`.
    pub high: u64,
    /// Times it met `memory.max`.
    pub max: u64,
    /// Processes the kernel killed for it. One group kill may count more than the processes there were.
    pub oom_kill: u64,
    /// Forks that `pids.max` refused.
    pub forks_refused: u64,
}

/// What a wake-up of [`RunCgroup::growth`] is for.
#[derive(Debug)]
pub struct Growth {
    /// `memory.events`: wait for `PRI` (an exceptional condition), not for reading.
    pub memory: OwnedFd,
    /// `pids.events`, likewise.
    pub processes: OwnedFd,
}

impl RunCgroup {
    pub(super) fn new(path: PathBuf, name: String, parent: OwnedFd, directory: OwnedFd) -> Self {
        Self { path, name, parent, directory }
    }

    /// Its path, for reports.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its directory, to be born into: `clone3` with `CLONE_INTO_CGROUP`.
    #[must_use]
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Writes the limits.
    pub(super) fn limit(&self, limits: &Limits) -> Result<(), CgroupError> {
        for Setting { file, value, required } in settings(limits) {
            match write(&self.directory, file, &value) {
                // Without the setting's feature in the kernel (swap off, cpu not delegated) there is no such file.
                Err(error) if !required && error.kind() == io::ErrorKind::NotFound => {}
                done => set(done, &self.path, file, &value)?,
            }
        }
        Ok(())
    }

    /// Moves a process into the group. Takes milliseconds at times (a grace period): prefer being born there.
    ///
    /// # Errors
    /// [`CgroupError::Set`].
    pub fn attach(&self, pid: i32) -> Result<(), CgroupError> {
        let pid = pid.to_string();
        set(write(&self.directory, "cgroup.procs", &pid), &self.path, "cgroup.procs", &pid)
    }

    /// Kills every process in it, present and being born.
    ///
    /// # Errors
    /// [`CgroupError::Set`].
    pub fn kill(&self) -> Result<(), CgroupError> {
        match write(&self.directory, "cgroup.kill", "1") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.kill_one_by_one(),
            done => set(done, &self.path, "cgroup.kill", "1"),
        }
    }

    fn kill_one_by_one(&self) -> Result<(), CgroupError> {
        self.freeze(true)?;
        for _ in 0..KILL_ROUNDS {
            let procs = self.read("cgroup.procs")?;
            let pids = procs.lines().filter_map(|line| rustix::process::Pid::from_raw(line.parse().ok()?));
            let mut any = false;
            for pid in pids {
                any |= rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_ok();
            }
            if !any {
                break;
            }
        }
        self.freeze(false)
    }

    /// Stops or continues every process in it. Stopping is complete only once `cgroup.events` says `frozen 1`.
    ///
    /// # Errors
    /// [`CgroupError::Set`].
    pub fn freeze(&self, frozen: bool) -> Result<(), CgroupError> {
        let value = if frozen { "1" } else { "0" };
        set(write(&self.directory, "cgroup.freeze", value), &self.path, "cgroup.freeze", value)
    }

    /// Whether every process in it is stopped.
    ///
    /// # Errors
    /// [`CgroupError::Read`].
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        Ok(entry(&self.read("cgroup.events")?, "frozen") == Some(1))
    }

    /// Whether a process is left in it.
    ///
    /// # Errors
    /// [`CgroupError::Read`].
    pub fn is_populated(&self) -> Result<bool, CgroupError> {
        Ok(entry(&self.read("cgroup.events")?, "populated") == Some(1))
    }

    /// What it has used.
    ///
    /// # Errors
    /// [`CgroupError::Read`].
    pub fn counters(&self) -> Result<Counters, CgroupError> {
        let number = |file| -> Result<u64, CgroupError> { Ok(self.read(file)?.trim().parse().unwrap_or(0)) };
        // The root of the hierarchy has no such files, and older kernels no peaks.
        let peak = |file, now: u64| number(file).unwrap_or(now).max(now);
        let (memory, processes) = (number("memory.current")?, number("pids.current")?);
        let cpu = self.read("cpu.stat")?;
        Ok(Counters {
            memory,
            memory_peak: peak("memory.peak", memory),
            processes,
            processes_peak: peak("pids.peak", processes),
            user_us: entry(&cpu, "user_usec").unwrap_or(0),
            system_us: entry(&cpu, "system_usec").unwrap_or(0),
            stalled: self.stalled(),
        })
    }

    /// `None`: a kernel that was built or started without (`psi=0`).
    fn stalled(&self) -> Option<Stalled> {
        let some = |file| stalled_some(&self.read(file).ok()?);
        Some(Stalled {
            cpu_us: some("cpu.pressure")?,
            memory_us: some("memory.pressure")?,
            io_us: some("io.pressure")?,
        })
    }

    /// What has happened to it.
    ///
    /// # Errors
    /// [`CgroupError::Read`].
    pub fn events(&self) -> Result<MemoryEvents, CgroupError> {
        let memory = self.read("memory.events")?;
        let processes = self.read("pids.events")?;
        Ok(MemoryEvents {
            high: entry(&memory, "high").unwrap_or(0),
            max: entry(&memory, "max").unwrap_or(0),
            oom_kill: entry(&memory, "oom_kill").unwrap_or(0),
            forks_refused: entry(&processes, "max").unwrap_or(0),
        })
    }

    /// Descriptors that become exceptional (`POLLPRI`) when [`Self::events`] changes. Each must be read from its
    /// start after it has woken somebody, or it wakes again: [`Self::rearm`].
    ///
    /// # Errors
    /// [`CgroupError::Read`].
    pub fn growth(&self) -> Result<Growth, CgroupError> {
        let growth = Growth { memory: self.open("memory.events")?, processes: self.open("pids.events")? };
        Self::rearm(&growth.memory);
        Self::rearm(&growth.processes);
        Ok(growth)
    }

    /// Reads one of [`Self::growth`] so that it waits for the next change.
    pub fn rearm(events: impl AsFd) {
        let _ = rustix::io::pread(events, &mut [0_u8; 512], 0);
    }

    /// No warning threshold any more: from here on only `memory.max` bounds, and nothing is slowed down.
    ///
    /// # Errors
    /// [`CgroupError::Set`].
    pub fn lift_high(&self) -> Result<(), CgroupError> {
        set(write(&self.directory, "memory.high", "max"), &self.path, "memory.high", "max")
    }

    /// Removes the group. `false`: a process is still in it.
    ///
    /// # Errors
    /// [`CgroupError::Remove`].
    pub fn try_remove(&self) -> Result<bool, CgroupError> {
        match rustix::fs::unlinkat(&self.parent, &self.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::BUSY) => Ok(false),
            Err(errno) => Err(CgroupError::Remove { path: self.path.clone(), source: errno.into() }),
        }
    }

    /// Kills what is left, and removes the group once it's empty, within a time. For where blocking is allowed.
    ///
    /// # Errors
    /// [`CgroupError::Remove`] with `ResourceBusy` when a process is left after `within` (in uninterruptible sleep).
    pub fn remove_within(&self, within: Duration) -> Result<(), CgroupError> {
        let deadline = Instant::now() + within;
        loop {
            if self.try_remove()? {
                return Ok(());
            }
            self.kill()?;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let source = Errno::BUSY.into();
                return Err(CgroupError::Remove { path: self.path.clone(), source });
            }
            self.wait_for_change(left.min(Duration::from_millis(100)))?;
        }
    }

    /// Waits until `cgroup.events` changes (the last process leaves), or until the time is over.
    fn wait_for_change(&self, within: Duration) -> Result<(), CgroupError> {
        let events = self.open("cgroup.events")?;
        Self::rearm(&events);
        if !self.is_populated()? {
            return Ok(());
        }
        let timeout = Timespec {
            tv_sec: i64::try_from(within.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: within.subsec_nanos().into(),
        };
        let _ = rustix::event::poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&timeout));
        Ok(())
    }

    fn open(&self, file: &str) -> Result<OwnedFd, CgroupError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.directory, file, flags, Mode::empty())
            .map_err(|errno| CgroupError::Read { path: self.path.join(file), source: errno.into() })
    }

    fn read(&self, file: &str) -> Result<String, CgroupError> {
        let failed = |errno: Errno| CgroupError::Read { path: self.path.join(file), source: errno.into() };
        let open = self.open(file)?;
        let mut text = vec![0; TEXT];
        let mut length = 0;
        while length < TEXT {
            match rustix::io::read(&open, &mut text[length..]) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        text.truncate(length);
        String::from_utf8(text).map_err(|_| failed(Errno::ILSEQ))
    }
}

/// The part of the disk's time that a best-effort level weighs, 0 first: 100 is what a group has by itself, and level 4 a
/// process.
const IO_WEIGHTS: [u32; 8] = [400, 280, 200, 140, 100, 70, 50, 35];
/// That of who wants it only when nobody else does: the least there is.
const IO_IDLE: u32 = 1;

fn io_weight(priority: IoPriority) -> u32 {
    let last = IO_WEIGHTS[IO_WEIGHTS.len() - 1];
    match priority {
        IoPriority::Idle => IO_IDLE,
        IoPriority::BestEffort(level) => IO_WEIGHTS.get(usize::from(level)).copied().unwrap_or(last),
    }
}

/// One file and what is written to it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Setting {
    file: &'static str,
    value: String,
    /// Without it the run doesn't start.
    required: bool,
}

/// What a run's limits are as settings, in the order they are written: `memory.max` first.
fn settings(limits: &Limits) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut push = |file, value: String, required| settings.push(Setting { file, value, required });
    if let Some(memory) = limits.memory {
        push("memory.max", memory.to_string(), true);
        push("memory.high", (memory / HIGH.1 * HIGH.0).to_string(), true);
        push("memory.swap.max", "0".to_owned(), false);
    }
    // One process that can't be killed alone: the run ends whole, init included.
    push("memory.oom.group", "1".to_owned(), true);
    let processes = limits.processes.saturating_add(OWN_PROCESSES);
    push("pids.max", processes.to_string(), true);
    // The same scale as nice, made for this: 0 is weight 100.
    push("cpu.weight.nice", limits.nice.min(19).to_string(), false);
    // Where the kernel shares the disk by weight. Which schedulers heed a process's own priority is another matter.
    push("io.weight", io_weight(limits.io_priority).to_string(), false);
    settings
}

/// The value behind a key, in a file of `key value` lines.
fn entry(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The microseconds of `some avg10=… avg60=… avg300=… total=…`.
fn stalled_some(text: &str) -> Option<u64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    some.split(' ').find_map(|field| field.strip_prefix("total=")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn limits() -> Limits {
        Limits {
            wall_ms: None,
            cpu_ms: None,
            idle_ms: None,
            memory: Some(100 << 20),
            processes: 128,
            open_files: 1024,
            file_size: None,
            output: None,
            stdin: None,
            core: 0,
            stack: 8 << 20,
            address_space: None,
            nice: 5,
            io_priority: IoPriority::BestEffort(4),
        }
    }

    fn group(directory: &Path) -> RunCgroup {
        let open =
            |path: &Path| rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let name = directory.file_name().unwrap().to_str().unwrap().to_owned();
        RunCgroup::new(directory.to_owned(), name, open(directory.parent().unwrap()), open(directory))
    }

    #[test]
    fn limits_become_settings_and_memory_comes_first() {
        let settings = settings(&limits());
        let text: Vec<String> =
            settings.iter().map(|setting| format!("{}={}", setting.file, setting.value)).collect();
        assert_eq!(
            text,
            [
                "memory.max=104857600",
                "memory.high=83886080",
                "memory.swap.max=0",
                "memory.oom.group=1",
                "pids.max=129",
                "cpu.weight.nice=5",
                "io.weight=100"
            ]
        );
        let free = Limits { memory: None, ..limits() };
        assert!(super::settings(&free).iter().all(|setting| setting.file != "memory.max"));
    }

    #[test]
    fn a_lower_io_priority_weighs_less_and_idle_least() {
        let mut weights: Vec<u32> = (0..8).map(|level| io_weight(IoPriority::BestEffort(level))).collect();
        weights.push(io_weight(IoPriority::Idle));
        assert!(weights.windows(2).all(|pair| pair[0] > pair[1]), "{weights:?}");
        // The kernel's bounds.
        assert!(weights.iter().all(|weight| (1..=10_000).contains(weight)));
        assert_eq!(io_weight(IoPriority::BestEffort(200)), io_weight(IoPriority::BestEffort(7)));
    }

    #[test]
    fn a_required_setting_that_is_missing_is_named_and_an_optional_one_is_not() {
        let tree = tempfile::tempdir().unwrap();
        let directory = tree.path().join("run-x");
        fs::create_dir(&directory).unwrap();
        for file in ["memory.max", "memory.high", "memory.oom.group", "pids.max"] {
            fs::write(directory.join(file), "").unwrap();
        }
        let group = group(&directory);
        group.limit(&limits()).unwrap();
        assert_eq!(fs::read_to_string(directory.join("pids.max")).unwrap(), "129");
        fs::remove_file(directory.join("memory.oom.group")).unwrap();
        let error = group.limit(&limits()).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot set memory.oom.group = 1 in {}", directory.display()));
    }

    #[test]
    fn figures_are_read_and_missing_peaks_are_the_present_value() {
        let tree = tempfile::tempdir().unwrap();
        let directory = tree.path().join("run-x");
        fs::create_dir(&directory).unwrap();
        let files = [
            ("memory.current", "4096\n"),
            ("memory.peak", "8192\n"),
            ("memory.events", "low 0\nhigh 3\nmax 2\noom 1\noom_kill 1\noom_group_kill 1\n"),
            ("pids.current", "7\n"),
            ("pids.events", "max 5\n"),
            ("cpu.stat", "usage_usec 30\nuser_usec 10\nsystem_usec 20\n"),
            ("cgroup.events", "populated 1\nfrozen 0\n"),
            ("cgroup.kill", ""),
        ];
        for (file, text) in files {
            fs::write(directory.join(file), text).unwrap();
        }
        let group = group(&directory);
        let expected = Counters {
            memory: 4096,
            memory_peak: 8192,
            processes: 7,
            processes_peak: 7,
            user_us: 10,
            system_us: 20,
            stalled: None,
        };
        assert_eq!(group.counters().unwrap(), expected, "a kernel without pressure");
        for (file, total) in [("cpu.pressure", 700), ("memory.pressure", 0), ("io.pressure", 41)] {
            let line =
                |kind: &str, total: u64| format!("{kind} avg10=1.50 avg60=0.00 avg300=0.00 total={total}\n");
            fs::write(directory.join(file), line("some", total) + &line("full", 9)).unwrap();
        }
        let stalled = Some(Stalled { cpu_us: 700, memory_us: 0, io_us: 41 });
        assert_eq!(group.counters().unwrap(), Counters { stalled, ..expected });
        assert_eq!(group.events().unwrap(), MemoryEvents { high: 3, max: 2, oom_kill: 1, forks_refused: 5 });
        assert!(group.is_populated().unwrap() && !group.is_frozen().unwrap());
        group.kill().unwrap();
        assert_eq!(fs::read_to_string(directory.join("cgroup.kill")).unwrap(), "1");
        let busy = group.remove_within(Duration::from_millis(10)).unwrap_err();
        assert!(matches!(busy, CgroupError::Remove { .. }), "{busy}");
    }
}
