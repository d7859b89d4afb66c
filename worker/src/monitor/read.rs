//! Reads the kernel's figures about processes from a `/proc`, relative to a directory descriptor, into buffers that
//! are kept: in the steady state nothing is allocated.
//!
//! The texts are the kernel's (Documentation/filesystems/proc.rst). A process may end between two reads: every
//! reader answers `None` then, and the caller counts it no more. A figure that can't be read of a living process is
//! answered by the caller with an upper bound, never with zero.

use core::mem::MaybeUninit;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, SeekFrom};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Bytes for the entries of one getdents(2).
const ENTRIES: usize = 32 * 1024;
/// Bytes of a file that are looked at: `stat` and `smaps_rollup` have under 2 KiB, `status` more only with many
/// groups, `children` a few bytes a child.
const TEXT: usize = 64 * 1024;
/// The most bytes of `smaps` read for one process: some 10,000 mappings.
const MAX_SMAPS: usize = 8 * 1024 * 1024;

/// How the link of a descriptor to a memfd begins.
const MEMFD: &[u8] = b"/memfd:";

/// What `stat` says of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// The process it was forked by, or that adopted it.
    pub parent: i32,
    /// Threads; 0 for one that has ended and isn't reaped.
    pub threads: u64,
    /// Processor time of its own and of the children it has reaped, in clock ticks.
    pub cpu_ticks: u64,
    /// When it was started, in clock ticks since boot: with the pid, its identity.
    pub started: u64,
    /// Size of its address space, in bytes.
    pub virtual_bytes: u64,
    /// Resident pages, of whatever kind.
    pub resident_pages: u64,
}

/// What `status` says of a process's memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// `RssAnon`, `VmSwap` and `HugetlbPages`.
    pub anonymous: u64,
    /// `RssShmem`.
    pub shared: u64,
    /// `VmPTE`: page tables.
    pub tables: u64,
}

/// What `smaps_rollup` says: each page divided by how many map it, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// `Pss_Anon`, `SwapPss` and private huge pages.
    pub anonymous: u64,
    /// `Pss_Shmem`.
    pub shared: u64,
}

/// The buffers.
#[derive(Debug)]
pub struct Reader {
    entries: Vec<MaybeUninit<u8>>,
    text: Vec<u8>,
}

impl Default for Reader {
    fn default() -> Self {
        Self { entries: vec![MaybeUninit::uninit(); ENTRIES], text: vec![0; TEXT] }
    }
}

/// A file of a process: `name` below `pid`, without allocating.
fn open(proc: &OwnedFd, pid: i32, name: &str) -> Result<OwnedFd, Errno> {
    open_with(proc, pid, name, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW)
}

fn open_with(proc: &OwnedFd, pid: i32, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut path = [0_u8; 64];
    let mut rest = path.as_mut_slice();
    write!(rest, "{pid}/{name}").map_err(|_| Errno::NAMETOOLONG)?;
    let unused = rest.len();
    let length = path.len() - unused;
    let path = core::str::from_utf8(&path[..length]).map_err(|_| Errno::INVAL)?;
    rustix::fs::openat(proc, path, flags, Mode::empty())
}

