//! The layers, one function each.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreated,
    RulesetCreatedAttr as _,
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::pivot_root;
use rustix::process::{getegid, geteuid};
use seccompiler::{apply_filter, sock_filter};
use stockade_policies::{Confines, PolicySet, Subject};
use stockade_protocol::client::Overrides;

use crate::error::BenchError;
use crate::others::system;

/// Where our own binary is in a root that [`root`] made.
pub(crate) const OURSELVES: &str = "/bench";
/// Every namespace but the user's and the network's.
pub(crate) const OTHERS: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWCGROUP);

/// Enters new namespaces of these kinds; a pid namespace is its children's.
pub(crate) fn namespaces(kinds: CloneFlags) -> Result<(), BenchError> {
    unshare(kinds).map_err(BenchError::nix(format!("enter new namespaces ({kinds:?})")))
}

/// Enters a user namespace in which it is who it was.
pub(crate) fn user_namespace() -> Result<(), BenchError> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    namespaces(CloneFlags::CLONE_NEWUSER)?;
    write("/proc/self/setgroups", "deny")?;
    write("/proc/self/gid_map", &format!("{gid} {gid} 1"))?;
    write("/proc/self/uid_map", &format!("{uid} {uid} 1"))
}

/// Takes the rights that namespaces and mounts need: root has them, a user has them in a user namespace.
pub(crate) fn rights() -> Result<(), BenchError> {
    if geteuid().is_root() { Ok(()) } else { user_namespace() }
}

