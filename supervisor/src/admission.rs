//! Whether a request is in order, and what the launcher is to be told of it: a pure function from request, caller
//! and policies to a [`Launch`] or a [`Denied`].
//!
//! The daemon and the embedded command line share it, so a request means the same with and without a daemon.
//! Every bound it holds is named in `stockade_protocol::bounds`. It never widens anything: what a client asks for
//! only ever tightens what the policy says.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use stockade_gate::redact::{MAX_VALUE, MIN_VALUE};
use stockade_policies::{Confines, PolicySet, Subject, Surroundings};
use stockade_protocol::bounds::{
    MAX_ARGUMENT, MAX_ARGUMENTS, MAX_ARGUMENTS_TOTAL, MAX_ENVIRONMENT, MAX_PATH, MAX_POLICY_NAME,
    MAX_SECRET_BYTES, MAX_SECRETS, MAX_STDIN_CHUNK, RING_BYTES,
};
use stockade_protocol::client::{ExecRequest, OutputMode, StdinMode, Workspace};
use stockade_protocol::denied::{Denied, DenyReason};
use stockade_protocol::launch::{Launch, LaunchOutput, Owner, Redaction, RunNote, SpecNumber};
use stockade_protocol::spec::{Limits, SandboxSpec};
use stockade_protocol::{Bytes, ExecId};

use crate::descriptors::Kind;
use crate::runs::shown_command;

/// What it's called where it has decided, as the gate's stages are called by theirs.
pub(crate) const STAGE: &str = "admission";
/// The longest name of a secret in a mark, in bytes.
const MAX_MARK: usize = 64;

/// For whom a request is judged.
#[derive(Debug, Clone)]
pub struct Caller {
    /// What the kernel says of the peer.
    pub owner: Owner,
    /// The owner's home directory.
    pub home: PathBuf,
    /// Whether this is a user's own daemon, or the embedded command line of a user.
    pub user_mode: bool,
}

/// What came beside a request, as far as it counts here.
#[derive(Debug, Clone, Default)]
pub struct Passed {
    /// Of the workspace's descriptor, passed or opened for its client: its path in our view; inner `None`: it isn't a directory.
    pub workspace: Option<Option<PathBuf>>,
    /// What standard input is.
    pub stdin: Option<Kind>,
    /// What standard output and error are.
    pub output: Option<[Kind; 2]>,
}

/// How many descriptors a request names, in the order workspace, stdin, stdout, stderr.
#[must_use]
pub fn named_descriptors(request: &ExecRequest) -> usize {
    usize::from(matches!(request.workspace, Workspace::Descriptor { .. }))
        + usize::from(request.stdin == StdinMode::Descriptor)
        + 2 * usize::from(request.output == OutputMode::Descriptor)
}

/// A request that may run.
#[derive(Debug)]
pub struct Admitted {
    /// For the launcher.
    pub launch: Launch,
    /// What the launch's number stands for.
    pub spec: Arc<SandboxSpec>,
    /// Where standard input comes from.
    pub stdin: StdinPlan,
    /// What its policy came to: it knows which variables are secrets.
    pub confines: Arc<Confines>,
}

/// Where a run's standard input comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StdinPlan {
    /// `/dev/null`.
    Null,
    /// These bytes, through a pipe.
    Inline(Bytes),
    /// The client's `StdinData`, through a pipe.
    Stream,
    /// The client's own descriptor.
    Passed,
    /// The client's own descriptor, read by us and written to a pipe: a socket, or counted by the policy.
    Relayed(Kind),
}

/// Confines, and the number that their spec is told to the launcher by: never another spec's.
#[derive(Debug, Clone)]
pub struct Numbered {
    /// The spec's.
    pub number: SpecNumber,
    /// What they are.
    pub confines: Arc<Confines>,
}

/// Gives what a policy confines a subject to: resolved now, or the same resolved before.
pub trait Confining {
    /// The confines of a policy by its name.
    ///
    /// # Errors
    /// There is no such policy, or it can't be resolved for the subject.
    fn confines(&mut self, policy: &str, subject: Subject) -> Result<Numbered, Denied>;
}

/// Resolves anew each time, for one request: every spec has the number 0.
impl Confining for &PolicySet {
    fn confines(&mut self, policy: &str, subject: Subject) -> Result<Numbered, Denied> {
        let confines = confines_of(self, policy, &subject)?;
        Ok(Numbered { number: SpecNumber(0), confines: Arc::new(confines) })
    }
}

/// As a set, for one run whose spec nobody keeps or reports: it has no digest.
#[derive(Debug)]
pub struct Once<'a>(pub &'a PolicySet);

