//! The Landlock ruleset (Documentation/userspace-api/landlock.rst): built while parked, entered by the tool itself
//! between vfork and exec, so that init stays outside the domain and a tool can neither signal nor trace it.

use std::os::fd::OwnedFd;
use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, NetPort, PathBeneath,
    Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, Scope,
};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use stockade_protocol::Bytes;
use stockade_protocol::outcome::{SetupFailure, SetupStage};
use stockade_protocol::spec::{Level, Mount, MountKind, NetworkMode, Ports, SandboxSpec};

use crate::failure::{At, Staged, failed};
use crate::stages::{guard, mounts};
use crate::sys;

const STAGE: SetupStage = SetupStage::Landlock;

/// A ruleset that waits to be entered.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The ruleset; `None` where the kernel has no Landlock and no rule needs it.
    pub(crate) ruleset: Option<OwnedFd>,
    /// The ABI in force; 0 without.
    pub(crate) abi: u8,
    /// How many rules.
    pub(crate) rules: u32,
}

/// Builds the ruleset from everything the spec makes visible. `absent`: of its binds, what isn't there to be granted; `links`:
/// what is known to be a link, for which nothing is.
///
/// # Errors
/// `Landlock`, with the ABI that would be needed where no other enforced layer covers the same.
pub(crate) fn prepare(spec: &SandboxSpec, absent: &[Bytes], links: &[Bytes]) -> Staged<Prepared> {
    let number = sys::landlock_abi();
    let needed = needed_abi(spec);
    if number < needed {
        return Err(failed(STAGE, libc::EOPNOTSUPP, format!("ABI {needed} (this kernel has {number})")));
    }
    let Some(abi) = known(number) else {
        return Ok(Prepared { ruleset: None, abi: 0, rules: 0 });
    };
    let mut ruleset = create(spec, abi)?;
    let mut rules = 0;
    for mount in
        spec.mounts.iter().filter(|mount| !absent.contains(&mount.target) && !links.contains(&mount.target))
    {
        for (path, access) in grants(spec, mount, abi) {
            let Some((fd, access)) = openable(&path, access, abi)? else { continue };
            ruleset = ruleset.add_rule(PathBeneath::new(fd, access)).map_err(|e| rule(&e, &path))?;
            rules += 1;
        }
    }
    // The names on the way to what is visible: `ls /` is the first thing that people and programs try. It widens nothing
    // where everything visible may be listed anyway.
    if spec.level != Level::Minimal && spec.mounts.iter().all(|mount| mount.access.read) {
        let root =
            rustix::fs::openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at(STAGE, "/")?;
        let names = PathBeneath::new(root, AccessFs::ReadDir);
        ruleset = ruleset.add_rule(names).map_err(|e| rule(&e, Path::new("/")))?;
        rules += 1;
    }
    for (port, access) in ports(spec) {
        ruleset = ruleset
            .add_rule(NetPort::new(port, access))
            .map_err(|_| failed(STAGE, libc::EINVAL, format!("port {port}")))?;
        rules += 1;
    }
    let ruleset: Option<OwnedFd> = ruleset.into();
    if ruleset.is_none() {
        return Err(failed(STAGE, libc::EOPNOTSUPP, "no ruleset"));
    }
    Ok(Prepared { ruleset, abi: number, rules })
}

fn rule(error: &landlock::RulesetError, path: &Path) -> SetupFailure {
    // The crate's error has the errno in its source; which one matters less than which path.
    let source = std::error::Error::source(error).and_then(|e| e.downcast_ref::<std::io::Error>());
    failed(STAGE, source.and_then(std::io::Error::raw_os_error).unwrap_or(libc::EINVAL), path)
}

/// The lowest ABI that gives what no other enforced layer of this spec gives.
fn needed_abi(spec: &SandboxSpec) -> u8 {
    if spec.level == Level::Minimal {
        return 6; // else a run could signal its watcher
    }
    let own_network = spec.level == Level::Strict && spec.network.mode != NetworkMode::Host;
    if !own_network && spec.network.mode != NetworkMode::None {
        return 6; // abstract sockets of the host
    }
    if ports_matter(spec) {
        return 4;
    }
    u8::from(spec.level == Level::Moderate)
}

/// The newest ABI whose rights both the kernel and the crate know.
fn known(number: u8) -> Option<ABI> {
    let known = [ABI::V1, ABI::V2, ABI::V3, ABI::V4, ABI::V5, ABI::V6, ABI::V7, ABI::V8, ABI::V9];
    let index = usize::from(number).min(known.len()).checked_sub(1)?;
    known.get(index).copied()
}

fn create(spec: &SandboxSpec, abi: ABI) -> Staged<RulesetCreated> {
    let refused = |_| failed(STAGE, libc::EINVAL, "ruleset");
    let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    ruleset = ruleset.handle_access(AccessFs::from_all(abi)).map_err(refused)?;
    for (handled, ports) in
        [(AccessNet::ConnectTcp, &spec.network.tcp_connect), (AccessNet::BindTcp, &spec.network.tcp_bind)]
    {
        if abi >= ABI::V4 && ports_matter(spec) && *ports != Ports::Any {
            ruleset = ruleset.handle_access(handled).map_err(refused)?;
        }
    }
    if abi >= ABI::V6 {
        ruleset = ruleset.scope(Scope::AbstractUnixSocket | Scope::Signal).map_err(refused)?;
    }
    ruleset.create().map_err(refused)
}

