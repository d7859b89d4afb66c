//! A call of a tool: its parameters are checked, its command made of them, and that is run as `stockade run` would, under the tool's
//! policy and limits.
//!
//! Where there is a daemon, it calls a tool of its own: its files say what is run, and its gate whether and how often. Without one,
//! or with a directory that the caller names, what is checked is checked here, in the caller's own process: that keeps a caller
//! from mistakes, not from running the program some other way.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, Mode, OFlags, SeekFrom};
use serde_json::{Value, json};
use stockade_client::Request;
use stockade_gate::tools::expand::Input;
use stockade_gate::tools::manifest::Example;
use stockade_gate::tools::{Expanded, Tool, executable};
use stockade_gate::validate::{self, Mismatch, Parameters, beneath};
use stockade_policies::Question;
use stockade_protocol::denied::Denied;
use stockade_protocol::outcome::Outcome;

use super::{Place, get, look};
use crate::access::{self, Sought};
use crate::error::{CliError, chain};
use crate::trial::{self, Trial};
use crate::{escape, exit, json, out, policy, run, sources, words};

/// Of `tool call`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The tool's name
    name: String,
    /// Its parameters: a JSON object
    #[arg(value_name = "JSON", default_value = "{}")]
    parameters: OsString,
    /// The directory it works in [default: this one]
    #[arg(short, long, value_name = "DIR")]
    workspace: Option<PathBuf>,
    /// Events as JSON lines on standard output, the tool's output among them
    #[arg(long)]
    json: bool,
    /// The daemon's socket [default: $STOCKADE_SOCKET, the user's, the system's]
    #[arg(long, value_name = "PATH", conflicts_with = "embedded")]
    socket: Option<PathBuf>,
    /// Without the daemon, whether there is one or not
    #[arg(long)]
    embedded: bool,
    /// Say what was enforced and used
    #[arg(short, long)]
    verbose: bool,
}

pub(super) fn call(place: &Place, arguments: &Arguments) -> Result<u8, CliError> {
    if !place.is_named {
        let running = running(arguments, String::from("default"), Vec::new());
        if let Some(status) = run::call(&running, &arguments.name, arguments.parameters.as_encoded_bytes())? {
            return Ok(status);
        }
    }
    match prepared(place, arguments) {
        Ok((request, running, called)) => match permitted(place, arguments)? {
            Ok(()) => run::with(&running, request, called),
            Err(denied) => {
                crate::cli::tell(&CliError::Denied(denied));
                Ok(exit::OURS)
            }
        },
        // Nothing has run: as where a run was denied.
        Err(error) => {
            crate::cli::tell(&error);
            Ok(exit::OURS)
        }
    }
}

/// Whether the machine's rules permit the call. A daemon that runs it asks for itself, as for any command.
fn permitted(place: &Place, arguments: &Arguments) -> Result<Result<(), Denied>, CliError> {
    let registry = place.registry()?;
    let tool = get(&registry, &arguments.name)?;
    let policies = sources::named(&tool.policy)?;
    let parameters = Parameters::new(arguments.parameters.as_encoded_bytes().to_vec());
    let workspace = workspace(arguments.workspace.as_deref())?;
    access::judge(Sought::Call { tool, policies: &policies, parameters: &parameters }, &workspace)
}

/// A request, how it's run, and what the tool's file says of that.
fn prepared(
    place: &Place,
    arguments: &Arguments,
) -> Result<(Request, run::Arguments, run::Called), CliError> {
    let registry = place.registry()?;
    let tool = registry.get(&arguments.name).map_err(|error| CliError::Asked(error.to_string()))?;
    let parameters = validate::parse(arguments.parameters.as_encoded_bytes())
        .map_err(|mismatch| CliError::Asked(told(tool, &[mismatch])))?;
    let expanded = expanded(tool, &parameters)?;
    let workspace = workspace(arguments.workspace.as_deref())?;
    let stdin = input(tool, &expanded, &workspace)?;
    rustix::stdio::dup2_stdin(stdin).map_err(|error| CliError::Io {
        doing: "give the tool its standard input".into(),
        source: error.into(),
    })?;
    let command = expanded.arguments.into_iter().map(OsString::from_vec).collect();
    let running = running(arguments, tool.policy.clone(), command);
    let promising = tool.result.is_some().then(|| Arc::clone(tool));
    let output = if promising.is_some() { run::Output::Told } else { run::Output::Passed };
    let request = run::request(&running, output)?.overrides(tool.limits.clone());
    Ok((request, running, run::Called { openings: expanded.openings, promising }))
}

