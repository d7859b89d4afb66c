//! Across a fork, numbers: a stage's failure is the stage, the errno and what it worked on. Words are made in the
//! supervisor.

use std::io;

use stockade_protocol::Bytes;
use stockade_protocol::outcome::{SetupFailure, SetupStage};

/// What a stage gives.
pub(crate) type Staged<T> = Result<T, SetupFailure>;

/// A failure without an errno's source.
pub(crate) fn failed(stage: SetupStage, errno: i32, subject: impl Into<Bytes>) -> SetupFailure {
    SetupFailure { stage, errno, subject: subject.into() }
}

/// Puts the stage and the subject to a system call's error.
pub(crate) trait At<T> {
    /// The failure of `stage` on `subject`.
    fn at(self, stage: SetupStage, subject: impl Into<Bytes>) -> Staged<T>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, stage: SetupStage, subject: impl Into<Bytes>) -> Staged<T> {
        self.map_err(|error| failed(stage, error.raw_os_error().unwrap_or(libc::EIO), subject))
    }
}

impl<T> At<T> for rustix::io::Result<T> {
    fn at(self, stage: SetupStage, subject: impl Into<Bytes>) -> Staged<T> {
        self.map_err(|errno| failed(stage, errno.raw_os_error(), subject))
    }
}

impl<T> At<T> for nix::Result<T> {
    fn at(self, stage: SetupStage, subject: impl Into<Bytes>) -> Staged<T> {
        self.map_err(|errno| failed(stage, errno as i32, subject))
    }
}
