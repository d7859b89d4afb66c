//! The tool's environment and working directory.

use std::collections::BTreeMap;

use stockade_protocol::Bytes;

use super::error::ResolveError;
use super::request::{normalised, shown};
use super::visible::Visible;
use super::{Policy, ResolveRequest};
use crate::place::{Roots, expand_text, is_within};

/// `PATH` where neither caller nor policy says one.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What of the caller's environment the policy lets through, then what it sets; `HOME` and `PATH` always.
pub(super) fn environment(
    policy: &Policy,
    request: &ResolveRequest,
    roots: &Roots,
) -> Result<Vec<(Bytes, Bytes)>, ResolveError> {
    let rules = &policy.document.environment;
    let mut environment = BTreeMap::new();
    for (name, value) in &request.environment {
        if !rules.allow.iter().flatten().any(|pattern| pattern.value.matches(name)) || odd(name) {
            continue;
        }
        if value.contains(&0) {
            return Err(ResolveError::Environment { name: shown(name) });
        }
        environment.insert(name.clone(), value.clone());
    }
    environment.insert(Bytes::from("HOME"), Bytes(roots.home.clone()));
    for (name, value) in &rules.set {
        environment.insert(Bytes::from(name.as_str()), Bytes(expand_text(&value.value, roots)));
    }
    environment.entry(Bytes::from("PATH")).or_insert_with(|| Bytes::from(DEFAULT_PATH));
    Ok(environment.into_iter().collect())
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
