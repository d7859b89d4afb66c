//! Control groups, version 2: the exact bound of a run's memory and processes, and the surest kill.
//!
//! ```text
//!   delegated group            ours: by systemd's Delegate=, or by its owner; nobody else's process in it
//!   ├── launcher               the leaf that our own processes move to ("no internal processes" rule)
//!   ├── run-<exec id>          one a run: limits are written before anything is born into it
//!   └── run-…
//! ```
//!
//! [`Cgroups::find`] only looks; [`Cgroups::detect`] takes the group over: it moves our processes into the leaf and
//! enables the controllers. Each run's group is a directory descriptor that init is born into (`clone3` with
//! `CLONE_INTO_CGROUP`), so no process of a run ever lives outside its bounds.
//!
//! **Warning without throttling.** A group over `memory.high` is slowed down so much that a hog needs minutes from
//! there to `memory.max`, and an honest program that needs 90 % of its limit crawls. So `memory.high` stands at
//! 80 % only until the kernel tells that it was reached ([`RunCgroup::growth`], [`MemoryEvents::high`]); the listener then warns and lifts
//! it ([`RunCgroup::lift_high`]).
//!
//! It must never touch a group that isn't ours, never move a process that isn't ours, and never leave a run's group
//! behind: a group is removed once it's empty, and dropping one unremoved is for the end of the launcher only.
//!
//! Kernel: Documentation/admin-guide/cgroup-v2.rst; systemd: CGROUP_DELEGATION.

mod run;

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, Mode, OFlags};
use rustix::io::Errno;
use stockade_protocol::ExecId;
use stockade_protocol::spec::Limits;

pub use run::{Counters, Growth, MemoryEvents, RunCgroup};

/// The leaf our own processes live in.
pub const LEAF: &str = "launcher";
/// What a run's group is called, before its id.
pub const RUN_PREFIX: &str = "run-";
/// Processes of ours in a run's group, which no policy counts: its init.
pub const OWN_PROCESSES: u64 = 1;
/// Above this part of its memory a run is warned: 80 %.
pub const HIGH: (u64, u64) = (4, 5);
/// The most processes of ours that are moved to the leaf.
const MAX_OWN: usize = 64;
/// How long a line of ancestors is followed.
const MAX_ANCESTORS: usize = 64;

/// Why control groups failed, though they are there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// A file of the kernel's couldn't be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A group couldn't be made or opened.
    #[error("cannot make the control group {}", path.display())]
    Make {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A setting was refused.
    #[error("cannot set {file} = {value} in {}", path.display())]
    Set {
        /// The group.
        path: PathBuf,
        /// The file.
        file: &'static str,
        /// What was to be written.
        value: String,
        /// Why.
        source: io::Error,
    },
    /// The group couldn't be removed.
    #[error("cannot remove the control group {}", path.display())]
    Remove {
        /// Which.
        path: PathBuf,
        /// Why: `ResourceBusy` while a process is left in it.
        source: io::Error,
    },
}

/// Why there are no control groups for us. The monitor bounds memory then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Absence {
    /// No version 2 hierarchy, or we're outside of what is mounted of it.
    #[error(
        "no control group version 2 is mounted that this process is in; boot with systemd.unified_cgroup_hierarchy=1"
    )]
    NotMounted,
    /// A controller isn't available in our group.
    #[error("{} has no {missing} controller; delegate it (Delegate=cpu io memory pids in the unit)", path.display())]
    NoController {
        /// Our group.
        path: PathBuf,
        /// Which controller.
        missing: &'static str,
    },
    /// The group isn't delegated to us.
    #[error("{} isn't delegated to this process; start it in a unit or scope with Delegate=yes", path.display())]
    NotDelegated {
        /// Our group.
        path: PathBuf,
    },
    /// Somebody else's process lives in the group.
    #[error("process {pid}, which isn't ours, is in {}; start in a unit or scope of its own", path.display())]
    Shared {
        /// Our group.
        path: PathBuf,
        /// Whose.
        pid: i32,
    },
}

