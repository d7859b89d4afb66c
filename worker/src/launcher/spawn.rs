//! Starts processes of ours: this binary again, in another role, with a channel as its descriptor 0.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use rustix::process::Pid;
use stockade_wire::socket;

use crate::sys::{self, Cloned};
use crate::template;

/// Starts a role. Gives its process id and our end of its channel.
///
/// # Errors
/// Those of socketpair(2), vfork and execve(2).
#[expect(
    clippy::disallowed_methods,
    reason = "the worker's one place that starts processes, without pre_exec"
)]
pub(crate) fn satellite(role: &str) -> io::Result<(Pid, OwnedFd)> {
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

/// Starts a template. Embedded, there is one owner and one run, so a copy of this process serves and saves an exec.
///
/// # Errors
/// As [`satellite`], and those of clone3(2).
pub(crate) fn template(embedded: bool) -> io::Result<(Pid, OwnedFd)> {
    if !embedded {
        return satellite("template");
    }
    let (ours, theirs) = socket::seqpacket_pair()?;
    match sys::clone_process(0, None)? {
        Cloned::Parent { pid, .. } => Ok((pid, ours)),
        Cloned::Child => {
            // The copy must not hold this launcher's channels: their ends tell who is gone.
            let alone = rustix::stdio::dup2_stdin(&theirs).is_ok() && sys::close_all_but_standard().is_ok();
            if let (true, Ok(channel)) = (alone, crate::role::channel()) {
                template::run(channel);
            }
            crate::role::leave(0)
        }
    }
}
