//! The wire between a client and the supervisor, version 1.
//!
//! A connection starts with the client's [`ClientMessage::Hello`], whose frame has the same 26 bytes in every
//! version, so its first byte (`0x16`) tells this wire from JSON (`{`, `[`) and from LSP framing (`C`). The
//! supervisor answers with [`ServerMessage::Welcome`]. Descriptors travel beside the frame that names them, in
//! the order of its fields. `docs/protocol.md` has every byte.

use serde::{Deserialize, Serialize};

use crate::approval::{ApprovalEnd, ApprovalSummary, RiskFactor};
use crate::audit::{AuditPage, AuditQuestion};
use crate::bytes::Bytes;
use crate::confinement::Confinement;
use crate::denied::Denied;
use crate::grants::{GrantList, GrantSummary, GrantTerms};
use crate::id::ExecId;
use crate::outcome::{Outcome, Usage};
use crate::statistics::{StatisticsQuestion, StatisticsReport};

/// The first field of a `Hello`.
pub const MAGIC: [u8; 8] = *b"STOCKADE";
/// The version these types are.
pub const VERSION: u16 = 1;

/// Optional abilities, as bits of `Hello::features` and `Welcome::features`. Unknown bits are ignored.
pub mod features {
    /// Descriptors can be passed beside frames (`SCM_RIGHTS`).
    pub const DESCRIPTORS: u64 = 1;
}

/// The opening frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// The highest version the client speaks.
    pub version: u16,
    /// What the client can do ([`features`]).
    pub features: u64,
}

/// The answer to a `Hello`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version both will speak.
    pub version: u16,
    /// What both can do.
    pub features: u64,
    /// The largest payload either side may send, in bytes.
    pub max_frame: u32,
    /// The daemon's release, for people.
    pub server: String,
}

/// From a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ClientMessage {
    /// Opens the connection.
    Hello(Hello),
    /// Asks for a run.
    Exec(Box<ExecRequest>),
    /// Bytes for a run's standard input (stdin mode `Stream`).
    StdinData {
        /// The run.
        exec_id: ExecId,
        /// At most [`crate::bounds::MAX_STDIN_CHUNK`].
        bytes: Bytes,
    },
    /// End of a run's standard input.
    StdinEof {
        /// The run.
        exec_id: ExecId,
    },
    /// A signal for the tool (its process group).
    Signal {
        /// The run.
        exec_id: ExecId,
        /// The signal's number, 1 to 64.
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
    },
    /// Follows a run's events from after a sequence number (0: from the first that is kept).
    Attach {
        /// The run.
        exec_id: ExecId,
        /// The last sequence number the client has.
        after_seq: u64,
    },
    /// This client has all events of a run up to a sequence number; they need not be kept.
    Acknowledge {
        /// The run.
        exec_id: ExecId,
        /// The sequence number.
        seq: u64,
    },
    /// Asks for the caller's runs.
    List,
    /// Asks how the daemon is.
    Status,
    /// Asks how the circuit breakers of tools stand.
    Breakers,
    /// Closes a tool's circuit breaker. For who operates the daemon: where there are rules of access they say who that is; else root
    /// and the user that the daemon runs as.
    ResetBreaker {
        /// The tool's name.
        tool: String,
    },
    /// Asks what runs came to, over restarts. A caller sees what he has asked for; who may look into the daemon sees all: by the rules of access where there are any, else root and the user that the daemon runs as.
    Statistics(StatisticsQuestion),
    /// Lets in again whom repeated refusals have locked out. For who operates the daemon.
    Unlock {
        /// The user's uid.
        uid: u32,
        /// His systemd unit; empty: of none; none: whatever his unit.
        unit: Option<String>,
    },
    /// Asks what waits for an approval. For who may approve: where there are rules of access they say who that is; else root and the user that the daemon runs as.
    Approvals {
        /// Whether to be told of what comes to wait and what became of it, from then on.
        follow: bool,
        /// Only this one, shown as long as may be; none: all, shorter where they are many.
        only: Option<ExecId>,
    },
    /// Answers for what waits for an approval.
    Approve {
        /// The run.
        exec_id: ExecId,
        /// What the answer is about, as it was shown.
        digest: [u8; 32],
        /// Whether it may run.
        approve: bool,
        /// Why, for whoever asked and for the record: at most [`crate::bounds::MAX_APPROVAL_REASON`].
        reason: String,
    },
    /// Gives somebody more than the rules of access do. For whom they permit to `grant`, and to nobody himself.
    GrantAdd {
        /// His uid.
        uid: u32,
        /// His systemd unit; empty: of none; none: whatever his unit.
        unit: Option<String>,
        /// What.
        terms: GrantTerms,
    },
    /// Asks for a grant for the caller, in his unit. It waits for an hour until somebody answers.
    GrantRequest(GrantTerms),
    /// Answers somebody's request. For whom the rules permit to `approve`, and never one's own.
    GrantAnswer {
        /// The request's name.
        id: String,
        /// Whether he is given it.
        yes: bool,
    },
    /// Takes a grant away, or withdraws a request. One's own always, another's grant for whom the rules permit to `grant`.
    GrantRevoke {
        /// Its name.
        id: String,
    },
    /// Asks for grants and requests: the caller's own, and everybody's for whom the rules permit to `grant`, `approve` or `inspect`.
    Grants,
    /// Has the daemon read its configuration, policies, tools and the gate's files again. For whom the rules of access permit to `reload`; without any, for root and the user that the daemon runs as.
    Reload,
    /// Asks for records, a page at a time: one reading a connection, which the next question ends. For whom the rules of access permit to `read-audit`; without any, for root and the user that the daemon runs as. Each question stands in the record itself.
    Audit(Box<AuditQuestion>),
    /// Asks for the next page of what this connection reads. Where the record has ended and is followed, it's answered when there is more.
    AuditMore,
}

