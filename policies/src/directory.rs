//! Reads the policies of a directory. Its states are none; it either has all of them or an error. How files are read
//! is in [`files`].

use std::io;
use std::path::Path;

use crate::error::PolicyError;
use crate::files;
use crate::set::{MAX_POLICIES, Source, Trust};

/// The most entries of a policy directory, whatever they are.
const MAX_DIRECTORY: usize = 2 * MAX_POLICIES;

/// Adds the policies of a directory to `sources`. A directory that doesn't exist has none.
///
/// # Errors
/// What can't be read, names the path.
pub fn read(directory: &Path, trust: Trust, sources: &mut Vec<Source>) -> Result<(), PolicyError> {
    let paths = files::named(directory, MAX_DIRECTORY)?;
    if paths.len() > MAX_POLICIES {
        return Err(PolicyError::TooMany { count: paths.len(), limit: MAX_POLICIES });
    }
    for path in paths {
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

fn read_file(path: &Path, directory: &Path, trust: Trust) -> Result<Source, PolicyError> {
    let text = files::text(path, directory, |_| Ok(()))?;
    Ok(Source { name: stem(path)?, file: path.display().to_string(), text, trust })
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
