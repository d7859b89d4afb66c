//! Which mounts are of filesystems that the kernel serves by itself, from memory or a disk.
//!
//! Any other may be a client's own server or a machine far away, and never answer: a descriptor on it is neither
//! read nor closed where that could keep others waiting, and never handed to the launcher. Nothing here asks the
//! filesystem itself (statfs(2) would); a mount is known by its number, and its kind by a `mountinfo`: ours, or the
//! launcher's where that has been started elsewhere and we may be in a namespace of our own. A mount of any other mount
//! namespace isn't in there, and so isn't trusted.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, MemfdFlags, Statx, StatxFlags};

/// Filesystems whose answers wait for no other process. Only root mounts them in our namespace.
const LOCAL: [&str; 18] = [
    "bcachefs", "btrfs", "devpts", "devtmpfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "iso9660",
    "overlay", "ramfs", "squashfs", "tmpfs", "vfat", "xfs", "zfs",
];

/// Fields of a line before the optional ones; see proc_pid_mountinfo(5).
const FIXED_FIELDS: usize = 6;

/// What is known of the mounts of our namespace.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    /// By whose eyes we look; `None`: ours.
    seen_by: Option<i32>,
    /// `mountinfo`, which poll(2) tells changes of. `None`: not opened yet.
    table: Option<File>,
    local: Local,
    /// Those that no table lists: of pipes, and of memory without a name.
    unlisted: HashSet<u64>,
}

/// What is local: the numbers of mounts, and the devices of filesystems.
#[derive(Debug, Default, PartialEq, Eq)]
struct Local {
    mounts: HashSet<u64>,
    devices: HashSet<(u32, u32)>,
}

impl Mounts {
    /// From now on the mounts are those that this process sees.
    pub(crate) fn be_seen_by(&mut self, pid: i32) {
        *self = Self { seen_by: Some(pid), ..Self::default() };
    }

    /// Whether what a descriptor leads to is on a filesystem that the kernel serves by itself. When in doubt: no.
    pub(crate) fn is_local(&mut self, descriptor: impl AsFd) -> bool {
        let Ok(status) = status(descriptor) else { return false };
        let mount = mount_of(&status);
        if mount.is_some_and(|mount| self.unlisted.contains(&mount)) {
            return true;
        }
        if let Err(error) = self.refresh() {
            tracing::error!(%error, "the table of mounts can't be read: no file is passed through");
            *self = Self { seen_by: self.seen_by, ..Self::default() };
        }
        let device = (status.stx_dev_major, status.stx_dev_minor);
        mount.is_some_and(|mount| self.local.mounts.contains(&mount) || self.unlisted.contains(&mount))
            || self.local.devices.contains(&device)
    }

    /// Reads the table again if it has changed. A descriptor holds its mount and filesystem, so the numbers of one
    /// that is open can't have passed to another since.
    fn refresh(&mut self) -> io::Result<()> {
        if let Some(table) = &self.table {
            let mut set = [PollFd::new(table, PollFlags::PRI)];
            if poll(&mut set, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? == 0 {
                return Ok(());
            }
        }
        let mut table = match self.table.take() {
            Some(table) => table,
            None => {
                self.unlisted = unlisted()?;
                match self.seen_by {
                    None => File::open("/proc/self/mountinfo")?,
                    Some(pid) => File::open(format!("/proc/{pid}/mountinfo"))?,
                }
            }
        };
        let mut text = Vec::new();
        table.rewind()?;
        table.read_to_end(&mut text)?;
        self.local = local(&String::from_utf8_lossy(&text));
        self.table = Some(table);
        Ok(())
    }
}

/// What the kernel itself knows of a descriptor: nobody is asked.
fn status(descriptor: impl AsFd) -> io::Result<Statx> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    Ok(rustix::fs::statx(descriptor, "", flags, StatxFlags::MNT_ID)?)
}

/// The number of a mount; `None`: this kernel (before 5.8) doesn't tell.
fn mount_of(status: &Statx) -> Option<u64> {
    (status.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(status.stx_mnt_id)
}

fn unlisted() -> io::Result<HashSet<u64>> {
    let (pipe, _writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let memory = rustix::fs::memfd_create("mount", MemfdFlags::CLOEXEC)?;
    Ok([status(pipe)?, status(memory)?].iter().filter_map(mount_of).collect())
}

/// What is local by the text of a `mountinfo`.
fn local(text: &str) -> Local {
    let mut local = Local::default();
    let mut distant = HashSet::new();
    for (mount, device, kind) in text.lines().filter_map(line) {
        if LOCAL.contains(&kind) {
            local.mounts.insert(mount);
            local.devices.insert(device);
        } else {
            distant.insert(device);
        }
    }
    local.devices.retain(|device| !distant.contains(device));
    local
}

/// A line's mount, device and kind of filesystem.
fn line(line: &str) -> Option<(u64, (u32, u32), &str)> {
    let mut fields = line.split(' ');
    let mount = fields.next()?.parse().ok()?;
    let (major, minor) = fields.nth(1)?.split_once(':')?;
    let kind = fields.skip(FIXED_FIELDS - 3).skip_while(|field| *field != "-").nth(1)?;
    Some((mount, (major.parse().ok()?, minor.parse().ok()?), kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
21 1 8:1 / / rw,relatime shared:1 master:2 - ext4 /dev/sda1 rw
22 21 0:20 / /dev/shm rw - tmpfs tmpfs rw
23 21 0:21 / /home/u/ext4 rw,nosuid - fuse.sshfs ext4 rw,user_id=0
24 21 0:22 / /mnt/a\\040-\\040ext4 rw shared:3 - nfs4 far:/ rw
25 21 0:23 / /mnt/b rw - fuse - ext4
26 21 0:24 / /mnt/c rw
nonsense

";

    #[test]
    fn only_filesystems_of_the_kernel_itself_are_local() {
        let devices = HashSet::from([(8, 1), (0, 20)]);
        assert_eq!(local(TABLE), Local { mounts: HashSet::from([21, 22]), devices });
    }

    #[test]
    fn files_of_ours_pipes_and_memory_are_local_and_what_is_not_known_is_not() {
        let mut mounts = Mounts::default();
        let memory = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
        assert!(mounts.is_local(&memory));
        assert!(mounts.is_local(tempfile::tempfile().unwrap()));
        assert!(mounts.is_local(rustix::pipe::pipe().unwrap().0));
        assert!(!mounts.is_local(File::open("/proc/self/status").unwrap()));
        let (socket, _other) = stockade_wire::socket::seqpacket_pair().unwrap();
        assert!(!mounts.is_local(socket));
    }

    #[test]
    fn a_mount_that_came_later_is_known() {
        use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
        if !rustix::process::geteuid().is_root() {
            eprintln!("not tested: a mount that came later: that takes root");
            return;
        }
        std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
            // `self` is the thread group's leader, which stays in the old namespace.
            let table = File::open("/proc/thread-self/mountinfo").unwrap();
            let mut mounts = Mounts { table: Some(table), ..Mounts::default() };
            let place = tempfile::tempdir().unwrap();
            mount("later", place.path(), "tmpfs", MountFlags::NOSUID, None).unwrap();
            assert!(mounts.is_local(File::open(place.path()).unwrap()));
            let inner = place.path().join("inner");
            std::fs::create_dir(&inner).unwrap();
            mount("later still", &inner, "tmpfs", MountFlags::NOSUID, None).unwrap();
            assert!(mounts.is_local(File::open(&inner).unwrap()));
            rustix::mount::unmount(place.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
        })
        .join()
        .unwrap();
    }
}
