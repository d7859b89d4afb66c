//! What a run needs before its template gets anything: who it is, and the descriptors it will have.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, CWD, FileType, MemfdFlags, Mode, OFlags, StatxFlags};
use rustix::pipe::PipeFlags;
use stockade_protocol::confinement::{Plan, StdioPath};
use stockade_protocol::launch::{Launch, LaunchOutput};
use stockade_protocol::outcome::SetupStage;
use stockade_protocol::spec::RunAs;

use super::uids::Uids;
use crate::failure::{At, Staged, failed};
use crate::messages::Prepare;

/// The user and group id that root's runs have inside: programs treat 0 as able to do what it can't here.
const INSIDE_OF_ROOT: u32 = 1000;

/// Relayed output: what the relay and the supervisor get.
#[derive(Debug)]
pub(super) struct Relayed {
    pub(super) pipes: Option<[OwnedFd; 2]>,
    pub(super) ring: OwnedFd,
    pub(super) ring_bytes: u64,
}

/// Resolves who the run is.
pub(super) fn prepare(launch: Launch, plan: Plan, uids: &mut Uids) -> Staged<Prepare> {
    let owner = &launch.owner;
    let none_free = || failed(SetupStage::Identity, libc::EAGAIN, "no free uid in the run-as range");
    let (host_uid, host_gid, idmap) = match (plan, launch.spec.run_as) {
        (Plan::System, RunAs::Ephemeral { start, count }) => {
            let uid = uids.take(start, count).ok_or_else(none_free)?;
            (uid, uid, true)
        }
        _ => (owner.uid, owner.gid, false),
    };
    let inside = |id: u32| if id == 0 && plan == Plan::System { INSIDE_OF_ROOT } else { id };
    let (inside_uid, inside_gid) = (inside(owner.uid), inside(owner.gid));
    let stdio = [StdioPath::Null; 3];
    Ok(Prepare { launch, plan, host_uid, host_gid, inside_uid, inside_gid, idmap, cgroup: false, stdio })
}

/// The descriptors that go with `Prepare` (workspace, stdin, stdout, stderr), and what of the output stays here.
pub(super) fn stdio(
    prepare: &mut Prepare,
    descriptors: Vec<OwnedFd>,
) -> Staged<(Vec<OwnedFd>, Option<Relayed>)> {
    const STAGE: SetupStage = SetupStage::Check;
    let mut passed = descriptors.into_iter();
    let mut all = Vec::new();
    let missing = || failed(STAGE, libc::EBADF, "descriptors");
    if prepare.launch.workspace_passed {
        all.push(passed.next().ok_or_else(missing)?);
    }
    if prepare.launch.stdin_passed {
        all.push(passed.next().ok_or_else(missing)?);
        prepare.stdio[0] = StdioPath::Passed;
    } else {
        let null = rustix::fs::openat(CWD, "/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        all.push(null.at(STAGE, "/dev/null")?);
    }
    let relayed = match prepare.launch.output {
        LaunchOutput::Passed => {
            all.push(passed.next().ok_or_else(missing)?);
            all.push(passed.next().ok_or_else(missing)?);
            prepare.stdio[1] = StdioPath::Passed;
            prepare.stdio[2] = StdioPath::Passed;
            None
        }
        LaunchOutput::Relayed { ring_bytes } => {
            let (relayed, ends) = relayed(ring_bytes).at(STAGE, "output pipes")?;
            all.extend(ends);
            prepare.stdio[1] = StdioPath::Relayed;
            prepare.stdio[2] = StdioPath::Relayed;
            Some(relayed)
        }
        _ => return Err(failed(STAGE, libc::EOPNOTSUPP, "output mode")),
    };
    if passed.next().is_some() {
        return Err(failed(STAGE, libc::EINVAL, "too many descriptors"));
    }
    let first = usize::from(prepare.launch.workspace_passed);
    give_pipes(&all[first..], prepare.host_uid).at(STAGE, "pipes")?;
    Ok((all, relayed))
}

/// Pipes that are ours become the run's, which may be another user: else it couldn't open them again by their names
/// (`/dev/stdout`). Named pipes and terminals are the host's and stay as they are.
fn give_pipes(stdio: &[OwnedFd], host_uid: u32) -> io::Result<()> {
    /// `PIPEFS_MAGIC` of linux/magic.h.
    const PIPEFS: i64 = 0x5049_5045;
    let us = rustix::process::geteuid().as_raw();
    for fd in stdio {
        // A file's filesystem may be dead, and is asked nothing.
        if host_uid != us && is_our_fifo(fd, us)? && rustix::fs::fstatfs(fd)?.f_type == PIPEFS {
            rustix::fs::fchown(fd, Some(rustix::fs::Uid::from_raw(host_uid)), None)?;
        }
    }
    Ok(())
}

fn is_our_fifo(fd: &OwnedFd, us: u32) -> io::Result<bool> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let status = rustix::fs::statx(fd, "", flags, StatxFlags::TYPE | StatxFlags::UID)?;
    Ok(FileType::from_raw_mode(status.stx_mode.into()) == FileType::Fifo && status.stx_uid == us)
}

fn relayed(ring_bytes: u64) -> io::Result<(Relayed, [OwnedFd; 2])> {
    let (stdout, stdout_end) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (stderr, stderr_end) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let ring = rustix::fs::memfd_create("stockade-output", MemfdFlags::CLOEXEC)?;
    rustix::fs::ftruncate(&ring, ring_bytes)?;
    Ok((Relayed { pipes: Some([stdout, stderr]), ring, ring_bytes }, [stdout_end, stderr_end]))
}