/// Asks for one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Chosen by the client; comes back in `Accepted` or `Denied`.
    pub request_id: u64,
    /// The command: a program (looked up in the run's `PATH` unless it has a `/`) and its arguments.
    pub argv: Vec<Bytes>,
    /// The client's environment. The policy's allow-list decides what of it arrives.
    pub environment: Vec<(Bytes, Bytes)>,
    /// Working directory: absolute and beneath the workspace, or empty for the workspace itself.
    pub cwd: Bytes,
    /// The policy's name. Never a path.
    pub policy: String,
    /// The workspace.
    pub workspace: Workspace,
    /// Limits that may only be tighter than the policy's.
    pub overrides: Overrides,
    /// Standard input.
    pub stdin: StdinMode,
    /// Standard output and error.
    pub output: OutputMode,
    /// Whether the run goes on when this connection ends.
    pub detach: bool,
    /// A registered tool, in place of a command and a policy: `argv` and `policy` are empty then, and the tool's file says both.
    pub tool: Option<ToolCall>,
}

/// A call of a registered tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The tool's name.
    pub name: String,
    /// What it's given: a JSON object, at most [`crate::bounds::MAX_PARAMETERS`].
    pub parameters: Bytes,
}

/// The directory a run works in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Workspace {
    /// An open directory, passed beside the frame as its first descriptor; the path it has in the client's view.
    Descriptor {
        /// Absolute path.
        path: Bytes,
    },
    /// A path, opened as the peer.
    Path {
        /// Absolute path.
        path: Bytes,
    },
}

/// Limits that may only tighten the policy's. `None` leaves the policy's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Overrides {
    /// Wall time, in milliseconds.
    pub wall_ms: Option<u64>,
    /// Processor time, in milliseconds.
    pub cpu_ms: Option<u64>,
    /// Time without output, in milliseconds.
    pub idle_ms: Option<u64>,
    /// Memory, in bytes.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
    /// Bytes of output.
    pub output: Option<u64>,
}

/// Where standard input comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum StdinMode {
    /// `/dev/null`.
    None,
    /// These bytes (at most [`crate::bounds::MAX_STDIN_CHUNK`]), then end of file.
    Inline(Bytes),
    /// `StdinData` and `StdinEof` frames.
    Stream,
    /// A descriptor passed beside the frame, after the workspace's.
    Descriptor,
}

/// Where standard output and error go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum OutputMode {
    /// `Output` events.
    Stream,
    /// Two descriptors passed beside the frame, last. Where the policy has a rule on output, or they are sockets,
    /// the supervisor streams `Output` events all the same; `Started` says which.
    Descriptor,
}

