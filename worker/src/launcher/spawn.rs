//! Starts processes of ours: this binary again, in another role, with a channel as its descriptor 0.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::Pid;
use stockade_protocol::launch::Launch;
use stockade_protocol::outcome::SetupStage;
use stockade_protocol::spec::SandboxSpec;
use stockade_wire::socket;

use crate::birth::{self, Handed};
use crate::failure::{At, Staged};
use crate::messages::{self, Prepare};
use crate::signals::Dispositions;
use crate::stages::worker;
use crate::sys::{self, Cloned};

/// A process of ours, and our end of its channel.
pub(crate) type Worker = (Pid, OwnedFd);

/// Starts a role. Gives its process id and our end of its channel.
///
/// # Errors
/// Those of socketpair(2), vfork and execve(2).
#[expect(
    clippy::disallowed_methods,
    reason = "the worker's one place that starts processes, without pre_exec"
)]
pub(crate) fn satellite(role: &str) -> io::Result<Worker> {
    let (ours, theirs) = socket::seqpacket_pair()?;
    let child = Command::new("/proc/self/exe")
        .arg(role)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    Ok((pid.ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?, ours))
}

/// Starts a template as a fresh exec: nothing of another owner's is in its memory.
///
/// # Errors
/// As [`satellite`].
pub(crate) fn template() -> io::Result<Worker> {
    satellite("template")
}

/// Starts an opener as a fresh exec: nothing of ours is in the memory of a process that is its owner's.
///
/// # Errors
/// As [`satellite`].
pub(crate) fn opener() -> io::Result<Worker> {
    satellite("opener")
}

/// A worker that was cloned here, and our end of its channel.
#[derive(Debug)]
pub(crate) struct Lone {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) channel: OwnedFd,
}

/// Clones a worker into the namespaces of its plan, as a copy of this process: for an embedded launcher, which has one owner
/// and one run, so that a template would be a process for nothing.
///
/// # Errors
/// `Namespaces` or `UserNamespace`: the kernel doesn't let us have them.
pub(crate) fn lone(
    prepare: &mut Prepare,
    workspace: Option<OwnedFd>,
    assigned: (&messages::Command, [&OwnedFd; 3]),
) -> Staged<Lone> {
    let (ours, theirs) = socket::seqpacket_pair().at(SetupStage::Template, "socketpair")?;
    let flags = worker::namespaces(prepare.plan);
    let changed = Dispositions::changed();
    match sys::clone_process(flags, None).at(worker::birth_stage(prepare.plan), "clone")? {
        Cloned::Parent { pid, pidfd } => Ok(Lone { pid, pidfd, channel: ours }),
        Cloned::Child => crate::role::leave(be(prepare, workspace, theirs, assigned, changed).unwrap_or(1)),
    }
}

/// A worker's life in its fresh copy of this process: out of the terminal's process group, whose signals are for the command
/// line, and without the launcher's channels, whose ends tell who is gone.
fn be(
    prepare: &mut Prepare,
    workspace: Option<OwnedFd>,
    channel: OwnedFd,
    (command, ends): (&messages::Command, [&OwnedFd; 3]),
    changed: u64,
) -> io::Result<i32> {
    rustix::process::setpgid(None, None)?;
    let ends = ends.into_iter().map(OwnedFd::try_clone).collect::<io::Result<Vec<_>>>()?;
    let kept: Vec<_> = workspace.iter().chain(&ends).chain([&channel]).map(AsFd::as_fd).collect();
    sys::close_all_but(&kept)?;
    birth::have_defaults(changed);
    let ends = ends.try_into().map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    Ok(birth::run(channel, prepare, Handed { workspace, ..Handed::default() }, Some((command, ends))))
}

/// Whether this process has one thread, and may be copied.
#[must_use]
pub fn may_copy() -> bool {
    // A directory for each thread, beside `.` and `..`.
    std::fs::symlink_metadata("/proc/self/task").is_ok_and(|task| task.nlink() == 3)
}

/// Starts an embedded launcher with its one run as a copy of this process, and gives our end of its channel. For a caller
/// with one thread ([`may_copy`]): there is nothing in its memory that its own launcher may not have, and an exec of a large
/// program, or a message with all that a run consists of, is most of what a short run costs. `descriptors` are as beside
/// `ToLauncher::Launch`.
///
/// # Errors
/// Those of socketpair(2) and clone3(2).
pub fn copy_as_launcher(
    launch: Launch,
    spec: Arc<SandboxSpec>,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<OwnedFd> {
    let (ours, theirs) = socket::seqpacket_pair()?;
    match sys::clone_process(0, None)? {
        Cloned::Parent { .. } => Ok(ours),
        Cloned::Child => {
            if let Ok((channel, descriptors)) = settle(&theirs, descriptors) {
                super::run_one(channel, launch, spec, descriptors);
            }
            crate::role::leave(0)
        }
    }
}

/// Makes a fresh copy a process of its own: out of the terminal's process group, with nothing of the original's open
/// but standard error and what the run needs.
fn settle(channel: &OwnedFd, descriptors: &[BorrowedFd<'_>]) -> io::Result<(OwnedFd, Vec<OwnedFd>)> {
    rustix::process::setpgid(None, None)?;
    let channel = channel.try_clone()?;
    let descriptors =
        descriptors.iter().map(BorrowedFd::try_clone_to_owned).collect::<io::Result<Vec<_>>>()?;
    let kept: Vec<_> = descriptors.iter().chain([&channel]).map(AsFd::as_fd).collect();
    sys::close_all_but(&kept)?;
    let null = rustix::fs::openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::process::chdir("/")?;
    Ok((channel, descriptors))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test runner has threads, and this one makes another.
    #[test]
    fn a_process_with_threads_is_not_copied() {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || wait.recv());
        assert!(!may_copy());
        drop(go);
        assert!(thread.join().is_ok_and(|received| received.is_err()));
    }
}