/// A group that could be ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its directory.
    pub path: PathBuf,
    /// Processes in it that must move to the leaf.
    pub own: Vec<i32>,
    /// Whether the cpu controller is there, too.
    pub cpu: bool,
    /// Whether the io controller is.
    pub io: bool,
}

/// The group that is ours.
#[derive(Debug)]
pub struct Cgroups {
    path: PathBuf,
    directory: OwnedFd,
}

impl Cgroups {
    /// Looks for a delegated group, and changes nothing.
    ///
    /// # Errors
    /// [`CgroupError::Read`].
    pub fn find() -> Result<Result<Found, Absence>, CgroupError> {
        let mounts = read(Path::new("/proc/self/mountinfo"))?;
        let membership = read(Path::new("/proc/self/cgroup"))?;
        let Some(path) = own_group(&mounts, &membership) else { return Ok(Err(Absence::NotMounted)) };
        // Where systemd puts us into the leaf itself (DelegateSubgroup=), the delegated group is the one above.
        let path = match path.parent() {
            Some(above) if path.ends_with(LEAF) && is_delegated(above) => above.to_owned(),
            _ => path,
        };
        judge(path, &family())
    }

    /// Takes the delegated group over, if there is one. `None`: there is none; [`Self::find`] says why.
    ///
    /// # Errors
    /// [`CgroupError`]: it's ours and doesn't do what it must.
    pub fn detect() -> Result<Option<Self>, CgroupError> {
        match Self::find()? {
            Ok(found) => Self::take(&found).map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Moves our processes to the leaf and enables the controllers.
    ///
    /// # Errors
    /// [`CgroupError::Make`], [`CgroupError::Set`].
    pub fn take(found: &Found) -> Result<Self, CgroupError> {
        let leaf = found.path.join(LEAF);
        match fs::create_dir(&leaf) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                return Err(CgroupError::Make { path: leaf, source });
            }
            _ => {}
        }
        let leaf_directory = open_group(&leaf)?;
        for pid in &found.own {
            match write(&leaf_directory, "cgroup.procs", &pid.to_string()) {
                // One of our own that has just ended needs no place.
                Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {}
                done => set(done, &leaf, "cgroup.procs", &pid.to_string())?,
            }
        }
        let directory = open_group(&found.path)?;
        let controllers = match (found.cpu, found.io) {
            (true, true) => "+memory +pids +cpu +io",
            (true, false) => "+memory +pids +cpu",
            (false, true) => "+memory +pids +io",
            (false, false) => "+memory +pids",
        };
        let done = write(&directory, "cgroup.subtree_control", controllers);
        set(done, &found.path, "cgroup.subtree_control", controllers)?;
        Ok(Self { path: found.path.clone(), directory })
    }

    /// The group's path, for reports.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a run's group with its limits.
    ///
    /// # Errors
    /// [`CgroupError::Make`], [`CgroupError::Set`]; nothing is left behind then.
    pub fn create(&self, exec_id: &ExecId, limits: &Limits) -> Result<RunCgroup, CgroupError> {
        let name = format!("{RUN_PREFIX}{exec_id}");
        let path = self.path.join(&name);
        let parent = self.directory.try_clone().map_err(|source| make(&path, source))?;
        rustix::fs::mkdirat(&self.directory, &name, Mode::from(0o755))
            .map_err(|errno| make(&path, errno.into()))?;
        let directory = open_group(&path)?;
        let group = RunCgroup::new(path, name, parent, directory);
        match group.limit(limits) {
            Ok(()) => Ok(group),
            Err(error) => {
                let _ = group.try_remove();
                Err(error)
            }
        }
    }

