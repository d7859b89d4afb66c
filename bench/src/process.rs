//! What `/proc` says of a daemon's processes: who they are, and the memory each has to itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::error::BenchError;
use crate::spawn;

/// When the kernel's memory hasn't fallen by more than that for so long, it has settled; and how long we wait for it.
const NOTHING: u64 = 64;
const STEADY: Duration = Duration::from_millis(600);
const SETTLING: Duration = Duration::from_secs(4);
const LOOK: Duration = Duration::from_millis(50);

/// One process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its id.
    pub(crate) pid: u32,
    /// The name it gave itself, or its program's.
    pub(crate) name: String,
}

/// A process and all its descendants, itself first.
pub(crate) fn tree(root: u32) -> Result<Vec<Process>, BenchError> {
    let mut children: BTreeMap<u32, Vec<Process>> = BTreeMap::new();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").map_err(BenchError::io("read /proc"))? {
        let name = entry.map_err(BenchError::io("read /proc"))?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // Gone meanwhile.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let Some((name, parent)) = name_and_parent(&stat) else { continue };
        let process = Process { pid, name };
        if pid == root {
            found.push(process);
        } else {
            children.entry(parent).or_default().push(process);
        }
    }
    let mut next = 0;
    while let Some(pid) = found.get(next).map(|process: &Process| process.pid) {
        found.extend(children.remove(&pid).unwrap_or_default());
        next += 1;
    }
    Ok(found)
}

/// Kills a process of a tree that was just read. One that is gone by now is no error.
pub(crate) fn kill(process: &Process) -> Result<(), BenchError> {
    let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
    match pid.map(|pid| kill_process(pid, Signal::KILL)) {
        None | Some(Ok(()) | Err(Errno::SRCH)) => Ok(()),
        Some(Err(errno)) => Err(BenchError::errno(format!("kill {} ({})", process.name, process.pid))(errno)),
    }
}

/// Of `/proc/PID/stat`; the name stands in parentheses and may hold anything.
fn name_and_parent(stat: &str) -> Option<(String, u32)> {
    let open = stat.find('(')?;
    let close = stat.rfind(')')?;
    let name = stat.get(open + 1..close)?.to_owned();
    let parent = stat.get(close + 1..)?.split_whitespace().nth(1)?.parse().ok()?;
    Some((name, parent))
}

/// Memory of a process, shared pages by their share (PSS), in KiB.
pub(crate) fn pss(pid: u32) -> Result<u64, BenchError> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).map_err(BenchError::io(format!("read {path}")))?;
    kib(&text, "Pss:").ok_or_else(|| BenchError::Wrong(format!("{path} has no `Pss:`")))
}

/// Memory of the kernel that grows with processes and namespaces: slab that can't be dropped, stacks, page tables and
/// per-CPU memory; of the whole machine, in KiB.
pub(crate) fn kernel_memory() -> Result<u64, BenchError> {
    let text = std::fs::read_to_string("/proc/meminfo").map_err(BenchError::io("read /proc/meminfo"))?;
    let parts = ["SUnreclaim:", "KernelStack:", "PageTables:", "Percpu:"];
    Ok(parts.iter().filter_map(|part| kib(&text, part)).sum())
}

/// The same once it falls no more: what ended namespaces held is given back long after their last process.
pub(crate) fn settled_kernel_memory() -> Result<u64, BenchError> {
    let began = Instant::now();
    let mut least = kernel_memory()?;
    let mut since = Instant::now();
    while since.elapsed() < STEADY && began.elapsed() < SETTLING {
        spawn::moment(LOOK);
        let now = kernel_memory()?;
        if now + NOTHING < least {
            (least, since) = (now, Instant::now());
        }
    }
    Ok(least)
}

fn kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_and_parent_stand_where_the_kernel_puts_them_whatever_the_name() {
        assert_eq!(name_and_parent("12 (sleep) S 7 12 12 0"), Some(("sleep".into(), 7)));
        assert_eq!(name_and_parent("12 (a) b (c)) R 9 1 1"), Some(("a) b (c)".into(), 9)));
        assert_eq!(name_and_parent("12 sleep S 7"), None);
    }

    #[test]
    fn a_size_is_found_by_its_whole_key() {
        let text = "Rss:   900 kB\nPss:                 123 kB\nPss_Anon:    7 kB\n";
        assert_eq!(kib(text, "Pss:"), Some(123));
        assert_eq!(kib(text, "Swap:"), None);
    }

    #[test]
    fn a_tree_starts_with_its_root_and_has_memory() {
        let me = std::process::id();
        let tree = tree(me).unwrap();
        assert_eq!(tree[0].pid, me);
        assert!(pss(me).unwrap() > 0);
    }
}
