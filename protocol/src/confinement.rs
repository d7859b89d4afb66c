//! What held: per layer, what was enforced for one run.

use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;
use crate::outcome::MemoryMechanism;
use crate::spec::Level;

/// What was enforced for a run, as read back while its worker was parked. Travels in `Started`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// The policy's name.
    pub policy: String,
    /// SHA-256 of the resolved spec.
    pub policy_digest: [u8; 32],
    /// The level.
    pub level: Level,
    /// Which spawn plan made the worker.
    pub plan: Plan,
    /// One entry a layer, in the order of confinement.
    pub layers: Vec<LayerReport>,
    /// What bounds memory.
    pub memory: MemoryMechanism,
    /// The run's user id on the host.
    pub host_uid: u32,
    /// Paths the policy allows that don't exist on this machine: nothing was granted for them.
    pub absent: Vec<Bytes>,
    /// How standard input, output and error reach the tool.
    pub stdio: [StdioPath; 3],
}

/// A spawn plan of DESIGN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Plan {
    /// Privileged template, a host uid a run, idmapped binds, a user namespace a worker.
    System,
    /// Unprivileged: one user namespace per owner, each worker nests its own.
    User,
    /// No namespaces: Landlock, seccomp, rlimits and a subreaper.
    Minimal,
}

/// One layer's report. A layer that was asked for and didn't hold is no report but the end of the set-up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerReport {
    /// The layer.
    pub layer: Layer,
    /// Whether it is enforced for this run. `false` only where the policy's level doesn't ask for it.
    pub enforced: bool,
    /// What exactly: namespaces by inode, ABI, rule counts, limits. For people and tests; not to be parsed.
    pub detail: String,
}

/// The layers, in the order of confinement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Layer {
    /// user, mount, pid, ipc, uts, cgroup, net.
    Namespaces,
    /// Root of tmpfs and binds, pivoted; the old one gone.
    Root,
    /// Masks on denied and protected paths.
    Guard,
    /// The network namespace or socket families.
    Network,
    /// Host uid, no capabilities, `no_new_privs`, securebits.
    Identity,
    /// Control group or monitor.
    Resources,
    /// rlimits.
    Rlimits,
    /// Landlock.
    Landlock,
    /// seccomp.
    Seccomp,
    /// Environment, descriptors, session.
    Process,
}

/// How one standard descriptor reaches the tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum StdioPath {
    /// `/dev/null`.
    Null,
    /// The client's own descriptor, passed through.
    Passed,
    /// A pipe that we read or write.
    Relayed,
    /// A pseudo-terminal of the run's own.
    Terminal,
}

/// What templates and parked workers did since the launcher started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warmth {
    /// Templates there are.
    pub templates: u32,
    /// Workers parked ahead of their runs.
    pub parked: u32,
    /// Runs that got a parked worker.
    pub hits: u64,
    /// Runs that had to wait for one.
    pub misses: u64,
    /// How long making the last one took, from its order until it was read back, in microseconds.
    pub refill_us: u64,
}
