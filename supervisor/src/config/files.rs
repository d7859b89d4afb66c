//! The files of a configuration, and what all of it says.
//!
//! They decide who may use the daemon and how much. So each must belong to root or to the daemon's user, who alone may
//! write to it, and so must every directory on the way to it; a link leads to a file of its own directory, or nowhere.

use std::io;
use std::path::{Path, PathBuf};

use stockade_policies::files::{self, FileError};

use super::layers::{ConfigurationError, Configured, Mistakes, Text};
use crate::ancestors::{self, Unsafe};
use crate::paths::Scope;

/// The file, in the configuration's directory.
pub const FILE: &str = "stockade.toml";
/// The directory of more of them, beside it.
pub const DROP_INS: &str = "stockade.d";
/// The most entries of that directory, whatever they are.
const MAX_DROP_INS: usize = 256;

/// All that a configuration is made of. Read once at the start, and again at each reload.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The directory with [`FILE`] and [`DROP_INS`]; none: no file is read.
    pub directory: Option<PathBuf>,
    /// Whether somebody has named it, so that it has to be there.
    pub is_named: bool,
    /// As whom the daemon runs.
    pub uid: u32,
    /// For whom it is.
    pub scope: Scope,
    /// What variables and options say, over all files.
    pub over: Configured,
}

impl Sources {
    /// What holds with all of them.
    ///
    /// # Errors
    /// All that is wrong with any of them; nothing holds then.
    pub fn load(&self) -> Result<Configured, Mistakes> {
        let texts = match &self.directory {
            Some(directory) => {
                if self.is_named {
                    is_there(directory)?;
                }
                read(directory, self.uid)?
            }
            None => Vec::new(),
        };
        let configured = self.over.over(Configured::of_texts(&texts)?);
        configured.check(self.scope)?;
        Ok(configured)
    }
}

fn is_there(directory: &Path) -> Result<(), Mistakes> {
    let found = directory.read_dir().map(drop);
    let error = |source| FileError::Read { path: directory.to_owned(), source };
    found.map_err(|source| Mistakes(vec![error(source).into()]))
}

/// The texts of a configuration's directory, in their order: each over those before it. A file that isn't there says nothing.
fn read(directory: &Path, uid: u32) -> Result<Vec<Text>, Mistakes> {
    let (file, drop_ins) = (directory.join(FILE), directory.join(DROP_INS));
    let (mut texts, mut wrong) = (Vec::new(), Vec::new());
    match one(&file, directory, uid) {
        Ok(text) => texts.push(text),
        Err(ConfigurationError::File(FileError::Read { source, .. }))
            if source.kind() == io::ErrorKind::NotFound => {}
        Err(error) => wrong.push(error),
    }
    match files::named(&drop_ins, MAX_DROP_INS) {
        Ok(paths) => {
            for path in paths {
                one(&path, &drop_ins, uid).map_or_else(|error| wrong.push(error), |text| texts.push(text));
            }
        }
        Err(error) => wrong.push(error.into()),
    }
    // What the others say is checked all the same, so that everything that is wrong is told at once.
    if let Some(error) = Configured::of_texts(&texts).err().filter(|_| !wrong.is_empty()) {
        wrong.extend(error.0);
    }
    if wrong.is_empty() { Ok(texts) } else { Err(Mistakes(wrong)) }
}

/// A file's text, wherever it is and whosever: to be checked, not to be obeyed.
///
/// # Errors
/// What can't be read, names the path.
pub fn file(path: &Path) -> Result<Text, FileError> {
    let target = path.canonicalize().map_err(|source| FileError::Read { path: path.to_owned(), source })?;
    let text = files::text(&target, target.parent().unwrap_or(Path::new("/")), |_| Ok(()))?;
    // Shown as the person wrote it.
    Ok(Text { file: path.display().to_string(), text })
}

/// One file's text, if nobody else can have written it.
fn one(path: &Path, directory: &Path, uid: u32) -> Result<Text, ConfigurationError> {
    let text = files::text(path, directory, |found| ancestors::belongs(found, uid))?;
    ancestors::check(path, uid).map_err(|error| match error {
        Unsafe::Place { path, reason, remedy } => ConfigurationError::Unsafe { path, reason, remedy },
        Unsafe::Io { path, source } => FileError::Read { path, source }.into(),
    })?;
    Ok(Text { file: path.display().to_string(), text })
}
