//! `stockade policy`: which policies there are, what they say, and what they would decide.
//!
//! `explain` resolves the policy for this directory and this user exactly as an embedded run would, and answers
//! from the spec that run would have been given.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use stockade_policies::{Answer, Policy, PolicySet, Question, ResolveRequest, Resolved, Subject, resolve};

use crate::color::Paint;
use crate::error::{CliError, chain};
use crate::{cli, escape, exit, follow, json, out, sources, table};

const EXAMPLES: &str = "Examples:
  stockade policy list
  stockade policy show build
  stockade policy check policies/*.toml
  stockade policy explain default write .git/hooks/pre-commit
  stockade policy explain ./ci.toml connect 443";

const EXPLAIN_EXAMPLES: &str = "Examples:
  stockade policy explain default read ~/.ssh/id_ed25519
  stockade policy explain default write .git/hooks/pre-commit
  stockade policy explain default execute /usr/bin/git
  stockade policy explain loopback connect 8080
  stockade policy explain default env AWS_SECRET_ACCESS_KEY
  stockade policy explain default syscall ptrace

Exit status: 0 allowed, 1 not allowed, 2 a question that can't be answered.";

/// Lists, shows, checks and explains policies.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    subcommand: Subcommand,
}

#[derive(Debug, clap::Subcommand)]
enum Subcommand {
    /// The policies there are
    List {
        /// One JSON object a policy
        #[arg(long)]
        json: bool,
    },
    /// A policy in full, as TOML, with everything it inherits
    Show {
        /// Its name, or a file
        #[arg(value_name = "NAME|FILE")]
        policy: String,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Checks files: every error with file, line and column
    Check {
        /// The files
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// One JSON object a file
        #[arg(long)]
        json: bool,
    },
    /// Says whether a policy allows something here, and which rule decides
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain {
        /// Its name, or a file
        #[arg(value_name = "NAME|FILE")]
        policy: String,
        /// What would be done
        #[arg(value_enum)]
        what: What,
        /// To what: a path (relative to the workspace), a port, a variable's name, a system call's name
        thing: String,
        /// The workspace [default: this directory]
        #[arg(short, long, value_name = "DIR")]
        workspace: Option<PathBuf>,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
}

/// What would be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    Read,
    Write,
    Execute,
    Connect,
    Bind,
    Env,
    Syscall,
}

pub(crate) fn policy(arguments: &Arguments) -> Result<u8, CliError> {
    match &arguments.subcommand {
        Subcommand::List { json } => list(*json),
        Subcommand::Show { policy, json } => show(policy, *json),
        Subcommand::Check { files, json } => check(files, *json),
        Subcommand::Explain { policy, what, thing, workspace, json } => {
            // "Not allowed" has a status of its own; no answer at all must not look like it.
            explain(policy, *what, thing, workspace.as_deref(), *json).or_else(|error| {
                cli::tell(&error);
                Ok(exit::USAGE)
            })
        }
    }
}

fn list(as_json: bool) -> Result<u8, CliError> {
    let set = sources::all()?;
    let policies: Vec<&Policy> = set.names().iter().filter_map(|name| set.get(name).ok()).collect();
    if as_json {
        let lines: Vec<u8> = policies.iter().flat_map(|policy| json::line(&described(policy))).collect();
        return out::print(&lines);
    }
    let head = ["POLICY", "LEVEL", "FILE", "DESCRIPTION"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head)
        .chain(policies.iter().map(|policy| {
            [
                policy.name().to_owned(),
                follow::level(policy.level()).to_owned(),
                escape::line(policy.file().as_bytes()),
                escape::line(policy.description().as_bytes()),
            ]
        }))
        .collect();
    let paint = Paint::to(&std::io::stdout());
    let text =
        table::columns(&rows, |row, _, cell| if row == 0 { paint.bold(cell) } else { cell.to_owned() });
    out::print(text.as_bytes())
}

fn described(policy: &Policy) -> Value {
    json!({
        "name": policy.name(),
        "description": policy.description(),
        "level": policy.level(),
        "file": policy.file(),
        "extends": policy.ancestors(),
    })
}

fn show(name: &str, as_json: bool) -> Result<u8, CliError> {
    let (set, name) = find(name)?;
    let policy = get(&set, &name)?;
    if as_json {
        let mut value = described(policy);
        value["toml"] = Value::String(policy.to_toml());
        return out::print(&json::line(&value));
    }
    out::print(escape::text(policy.to_toml().as_bytes()).as_bytes())
}

fn check(files: &[PathBuf], as_json: bool) -> Result<u8, CliError> {
    let mut status = 0;
    let mut lines = Vec::new();
    for file in files {
        let error = sources::with_file(file).err().map(|error| match &error {
            CliError::Policies(source) => chain(source.as_ref()),
            other => chain(other),
        });
        if error.is_some() {
            status = exit::FAILED;
        }
        let shown = escape::line(file.as_os_str().as_encoded_bytes());
        match (&error, as_json) {
            (error, true) => {
                lines.extend(json::line(&json!({ "file": shown, "ok": error.is_none(), "error": error })));
            }
            (None, false) => lines.extend(format!("{shown}: ok\n").into_bytes()),
            // The error names file, line and column itself.
            (Some(error), false) => lines.extend(format!("{error}\n").into_bytes()),
        }
    }
    out::print_with(&lines, status)
}

fn explain(
    name: &str,
    what: What,
    thing: &str,
    workspace: Option<&Path>,
    as_json: bool,
) -> Result<u8, CliError> {
    let (set, name) = find(name)?;
    let policy = get(&set, &name)?;
    let workspace = match workspace {
        Some(path) => path.canonicalize(),
        None => std::env::current_dir(),
    }
    .map_err(CliError::io("open the workspace"))?;
    let question = question(what, thing, &workspace)?;
    let resolved = resolved(policy, workspace)?;
    let answer = resolved.explain(&question);
    let status = if answer.allowed { 0 } else { exit::FAILED };
    let text =
        if as_json { json::line(&told(&answer, &name, what, thing)) } else { said(&answer).into_bytes() };
    out::print_with(&text, status)
}

fn told(answer: &Answer, policy: &str, what: What, thing: &str) -> Value {
    json!({
        "policy": policy,
        "question": format!("{what:?}").to_lowercase(),
        "thing": thing,
        "allowed": answer.allowed,
        "rule": answer.rule,
        "file": answer.file,
        "line": answer.line,
        "note": note(answer),
    })
}

fn said(answer: &Answer) -> String {
    let paint = Paint::to(&std::io::stdout());
    let verdict = if answer.allowed { paint.green("allowed") } else { paint.red("denied") };
    let mut text = format!("{verdict}: {}\n", escape::line(answer.rule.as_bytes()));
    if answer.line > 0 {
        text.push_str(&format!("  at {}:{}\n", escape::line(answer.file.as_bytes()), answer.line));
    } else if !answer.file.is_empty() {
        text.push_str(&format!("  at {}\n", escape::line(answer.file.as_bytes())));
    }
    let note = note(answer);
    if !note.is_empty() {
        text.push_str(&format!("  {}\n", escape::line(note.as_bytes())));
    }
    text
}

/// What else is to be known. Whoever asks here reads the policies' files himself.
fn note(answer: &Answer) -> String {
    match &answer.value {
        Some(value) => format!("its value is `{}`", value.escape_ascii()),
        None => answer.note.clone(),
    }
}

/// What is asked, in the policies' terms.
fn question(what: What, thing: &str, workspace: &Path) -> Result<Question, CliError> {
    let path = || workspace.join(home_of(thing));
    let port =
        || thing.parse().map_err(|_| CliError::Asked(format!("{thing:?} is no port: expected 0 to 65535")));
    Ok(match what {
        What::Read => Question::Read(path()),
        What::Write => Question::Write(path()),
        What::Execute => Question::Execute(path()),
        What::Connect => Question::Connect(port()?),
        What::Bind => Question::Bind(port()?),
        What::Env => Question::Env(thing.to_owned()),
        What::Syscall => Question::Syscall(thing.to_owned()),
    })
}

/// A path that begins with `~` that no shell has expanded.
fn home_of(thing: &str) -> PathBuf {
    match thing.strip_prefix("~/") {
        Some(rest) => sources::home().join(rest),
        None => PathBuf::from(thing),
    }
}

/// Resolved as an embedded run of ours in this workspace would be.
pub(crate) fn resolved(policy: &Policy, workspace: PathBuf) -> Result<Resolved, CliError> {
    let uid = rustix::process::geteuid().as_raw();
    let subject = Subject {
        owner_uid: uid,
        owner_gid: rustix::process::getegid().as_raw(),
        home: sources::home().to_owned(),
        workspace,
        overrides: stockade_client::Overrides::default(),
        user_mode: uid != 0,
    };
    let environment = std::env::vars_os().map(|(name, value)| (name.into(), value.into())).collect();
    let request = ResolveRequest { subject, cwd: None, environment };
    resolve(policy, &request).map_err(|error| CliError::Policies(error.into()))
}

/// The set to look in, and the name: of a policy, or of a file's.
fn find(name: &str) -> Result<(PolicySet, String), CliError> {
    if name.contains('/') || name.ends_with(".toml") {
        return sources::with_file(Path::new(name));
    }
    Ok((sources::all()?, name.to_owned()))
}

fn get<'a>(set: &'a PolicySet, name: &str) -> Result<&'a Policy, CliError> {
    set.get(name).map_err(|error| CliError::Policies(error.into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_relative_path_is_the_workspaces() {
        let asked = |thing| match question(What::Write, thing, Path::new("/w")).unwrap() {
            Question::Write(path) => path,
            _ => PathBuf::new(),
        };
        assert_eq!(asked(".git/hooks"), Path::new("/w/.git/hooks"));
        assert_eq!(asked("/etc/passwd"), Path::new("/etc/passwd"));
        assert!(asked("~/x").is_absolute() && !asked("~/x").starts_with("/w"));
    }

    #[test]
    fn a_port_is_a_number_of_sixteen_bits() {
        for thing in ["http", "65536", "-1", ""] {
            assert!(question(What::Connect, thing, Path::new("/w")).is_err(), "{thing}");
        }
        assert!(matches!(question(What::Bind, "65535", Path::new("/w")).unwrap(), Question::Bind(65535)));
    }
}
