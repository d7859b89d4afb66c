//! What a run may leave behind: processes, mounts, files.

use std::collections::BTreeSet;
use std::path::Path;

use crate::scratch;

/// A process, told from a later one of the same number by its start.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its parent's.
    pub parent: u32,
    /// State letter of `/proc/PID/stat`.
    pub state: char,
    /// Start, in clock ticks since boot.
    pub start: u64,
    /// Its arguments, joined by spaces; empty for a zombie.
    pub command: String,
}

/// Every process of the machine.
#[must_use]
pub fn processes() -> Vec<Process> {
    let numbers = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    numbers.filter_map(process).collect()
}

/// One process; `None` if it's gone.
#[must_use]
pub fn process(pid: u32) -> Option<Process> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything: what counts starts after the last one.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let start = fields.nth(17)?.parse().ok()?;
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned();
    Some(Process { pid, parent, state, start, command })
}

/// The processes whose arguments hold a word.
#[must_use]
pub fn with_word(word: &str) -> Vec<Process> {
    let me = std::process::id();
    processes().into_iter().filter(|process| process.pid != me && process.command.contains(word)).collect()
}

/// A process and everything beneath it.
#[must_use]
pub fn tree(pid: u32) -> Vec<Process> {
    let all = processes();
    let mut found: Vec<Process> = all.iter().filter(|process| process.pid == pid).cloned().collect();
    let mut at = 0;
    while let Some(above) = found.get(at).map(|process| process.pid) {
        found.extend(all.iter().filter(|process| process.parent == above && process.pid != above).cloned());
        at += 1;
    }
    found
}

/// Those of a list that are still the same processes and alive (a zombie waits for somebody else's parent).
#[must_use]
pub fn alive(processes: &[Process]) -> Vec<Process> {
    let is_same = |old: &&Process| {
        process(old.pid).is_some_and(|now| now.start == old.start && now.state != 'Z' && now.state != 'X')
    };
    processes.iter().filter(is_same).cloned().collect()
}

/// The mounts of our own mount namespace, but for those in places of other test processes, which come and go as they like.
#[must_use]
pub fn mounts() -> BTreeSet<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let is_anothers = |line: &&str| {
        let point = line.split(' ').nth(4).unwrap_or_default();
        point.split('/').any(|name| name.starts_with(scratch::PREFIX) && !name.starts_with(&scratch::ours()))
    };
    table.lines().filter(|line| !is_anothers(line)).map(str::to_owned).collect()
}

/// The names in a directory; empty when there is none.
#[must_use]
pub fn names(directory: &Path) -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return BTreeSet::new() };
    entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect()
}

/// The open descriptors of a process; 0 when it's gone or not ours to see.
#[must_use]
pub fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// The resident memory of a process, in KiB.
#[must_use]
pub fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}