impl Confining for Once<'_> {
    fn confines(&mut self, policy: &str, subject: Subject) -> Result<Numbered, Denied> {
        let confines = Confines::of_one_run(policy_named(self.0, policy)?, &subject);
        let confines = confines.map_err(|error| error.denied())?;
        Ok(Numbered { number: SpecNumber(0), confines: Arc::new(confines) })
    }
}

/// Resolves a policy of a set.
///
/// # Errors
/// As [`Confining::confines`].
pub(crate) fn confines_of(set: &PolicySet, policy: &str, subject: &Subject) -> Result<Confines, Denied> {
    Confines::of(policy_named(set, policy)?, subject).map_err(|error| error.denied())
}

/// What others than its policy say of a run's output.
#[derive(Debug, Clone, Copy, Default)]
pub struct OutputRules {
    /// Whether it's redacted where the policy doesn't say.
    pub redacts_by_default: bool,
    /// Whether it's held against what a tool promises: then it passes through us.
    pub is_checked: bool,
}

/// Judges a request.
///
/// # Errors
/// The refusal, with its remedy where there is one.
pub fn admit(
    request: ExecRequest,
    exec_id: ExecId,
    caller: &Caller,
    mut policies: impl Confining,
    passed: &Passed,
    rules: OutputRules,
) -> Result<Admitted, Denied> {
    if request.tool.is_some() {
        return Err(bad("a call of a tool has no command until somebody has made one of it"));
    }
    check_arguments(&request.argv)?;
    check_environment(&request.environment)?;
    check_total(&request)?;
    let workspace = workspace_of(&request, passed)?;
    let cwd = cwd_of(&request.cwd, &workspace)?;
    let subject = Subject {
        owner_uid: caller.owner.uid,
        owner_gid: caller.owner.gid,
        home: caller.home.clone(),
        workspace: workspace.clone(),
        overrides: request.overrides,
        user_mode: caller.user_mode,
    };
    let Numbered { number, confines } = policies.confines(&request.policy, subject)?;
    let Surroundings { environment, cwd } =
        confines.surroundings(cwd.as_deref(), &request.environment).map_err(|error| error.denied())?;
    let spec = Arc::clone(&confines.spec);
    let stdin = stdin_of(request.stdin, passed.stdin, &spec.limits)?;
    let redaction = redaction_of(&confines, &environment, rules.redacts_by_default)?;
    let seen = (redaction.is_some(), rules.is_checked);
    let output = output_of(request.output, passed.output, &spec.limits, seen)?;
    let note = RunNote {
        request_id: request.request_id,
        policy: spec.policy.clone(),
        command: shown_command(&request.argv),
        detach: request.detach,
        wall_ms: spec.limits.wall_ms,
        fed: false,
        tool: None,
        redaction,
        grant: None,
        reviews: None,
    };
    let launch = Launch {
        exec_id,
        owner: caller.owner.clone(),
        note,
        argv: request.argv,
        environment,
        cwd,
        home: Bytes::from(caller.home.as_path()),
        workspace: Bytes::from(workspace),
        workspace_passed: passed.workspace.is_some(),
        stdin_passed: stdin != StdinPlan::Null,
        output,
        spec: number,
        // Whoever hands it over knows to whom.
        proved: false,
        // Whoever has made a command of a call knows of them.
        openings: Vec::new(),
    };
    Ok(Admitted { launch, spec, stdin, confines })
}

fn bad(message: impl Into<String>) -> Denied {
    Denied::new(DenyReason::BadRequest, message)
}

fn check_arguments(argv: &[Bytes]) -> Result<(), Denied> {
    if argv.first().is_none_or(|program| program.is_empty()) {
        return Err(bad("the command is empty").remedy("name a program: `stockade run -- COMMAND`"));
    }
    if argv.len() > MAX_ARGUMENTS {
        return Err(bad(format!("the command has {} arguments; {MAX_ARGUMENTS} are allowed", argv.len()))
            .remedy("pass a list in a file, or use xargs"));
    }
    for (index, argument) in argv.iter().enumerate() {
        if argument.contains(&0) {
            return Err(bad(format!("argument {index} contains a NUL byte; no program can be given one")));
        }
        if argument.len() >= MAX_ARGUMENT {
            let length = argument.len();
            return Err(bad(format!(
                "argument {index} is {length} bytes long; the kernel allows {}",
                MAX_ARGUMENT - 1
            ))
            .remedy("pass it in a file or on standard input"));
        }
    }
    Ok(())
}

