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

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use stockade_protocol::Bytes;
use stockade_protocol::bounds::MAX_LAUNCH_MESSAGE;
use stockade_protocol::client::Overrides;
use stockade_protocol::codec::encode_launch;
use stockade_protocol::spec::{
    BpfInstruction, Level, Mount, MountKind, NetworkMode, Ports, RunAs, SandboxSpec,
};

pub use error::ResolveError;
pub(crate) use surroundings::{Origin, Variables, allowing};
use visible::Seen;
pub(crate) use visible::{Guard, Visible};

use crate::names::{User, ends_like_a_secret};
use crate::place::Roots;
use crate::policy::Policy;

/// The host name inside.
const HOSTNAME: &str = "stockade";

/// Whom, where and how tightly: everything of a request that its spec depends on, beside the policy. Equal subjects of one
/// policy have equal confines.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subject {
    /// The caller's user id on the host.
    pub owner_uid: u32,
    /// The caller's primary group on the host.
    pub owner_gid: u32,
    /// The caller's home directory.
    pub home: PathBuf,
    /// The workspace, without symbolic links in it where they can be avoided: the path it has inside, too.
    pub workspace: PathBuf,
    /// Limits tighter than the policy's.
    pub overrides: Overrides,
    /// Whether daemon and policies are the caller's own: then there is no other user id to give, and the caller's
    /// policies may give the caller's network.
    pub user_mode: bool,
}

/// What a policy is resolved for.
#[derive(Debug, Clone)]
pub struct ResolveRequest {
    /// What the spec depends on.
    pub subject: Subject,
    /// The working directory, if another than the workspace. Beneath it.
    pub cwd: Option<PathBuf>,
    /// The caller's environment. The policy decides what of it arrives.
    pub environment: Vec<(Bytes, Bytes)>,
}

/// A policy resolved for a subject: all that enforces. Made once for many requests.
#[derive(Debug, Clone)]
pub struct Confines {
    /// What enforces.
    pub spec: Arc<SandboxSpec>,
    /// How many bytes the spec is as a message.
    pub encoded: usize,
    pub(crate) policy: Policy,
    pub(crate) roots: Roots,
}

/// What a tool finds around it that its spec says nothing of: each request's own.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The tool's whole environment, sorted by name.
    pub environment: Vec<(Bytes, Bytes)>,
    /// The tool's working directory.
    pub cwd: Bytes,
}

/// A policy resolved for a request.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// What enforces.
    pub spec: Arc<SandboxSpec>,
    /// The tool's whole environment, sorted by name.
    pub environment: Vec<(Bytes, Bytes)>,
    /// The tool's working directory.
    pub cwd: Bytes,
    pub(crate) confines: Confines,
    /// The caller's environment, for answers.
    pub(crate) given: Vec<(Bytes, Bytes)>,
}

/// Resolves a policy for a request.
///
/// # Errors
/// What of the request the policy can't be resolved for, with the rule's file and line where a rule decided.
pub fn resolve(policy: &Policy, request: &ResolveRequest) -> Result<Resolved, ResolveError> {
    let confines = Confines::of(policy, &request.subject)?;
    let given = request.environment.clone();
    let Surroundings { environment, cwd } = confines.surroundings(request.cwd.as_deref(), &given)?;
    Ok(Resolved { spec: Arc::clone(&confines.spec), environment, cwd, confines, given })
}

impl Confines {
    /// Resolves a policy for a subject.
    ///
    /// # Errors
    /// What of the subject the policy can't be resolved for, with the rule's file and line where a rule decided.
    pub fn of(policy: &Policy, subject: &Subject) -> Result<Self, ResolveError> {
        let mut confines = Self::resolved(policy, subject)?;
        let (digest, encoded) = digest(&confines.spec)?;
        Arc::make_mut(&mut confines.spec).digest = digest;
        confines.encoded = encoded;
        Ok(confines)
    }

