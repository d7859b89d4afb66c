//! Reads the policies of a directory. Its states are none; it either has all of them or an error. How files are read
//! is in [`files`].

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::PolicyError;
use crate::files::{self, Refusal};
use crate::set::{MAX_POLICIES, Source, Trust};

/// The most entries of a policy directory, whatever they are.
const MAX_DIRECTORY: usize = 2 * MAX_POLICIES;

/// Whether a directory, or a file of it, may say what is allowed: whose it is, and who may write to it.
pub type Look<'a> = &'a dyn Fn(&Path, &Metadata) -> Result<(), Refusal>;

/// The policies of directories, and everything that can't be read or that `look` refuses. A directory that doesn't exist
/// has none.
#[must_use]
pub fn all(directories: &[(PathBuf, Trust)], look: Look<'_>) -> (Vec<Source>, Vec<PolicyError>) {
    let (mut sources, mut wrong) = (Vec::new(), Vec::new());
    for (directory, trust) in directories {
        if let Err(error) = read(directory, *trust, look, &mut sources, &mut wrong) {
            wrong.push(error);
        }
    }
    (sources, wrong)
}

fn read(
    directory: &Path,
    trust: Trust,
    look: Look<'_>,
    sources: &mut Vec<Source>,
    wrong: &mut Vec<PolicyError>,
) -> Result<(), PolicyError> {
    let paths = files::named(directory, MAX_DIRECTORY)?;
    if paths.len() > MAX_POLICIES {
        return Err(PolicyError::TooMany { count: paths.len(), limit: MAX_POLICIES });
    }
    // Whoever could put a file there says what it says.
    if !paths.is_empty() {
        let found = directory.metadata().map_err(|source| cannot(directory, source))?;
        look(directory, &found)
            .map_err(|refusal| PolicyError::File { path: directory.to_owned(), refusal })?;
    }
    for path in paths {
        let source = read_file(&path, directory, trust, |found| look(&path, found));
        source.map_or_else(|error| wrong.push(error), |source| sources.push(source));
    }
    Ok(())
}

/// Reads one policy file, wherever it is and whosever: what `stockade run --policy FILE` and `policy check FILE` use.
///
/// # Errors
/// What can't be read, names the path.
pub fn file(path: &Path, trust: Trust) -> Result<Source, PolicyError> {
    let target = path.canonicalize().map_err(|source| cannot(path, source))?;
    let parent = target.parent().unwrap_or(Path::new("/")).to_owned();
    let mut source = read_file(&target, &parent, trust, |_| Ok(()))?;
    // Called and shown as the person wrote it.
    source.name = stem(path)?;
    source.file = path.display().to_string();
    Ok(source)
}

fn read_file(
    path: &Path,
    directory: &Path,
    trust: Trust,
    allowed: impl FnOnce(&Metadata) -> Result<(), Refusal>,
) -> Result<Source, PolicyError> {
    let text = files::text(path, directory, allowed)?;
    Ok(Source { name: stem(path)?, file: path.display().to_string(), text, trust })
}

fn stem(path: &Path) -> Result<String, PolicyError> {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    stem.map(ToOwned::to_owned).ok_or_else(|| PolicyError::File {
        path: path.to_owned(),
        refusal: Refusal::new("the file's name isn't UTF-8, so it can be no policy's name", "rename it"),
    })
}

fn cannot(path: &Path, source: io::Error) -> PolicyError {
    PolicyError::Read { path: path.to_owned(), source }
}
