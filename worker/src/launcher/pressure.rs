//! Whether the machine has memory to spare for workers that nobody has asked for.
//!
//! A spare is a few hundred KiB of what a machine short of memory has better uses for. So none is made, and those that wait
//! are dropped, while less than [`RESERVE`] of its memory is available by the kernel's own estimate (proc_meminfo(5)).

use std::fs::File;
use std::io::Read as _;
use std::time::{Duration, Instant};

/// This part of the machine's memory must be available: a twentieth.
const RESERVE: u64 = 20;
/// How long an answer holds: it's asked for with every spare.
const HOLDS: Duration = Duration::from_millis(500);
/// Where it's read. What is wanted stands in its first lines.
const MEMINFO: &str = "/proc/meminfo";
const HEAD: usize = 256;

/// What was found out last.
#[derive(Debug, Default)]
pub(crate) struct Pressure {
    looked: Option<Instant>,
    is_short: bool,
}

impl Pressure {
    /// Whether memory is short. Where nobody can tell, it isn't.
    pub(crate) fn is_short(&mut self, now: Instant) -> bool {
        if self.looked.is_none_or(|at| now.saturating_duration_since(at) >= HOLDS) {
            self.looked = Some(now);
            self.is_short = head().is_some_and(|text| is_short(&text));
        }
        self.is_short
    }

    /// When it's looked at again, while there is something to drop.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.looked.map(|at| at + HOLDS)
    }
}

fn head() -> Option<String> {
    let mut head = [0; HEAD];
    let length = File::open(MEMINFO).ok()?.read(&mut head).ok()?;
    String::from_utf8(head.get(..length)?.to_vec()).ok()
}

fn is_short(meminfo: &str) -> bool {
    let kilobytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    let (total, available) = (kilobytes("MemTotal"), kilobytes("MemAvailable"));
    total.zip(available).is_some_and(|(total, available)| available < total / RESERVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_than_a_twentieth_is_short_and_nothing_to_go_by_is_not() {
        let text =
            |available: u64| format!("MemTotal: 2000 kB\nMemFree: 1 kB\nMemAvailable: {available} kB\n");
        assert!(is_short(&text(99)));
        assert!(!is_short(&text(100)));
        assert!(!is_short("MemTotal: 2000 kB\n") && !is_short(""));
    }

    #[test]
    fn what_this_machine_says_can_be_read() {
        let text = head().unwrap();
        assert!(text.contains("MemTotal:") && text.contains("MemAvailable:"), "{text}");
    }
}