/// From the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ServerMessage {
    /// Answers a `Hello`.
    Welcome(Welcome),
    /// The connection's end, with why. The supervisor closes after it.
    Error(ProtocolError),
    /// Something happened to a run.
    Event {
        /// The run.
        exec_id: ExecId,
        /// 1 for `Accepted`, then rising by one an event. Two kinds stand outside: a `LimitWarning` carries the
        /// number of the event before it and isn't kept, and an `OutputLost` that of the last event it stands for.
        seq: u64,
        /// What.
        event: ExecEvent,
    },
    /// A request was refused. Nothing ran.
    Denied {
        /// The request's own id; for any message but an `Exec`, 0.
        request_id: u64,
        /// The run, where the message named one.
        exec_id: Option<ExecId>,
        /// Why.
        denied: Denied,
    },
    /// Answers a `List`.
    Runs(Vec<RunSummary>),
    /// Answers a `Status`.
    Status(Box<StatusReport>),
    /// Answers a `Breakers`: those of which there is something to say, by name. All others are closed.
    Breakers(Vec<BreakerSummary>),
    /// Answers a `ResetBreaker`: it is closed.
    BreakerReset {
        /// The tool's name.
        tool: String,
        /// Whether there was anything to forget: it wasn't closed, or ends of runs counted for it.
        changed: bool,
    },
    /// Answers a `Statistics`.
    Statistics(Box<StatisticsReport>),
    /// Answers an `Unlock`.
    Unlocked {
        /// The user's uid.
        uid: u32,
        /// How many were locked out: a user may be in each of his units.
        count: u32,
    },
    /// A request waits until somebody has approved it. `Accepted` or `Denied` follows.
    AwaitsApproval {
        /// The request's own id.
        request_id: u64,
        /// The run that comes of it.
        exec_id: ExecId,
        /// How long it waits at most, in milliseconds.
        within_ms: u64,
        /// What the factors are worth together.
        score: u32,
        /// Why somebody is asked.
        factors: Vec<RiskFactor>,
    },
    /// Answers an `Approvals`: what waits, the oldest first.
    Approvals {
        /// As many as fit in a frame.
        waiting: Vec<ApprovalSummary>,
        /// How many more wait.
        more: u32,
    },
    /// Something has come to wait.
    ApprovalAsked(Box<ApprovalSummary>),
    /// Something waits no more.
    ApprovalOver {
        /// The run.
        exec_id: ExecId,
        /// What became of it.
        how: ApprovalEnd,
    },
    /// Answers an `Approve`: it counts.
    ApprovalAnswered {
        /// The run.
        exec_id: ExecId,
        /// How many have to say yes yet.
        missing: u32,
        /// What became of it, if that is decided by now.
        how: Option<ApprovalEnd>,
    },
    /// Nothing more is told of what waits: the client didn't read, or may not approve any more. It can ask again.
    ApprovalsMissed,
    /// Answers a `GrantAdd`, a `GrantRequest`, and a `GrantAnswer` that says yes: it is on disk, but for a request.
    Granted(Box<GrantSummary>),
    /// Answers a `GrantRevoke`, and a `GrantAnswer` that says no: it is gone, from the disk, too.
    GrantGone {
        /// Its name.
        id: String,
        /// How many runs end with it.
        runs: u32,
    },
    /// Answers a `Grants`.
    Grants(Box<GrantList>),
    /// Answers a `Reload`, once everything is read: it was taken up, or all is as it was.
    Reloaded(Box<ReloadReport>),
    /// Answers an `Audit` and an `AuditMore`.
    AuditPage(Box<AuditPage>),
}

/// Why the supervisor closes a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct ProtocolError {
    /// For machines.
    pub code: ProtocolErrorCode,
    /// For people.
    pub text: String,
}

/// What was wrong with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ProtocolErrorCode {
    /// The bytes aren't a message.
    Malformed,
    /// A frame longer than allowed.
    TooLarge,
    /// The magic or the version doesn't fit.
    Version,
    /// A message that doesn't fit the connection's state, or descriptors that don't fit the message.
    Unexpected,
    /// The peer took too long over a `Hello` or a frame.
    Slow,
    /// Too many connections, or too many runs on one.
    TooMany,
    /// This peer may not be a client.
    NotPermitted,
}

