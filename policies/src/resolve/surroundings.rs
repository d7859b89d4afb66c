//! The tool's environment and working directory.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use stockade_protocol::Bytes;

use super::error::ResolveError;
use super::request::{normalised, shown};
use super::{Confines, Policy};
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

impl<'a> Origin<'a> {
    /// The rule, in words.
    pub(crate) fn rule(self) -> Rule<'a> {
        match self {
            Self::Caller(pattern) => Rule::Allowed(pattern),
            Self::Set(name, at) => Rule::Variable("set", name, at),
            Self::Default(name, at) => Rule::Variable("default", name, at),
            Self::Home => Rule::Own("HOME is the caller's home"),
            Self::Path => Rule::Own("PATH has a default"),
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
pub(super) fn cwd(cwd: Option<&Path>, confines: &Confines) -> Result<Bytes, ResolveError> {
    let Confines { spec, roots, policy, .. } = confines;
    let cwd = match cwd {
        Some(path) => normalised("working directory", path)?,
        None => roots.workspace.clone(),
    };
    if !is_within(&cwd, &roots.workspace) {
        let workspace = shown(&roots.workspace);
        return Err(ResolveError::CwdOutside { cwd: shown(&cwd), workspace });
    }
    let is_denied = |path: &[u8]| is_within(&cwd, path);
    if spec.deny.iter().any(|path| is_denied(path))
        && let Some(guard) = confines.visible()?.deny.iter().find(|guard| is_denied(&guard.path))
    {
        return Err(ResolveError::Denied {
            what: "working directory",
            path: shown(&cwd),
            rule: guard.rule.to_string(),
            at: guard.rule.at(),
        });
    }
    let on_the_way = |target: &[u8]| is_within(&cwd, target) || is_within(target, &cwd);
    if !spec.mounts.iter().any(|mount| on_the_way(&mount.target)) {
        return Err(ResolveError::Invisible { policy: policy.name.clone(), cwd: shown(&cwd) });
    }
    Ok(Bytes(cwd))
}
