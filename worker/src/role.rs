//! Which process this is. A role is chosen before any thread starts and never changes.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use rustix::fs::{CWD, Mode, OFlags};

use crate::stages::placeholder;
use crate::{launcher, monitor, opener, relay, template};

/// Every role there is.
const ROLES: [&str; 7] = ["launcher", "template", "opener", "sweep", "relay", "monitor", "survey"];

/// Runs the role of this name, if it is one: `launcher [--embedded]`, `template`, `opener`, `sweep`, `relay`, `monitor`,
/// `survey`. A role's channel to whoever it works for is its file descriptor 0.
#[must_use]
pub fn run_role(name: &OsStr, arguments: &[OsString]) -> Option<ExitCode> {
    // /proc/self/exe names every one of them `exe` otherwise.
    let role = name.to_str().filter(|name| ROLES.contains(name))?;
    if let Ok(title) = std::ffi::CString::new(format!("stockade-{role}")) {
        let _ = rustix::thread::set_name(&title);
    }
    let embedded = arguments.iter().any(|argument| argument == "--embedded");
    let ended = match role {
        "launcher" => channel().map(|channel| launcher::run(channel, embedded)),
        "template" => channel().map(template::run),
        "opener" => channel().map(opener::run),
        "sweep" => channel().map(placeholder::sweep),
        "relay" => {
            channel().map(|channel| relay::run(channel).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS))
        }
        "monitor" => {
            channel().map(|channel| monitor::run(channel).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS))
        }
        "survey" => channel()
            .map(|channel| monitor::survey::run(channel).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)),
        _ => return None,
    };
    Some(ended.unwrap_or(ExitCode::FAILURE))
}

/// Takes the channel from descriptor 0, which becomes `/dev/null`: nothing of ours ever stands on 0, 1 or 2.
pub(crate) fn channel() -> io::Result<OwnedFd> {
    let channel = io::stdin().as_fd().try_clone_to_owned()?;
    let null = rustix::fs::openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(channel)
}

/// Ends a process that was cloned without an exec: no destructor and no buffer of the original runs twice.
#[expect(clippy::exit, reason = "a cloned copy must not return into its original's callers")]
pub(crate) fn leave(code: i32) -> ! {
    std::process::exit(code)
}
