//! Reads TOML files: the only input of this crate.
//!
//! Of a directory only `*.toml` files count, sorted by name, so many and so large at most. A link is followed when it
//! ends at a regular file within the same directory, and refused otherwise: a directory says by itself what holds.
//! It must never block: what isn't a regular file is refused without reading from it.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::reader::MAX_TEXT;

/// Why a file, or a directory of them, isn't read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The system says no.
    #[error("cannot read {path}")]
    Read {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// We do.
    #[error("{path}: {refusal}")]
    Refused {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong with it.
        refusal: Refusal,
    },
}

/// What is wrong with a file, and what would help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; {remedy}")]
pub struct Refusal {
    /// What is wrong.
    pub reason: String,
    /// What would help.
    pub remedy: String,
}

impl Refusal {
    /// Of both.
    #[must_use]
    pub fn new(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { reason: reason.into(), remedy: remedy.into() }
    }
}

/// The `*.toml` files of a directory that has at most so many entries, whatever they are; none if it doesn't exist.
///
/// # Errors
/// What can't be read, names the path.
pub fn named(directory: &Path, most: usize) -> Result<Vec<PathBuf>, FileError> {
    let failed = |source| cannot(directory, source);
    let entries = match directory.read_dir() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut paths = Vec::new();
    for (count, entry) in (1..).zip(entries) {
        if count > most {
            let reason = format!("the directory has more than {most} entries");
            let refusal = Refusal::new(reason, "take away what isn't needed there");
            return Err(FileError::Refused { path: directory.to_owned(), refusal });
        }
        let path = entry.map_err(failed)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// The text of a file of a directory, if it is one that `allowed` has nothing against.
///
/// # Errors
/// What can't be read, names the path.
pub fn text(
    path: &Path,
    directory: &Path,
    allowed: impl FnOnce(&Metadata) -> Result<(), Refusal>,
) -> Result<String, FileError> {
    let because = |refusal| FileError::Refused { path: path.to_owned(), refusal };
    let refused = |reason: &str, remedy: &str| because(Refusal::new(reason, remedy));
    let failed = |source| cannot(path, source);
    let Some(file) = open(path, directory).map_err(failed)? else {
        return Err(refused("a link that leads out of its directory", "put the file itself there"));
    };
    let attributes = file.metadata().map_err(failed)?;
    if !attributes.is_file() {
        return Err(refused("not a regular file", "put one there, or take it away"));
    }
    allowed(&attributes).map_err(because)?;
    let mut bytes = Vec::new();
    // One byte more than allowed, so that a file that grows meanwhile is noticed.
    file.take(MAX_TEXT as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > MAX_TEXT {
        return Err(refused(&format!("larger than {MAX_TEXT} bytes"), "say it in several files"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let reason = format!("not UTF-8 after byte {}", error.utf8_error().valid_up_to());
        refused(&reason, "save it as UTF-8")
    })
}

/// Opens without blocking and without following a last link, but for one that stays in the directory.
fn open(path: &Path, directory: &Path) -> io::Result<Option<File>> {
    let open = |path: &Path| {
        OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(path)
    };
    match open(path) {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            let target = path.canonicalize()?;
            if target.parent() != Some(directory.canonicalize()?.as_path()) {
                return Ok(None);
            }
            open(&target).map(Some)
        }
        opened => opened.map(Some),
    }
}

fn cannot(path: &Path, source: io::Error) -> FileError {
    FileError::Read { path: path.to_owned(), source }
}
