//! What a client is told: results and notifications, each made of the wire's own type.
//!
//! Keys are camelCase, and bytes are [`Text`]. Words for kinds (`exited`, `memory-exceeded`, `half-open`) are those of the wire's
//! JSON, which the command line prints too. What is one of several says which in `kind`.

use serde::{Serialize, Serializer};
use stockade_protocol::client as wire;
use stockade_protocol::outcome::{CancelReason, Outcome, SetupFailure, Stalled, Usage};
use stockade_protocol::{Bytes, ExecId, confinement, statistics};

use crate::text::Text;

/// A type of the wire that has a JSON form.
pub(crate) trait Told {
    /// The form.
    type Json: Serialize;
    fn told(&self) -> Self::Json;
}

macro_rules! told_as_they_are {
    ($($kind:ty),* $(,)?) => { $(impl Told for $kind {
        type Json = Self;
        fn told(&self) -> Self { self.clone() }
    })* };
}

told_as_they_are!(bool, u8, i32, u32, u64, String);

impl Told for Bytes {
    type Json = Text;
    fn told(&self) -> Text {
        Text(self.clone())
    }
}

impl<T: Told> Told for Vec<T> {
    type Json = Vec<T::Json>;
    fn told(&self) -> Self::Json {
        self.iter().map(Told::told).collect()
    }
}

impl<T: Told> Told for Option<T> {
    type Json = Option<T::Json>;
    fn told(&self) -> Self::Json {
        self.as_ref().map(Told::told)
    }
}

/// A word for a kind: an enumeration of the wire without fields, in the wire's own JSON.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(transparent)]
pub(crate) struct Word<T>(T);

#[cfg(test)]
impl<T> schemars::JsonSchema for Word<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Word".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A word in kebab-case. docs/protocol.md has a table of each kind; later versions may add some",
            "type": "string",
        })
    }
}

macro_rules! words {
    ($($kind:ty),* $(,)?) => { $(impl Told for $kind {
        type Json = Word<Self>;
        fn told(&self) -> Word<Self> { Word(*self) }
    })* };
}

words!(
    confinement::Layer,
    confinement::Plan,
    confinement::StdioPath,
    statistics::StatisticsBy,
    stockade_protocol::outcome::Clock,
    stockade_protocol::outcome::MemoryMechanism,
    stockade_protocol::outcome::SetupStage,
    stockade_protocol::spec::Level,
    wire::BreakerState,
    wire::LimitPressure,
    wire::Stream,
);

/// A run's id: 36 characters.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(transparent)]
pub(crate) struct RunId(pub(crate) ExecId);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        serializer.serialize_str(&text)
    }
}

/// A digest, in hexadecimal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hex([u8; 32]);

#[cfg(test)]
mod names {
    use std::borrow::Cow;

    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

    impl JsonSchema for super::RunId {
        fn schema_name() -> Cow<'static, str> {
            "RunId".into()
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({ "description": "A run's id: a UUID", "type": "string", "format": "uuid" })
        }
    }

    impl JsonSchema for super::Hex {
        fn schema_name() -> Cow<'static, str> {
            "Digest".into()
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({ "description": "SHA-256, in hexadecimal", "type": "string", "pattern": "^[0-9a-f]{64}$" })
        }
    }
}

impl Told for ExecId {
    type Json = RunId;
    fn told(&self) -> RunId {
        RunId(*self)
    }
}

impl Told for [u8; 32] {
    type Json = Hex;
    fn told(&self) -> Hex {
        Hex(*self)
    }
}

impl Told for [confinement::StdioPath; 3] {
    type Json = [Word<confinement::StdioPath>; 3];
    fn told(&self) -> Self::Json {
        self.map(Word)
    }
}

