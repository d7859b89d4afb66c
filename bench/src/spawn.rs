//! The one place of this crate that starts processes, and how their ends are waited for.
//!
//! `Command` without a hook between fork and exec is `posix_spawn`, which glibc makes with
//! `clone(CLONE_VM | CLONE_VFORK)`: the cheapest spawn there is, and flat in our own size. Standard streams are
//! duplicates of one `/dev/null` that is open already, so that a spawn opens nothing.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::error::BenchError;

/// What programs are found by, inside and outside.
pub(crate) const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// A command, not started, with the environment that every variant has: cargo, which may have started us, adds
/// variables that make a dynamic linker search longer, and a bare spawn would pay for them.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = with_our_environment(program);
    command.env_clear().env("PATH", PATH);
    if let Some(home) = std::env::var_os("HOME") {
        command.env("HOME", home);
    }
    command
}

/// A command, not started, with our own environment.
#[allow(clippy::disallowed_methods, reason = "a benchmark starts what it measures, here and nowhere else")]
pub(crate) fn with_our_environment(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// `/dev/null`, opened once.
#[derive(Debug)]
pub(crate) struct Null(File);

impl Null {
    /// Opens it.
    pub(crate) fn open() -> Result<Self, BenchError> {
        let file = File::options().read(true).write(true).open("/dev/null");
        file.map(Self).map_err(BenchError::io("open /dev/null"))
    }

    /// One more descriptor of it.
    pub(crate) fn stdio(&self) -> Result<Stdio, BenchError> {
        self.0.try_clone().map(Stdio::from).map_err(BenchError::io("duplicate /dev/null"))
    }

    /// Gives a command all three streams.
    pub(crate) fn give(&self, command: &mut Command) -> Result<(), BenchError> {
        command.stdin(self.stdio()?).stdout(self.stdio()?).stderr(self.stdio()?);
        Ok(())
    }
}

/// Runs a command to its end; how long that took, from before the spawn to after the wait, in microseconds.
pub(crate) fn timed(command: &mut Command) -> Result<f64, BenchError> {
    let began = Instant::now();
    let status = command.status();
    let took = micros(began.elapsed());
    let name = || command.get_program().display();
    let status = status.map_err(|source| BenchError::io(format!("start {}", name()))(source))?;
    succeeded(status, || name().to_string())?;
    Ok(took)
}

/// As [`timed`], of a whole process with all streams on `/dev/null`. One that fails is run once more, with its
/// complaint heard: the reason why it isn't measured.
pub(crate) fn whole(null: &Null, mut next: impl FnMut() -> Command) -> Result<f64, BenchError> {
    let mut command = next();
    null.give(&mut command)?;
    timed(&mut command).map_err(|error| tried(&mut next()).err().unwrap_or(error))
}

/// Runs a command that should succeed, and returns what it wrote; what it complained of is the error.
pub(crate) fn tried(command: &mut Command) -> Result<Vec<u8>, BenchError> {
    let name = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(BenchError::io(format!("start {name}")))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    Err(BenchError::Wrong(format!("{name} ended with {}: {said}", output.status)))
}

/// Refuses the time of a command that failed.
pub(crate) fn succeeded(status: ExitStatus, name: impl FnOnce() -> String) -> Result<(), BenchError> {
    match status.success() {
        true => Ok(()),
        false => Err(BenchError::Wrong(format!("{} ended with {status}", name()))),
    }
}

/// Signals a child.
pub(crate) fn signal(child: &Child, signal: Signal) -> Result<(), BenchError> {
    kill_process(Pid::from_child(child), signal).map_err(BenchError::errno("signal a child"))
}

/// Waits for a child's end; whether it came within that time.
pub(crate) fn ends_within(child: &Child, within: Duration) -> Result<bool, BenchError> {
    let pidfd: OwnedFd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())
        .map_err(BenchError::errno("open a child's pidfd"))?;
    readable_within(&pidfd, within)
}

/// Waits until something can be read, or has ended; whether that came within that time.
pub(crate) fn readable_within(descriptor: impl AsFd, within: Duration) -> Result<bool, BenchError> {
    let deadline = Instant::now() + within;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap_or_default();
        let mut polled = [PollFd::new(&descriptor, PollFlags::IN)];
        match rustix::event::poll(&mut polled, Some(&left)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(BenchError::errno("poll")(errno)),
        }
    }
}

/// Lets others run for a moment: between two looks at something that gives no event (a socket's name that appears).
pub(crate) fn moment(moment: Duration) {
    let _ = rustix::event::poll(&mut [], Timespec::try_from(moment).ok().as_ref());
}

/// In microseconds.
pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// In milliseconds.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_fails_gives_no_time_but_its_complaint() {
        let null = Null::open().unwrap();
        let complaining = || {
            let mut command = command("/bin/sh");
            command.args(["-c", "echo why not >&2; exit 3"]);
            command
        };
        let error = whole(&null, complaining).unwrap_err().to_string();
        assert_eq!(error, "/bin/sh ended with exit status: 3: why not");
        assert!(whole(&null, || command("/bin/true")).unwrap() > 0.0);
    }

    #[test]
    fn a_command_has_the_environment_of_every_variant_and_nothing_of_ours() {
        let told = String::from_utf8(tried(&mut command("/usr/bin/env")).unwrap()).unwrap();
        let mut names: Vec<&str> = told.lines().filter_map(|line| line.split('=').next()).collect();
        names.sort_unstable();
        names.retain(|name| *name != "HOME");
        assert_eq!(
            names,
            ["PATH"],
            "cargo gave us more than that: {}",
            std::env::var("CARGO_PKG_NAME").unwrap()
        );
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = timed(&mut command("/nonexistent/jail")).unwrap_err().to_string();
        assert_eq!(error, "cannot start /nonexistent/jail");
    }
}
