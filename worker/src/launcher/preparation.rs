//! What a run needs before its template gets anything: who it is, and the descriptors it will have.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, StatxFlags};
use stockade_protocol::Bytes;
use stockade_protocol::ExecId;
use stockade_protocol::confinement::{Plan, StdioPath};
use stockade_protocol::launch::{Launch, LaunchOutput};
use stockade_protocol::outcome::SetupStage;
use stockade_protocol::spec::RunAs;

use super::check::Permitted;
use super::outlet;
use super::uids::Uids;
use crate::failure::{At, Staged, failed};
use crate::messages::{Command, Ids, Prepare, Standard};

/// The user and group id that root's runs have inside: programs treat 0 as able to do what it can't here.
const INSIDE_OF_ROOT: u32 = 1000;

/// A launch, taken apart: what a worker is made from, and what it's told when it's parked.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) exec_id: ExecId,
    /// Its ids are zero until they're taken.
    pub(super) prepare: Prepare,
    pub(super) workspace: Option<OwnedFd>,
    pub(super) command: Command,
    pub(super) stdio: Stdio,
    /// How many workers were of no use to it.
    pub(super) in_vain: u8,
}

/// How the tool's standard descriptors reach it.
#[derive(Debug)]
pub(super) struct Stdio {
    /// Those that were passed. The others are the worker's own.
    pub(super) passed: Standard,
    pub(super) paths: [StdioPath; 3],
    /// Bytes of the ring, where output is relayed.
    pub(super) ring_bytes: Option<u64>,
    /// Whether silence is marked there.
    pub(super) is_marked: bool,
    /// Whose our pipes among them are, where they were given to a run already.
    pub(super) given_to: Option<u32>,
}

/// Takes a permitted launch apart.
///
/// # Errors
/// `Check`: not the descriptors that it says are beside it.
pub(super) fn order(launch: Launch, within: Permitted, descriptors: Vec<OwnedFd>) -> Staged<Order> {
    const STAGE: SetupStage = SetupStage::Check;
    let mut passed = descriptors.into_iter();
    let mut next = || passed.next().ok_or_else(|| failed(STAGE, libc::EBADF, "descriptors"));
    let workspace = if launch.workspace_passed { Some(next()?) } else { None };
    let mut paths = [StdioPath::Null; 3];
    let stdin = if launch.stdin_passed {
        paths[0] = StdioPath::Passed;
        Some(next()?)
    } else {
        None
    };
    let is_marked = matches!(launch.output, LaunchOutput::Marked { .. });
    let (stdout, stderr, ring_bytes) = match launch.output {
        LaunchOutput::Passed => {
            paths[1..].fill(StdioPath::Passed);
            (Some(next()?), Some(next()?), None)
        }
        LaunchOutput::Relayed { ring_bytes } | LaunchOutput::Marked { ring_bytes } => {
            paths[1..].fill(StdioPath::Relayed);
            (None, None, Some(ring_bytes))
        }
        _ => return Err(failed(STAGE, libc::EOPNOTSUPP, "output mode")),
    };
    if passed.next().is_some() {
        return Err(failed(STAGE, libc::EINVAL, "too many descriptors"));
    }
    let (spec, plan) = within.into_parts();
    let idmap = matches!((plan, spec.run_as), (Plan::System, RunAs::Ephemeral { .. }));
    if launch.openings.iter().any(|opening| opening.number == 0) {
        paths[0] = StdioPath::Passed;
    }
    let Launch { exec_id, owner, argv, environment, cwd, home, workspace: path, .. } = launch;
    let (workspace_passed, openings) = (launch.workspace_passed, launch.openings);
    // Only who opens something has to know where the workspace is.
    let below = if openings.is_empty() { Bytes::default() } else { path.clone() };
    let prepare =
        Prepare { spec, owner, home, workspace: path, workspace_passed, plan, idmap, ids: Ids::default() };
    let command = Command { argv, environment, cwd, openings, workspace: below };
    let stdio =
        Stdio { passed: Standard([stdin, stdout, stderr]), paths, ring_bytes, is_marked, given_to: None };
    Ok(Order { exec_id, prepare, workspace, command, stdio, in_vain: 0 })
}

/// Who a run is.
///
/// # Errors
/// Those of [`Uids::take`].
pub(super) fn take_ids(prepare: &Prepare, uids: &mut Uids) -> Staged<Ids> {
    let owner = &prepare.owner;
    let (host_uid, host_gid) = match (prepare.plan, prepare.spec.run_as) {
        (Plan::System, RunAs::Ephemeral { start, count }) => {
            let uid = uids.take(start, count)?;
            (uid, uid)
        }
        _ => (owner.uid, owner.gid),
    };
    let inside = |id: u32| if id == 0 && prepare.plan == Plan::System { INSIDE_OF_ROOT } else { id };
    Ok(Ids { host_uid, host_gid, inside_uid: inside(owner.uid), inside_gid: inside(owner.gid) })
}

impl Stdio {
    /// All three, for a launcher without a relay, which clones the one worker with what it will run.
    ///
    /// # Errors
    /// `Check`: output is to be relayed; those of open(2).
    pub(super) fn complete(&mut self) -> Staged<[&OwnedFd; 3]> {
        const STAGE: SetupStage = SetupStage::Check;
        let [stdin, stdout, stderr] = &mut self.passed.0;
        let stdin = match stdin {
            Some(stdin) => stdin,
            None => stdin.insert(outlet::null().at(STAGE, "/dev/null")?),
        };
        match (stdout, stderr) {
            (Some(stdout), Some(stderr)) => Ok([stdin, stdout, stderr]),
            _ => Err(failed(STAGE, libc::EOPNOTSUPP, "output without a relay")),
        }
    }

    /// Pipes that are ours become the run's, which may be another user: else it couldn't open them again by their names
    /// (`/dev/stdout`). Named pipes and terminals are the host's and stay as they are.
    ///
    /// # Errors
    /// Those of fchown(2).
    pub(super) fn give_pipes(&mut self, host_uid: u32) -> io::Result<()> {
        /// `PIPEFS_MAGIC` of linux/magic.h.
        const PIPEFS: i64 = 0x5049_5045;
        let ours = self.given_to.unwrap_or(rustix::process::geteuid().as_raw());
        for fd in self.passed.0.iter().flatten() {
            // A file's filesystem may be dead, and is asked nothing.
            if host_uid != ours && is_fifo_of(fd, ours)? && rustix::fs::fstatfs(fd)?.f_type == PIPEFS {
                rustix::fs::fchown(fd, Some(rustix::fs::Uid::from_raw(host_uid)), None)?;
            }
        }
        self.given_to = Some(host_uid);
        Ok(())
    }
}

fn is_fifo_of(fd: &OwnedFd, uid: u32) -> io::Result<bool> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let status = rustix::fs::statx(fd, "", flags, StatxFlags::TYPE | StatxFlags::UID)?;
    Ok(FileType::from_raw_mode(status.stx_mode.into()) == FileType::Fifo && status.stx_uid == uid)
}