/// A structure that has the wire's fields: all of them, or it doesn't compile.
macro_rules! structure {
    ($(#[$doc:meta])* $name:ident of $from:ty { $($(#[$about:meta])* $field:ident: $kind:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Serialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        #[serde(rename_all = "camelCase")]
        pub(crate) struct $name { $($(#[$about])* pub(crate) $field: <$kind as Told>::Json),* }

        impl Told for $from {
            type Json = $name;
            fn told(&self) -> $name {
                let Self { $($field),* } = self;
                $name { $($field: $field.told()),* }
            }
        }
    };
}

structure!(
    /// How often something happened that has a name.
    Count of wire::Count { name: String, count: u64 }
);
structure!(
    /// What a run used. Times in microseconds, sizes in bytes.
    UsageTold of Usage {
        wall_us: u64, user_us: u64, system_us: u64, memory_peak: u64,
        memory_mechanism: stockade_protocol::outcome::MemoryMechanism,
        bytes_in: u64, bytes_out: u64, processes_peak: u64,
        context_switches_voluntary: u64, context_switches_involuntary: u64, stalled: Option<Stalled>,
    }
);
structure!(
    /// How long it was held up, in microseconds.
    StalledTold of Stalled { cpu_us: u64, memory_us: u64, io_us: u64 }
);
structure!(
    /// Where set-up failed.
    SetupFailureTold of SetupFailure { stage: stockade_protocol::outcome::SetupStage, errno: i32, subject: Bytes }
);
structure!(
    /// What of a run's output was hidden.
    RedactionsTold of wire::Redactions { marks: Vec<wire::Count>, late: u64 }
);
structure!(
    /// Whether what a tool printed is the result that its file promises (`fits`; null: nobody could look), and what is wrong.
    ResultCheckTold of wire::ResultCheck { fits: Option<bool>, said: Vec<String> }
);
structure!(
    /// What was enforced for a run, read back while its worker was parked.
    ConfinementTold of confinement::Confinement {
        policy: String, policy_digest: [u8; 32], level: stockade_protocol::spec::Level, plan: confinement::Plan,
        layers: Vec<confinement::LayerReport>, memory: stockade_protocol::outcome::MemoryMechanism, host_uid: u32,
        absent: Vec<Bytes>, stdio: [confinement::StdioPath; 3],
    }
);
structure!(
    /// One layer. `detail` is for people.
    LayerTold of confinement::LayerReport { layer: confinement::Layer, enforced: bool, detail: String }
);
structure!(
    /// One run.
    RunSummaryTold of wire::RunSummary {
        exec_id: ExecId, owner_uid: u32, policy: String, command: Bytes, state: wire::RunState, age_ms: u64, last_seq: u64,
    }
);
structure!(
    /// One breaker.
    BreakerTold of wire::BreakerSummary {
        tool: String, state: wire::BreakerState, retry_after_ms: Option<u64>, failures: u32, outcomes: u32, opened: u32,
        probes: u32,
    }
);
structure!(
    /// Templates and parked workers.
    WarmthTold of confinement::Warmth { templates: u32, parked: u32, hits: u64, misses: u64, refill_us: u64 }
);
structure!(
    /// The supervisor's process.
    ProcessTold of wire::ProcessReport { memory: u64, cpu_ms: u64, descriptors: u64, descriptor_bound: u64 }
);
structure!(
    /// How the limiter stands.
    LimiterTold of wire::LimiterReport { share: u32, pressure: wire::LimitPressure, keys: u64 }
);
structure!(
    /// A rule of a tool that callers often break.
    OftenWrongTold of wire::OftenWrong { tool: String, rule: String, count: u64 }
);
structure!(
    /// Somebody who was refused too often.
    LockedOutTold of wire::LockedOut { uid: u32, unit: Option<String>, retry_after_ms: u64 }
);
structure!(
    /// How the daemon is.
    StatusTold of wire::StatusReport {
        version: String, pid: u32, launcher_pid: u32, uptime_ms: u64, plan: confinement::Plan,
        memory: stockade_protocol::outcome::MemoryMechanism, running: u32, slots: u32, queued: u32, queue_bound: u32,
        connections: u32, accepted: u64, denied: u64, ended: u64, unreaped: u32, warmth: confinement::Warmth, draining: bool,
        policies: Vec<String>, unready: Vec<String>, known: u32, launchers: u64, outcomes: Vec<wire::Count>,
        denials: Vec<wire::Count>, process: wire::ProcessReport, connection_bytes: u64, kernel: String, metrics: String,
        tools: u32, limiter: Option<wire::LimiterReport>, breakers_open: u32, breakers_half_open: u32,
        often_wrong: Vec<wire::OftenWrong>, locked_out: Vec<wire::LockedOut>, approvals_waiting: u32,
        grants: u32, grant_requests: u32, reviewing: u32,
    }
);
structure!(
    /// How a figure is spread.
    SpreadTold of statistics::Spread { count: u64, mean: u64, p50: u64, p99: u64, max: u64 }
);
structure!(
    /// One tool, policy or principal.
    StatisticsRowTold of statistics::StatisticsRow {
        by: statistics::StatisticsBy, name: String, runs: u64, outcomes: Vec<wire::Count>, denials: Vec<wire::Count>,
        wall_us: Option<statistics::Spread>, memory: Option<statistics::Spread>, breaker: Option<wire::BreakerState>,
        limited_ms: Option<u64>,
    }
);
structure!(
    /// What runs came to.
    StatisticsTold of statistics::StatisticsReport {
        from_s: Option<u64>, to_s: u64, rows: Vec<statistics::StatisticsRow>, left_out: u64, unwritten: Option<String>,
    }
);

/// Where a run stands.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum StateTold {
    /// Waits for a slot.
    Queued,
    /// Its worker is being made.
    Starting,
    /// The tool runs.
    Running,
    /// It has ended.
    Ended { outcome: OutcomeTold },
    /// A state that this form doesn't know yet.
    Unknown,
}

impl Told for wire::RunState {
    type Json = StateTold;
    fn told(&self) -> StateTold {
        match self {
            Self::Queued => StateTold::Queued,
            Self::Starting => StateTold::Starting,
            Self::Running => StateTold::Running,
            Self::Ended { outcome } => StateTold::Ended { outcome: outcome.told() },
            _ => StateTold::Unknown,
        }
    }
}

/// How a run ended: by itself, by us, or not at all.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub(crate) enum OutcomeTold {
    /// By itself, with this exit code.
    Exited { code: u8 },
    /// By a signal that wasn't ours.
    Signaled { signal: u8, core_dumped: bool },
    /// By us: a time limit.
    TimedOut { clock: Word<stockade_protocol::outcome::Clock>, limit_ms: u64 },
    /// By us: over its memory, in bytes.
    MemoryExceeded { limit: u64, seen: u64 },
    /// By us: more output than its policy allows, in bytes.
    OutputExceeded { limit: u64 },
    /// By us: too many processes and threads.
    ProcessesExceeded { limit: u64, seen: u64 },
    /// By us, because somebody asked or nobody was left to ask.
    Cancelled { reason: CancelTold },
    /// The tool never began.
    SetupFailed { failure: SetupFailureTold },
    /// Not known: a process of ours died first.
    Lost { reason: String },
    /// In a way that this form doesn't know yet.
    Unknown,
}

impl Told for Outcome {
    type Json = OutcomeTold;
    fn told(&self) -> OutcomeTold {
        match self {
            Self::Exited { code } => OutcomeTold::Exited { code: *code },
            Self::Signaled { signal, core_dumped } => {
                OutcomeTold::Signaled { signal: *signal, core_dumped: *core_dumped }
            }
            Self::TimedOut { clock, limit_ms } => {
                OutcomeTold::TimedOut { clock: Word(*clock), limit_ms: *limit_ms }
            }
            Self::MemoryExceeded { limit, seen } => {
                OutcomeTold::MemoryExceeded { limit: *limit, seen: *seen }
            }
            Self::OutputExceeded { limit } => OutcomeTold::OutputExceeded { limit: *limit },
            Self::ProcessesExceeded { limit, seen } => {
                OutcomeTold::ProcessesExceeded { limit: *limit, seen: *seen }
            }
            Self::Cancelled { reason } => OutcomeTold::Cancelled { reason: reason.told() },
            Self::SetupFailed { failure } => OutcomeTold::SetupFailed { failure: failure.told() },
            Self::Lost { reason } => OutcomeTold::Lost { reason: reason.clone() },
            _ => OutcomeTold::Unknown,
        }
    }
}

/// Why a run was cancelled.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub(crate) enum CancelTold {
    /// A client asked.
    Asked,
    /// Its client went away.
    ClientGone,
    /// The daemon is stopping.
    Draining,
    /// A protected path lost its mask.
    GuardDissolved { path: Text },
    /// More standard input than its policy allows, in bytes.
    InputExceeded { limit: u64 },
    /// For a reason that this form doesn't know yet.
    Unknown,
}

impl Told for CancelReason {
    type Json = CancelTold;
    fn told(&self) -> CancelTold {
        match self {
            Self::Asked => CancelTold::Asked,
            Self::ClientGone => CancelTold::ClientGone,
            Self::Draining => CancelTold::Draining,
            Self::GuardDissolved { path } => CancelTold::GuardDissolved { path: path.told() },
            Self::InputExceeded { limit } => CancelTold::InputExceeded { limit: *limit },
            _ => CancelTold::Unknown,
        }
    }
}

/// The result of `initialize`.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(crate) struct Initialized {
    /// The version of this form.
    pub(crate) protocol_version: u32,
    pub(crate) server_info: ServerInfo,
    pub(crate) capabilities: Capabilities,
    pub(crate) limits: LimitsTold,
}

