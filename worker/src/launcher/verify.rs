//! Reads back from the kernel what holds of a parked worker (proc(5): `status`, `ns/*`, `mountinfo`), and makes its
//! `Confinement` of that, not of what the worker claims. A layer that was asked for and doesn't show is a failure.
//!
//! Landlock doesn't show in `/proc`; its report is the worker's until a canary in the same domain proves it
//! (`stockade doctor`).

use core::ops::Range;
use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashSet;
use std::ffi::CString;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;
use stockade_protocol::Bytes;
use stockade_protocol::confinement::{Confinement, Layer, LayerReport, Plan, StdioPath};
use stockade_protocol::outcome::{MemoryMechanism, SetupStage};
use stockade_protocol::spec::{Limits, MountKind, NetworkMode};

use crate::failure::{At, Staged, failed};
use crate::messages::{Command, Parked, Prepare};
use crate::stages::network;

const STAGE: SetupStage = SetupStage::Verify;
/// The most of a `mountinfo` that is read: a thousand mounts with long paths.
const MOUNTINFO_BOUND: u64 = 8 * 1024 * 1024;

/// What is read back as soon as the worker says that it won't change any more, while it does the rest.
#[derive(Debug)]
pub(crate) struct Rooted {
    namespaces: String,
    mounts: String,
}

impl Rooted {
    /// Reads it of a worker that has said so. Its user namespace comes last.
    ///
    /// # Errors
    /// `Verify` with what doesn't hold.
    pub(crate) fn read(prepare: &Prepare, pid: Pid, ours: &Namespaces) -> Staged<Self> {
        let pid = pid.as_raw_nonzero().get();
        let count = KINDS.len() - usize::from(!network::is_own(&prepare.spec));
        let namespaces = namespaces(prepare, pid, ours, 1..count)?;
        Ok(Self { namespaces, mounts: mounts(prepare, pid)? })
    }
}

/// What is read back of a worker whose filters are on: who it is, what it may, and what it's bounded by.
#[derive(Debug)]
pub(crate) struct Filtered {
    user: String,
    identity: String,
    rlimits: String,
}

impl Filtered {
    /// Reads it. `installed`: how many filters the worker says it has.
    ///
    /// # Errors
    /// `Verify` with what doesn't hold.
    pub(crate) fn read(prepare: &Prepare, installed: u32, pid: Pid, ours: &Namespaces) -> Staged<Self> {
        let pid = pid.as_raw_nonzero().get();
        let status = read(&format!("/proc/{pid}/status"), "status")?;
        let status = Status::new(&status);
        let identity = identity(prepare, &status)?;
        seccomp(installed, &status)?;
        let user = namespaces(prepare, pid, ours, 0..1)?;
        Ok(Self { user, identity, rlimits: rlimits(&prepare.spec.limits, pid)? })
    }
}

/// What of a worker was read back before it was parked.
#[derive(Debug, Default)]
pub(crate) struct Early {
    pub(crate) rooted: Option<Rooted>,
    pub(crate) filtered: Option<Filtered>,
}

