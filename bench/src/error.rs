//! Why something could not be measured at all, with what would help.

use std::io;
use std::path::PathBuf;

use stockade_client::{ClientError, ConnectError};

/// An error of the benchmark. One variant's error ends that variant only; see [`crate::rounds`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// A system call or a file.
    #[error("cannot {doing}")]
    Io {
        /// What we were doing.
        doing: String,
        /// Why.
        source: io::Error,
    },
    /// The binary under test isn't there.
    #[error("{} is not there", path.display())]
    NoBinary {
        /// Where we looked.
        path: PathBuf,
    },
    /// The build of the binary under test.
    #[error("cargo build of `stockade` ended with {0}")]
    Build(String),
    /// The daemon under test.
    #[error("the daemon does not serve; the end of its log:\n{0}")]
    Daemon(String),
    /// No connection to it.
    #[error("no connection")]
    Connect(#[from] ConnectError),
    /// A connection that failed.
    #[error("the run")]
    Client(#[from] ClientError),
    /// A run or command that did not do what it should: its time means nothing.
    #[error("{0}")]
    Wrong(String),
    /// An option that names something that isn't there.
    #[error("{0}")]
    Asked(String),
    /// A result file that isn't one.
    #[error("{}:{line}: {what}", path.display())]
    Results {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// The chart.
    #[error("cannot draw {}: {what}", path.display())]
    Chart {
        /// The file.
        path: PathBuf,
        /// What the drawing library said.
        what: String,
    },
}

impl BenchError {
    /// For `map_err`, with what was being done.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    /// As [`BenchError::io`], of a raw system call.
    pub(crate) fn errno(doing: impl Into<String>) -> impl FnOnce(rustix::io::Errno) -> Self {
        let doing = doing.into();
        move |errno| Self::Io { doing, source: errno.into() }
    }

    /// As [`BenchError::io`], of a system call that only nix has.
    pub(crate) fn nix(doing: impl Into<String>) -> impl FnOnce(nix::Error) -> Self {
        let doing = doing.into();
        move |errno| Self::Io { doing, source: errno.into() }
    }

    /// What would help.
    pub(crate) fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::NoBinary { .. } => {
                Some("build it (`cargo build --release`), or name it with --stockade PATH")
            }
            Self::Daemon(_) => Some("`stockade doctor` says what this machine can't do"),
            Self::Results { .. } => Some("measure it again: `bench all`"),
            Self::Asked(_) => Some("`bench list` has the names"),
            _ => None,
        }
    }
}

/// An error and its sources, in one line.
pub(crate) fn chain(error: &dyn core::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
