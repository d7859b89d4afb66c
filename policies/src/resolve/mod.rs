//! A policy and a request to a [`SandboxSpec`]: what one run is confined to, and the surroundings of its tool.
//!
//! Pure, and the same for the same input. The spec is all that enforces; beside it a [`Resolved`] keeps which rule
//! each part came from, for [`Resolved::explain`](crate::explain).
//!
//! In reading order: [`error`], `request` (is the workspace one?), `visible` (what can be seen), `limits`,
//! `surroundings` (environment and working directory).

pub mod error;
mod limits;
mod request;
mod surroundings;
mod visible;

use std::path::PathBuf;

use sha2::{Digest, Sha256};
use stockade_protocol::Bytes;
use stockade_protocol::client::Overrides;
use stockade_protocol::codec::encode_launch;
use stockade_protocol::spec::{Level, NetworkMode, RunAs, SandboxSpec};

pub use error::ResolveError;
pub(crate) use surroundings::{Origin, Variables, allowing};
pub(crate) use visible::{Guard, Visible};

use crate::names::User;
use crate::place::Roots;
use crate::policy::Policy;

/// The host name inside.
const HOSTNAME: &str = "stockade";

/// What a policy is resolved for.
#[derive(Debug, Clone)]
pub struct ResolveRequest {
    /// The caller's user id on the host.
    pub owner_uid: u32,
    /// The caller's primary group on the host.
    pub owner_gid: u32,
    /// The caller's home directory.
    pub home: PathBuf,
    /// The workspace, without symbolic links in it where they can be avoided: the path it has inside, too.
    pub workspace: PathBuf,
    /// The working directory, if another than the workspace. Beneath it.
    pub cwd: Option<PathBuf>,
    /// The caller's environment. The policy decides what of it arrives.
    pub environment: Vec<(Bytes, Bytes)>,
    /// Limits tighter than the policy's.
    pub overrides: Overrides,
    /// Whether daemon and policies are the caller's own: then there is no other user id to give, and the caller's
    /// policies may give the caller's network.
    pub user_mode: bool,
}

/// A policy resolved for a request.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// What enforces.
    pub spec: SandboxSpec,
    /// The tool's whole environment, sorted by name.
    pub environment: Vec<(Bytes, Bytes)>,
    /// The tool's working directory.
    pub cwd: Bytes,
    pub(crate) policy: Policy,
    pub(crate) roots: Roots,
    pub(crate) visible: Visible,
    pub(crate) variables: Variables,
}

/// Resolves a policy for a request.
///
/// # Errors
/// What of the request the policy can't be resolved for, with the rule's file and line where a rule decided.
pub fn resolve(policy: &Policy, request: &ResolveRequest) -> Result<Resolved, ResolveError> {
    may_have_network(policy, request)?;
    let roots = request::roots(policy, request)?;
    let visible = Visible::new(policy, &roots)?;
    let cwd = surroundings::cwd(request, &roots, &visible)?;
    let variables = surroundings::variables(policy, request, &roots)?;
    let environment = variables
        .iter()
        .map(|(name, variable)| (Bytes(name.clone()), Bytes(variable.value.clone())))
        .collect();
    let mut spec = SandboxSpec {
        policy: policy.name.clone(),
        digest: [0; 32],
        level: policy.level.value,
        mounts: visible.mounts(),
        deny: visible.deny.iter().map(|guard| guard.path.clone()).collect(),
        deny_elsewhere: visible.deny_elsewhere.clone(),
        protect: visible.protect.iter().map(|guard| guard.path.clone()).collect(),
        network: policy.network.clone(),
        limits: limits::limits(policy, &request.overrides)?,
        seccomp: policy.filter.spec.clone(),
        run_as: run_as(policy, request),
        hostname: HOSTNAME.to_owned(),
    };
    spec.digest = digest(&spec)?;
    Ok(Resolved { spec, environment, cwd, policy: policy.clone(), roots, visible, variables })
}

fn may_have_network(policy: &Policy, request: &ResolveRequest) -> Result<(), ResolveError> {
    if policy.mode.value == NetworkMode::Host && !policy.trusted && !request.user_mode {
        return Err(ResolveError::HostNetwork { policy: policy.name.clone(), at: policy.mode.at.clone() });
    }
    Ok(())
}

fn run_as(policy: &Policy, request: &ResolveRequest) -> RunAs {
    if request.user_mode || policy.user.value == User::Caller || policy.level.value == Level::Minimal {
        return RunAs::Caller;
    }
    RunAs::Ephemeral { start: policy.range.start, count: policy.range.count }
}

/// SHA-256 over the encoded spec, whose own digest is zero.
fn digest(spec: &SandboxSpec) -> Result<[u8; 32], ResolveError> {
    let encoded = encode_launch(spec).map_err(|source| ResolveError::TooLarge { source })?;
    Ok(Sha256::digest(encoded).into())
}
