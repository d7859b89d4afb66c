//! A call of a tool, and the request that comes of it: its command, its policy and its limits are the tool's.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use stockade_gate::Given;
use stockade_gate::tools::executable::{self, ExecutableError, Identity};
use stockade_gate::tools::expand::Input;
use stockade_gate::tools::{Registry, Tool};
use stockade_gate::validate::{self, Mismatch};
use stockade_protocol::Bytes;
use stockade_protocol::bounds::MAX_STDIN_CHUNK;
use stockade_protocol::client::{ExecRequest, Overrides, StdinMode};
use stockade_protocol::denied::{Denied, DenyReason};

use crate::admission::chain;
use crate::policies;

/// A call whose tool there is and whose parameters can be read.
#[derive(Debug)]
pub(crate) struct Call {
    tool: Arc<Tool>,
    parameters: Value,
}

impl Call {
    /// What a request calls, if it calls a tool. The request is left as one of a command line that isn't said yet.
    ///
    /// # Errors
    /// There is no such tool; its parameters aren't JSON within the bounds; the request says what the tool's file says.
    pub(crate) fn of(request: &mut ExecRequest, tools: &Registry) -> Result<Option<Self>, Denied> {
        let Some(call) = request.tool.take() else { return Ok(None) };
        let tool = tools.get(&call.name).map_err(|unknown| {
            Denied::new(DenyReason::UnknownTool, unknown.to_string())
                .decided_by("validate", "tools")
                .remedy("a daemon calls the tools that it has; with --directory or --embedded `stockade tool call` calls yours")
        })?;
        if !request.argv.is_empty() || !request.policy.is_empty() || request.stdin != StdinMode::None {
            let text = "a call says no command, no policy and no standard input: the tool's file does";
            return Err(Denied::new(DenyReason::BadRequest, text).remedy("leave them empty"));
        }
        let parameters = validate::parse(&call.parameters).map_err(|mismatch| misfit(tool, &mismatch))?;
        Ok(Some(Self { tool: Arc::clone(tool), parameters }))
    }

    /// The tool's name.
    pub(crate) fn name(&self) -> &str {
        &self.tool.name
    }

    /// The policy that it runs under.
    pub(crate) fn policy(&self) -> &str {
        &self.tool.policy
    }

    /// What it's given.
    pub(crate) fn given(&self) -> Given<'_> {
        Given::Parameters(&self.parameters)
    }

    /// Whether its program is the one that was pinned, if one was. `known`: what it was found to be before, and is now; `uid`: as
    /// whom we run.
    ///
    /// # Errors
    /// It isn't the one that was pinned, or somebody else may put another in its place.
    pub(crate) fn pinned(&self, known: &mut Option<Identity>, uid: u32) -> Result<(), Denied> {
        let tool = &self.tool;
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
                .remedy("whoever installs tools finds why in the daemon's log: see who has changed it, then pin it anew")
        };
        let program = Path::new(&tool.template.program);
        let folder = program.parent().unwrap_or(Path::new("/"));
        // Who may put another in its place until it is executed.
        let found = folder.metadata().map_err(|error| changed(error.to_string()))?;
        policies::look(folder, &found, uid).map_err(|refusal| changed(refusal.to_string()))?;
        let look = |found: &std::fs::Metadata| policies::look(program, found, uid);
        let opened = executable::open(program, pin, known.as_ref(), &look);
        *known = match &opened {
            Ok((_, found)) | Err(ExecutableError::Changed { found, .. }) => Some(*found),
            Err(_) => None,
        };
        opened.map(drop).map_err(|error| changed(chain(&error)))
    }

    /// Makes its command the request's, once the gate has let it pass.
    ///
    /// # Errors
    /// It needs what a run can't be given; no command comes of its parameters.
    pub(crate) fn fill(self, request: &mut ExecRequest) -> Result<(), Denied> {
        let tool = &self.tool;
        if tool.roles.is_some() {
            let text = format!("the tool `{}` is for who has a role, and nobody has one here", tool.name);
            return Err(Denied::new(DenyReason::NotPermitted, text).decided_by("access", "roles"));
        }
        let bad = |message: String| {
            Denied::new(DenyReason::BadParameters, message)
                .decided_by("validate", format!("{}.toml: command", tool.name))
        };
        let object = self.parameters.as_object().ok_or_else(|| bad("the parameters are no object".into()))?;
        let expanded = tool.template.expand(object).map_err(|error| bad(error.to_string()))?;
        let handed = !expanded.openings.is_empty();
        request.stdin = match expanded.stdin {
            Input::Nothing if !handed => StdinMode::None,
            Input::Bytes(bytes) if !handed && bytes.len() <= MAX_STDIN_CHUNK => {
                StdinMode::Inline(Bytes(bytes))
            }
            Input::Bytes(_) if !handed => {
                return Err(bad(format!(
                    "the parameters are over the {MAX_STDIN_CHUNK} bytes of standard input"
                )));
            }
            _ => {
                let text = format!("the tool `{}` is handed files, which a daemon can't do yet", tool.name);
                return Err(Denied::new(DenyReason::Unsupported, text).remedy("name them in its arguments"));
            }
        };
        request.argv = expanded.arguments.into_iter().map(Bytes).collect();
        request.policy.clone_from(&tool.policy);
        request.overrides = tighter(&request.overrides, &tool.limits);
        Ok(())
    }
}

/// Of parameters that can't be read: no schema is needed to see it.
fn misfit(tool: &Tool, mismatch: &Mismatch) -> Denied {
    Denied::new(DenyReason::BadParameters, mismatch.to_string())
        .decided_by("validate", format!("{}.toml: parameters", tool.name))
        .remedy(format!("`stockade tool show {}` says what it takes", tool.name))
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
