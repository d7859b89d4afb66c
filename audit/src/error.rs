//! Why the record can't be opened, read or written, and what would help.

use std::io;
use std::path::{Path, PathBuf};

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A system call.
    #[error("cannot {doing} {path}")]
    Io {
        /// What we were doing.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file isn't as it must be before it's used: somebody else's, open to others, of a wrong length.
    #[error("{path}: {problem}")]
    Refused {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What would help.
        remedy: &'static str,
    },
    /// Another writer has the directory.
    #[error("{0} is written by another process")]
    Held(PathBuf),
    /// The key that was given isn't the one that the keys of this directory are wrapped with.
    #[error("this isn't the key that {0} was written with")]
    WrongKey(PathBuf),
    /// A file isn't what was written.
    #[error("{path} is damaged: {problem}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The kernel gives no random bytes, or no thread.
    #[error("cannot {doing}")]
    System {
        /// What we were doing.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl AuditError {
    /// For a failed system call on a file.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }

    pub(crate) fn damaged(path: &Path, problem: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), problem: problem.into() }
    }

    /// What would help, where we know.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Refused { remedy, .. } => Some(remedy),
            Self::Held(_) => Some("stop the other one, or name another directory"),
            Self::WrongKey(_) => Some("name the key file in use since the last `stockade audit rotate-key`"),
            Self::Damaged { .. } => Some("restore it from a backup, or begin a new directory"),
            _ => None,
        }
    }
}