    /// Removes the empty groups of runs that nobody knows any more (a launcher that was killed left them). Answers
    /// how many are still occupied.
    ///
    /// Only to be called before the first run, and when no other launcher uses the same group: one of its runs may
    /// just be about to be born.
    ///
    /// # Errors
    /// [`CgroupError::Read`].
    pub fn remove_leftovers(&self) -> Result<usize, CgroupError> {
        let listing = |source| CgroupError::Read { path: self.path.clone(), source };
        let mut occupied = 0;
        for entry in fs::read_dir(&self.path).map_err(listing)? {
            let name = entry.map_err(listing)?.file_name();
            let is_run = name.as_encoded_bytes().starts_with(RUN_PREFIX.as_bytes());
            if is_run && rustix::fs::unlinkat(&self.directory, &name, AtFlags::REMOVEDIR).is_err() {
                occupied += 1;
            }
        }
        Ok(occupied)
    }
}

fn make(path: &Path, source: io::Error) -> CgroupError {
    CgroupError::Make { path: path.to_owned(), source }
}

fn read(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(|source| CgroupError::Read { path: path.to_owned(), source })
}

fn open_group(path: &Path) -> Result<OwnedFd, CgroupError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| make(path, errno.into()))
}

fn write(directory: &OwnedFd, file: &str, value: &str) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, file, flags, Mode::empty())?;
    let written = rustix::io::write(file.as_fd(), value.as_bytes())?;
    // The kernel takes a setting whole or not at all.
    if written == value.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

fn set(done: io::Result<()>, path: &Path, file: &'static str, value: &str) -> Result<(), CgroupError> {
    done.map_err(|source| CgroupError::Set { path: path.to_owned(), file, value: value.to_owned(), source })
}

/// Our group's directory: what `/proc/self/cgroup` says, seen through the mounts of `/proc/self/mountinfo`.
fn own_group(mountinfo: &str, membership: &str) -> Option<PathBuf> {
    let group = membership.lines().find_map(|line| line.strip_prefix("0::"))?;
    let group = Path::new(group.strip_suffix(" (deleted)").unwrap_or(group));
    // Outside of our cgroup namespace it begins with `/..`.
    if group.components().any(|part| part == std::path::Component::ParentDir) {
        return None;
    }
    mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        if after.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let mut fields = before.split(' ').skip(3);
        let (root, target) = (unescape(fields.next()?), unescape(fields.next()?));
        Some(Path::new(&target).join(group.strip_prefix(root).ok()?))
    })
}

/// mountinfo writes space, tab, newline and backslash as three octal digits behind a backslash.
fn unescape(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}

/// Whether systemd, or the group's owner being us and not root, says that it's ours.
fn is_delegated(path: &Path) -> bool {
    let marked = ["trusted.delegate", "user.delegate"].iter().any(|name| {
        let mut value = [0_u8; 8];
        matches!(rustix::fs::getxattr(path, *name, &mut value[..]), Ok(1) if value[0] == b'1')
    });
    let euid = rustix::process::geteuid();
    let owned = rustix::fs::stat(path).is_ok_and(|stat| stat.st_uid == euid.as_raw()) && !euid.is_root();
    let writable = ["", "cgroup.procs", "cgroup.subtree_control"].iter().all(|file| {
        rustix::fs::accessat(rustix::fs::CWD, path.join(file), Access::WRITE_OK, AtFlags::EACCESS).is_ok()
    });
    (marked || owned) && writable
}

fn judge(path: PathBuf, family: &[i32]) -> Result<Result<Found, Absence>, CgroupError> {
    let controllers = read(&path.join("cgroup.controllers"))?;
    let has = |name: &str| controllers.split_ascii_whitespace().any(|controller| controller == name);
    if let Some(missing) = ["memory", "pids"].into_iter().find(|name| !has(name)) {
        return Ok(Err(Absence::NoController { path, missing }));
    }
    if !is_delegated(&path) {
        return Ok(Err(Absence::NotDelegated { path }));
    }
    let inhabitants = read(&path.join("cgroup.procs"))?;
    let own: Vec<i32> = inhabitants.lines().filter_map(|line| line.parse().ok()).collect();
    // 0 stands for a process of another pid namespace: certainly not ours.
    if let Some(&pid) = own.iter().find(|pid| !family.contains(pid)) {
        return Ok(Err(Absence::Shared { path, pid }));
    }
    if own.len() > MAX_OWN {
        return Ok(Err(Absence::Shared { pid: own[MAX_OWN], path }));
    }
    Ok(Ok(Found { path, own, cpu: has("cpu"), io: has("io") }))
}

