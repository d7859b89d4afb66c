//! `stockade run`: one command, confined; through the daemon where there is one, else by ourselves.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser};
use stockade_client::{Client, Overrides, Request};
use stockade_policies::Question;
use stockade_protocol::Bytes;
use stockade_protocol::bounds::MAX_ARGUMENTS_TOTAL;
use stockade_protocol::client::Workspace;

use crate::daemon::{self, Session};
use crate::embedded;
use crate::error::CliError;
use crate::follow::Follow;
use crate::place::{self, Found};
use crate::{json, out, policy, sources, units};

/// The policy of who names none.
const DEFAULT_POLICY: &str = "default";

const EXAMPLES: &str = "Examples:
  stockade run -- make test                              in this directory, policy `default`
  stockade run --policy build --timeout 10m -- cargo build
  stockade run --policy ./ci.toml -- ./check.sh          a policy of your own, without the daemon
  stockade run --env CC=clang --memory 256MiB -- make
  id=$(stockade run --detach -- ./long.sh); stockade logs --follow $id

Exit status: the command's; 124 a time limit; 137 over its memory; 126 found but not executable; 127 not found;
128+n signal n; 125 everything else of ours: denied, set-up failed, cancelled, too much output, too many processes.";

/// Runs a command confined: what it can't reach, it can't hurt.
#[derive(Debug, clap::Parser)]
#[command(name = "stockade run", bin_name = "stockade run", after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// A policy's name, or a file of yours (with a `/` in it, or ending in .toml), which runs without the daemon
    #[arg(short, long, value_name = "NAME|FILE", default_value = DEFAULT_POLICY)]
    pub(crate) policy: String,
    /// The directory it works in [default: this one]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workspace: Option<PathBuf>,
    /// End it after so long (500ms, 30s, 5m); may only be less than the policy says
    #[arg(short, long, value_name = "TIME", value_parser = units::time)]
    pub(crate) timeout: Option<u64>,
    /// End it over so much memory (256MiB); may only be less than the policy says
    #[arg(short, long, value_name = "SIZE", value_parser = units::size)]
    pub(crate) memory: Option<u64>,
    /// A variable it must have: from here, or with this value. The policy has to allow its name
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = OsStringValueParser::new().try_map(|text| variable(&text)))]
    pub(crate) env: Vec<Variable>,
    /// Print the run's id and leave it to the daemon
    #[arg(short, long, conflicts_with = "embedded")]
    pub(crate) detach: bool,
    /// Events as JSON lines on standard output, the command's output among them
    #[arg(long)]
    pub(crate) json: bool,
    /// The daemon's socket [default: $STOCKADE_SOCKET, the user's, the system's]
    #[arg(long, value_name = "PATH", conflicts_with = "embedded")]
    pub(crate) socket: Option<PathBuf>,
    /// Without the daemon, whether there is one or not
    #[arg(long)]
    pub(crate) embedded: bool,
    /// Say what was enforced and used
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
}

/// A `--env`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    name: Bytes,
    value: Option<Bytes>,
}

fn variable(text: &OsStr) -> Result<Variable, String> {
    let bytes = text.as_bytes();
    let (name, value) = match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) => (&bytes[..at], Some(Bytes::from(&bytes[at + 1..]))),
        None => (bytes, None),
    };
    if name.is_empty() {
        Err("expected NAME or NAME=VALUE".into())
    } else {
        Ok(Variable { name: Bytes::from(name), value })
    }
}

impl Arguments {
    /// As clap parses them. What most runs are has no options to be told from anything, and clap takes as long to learn what
    /// there could be as a namespace takes to be made.
    pub(crate) fn parse_quickly(words: Vec<OsString>) -> Result<Self, clap::Error> {
        match Self::plain(&words) {
            Some(plain) => Ok(plain),
            None => <Self as clap::Parser>::try_parse_from(words),
        }
    }

