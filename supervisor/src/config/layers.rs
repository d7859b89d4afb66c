//! From texts to what holds: each layer says something, later ones win, and every value knows who said it.

use core::fmt;
use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;

use stockade_policies::files::FileError;
use stockade_policies::reader::{self, Known, Section};
use stockade_policies::{Mistake, Position};

use super::keys::{Configuration, Key, Whose, keys, tables};
use crate::paths::Scope;

/// A file's text.
#[derive(Debug, Clone)]
pub struct Text {
    /// The file as errors name it.
    pub file: String,
    /// Its TOML.
    pub text: String,
}

/// Who says what a key holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Origin {
    /// Nobody.
    #[default]
    Default,
    /// A file.
    File(Position),
    /// A variable of the environment.
    Variable(&'static str),
    /// An option of the command line, as it's written: `--slots`.
    Option(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(at) => at.fmt(f),
            Self::Variable(name) => write!(f, "${name}"),
            Self::Option(name) => f.write_str(name),
        }
    }
}

/// One thing that is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigurationError {
    /// At a place of a file.
    #[error(transparent)]
    Text(#[from] Mistake),
    /// A file, or a directory of them, can't be read or isn't one that is.
    #[error(transparent)]
    File(#[from] FileError),
    /// Somebody else could put another file in its place.
    #[error("{path} isn't safe: {reason}; {remedy}")]
    Unsafe {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
        /// What would help.
        remedy: String,
    },
    /// Only root's daemon has it.
    #[error("{origin}: `{key}` is for root's daemon, which has several users; leave it out")]
    RootsOnly {
        /// Who says it.
        origin: Origin,
        /// The key.
        key: &'static str,
    },
}

/// All that is wrong with a configuration: at least one thing.
#[derive(Debug)]
pub struct Mistakes(pub Vec<ConfigurationError>);

impl fmt::Display for Mistakes {
    /// The first in full, and how many more there are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.0.first() else { return Ok(()) };
        first.fmt(f)?;
        let mut source = first.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        match self.0.len() - 1 {
            0 => Ok(()),
            more => write!(f, " (and {more} more: `stockade config check` says which)"),
        }
    }
}

impl Error for Mistakes {}

/// What a reload changes of one key.
#[derive(Debug)]
pub struct Change {
    /// Which.
    pub key: &'static Key,
    /// What it held, as a file says it.
    pub old: String,
    /// What it is to hold.
    pub new: String,
}

/// What is configured, and who said so.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Configured {
    /// The values.
    pub values: Configuration,
    origins: BTreeMap<&'static str, Origin>,
}

impl Configured {
    /// What these texts say, later ones over earlier ones.
    ///
    /// # Errors
    /// All that is wrong with any of them.
    pub fn of_texts(texts: &[Text]) -> Result<Self, Mistakes> {
        let names: Vec<Vec<&str>> =
            tables().iter().map(|table| table.keys.iter().map(|key| key.name).collect()).collect();
        let known = |(table, keys): (&super::Table, _)| Known { key: table.name, name: table.title, keys };
        let known: Vec<Known<'_>> = tables().iter().zip(names.iter().map(Vec::as_slice)).map(known).collect();
        let mut configured = Self::default();
        let mut wrong = Vec::new();
        for text in texts {
            let mut mistakes = Vec::new();
            let source = (text.file.as_str(), text.text.as_str());
            let take = |table: &Known<'_>, section: &Section<'_>, mistakes: &mut Vec<Mistake>| {
                configured.take(table.key, section, mistakes);
            };
            reader::tables(source, ("the configuration", &known), &mut mistakes, take);
            wrong.extend(mistakes.into_iter().map(ConfigurationError::from));
        }
        if wrong.is_empty() { Ok(configured) } else { Err(Mistakes(wrong)) }
    }

    fn take(&mut self, table: &str, section: &Section<'_>, mistakes: &mut Vec<Mistake>) {
        let keys = tables().iter().filter(|other| other.name == table).flat_map(|table| table.keys);
        for key in keys {
            match (key.read)(section, &mut self.values) {
                Ok(Some(at)) => {
                    self.origins.insert(key.path, Origin::File(at));
                }
                Ok(None) => {}
                Err(mistake) => mistakes.push(mistake),
            }
        }
    }

    /// Says what a key (`runs.slots`) holds.
    pub fn set(&mut self, path: &'static str, origin: Origin, put: impl FnOnce(&mut Configuration)) {
        put(&mut self.values);
        self.origins.insert(path, origin);
    }

    /// What this says, and what `below` says of the rest.
    #[must_use]
    pub fn over(&self, mut below: Self) -> Self {
        for key in keys().filter(|key| self.origins.contains_key(key.path)) {
            below.copy(key, self);
        }
        below
    }

    /// Gives a key what it holds in another.
    pub(crate) fn copy(&mut self, key: &'static Key, from: &Self) {
        (key.take)(&mut self.values, &from.values);
        match from.origins.get(key.path) {
            Some(origin) => self.origins.insert(key.path, origin.clone()),
            None => self.origins.remove(key.path),
        };
    }

    /// Who says what a key holds.
    #[must_use]
    pub fn origin(&self, key: &Key) -> Origin {
        self.origins.get(key.path).cloned().unwrap_or_default()
    }

    /// What is different in another.
    #[must_use]
    pub fn changes(&self, new: &Self) -> Vec<Change> {
        let both = |key: &'static Key| ((key.toml)(&self.values), (key.toml)(&new.values));
        let changed = keys().map(|key| (key, both(key))).filter(|(_, (old, new))| old != new);
        changed.map(|(key, (old, new))| Change { key, old, new }).collect()
    }

    /// Whether a daemon of this scope may have all of this.
    ///
    /// # Errors
    /// All that it may not.
    pub fn check(&self, scope: Scope) -> Result<(), Mistakes> {
        let foreign = |key: &&Key| {
            !scope.is_machine() && key.whose == Whose::Roots && self.origins.contains_key(key.path)
        };
        let error = |key: &Key| ConfigurationError::RootsOnly { origin: self.origin(key), key: key.path };
        let wrong: Vec<_> = keys().filter(foreign).map(error).collect();
        if wrong.is_empty() { Ok(()) } else { Err(Mistakes(wrong)) }
    }
}
