//! Starts processes of ours: this binary again, in another role, with a channel as its descriptor 0.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use rustix::process::Pid;
use stockade_protocol::confinement::Plan;
use stockade_protocol::outcome::SetupStage;
use stockade_wire::socket;

use crate::failure::{At, Staged};
use crate::lone;
use crate::stages::identity::{self, IdMap};
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

/// A worker that builds its root itself, and the process of ours that will be the run's init.
#[derive(Debug)]
pub(crate) struct Lone {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) channel: OwnedFd,
}

/// Clones a lone worker into the namespaces of its plan, as a copy of this process: for an embedded launcher, which has
/// one owner and one run. `own_network`: whether it should begin a network namespace of its own at once.
///
/// # Errors
/// `Namespaces` or `UserNamespace`: the kernel doesn't let us have them.
pub(crate) fn lone(plan: Plan, own_network: bool) -> Staged<Lone> {
    let stage = if plan == Plan::User { SetupStage::UserNamespace } else { SetupStage::Namespaces };
    let (ours, theirs) = socket::seqpacket_pair().at(SetupStage::Template, "socketpair")?;
    match sys::clone_process(worker::namespaces(plan), None).at(stage, "clone")? {
        Cloned::Parent { pid, pidfd } => {
            if plan == Plan::User {
                let proc = identity::open_proc()?;
                IdMap::own().write(&proc, &identity::pid_text(pid))?;
            }
            Ok(Lone { pid, pidfd, channel: ours })
        }
        Cloned::Child => {
            // The copy must not hold this launcher's channels: their ends tell who is gone.
            let alone = rustix::stdio::dup2_stdin(&theirs).is_ok() && sys::close_all_but_standard().is_ok();
            let code = match crate::role::channel() {
                Ok(channel) if alone => lone::run(channel, own_network),
                _ => 1,
            };
            crate::role::leave(code)
        }
    }
}

/// Starts an embedded launcher as a copy of this process, and gives our end of its channel. For a caller with one
/// thread and one run to make: there is nothing in its memory that its own launcher may not have, and an exec of a
/// large program is most of what a short run costs. `None`: the caller has threads, and must start one by an exec.
///
/// # Errors
/// Those of socketpair(2) and clone3(2).
pub fn copy_as_launcher() -> io::Result<Option<OwnedFd>> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Ok(None);
    }
    let (ours, theirs) = socket::seqpacket_pair()?;
    match sys::clone_process(0, None)? {
        Cloned::Parent { .. } => Ok(Some(ours)),
        Cloned::Child => {
            if let Ok(channel) = settle(&theirs) {
                super::run(channel, true);
            }
            crate::role::leave(0)
        }
    }
}

/// Makes a fresh copy a process of its own: out of the terminal's process group, with nothing of the original's open
/// but standard error.
fn settle(channel: &OwnedFd) -> io::Result<OwnedFd> {
    rustix::process::setpgid(None, None)?;
    rustix::stdio::dup2_stdin(channel)?;
    sys::close_all_but_standard()?;
    let channel = crate::role::channel()?;
    rustix::stdio::dup2_stdout(io::stdin())?;
    rustix::process::chdir("/")?;
    Ok(channel)
}
