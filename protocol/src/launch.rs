//! The wire between the supervisor and its launcher, version 1: one message a `SOCK_SEQPACKET` datagram, its
//! descriptors beside it. A message over [`crate::bounds::MAX_LAUNCH_INLINE`] travels in a sealed memfd.
//!
//! The launcher accepts this version and the one before it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;
use crate::confinement::{Confinement, Plan, Warmth};
use crate::id::ExecId;
use crate::outcome::{CancelReason, MemoryMechanism, Outcome, SetupStage, Usage};
use crate::spec::SandboxSpec;

/// The version these types are.
pub const LAUNCH_VERSION: u16 = 1;
/// The oldest version that is understood: an older launcher's runs can't be taken over.
pub const OLDEST_LAUNCH_VERSION: u16 = 1;

/// From the supervisor to the launcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ToLauncher {
    /// Opens the channel of a launcher that was just started.
    Hello {
        /// [`LAUNCH_VERSION`].
        version: u16,
        /// If it is to outlive its supervisor: what it and the next one know each other by. Beside it is the socket that the next
        /// one connects to, bound and `SOCK_SEQPACKET`. Without it the launcher ends with its channel.
        keep: Option<Keep>,
        /// The most workers that are parked for one owner, spec and workspace.
        parked: u32,
    },
    /// Opens the channel of a next supervisor, once the launcher has [said who it is](FromLauncher::Known): it takes the place
    /// of the one before, and is told of every run there is.
    Again {
        /// [`LAUNCH_VERSION`], or an older one.
        version: u16,
        /// [`Keep::supervisor`].
        token: Token,
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
    /// As `Launch`, of a run that has to wait: kept until it's told to [`Start`](Self::Start), also for the next supervisor.
    Hold(Box<Launch>),
    /// Launches a run that was held.
    Start {
        /// The run.
        exec_id: ExecId,
    },
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
    /// The supervisor needs no more of these runs, which have ended: the next one isn't told of them.
    Release {
        /// The runs.
        exec_ids: Vec<ExecId>,
    },
    /// All of a [fed](RunNote::fed) run's input is written: the launcher closes the pipe's end that it holds.
    InputEnded {
        /// The run.
        exec_id: ExecId,
        /// How many bytes of it.
        bytes: u64,
    },
    /// The output of a run that has ended is given up: the next supervisor isn't told where it is.
    ReleaseOutput {
        /// The run.
        exec_id: ExecId,
        /// Sequence number after its last record.
        next_seq: u64,
    },
    /// Embedded only: the reader of the run's pipes saw more output than the limit.
    OutputExceeded {
        /// The run.
        exec_id: ExecId,
    },
    /// Ends every run and then the launcher.
    Shutdown,
    /// Starts an opener: a process that opens directories as an owner, for who can't pass one. Beside it is the opener's end of
    /// its socket (see [`ToOpener`]), which is closed where there is to be none, and then the client's connection, if that is passed.
    Opener {
        /// As whom.
        owner: Owner,
        /// As [`Launch::proved`].
        proved: bool,
    },
}

/// Random bytes that only two know.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token(pub [u8; 32]);

impl core::fmt::Debug for Token {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// What a launcher and the supervisors of one state directory know each other by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// The launcher says this to whoever connects.
    pub launcher: Token,
    /// A next supervisor answers with this.
    pub supervisor: Token,
}

/// What a [`SandboxSpec`] is called between a supervisor and its launcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SpecNumber(pub u64);

/// Everything a run needs beside its spec. Descriptors beside it, each only where its field says so, in this order: workspace,
/// stdin, stdout, stderr, the write end of stdin, the client's connection.
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
    /// What the launcher keeps for the next supervisor, and knows nothing of.
    pub note: RunNote,
    /// Whether the client's connection is passed, as its owner's proof: a launcher with more privilege than its supervisor
    /// believes nothing else.
    pub proved: bool,
    /// Files below the workspace that the tool finds open. At most [`crate::bounds::MAX_RUN_OPENINGS`].
    pub openings: Vec<Opening>,
}

/// A file below the workspace that is opened for the tool, for reading, within all that confines it: what it couldn't open itself isn't
/// opened, and no symbolic link is followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// The descriptor's number: 0, standard input, or from 3 on, without a gap.
    pub number: u32,
    /// The path below the workspace.
    pub path: Bytes,
}

/// What a supervisor has to know of a run that another one has accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunNote {
    /// The client's own id of the request.
    pub request_id: u64,
    /// Name of the policy.
    pub policy: String,
    /// The command as lists show it.
    pub command: Bytes,
    /// Whether it outlives its client's connection.
    pub detach: bool,
    /// The wall-time limit, in milliseconds.
    pub wall_ms: Option<u64>,
    /// Whether its standard input comes from the supervisor: then the write end of its pipe is the last descriptor beside the
    /// launch, so that the tool sees no end of input when only the supervisor has ended.
    pub fed: bool,
    /// The tool that was called, if one was.
    pub tool: Option<CalledTool>,
    /// What is hidden in its output, if that is redacted.
    pub redaction: Option<Redaction>,
    /// The grant that it was let through by, if it was.
    pub grant: Option<GrantNote>,
    /// The request that it looks at for the supervisor, if it is a reviewer's run: nobody takes it over.
    pub reviews: Option<ExecId>,
}

