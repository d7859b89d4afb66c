//! One watched run: what it uses, and whether that is too much.
//!
//! Memory is found in three steps, each dearer and only taken when the one before can't decide:
//!
//! 1. `stat` of each process, every sample. Resident pages of every kind, page tables as the address space could
//!    need them at most, and tmpfs: an upper bound. Below 80 % of the limit nothing more is asked of a process whose
//!    resident pages haven't changed.
//! 2. `status`: anonymous and shared memory apart, swap, real page tables. Pages that several processes share count
//!    for each of them ([`Sums::upper`]). What one process has of its own, page tables and tmpfs are certain
//!    ([`Sums::lower`]): over the limit, they end the run at once.
//! 3. What lies between is the [`survey`](super::survey)'s to find out, which divides each page by its sharers. It takes
//!    milliseconds, or as long as the run likes, so it's asked, and not again at once.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use stockade_protocol::ExecId;

use super::Breached;
use super::read::{Memory, Reader, Stat};
use super::source::Source;
use super::survey::{Answer, MAX_KNOWN_MEMFDS, MAX_SUBJECTS, Question, Subject};

/// The longest time one sample looks through descriptors.
const DESCRIPTOR_BUDGET: Duration = Duration::from_millis(2);
/// After a survey that took so long, so many times as long passes before the next, unless growth alone demands it.
const SURVEY_REST: u32 = 4;
/// A run whose survey takes longer than this, and whose upper bound is [`STUCK_EXCESS`] times its limit, is over it.
const STUCK: Duration = Duration::from_secs(10);
/// See [`STUCK`].
const STUCK_EXCESS: u64 = 4;
/// Above this part of a limit its run is looked at closely, and warned of: 80 %.
const NEAR: (u64, u64) = (4, 5);
/// After so many samples a process's `status` is read even if `stat` shows no change.
const STALE: u32 = 32;
/// A run that used nothing in so many samples is quiet: it may be sampled less often.
const QUIET: u32 = 16;
/// How often the descriptors of a busy run are looked through for memfds.
pub const MEMFD_INTERVAL: Duration = Duration::from_millis(50);
/// Descriptors of one process that are looked through; more can be had only with a policy that allows so many.
pub const MAX_DESCRIPTORS: usize = 4096;
/// Memfds of one run that are told apart.
const MAX_MEMFDS: usize = 64 * 1024;
/// Kernel memory of one inode and its name on a tmpfs, in bytes: what an inode filler costs.
pub const TMPFS_INODE: u64 = 1024;

/// What a run may use.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Processes and threads beside init.
    pub processes: u64,
    /// Processor time in milliseconds.
    pub cpu_ms: Option<u64>,
}

/// What all samples need.
#[derive(Debug)]
pub struct Machine {
    /// The kernel's page size, in bytes.
    pub page: u64,
    /// Clock ticks a second.
    pub ticks: u64,
    /// Whether memory may be where resident pages don't show it: swap, or huge pages.
    pub hidden_memory: bool,
    /// The device on which the kernel keeps memfds.
    pub memfd_device: u64,
    /// The host's `/proc`.
    pub proc: OwnedFd,
}

/// The most a run has used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Peaks {
    /// Bytes.
    pub memory: u64,
    /// Processes and threads beside init.
    pub processes: u64,
    /// Milliseconds.
    pub cpu_ms: u64,
}

/// A limit that was passed, or is near.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Which.
    pub limit: Breached,
    /// The limit.
    pub bound: u64,
    /// The value.
    pub seen: u64,
}

/// Sums over a run's processes, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// Anonymous memory of all.
    pub anonymous: u64,
    /// Anonymous memory of the largest.
    pub largest: u64,
    /// Shared memory of all.
    pub shared: u64,
    /// Page tables of all.
    pub tables: u64,
    /// In files: on the run's tmpfs mounts, and in memfds it has open.
    pub files: u64,
}

impl Sums {
    /// Not less than what the run has: shared pages are counted for each sharer, and mapped tmpfs files twice.
    #[must_use]
    pub fn upper(&self) -> u64 {
        self.anonymous + self.shared + self.tables + self.files
    }

