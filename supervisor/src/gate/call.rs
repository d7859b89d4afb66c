//! A call of a tool, and the request that comes of it: its command, its policy and its limits are the tool's.

use std::path::Path;
use std::sync::Arc;

use stockade_gate::Given;
use stockade_gate::tools::executable::{self, Identity};
use stockade_gate::tools::expand::Input;
use stockade_gate::tools::{Registry, Tool};
use stockade_gate::validate::Parameters;
use stockade_protocol::Bytes;
use stockade_protocol::bounds::MAX_STDIN_CHUNK;
use stockade_protocol::client::{ExecRequest, Overrides, StdinMode, ToolCall};
use stockade_protocol::denied::{Denied, DenyReason};
use stockade_protocol::launch::{CalledTool, Opening};

use crate::admission::chain;
use crate::policies;

/// A call whose tool there is.
#[derive(Debug)]
pub(crate) struct Call {
    tool: Arc<Tool>,
    parameters: Parameters,
    /// Whether its caller gives it less than its file does: what comes of that is no fault of the tool's.
    is_tightened: bool,
}

impl Call {
    /// What a request calls.
    ///
    /// # Errors
    /// There is no such tool. All else that is wrong is told once the gate has let it pass: who may not call a tool isn't told that
    /// there is one.
    pub(crate) fn of(call: ToolCall, request: &ExecRequest, tools: &Registry) -> Result<Self, Denied> {
        let tool = tools.get(&call.name).map_err(|unknown| {
            Denied::new(DenyReason::UnknownTool, unknown.to_string())
                .decided_by("validate", "tools")
                .remedy("a daemon calls the tools that it has; with --directory or --embedded `stockade tool call` calls yours")
        })?;
        let is_tightened = lowers(&request.overrides, &tool.limits);
        Ok(Self { tool: Arc::clone(tool), parameters: Parameters::new(call.parameters.0), is_tightened })
    }

    /// The roles that its file names.
    pub(crate) fn roles(&self) -> Option<&[String]> {
        self.tool.roles.as_deref()
    }

    /// Whether its file says what it prints.
    pub(crate) fn promises(&self) -> bool {
        self.tool.result.is_some()
    }

    /// The tool's name.
    pub(crate) fn name(&self) -> &str {
        &self.tool.name
    }

    /// Whose it is to have failed.
    pub(crate) fn called(&self) -> CalledTool {
        CalledTool { name: self.tool.name.clone(), is_tightened: self.is_tightened }
    }

    /// The policy that it runs under.
    pub(crate) fn policy(&self) -> &str {
        &self.tool.policy
    }

    /// What it's given, as it came.
    pub(crate) fn parameters(&self) -> &[u8] {
        self.parameters.text()
    }

    /// What it's given.
    pub(crate) fn given(&self) -> Given<'_> {
        Given::Parameters(&self.parameters)
    }

    /// Whether its program is the one that was pinned, if one was. `known`: as it was when the tools were read; `uid`: as whom we run.
    ///
    /// # Errors
    /// It isn't the one that was pinned, or somebody else may put another in its place.
    pub(crate) fn pinned(&self, known: Option<&Identity>, uid: u32) -> Result<(), Denied> {
        pinned(&self.tool, known, uid)
    }

    /// Makes its command the request's, once the gate has let it pass; gives what the run finds open. `is_asked`: whether rules of
    /// access were asked.
    ///
    /// # Errors
    /// The request says what the tool's file says; no command comes of its parameters.
    pub(crate) fn fill(self, request: &mut ExecRequest, is_asked: bool) -> Result<Vec<Opening>, Denied> {
        let tool = &self.tool;
        if !request.argv.is_empty() || !request.policy.is_empty() || request.stdin != StdinMode::None {
            let text = "a call says no command, no policy and no standard input: the tool's file does";
            return Err(Denied::new(DenyReason::BadRequest, text).remedy("leave them empty"));
        }
        if tool.roles.is_some() && !is_asked {
            let text = format!("the tool `{}` is for who has a role, and nobody has one here", tool.name);
            return Err(Denied::new(DenyReason::NotPermitted, text).decided_by("access", "roles"));
        }
        let bad = |message: String| {
            Denied::new(DenyReason::BadParameters, message)
                .decided_by("validate", format!("{}.toml: command", tool.name))
        };
        let value = self.parameters.value().map_err(|mismatch| bad(mismatch.to_string()))?;
        let object = value.as_object().ok_or_else(|| bad("the parameters are no object".into()))?;
        let expanded = tool.template.expand(object).map_err(|error| bad(error.to_string()))?;
        let openings = expanded.opened();
        request.stdin = match expanded.stdin {
            Input::Nothing | Input::File(_) => StdinMode::None,
            Input::Bytes(bytes) if bytes.len() <= MAX_STDIN_CHUNK => StdinMode::Inline(Bytes(bytes)),
            Input::Bytes(_) => {
                return Err(bad(format!(
                    "the parameters are over the {MAX_STDIN_CHUNK} bytes of standard input"
                )));
            }
        };
        request.argv = expanded.arguments.into_iter().map(Bytes).collect();
        request.policy.clone_from(&tool.policy);
        request.overrides = tighter(&request.overrides, &tool.limits);
        Ok(openings)
    }
}

