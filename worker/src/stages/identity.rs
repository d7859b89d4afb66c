//! Who the run is: id maps, the drop to its uid, no capabilities, `no_new_privs`, locked securebits.

use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::PathBuf;

use nix::unistd::{Gid, Uid};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets};
use stockade_protocol::launch::Owner;
use stockade_protocol::outcome::SetupStage;

use crate::failure::{At, Staged};
use crate::stages::beside::Holder;

const MAPS: SetupStage = SetupStage::UserNamespace;
/// Capabilities beyond this number don't exist yet; dropping stops at the first the kernel doesn't know.
const CAPABILITIES: u32 = 63;

/// A map of one uid and one gid: `inside` in the namespace is `outside` in its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IdMap {
    /// uid and gid inside.
    pub(crate) inside: (u32, u32),
    /// uid and gid outside.
    pub(crate) outside: (u32, u32),
}

impl IdMap {
    /// An owner's own ids, as they are.
    pub(crate) fn own_of(owner: &Owner) -> Self {
        let ids = (owner.uid, owner.gid);
        Self { inside: ids, outside: ids }
    }

    /// Writes the map of a process's user namespace, by itself: nothing but its own ids. `proc` is a descriptor of a `/proc` that
    /// shows it as `pid`.
    ///
    /// # Errors
    /// `UserNamespace` with the file that refused.
    pub(crate) fn write(&self, proc: impl AsFd, pid: &str) -> Staged<()> {
        put(&proc, pid, "setgroups", "deny")?;
        put(&proc, pid, "gid_map", &line(self.inside.1, self.outside.1, 1))?;
        put(&proc, pid, "uid_map", &line(self.inside.0, self.outside.0, 1))
    }

    /// As [`IdMap::write`], by who is privileged in its parent, and for a run: with the groups of others.
    ///
    /// # Errors
    /// As [`IdMap::write`].
    pub(crate) fn write_for_a_run(&self, proc: impl AsFd, pid: &str) -> Staged<()> {
        put(&proc, pid, "setgroups", "deny")?;
        self.write_ids(proc, pid)
    }

    /// As [`IdMap::write_for_a_run`], for a namespace that nobody is ever in.
    fn write_ids(&self, proc: impl AsFd, pid: &str) -> Staged<()> {
        put(&proc, pid, "gid_map", &self.groups())?;
        put(&proc, pid, "uid_map", &line(self.inside.0, self.outside.0, 1))
    }

    /// The owner's group is the run's, and every other is itself: the kernel lets nobody write to a directory or file whose group
    /// it can't name (`HAS_UNMAPPED_ID` in fs/namei.c), though it were his own. A run is of none of them: it has its one group,
    /// no capability, and no way to another.
    fn groups(&self) -> String {
        let (inside, outside) = (self.inside.1, self.outside.1);
        let (low, high) = (inside.min(outside), inside.max(outside));
        // Up to the last, which is no group; of the two themselves only the one as the other.
        let others = [(0, low), (low.saturating_add(1), high), (high.saturating_add(1), u32::MAX)];
        let others = others.into_iter().filter(|(first, end)| first < end);
        let others = others.map(|(first, end)| line(first, first, end - first));
        others.chain([line(inside, outside, 1)]).collect()
    }
}

/// A line of a map (user_namespaces(7)).
fn line(inside: u32, outside: u32, count: u32) -> String {
    format!("{inside} {outside} {count}\n")
}

fn put(proc: impl AsFd, pid: &str, name: &str, text: &str) -> Staged<()> {
    let path = PathBuf::from(pid).join(name);
    let file = rustix::fs::openat(proc, &path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    let mut file = std::fs::File::from(file.at(MAPS, name)?);
    file.write_all(text.as_bytes()).at(MAPS, name)
}

/// `/proc`, to write maps through after the root has changed.
pub(crate) fn open_proc() -> Staged<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, "/proc", flags, Mode::empty()).at(MAPS, "/proc")
}

/// A user namespace that exists only as a descriptor, for idmapped mounts. `proc`: the host's, from whose pid namespace
/// the caller may be hidden.
///
/// # Errors
/// `Idmap`.
pub(crate) fn mapped_namespace(map: IdMap, proc: &OwnedFd) -> Staged<OwnedFd> {
    const STAGE: SetupStage = SetupStage::Idmap;
    // Holds the namespace until there is a descriptor of it.
    let holder = Holder::start(libc::CLONE_NEWUSER, 0).at(STAGE, "clone")?;
    let number = holder.number_in(proc).at(STAGE, "pidfd")?;
    map.write_ids(proc, &number)?;
    user_namespace(proc, &number)
}