    /// Not more than what the run has.
    #[must_use]
    pub fn lower(&self) -> u64 {
        self.largest + self.tables + self.files
    }
}

/// One process of the run.
#[derive(Debug, Clone, Copy)]
struct Process {
    pid: i32,
    stat: Stat,
    memory: Memory,
    /// Resident pages when `memory` was read, and samples since.
    measured_at: u64,
    age: u32,
}

/// What the last survey said.
#[derive(Debug, Clone, Copy)]
struct Surveyed {
    exact: u64,
    /// The least upper bound since.
    upper: u64,
    next: Instant,
}

/// Whether a survey is wanted, or under way.
#[derive(Debug, Clone, Copy)]
enum Survey {
    Unneeded,
    Wanted,
    Asked { number: u64, at: Instant, upper: u64 },
}

/// The memfds a run has open.
#[derive(Debug, Default)]
struct Memfds {
    /// Inodes of the last whole look, sorted, and what they hold together.
    inodes: Vec<u64>,
    bytes: u64,
    /// Inodes and sizes at the first look, sorted: what the run was given (a client's standard input, say) isn't its
    /// own memory, what it makes of that is.
    given: Option<Vec<(u64, u64)>>,
    /// Inodes and sizes of the look under way, and the pids up to which it is.
    found: Vec<(u64, u64)>,
    done: i32,
    /// Processor time at the beginning of the last look: a run that used none since has written none.
    at_ticks: u64,
    next: Option<Instant>,
}

impl Memfds {
    /// Makes what was found what is known.
    fn settle(&mut self) {
        self.found.sort_unstable();
        self.found.dedup_by_key(|(inode, _)| *inode);
        let given = self.given.get_or_insert_with(|| self.found.clone());
        let before = |inode: u64| {
            given.binary_search_by_key(&inode, |(inode, _)| *inode).map_or(0, |index| given[index].1)
        };
        self.bytes = self.found.iter().map(|(inode, bytes)| bytes.saturating_sub(before(*inode))).sum();
        self.inodes.clear();
        self.inodes.extend(self.found.drain(..).map(|(inode, _)| inode));
        self.done = 0;
    }
}

/// One watched run.
#[derive(Debug)]
pub struct Watch {
    /// Its name.
    pub exec_id: ExecId,
    bounds: Bounds,
    source: Option<Source>,
    tmpfs: Vec<(OwnedFd, u64)>,
    processes: Vec<Process>,
    before: Vec<Process>,
    memfds: Memfds,
    survey: Survey,
    surveyed: Option<Surveyed>,
    files: u64,
    quiet: u32,
    cpu_ticks: u64,
    /// When it's to be sampled next.
    pub due: Instant,
    /// The most seen.
    pub peaks: Peaks,
    /// What was told of that, and when.
    pub told: (Peaks, Instant),
    /// The passed limit, until it's told.
    pub breach: Option<Mark>,
    /// Limits that are near, until they are told; each once.
    pub warnings: [Option<Mark>; 3],
    warned: [bool; 3],
}

fn near(bound: u64) -> u64 {
    bound / NEAR.1 * NEAR.0
}

impl Watch {
    /// A run from now on. `tmpfs` are descriptors of its tmpfs mounts.
    #[must_use]
    pub fn new(exec_id: ExecId, bounds: Bounds, source: Source, tmpfs: Vec<OwnedFd>, now: Instant) -> Self {
        let device = |fd: &OwnedFd| rustix::fs::fstat(fd).map_or(0, |stat| stat.st_dev);
        Self {
            exec_id,
            bounds,
            source: Some(source),
            tmpfs: tmpfs.into_iter().map(|fd| (device(&fd), fd)).map(|(device, fd)| (fd, device)).collect(),
            processes: Vec::new(),
            before: Vec::new(),
            memfds: Memfds::default(),
            survey: Survey::Unneeded,
            surveyed: None,
            files: 0,
            quiet: 0,
            cpu_ticks: 0,
            due: now,
            peaks: Peaks::default(),
            told: (Peaks::default(), now),
            breach: None,
            warnings: [None; 3],
            warned: [false; 3],
        }
    }

