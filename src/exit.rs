//! Exit statuses, after the habits of `env`, `timeout` and the shells:
//!
//! | status | when |
//! |---|---|
//! | 0–255 | the command's own |
//! | 124 | a time limit ended it (wall, CPU or idle) |
//! | 125 | Stockade's: denied, set-up failed, cancelled, over its output or its processes, lost |
//! | 126 | the command was found and can't be executed |
//! | 127 | the command wasn't found |
//! | 128+n | signal n ended it |
//! | 137 | over its memory (as if by SIGKILL, which is what the kernel's own killer sends) |
//!
//! A command may end with any of these by itself; the line on standard error, or `--json`, tells.

use rustix::io::Errno;
use stockade_protocol::outcome::{Outcome, SetupStage};

/// Ours, or denied.
pub(crate) const OURS: u8 = 125;
/// A time limit.
pub(crate) const TIMED_OUT: u8 = 124;
/// Over its memory.
pub(crate) const MEMORY: u8 = 137;
/// Found, not executable.
pub(crate) const NOT_EXECUTABLE: u8 = 126;
/// Not found.
pub(crate) const NOT_FOUND: u8 = 127;
/// A wrong command line of a subcommand other than `run` and `serve`.
pub(crate) const USAGE: u8 = 2;
/// Any other subcommand that could not do what it was asked.
pub(crate) const FAILED: u8 = 1;

/// What `run` and `attach` exit with.
pub(crate) fn status(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::Exited { code } => *code,
        Outcome::Signaled { signal, .. } => 128_u8.saturating_add(*signal),
        Outcome::TimedOut { .. } => TIMED_OUT,
        Outcome::MemoryExceeded { .. } => MEMORY,
        Outcome::SetupFailed { failure } if failure.stage == SetupStage::Exec => {
            if failure.errno == Errno::NOENT.raw_os_error() { NOT_FOUND } else { NOT_EXECUTABLE }
        }
        // Output, processes, cancelled, set-up, lost; and what a later version may add.
        _ => OURS,
    }
}

#[cfg(test)]
mod tests {
    use stockade_protocol::Bytes;
    use stockade_protocol::outcome::{CancelReason, Clock, SetupFailure};

    use super::*;

    fn failed(stage: SetupStage, errno: Errno) -> Outcome {
        let failure = SetupFailure { stage, errno: errno.raw_os_error(), subject: Bytes::from("x") };
        Outcome::SetupFailed { failure }
    }

    #[test]
    fn each_outcome_has_its_status() {
        let signaled = |signal| Outcome::Signaled { signal, core_dumped: false };
        let table = [
            (Outcome::Exited { code: 0 }, 0),
            (Outcome::Exited { code: 125 }, 125),
            (Outcome::Exited { code: 255 }, 255),
            (signaled(2), 130),
            (signaled(15), 143),
            (signaled(64), 192),
            (signaled(255), 255),
            (Outcome::TimedOut { clock: Clock::Wall, limit_ms: 1 }, 124),
            (Outcome::TimedOut { clock: Clock::Cpu, limit_ms: 1 }, 124),
            (Outcome::TimedOut { clock: Clock::Idle, limit_ms: 1 }, 124),
            (Outcome::MemoryExceeded { limit: 1, seen: 2 }, 137),
            (Outcome::OutputExceeded { limit: 1 }, 125),
            (Outcome::ProcessesExceeded { limit: 1, seen: 2 }, 125),
            (Outcome::Cancelled { reason: CancelReason::Asked }, 125),
            (Outcome::Lost { reason: String::new() }, 125),
            (failed(SetupStage::Exec, Errno::NOENT), 127),
            (failed(SetupStage::Exec, Errno::ACCESS), 126),
            (failed(SetupStage::Exec, Errno::NOEXEC), 126),
            (failed(SetupStage::Exec, Errno::TOOBIG), 126),
            (failed(SetupStage::Mount, Errno::NOENT), 125),
            (failed(SetupStage::Namespaces, Errno::PERM), 125),
        ];
        for (outcome, expected) in table {
            assert_eq!(status(&outcome), expected, "{outcome:?}");
        }
    }
}