/// What happened to a run. Exactly one `Exited`, and always last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ExecEvent {
    /// The request was admitted; it may still wait for a slot. Sequence number 1.
    Accepted {
        /// The request's own id.
        request_id: u64,
    },
    /// The tool was started. Sequence number 2, unless set-up failed.
    Started {
        /// What holds.
        confinement: Box<Confinement>,
    },
    /// Output.
    Output {
        /// Which.
        stream: Stream,
        /// At most [`crate::bounds::MAX_OUTPUT_CHUNK`].
        bytes: Bytes,
    },
    /// Output between the last event and the next is no longer kept.
    OutputLost {
        /// How many events are missing; the next has the sequence number after them.
        events: u64,
    },
    /// A limit is near.
    LimitWarning {
        /// Which (`memory`, …).
        limit: String,
        /// Its value now.
        value: u64,
        /// The limit.
        bound: u64,
    },
    /// The end.
    Exited {
        /// How.
        outcome: Outcome,
        /// What it used.
        usage: Usage,
        /// Files that came into being during the run and that other programs will trust later (hooks, start-up
        /// and editor files, tool configuration).
        trusted_files: Vec<Bytes>,
        /// What of its output was hidden; none: its output wasn't redacted.
        redactions: Option<Redactions>,
        /// Whether what it printed is what its tool promises; none: nothing is promised, or it hasn't ended well.
        result_check: Option<ResultCheck>,
    },
}

/// Whether what a tool printed is the result that its file promises.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultCheck {
    /// Whether it is; none: nobody could look.
    pub fits: Option<bool>,
    /// What is wrong with it, or why nobody looked. At most [`crate::bounds::MAX_RESULT_SAID`] of them, each of so many bytes:
    /// [`crate::bounds::MAX_RESULT_SENTENCE`].
    pub said: Vec<String>,
}

/// What of a run's output was hidden from whoever is told of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redactions {
    /// Marks in place of secrets, by the names that stand in them. At most [`crate::bounds::MAX_MARKS`].
    pub marks: Vec<Count>,
    /// Of these so many stand for the rest of something whose beginning was out before it could be known.
    pub late: u64,
}

/// A stream of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One run in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSummary {
    /// The run.
    pub exec_id: ExecId,
    /// Who asked.
    pub owner_uid: u32,
    /// The policy's name.
    pub policy: String,
    /// The command, shortened to 256 bytes a run.
    pub command: Bytes,
    /// Where it stands.
    pub state: RunState,
    /// Since its request, in milliseconds.
    pub age_ms: u64,
    /// The last sequence number.
    pub last_seq: u64,
}

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RunState {
    /// Waits for a slot.
    Queued,
    /// Its worker is being made.
    Starting,
    /// The tool runs.
    Running,
    /// It has ended; its events are kept.
    Ended {
        /// How.
        outcome: Outcome,
    },
}

/// What came of a reload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// What is wrong, a line each, with file, line and column: nothing is taken up then. At most [`crate::bounds::MAX_RELOAD_LINES`] of [`crate::bounds::MAX_RELOAD_LINE`] bytes.
    pub wrong: Vec<String>,
    /// How many more lines there are.
    pub left_out: u32,
    /// Policies that there are now.
    pub policies: u32,
    /// Tools that there are now.
    pub tools: u32,
    /// Keys of the configuration that have another value, and keep the old one until the daemon is restarted.
    pub takes_restart: Vec<String>,
}

/// One breaker in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerSummary {
    /// The tool's name.
    pub tool: String,
    /// What it does with calls.
    pub state: BreakerState,
    /// How long it lets nothing pass yet, in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// Failures that count.
    pub failures: u32,
    /// Ends of runs that count, failures among them.
    pub outcomes: u32,
    /// How often it has opened without having closed.
    pub opened: u32,
    /// Calls that go on to find out whether the tool works again.
    pub probes: u32,
}

/// What a breaker does with calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum BreakerState {
    /// All pass.
    Closed,
    /// None passes.
    Open,
    /// A few pass, to find out whether the tool works again.
    HalfOpen,
}

