//! The wire between the supervisor and its launcher, version 1: one message a `SOCK_SEQPACKET` datagram, its
//! descriptors beside it. A message over [`crate::bounds::MAX_LAUNCH_INLINE`] travels in a sealed memfd.
//!
//! The launcher accepts this version and the one before it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;
use crate::confinement::{Confinement, Plan, Warmth};
use crate::id::ExecId;
use crate::outcome::{CancelReason, MemoryMechanism, Outcome, Usage};
use crate::spec::SandboxSpec;

/// The version these types are.
pub const LAUNCH_VERSION: u16 = 1;

/// From the supervisor to the launcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ToLauncher {
    /// Opens the channel.
    Hello {
        /// [`LAUNCH_VERSION`].
        version: u16,
    },
    /// What runs will be confined to, once for all of them: comes before the first `Launch` that names it. The launcher
    /// remembers [`MAX_SPECS`](crate::bounds::MAX_SPECS) of them, and takes none beyond.
    Spec {
        /// Of it, in this channel's life. Never another's.
        number: SpecNumber,
        /// All of it.
        spec: Arc<SandboxSpec>,
    },
    /// No later `Launch` names this spec. Its runs and templates go on.
    ForgetSpec {
        /// Which.
        number: SpecNumber,
    },
    /// Makes a worker and starts a tool in it. Descriptors: see [`Launch`].
    Launch(Box<Launch>),
    /// A signal for the tool's process group.
    Signal {
        /// The run.
        exec_id: ExecId,
        /// The signal's number.
        signal: u8,
    },
    /// A new size for the run's terminal.
    Resize {
        /// The run.
        exec_id: ExecId,
        /// Rows.
        rows: u16,
        /// Columns.
        columns: u16,
    },
    /// Ends a run: the whole tree, at once.
    Cancel {
        /// The run.
        exec_id: ExecId,
        /// What its outcome will say.
        reason: CancelReason,
    },
    /// Embedded only: the reader of the run's pipes saw more output than the limit.
    OutputExceeded {
        /// The run.
        exec_id: ExecId,
    },
    /// Ends every run and then the launcher.
    Shutdown,
}

/// What a [`SandboxSpec`] is called between a supervisor and its launcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SpecNumber(pub u64);

/// Everything a run needs beside its spec. Descriptors beside it, each only where its field says so, in this order: workspace,
/// stdin, stdout, stderr.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The run.
    pub exec_id: ExecId,
    /// For whom.
    pub owner: Owner,
    /// What it is confined to: a [`ToLauncher::Spec`] that came before.
    pub spec: SpecNumber,
    /// The command.
    pub argv: Vec<Bytes>,
    /// The tool's whole environment.
    pub environment: Vec<(Bytes, Bytes)>,
    /// Absolute working directory inside.
    pub cwd: Bytes,
    /// The owner's home directory: `HOME`, and where a hidden home is.
    pub home: Bytes,
    /// The workspace's path, inside and on the host.
    pub workspace: Bytes,
    /// Whether the workspace's descriptor is passed; else the path is opened as the owner.
    pub workspace_passed: bool,
    /// Standard input: `false`: `/dev/null`; `true`: a descriptor is passed (the client's own, or a pipe's read end).
    pub stdin_passed: bool,
    /// Output.
    pub output: LaunchOutput,
}

/// Where a tool's output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum LaunchOutput {
    /// Two descriptors are passed and become the tool's own.
    Passed,
    /// The launcher makes pipes, its relay reads them into a ring of so many bytes.
    Relayed {
        /// Capacity of the ring, in bytes.
        ring_bytes: u64,
    },
}

/// For whom a run is: what the kernel said of the peer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// User id on the host.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// From the launcher to the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FromLauncher {
    /// Answers `Hello`. A relay's socket (see [`ToRelay`]) is beside it, unless the launcher is embedded.
    Hello {
        /// The version both speak.
        version: u16,
        /// The launcher's process id.
        pid: u32,
        /// How its workers are made when the level allows namespaces.
        plan: Plan,
        /// What bounds memory.
        memory: MemoryMechanism,
    },
    /// The tool was started. For relayed output the ring's memfd is beside it, unless the tool has ended already and has
    /// written nothing: then `Ended` is the end of its output, and the relay never hears of it.
    Started {
        /// The run.
        exec_id: ExecId,
        /// What holds.
        confinement: Box<Confinement>,
    },
    /// A limit is near.
    Warning {
        /// The run.
        exec_id: ExecId,
        /// Which.
        limit: String,
        /// Its value now.
        value: u64,
        /// The limit.
        bound: u64,
    },
    /// The run has ended. Its output may still be on its way through the relay.
    Ended {
        /// The run.
        exec_id: ExecId,
        /// How.
        outcome: Outcome,
        /// What it used.
        usage: Usage,
        /// Protected names that came into being.
        trusted_files: Vec<Bytes>,
        /// Whether every process of the run is reaped. If not, `Reaped` follows once it is.
        reaped: bool,
    },
    /// The last process of a run that was `Ended` unreaped has gone.
    Reaped {
        /// The run.
        exec_id: ExecId,
    },
    /// What its templates did, some time after that has changed.
    Warmth {
        /// All of it since it started.
        warmth: Warmth,
    },
}

/// From the supervisor to the relay, on the socket that came with `Hello`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ToRelay {
    /// Everything below this offset of the run's ring may be written over. May come before the ring is known.
    Acknowledge {
        /// The run.
        exec_id: ExecId,
        /// Offset in the stream of records, in bytes.
        offset: u64,
    },
    /// The run's ring is needed no more.
    Forget {
        /// The run.
        exec_id: ExecId,
    },
}

/// From the relay to the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FromRelay {
    /// The run's ring has grown, or come to its end.
    Wrote {
        /// The run.
        exec_id: ExecId,
        /// Offset after the last record, in bytes.
        head: u64,
        /// Sequence number that the next event of the run will have.
        next_seq: u64,
        /// Offset of the oldest record still kept, in bytes.
        oldest_offset: u64,
        /// Its sequence number.
        oldest_seq: u64,
        /// Both pipes have ended: no record follows.
        eof: bool,
    },
}