/// Compares a parked worker with what was asked, and reports each layer: with what was read back already, and the rest now.
///
/// # Errors
/// `Verify` with what doesn't hold.
pub(crate) fn read_back(
    prepare: &Prepare,
    parked: &Parked,
    init: Pid,
    group: Option<&Path>,
    ours: &Namespaces,
    early: Early,
) -> Staged<Confinement> {
    let Rooted { namespaces: others, mounts: root } =
        early.rooted.map_or_else(|| Rooted::read(prepare, init, ours), Ok)?;
    let installed = parked.filters_installed;
    let Filtered { user, identity, rlimits } =
        early.filtered.map_or_else(|| Filtered::read(prepare, installed, init, ours), Ok)?;
    let namespaces = user + &others;
    let pid = init.as_raw_nonzero().get();
    let mut report = empty(prepare);
    report.absent.clone_from(&parked.absent);
    let resources = match group {
        Some(path) => {
            report.memory = MemoryMechanism::Cgroup;
            in_group(pid, path)?
        }
        None => "monitor, every 10 ms".to_owned(),
    };
    let spec = &prepare.spec;
    let rooted = prepare.plan != Plan::Minimal;
    let network = match spec.network.mode {
        NetworkMode::None => "none",
        NetworkMode::Loopback => "loopback of its own",
        NetworkMode::Host => "host's",
    };
    let layer = |layer, enforced, detail: String| LayerReport { layer, enforced, detail };
    report.layers = vec![
        layer(Layer::Namespaces, rooted, namespaces),
        layer(Layer::Root, rooted, root),
        layer(Layer::Guard, !parked.guarded.is_empty(), format!("{} paths held", parked.guarded.len())),
        layer(Layer::Network, spec.network.mode != NetworkMode::Host, network.to_owned()),
        layer(Layer::Identity, true, identity),
        layer(Layer::Resources, true, resources),
        layer(Layer::Rlimits, true, rlimits),
        layer(
            Layer::Landlock,
            parked.landlock_abi > 0,
            format!("ABI {}, {} rules", parked.landlock_abi, parked.landlock_rules),
        ),
        layer(Layer::Seccomp, true, format!("{} filters", parked.filters)),
    ];
    Ok(report)
}

/// Adds what is known of a run when it's told its command.
pub(crate) fn complete(report: &mut Confinement, command: &Command, stdio: [StdioPath; 3]) {
    report.stdio = stdio;
    let detail = format!("{} environment entries", command.environment.len());
    report.layers.push(LayerReport { layer: Layer::Process, enforced: true, detail });
}

/// A report without layers.
pub(crate) fn empty(prepare: &Prepare) -> Confinement {
    let spec = &prepare.spec;
    Confinement {
        policy: spec.policy.clone(),
        policy_digest: spec.digest,
        level: spec.level,
        plan: prepare.plan,
        layers: Vec::new(),
        memory: MemoryMechanism::Monitor,
        host_uid: prepare.ids.host_uid,
        absent: Vec::new(),
        stdio: [StdioPath::Null; 3],
    }
}

/// A text of proc(5): read in pieces that the kernel fills, and not in ones that grow.
fn read(path: &str, what: &str) -> Staged<Vec<u8>> {
    const PIECE: usize = 8 * 1024;
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).at(STAGE, what)?;
    let mut text = Vec::with_capacity(PIECE);
    while rustix::io::read(&file, rustix::buffer::spare_capacity(&mut text)).at(STAGE, what)? > 0 {
        if text.len() as u64 > MOUNTINFO_BOUND {
            return Err(failed(STAGE, libc::EFBIG, what));
        }
        if text.len() == text.capacity() {
            text.reserve(PIECE);
        }
    }
    Ok(text)
}

/// `/proc/PID/status`: one `Name:\tvalue` a line. Taken apart once, for several values.
struct Status<'a>(Vec<(&'a [u8], &'a [u8])>);

impl<'a> Status<'a> {
    /// Most kernels have fewer lines than this.
    const LINES: usize = 80;
    /// No name that is asked for is as long.
    const NAME: usize = 24;

    fn new(text: &'a [u8]) -> Self {
        let mut lines = Vec::with_capacity(Self::LINES);
        let mut rest = text;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(end);
            if let Some(colon) = line.iter().take(Self::NAME).position(|byte| *byte == b':') {
                lines.push((&line[..colon], line.get(colon + 1..).unwrap_or_default()));
            }
            rest = after.get(1..).unwrap_or_default();
        }
        Self(lines)
    }

    fn value(&self, name: &str) -> Staged<&'a [u8]> {
        let line = self.0.iter().find(|(known, _)| *known == name.as_bytes());
        line.map(|(_, value)| value.trim_ascii()).ok_or_else(|| failed(STAGE, libc::ENODATA, name))
    }

    fn must_be(&self, name: &str, wanted: &str) -> Staged<()> {
        if self.value(name)? == wanted.as_bytes() { Ok(()) } else { Err(failed(STAGE, libc::EPERM, name)) }
    }
}