fn check_environment(environment: &[(Bytes, Bytes)]) -> Result<(), Denied> {
    if environment.len() > MAX_ENVIRONMENT {
        let count = environment.len();
        return Err(bad(format!("the environment has {count} entries; {MAX_ENVIRONMENT} are allowed")));
    }
    for (name, value) in environment {
        let shown = || name.iter().take(64).copied().collect::<Vec<u8>>().escape_ascii().to_string();
        if name.is_empty() || name.contains(&b'=') {
            return Err(bad(format!("`{}` can't be the name of an environment variable", shown())));
        }
        if name.contains(&0) || value.contains(&0) {
            return Err(bad(format!("the environment variable `{}` contains a NUL byte", shown())));
        }
        if name.len() + value.len() + 2 > MAX_ARGUMENT {
            return Err(bad(format!(
                "the environment variable `{}` is longer than the kernel's {MAX_ARGUMENT} bytes",
                shown()
            )));
        }
    }
    Ok(())
}

fn check_total(request: &ExecRequest) -> Result<(), Denied> {
    let arguments: usize = request.argv.iter().map(|argument| argument.len() + 1).sum();
    let environment: usize =
        request.environment.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    let total = arguments + environment;
    if total > MAX_ARGUMENTS_TOTAL {
        return Err(bad(format!(
            "arguments and environment take {total} bytes; {MAX_ARGUMENTS_TOTAL} are allowed"
        ))
        .remedy("pass a list in a file, or use xargs"));
    }
    Ok(())
}

/// An absolute path without `.`, `..`, doubled or trailing slashes, within the kernel's length.
pub(crate) fn check_path(path: &Bytes, what: &str) -> Result<PathBuf, Denied> {
    let shown = || path.iter().take(256).copied().collect::<Vec<u8>>().escape_ascii().to_string();
    if path.len() > MAX_PATH || path.contains(&0) {
        return Err(bad(format!("the {what} {} is no path: too long, or with a NUL byte", shown())));
    }
    let parsed = path.as_path();
    if !parsed.is_absolute() {
        return Err(bad(format!("the {what} {} isn't absolute", shown())));
    }
    let clean: PathBuf = parsed.components().collect();
    let plain = parsed.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !plain || Bytes::from(clean.as_path()) != *path {
        return Err(bad(format!("the {what} {} isn't in its plain form", shown()))
            .remedy("leave out `.`, `..`, doubled and trailing slashes"));
    }
    Ok(clean)
}

/// For a message: no control characters, which a path may have.
fn shown(path: &Path) -> String {
    path.to_string_lossy().chars().take(256).collect::<String>().escape_debug().to_string()
}

fn workspace_of(request: &ExecRequest, passed: &Passed) -> Result<PathBuf, Denied> {
    match &request.workspace {
        Workspace::Path { path } => check_path(path, "workspace"),
        Workspace::Descriptor { path } => {
            let claimed = check_path(path, "workspace")?;
            let Some(actual) = &passed.workspace else {
                return Err(bad("the workspace's descriptor is missing"));
            };
            is_at(actual.as_deref(), &claimed)?;
            Ok(claimed)
        }
        _ => Err(bad("a workspace of a kind this daemon doesn't know")),
    }
}

/// Whether a directory is where it's said to be, by its path in our view. `None`: it isn't a directory.
pub(crate) fn is_at(actual: Option<&Path>, claimed: &Path) -> Result<(), Denied> {
    let Some(actual) = actual else {
        return Err(bad(format!("the workspace {} isn't a directory", shown(claimed))));
    };
    if actual == claimed {
        return Ok(());
    }
    let leads = format!("the workspace's descriptor leads to {}, not to {}", shown(actual), shown(claimed));
    Err(bad(leads).remedy("is it gone, renamed, or named through a symbolic link?"))
}

fn cwd_of(cwd: &Bytes, workspace: &Path) -> Result<Option<PathBuf>, Denied> {
    if cwd.is_empty() {
        return Ok(None);
    }
    let cwd = check_path(cwd, "working directory")?;
    if !cwd.starts_with(workspace) {
        return Err(bad(format!(
            "the working directory {} is outside the workspace {}",
            shown(&cwd),
            shown(workspace)
        ))
        .remedy("name a workspace that contains it with `--workspace`"));
    }
    Ok(Some(cwd))
}

pub(crate) fn policy_named<'a>(
    policies: &'a PolicySet,
    name: &str,
) -> Result<&'a stockade_policies::Policy, Denied> {
    if name.is_empty() || name.len() > MAX_POLICY_NAME || name.contains(['/', '\0']) || name.contains("..") {
        let shown: String = name.chars().take(MAX_POLICY_NAME).collect();
        return Err(Denied::new(
            DenyReason::UnknownPolicy,
            format!("`{}` is no policy's name", shown.escape_default()),
        )
        .decided_by(STAGE, "policies")
        .remedy(format!(
            "a policy is asked for by name, of at most {MAX_POLICY_NAME} bytes, never by path"
        )));
    }
    policies.get(name).map_err(|unknown| {
        Denied::new(DenyReason::UnknownPolicy, chain(&unknown)).decided_by(STAGE, "policies")
    })
}