/// Whether a tool's program is the one that was pinned, if one was. `known`: as it was when the tools were read; `uid`: as whom we run.
///
/// # Errors
/// It isn't the one that was pinned, or somebody else may put another in its place.
pub(super) fn pinned(tool: &Tool, known: Option<&Identity>, uid: u32) -> Result<(), Denied> {
    let Some(pin) = tool.pin else { return Ok(()) };
    // Why is for who installs tools: it names places that a client needn't know.
    let changed = |why: String| {
        tracing::warn!(
            tool = tool.name,
            why,
            "a tool's program isn't the one that was pinned, and isn't run"
        );
        let text = format!("the program of the tool `{}` isn't the one that was pinned", tool.name);
        Denied::new(DenyReason::ToolChanged, text)
            .decided_by("validate", format!("{}.toml: command.sha256", tool.name))
            .remedy("whoever installs tools finds why in the daemon's log: see who has changed it, pin it anew if it's right, and reload the daemon")
    };
    let named = Path::new(&tool.template.program);
    // Who may put another in its place until it is executed: of a link, and of what it leads to.
    let program = &named.canonicalize().map_err(|error| changed(error.to_string()))?;
    for folder in [named, program].into_iter().filter_map(|path| path.parent()) {
        let found = folder.metadata().map_err(|error| changed(error.to_string()))?;
        policies::look(folder, &found, uid).map_err(|refusal| changed(refusal.to_string()))?;
    }
    let look = |found: &std::fs::Metadata| policies::look(program, found, uid);
    executable::recognise(program, pin, known, &look).map_err(|error| changed(chain(&error)))
}

/// Whether any of a caller's limits is lower than the tool's, or is one where the tool's file has none.
fn lowers(callers: &Overrides, tools: &Overrides) -> bool {
    let pairs = [
        (callers.wall_ms, tools.wall_ms),
        (callers.cpu_ms, tools.cpu_ms),
        (callers.idle_ms, tools.idle_ms),
        (callers.memory, tools.memory),
        (callers.processes, tools.processes),
        (callers.output, tools.output),
    ];
    pairs.into_iter().any(|(caller, tool)| caller.is_some_and(|caller| tool.is_none_or(|tool| caller < tool)))
}

/// The tighter of two limits, each.
fn tighter(one: &Overrides, other: &Overrides) -> Overrides {
    let least = |one: Option<u64>, other: Option<u64>| match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    };
    Overrides {
        wall_ms: least(one.wall_ms, other.wall_ms),
        cpu_ms: least(one.cpu_ms, other.cpu_ms),
        idle_ms: least(one.idle_ms, other.idle_ms),
        memory: least(one.memory, other.memory),
        processes: least(one.processes, other.processes),
        output: least(one.output, other.output),
    }
}
