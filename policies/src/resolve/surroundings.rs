//! The tool's environment and working directory.

use std::collections::BTreeMap;

use stockade_protocol::Bytes;

use super::error::ResolveError;
use super::request::{normalised, shown};
use super::visible::Visible;
use super::{Policy, ResolveRequest};
use crate::place::{Roots, expand_text, is_within};
use crate::position::Position;
use crate::rule::Rule;

/// `PATH` where neither caller nor policy says one.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Who says what a variable's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Caller,
    Policy,
}

/// A variable that the tool gets, and the rule that gives it.
#[derive(Debug, Clone)]
pub(crate) struct Variable {
    pub(crate) value: Vec<u8>,
    pub(crate) origin: Origin,
    pub(crate) rule: Rule,
}

/// By name, sorted.
pub(crate) type Variables = BTreeMap<Vec<u8>, Variable>;

/// What of the caller's environment the policy lets through; over it what the policy sets, and under it the
/// policy's defaults. `HOME` and `PATH` always.
pub(super) fn variables(
    policy: &Policy,
    request: &ResolveRequest,
    roots: &Roots,
) -> Result<Variables, ResolveError> {
    let rules = &policy.document.environment;
    let mut variables = Variables::new();
    for (name, value) in &request.environment {
        let Some(rule) = allowing(policy, name) else { continue };
        if value.contains(&0) {
            return Err(ResolveError::Environment { name: shown(name) });
        }
        variables.insert(name.0.clone(), Variable { value: value.0.clone(), origin: Origin::Caller, rule });
    }
    let own = |value: Vec<u8>, text: &str, at: &Position| Variable {
        value,
        origin: Origin::Policy,
        rule: Rule::text(text, at),
    };
    let home = own(roots.home.clone(), "HOME is the caller's home", &Position::built_in());
    variables.insert(b"HOME".to_vec(), home);
    for (name, value) in &rules.set {
        let text = format!("[environment] set: {name}");
        let set = own(expand_text(&value.value, roots), &text, &value.at);
        variables.insert(name.clone().into_bytes(), set);
    }
    for (name, value) in &rules.default {
        let text = format!("[environment] default: {name}");
        let default = || own(expand_text(&value.value, roots), &text, &value.at);
        variables.entry(name.clone().into_bytes()).or_insert_with(default);
    }
    let path = || own(DEFAULT_PATH.into(), "PATH has a default", &Position::built_in());
    variables.entry(b"PATH".to_vec()).or_insert_with(path);
    Ok(variables)
}

/// The rule that lets a variable of the caller's through.
pub(crate) fn allowing(policy: &Policy, name: &[u8]) -> Option<Rule> {
    let allow = policy.document.environment.allow.as_deref().unwrap_or_default();
    let pattern = allow.iter().find(|pattern| pattern.value.matches(name) && !odd(name))?;
    Some(Rule::allowed(pattern))
}

/// A pattern with `*` takes any end; what then is no name is left out.
fn odd(name: &[u8]) -> bool {
    name.iter().any(|byte| matches!(byte, b'=' | 0))
}

/// Beneath the workspace, visible, and not denied.
pub(super) fn cwd(request: &ResolveRequest, roots: &Roots, visible: &Visible) -> Result<Bytes, ResolveError> {
    let cwd = match &request.cwd {
        Some(path) => normalised("working directory", path)?,
        None => roots.workspace.clone(),
    };
    if !is_within(&cwd, &roots.workspace) {
        let workspace = shown(&roots.workspace);
        return Err(ResolveError::CwdOutside { cwd: shown(&cwd), workspace });
    }
    if let Some(guard) = visible.deny.iter().find(|guard| is_within(&cwd, &guard.path)) {
        return Err(ResolveError::Denied {
            what: "working directory",
            path: shown(&cwd),
            rule: guard.rule.text.to_string(),
            at: guard.rule.at.clone(),
        });
    }
    if !visible.is_there(&cwd) {
        return Err(ResolveError::Invisible { policy: visible.policy.clone(), cwd: shown(&cwd) });
    }
    Ok(Bytes(cwd))
}