/// This process, its ancestors and its children.
fn family() -> Vec<i32> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let mut family = vec![own];
    let mut pid = own;
    while family.len() < MAX_ANCESTORS {
        let Some(parent) = parent_of(pid).filter(|parent| *parent > 0) else { break };
        family.push(parent);
        pid = parent;
    }
    let children = fs::read_to_string(format!("/proc/self/task/{own}/children")).unwrap_or_default();
    family.extend(children.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    family
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str = "23 28 0:21 / /proc rw,nosuid shared:12 - proc proc rw\n\
        30 28 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn own_group_is_found_through_the_mount() {
        let membership = "0::/system.slice/stockade-launcher.service\n";
        assert_eq!(
            own_group(UNIFIED, membership),
            Some(PathBuf::from("/sys/fs/cgroup/system.slice/stockade-launcher.service"))
        );
        // A part of the hierarchy mounted at a place with a space.
        let part = "30 28 0:26 /system.slice /my\\040groups rw - cgroup2 cgroup2 rw\n";
        assert_eq!(
            own_group(part, "0::/system.slice/a.service\n"),
            Some(PathBuf::from("/my groups/a.service"))
        );
        assert_eq!(own_group(part, "0::/user.slice\n"), None);
        assert_eq!(own_group(UNIFIED, "0::/../other\n"), None);
        assert_eq!(own_group(UNIFIED, "4:memory:/x\n"), None);
        assert_eq!(own_group("30 28 0:26 / /x rw - cgroup cgroup rw,memory\n", "0::/\n"), None);
    }

    fn fake(controllers: &str, procs: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("cgroup.controllers"), controllers).unwrap();
        fs::write(directory.path().join("cgroup.procs"), procs).unwrap();
        fs::write(directory.path().join("cgroup.subtree_control"), "").unwrap();
        directory
    }

    #[test]
    fn a_group_without_controllers_is_not_enough() {
        let group = fake("cpu pids\n", "");
        let path = group.path().to_owned();
        assert_eq!(judge(path.clone(), &[]).unwrap(), Err(Absence::NoController { path, missing: "memory" }));
        let gone = judge(group.path().join("gone"), &[]).unwrap_err();
        assert!(matches!(gone, CgroupError::Read { .. }), "{gone}");
    }

    #[test]
    fn a_group_that_is_only_writable_is_not_ours() {
        let group = fake("cpu memory pids\n", "");
        let path = group.path().to_owned();
        let judged = judge(path.clone(), &[]).unwrap();
        if rustix::process::geteuid().is_root() {
            assert_eq!(judged, Err(Absence::NotDelegated { path }));
        } else {
            assert_eq!(judged, Ok(Found { path, own: Vec::new(), cpu: true, io: false }));
        }
    }

    #[test]
    fn a_group_with_a_stranger_in_it_is_not_ours() {
        let group = fake("cpu memory pids\n", "10\n11\n");
        let path = group.path().to_owned();
        let mark = rustix::fs::setxattr(&path, "user.delegate", b"1", rustix::fs::XattrFlags::empty());
        if rustix::process::geteuid().is_root() && mark.is_err() {
            eprintln!(
                "NOT TESTED: a group with a stranger in it: the temporary directory takes no attributes"
            );
            return;
        }
        assert_eq!(judge(path.clone(), &[10]).unwrap(), Err(Absence::Shared { path: path.clone(), pid: 11 }));
        assert_eq!(
            judge(path.clone(), &[10, 11]).unwrap(),
            Ok(Found { path, own: vec![10, 11], cpu: true, io: false })
        );
    }

    #[test]
    fn the_family_is_this_process_its_ancestors_and_children() {
        let family = family();
        assert!(family.contains(&rustix::process::getpid().as_raw_nonzero().get()));
        let parent = rustix::process::getppid().unwrap().as_raw_nonzero().get();
        assert!(family.contains(&parent));
    }
}
