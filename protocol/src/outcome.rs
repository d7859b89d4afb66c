//! How a run ended, and what it used.

use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;

/// How a run ended. It tells first whether the tool ended, we ended it, or it never began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Outcome {
    /// The tool ended by itself with this exit code (0 to 255).
    Exited {
        /// The code.
        code: u8,
    },
    /// The tool was ended by a signal that wasn't ours.
    Signaled {
        /// The signal's number.
        signal: u8,
        /// Whether a core was written.
        core_dumped: bool,
    },
    /// We ended it: a time limit.
    TimedOut {
        /// Which clock ran out.
        clock: Clock,
        /// The limit, in milliseconds.
        limit_ms: u64,
    },
    /// We, or the kernel's control group for us, ended it: over its memory.
    MemoryExceeded {
        /// The limit, in bytes.
        limit: u64,
        /// The most that was seen, in bytes.
        seen: u64,
    },
    /// We ended it: more output than the policy allows.
    OutputExceeded {
        /// The limit, in bytes.
        limit: u64,
    },
    /// We ended it: more processes and threads than the policy allows.
    ProcessesExceeded {
        /// The limit.
        limit: u64,
        /// How many were seen.
        seen: u64,
    },
    /// We ended it because somebody asked, or because nobody was left to ask.
    Cancelled {
        /// Who or what.
        reason: CancelReason,
    },
    /// The tool never began.
    SetupFailed {
        /// What failed.
        failure: SetupFailure,
    },
    /// We can't know how it ended: a process of ours died first.
    Lost {
        /// What happened.
        reason: String,
    },
}

/// The clock of a time limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Clock {
    /// Since the tool was started.
    Wall,
    /// Processor time of the whole tree.
    Cpu,
    /// Since it last wrote output. The clock stops while its output pipe is full.
    Idle,
}

/// Why a run was cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CancelReason {
    /// A client asked.
    Asked,
    /// Its client went away, and it wasn't detached.
    ClientGone,
    /// The daemon is stopping.
    Draining,
    /// A protected path lost its mask while the run was alive (a rename by another program on the host).
    GuardDissolved {
        /// The path.
        path: Bytes,
    },
    /// It was given more standard input than the policy allows.
    InputExceeded {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The grant that it was let through by is over or was revoked, and was given so that its runs end with it.
    GrantOver,
    /// It was a reviewer's, and what it looked at waits no more.
    Unneeded,
}

/// Across a fork, numbers: where set-up failed and the errno. The words are made in the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetupFailure {
    /// The stage that failed.
    pub stage: SetupStage,
    /// The errno, or 0 where no system call failed.
    pub errno: i32,
    /// What the stage was working on: a path, a limit's name, a kernel feature; for `Exec` the candidates tried,
    /// separated by `:`.
    pub subject: Bytes,
}

/// The stages of set-up, in their order; `File` comes just before `Exec`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SetupStage {
    /// The request's numbers and paths against what the launcher permits.
    Check,
    /// Opening the client's paths as the client.
    Open,
    /// Starting the template process.
    Template,
    /// Entering or mapping the user namespace.
    UserNamespace,
    /// Entering the other namespaces.
    Namespaces,
    /// Building the root.
    Mount,
    /// Masking denied and protected paths.
    Guard,
    /// The network namespace and its loopback.
    Network,
    /// The idmapped workspace.
    Idmap,
    /// The control group.
    Cgroup,
    /// The host user id and its groups.
    Identity,
    /// Dropping capabilities, `no_new_privs`, securebits.
    Capabilities,
    /// Resource limits.
    Rlimits,
    /// Landlock.
    Landlock,
    /// seccomp.
    Seccomp,
    /// Reading back what holds.
    Verify,
    /// Changing to the working directory.
    Cwd,
    /// The pseudo-terminal.
    Terminal,
    /// Executing the tool.
    Exec,
    /// Opening a file below the workspace that the tool is to find open.
    File,
}

/// What a run used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// From the tool's start to its end, in microseconds.
    pub wall_us: u64,
    /// Processor time in user mode of the whole tree, in microseconds.
    pub user_us: u64,
    /// Processor time in kernel mode of the whole tree, in microseconds.
    pub system_us: u64,
    /// Peak of memory, in bytes.
    pub memory_peak: u64,
    /// What measured the peak.
    pub memory_mechanism: MemoryMechanism,
    /// Bytes that reached the tool's standard input through us (0 where the descriptor was passed).
    pub bytes_in: u64,
    /// Bytes of output that passed through us (0 where the descriptors were passed).
    pub bytes_out: u64,
    /// The most processes and threads seen at once; at least 1 for a tool that began.
    pub processes_peak: u64,
    /// Voluntary context switches.
    pub context_switches_voluntary: u64,
    /// Involuntary context switches.
    pub context_switches_involuntary: u64,
    /// How long it was held up; only of a run with a control group of its own, by a kernel that measures it.
    pub stalled: Option<Stalled>,
}

/// How long at least one of a run's processes had to wait for a resource (the kernel's pressure stall information:
/// Documentation/accounting/psi.rst, `total` of `some`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stalled {
    /// For a processor, in microseconds.
    pub cpu_us: u64,
    /// For memory, in microseconds.
    pub memory_us: u64,
    /// For a disk, in microseconds.
    pub io_us: u64,
}

/// What bounds and measures memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum MemoryMechanism {
    /// Nothing but the largest process at its end (`ru_maxrss`): the run was shorter than a tick of the monitor.
    #[default]
    Rusage,
    /// The monitor's samples.
    Monitor,
    /// A control group's `memory.peak`.
    Cgroup,
}