    /// As [`Confines::of`], for one run whose spec nobody keeps, compares or reports: the digest is zero, and so is the length.
    ///
    /// # Errors
    /// The same.
    pub fn of_one_run(policy: &Policy, subject: &Subject) -> Result<Self, ResolveError> {
        let confines = Self::resolved(policy, subject)?;
        if !is_short(&confines.spec) {
            digest(&confines.spec)?;
        }
        Ok(confines)
    }

    fn resolved(policy: &Policy, subject: &Subject) -> Result<Self, ResolveError> {
        may_have_network(policy, subject)?;
        let roots = request::roots(policy, subject)?;
        let Seen { mounts, deny, deny_elsewhere, protect } = Visible::new(policy, &roots)?.seen();
        let spec = SandboxSpec {
            policy: policy.name.clone(),
            digest: [0; 32],
            level: policy.level.value,
            mounts,
            deny,
            deny_elsewhere,
            protect,
            network: policy.network.clone(),
            limits: limits::limits(policy, &subject.overrides)?,
            seccomp: policy.filter.spec.clone(),
            run_as: run_as(policy, subject),
            hostname: HOSTNAME.to_owned(),
        };
        Ok(Self { spec: Arc::new(spec), encoded: 0, policy: policy.clone(), roots })
    }

    /// What a request finds within these confines. `cwd`: if another than the workspace.
    ///
    /// # Errors
    /// A working directory that isn't there for the tool, a variable that can't be one.
    pub fn surroundings(
        &self,
        cwd: Option<&Path>,
        environment: &[(Bytes, Bytes)],
    ) -> Result<Surroundings, ResolveError> {
        let cwd = surroundings::cwd(cwd, self)?;
        let variables = self.variables(environment)?.into_iter();
        let environment =
            variables.map(|(name, variable)| (name.into(), Bytes(variable.value.into_owned()))).collect();
        Ok(Surroundings { environment, cwd })
    }

    /// Whether the policy has secrets in output named and not shown; `None`: it doesn't say.
    #[must_use]
    pub fn redacts(&self) -> Option<bool> {
        self.policy.redacts()
    }

    /// Of a tool's environment, the variables whose values are secrets: those whose names end as those of secrets do, and
    /// those that the policy lists.
    pub fn secrets<'a>(
        &'a self,
        environment: &'a [(Bytes, Bytes)],
    ) -> impl Iterator<Item = &'a (Bytes, Bytes)> {
        let listed = self.policy.document.output.secrets.as_deref().unwrap_or_default();
        environment.iter().filter(move |(name, _)| {
            ends_like_a_secret(name) || listed.iter().any(|pattern| pattern.value.covers(name))
        })
    }

    /// What can be seen, with the rules behind it: worked out again where somebody asks for them.
    pub(crate) fn visible(&self) -> Result<Visible<'_>, ResolveError> {
        Visible::new(&self.policy, &self.roots)
    }

    pub(crate) fn variables<'a>(
        &'a self,
        environment: &'a [(Bytes, Bytes)],
    ) -> Result<Variables<'a>, ResolveError> {
        surroundings::variables(&self.policy, environment, &self.roots)
    }
}

fn may_have_network(policy: &Policy, subject: &Subject) -> Result<(), ResolveError> {
    if policy.mode.value == NetworkMode::Host && !policy.trusted && !subject.user_mode {
        return Err(ResolveError::HostNetwork { policy: policy.name.clone(), at: policy.mode.at.clone() });
    }
    Ok(())
}

fn run_as(policy: &Policy, subject: &Subject) -> RunAs {
    if subject.user_mode || policy.user.value == User::Caller || policy.level.value == Level::Minimal {
        return RunAs::Caller;
    }
    RunAs::Ephemeral { start: policy.range.start, count: policy.range.count }
}

/// Whether a spec certainly fits into a message. Most do by far, and needn't be encoded to see it.
fn is_short(spec: &SandboxSpec) -> bool {
    longest(spec) <= MAX_LAUNCH_MESSAGE
}

