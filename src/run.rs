//! `stockade run`: one command, confined; through the daemon where there is one, else by ourselves.

mod arguments;

use std::path::PathBuf;
use std::sync::Arc;

use stockade_client::{Client, Overrides, Request};
use stockade_gate::tools::Tool;
use stockade_policies::Question;
use stockade_protocol::Bytes;
use stockade_protocol::bounds::MAX_ARGUMENTS_TOTAL;
use stockade_protocol::client::Workspace;
use stockade_protocol::launch::Opening;

use crate::daemon::{self, Session};
use crate::embedded;
use crate::error::CliError;
use crate::follow::Follow;
use crate::place::{self, Found};
use crate::{json, out, policy, sources};
pub(crate) use arguments::{Arguments, Variable};

pub(crate) fn run(arguments: &Arguments) -> Result<u8, CliError> {
    let way = way(arguments)?;
    let follow = Follow::new(arguments.json, arguments.verbose);
    go(arguments, way, request(arguments, Output::Passed)?, None, follow)
}

/// A call that the machine's rules of access permit.
#[derive(Debug)]
pub(crate) struct Called {
    /// What its run finds open.
    pub(crate) openings: Vec<Opening>,
    /// The tool, if it says what it prints.
    pub(crate) promising: Option<Arc<Tool>>,
}

/// Runs a request that has been made already, of a call.
pub(crate) fn with(arguments: &Arguments, request: Request, mut called: Called) -> Result<u8, CliError> {
    let follow = Follow::new(arguments.json, arguments.verbose).promised(called.promising.take());
    let way = way(arguments)?;
    if matches!(way, Way::Daemon(..)) && !called.openings.is_empty() {
        let text =
            "a daemon hands files to the tools that it has, and this one is yours: call it with --embedded";
        return Err(CliError::Asked(text.into()));
    }
    go(arguments, way, request, Some(&called), follow)
}

/// Has the daemon call a tool that it has. `None`: there is no daemon.
pub(crate) fn call(arguments: &Arguments, name: &str, parameters: &[u8]) -> Result<Option<u8>, CliError> {
    let way = way(arguments)?;
    if let Way::Embedded(_) = way {
        return Ok(None);
    }
    let request = request(arguments, Output::Passed)?.tool(name, parameters);
    let follow = Follow::new(arguments.json, arguments.verbose);
    go(arguments, way, request, None, follow).map(Some)
}

/// `called`: rules of access have been asked already.
fn go(
    arguments: &Arguments,
    way: Way,
    request: Request,
    called: Option<&Called>,
    mut follow: Follow,
) -> Result<u8, CliError> {
    match way {
        Way::Daemon(client, path) if arguments.detach => {
            let mut client = place::greeted(client, path)?;
            let exec_id = daemon::detach(&mut client, &request, &mut follow)?;
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
            embedded::run(arguments, request, called, &mut follow)
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

/// How a run's output comes to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// Not at all, where that can be: it has our descriptors.
    Passed,
    /// As events.
    Told,
}

/// The request, with the descriptors that are ours to pass.
pub(crate) fn request(arguments: &Arguments, output: Output) -> Result<Request, CliError> {
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
    if arguments.json || output == Output::Told {
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
    use super::*;

    #[test]
    fn a_variable_that_is_demanded_and_not_there_is_an_error() {
        let missing = [Variable { name: "STOCKADE_NO_SUCH_VARIABLE".into(), value: None }];
        assert!(environment(&missing).unwrap_err().to_string().contains("no such variable"));
        let given = [Variable { name: "PATH".into(), value: Some("/x".into()) }];
        let paths: Vec<_> =
            environment(&given).unwrap().into_iter().filter(|(name, _)| **name == *b"PATH").collect();
        assert_eq!(paths, [("PATH".into(), "/x".into())]);
    }
}
