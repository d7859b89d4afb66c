//! Reads the policy files of a directory: the only input of this crate. Its states are none; it either has all
//! files or an error.
//!
//! Only `*.toml` files are read, sorted by name, so many and so large at most. A link is followed when it ends at
//! a regular file within the same directory, and refused otherwise: a policy directory says by itself what holds.
//! It must never block: what isn't a regular file is refused without reading from it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::document::MAX_TEXT;
use crate::error::PolicyError;
use crate::set::{MAX_POLICIES, Source, Trust};

/// The most entries of a policy directory, whatever they are.
const MAX_DIRECTORY: usize = 2 * MAX_POLICIES;

/// Adds the policies of a directory to `sources`. A directory that doesn't exist has none.
///
/// # Errors
/// What can't be read, names the path.
pub fn read(directory: &Path, trust: Trust, sources: &mut Vec<Source>) -> Result<(), PolicyError> {
    for path in files(directory)? {
        sources.push(read_file(&path, directory, trust)?);
    }
    Ok(())
}

/// Reads one policy file, wherever it is: what `stockade run --policy FILE` and `policy check FILE` use.
///
/// # Errors
/// What can't be read, names the path.
pub fn file(path: &Path, trust: Trust) -> Result<Source, PolicyError> {
    let target = path.canonicalize().map_err(|source| cannot(path, source))?;
    let parent = target.parent().unwrap_or(Path::new("/")).to_owned();
    let mut source = read_file(&target, &parent, trust)?;
    // Called and shown as the person wrote it.
    source.name = stem(path)?;
    source.file = path.display().to_string();
    Ok(source)
}

fn files(directory: &Path) -> Result<Vec<PathBuf>, PolicyError> {
    let entries = match directory.read_dir() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|source| cannot(directory, source))?,
    };
    let mut paths = Vec::new();
    for (count, entry) in (1..).zip(entries) {
        if count > MAX_DIRECTORY {
            let reason = format!("the directory has more than {MAX_DIRECTORY} entries");
            return Err(PolicyError::File { path: directory.to_owned(), reason });
        }
        let path = entry.map_err(|source| cannot(directory, source))?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    if paths.len() > MAX_POLICIES {
        return Err(PolicyError::TooMany { count: paths.len(), limit: MAX_POLICIES });
    }
    paths.sort();
    Ok(paths)
}

fn read_file(path: &Path, directory: &Path, trust: Trust) -> Result<Source, PolicyError> {
    let refused = |reason: &str| PolicyError::File { path: path.to_owned(), reason: reason.into() };
    let open = open(path, directory).map_err(|source| cannot(path, source))?;
    let Some(file) = open else {
        return Err(refused("a link that leads out of the policy directory; put the file itself there"));
    };
    let attributes = file.metadata().map_err(|source| cannot(path, source))?;
    if !attributes.is_file() {
        return Err(refused("not a regular file"));
    }
    let mut bytes = Vec::new();
    // One byte more than allowed, so that a file that grows meanwhile is noticed.
    let bound = MAX_TEXT as u64 + 1;
    file.take(bound).read_to_end(&mut bytes).map_err(|source| cannot(path, source))?;
    if bytes.len() > MAX_TEXT {
        return Err(refused(&format!("larger than {MAX_TEXT} bytes")));
    }
    let text = String::from_utf8(bytes)
        .map_err(|error| refused(&format!("not UTF-8 after byte {}", error.utf8_error().valid_up_to())))?;
    Ok(Source { name: stem(path)?, file: path.display().to_string(), text, trust })
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

fn stem(path: &Path) -> Result<String, PolicyError> {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    stem.map(ToOwned::to_owned).ok_or_else(|| PolicyError::File {
        path: path.to_owned(),
        reason: "the file's name isn't UTF-8, so it can be no policy's name".into(),
    })
}

fn cannot(path: &Path, source: io::Error) -> PolicyError {
    PolicyError::Read { path: path.to_owned(), source }
}