/// Whether TCP rules decide anything: not in an empty network namespace, nor where every port is allowed.
fn ports_matter(spec: &SandboxSpec) -> bool {
    let empty = spec.level == Level::Strict && spec.network.mode == NetworkMode::None;
    !empty && (spec.network.tcp_connect != Ports::Any || spec.network.tcp_bind != Ports::Any)
}

fn ports(spec: &SandboxSpec) -> Vec<(u16, AccessNet)> {
    if !ports_matter(spec) {
        return Vec::new();
    }
    let of = |ports: &Ports, access: AccessNet| match ports {
        Ports::Any => Vec::new(),
        Ports::Only(list) => list.iter().map(|port| (*port, access)).collect(),
    };
    let mut all = of(&spec.network.tcp_connect, AccessNet::ConnectTcp);
    all.extend(of(&spec.network.tcp_bind, AccessNet::BindTcp));
    all
}

/// What one mount of the spec grants, by path.
fn grants(spec: &SandboxSpec, mount: &Mount, abi: ABI) -> Vec<(std::path::PathBuf, BitFlags<AccessFs>)> {
    let target = mount.target.as_path();
    match &mount.kind {
        MountKind::Dev { nodes, .. } => {
            let node = AccessFs::ReadFile | AccessFs::WriteFile | device(abi);
            if spec.level != Level::Minimal {
                // A sealed tmpfs with these nodes, the run's own terminals and its shared memory in it, and nothing else.
                let shm = tree(mount, abi, true) | writing(abi, true) | reading();
                return vec![(target.to_owned(), node | AccessFs::ReadDir), (target.join("shm"), shm)];
            }
            // The host's, with other programs' shared memory and its user's terminals.
            let mut all = vec![(target.to_owned(), AccessFs::ReadDir.into())];
            all.extend(nodes.iter().map(|name| (target.join(name.as_path()), node)));
            all
        }
        MountKind::Tmpfs { .. } => {
            vec![(target.to_owned(), tree(mount, abi, !is_above_the_hosts(spec, mount)))]
        }
        _ => vec![(target.to_owned(), tree(mount, abi, false))],
    }
}

/// Whether something of the host's that can be written hangs beneath a mount: a right there would be one in it, too.
fn is_above_the_hosts(spec: &SandboxSpec, above: &Mount) -> bool {
    spec.mounts.iter().any(|mount| {
        let of_host = matches!(mount.kind, MountKind::Workspace | MountKind::Bind { .. });
        of_host && mount.access.write && guard::is_beneath(&mount.target, &above.target)
    })
}

fn reading() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::ReadDir
}

/// `special`: whether FIFOs and sockets may be made. Not on the host's disk: whoever reads there later would block.
fn writing(abi: ABI, special: bool) -> BitFlags<AccessFs> {
    let mut access = AccessFs::WriteFile
        | AccessFs::RemoveDir
        | AccessFs::RemoveFile
        | AccessFs::MakeDir
        | AccessFs::MakeReg
        | AccessFs::MakeSym;
    if special {
        access |= AccessFs::MakeFifo | AccessFs::MakeSock;
    }
    if abi >= ABI::V2 {
        access |= AccessFs::Refer;
    }
    if abi >= ABI::V3 {
        access |= AccessFs::Truncate;
    }
    access
}

fn device(abi: ABI) -> BitFlags<AccessFs> {
    if abi >= ABI::V5 { AccessFs::IoctlDev.into() } else { BitFlags::EMPTY }
}

fn tree(mount: &Mount, abi: ABI, special: bool) -> BitFlags<AccessFs> {
    let mut access = BitFlags::EMPTY;
    if mount.access.read {
        access |= reading();
    }
    if mount.access.write {
        access |= writing(abi, special);
    }
    if mount.access.execute {
        access |= AccessFs::Execute;
    }
    access
}

/// Opens a granted path. `None`: nothing to grant (absent, a link, or no right left for a file).
fn openable(
    path: &Path,
    access: BitFlags<AccessFs>,
    abi: ABI,
) -> Staged<Option<(OwnedFd, BitFlags<AccessFs>)>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Nearly all are directories: what they are needn't be asked then.
    let opened = match rustix::fs::openat(CWD, path, flags | OFlags::DIRECTORY, Mode::empty()) {
        Err(Errno::NOTDIR) => rustix::fs::openat(CWD, path, flags, Mode::empty()),
        Ok(directory) => return Ok(Some((directory, access)).filter(|_| !access.is_empty())),
        failed => failed,
    };
    let fd = match opened {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => return Ok(None),
        Err(errno) => return Err(errno).at(STAGE, path),
    };
    let status = mounts::status(&fd).at(STAGE, path)?;
    if mounts::is_symlink(&status) {
        return Ok(None);
    }
    let access = if mounts::is_directory(&status) { access } else { access & AccessFs::from_file(abi) };
    Ok(if access.is_empty() { None } else { Some((fd, access)) })
}