    /// The plainest command lines: `run`, perhaps `--embedded` and a policy, each once, `--` and the command. `None`: clap is to
    /// say what it is.
    fn plain(words: &[OsString]) -> Option<Self> {
        let mut words = words.get(1..)?.iter();
        let (mut embedded, mut policy) = (false, None);
        loop {
            match words.next()?.to_str()? {
                "--" => break,
                "--embedded" if !embedded => embedded = true,
                "-p" | "--policy" if policy.is_none() => {
                    let name = words.next()?.to_str()?;
                    policy = Some(name).filter(|name| !name.is_empty() && !name.starts_with('-'));
                    policy?;
                }
                _ => return None,
            }
        }
        let command: Vec<_> = words.cloned().collect();
        (!command.is_empty()).then(|| Self {
            policy: policy.unwrap_or(DEFAULT_POLICY).to_owned(),
            workspace: None,
            timeout: None,
            memory: None,
            env: Vec::new(),
            detach: false,
            json: false,
            socket: None,
            embedded,
            verbose: false,
            command,
        })
    }

    /// Whether the policy is a file's path, not a name.
    pub(crate) fn policy_file(&self) -> Option<&Path> {
        let is_file = self.policy.contains('/') || self.policy.ends_with(".toml");
        is_file.then(|| Path::new(&self.policy))
    }