/// Who answers.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ServerInfo {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
}

/// What there is.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Capabilities {
    pub(crate) methods: &'static [&'static str],
    pub(crate) notifications: &'static [&'static str],
}

/// What is bounded. Sizes in bytes.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(crate) struct LimitsTold {
    pub(crate) max_message: usize,
    pub(crate) max_batch: usize,
    pub(crate) max_in_flight: usize,
    pub(crate) max_stdin: usize,
    pub(crate) max_inline_output: usize,
}

/// The result of `exec` and `call`: the run was accepted.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(crate) struct AcceptedTold {
    pub(crate) exec_id: RunId,
}

/// The result of `exec` and `call` with `wait`: the run has ended.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndedTold {
    pub(crate) exec_id: RunId,
    pub(crate) outcome: OutcomeTold,
    pub(crate) usage: UsageTold,
    pub(crate) stdout: Text,
    pub(crate) stderr: Text,
    /// Whether there was more output than fits: what is here is its beginning.
    pub(crate) truncated: bool,
    pub(crate) trusted_files: Vec<Text>,
    pub(crate) redactions: Option<RedactionsTold>,
    pub(crate) result_check: Option<ResultCheckTold>,
}

/// The result of what has nothing to say.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Done {}

/// The result of `list`, newest first.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct RunsTold {
    pub(crate) runs: Vec<RunSummaryTold>,
}