/// A bound of how many bytes a spec is as a message.
fn longest(spec: &SandboxSpec) -> usize {
    /// More than anything in a spec takes beside its bytes, and than all there is one of takes together.
    const ONE: usize = 64;
    const REST: usize = 1024;
    let paths = |paths: &[Bytes]| paths.iter().map(|path| path.len() + ONE).sum::<usize>();
    let mount = |mount: &Mount| {
        let nodes = if let MountKind::Dev { nodes, .. } = &mount.kind { paths(nodes) } else { 0 };
        mount.target.len() + nodes + ONE
    };
    let ports = |ports: &Ports| if let Ports::Only(ports) = ports { ports.len() * ONE } else { 0 };
    let programs = spec.seccomp.base.iter().chain(&spec.seccomp.delta);
    REST + spec.policy.len()
        + spec.mounts.iter().map(mount).sum::<usize>()
        + [&spec.deny, &spec.deny_elsewhere, &spec.protect].map(|list| paths(list)).iter().sum::<usize>()
        + ports(&spec.network.tcp_connect)
        + ports(&spec.network.tcp_bind)
        + programs.map(|program| ONE + program.len() * size_of::<BpfInstruction>()).sum::<usize>()
}

/// SHA-256 over the encoded spec, whose own digest is zero, and how long that is.
fn digest(spec: &SandboxSpec) -> Result<([u8; 32], usize), ResolveError> {
    let encoded = encode_launch(spec).map_err(|source| ResolveError::TooLarge { source })?;
    Ok((Sha256::digest(&encoded).into(), encoded.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PolicySet;

    fn subject() -> Subject {
        Subject {
            owner_uid: 0,
            owner_gid: 0,
            home: "/root".into(),
            workspace: "/srv/w".into(),
            overrides: Overrides::default(),
            user_mode: true,
        }
    }

    #[test]
    fn confines_of_one_run_are_the_same_but_for_the_digest() {
        let set = PolicySet::shipped();
        for name in set.names() {
            let policy = set.get(name).unwrap();
            let whole = Confines::of(policy, &subject()).unwrap();
            let once = Confines::of_one_run(policy, &subject()).unwrap();
            assert_ne!(whole.spec.digest, [0; 32], "{name}");
            let same = SandboxSpec { digest: [0; 32], ..(*whole.spec).clone() };
            assert_eq!(*once.spec, same, "{name}");
        }
    }

    /// With every list at its longest in turn, nothing else and nothing in it: where a wrong bound would show.
    #[test]
    fn no_spec_is_longer_than_its_bound() {
        let policy = PolicySet::shipped();
        let plain = (*Confines::of(policy.get("strict").unwrap(), &subject()).unwrap().spec).clone();
        let many = 1000;
        let nodes = MountKind::Dev { nodes: vec![Bytes::default(); many], shm_size: 1 };
        let mount = |kind| Mount {
            target: Bytes::default(),
            kind,
            access: stockade_protocol::spec::Access::default(),
        };
        let mut specs = vec![plain.clone(); 8];
        specs[0].mounts = vec![mount(MountKind::Tmpfs { size: 1, mode: 1 }); many];
        specs[1].mounts = vec![mount(nodes)];
        specs[2].deny = vec![Bytes::default(); many];
        specs[3].deny_elsewhere = vec![Bytes::default(); many];
        specs[4].protect = vec![Bytes::default(); many];
        specs[5].network.tcp_connect = Ports::Only(vec![1; many]);
        specs[6].network.tcp_bind = Ports::Only(vec![1; many]);
        specs[7].seccomp.delta = vec![Vec::new(); many];
        specs.push(plain);
        for spec in specs {
            let (_, encoded) = digest(&spec).unwrap();
            assert!(encoded <= longest(&spec), "{encoded} > {}", longest(&spec));
        }
    }
}