fn identity(prepare: &Prepare, status: &Status<'_>) -> Staged<String> {
    let uid = prepare.ids.host_uid.to_string();
    if !status.value("Uid")?.split(|byte| *byte == b'\t').all(|word| word == uid.as_bytes()) {
        return Err(failed(STAGE, libc::EPERM, "Uid"));
    }
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        status.must_be(set, "0000000000000000")?;
    }
    if prepare.plan != Plan::Minimal || rustix::process::geteuid().is_root() {
        status.must_be("CapBnd", "0000000000000000")?;
    }
    status.must_be("NoNewPrivs", "1")?;
    Ok(format!("host uid {uid}, no capabilities, no_new_privs"))
}

fn seccomp(installed: u32, status: &Status<'_>) -> Staged<()> {
    const FILTER: &str = "2";
    status.must_be("Seccomp", FILTER)?;
    let found = core::str::from_utf8(status.value("Seccomp_filters")?).ok();
    // The launcher's own surroundings may have put filters on all of us.
    if found.and_then(|text| text.parse::<u32>().ok()).is_none_or(|found| found < installed) {
        return Err(failed(STAGE, libc::EPERM, "Seccomp_filters"));
    }
    Ok(())
}

/// What a run has of its own; the last one only some.
const KINDS: [&str; 7] = ["user", "mnt", "pid", "ipc", "uts", "cgroup", "net"];

/// The launcher's own namespaces, by kind, as `/proc/PID/ns` names them: read when they are first asked for. A process's
/// don't change unless it says so.
#[derive(Debug, Default)]
pub(crate) struct Namespaces(OnceCell<[CString; KINDS.len()]>);

impl Namespaces {
    /// Of a kind that the kernel doesn't have there is none, and no run in one either.
    fn all(&self) -> &[CString; KINDS.len()] {
        let read = || {
            let ours = Links::of("self").ok();
            KINDS.map(|kind| ours.as_ref().and_then(|ours| ours.read(kind).ok()).unwrap_or_default())
        };
        self.0.get_or_init(read)
    }
}

/// `/proc/PID/ns`, found once for several of its links.
struct Links(OwnedFd);

impl Links {
    fn of(process: &str) -> rustix::io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(format!("/proc/{process}/ns"), flags, Mode::empty()).map(Self)
    }

    fn read(&self, kind: &str) -> rustix::io::Result<CString> {
        rustix::fs::readlinkat(&self.0, kind, Vec::new())
    }
}

/// A process's namespaces of some of [`KINDS`], none of which may be ours.
fn namespaces(prepare: &Prepare, pid: i32, ours: &Namespaces, which: Range<usize>) -> Staged<String> {
    if prepare.plan == Plan::Minimal {
        return Ok(if which.start == 0 { "none".to_owned() } else { String::new() });
    }
    let links = Links::of(&pid.to_string()).at(STAGE, "ns")?;
    let mut detail = String::new();
    for (kind, ours) in KINDS.iter().zip(ours.all()).take(which.end).skip(which.start) {
        let theirs = links.read(kind).at(STAGE, *kind)?;
        if theirs == *ours {
            return Err(failed(STAGE, libc::EPERM, *kind));
        }
        // The first is `user`, and read last.
        detail.extend((which.start > 0).then_some(' '));
        detail.push_str(&theirs.to_string_lossy());
    }
    Ok(detail)
}

/// The worker was born into its control group: `/proc/PID/cgroup` says which.
fn in_group(pid: i32, group: &Path) -> Staged<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).at(STAGE, "cgroup")?;
    let name = group.file_name().unwrap_or_default();
    let inside =
        text.lines().filter_map(|line| line.strip_prefix("0::")).any(|path| Path::new(path).ends_with(name));
    if inside { Ok(group.display().to_string()) } else { Err(failed(STAGE, libc::EPERM, "cgroup")) }
}