/// The user namespace of a process, by its number in a `/proc`.
///
/// # Errors
/// `Idmap`.
pub(crate) fn user_namespace(proc: &OwnedFd, number: &str) -> Staged<OwnedFd> {
    let path = PathBuf::from(number).join("ns/user");
    let file = rustix::fs::openat(proc, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    file.at(SetupStage::Idmap, "ns/user")
}

/// The number of a child in a `/proc`, which may be another pid namespace's than the caller's (proc(5), `fdinfo`).
///
/// # Errors
/// Those of open(2) and read(2); `ESRCH` where the child has no number in it.
pub(crate) fn number_in(proc: &OwnedFd, child: &OwnedFd) -> io::Result<String> {
    /// Several times what it has.
    const ROOM: usize = 1024;
    let path = format!("self/fdinfo/{}", child.as_raw_fd());
    let file = rustix::fs::openat(proc, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = Vec::with_capacity(ROOM);
    while rustix::io::read(&file, rustix::buffer::spare_capacity(&mut text))? > 0 {
        text.reserve(1);
    }
    let text = String::from_utf8(text).unwrap_or_default();
    let number = text.lines().find_map(|line| line.strip_prefix("Pid:")).map(str::trim);
    let there = number.filter(|number| number.parse::<u32>().is_ok_and(|number| number > 0));
    there.map(ToOwned::to_owned).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
}

/// Takes ids inside the user namespace, for good.
///
/// # Errors
/// `Identity`.
pub(crate) fn take_ids(uid: u32, gid: u32, groups: bool) -> Staged<()> {
    const STAGE: SetupStage = SetupStage::Identity;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    if groups {
        nix::unistd::setgroups(&[]).at(STAGE, "supplementary groups")?;
    }
    nix::unistd::setresgid(gid, gid, gid).at(STAGE, "gid")?;
    nix::unistd::setresuid(uid, uid, uid).at(STAGE, "uid")
}

/// Drops every capability from the bounding set. What can be done before a change to an unprivileged user, and not
/// after it.
///
/// # Errors
/// `Capabilities`.
pub(crate) fn empty_bounding_set() -> Staged<()> {
    for number in 0..CAPABILITIES {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL) => break,
            Err(errno) => return Err(errno).at(SetupStage::Capabilities, "bounding set"),
        }
    }
    Ok(())
}

/// Drops every capability from every set, locks securebits, and sets `no_new_privs`.
///
/// # Errors
/// `Capabilities` with what refused.
pub(crate) fn drop_capabilities() -> Staged<()> {
    const STAGE: SetupStage = SetupStage::Capabilities;
    let held = rustix::thread::capabilities(None).at(STAGE, "capget")?;
    rustix::thread::clear_ambient_capability_set().at(STAGE, "ambient set")?;
    if held.effective.contains(CapabilitySet::SETPCAP) {
        empty_bounding_set()?;
        let bits = CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED
            | CapabilitiesSecureBits::NO_SETUID_FIXUP
            | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
            | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
        rustix::thread::set_capabilities_secure_bits(bits).at(STAGE, "securebits")?;
    }
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, none).at(STAGE, "capset")?;
    rustix::thread::set_no_new_privs(true).at(STAGE, "no_new_privs")
}

/// Sets the parent-death signal. After the last change of credentials, which clears it (prctl(2)).
///
/// # Errors
/// `Identity`.
pub(crate) fn die_with_parent() -> Staged<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .at(SetupStage::Identity, "parent-death signal")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_but_two_is_itself_and_the_owners_is_the_runs() {
        let map = |inside, outside| IdMap { inside: (0, inside), outside: (0, outside) }.groups();
        assert_eq!(map(100, 2000), "0 0 100\n101 101 1899\n2001 2001 4294965294\n100 2000 1\n");
        assert_eq!(map(2000, 100), "0 0 100\n101 101 1899\n2001 2001 4294965294\n2000 100 1\n");
        assert_eq!(map(0, 1), "2 2 4294967293\n0 1 1\n");
        assert_eq!(map(7, 7), "0 0 7\n8 8 4294967287\n7 7 1\n");
        assert_eq!(map(u32::MAX - 1, 0), "1 1 4294967293\n4294967294 0 1\n");
    }
}