/// An error and its sources, in one line.
#[must_use]
pub fn chain(error: &dyn core::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

fn stdin_of(mode: StdinMode, kind: Option<Kind>, limits: &Limits) -> Result<StdinPlan, Denied> {
    match mode {
        StdinMode::None => Ok(StdinPlan::Null),
        StdinMode::Stream => Ok(StdinPlan::Stream),
        StdinMode::Inline(bytes) => {
            let bound = limits.stdin.unwrap_or(u64::MAX).min(MAX_STDIN_CHUNK as u64);
            if bytes.len() as u64 > bound {
                let length = bytes.len();
                return Err(bad(format!("standard input of {length} bytes is over the limit of {bound}")));
            }
            Ok(StdinPlan::Inline(bytes))
        }
        StdinMode::Descriptor => {
            let Some(kind) = kind else { return Err(bad("standard input's descriptor is missing")) };
            check_stdio(kind, "standard input")?;
            let passed = limits.stdin.is_none() && kind.can_be_passed();
            Ok(if passed { StdinPlan::Passed } else { StdinPlan::Relayed(kind) })
        }
        _ => Err(bad("standard input of a kind this daemon doesn't know")),
    }
}

/// What is hidden in its output; `None`: nothing.
fn redaction_of(
    confines: &Confines,
    environment: &[(Bytes, Bytes)],
    by_default: bool,
) -> Result<Option<Redaction>, Denied> {
    if !confines.redacts().unwrap_or(by_default) {
        return Ok(None);
    }
    let secrets = confines.secrets(environment).filter(|(_, value)| value.len() >= MIN_VALUE);
    let secrets: Vec<(String, Bytes)> = secrets
        .map(|(name, value)| (mark_of(name), Bytes(value[..value.len().min(MAX_VALUE)].to_vec())))
        .collect();
    if secrets.len() > MAX_SECRETS {
        let message = format!(
            "{} of the run's variables are secrets; {MAX_SECRETS} can be hidden in its output",
            secrets.len()
        );
        return Err(Denied::new(DenyReason::Policy, message).remedy("let fewer of them through to the run"));
    }
    let bytes: usize = secrets.iter().map(|(_, value)| value.len()).sum();
    if bytes > MAX_SECRET_BYTES {
        let message = format!(
            "the run's variables that are secrets have {bytes} bytes; {MAX_SECRET_BYTES} can be hidden in its output"
        );
        return Err(Denied::new(DenyReason::Policy, message)
            .remedy("let fewer or shorter ones of them through to the run"));
    }
    Ok(Some(Redaction { secrets }))
}

/// A variable's name as it stands in a mark: nothing that a terminal would obey or a reader take for the mark's end.
fn mark_of(name: &[u8]) -> String {
    let shown = name.iter().take(MAX_MARK).map(|byte| char::from(*byte));
    shown
        .map(|letter| if letter.is_ascii_alphanumeric() || "_-.".contains(letter) { letter } else { '_' })
        .collect()
}

/// Where output goes. Whether it's redacted, and whether it's checked.
fn output_of(
    mode: OutputMode,
    kinds: Option<[Kind; 2]>,
    limits: &Limits,
    (is_redacted, is_checked): (bool, bool),
) -> Result<LaunchOutput, Denied> {
    let ring_bytes = RING_BYTES;
    let relayed =
        if is_redacted { LaunchOutput::Marked { ring_bytes } } else { LaunchOutput::Relayed { ring_bytes } };
    match mode {
        OutputMode::Stream => Ok(relayed),
        OutputMode::Descriptor => {
            let Some(kinds) = kinds else { return Err(bad("standard output's descriptors are missing")) };
            // A device (a console that is no terminal) isn't handed to a tool, but its client may write to it.
            for (kind, what) in kinds.into_iter().zip(["standard output", "standard error"]) {
                if kind != Kind::Other {
                    check_stdio(kind, what)?;
                }
            }
            // What is redacted or checked never goes past us.
            let ruled = is_redacted || is_checked || limits.output.is_some() || limits.idle_ms.is_some();
            Ok(if !ruled && kinds.iter().all(|kind| kind.can_be_passed()) {
                LaunchOutput::Passed
            } else {
                relayed
            })
        }
        _ => Err(bad("output of a kind this daemon doesn't know")),
    }
}

fn check_stdio(kind: Kind, what: &str) -> Result<(), Denied> {
    if kind.can_be_relayed() {
        return Ok(());
    }
    let is = match kind {
        Kind::Directory => "a directory",
        Kind::PathOnly => "a descriptor opened with O_PATH",
        _ => "a device",
    };
    Err(bad(format!("{what} is {is}")).remedy("a pipe, a file, a terminal or a socket can be used"))
}