    /// Whether there is still something to sample.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.source.is_some()
    }

    /// Whether it used nothing lately, far from its limit.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.quiet >= QUIET
    }

    /// The pidfd of a run that ends with its init.
    #[must_use]
    pub fn init(&self) -> Option<BorrowedFd<'_>> {
        self.source.as_ref().and_then(Source::namespace_init)
    }

    /// Lets go of everything that keeps the run's mounts and namespaces alive: it has ended.
    pub fn let_go(&mut self) {
        self.source = None;
        self.tmpfs.clear();
        self.processes.clear();
        self.survey = Survey::Unneeded;
    }

    /// Looks at the run once. Answers whether a limit was passed; it's in `breach` then.
    pub fn sample(&mut self, reader: &mut Reader, machine: &Machine, pids: &mut Vec<i32>) -> bool {
        let Some(source) = &mut self.source else { return false };
        // One more than are allowed, and init, is all that is ever needed to know.
        let most = usize::try_from(self.bounds.processes).unwrap_or(usize::MAX).saturating_add(2);
        if !source.list(reader, &machine.proc, most, pids) {
            self.let_go();
            return false;
        }
        let root = source.root();
        let beside = |pids: &[i32]| pids.iter().filter(|pid| **pid != root).count() as u64;
        let listed = beside(pids);
        if listed > self.bounds.processes {
            self.peaks.processes = self.peaks.processes.max(listed);
            return self.pass(Breached::Processes, self.bounds.processes, listed);
        }
        let count = self.take_stats(reader, machine, pids, root);
        self.peaks.processes = self.peaks.processes.max(count);
        let cpu_ms = self.cpu_ticks.saturating_mul(1000) / machine.ticks.max(1);
        self.peaks.cpu_ms = self.peaks.cpu_ms.max(cpu_ms);
        if self.check(Breached::Processes, Some(self.bounds.processes), count)
            || self.check(Breached::Cpu, self.bounds.cpu_ms, cpu_ms)
        {
            return true;
        }
        self.sample_memory(reader, machine)
    }

    /// Reads `stat` of all. Answers how many processes and threads there are beside init.
    fn take_stats(&mut self, reader: &mut Reader, machine: &Machine, pids: &mut [i32], root: i32) -> u64 {
        let Some(proc) = self.source.as_ref().map(|source| source.proc(&machine.proc)) else { return 0 };
        core::mem::swap(&mut self.processes, &mut self.before);
        self.processes.clear();
        pids.sort_unstable();
        let mut known = self.before.iter().peekable();
        let (mut count, mut cpu_ticks, mut changed) = (0, 0, self.before.len() != pids.len());
        for &pid in pids.iter() {
            let Some(stat) = reader.stat(proc, pid) else { continue };
            // One that has ended and isn't reaped still holds its place.
            count += if pid == root { 0 } else { stat.threads.max(1) };
            cpu_ticks += stat.cpu_ticks;
            while known.next_if(|process| process.pid < pid).is_some() {}
            let old = known.next_if(|old| old.pid == pid && old.stat.started == stat.started);
            let fresh = Process { pid, stat, memory: Memory::default(), measured_at: u64::MAX, age: 0 };
            let process = old.map_or(fresh, |old| Process { stat, age: old.age + 1, ..*old });
            changed |= process.measured_at != stat.resident_pages;
            self.processes.push(process);
        }
        changed |= cpu_ticks != self.cpu_ticks;
        self.quiet = if changed { 0 } else { self.quiet.saturating_add(1) };
        // Time of a child whose parent ignores it is lost when it ends: a lower bound, which never falls.
        self.cpu_ticks = self.cpu_ticks.max(cpu_ticks);
        count
    }

    /// Looks through the open descriptors for memfds, which may hold memory that nobody maps: every
    /// [`MEMFD_INTERVAL`] that the run has used processor time, in pieces of [`DESCRIPTOR_BUDGET`].
    fn look_for_memfds(&mut self, reader: &mut Reader, machine: &Machine) {
        let Some(proc) = self.source.as_ref().map(|source| source.proc(&machine.proc)) else { return };
        let started = Instant::now();
        let memfds = &mut self.memfds;
        if memfds.done == 0 {
            if memfds.next.is_some_and(|next| next > started || memfds.at_ticks == self.cpu_ticks) {
                return;
            }
            memfds.at_ticks = self.cpu_ticks;
            memfds.next = Some(started + MEMFD_INTERVAL);
        }
        let done = memfds.done;
        for process in self.processes.iter().filter(|process| process.pid > done) {
            if started.elapsed() >= DESCRIPTOR_BUDGET || memfds.found.len() >= MAX_MEMFDS {
                return;
            }
            reader.memfds(proc, process.pid, machine.memfd_device, MAX_DESCRIPTORS, &mut memfds.found);
            memfds.done = process.pid;
        }
        memfds.settle();
    }

    fn sample_memory(&mut self, reader: &mut Reader, machine: &Machine) -> bool {
        self.look_for_memfds(reader, machine);
        let tmpfs: u64 = self.tmpfs.iter().map(|(fd, _)| tmpfs_used(fd)).sum();
        let files = tmpfs + self.memfds.bytes;
        let bound = self.bounds.memory.unwrap_or(u64::MAX);
        let at_most: u64 = self
            .processes
            .iter()
            // A page table of 4096 bytes maps 2 MiB: at most a 512th of the address space, and one more each level.
            .map(|process| process.stat.resident_pages * machine.page + process.stat.virtual_bytes / 512)
            .sum();
        let all = machine.hidden_memory || at_most.saturating_add(files) >= near(bound);
        self.measure(reader, machine, all);
        let sums = self.sums(files);
        let (upper, lower) = (sums.upper(), sums.lower());
        if upper >= near(bound) {
            self.quiet = 0;
        }
        if self.check(Breached::Memory, self.bounds.memory, lower) {
            self.peaks.memory = self.peaks.memory.max(lower);
            return true;
        }
        self.files = files;
        self.consider_survey(upper, lower, bound);
        let seen = self.estimate(upper, lower, bound);
        self.peaks.memory = self.peaks.memory.max(seen);
        let stuck = |survey| matches!(survey, Survey::Asked { at, .. } if at.elapsed() > STUCK);
        if stuck(self.survey) && upper / STUCK_EXCESS > bound {
            return self.pass(Breached::Memory, bound, upper);
        }
        false
    }

    /// Reads `status` of those that changed, or of all.
    fn measure(&mut self, reader: &mut Reader, machine: &Machine, all: bool) {
        let Some(proc) = self.source.as_ref().map(|source| source.proc(&machine.proc)) else { return };
        for process in &mut self.processes {
            if !all && process.measured_at == process.stat.resident_pages && process.age < STALE {
                continue;
            }
            // Unreadable though alive: everything resident counts. One that ended meanwhile is gone at the next look.
            process.memory = reader.memory(proc, process.pid).unwrap_or(Memory {
                anonymous: process.stat.resident_pages * machine.page,
                shared: 0,
                tables: process.stat.virtual_bytes / 512,
            });
            process.measured_at = process.stat.resident_pages;
            process.age = 0;
        }
    }

    fn sums(&self, files: u64) -> Sums {
        let mut sums = Sums { files, ..Sums::default() };
        for Process { memory, .. } in &self.processes {
            sums.anonymous += memory.anonymous;
            sums.largest = sums.largest.max(memory.anonymous);
            sums.shared += memory.shared;
            sums.tables += memory.tables;
        }
        sums
    }

    /// Wants a survey if the sums can't decide, and it isn't too soon after the last.
    fn consider_survey(&mut self, upper: u64, lower: u64, bound: u64) {
        let undecided = |threshold: u64| upper > threshold && lower <= threshold;
        let threshold = if undecided(bound) {
            bound
        } else if !self.warned[Breached::Memory.index()] && undecided(near(bound)) {
            near(bound)
        } else {
            if matches!(self.survey, Survey::Wanted) {
                self.survey = Survey::Unneeded;
            }
            return;
        };
        if let Survey::Asked { upper: since, .. } = &mut self.survey {
            *since = upper.min(*since);
            return;
        }
        let wanted = self.surveyed.as_mut().is_none_or(|last| {
            // Since then it can have grown by what the upper bound grew, and by unsharing, which the upper bound
            // doesn't show: for that it's asked again after a rest.
            last.upper = last.upper.min(upper);
            upper - last.upper > threshold.saturating_sub(last.exact) || Instant::now() >= last.next
        });
        self.survey = if wanted { Survey::Wanted } else { Survey::Unneeded };
    }

    /// Whether a survey is wanted.
    #[must_use]
    pub fn wants_survey(&self) -> bool {
        matches!(self.survey, Survey::Wanted)
    }

    /// The question of the wanted survey, and its descriptors. It counts as asked from now on.
    pub fn ask<'a>(
        &'a mut self,
        number: u64,
        machine: &'a Machine,
    ) -> Option<(Question, [BorrowedFd<'a>; 2])> {
        let bound = self.bounds.memory?;
        let source = self.source.as_ref()?;
        let subjects = self.processes.iter().take(MAX_SUBJECTS);
        let question = Question {
            number,
            bound,
            near: near(bound),
            files: self.files,
            subjects: subjects
                .map(|process| Subject { pid: process.pid, stat: process.stat, memory: process.memory })
                .collect(),
            devices: self.tmpfs.iter().map(|(_, device)| *device).collect(),
            memfd_device: machine.memfd_device,
            memfds: self.memfds.inodes.iter().copied().take(MAX_KNOWN_MEMFDS).collect(),
            namespaced: source.namespace_init().is_some(),
        };
        let upper = self.sums(self.files).upper();
        self.survey = Survey::Asked { number, at: Instant::now(), upper };
        Some((question, [source.proc(&machine.proc).as_fd(), source.pidfd()]))
    }

    /// Nobody answers any more.
    pub fn unanswered(&mut self) {
        self.survey = Survey::Unneeded;
    }

    /// Takes a survey's answer. Answers whether the limit is passed; it's in `breach` then.
    pub fn answered(&mut self, answer: Answer) -> bool {
        let Survey::Asked { number, at, upper } = self.survey else { return false };
        if number != answer.number || self.source.is_none() || self.breach.is_some() {
            return false;
        }
        self.survey = Survey::Unneeded;
        let now = Instant::now();
        let next = now + now.saturating_duration_since(at) * SURVEY_REST;
        self.surveyed = Some(Surveyed { exact: answer.exact, upper, next });
        self.peaks.memory = self.peaks.memory.max(answer.exact);
        self.check(Breached::Memory, self.bounds.memory, answer.exact)
    }

    /// What to say of memory between surveys: the upper bound, corrected by the last survey; never over a limit
    /// that wasn't found passed.
    fn estimate(&self, upper: u64, lower: u64, bound: u64) -> u64 {
        let likely = match self.surveyed {
            Some(last) => last.exact + upper.saturating_sub(last.upper),
            None => upper,
        };
        likely.min(upper).min(bound).max(lower)
    }

    /// Notes a limit that is near; answers whether it's passed.
    fn check(&mut self, limit: Breached, bound: Option<u64>, seen: u64) -> bool {
        let Some(bound) = bound else { return false };
        if seen > bound {
            return self.pass(limit, bound, seen);
        }
        let index = limit.index();
        if seen > near(bound) && bound >= NEAR.1 && !self.warned[index] {
            self.warned[index] = true;
            self.warnings[index] = Some(Mark { limit, bound, seen });
        }
        false
    }

    fn pass(&mut self, limit: Breached, bound: u64, seen: u64) -> bool {
        self.breach = Some(Mark { limit, bound, seen });
        true
    }
}

/// Bytes used on a tmpfs: its blocks, and kernel memory of its inodes.
fn tmpfs_used(fd: &OwnedFd) -> u64 {
    rustix::fs::fstatfs(fd.as_fd()).map_or(0, |statfs| {
        let block = u64::try_from(statfs.f_bsize).unwrap_or(4096);
        statfs.f_blocks.saturating_sub(statfs.f_bfree) * block
            + statfs.f_files.saturating_sub(statfs.f_ffree) * TMPFS_INODE
    })
}