/// As `stockade run` would be told.
fn running(arguments: &Arguments, policy: String, command: Vec<OsString>) -> run::Arguments {
    run::Arguments {
        policy,
        workspace: arguments.workspace.clone(),
        timeout: None,
        memory: None,
        env: Vec::new(),
        detach: false,
        json: arguments.json,
        socket: arguments.socket.clone(),
        embedded: arguments.embedded,
        verbose: arguments.verbose,
        command,
    }
}

fn workspace(named: Option<&Path>) -> Result<PathBuf, CliError> {
    match named {
        Some(path) => path.canonicalize(),
        None => std::env::current_dir(),
    }
    .map_err(CliError::io("open the workspace"))
}

/// The command, of parameters that fit; its program is the one that was pinned.
fn expanded(tool: &Tool, parameters: &Value) -> Result<Expanded, CliError> {
    tool.parameters.check(parameters).map_err(|mismatches| CliError::Asked(told(tool, &mismatches)))?;
    let object =
        parameters.as_object().ok_or_else(|| CliError::Asked("the parameters are no object".into()))?;
    let expanded = tool.template.expand(object).map_err(|error| CliError::Asked(error.to_string()))?;
    pinned(tool)?;
    Ok(expanded)
}

/// A program that is pinned is opened and hashed; that nobody else can put another in its place until it is executed is asked of
/// its directories, as of every file that says what is run.
fn pinned(tool: &Tool) -> Result<(), CliError> {
    let Some(pin) = tool.pin else { return Ok(()) };
    let program = Path::new(&tool.template.program);
    let directory = program.parent().unwrap_or(Path::new("/"));
    let refused = |error: &dyn std::error::Error| CliError::Asked(format!("{}: {}", tool.name, chain(error)));
    let found = directory.metadata().map_err(CliError::io("look at the program's directory"))?;
    look(directory, &found).map_err(|refusal| refused(&refusal))?;
    executable::verify(program, pin, &|found| look(program, found)).map_err(|error| refused(&error))?;
    Ok(())
}

fn told(tool: &Tool, mismatches: &[Mismatch]) -> String {
    let lines: Vec<String> = mismatches.iter().map(Mismatch::to_string).collect();
    format!("{}: {}", tool.name, lines.join(&format!("\n{}: ", tool.name)))
}

/// The tool's standard input, and never ours.
fn input(tool: &Tool, expanded: &Expanded, workspace: &Path) -> Result<OwnedFd, CliError> {
    let failed = |doing: &'static str| {
        move |error: rustix::io::Errno| CliError::Io { doing: doing.into(), source: error.into() }
    };
    match &expanded.stdin {
        Input::Nothing => rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(failed("open /dev/null")),
        Input::Bytes(bytes) => {
            let doing = "keep the parameters for the tool";
            let memory =
                rustix::fs::memfd_create("parameters", MemfdFlags::CLOEXEC).map_err(failed(doing))?;
            let mut left = bytes.as_slice();
            while !left.is_empty() {
                let count = rustix::io::write(&memory, left).map_err(failed(doing))?;
                left = left.get(count..).unwrap_or_default();
            }
            rustix::fs::seek(&memory, SeekFrom::Start(0)).map_err(failed(doing))?;
            Ok(memory)
        }
        Input::File(path) => {
            readable(tool, workspace, path)?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let opened =
                rustix::fs::open(workspace, flags, Mode::empty()).map_err(failed("open the workspace"))?;
            let refused =
                |error| CliError::Asked(format!("{}: {}: {error}", tool.name, escape::line(path.as_bytes())));
            beneath::open(opened.as_fd(), path).map_err(refused)
        }
    }
}

