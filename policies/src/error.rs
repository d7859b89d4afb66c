//! What can be wrong with a text: a policy's, or that of whoever reads another file of the operator's with the same
//! reader. Each error names the file, line and column, what stands there and what was expected.

use std::path::PathBuf;

use crate::files::{FileError, Refusal};
use crate::position::Position;

/// A text is wrong at a place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {problem}")]
pub struct Mistake {
    /// Where.
    pub at: Position,
    /// What.
    pub problem: Problem,
}

impl Mistake {
    /// At a place.
    #[must_use]
    pub fn new(at: &Position, problem: Problem) -> Self {
        Self { at: at.clone(), problem }
    }
}

/// Why policies can't be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// A file's text is wrong at a place.
    #[error(transparent)]
    Text(#[from] Mistake),
    /// A policy directory, or a file of it, can't be read.
    #[error("cannot read policies from {path}")]
    Read {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file of a policy directory isn't one that is read.
    #[error("{path}: {refusal}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        refusal: Refusal,
    },
    /// Two sources have the same policy.
    #[error("{second}: policy `{name}` is already defined by {first}")]
    Duplicate {
        /// The policy's name.
        name: String,
        /// The file that has it.
        first: String,
        /// The file that has it, too.
        second: String,
    },
    /// A source has a name that it may not take.
    #[error("{file}: `{name}` is a shipped policy, and only an operator may replace it; choose another name")]
    Shadow {
        /// The policy's name.
        name: String,
        /// The file.
        file: String,
    },
    /// More policies than can be held.
    #[error("{count} policies are over the limit of {limit}")]
    TooMany {
        /// How many there are.
        count: usize,
        /// The limit.
        limit: usize,
    },
}

impl PolicyError {
    pub(crate) fn at(at: &Position, problem: Problem) -> Self {
        Self::Text(Mistake::new(at, problem))
    }
}

impl From<FileError> for PolicyError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Read { path, source } => Self::Read { path, source },
            FileError::Refused { path, refusal } => Self::File { path, refusal },
        }
    }
}

/// What is wrong at a place of a text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Not TOML.
    #[error("not valid TOML: {0}")]
    Syntax(String),
    /// A key that doesn't exist.
    #[error("unknown key `{key}` in {section}{suggestion}")]
    UnknownKey {
        /// The key.
        key: String,
        /// Where: `[limits]`, or `the policy`.
        section: String,
        /// `; did you mean …`, or the keys there are.
        suggestion: String,
    },
    /// A value of another type.
    #[error("`{key}` is {found}; expected {expected}")]
    Type {
        /// The key.
        key: String,
        /// What is there, with its article.
        found: &'static str,
        /// What belongs there.
        expected: String,
    },
    /// A value that doesn't parse.
    #[error("`{key}`: {reason}; expected {expected}")]
    Value {
        /// The key.
        key: String,
        /// What is wrong.
        reason: String,
        /// What belongs there.
        expected: String,
    },
    /// Too much of something.
    #[error("{what}: {count} is over the limit of {limit}")]
    TooLarge {
        /// What.
        what: String,
        /// How much there is.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// The `name` key says something else than the file is called.
    #[error("`name` is `{found}`, but the policy is called `{expected}` after its file")]
    Name {
        /// What the key says.
        found: String,
        /// The file's stem.
        expected: String,
    },
    /// The parent doesn't exist.
    #[error("`extends`: no policy named `{parent}`; there are: {names}")]
    UnknownParent {
        /// The name.
        parent: String,
        /// The names there are, the nearest first.
        names: String,
    },
    /// A policy extends itself, through others.
    #[error("`extends` goes in a circle: {chain}")]
    Circle {
        /// The names, in order.
        chain: String,
    },
    /// Too many ancestors.
    #[error("`extends` is deeper than {limit} policies: {chain}")]
    Deep {
        /// The limit.
        limit: usize,
        /// The names, in order.
        chain: String,
    },
    /// A value that this policy's level can't hold.
    #[error("level `{level}` {cannot}; {remedy}")]
    Level {
        /// The level.
        level: &'static str,
        /// What it can't.
        cannot: String,
        /// What would help.
        remedy: String,
    },
    /// Only an operator's policy may say this.
    #[error("{what} only by an operator's policy{reason}")]
    NotTrusted {
        /// What is said.
        what: String,
        /// `: …`, or nothing.
        reason: String,
    },
    /// A system call that doesn't exist.
    #[error("`{key}`: no system call is named `{name}`{suggestion}")]
    UnknownCall {
        /// The key.
        key: &'static str,
        /// The name.
        name: String,
        /// `; did you mean …`.
        suggestion: String,
    },
    /// Two keys that contradict each other.
    #[error("{0}")]
    Conflict(String),
    /// The filter can't be made.
    #[error("cannot compile the system call filter: {0}")]
    Filter(String),
    /// A text that isn't TOML: a rule of access, which has its own language.
    #[error("{wrong}; {remedy}")]
    Rule {
        /// What is wrong.
        wrong: String,
        /// What would help.
        remedy: String,
    },
}

impl Problem {
    /// The key that it is about, if it is about one.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::UnknownKey { key, .. } | Self::Type { key, .. } | Self::Value { key, .. } => Some(key),
            Self::UnknownCall { key, .. } => Some(key),
            Self::Name { .. } => Some("name"),
            Self::UnknownParent { .. } | Self::Circle { .. } | Self::Deep { .. } => Some("extends"),
            Self::Level { .. } => Some("level"),
            Self::Syntax(_)
            | Self::TooLarge { .. }
            | Self::NotTrusted { .. }
            | Self::Conflict(_)
            | Self::Filter(_)
            | Self::Rule { .. } => None,
        }
    }

    /// What would help; the sentence itself has it for a person.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Syntax(_) => "write it as TOML".to_owned(),
            Self::UnknownKey { suggestion, .. } | Self::UnknownCall { suggestion, .. } => {
                let suggestion = suggestion.trim_start_matches("; ");
                if suggestion.is_empty() { "take it away".to_owned() } else { suggestion.to_owned() }
            }
            Self::Type { expected, .. } | Self::Value { expected, .. } => format!("write {expected}"),
            Self::TooLarge { limit, .. } => format!("have {limit} at the most"),
            Self::Name { expected, .. } => format!("write `{expected}`, or rename the file"),
            Self::UnknownParent { names, .. } => format!("name one that there is: {names}"),
            Self::Circle { .. } | Self::Deep { .. } => {
                "extend a policy that is nearer to a shipped one".to_owned()
            }
            Self::Level { remedy, .. } | Self::Rule { remedy, .. } => remedy.clone(),
            Self::NotTrusted { .. } => "take it away, or have the operator put the file among his".to_owned(),
            Self::Conflict(_) => "take one of them away".to_owned(),
            Self::Filter(_) => "allow fewer system calls with rules on their arguments".to_owned(),
        }
    }
}

impl PolicyError {
    /// What would help; the sentence itself has it for a person.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Text(mistake) => mistake.problem.remedy(),
            Self::Read { path, .. } => format!("see that {} can be read, or take it away", path.display()),
            Self::File { refusal, .. } => refusal.remedy.clone(),
            Self::Duplicate { .. } => "rename one of the files".to_owned(),
            Self::Shadow { .. } => "choose another name".to_owned(),
            Self::TooMany { limit, .. } => format!("have {limit} at the most"),
        }
    }
}