/// How the daemon is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Release.
    pub version: String,
    /// The supervisor's process id.
    pub pid: u32,
    /// The launcher's process id.
    pub launcher_pid: u32,
    /// Since start, in milliseconds.
    pub uptime_ms: u64,
    /// Which spawn plan its workers are made by.
    pub plan: crate::confinement::Plan,
    /// What bounds memory.
    pub memory: crate::outcome::MemoryMechanism,
    /// Runs going on.
    pub running: u32,
    /// Slots.
    pub slots: u32,
    /// Requests waiting.
    pub queued: u32,
    /// The queue's bound.
    pub queue_bound: u32,
    /// Connections.
    pub connections: u32,
    /// Runs accepted since start.
    pub accepted: u64,
    /// Requests denied since start.
    pub denied: u64,
    /// Runs ended since start.
    pub ended: u64,
    /// Runs that have ended but whose processes the kernel hasn't let go (uninterruptible sleep).
    pub unreaped: u32,
    /// Templates and parked workers.
    pub warmth: crate::confinement::Warmth,
    /// Whether new runs are refused because the daemon is stopping.
    pub draining: bool,
    /// Names of the policies.
    pub policies: Vec<String>,
    /// Why new runs aren't taken, a sentence a reason; empty: they are.
    pub unready: Vec<String>,
    /// Runs that wait, go on, or are kept for a client that comes back.
    pub known: u32,
    /// Launchers that came up since start; each after the first took the place of one that was gone.
    pub launchers: u64,
    /// Runs ended since start, by outcome.
    pub outcomes: Vec<Count>,
    /// Messages denied since start, by reason: those about a run that isn't known among them, too.
    pub denials: Vec<Count>,
    /// The supervisor's process.
    pub process: ProcessReport,
    /// Bytes that wait in connections.
    pub connection_bytes: u64,
    /// The kernel's release.
    pub kernel: String,
    /// Where metrics are told, as `--metrics` names it; empty: nowhere.
    pub metrics: String,
    /// Tools that are loaded.
    pub tools: u32,
    /// How the limiter stands; none: nobody has said how often.
    pub limiter: Option<LimiterReport>,
    /// Circuit breakers that are open.
    pub breakers_open: u32,
    /// Circuit breakers that are half-open.
    pub breakers_half_open: u32,
    /// What callers of tools often get wrong, the most frequent first: at most [`crate::bounds::MAX_OFTEN_WRONG`].
    pub often_wrong: Vec<OftenWrong>,
    /// Who is locked out; who may not look into the daemon sees himself only.
    pub locked_out: Vec<LockedOut>,
    /// Requests that wait until somebody has approved them.
    pub approvals_waiting: u32,
    /// Grants that hold; for who may not look into the daemon 0.
    pub grants: u32,
    /// Requests for grants that wait for an answer; for who may not look into the daemon 0.
    pub grant_requests: u32,
    /// Reviewer programs that look at what waits; for who may not look into the daemon 0.
    pub reviewing: u32,
}

/// Somebody who was refused too often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockedOut {
    /// His uid.
    pub uid: u32,
    /// His systemd unit.
    pub unit: Option<String>,
    /// How long he is refused everything yet, in milliseconds.
    pub retry_after_ms: u64,
}

/// How the limiter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimiterReport {
    /// What limits are worth now, in millionths of what they say: less while the machine is busy.
    pub share: u32,
    /// How busy the machine is, for limits.
    pub pressure: LimitPressure,
    /// Users, and users with a tool or a policy, that still owe something to a limit.
    pub keys: u64,
}

/// How busy the machine is, for limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LimitPressure {
    /// Limits grow.
    Calm,
    /// Limits stay where they are.
    Between,
    /// Limits shrink.
    High,
}

/// A rule of a tool that callers often break, by its place: never what they have sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OftenWrong {
    /// The tool's name.
    pub tool: String,
    /// The rule: a JSON pointer into the schema of its parameters, or `command`.
    pub rule: String,
    /// How often, since it was first seen or had last been quiet for an hour.
    pub count: u64,
}

/// How often something happened that has a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// The name, as in JSON.
    pub name: String,
    /// How often.
    pub count: u64,
}

/// What the kernel says of a process; 0 where it says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessReport {
    /// Memory in use, in bytes.
    pub memory: u64,
    /// Processor time, in milliseconds.
    pub cpu_ms: u64,
    /// Descriptors open.
    pub descriptors: u64,
    /// Descriptors that may be open.
    pub descriptor_bound: u64,
}