/// What is opened out here has to be what the run could read in there.
fn readable(tool: &Tool, workspace: &Path, path: &str) -> Result<(), CliError> {
    let set = sources::named(&tool.policy)?;
    let policy = set.get(&tool.policy).map_err(|error| CliError::Policies(error.into()))?;
    let answer =
        policy::resolved(policy, workspace.to_owned())?.explain(&Question::Read(workspace.join(path)));
    if answer.allowed {
        return Ok(());
    }
    let text = format!(
        "{}: the policy `{}` doesn't let {} be read: {}",
        tool.name,
        tool.policy,
        escape::line(path.as_bytes()),
        answer.rule
    );
    Err(CliError::Asked(text))
}

/// What came of an example.
struct Came {
    tool: String,
    title: String,
    /// What is wrong with it.
    wrong: Option<String>,
}

/// Runs the examples of tools, each without a daemon.
pub(super) fn test(
    place: &Place,
    names: &[String],
    workspace: Option<&Path>,
    as_json: bool,
) -> Result<u8, CliError> {
    let registry = place.registry()?;
    let workspace = self::workspace(workspace)?;
    let tools: Vec<&Tool> = match names {
        [] => registry.tools().map(AsRef::as_ref).collect(),
        names => names.iter().map(|name| get(&registry, name)).collect::<Result<_, _>>()?,
    };
    let (mut lines, mut status) = (Vec::new(), 0);
    for tool in tools {
        for (at, example) in (1..).zip(&tool.examples) {
            let title =
                if example.title.is_empty() { format!("example {at}") } else { example.title.clone() };
            let wrong = tried(tool, example, &workspace).unwrap_or_else(|error| Some(chain(&error)));
            if wrong.is_some() {
                status = exit::FAILED;
            }
            lines.extend(line(&Came { tool: tool.name.clone(), title, wrong }, as_json));
        }
        if tool.examples.is_empty() {
            let object = json!({ "tool": tool.name, "example": null, "ok": null, "wrong": null });
            let text = || format!("{}: its file has no examples\n", tool.name).into_bytes();
            lines.extend(if as_json { json::line(&object) } else { text() });
        }
    }
    out::print_with(&lines, status)
}

fn line(came: &Came, as_json: bool) -> Vec<u8> {
    let Came { tool, title, wrong } = came;
    if as_json {
        return json::line(&json!({ "tool": tool, "example": title, "ok": wrong.is_none(), "wrong": wrong }));
    }
    let end = wrong.as_deref().unwrap_or("ok");
    format!("{tool}: {}: {}\n", escape::line(title.as_bytes()), escape::line(end.as_bytes())).into_bytes()
}

/// What is wrong with what comes of an example, if anything is.
fn tried(tool: &Tool, example: &Example, workspace: &Path) -> Result<Option<String>, CliError> {
    let expanded = expanded(tool, &Value::Object(example.parameters.clone()))?;
    let stdin = input(tool, &expanded, workspace)?;
    let request = Request::new(expanded.arguments.into_iter().map(OsString::from_vec))
        .policy(&tool.policy)
        .environment(std::env::vars_os().map(|(name, value)| (name.into(), value.into())).collect())
        .overrides(tool.limits.clone())
        .workspace(workspace)
        .map_err(CliError::io("open the workspace"))?
        .stdin_from(stdin);
    let set = sources::named(&tool.policy)?;
    let (outcome, output) = match trial::attempt(&set, request, &expanded.openings)? {
        Trial::Denied(denied) => return Ok(Some(words::denied(&denied))),
        Trial::Ended { outcome, output, .. } => (outcome, output),
    };
    let Outcome::Exited { code } = outcome else {
        return Ok(Some(format!("it didn't end by itself: {outcome:?}")));
    };
    if code != example.exit {
        return Ok(Some(format!("it exits with {code}, not {}", example.exit)));
    }
    let text = String::from_utf8_lossy(&output);
    if let Some(expected) = &example.output
        && !text.contains(expected.as_str())
    {
        return Ok(Some(format!("its output hasn't {:?} in it", validate::mismatch::shown(expected, 60))));
    }
    // What an example ends well with is what the tool promises.
    let promised = if tool.is_failure(code) { Ok(()) } else { tool.check_output(&output) };
    Ok(promised
        .err()
        .and_then(|mismatches| mismatches.first().map(|mismatch| format!("its output: {mismatch}"))))
}