/// The result of `breakers`: those of which there is something to say.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct BreakersTold {
    pub(crate) breakers: Vec<BreakerTold>,
}

/// The result of `policy/explain`.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Explained {
    /// The policy's name.
    pub policy: String,
    /// What was asked.
    pub question: crate::asked::What,
    /// Of what.
    pub thing: String,
    /// Whether the policy allows it.
    pub allowed: bool,
    /// The rule that decided.
    pub rule: String,
    /// The file it stands in.
    pub file: String,
    /// Its line; 0: a default.
    pub line: u32,
    /// What else is to be known; may be empty.
    pub note: String,
}

structure!(
    /// Why somebody is asked. `score` is what it's worth; none: it asks by itself.
    FactorTold of stockade_protocol::approval::RiskFactor { name: String, score: Option<u32>, reason: String }
);

/// `run/awaitsApproval`: somebody has to approve it first. The request's answer comes when that is decided.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunAwaitsApproval<'a> {
    pub(crate) exec_id: RunId,
    /// The id of the request; null: it was a notification.
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    pub(crate) request_id: Option<&'a crate::id::Id>,
    /// For how long it waits at most.
    pub(crate) within_ms: u64,
    /// What the factors are worth together.
    pub(crate) score: u32,
    pub(crate) factors: Vec<FactorTold>,
}

/// `run/accepted`: the first event of a run that was attached to.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunAccepted {
    pub(crate) exec_id: RunId,
    pub(crate) seq: u64,
}

/// `run/started`.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunStarted {
    pub(crate) exec_id: RunId,
    pub(crate) seq: u64,
    pub(crate) confinement: ConfinementTold,
}

/// `run/output`.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunOutput<'a> {
    pub(crate) exec_id: RunId,
    pub(crate) seq: u64,
    /// `stdout` or `stderr`.
    pub(crate) stream: Word<wire::Stream>,
    #[cfg_attr(test, schemars(with = "Text"))]
    pub(crate) data: crate::text::TextOf<'a>,
}

/// `run/outputLost`: so many events before this number are no longer kept.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunOutputLost {
    pub(crate) exec_id: RunId,
    pub(crate) seq: u64,
    pub(crate) events: u64,
}

/// `run/limitWarning`: a limit is near. Its number is that of the event before it.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunLimitWarning {
    pub(crate) exec_id: RunId,
    pub(crate) seq: u64,
    pub(crate) limit: String,
    pub(crate) value: u64,
    pub(crate) bound: u64,
}

/// `run/exited`: the end. Exactly one, and always last.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunExited {
    pub(crate) exec_id: RunId,
    pub(crate) seq: u64,
    pub(crate) outcome: OutcomeTold,
    pub(crate) usage: UsageTold,
    /// Files that came into being and that other programs will trust later.
    pub(crate) trusted_files: Vec<Text>,
    pub(crate) redactions: Option<RedactionsTold>,
    pub(crate) result_check: Option<ResultCheckTold>,
}

/// All notifications there are.
pub(crate) const NOTIFICATIONS: [&str; 7] = [
    "run/awaitsApproval",
    "run/accepted",
    "run/started",
    "run/output",
    "run/outputLost",
    "run/limitWarning",
    "run/exited",
];