fn read_whole(file: impl AsFd, into: &mut [u8]) -> Result<usize, Errno> {
    let mut length = 0;
    while length < into.len() {
        match rustix::io::read(&file, &mut into[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(length)
}

impl Reader {
    fn file(&mut self, proc: &OwnedFd, pid: i32, name: &str) -> Result<&[u8], Errno> {
        let file = open(proc, pid, name)?;
        let length = read_whole(file, &mut self.text)?;
        Ok(&self.text[..length])
    }

    /// The process's `stat`; `None`: it's gone.
    pub fn stat(&mut self, proc: &OwnedFd, pid: i32) -> Option<Stat> {
        parse_stat(self.file(proc, pid, "stat").ok()?)
    }

    /// The process's memory; `None`: gone, or unreadable.
    pub fn memory(&mut self, proc: &OwnedFd, pid: i32) -> Option<Memory> {
        self.file(proc, pid, "status").ok().and_then(parse_status)
    }

    /// The process's share; `None`: gone, or unreadable.
    pub fn share(&mut self, proc: &OwnedFd, pid: i32) -> Option<Share> {
        self.file(proc, pid, "smaps_rollup").ok().and_then(parse_rollup)
    }

    /// The process ids a process has in each pid namespace, the outermost first.
    pub fn namespaced_pid(&mut self, proc: &OwnedFd, pid: i32) -> Option<i32> {
        let text = self.file(proc, pid, "status").ok()?;
        let line = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"NSpid:"))?;
        numbers(line).last().and_then(|pid| i32::try_from(pid).ok())
    }

    /// The process's share of mapped files that `counts` knows by device and inode, in bytes. What stands behind the
    /// first 8 MiB of text isn't found.
    pub fn share_of_files(&mut self, proc: &OwnedFd, pid: i32, counts: impl Fn(u64, u64) -> bool) -> u64 {
        let Ok(file) = open(proc, pid, "smaps") else { return 0 };
        let mut found = 0;
        let mut ours = false;
        let mut kept = 0;
        let mut total = 0;
        while total < MAX_SMAPS {
            let Ok(read) = rustix::io::read(&file, &mut self.text[kept..]) else { break };
            if read == 0 {
                break;
            }
            total += read;
            let end = kept + read;
            let mut start = 0;
            while let Some(length) = self.text[start..end].iter().position(|byte| *byte == b'\n') {
                let line = &self.text[start..start + length];
                match mapped_file(line) {
                    Some((device, inode)) => ours = counts(device, inode),
                    None if ours => found += kibibytes(line, b"Pss:").unwrap_or(0),
                    None => {}
                }
                start += length + 1;
            }
            // A line longer than the whole buffer can't be: paths end at 4096 bytes, escaped at four times that.
            self.text.copy_within(start..end, 0);
            kept = end - start;
        }
        found
    }

    /// Appends the memfds a process has open, as inode and bytes, whoever else has them too. `device` is where all
    /// memfds are. At most `most` descriptors are looked at.
    ///
    /// Only a link's text tells which descriptors are looked at closer, and nothing is asked of a filesystem but of
    /// the kernel's own: a descriptor into a dead network or FUSE mount would block for ever.
    pub fn memfds(
        &mut self,
        proc: &OwnedFd,
        pid: i32,
        device: u64,
        most: usize,
        found: &mut Vec<(u64, u64)>,
    ) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(directory) = open_with(proc, pid, "fd", flags) else { return };
        let mut entries = RawDir::new(&directory, &mut self.entries);
        let mut looked = 0;
        while let Some(Ok(entry)) = entries.next() {
            let mut target = [MaybeUninit::<u8>::uninit(); MEMFD.len()];
            let link = rustix::fs::readlinkat_raw(&directory, entry.file_name(), &mut target);
            looked += 1;
            if link.is_ok_and(|(text, _)| text == MEMFD)
                && let Ok(file) = rustix::fs::statat(&directory, entry.file_name(), AtFlags::empty())
                && file.st_dev == device
            {
                found.push((file.st_ino, u64::try_from(file.st_blocks).unwrap_or(0) * 512));
            }
            if looked >= most {
                return;
            }
        }
    }

    /// Lists the numeric entries of a directory from a position on, at most `most`, and answers the position of the
    /// first one (to begin with next time: what stands before is no process and never changes).
    ///
    /// # Errors
    /// Those of lseek(2) and getdents64(2); `ENOENT` once a pid namespace is dead.
    pub fn list(
        &mut self,
        directory: &OwnedFd,
        from: u64,
        most: usize,
        pids: &mut Vec<i32>,
    ) -> Result<u64, Errno> {
        rustix::fs::seek(directory, SeekFrom::Start(from))?;
        let mut first = from;
        let begin = pids.len();
        let mut entries = RawDir::new(directory, &mut self.entries);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            match core::str::from_utf8(entry.file_name().to_bytes()).ok().and_then(|name| name.parse().ok()) {
                Some(pid) => pids.push(pid),
                None if pids.len() == begin => first = entry.next_entry_cookie(),
                None => {}
            }
            if pids.len() - begin >= most {
                break;
            }
        }
        Ok(first)
    }

    /// Appends the children of every thread of a process.
    ///
    /// # Errors
    /// `ENOENT`: the process is gone, or the kernel has no `children` (`CONFIG_PROC_CHILDREN`).
    pub fn children(
        &mut self,
        proc: &OwnedFd,
        pid: i32,
        threads: &mut Vec<i32>,
        pids: &mut Vec<i32>,
    ) -> Result<(), Errno> {
        threads.clear();
        let tasks = open_directory(proc, pid)?;
        self.list(&tasks, 0, usize::MAX, threads)?;
        for &thread in threads.iter() {
            if let Ok(text) = self.file(&tasks, thread, "children") {
                pids.extend(numbers(text).filter_map(|pid| i32::try_from(pid).ok()));
            }
        }
        Ok(())
    }
}