/// By which grant a run was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantNote {
    /// Its name.
    pub id: [u8; 16],
    /// Whether the run ends with it.
    pub ends_run: bool,
}

/// What is hidden in a run's output.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redaction {
    /// Values of the run's own secrets, by the names that are shown in their place. At most [`crate::bounds::MAX_SECRETS`].
    pub secrets: Vec<(String, Bytes)>,
}

impl core::fmt::Debug for Redaction {
    /// Without the values.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let names = self.secrets.iter().map(|(name, _)| name);
        f.debug_struct("Redaction").field("secrets", &names.collect::<Vec<_>>()).finish()
    }
}

/// A tool that was called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalledTool {
    /// Its name.
    pub name: String,
    /// Whether its caller gave it less than its file does, or sent it a signal: that it failed needn't be its fault.
    pub is_tightened: bool,
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
    /// As `Relayed`, in records of at most [`MARKED_RECORD`](crate::bounds::MARKED_RECORD) bytes, and a record without bytes
    /// says that its stream has been silent for [`MARK_AFTER_MS`](crate::bounds::MARK_AFTER_MS) behind its last record.
    Marked {
        /// Capacity of the ring, in bytes.
        ring_bytes: u64,
    },
}

impl LaunchOutput {
    /// Capacity of its ring, where there is one.
    #[must_use]
    pub fn ring_bytes(self) -> Option<u64> {
        match self {
            Self::Passed => None,
            Self::Relayed { ring_bytes } | Self::Marked { ring_bytes } => Some(ring_bytes),
        }
    }
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
    /// Said first to whoever connects to the socket of [`ToLauncher::Hello`].
    Known {
        /// The newest version that it speaks.
        version: u16,
        /// [`Keep::launcher`].
        token: Token,
    },
    /// Answers `Hello` and `Again`. A relay's socket (see [`ToRelay`]) is beside it, unless the launcher is embedded.
    Hello {
        /// The version both speak.
        version: u16,
        /// The launcher's process id.
        pid: u32,
        /// How its workers are made when the level allows namespaces.
        plan: Plan,
        /// What bounds memory.
        memory: MemoryMechanism,
        /// The program that it runs, by its file.
        program: Program,
        /// Whether another file has that one's name by now, as after an upgrade, or none.
        replaced: bool,
    },
    /// Between `Again` and its `Hello`: a run that another supervisor has launched. `Started`, with its ring beside it, `Ended`
    /// and `Reaped` follow again, as far as they were said.
    Adopted(Box<Adopted>),
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
        /// The workers that were made since the last time, [`MAX_MADE`] of them at the most: what each stage of [`MAKING`] took.
        made: Vec<Made>,
    },
}

/// The stages of a worker's making, in order: until its template has cloned it, its own, and the launcher's look at it. Those
/// that a plan doesn't have take no time.
pub const MAKING: [SetupStage; 11] = [
    SetupStage::Template,
    SetupStage::Namespaces,
    SetupStage::Open,
    SetupStage::Mount,
    SetupStage::Network,
    SetupStage::Identity,
    SetupStage::Rlimits,
    SetupStage::Capabilities,
    SetupStage::Seccomp,
    SetupStage::Landlock,
    SetupStage::Verify,
];

/// The most workers of one [`FromLauncher::Warmth`]. Those beyond aren't told of.
pub const MAX_MADE: usize = 256;

/// How long making a worker took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Each stage of [`MAKING`], in nanoseconds; what took longer than four seconds, those.
    pub took_ns: [u32; MAKING.len()],
}

/// A run that a launcher has kept, for a next supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// The run.
    pub exec_id: ExecId,
    /// For whom.
    pub owner_uid: u32,
    /// Bytes of its ring, where its output is relayed.
    pub ring_bytes: Option<u64>,
    /// Whether it's held, and waits to be started.
    pub held: bool,
    /// How long ago it came, in milliseconds.
    pub age_ms: u64,
    /// Bytes that its standard input was fed, once all of them are written.
    pub input_bytes: Option<u64>,
    /// Its output was given up: the sequence number after its last record.
    pub output_released: Option<u64>,
    /// What the other supervisor wanted kept.
    pub note: RunNote,
}

/// An executable file: whether two processes run the same one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Device of its filesystem.
    pub device: u64,
    /// Inode.
    pub inode: u64,
    /// When it was written last, in nanoseconds since 1970.
    pub modified_ns: i64,
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
        /// What was acknowledged, as an offset.
        acknowledged: u64,
        /// Offset of the oldest record still kept, in bytes.
        oldest_offset: u64,
        /// Its sequence number.
        oldest_seq: u64,
        /// Both pipes have ended: no record follows.
        eof: bool,
    },
    /// Once, to each supervisor: it was told of every ring there is.
    Told,
}

/// From the supervisor to an opener, one question at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ToOpener {
    /// Opens a directory.
    Open {
        /// Its path, absolute.
        path: Bytes,
    },
}

/// From an opener to the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FromOpener {
    /// The directory is beside it, opened with `O_PATH`.
    Opened,
    /// It can't be opened.
    Failed {
        /// Why, by number.
        errno: i32,
    },
}