/// A root of our own on top of this directory, with the system's directories, `/proc`, `/dev/null` and this binary.
pub(crate) fn root(place: &Path) -> Result<(), BenchError> {
    const NOTHING: Option<&str> = None;
    let asked = |doing: &str, what: &Path| BenchError::nix(format!("{doing} {}", what.display()));
    let ourselves = std::env::current_exe().map_err(BenchError::io("tell where this binary is"))?;
    mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NOTHING)
        .map_err(BenchError::nix("keep mounts to ourselves"))?;
    mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, NOTHING)
        .map_err(asked("mount a tmpfs on", place))?;
    let (directories, links) = system();
    let directories = directories.into_iter().chain(["/proc"]).map(|path| (PathBuf::from(path), path, true));
    let files = [(PathBuf::from("/dev/null"), "/dev/null", false), (ourselves, OURSELVES, false)];
    for (source, target, is_directory) in directories.chain(files) {
        let target = place.join(target.trim_start_matches('/'));
        let made = match is_directory {
            true => std::fs::create_dir_all(&target),
            false => std::fs::create_dir_all(target.parent().unwrap_or(place))
                .and_then(|()| std::fs::write(&target, "")),
        };
        made.map_err(BenchError::io(format!("make {}", target.display())))?;
        mount(Some(&source), &target, NOTHING, MsFlags::MS_BIND | MsFlags::MS_REC, NOTHING)
            .map_err(asked("bind", &source))?;
    }
    for (link, target) in links {
        let link = place.join(link.trim_start_matches('/'));
        std::os::unix::fs::symlink(target, link).map_err(BenchError::io("make a link in a root"))?;
    }
    std::env::set_current_dir(place).map_err(BenchError::io("enter a root"))?;
    pivot_root(".", ".").map_err(BenchError::nix("pivot"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(BenchError::nix("detach the old root"))?;
    std::env::set_current_dir("/").map_err(BenchError::io("enter a root"))
}

/// The finished programs of the policy `default`, in the order in which they are installed.
pub(crate) fn filters() -> Result<Vec<Vec<sock_filter>>, BenchError> {
    let shipped = PolicySet::shipped();
    let wrong = |error: &dyn core::error::Error| BenchError::Wrong(crate::error::chain(error));
    let policy = shipped.get("default").map_err(|error| wrong(&error))?;
    let subject = Subject {
        owner_uid: geteuid().as_raw(),
        owner_gid: getegid().as_raw(),
        home: "/nonexistent".into(),
        workspace: "/tmp".into(),
        overrides: Overrides::default(),
        user_mode: !geteuid().is_root(),
    };
    let seccomp = Confines::of(policy, &subject).map_err(|error| wrong(&error))?.spec.seccomp.clone();
    let programs = seccomp.base.into_iter().chain(seccomp.delta);
    Ok(programs
        .map(|program| {
            program.into_iter().map(|i| sock_filter { code: i.code, jt: i.jt, jf: i.jf, k: i.k }).collect()
        })
        .collect())
}

/// Installs them; what follows is filtered.
pub(crate) fn filter(programs: &[Vec<sock_filter>]) -> Result<(), BenchError> {
    let refused = |error| BenchError::Wrong(format!("cannot load a filter: {error}"));
    programs.iter().try_for_each(|program| apply_filter(program).map_err(refused))
}

/// Enters a Landlock domain that allows everything beneath the root.
pub(crate) fn landlock() -> Result<(), BenchError> {
    let all = AccessFs::from_all(ABI::V5);
    let refused = |error| BenchError::Wrong(format!("cannot enter a Landlock domain: {error}"));
    let top = PathFd::new("/").map_err(|error| BenchError::Wrong(format!("cannot open /: {error}")))?;
    let ruleset = Ruleset::default().handle_access(all).and_then(Ruleset::create);
    let ruleset = ruleset.and_then(|ruleset| ruleset.add_rule(PathBeneath::new(top, all)));
    ruleset.and_then(RulesetCreated::restrict_self).map(drop).map_err(refused)
}

/// A control group (v2) below our own.
#[derive(Debug)]
pub(crate) struct Group(PathBuf);

impl Group {
    /// The one of this name, made or not.
    ///
    /// # Errors
    /// [`BenchError::Wrong`] where there are none.
    pub(crate) fn named(name: &str) -> Result<Self, BenchError> {
        Ok(Self(own_group()?.join(name)))
    }

    /// Makes it.
    pub(crate) fn make(&self) -> Result<(), BenchError> {
        std::fs::create_dir(&self.0).map_err(BenchError::io(format!("make {}", self.0.display())))
    }

    /// Puts this process into it.
    pub(crate) fn join(&self) -> Result<(), BenchError> {
        write(self.0.join("cgroup.procs"), "0")
    }

    /// Puts this process back into the one above.
    pub(crate) fn leave(&self) -> Result<(), BenchError> {
        write(self.0.with_file_name("cgroup.procs"), "0")
    }

    /// Removes it.
    pub(crate) fn remove(&self) -> Result<(), BenchError> {
        std::fs::remove_dir(&self.0).map_err(BenchError::io(format!("remove {}", self.0.display())))
    }
}

/// Our own control group's directory.
fn own_group() -> Result<PathBuf, BenchError> {
    let read = |path: &str| std::fs::read_to_string(path).map_err(BenchError::io(format!("read {path}")));
    let none = || BenchError::Wrong("no control groups (v2) are mounted".into());
    let mount = cgroup2(&read("/proc/self/mountinfo")?).ok_or_else(none)?;
    let groups = read("/proc/self/cgroup")?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).ok_or_else(none)?;
    Ok(mount.join(own))
}

/// Where the control groups (v2) are mounted: the fifth field of their line.
fn cgroup2(mountinfo: &str) -> Option<PathBuf> {
    let line = mountinfo.lines().find(|line| line.contains(" - cgroup2 "))?;
    line.split(' ').nth(4).map(PathBuf::from)
}

fn write(path: impl AsRef<Path>, text: &str) -> Result<(), BenchError> {
    let path = path.as_ref();
    std::fs::write(path, text).map_err(BenchError::io(format!("write {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_policy_gives_programs_of_real_size() {
        let programs = filters().unwrap();
        assert!(!programs.is_empty());
        assert!(programs.iter().map(Vec::len).sum::<usize>() > 100, "{}", programs.len());
    }

    #[test]
    fn control_groups_are_where_the_kernel_says() {
        let text = "30 24 0:26 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                    31 24 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroup2(text), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(cgroup2("30 24 0:26 / / rw - ext4 /dev/vda rw\n"), None);
    }
}
