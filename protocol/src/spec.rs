//! The resolved form of a policy for one request: numbers, paths, a finished BPF program. The worker obeys it and
//! knows no policy.
//!
//! Everything a run can see stands in [`SandboxSpec::mounts`]; there is no implied rule beside it. Paths are the
//! same inside and outside.

use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;

/// What one run is confined to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// The policy's name, for reports.
    pub policy: String,
    /// SHA-256 over the encoded spec with this field zero: what a template is keyed by.
    pub digest: [u8; 32],
    /// The level.
    pub level: Level,
    /// Everything visible, parents before children. A later mount covers an earlier one beneath it.
    pub mounts: Vec<Mount>,
    /// No access at all, existing or not: masked, and held by placeholders where nothing exists yet.
    pub deny: Vec<Bytes>,
    /// Denied paths that lie on no host's file of this spec by their letters, but may by the host's links: the worker
    /// resolves them, like those above, and denies what they lead to as well.
    pub deny_elsewhere: Vec<Bytes>,
    /// Readable, not changeable, where it exists when the run starts. What comes into being during the run is
    /// listed in `Exited`.
    pub protect: Vec<Bytes>,
    /// The network.
    pub network: NetworkSpec,
    /// Resource limits.
    pub limits: Limits,
    /// Finished seccomp programs.
    pub seccomp: SeccompSpec,
    /// Who the run is on the host.
    pub run_as: RunAs,
    /// The host name inside.
    pub hostname: String,
}

/// How much is enforced. See the guarantees table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Every layer.
    Strict,
    /// No network namespace.
    Moderate,
    /// Landlock, seccomp, rlimits and a subreaper: where namespaces are forbidden.
    Minimal,
}

/// One thing that is visible at one path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute, normalised path inside, which is also the path of a bind's source on the host.
    pub target: Bytes,
    /// What is there.
    pub kind: MountKind,
    /// What may be done beneath it (mount flags, and Landlock rules).
    pub access: Access,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MountKind {
    /// The workspace: the passed directory descriptor, or the target's path opened as the owner.
    Workspace,
    /// The host's file or directory at the target's path, submounts kept. Absent: nothing is mounted and the
    /// path is reported. A symbolic link is made again as the same link.
    Bind {
        /// Make the directory (0700, as the owner) when it doesn't exist.
        create: bool,
    },
    /// A fresh tmpfs, of the run's own.
    Tmpfs {
        /// Its bound in bytes.
        size: u64,
        /// Its root's mode bits.
        mode: u32,
    },
    /// `/proc` of the run's own pid namespace, `/proc/sys` read-only.
    Proc,
    /// A small `/dev`: these nodes bound from the host, plus `fd`, `stdin`, `stdout`, `stderr`, `shm` (a tmpfs of
    /// `shm_size` bytes), `pts` and `ptmx` (a devpts of the run's own).
    Dev {
        /// Names of nodes below `/dev` (`null`, `zero`, …).
        nodes: Vec<Bytes>,
        /// Bound of `/dev/shm`, in bytes.
        shm_size: u64,
    },
}

/// What may be done beneath a path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Access {
    /// Open for reading, list.
    pub read: bool,
    /// Open for writing, create, remove, rename, link, truncate.
    pub write: bool,
    /// Execute.
    pub execute: bool,
}

/// The network of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// The mode.
    pub mode: NetworkMode,
    /// Where TCP may connect to.
    pub tcp_connect: Ports,
    /// Where TCP may be bound.
    pub tcp_bind: Ports,
}

/// What of the network exists for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkMode {
    /// Nothing: an empty network namespace with its loopback down; at `moderate`, `AF_UNIX` only, by seccomp.
    None,
    /// A loopback interface of the run's own, in a fresh network namespace.
    Loopback,
    /// The host's network.
    Host,
}

/// TCP ports. An empty list means none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ports {
    /// Every port: no Landlock rule handles this direction.
    Any,
    /// These only.
    Only(Vec<u16>),
}

/// Resource limits of a run. `None` means no limit where it is allowed at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Wall time, in milliseconds.
    pub wall_ms: Option<u64>,
    /// Processor time of the whole tree, in milliseconds.
    pub cpu_ms: Option<u64>,
    /// Time without output, in milliseconds. Its clock stops while the output pipe is full.
    pub idle_ms: Option<u64>,
    /// Memory of the whole tree, tmpfs included, in bytes.
    pub memory: Option<u64>,
    /// Processes and threads of the whole tree.
    pub processes: u64,
    /// `RLIMIT_NOFILE`, a process.
    pub open_files: u64,
    /// `RLIMIT_FSIZE`, in bytes, a file.
    pub file_size: Option<u64>,
    /// Bytes of standard output and error together. `None`: no rule, so descriptors can be passed through.
    pub output: Option<u64>,
    /// Bytes of standard input. `None`: no rule, so a descriptor can be passed through.
    pub stdin: Option<u64>,
    /// `RLIMIT_CORE`, in bytes.
    pub core: u64,
    /// `RLIMIT_STACK`, in bytes.
    pub stack: u64,
    /// `RLIMIT_AS`, in bytes, a process. Off unless asked for: it breaks java and go.
    pub address_space: Option<u64>,
    /// Nice value, 0 to 19.
    pub nice: u8,
    /// I/O priority.
    pub io_priority: IoPriority,
}

/// I/O priority (`ioprio_set(2)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IoPriority {
    /// Only when the disk is idle.
    Idle,
    /// Best effort at this level, 0 (first) to 7 (last).
    BestEffort(u8),
}

/// One BPF instruction, as `struct sock_filter` (linux/filter.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BpfInstruction {
    /// Operation.
    pub code: u16,
    /// Jump if true.
    pub jt: u8,
    /// Jump if false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// Finished programs, installed in order. What a tool meets is `base` and `delta` together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompSpec {
    /// Installed by init before it is parked; never denies what init itself needs to start and watch a tool.
    pub base: Vec<Vec<BpfInstruction>>,
    /// Installed between init's vfork and exec: denies what only init needed.
    pub delta: Vec<Vec<BpfInstruction>>,
    /// How many rules they were made from, for reports.
    pub rules: u32,
}

/// Who a run is on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunAs {
    /// The caller. In a user's own daemon always.
    Caller,
    /// A host uid of its own from this range, in system mode; the workspace is idmapped. A user's daemon, which
    /// has no other uid to give, runs it as its user.
    Ephemeral {
        /// First uid of the range.
        start: u32,
        /// How many.
        count: u32,
    },
}
