//! `stockade config check`: what a start or a reload would refuse, of the configuration and of the policies that it names.
//!
//! Each error has the file, line and key that it is about and what would help, as far as there are any; for people they stand
//! in its sentence.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use stockade_gate::tools::ToolError;
use stockade_policies::files::FileError;
use stockade_policies::{Mistake, PolicyError};
use stockade_supervisor::config::{ConfigurationError, Configured, Mistakes, Origin, file};
use stockade_supervisor::paths::{Scope, Surroundings};
use stockade_supervisor::{Fault, policies};

use crate::error::{CliError, chain};
use crate::serve::Options;
use crate::{escape, exit, json, out};

/// One thing that is wrong.
#[derive(Debug, Default)]
struct Wrong {
    text: String,
    file: Option<String>,
    line: Option<u32>,
    column: Option<u32>,
    key: Option<String>,
    remedy: Option<String>,
}

/// What was looked at, and all that is wrong with it.
type Told = (String, Vec<Wrong>);

pub(crate) fn check(
    files: &[PathBuf],
    surroundings: &Surroundings<'_>,
    as_json: bool,
) -> Result<u8, CliError> {
    let one =
        |path: &PathBuf| (shown(path), of_configuration(check_one(path, surroundings.scope).err().as_ref()));
    let told: Vec<Told> =
        if files.is_empty() { everything(surroundings) } else { files.iter().map(one).collect() };
    let status = if told.iter().all(|(_, wrong)| wrong.is_empty()) { 0 } else { exit::FAILED };
    let mut lines = Vec::new();
    for (name, wrong) in told {
        if as_json {
            let errors: Vec<Value> = wrong.iter().map(Wrong::object).collect();
            lines.extend(json::line(&json!({ "file": name, "ok": errors.is_empty(), "errors": errors })));
        } else if wrong.is_empty() {
            lines.extend(format!("{name}: ok\n").into_bytes());
        } else {
            // Each names file, line and column itself.
            wrong.iter().for_each(|error| lines.extend(format!("{}\n", error.text).into_bytes()));
        }
    }
    out::print_with(&lines, status)
}

/// All that a daemon started now would read: the configuration with the gate's files beside it, and every directory of policies.
fn everything(surroundings: &Surroundings<'_>) -> Vec<Told> {
    let loaded = Options::default().sources(surroundings).load();
    let (configured, mistakes) = match loaded {
        Ok(configured) => (configured, None),
        // Which policies it names nobody knows, but those of the usual places are read in any case.
        Err(mistakes) => (Configured::default(), Some(mistakes)),
    };
    let usual = surroundings.policies();
    let mut told = vec![(shown(&surroundings.configuration()), of_configuration(mistakes.as_ref()))];
    let named = configured.values.daemon.policies.paths().iter().map(PathBuf::as_path);
    let directories = usual.iter().map(|(path, _)| path.as_path()).chain(named);
    told.extend(directories.map(|path| (shown(path), Vec::new())));
    for error in policies::mistakes(&usual, &configured.values, (surroundings.uid, surroundings.scope)) {
        let wrong = Wrong::of_policies(&error);
        let within = |name: &str| wrong.file.as_deref().is_some_and(|file| Path::new(file).starts_with(name));
        // What is about no file of one is told beside the first.
        let at = told.iter().skip(1).position(|(name, _)| within(name)).map_or(1, |at| at + 1);
        if let Some((_, all)) = told.get_mut(at) {
            all.push(wrong);
        }
    }
    let (directory, scope, uid) = (surroundings.configuration(), surroundings.scope, surroundings.uid);
    if let Some((_, all)) = told.first_mut() {
        all.extend(
            stockade_supervisor::faults(&directory, (scope, uid), &configured.values, &usual)
                .iter()
                .map(Wrong::of_gate),
        );
    }
    told
}

fn check_one(path: &Path, scope: Scope) -> Result<(), Mistakes> {
    let text = file(path).map_err(|error| Mistakes(vec![ConfigurationError::from(error)]))?;
    Configured::of_texts(&[text])?.check(scope)
}

fn of_configuration(mistakes: Option<&Mistakes>) -> Vec<Wrong> {
    mistakes.into_iter().flat_map(|mistakes| &mistakes.0).map(Wrong::of).collect()
}

impl Wrong {
    fn of(error: &ConfigurationError) -> Self {
        let text = chain(error);
        match error {
            ConfigurationError::Text(mistake) => Self::at(text, mistake),
            ConfigurationError::File(error) => Self::of_file(text, error),
            ConfigurationError::Unsafe { path, remedy, .. } => {
                Self { text, file: Some(shown(path)), remedy: Some(remedy.clone()), ..Self::default() }
            }
            ConfigurationError::RootsOnly { origin, key } => {
                let at = if let Origin::File(at) = origin { Some(at) } else { None };
                Self {
                    text,
                    file: at.map(|at| at.file.to_string()),
                    line: at.map(|at| at.line),
                    column: at.map(|at| at.column),
                    key: Some((*key).to_owned()),
                    remedy: Some("leave it out".to_owned()),
                }
            }
            _ => Self { text, ..Self::default() },
        }
    }

    fn of_policies(error: &PolicyError) -> Self {
        let text = chain(error);
        let (file, remedy) = match error {
            PolicyError::Text(mistake) => return Self::at(text, mistake),
            PolicyError::Read { path, .. } | PolicyError::File { path, .. } => {
                (Some(shown(path)), error.remedy())
            }
            PolicyError::Duplicate { second: file, .. } | PolicyError::Shadow { file, .. } => {
                (Some(file.clone()), error.remedy())
            }
            _ => (None, error.remedy()),
        };
        Self { text, file, remedy: Some(remedy), ..Self::default() }
    }

    fn of_gate(fault: &Fault) -> Self {
        let text = chain(fault);
        match fault {
            Fault::Text(mistake) | Fault::Tool(ToolError::Text(mistake)) => Self::at(text, mistake),
            Fault::File(error) | Fault::Tool(ToolError::File(error)) => Self::of_file(text, error),
            Fault::Tool(ToolError::Duplicate { second: file, .. } | ToolError::Signature { file, .. }) => {
                Self { text, file: Some(file.clone()), ..Self::default() }
            }
            _ => Self { text, ..Self::default() },
        }
    }

    fn of_file(text: String, error: &FileError) -> Self {
        match error {
            FileError::Read { path, .. } => Self { text, file: Some(shown(path)), ..Self::default() },
            FileError::Refused { path, refusal } => Self {
                text,
                file: Some(shown(path)),
                remedy: Some(refusal.remedy.clone()),
                ..Self::default()
            },
            _ => Self { text, ..Self::default() },
        }
    }

    fn at(text: String, mistake: &Mistake) -> Self {
        let Mistake { at, problem } = mistake;
        Self {
            text,
            file: Some(at.file.to_string()),
            line: Some(at.line),
            column: Some(at.column),
            key: problem.key().map(str::to_owned),
            remedy: Some(problem.remedy()),
        }
    }

    fn object(&self) -> Value {
        let Self { text, file, line, column, key, remedy } = self;
        json!({ "error": text, "file": file, "line": line, "column": column, "key": key, "remedy": remedy })
    }
}

fn shown(path: &Path) -> String {
    escape::line(path.as_os_str().as_encoded_bytes())
}