    /// The names that `--env` demands.
    pub(crate) fn demanded(&self) -> Vec<Bytes> {
        self.env.iter().map(|variable| variable.name.clone()).collect()
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<u8, CliError> {
    let way = way(arguments)?;
    let request = request(arguments)?;
    let mut follow = Follow::new(arguments.json, arguments.verbose);
    match way {
        Way::Daemon(client, path) if arguments.detach => {
            let mut client = place::greeted(client, path)?;
            let exec_id = daemon::detach(&mut client, &request)?;
            let line = match arguments.json {
                true => json::line(&serde_json::json!({ "exec_id": exec_id })),
                false => format!("{exec_id}\n").into_bytes(),
            };
            out::print(&line)
        }
        Way::Daemon(client, path) => {
            for note in left_away(arguments, &request) {
                follow.note(&note);
            }
            if arguments.verbose {
                let client = place::greeted(client, path.clone())?;
                follow.detail(&format!("through the daemon, release {}", client.welcome().server));
                return Session::run(client, path, &request, &mut follow);
            }
            Session::run(client, path, &request, &mut follow)
        }
        Way::Embedded(why) => {
            follow.detail(&format!("without a daemon: {why}"));
            embedded::run(arguments, request, &mut follow)
        }
    }
}

/// What `--env` demands that a daemon will leave away, as far as can be known here: its policy of that name may be
/// another, so this is a note and no error.
fn left_away(arguments: &Arguments, request: &Request) -> Vec<String> {
    let (Workspace::Descriptor { path } | Workspace::Path { path }) = &request.exec().workspace else {
        return Vec::new();
    };
    let known = || {
        let set = sources::named(&arguments.policy).ok()?;
        policy::resolved(set.get(&arguments.policy).ok()?, path.as_path().to_owned()).ok()
    };
    let Some(resolved) = (if arguments.env.is_empty() { None } else { known() }) else { return Vec::new() };
    let policy = crate::escape::line(arguments.policy.as_bytes());
    let names = arguments.env.iter().map(|variable| variable.name.to_text());
    let kept_away = names.filter(|name| !resolved.explain(&Question::Env(name.clone())).allowed);
    let note = |name: String| {
        let name = crate::escape::line(name.as_bytes());
        format!(
            "policy `{policy}`, as it is known here, doesn't allow the variable {name}: a daemon leaves it away"
        )
    };
    kept_away.map(note).collect()
}

/// How the command is run.
enum Way {
    Daemon(Client, PathBuf),
    Embedded(&'static str),
}

fn way(arguments: &Arguments) -> Result<Way, CliError> {
    if arguments.policy_file().is_some() {
        if arguments.detach || arguments.socket.is_some() {
            let text =
                "a daemon takes policies by name, never a file: put it into the daemon's policy directory";
            return Err(CliError::Asked(text.into()));
        }
        return Ok(Way::Embedded("the policy is a file"));
    }
    if arguments.embedded {
        return Ok(Way::Embedded("asked for"));
    }
    match place::look(arguments.socket.as_deref())? {
        Found::Daemon(client, path) => Ok(Way::Daemon(client, path)),
        Found::Nobody(tried) if arguments.detach => Err(CliError::NoDaemon { what: "--detach", tried }),
        Found::Nobody(_) => Ok(Way::Embedded("none is there")),
    }
}

/// The request, with the descriptors that are ours to pass.
fn request(arguments: &Arguments) -> Result<Request, CliError> {
    let environment = environment(&arguments.env)?;
    bounded(arguments, &environment)?;
    // Ours may have been removed, which matters only where it would be the workspace.
    let (here, workspace) = match (std::env::current_dir(), arguments.workspace.as_deref()) {
        (here, Some(workspace)) => (here.ok(), workspace.to_owned()),
        (here, None) => {
            let here = here.map_err(CliError::io("tell the current directory"))?;
            (Some(here.clone()), here)
        }
    };
    let request = Request::new(arguments.command.iter().cloned())
        .policy(&arguments.policy)
        .environment(environment)
        .overrides(Overrides { wall_ms: arguments.timeout, memory: arguments.memory, ..Overrides::default() })
        .workspace(&workspace)
        .map_err(CliError::io(format!("open the workspace {}", workspace.display())))?;
    let beneath = here.filter(|here| match &request.exec().workspace {
        Workspace::Descriptor { path } | Workspace::Path { path } => here.starts_with(path.as_path()),
        _ => false,
    });
    let request = match beneath {
        Some(here) => request.cwd(here),
        None => request,
    };
    if arguments.detach {
        return Ok(request.detach());
    }
    // Not by the handles of the standard library, which have buffers.
    let own = |fd: std::os::fd::BorrowedFd<'_>| {
        fd.try_clone_to_owned().map_err(CliError::io("duplicate a standard descriptor"))
    };
    let request = request.stdin_from(own(rustix::stdio::stdin())?);
    if arguments.json {
        return Ok(request);
    }
    Ok(request.output_to(own(rustix::stdio::stdout())?, own(rustix::stdio::stderr())?))
}

/// Refuses by name what no message could carry; the supervisor checks the rest.
fn bounded(arguments: &Arguments, environment: &[(Bytes, Bytes)]) -> Result<(), CliError> {
    let words: usize = arguments.command.iter().map(|word| word.len() + 1).sum();
    let variables: usize = environment.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    if words + variables <= MAX_ARGUMENTS_TOTAL {
        return Ok(());
    }
    Err(CliError::Asked(format!(
        "denied: {words} bytes of arguments and {variables} of environment; at most {MAX_ARGUMENTS_TOTAL} together"
    )))
}

/// Our environment, and what `--env` adds.
fn environment(demanded: &[Variable]) -> Result<Vec<(Bytes, Bytes)>, CliError> {
    let mut environment: Vec<(Bytes, Bytes)> =
        std::env::vars_os().map(|(name, value)| (name.into(), value.into())).collect();
    for Variable { name, value } in demanded {
        match value {
            Some(value) => {
                environment.retain(|(known, _)| known != name);
                environment.push((name.clone(), value.clone()));
            }
            None if environment.iter().any(|(known, _)| known == name) => {}
            None => {
                let name = crate::escape::line(name);
                return Err(CliError::Asked(format!("--env {name}: no such variable here; give it a value")));
            }
        }
    }
    Ok(environment)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use clap::Parser;

    use super::*;

    fn parse(words: &[&str]) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(std::iter::once(&"stockade run").chain(words))
    }

    #[test]
    fn everything_from_the_command_on_is_the_commands() {
        let table: [(&[&str], &[&str]); 5] = [
            (&["--", "true"], &["true"]),
            (&["true"], &["true"]),
            (&["ls", "-l", "--policy", "x"], &["ls", "-l", "--policy", "x"]),
            (&["-v", "--", "--odd", "--help"], &["--odd", "--help"]),
            (&["sh", "-c", "a -- b", "--"], &["sh", "-c", "a -- b", "--"]),
        ];
        for (words, command) in table {
            assert_eq!(parse(words).unwrap().command, command, "{words:?}");
        }
    }

    #[test]
    fn a_command_line_without_a_command_or_that_contradicts_itself_is_refused() {
        let table: [&[&str]; 8] = [
            &[],
            &["--"],
            &["--timeout", "30", "true"],
            &["--memory", "1G", "true"],
            &["--env", "=x", "true"],
            &["--detach", "--embedded", "true"],
            &["--socket", "/x", "--embedded", "true"],
            &["--no-such", "true"],
        ];
        for words in table {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn what_is_parsed_quickly_is_parsed_alike() {
        let table: [&[&str]; 14] = [
            &["run", "--embedded", "--", "true"],
            &["run", "--embedded", "-p", "strict", "--", "true", "--embedded"],
            &["run", "--policy", "x", "--", "-p", "y"],
            &["run", "--embedded", "--embedded", "--", "true"],
            &["run", "-p", "x", "-p", "y", "--", "true"],
            &["run", "-p", "--", "true"],
            &["run", "-p", "-x", "--", "true"],
            &["run", "-p", "", "--", "true"],
            &["run", "--", "true"],
            &["run", "--", "--odd", "--", "-p", "x"],
            &["run", "--", ""],
            &["run", "true"],
            &["run", "-p", "x", "--", "true"],
            &["run", "--"],
        ];
        for words in table {
            let words: Vec<OsString> = words.iter().map(Into::into).collect();
            let quickly = Arguments::parse_quickly(words.clone()).map(|parsed| format!("{parsed:?}"));
            let slowly = Arguments::try_parse_from(&words).map(|parsed| format!("{parsed:?}"));
            assert_eq!(quickly.ok(), slowly.ok(), "{words:?}");
        }
    }

    #[test]
    fn a_policy_with_a_slash_or_an_ending_is_a_file() {
        for (policy, file) in
            [("default", false), ("./x", true), ("x.toml", true), ("a/b", true), ("default.tom", false)]
        {
            assert_eq!(parse(&["-p", policy, "true"]).unwrap().policy_file().is_some(), file, "{policy}");
        }
    }

    #[test]
    fn a_variable_has_a_name_and_perhaps_a_value() {
        let of = |text: &str| variable(OsStr::new(text));
        assert_eq!(of("A=b=c").unwrap(), Variable { name: "A".into(), value: Some("b=c".into()) });
        assert_eq!(of("A=").unwrap(), Variable { name: "A".into(), value: Some("".into()) });
        assert_eq!(of("A").unwrap(), Variable { name: "A".into(), value: None });
        assert!(of("").is_err());
    }

    #[test]
    fn a_variable_that_is_demanded_and_not_there_is_an_error() {
        let missing = [Variable { name: "STOCKADE_NO_SUCH_VARIABLE".into(), value: None }];
        assert!(environment(&missing).unwrap_err().to_string().contains("no such variable"));
        let given = [Variable { name: "PATH".into(), value: Some("/x".into()) }];
        let paths: Vec<_> =
            environment(&given).unwrap().into_iter().filter(|(name, _)| **name == *b"PATH").collect();
        assert_eq!(paths, [("PATH".into(), "/x".into())]);
    }

    #[test]
    fn arguments_need_not_be_utf8() {
        let odd = OsStr::from_bytes(b"\xff\xfe").to_owned();
        let words = [OsString::from("stockade run"), "--".into(), "echo".into(), odd.clone()];
        assert_eq!(Arguments::try_parse_from(words).unwrap().command[1], odd);
    }
}
