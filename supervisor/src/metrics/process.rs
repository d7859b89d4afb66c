//! What the kernel says of the supervisor's own process.

use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use stockade_protocol::client::ProcessReport;

/// Of the process, now. What can't be read is left out.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Process {
    /// Memory in use, in bytes.
    pub(crate) resident: Option<u64>,
    /// Address space, in bytes.
    pub(crate) address_space: Option<u64>,
    /// Processor time.
    pub(crate) cpu: Option<Duration>,
    /// Descriptors open, and how many may be.
    pub(crate) descriptors: Option<u64>,
    pub(crate) descriptor_limit: Option<u64>,
}

/// Fields of /proc/self/stat behind the name, which is in parentheses: in clock ticks, bytes, pages.
const USER_TIME: usize = 11;
const SYSTEM_TIME: usize = 12;
const ADDRESS_SPACE: usize = 20;
const RESIDENT_PAGES: usize = 21;

impl Process {
    /// Looks.
    pub(crate) fn look() -> Self {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let fields: Vec<u64> = stat
            .rsplit_once(')')
            .map(|(_, rest)| rest.split_ascii_whitespace().map(|field| field.parse().unwrap_or(0)).collect())
            .unwrap_or_default();
        let field = |at: usize| fields.get(at).copied();
        let hertz = rustix::param::clock_ticks_per_second().max(1);
        let time =
            |at: usize| field(at).map(|ticks| Duration::from_millis(ticks.saturating_mul(1000) / hertz));
        Self {
            resident: field(RESIDENT_PAGES)
                .map(|pages| pages.saturating_mul(rustix::param::page_size() as u64)),
            address_space: field(ADDRESS_SPACE),
            cpu: time(USER_TIME).zip(time(SYSTEM_TIME)).map(|(user, system)| user + system),
            descriptors: open_descriptors(),
            descriptor_limit: getrlimit(Resource::Nofile).current,
        }
    }
}

impl From<Process> for ProcessReport {
    fn from(process: Process) -> Self {
        Self {
            memory: process.resident.unwrap_or(0),
            cpu_ms: process.cpu.map_or(0, |cpu| u64::try_from(cpu.as_millis()).unwrap_or(u64::MAX)),
            descriptors: process.descriptors.unwrap_or(0),
            descriptor_bound: process.descriptor_limit.unwrap_or(0),
        }
    }
}

/// How many descriptors are open. Since Linux 6.2 the folder's size says; before, its entries are counted.
fn open_descriptors() -> Option<u64> {
    let size = std::fs::metadata("/proc/self/fd").ok()?.len();
    if size > 0 {
        return Some(size);
    }
    // One of them is the folder's own.
    let count = std::fs::read_dir("/proc/self/fd").ok()?.count();
    u64::try_from(count).ok().map(|count| count.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_is_seen_as_it_is() {
        let process = Process::look();
        assert!(process.resident.unwrap() > 100_000, "{process:?}");
        assert!(process.address_space >= process.resident);
        assert!(
            process.descriptors.unwrap() >= 3 && process.descriptors <= process.descriptor_limit,
            "{process:?}"
        );
        assert!(process.cpu.is_some());
        let before = process.descriptors.unwrap();
        let files: Vec<_> = (0..32).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        assert!(Process::look().descriptors.unwrap() >= before + 16, "32 more were opened");
        drop(files);
    }
}