fn open_directory(proc: &OwnedFd, pid: i32) -> Result<OwnedFd, Errno> {
    open(proc, pid, "task")
}

fn numbers(text: &[u8]) -> impl Iterator<Item = u64> {
    text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).filter_map(number)
}

fn number(word: &[u8]) -> Option<u64> {
    core::str::from_utf8(word).ok()?.parse().ok()
}

/// The value of a line `Name:   123 kB`, in bytes.
fn kibibytes(line: &[u8], name: &[u8]) -> Option<u64> {
    let rest = line.strip_prefix(name)?.trim_ascii();
    number(rest.strip_suffix(b" kB")?).map(|value| value.saturating_mul(1024))
}

/// Counts in what a line says, if it's the one. Upwards only, whatever the text is: what wraps would be a small figure.
fn add(sum: &mut u64, more: Option<u64>) {
    *sum = sum.saturating_add(more.unwrap_or(0));
}

/// Device and inode of a mapping's head line in `smaps`: `start-end perms offset major:minor inode path`. `None` for
/// the lines of figures between.
fn mapped_file(line: &[u8]) -> Option<(u64, u64)> {
    let mut words = line.split(|byte| *byte == b' ');
    let range = words.next()?;
    if !range.first()?.is_ascii_hexdigit() || range.last() == Some(&b':') {
        return None;
    }
    let device = core::str::from_utf8(words.nth(2)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let device =
        rustix::fs::makedev(u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    Some((device, number(words.next()?)?))
}

pub(crate) fn parse_stat(text: &[u8]) -> Option<Stat> {
    // The command's name stands in parentheses and may hold some itself, spaces too.
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let mut words = text.get(end + 1..)?.trim_ascii().split(|byte| *byte == b' ');
    // Fields are counted from 1 in proc.rst; the third, the state, is the first word here.
    let mut at = 3;
    let mut field = |wanted: usize| {
        let word = words.nth(wanted - at)?;
        at = wanted + 1;
        number(word)
    };
    let parent = field(4)?;
    let mut cpu_ticks = 0;
    for own_and_reaped in 14..=17 {
        cpu_ticks = u64::saturating_add(cpu_ticks, field(own_and_reaped)?);
    }
    Some(Stat {
        parent: i32::try_from(parent).ok()?,
        cpu_ticks,
        threads: field(20)?,
        started: field(22)?,
        virtual_bytes: field(23)?,
        resident_pages: field(24)?,
    })
}

pub(crate) fn parse_status(text: &[u8]) -> Option<Memory> {
    let mut memory = Memory::default();
    let mut whole = false;
    for line in text.split(|byte| *byte == b'\n') {
        for name in [b"RssAnon:".as_slice(), b"VmSwap:", b"HugetlbPages:"] {
            add(&mut memory.anonymous, kibibytes(line, name));
        }
        add(&mut memory.shared, kibibytes(line, b"RssShmem:"));
        add(&mut memory.tables, kibibytes(line, b"VmPTE:"));
        // Stands behind all of these, in processes without memory too: without it the text was cut.
        whole |= line.starts_with(b"Threads:");
    }
    whole.then_some(memory)
}

pub(crate) fn parse_rollup(text: &[u8]) -> Option<Share> {
    let mut share = Share::default();
    let mut found = false;
    for line in text.split(|byte| *byte == b'\n') {
        found |= line.starts_with(b"Pss_Anon:");
        for name in [b"Pss_Anon:".as_slice(), b"SwapPss:", b"Private_Hugetlb:"] {
            add(&mut share.anonymous, kibibytes(line, name));
        }
        add(&mut share.shared, kibibytes(line, b"Pss_Shmem:"));
    }
    found.then_some(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_of_a_command_named_to_deceive_is_read_right() {
        let text =
            b"42 (a) R 9 9 9) S 7 42 42 0 -1 4194304 100 200 0 0 11 12 13 14 20 0 3 0 777 8192000 321 184467";
        let expected = Stat {
            parent: 7,
            threads: 3,
            cpu_ticks: 11 + 12 + 13 + 14,
            started: 777,
            virtual_bytes: 8_192_000,
            resident_pages: 321,
        };
        assert_eq!(parse_stat(text), Some(expected));
        assert_eq!(parse_stat(b"42 (a) S 7 42"), None);
        assert_eq!(parse_stat(b""), None);
    }

    #[test]
    fn status_adds_what_is_not_shared_and_refuses_a_cut_text() {
        let text = b"Name:\tx\nVmPTE:\t      44 kB\nVmSwap:\t  8 kB\nRssAnon:\t 100 kB\nRssShmem:\t 20 kB\n\
            HugetlbPages:\t 2048 kB\nThreads:\t1\n";
        let expected = Memory { anonymous: (100 + 8 + 2048) * 1024, shared: 20 * 1024, tables: 44 * 1024 };
        assert_eq!(parse_status(text), Some(expected));
        assert_eq!(parse_status(b"Name:\tx\nRssAnon:\t 100 kB\n"), None);
        assert_eq!(parse_status(b"Name:\tx\nThreads:\t1\n"), Some(Memory::default()), "a zombie has none");
    }

    #[test]
    fn rollup_and_mappings_are_read() {
        let text =
            b"00400000-7ffe ---p 00000000 00:00 0  [rollup]\nRss: 9 kB\nPss_Anon: 5 kB\nPss_Shmem: 7 kB\n\
            SwapPss: 1 kB\nPrivate_Hugetlb: 2 kB\n";
        assert_eq!(parse_rollup(text), Some(Share { anonymous: 8 * 1024, shared: 7 * 1024 }));
        assert_eq!(parse_rollup(b"Rss: 9 kB\n"), None);
        let line = b"7f2a6c000000-7f2a70000000 rw-s 00000000 00:1c 1026    /dev/shm/Pss: 3 kB";
        assert_eq!(mapped_file(line), Some((rustix::fs::makedev(0, 0x1c), 1026)));
        assert_eq!(mapped_file(b"Pss:                  12 kB"), None);
        assert_eq!(mapped_file(b"VmFlags: rd wr sh mr mw me ms sd"), None);
        assert_eq!(mapped_file(b"FilePmdMapped:         0 kB"), None);
    }

    #[test]
    fn this_process_is_found_and_measured() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = rustix::fs::open("/proc", flags, Mode::empty()).unwrap();
        let me = i32::try_from(std::process::id()).unwrap();
        let mut reader = Reader::default();
        let mut pids = Vec::new();
        let first = reader.list(&proc, 0, usize::MAX, &mut pids).unwrap();
        assert!(first > 0 && pids.contains(&me));
        pids.clear();
        reader.list(&proc, first, usize::MAX, &mut pids).unwrap();
        assert!(pids.contains(&me), "listing from the first process finds all");
        assert!(reader.stat(&proc, me).unwrap().resident_pages > 0);
        assert!(reader.memory(&proc, me).unwrap().anonymous > 0);
        assert!(reader.share(&proc, me).unwrap().anonymous > 0);
        assert_eq!(reader.stat(&proc, i32::MAX), None);
    }
}