/// The run's own mount table: its root is a sealed tmpfs and not the host's, nothing honours setuid, and what the policy
/// doesn't let be written is read-only. `/proc` is left out: in a user namespace the host's lies covered beneath.
fn mounts(prepare: &Prepare, pid: i32) -> Staged<String> {
    if prepare.plan == Plan::Minimal {
        return Ok("the host's".to_owned());
    }
    let text = read(&format!("/proc/{pid}/mountinfo"), "mountinfo")?;
    let binds = prepare.spec.mounts.iter().filter(|mount| {
        !mount.access.write && matches!(mount.kind, MountKind::Workspace | MountKind::Bind { .. })
    });
    let mut sealed: Vec<&[u8]> = binds.map(|mount| &mount.target.0[..]).collect();
    sealed.sort_unstable();
    let (mut roots, mut mounts) = (0, 0);
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let mut fields = line.split(|byte| *byte == b' ').skip(4);
        let (point, options) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        // Behind as many optional fields as there are.
        let kind = fields.skip_while(|field| *field != b"-").nth(1).unwrap_or_default();
        if kind == b"proc" {
            continue;
        }
        let point = unescape(point);
        let has = |option: &[u8]| options.split(|byte| *byte == b',').any(|one| one == option);
        let is_root = *point == *b"/";
        let must_be_sealed = is_root || sealed.binary_search(&&*point).is_ok();
        let holds = has(b"nosuid") && (!must_be_sealed || has(b"ro"));
        if !holds || (is_root && kind != b"tmpfs") {
            return Err(failed(STAGE, libc::EPERM, point.into_owned()));
        }
        roots += u32::from(is_root);
        mounts += 1;
    }
    if roots != 1 {
        return Err(failed(STAGE, libc::EPERM, "/"));
    }
    Ok(format!("{mounts} mounts on a sealed tmpfs"))
}

/// By `/proc/PID/limits`: prlimit(2) would need a privilege over other users' processes that not every root has.
fn rlimits(limits: &Limits, pid: i32) -> Staged<String> {
    let text = read(&format!("/proc/{pid}/limits"), "limits")?;
    let text = core::str::from_utf8(&text).unwrap_or_default();
    let soft_and_hard = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let mut words = line.split_ascii_whitespace().map(|word| word.parse().unwrap_or(u64::MAX));
        Some((words.next()?, words.next()?))
    };
    for (name, bound) in [("Max open files", limits.open_files), ("Max core file size", limits.core)] {
        match soft_and_hard(name) {
            Some((soft, hard)) if soft <= bound && hard <= bound => {}
            _ => return Err(failed(STAGE, libc::EPERM, name)),
        }
    }
    Ok(format!("{} open files, core {}", limits.open_files, limits.core))
}

/// The first of `paths` that isn't a mount point in this mount table.
pub(crate) fn first_unmounted(mountinfo: &mut File, paths: &[Bytes]) -> Option<Bytes> {
    let mut text = Vec::new();
    let read = mountinfo
        .seek(SeekFrom::Start(0))
        .and_then(|_| mountinfo.take(MOUNTINFO_BOUND).read_to_end(&mut text));
    if read.is_err() {
        // The process is gone: nothing runs that a mask could fail.
        return None;
    }
    let points: HashSet<Cow<'_, [u8]>> = text
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|b| *b == b' ').nth(4))
        .map(unescape)
        .collect();
    paths.iter().find(|path| !points.contains(&path.0[..])).cloned()
}

/// Undoes the octal escapes of proc(5)'s mountinfo (`\040` for a space).
fn unescape(field: &[u8]) -> Cow<'_, [u8]> {
    if !field.contains(&b'\\') {
        return Cow::Borrowed(field);
    }
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = |digits: &[u8]| {
            core::str::from_utf8(digits).ok().and_then(|text| u8::from_str_radix(text, 8).ok())
        };
        match (first, after.get(..3).and_then(octal)) {
            (b'\\', Some(byte)) => {
                plain.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            _ => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_escapes_are_undone() {
        assert_eq!(*unescape(br"/a\040b\134c"), *b"/a b\\c");
        assert_eq!(*unescape(br"/trailing\04"), *br"/trailing\04");
        assert_eq!(*unescape(b"/plain"), *b"/plain");
    }
}
