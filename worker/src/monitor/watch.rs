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
//! 3. `smaps_rollup`, for what lies between: each page divided by its sharers. It costs milliseconds for a large
//!    process, so a sweep is cut into pieces of [`SWEEP_BUDGET`] and not repeated at once. An honest program that
//!    forks, shares its memory and vforks is told apart from one that copies: two processes with one address space
//!    (`vfork`) count once, shared memory that is a mapped file of the run's tmpfs counts once.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use stockade_protocol::ExecId;

use super::Breached;
use super::read::{Memory, Reader, Share, Stat};
use super::source::Source;

/// The longest time one sample reads `smaps_rollup`. Files are read whole: 13 ms for one of 512 MiB.
pub const SWEEP_BUDGET: Duration = Duration::from_millis(4);
/// After a sweep that took so long, so many times as long passes before the next, unless growth alone demands it.
const SWEEP_REST: u32 = 4;
/// Above this part of a limit its run is looked at closely, and warned of: 80 %.
const NEAR: (u64, u64) = (4, 5);
/// After so many samples a process's `status` is read even if `stat` shows no change.
const STALE: u32 = 32;
/// A run that used nothing in so many samples is quiet: it may be sampled less often.
const QUIET: u32 = 16;
/// A process without memory of its own (same address space as its parent: `vfork`) is this young where the kernel
/// can't be asked, in clock ticks.
const VFORK_TICKS: u64 = 10;
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
    /// Used on the run's tmpfs mounts.
    pub tmpfs: u64,
}

impl Sums {
    /// Not less than what the run has: shared pages are counted for each sharer, and mapped tmpfs files twice.
    #[must_use]
    pub fn upper(&self) -> u64 {
        self.anonymous + self.shared + self.tables + self.tmpfs
    }

    /// Not more than what the run has.
    #[must_use]
    pub fn lower(&self) -> u64 {
        self.largest + self.tables + self.tmpfs
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
    share: Share,
}

/// A reading of shares under way.
#[derive(Debug, Clone, Copy)]
struct Sweep {
    /// The pids up to this one are done.
    done: i32,
    took: Duration,
}

/// The last finished one.
#[derive(Debug, Clone, Copy)]
struct Swept {
    exact: u64,
    upper: u64,
    next: Instant,
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
    sweep: Option<Sweep>,
    swept: Option<Swept>,
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
            sweep: None,
            swept: None,
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
        self.sweep = None;
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
            let fresh = Process {
                pid,
                stat,
                memory: Memory::default(),
                measured_at: u64::MAX,
                age: 0,
                share: Share::default(),
            };
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

