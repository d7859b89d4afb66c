//! The tool's environment and working directory.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use stockade_protocol::Bytes;

use super::Policy;
use super::error::ResolveError;
use super::request::{normalised, shown};
use super::visible::Visible;
use crate::names::NamePattern;
use crate::place::{Roots, expand_text, is_within};
use crate::position::{Located, Position};
use crate::rule::Rule;

/// `PATH` where neither caller nor policy says one.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A variable that the tool gets.
#[derive(Debug)]
pub(crate) struct Variable<'a> {
    pub(crate) value: Cow<'a, [u8]>,
    pub(crate) origin: Origin<'a>,
}

/// Who says that there is a variable, and what its value is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Origin<'a> {
    /// The caller, by leave of this pattern.
    Caller(&'a Located<NamePattern>),
    /// The policy sets it.
    Set(&'a str, &'a Position),
    /// The policy has a default.
    Default(&'a str, &'a Position),
    /// There is always a `HOME`.
    Home,
    /// There is always a `PATH`.
    Path,
}

impl Origin<'_> {
    /// The rule, in words.
    pub(crate) fn rule(self) -> Rule {
        match self {
            Self::Caller(pattern) => Rule::allowed(pattern),
            Self::Set(name, at) => Rule::text(&format!("[environment] set: {name}"), at),
            Self::Default(name, at) => Rule::text(&format!("[environment] default: {name}"), at),
            Self::Home => Rule::text("HOME is the caller's home", &Position::built_in()),
            Self::Path => Rule::text("PATH has a default", &Position::built_in()),
        }
    }
}

/// By name, sorted.
pub(crate) type Variables<'a> = BTreeMap<&'a [u8], Variable<'a>>;

/// What of the caller's environment the policy lets through; over it what the policy sets, and under it the
/// policy's defaults. `HOME` and `PATH` always.
pub(super) fn variables<'a>(
    policy: &'a Policy,
    environment: &'a [(Bytes, Bytes)],
    roots: &'a Roots,
) -> Result<Variables<'a>, ResolveError> {
    let rules = &policy.document.environment;
    let mut variables = Variables::new();
    for (name, value) in environment {
        let Some(pattern) = allowing(policy, name) else { continue };
        if value.contains(&0) {
            return Err(ResolveError::Environment { name: shown(name) });
        }
        let (value, origin) = (Cow::Borrowed(&value[..]), Origin::Caller(pattern));
        variables.insert(name, Variable { value, origin });
    }
    let home = Variable { value: Cow::Borrowed(&roots.home), origin: Origin::Home };
    variables.insert(b"HOME", home);
    let own =
        |value: &Located<String>, origin| Variable { value: expand_text(&value.value, roots).into(), origin };
    for (name, value) in &rules.set {
        variables.insert(name.as_bytes(), own(value, Origin::Set(name, &value.at)));
    }
    for (name, value) in &rules.default {
        let default = || own(value, Origin::Default(name, &value.at));
        variables.entry(name.as_bytes()).or_insert_with(default);
    }
    let path = || Variable { value: Cow::Borrowed(DEFAULT_PATH.as_bytes()), origin: Origin::Path };
    variables.entry(b"PATH").or_insert_with(path);
    Ok(variables)
}

/// The pattern that lets a variable of the caller's through.
pub(crate) fn allowing<'a>(policy: &'a Policy, name: &[u8]) -> Option<&'a Located<NamePattern>> {
    let allow = policy.document.environment.allow.as_deref().unwrap_or_default();
    allow.iter().find(|pattern| pattern.value.matches(name) && !odd(name))
}

/// A pattern with `*` takes any end; what then is no name is left out.
fn odd(name: &[u8]) -> bool {
    name.iter().any(|byte| matches!(byte, b'=' | 0))
}

/// Beneath the workspace, visible, and not denied.
pub(super) fn cwd(cwd: Option<&Path>, roots: &Roots, visible: &Visible) -> Result<Bytes, ResolveError> {
    let cwd = match cwd {
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