    fn sample_memory(&mut self, reader: &mut Reader, machine: &Machine) -> bool {
        let tmpfs = self.tmpfs.iter().map(|(fd, _)| tmpfs_used(fd)).sum();
        let bound = self.bounds.memory.unwrap_or(u64::MAX);
        let at_most: u64 = self
            .processes
            .iter()
            // A page table of 4096 bytes maps 2 MiB: at most a 512th of the address space, and one more each level.
            .map(|process| process.stat.resident_pages * machine.page + process.stat.virtual_bytes / 512)
            .sum();
        let all = machine.hidden_memory || at_most.saturating_add(tmpfs) >= near(bound);
        self.measure(reader, machine, all);
        let sums = self.sums(tmpfs);
        let (upper, lower) = (sums.upper(), sums.lower());
        if upper >= near(bound) {
            self.quiet = 0;
        }
        if self.check(Breached::Memory, self.bounds.memory, lower) {
            self.peaks.memory = self.peaks.memory.max(lower);
            return true;
        }
        let exact = if self.wants_sweep(upper, lower, bound) {
            self.go_on_sweeping(reader, machine, &sums)
        } else {
            None
        };
        let seen = exact.unwrap_or_else(|| self.estimate(upper, lower, bound));
        self.peaks.memory = self.peaks.memory.max(seen);
        exact.is_some_and(|exact| self.check(Breached::Memory, self.bounds.memory, exact))
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

    fn sums(&self, tmpfs: u64) -> Sums {
        let mut sums = Sums { tmpfs, ..Sums::default() };
        for Process { memory, .. } in &self.processes {
            sums.anonymous += memory.anonymous;
            sums.largest = sums.largest.max(memory.anonymous);
            sums.shared += memory.shared;
            sums.tables += memory.tables;
        }
        sums
    }

    /// Whether the shares must be read: the sums can't decide, and it isn't too soon.
    fn wants_sweep(&mut self, upper: u64, lower: u64, bound: u64) -> bool {
        let index = Breached::Memory.index();
        let undecided = |threshold: u64| upper > threshold && lower <= threshold;
        let threshold = if undecided(bound) {
            bound
        } else if !self.warned[index] && undecided(near(bound)) {
            near(bound)
        } else {
            self.sweep = None;
            return false;
        };
        match &mut self.swept {
            Some(swept) if self.sweep.is_none() => {
                // Since then it can have grown by what the upper bound grew, and by unsharing, which the upper bound
                // doesn't show: for that it's read again after a rest.
                swept.upper = swept.upper.min(upper);
                upper - swept.upper > threshold.saturating_sub(swept.exact) || Instant::now() >= swept.next
            }
            _ => true,
        }
    }

    /// Reads shares until the budget is spent. `Some`: all were read; the memory in use.
    fn go_on_sweeping(&mut self, reader: &mut Reader, machine: &Machine, sums: &Sums) -> Option<u64> {
        let proc = self.source.as_ref()?.proc(&machine.proc);
        let started = Instant::now();
        let mut sweep = self.sweep.take().unwrap_or(Sweep { done: 0, took: Duration::ZERO });
        let done = sweep.done;
        for process in self.processes.iter_mut().filter(|process| process.pid > done) {
            if started.elapsed() >= SWEEP_BUDGET {
                sweep.took += started.elapsed();
                self.sweep = Some(sweep);
                return None;
            }
            process.share = reader
                .share(proc, process.pid)
                .unwrap_or(Share { anonymous: process.memory.anonymous, shared: process.memory.shared });
            sweep.done = process.pid;
        }
        let exact = self.exact(reader, machine, sums);
        let took = sweep.took + started.elapsed();
        self.swept = Some(Swept { exact, upper: sums.upper(), next: Instant::now() + took * SWEEP_REST });
        Some(exact)
    }

    /// The memory in use, once every share is known.
    fn exact(&self, reader: &mut Reader, machine: &Machine, sums: &Sums) -> u64 {
        let mut anonymous: u64 = self.processes.iter().map(|process| process.share.anonymous).sum();
        let mut shared: u64 = self.processes.iter().map(|process| process.share.shared).sum();
        let mut tables = sums.tables;
        let bound = self.bounds.memory.unwrap_or(u64::MAX);
        if anonymous + shared.max(sums.tmpfs) + tables > near(bound) {
            for twin in self.processes.iter().filter(|process| self.is_vforked(process, reader, machine)) {
                anonymous -= twin.share.anonymous;
                shared -= twin.share.shared;
                tables -= twin.memory.tables;
            }
        }
        let most = anonymous + shared + sums.tmpfs + tables;
        if most <= near(bound) || shared == 0 || sums.tmpfs == 0 {
            return most;
        }
        let Some(proc) = self.source.as_ref().map(|source| source.proc(&machine.proc)) else { return most };
        let devices: Vec<u64> = self.tmpfs.iter().map(|(_, device)| *device).collect();
        let mapped: u64 = self
            .processes
            .iter()
            .filter(|process| process.share.shared > 0)
            .map(|process| reader.share_on_devices(proc, process.pid, &devices))
            .sum();
        most - mapped.min(shared).min(sums.tmpfs)
    }

    /// Whether a process has its parent's address space: it was vforked and hasn't executed anything yet. Looks
    /// like a fork that copied everything; only the kernel can tell.
    fn is_vforked(&self, child: &Process, reader: &mut Reader, machine: &Machine) -> bool {
        let alike = |one: u64, other: u64| one.abs_diff(other) <= one / 16;
        let Some(parent) = self.processes.iter().find(|process| process.pid == child.stat.parent) else {
            return false;
        };
        if !alike(parent.stat.virtual_bytes, child.stat.virtual_bytes)
            || !alike(parent.stat.resident_pages, child.stat.resident_pages)
        {
            return false;
        }
        let Some(source) = &self.source else { return false };
        source.share_address_space(reader, machine, parent.pid, child.pid).unwrap_or_else(|| {
            let uptime = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
            let now = u64::try_from(uptime.tv_sec).unwrap_or(0) * machine.ticks
                + u64::try_from(uptime.tv_nsec).unwrap_or(0) * machine.ticks / 1_000_000_000;
            now.saturating_sub(child.stat.started) < VFORK_TICKS
        })
    }

    /// What to say of memory without fresh shares: the upper bound, corrected by the last shares; never over a limit
    /// that wasn't found passed.
    fn estimate(&self, upper: u64, lower: u64, bound: u64) -> u64 {
        let likely = match self.swept {
            Some(swept) => swept.exact + upper.saturating_sub(swept.upper),
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
