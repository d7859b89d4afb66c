//! One example of every variant that crosses a socket in version 1, and of every part of a message that is an enum.
//!
//! Nothing in here comes from a clock, a random source or the machine. An example's name is `Type/Variant`, with a
//! third part where one variant has several. `frozen.rs` asks each type how many variants it decodes and demands that
//! many examples, so a variant can't be added without its bytes.

use core::fmt::Debug;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use stockade_protocol::approval::{
    ApprovalEnd, ApprovalInput, ApprovalSummary, ApprovalWhole, ReviewOpinion, ReviewPanel, ReviewerReport,
    RiskFactor,
};
use stockade_protocol::audit::{AuditClass, AuditPage, AuditQuestion, AuditRecord};
use stockade_protocol::bounds::MAX_FRAME;
use stockade_protocol::client::{
    BreakerState, BreakerSummary, ClientMessage, Count, ExecEvent, ExecRequest, Hello, LimitPressure,
    LimiterReport, LockedOut, MAGIC, OftenWrong, OutputMode, Overrides, ProcessReport, ProtocolError,
    ProtocolErrorCode, Redactions, ReloadReport, ResultCheck, RunState, RunSummary, ServerMessage,
    StatusReport, StdinMode, Stream, ToolCall, VERSION, Welcome, Workspace, features,
};
use stockade_protocol::codec::{self, CodecError};
use stockade_protocol::confinement::{Confinement, Layer, LayerReport, Plan, StdioPath, Warmth};
use stockade_protocol::denied::{Denied, DenyReason};
use stockade_protocol::grants::{GrantGiven, GrantList, GrantSummary, GrantTerms, GrantWhat};
use stockade_protocol::launch::{
    Adopted, CalledTool, FromLauncher, FromOpener, FromRelay, GrantNote, Keep, LAUNCH_VERSION, Launch,
    LaunchOutput, Made, Opening, Owner, Program, Redaction, RunNote, SpecNumber, ToLauncher, ToOpener,
    ToRelay, Token,
};
use stockade_protocol::outcome::{
    CancelReason, Clock, MemoryMechanism, Outcome, SetupFailure, SetupStage, Stalled, Usage,
};
use stockade_protocol::ring::Record;
use stockade_protocol::spec::{
    Access, BpfInstruction, IoPriority, Level, Limits, Mount, MountKind, NetworkMode, NetworkSpec, Ports,
    RunAs, SandboxSpec, SeccompSpec,
};
use stockade_protocol::statistics::{
    Spread, StatisticsBy, StatisticsQuestion, StatisticsReport, StatisticsRow,
};
use stockade_protocol::{Bytes, ExecId};

use super::annotate::{Annotator, annotate};

/// The run of every example.
pub(crate) const RUN: ExecId = ExecId::from_bytes([
    0x01, 0x8f, 0x2d, 0x5e, 0x7a, 0x10, 0x7c, 0x3b, 0x9d, 0x44, 0x5a, 0x61, 0x0e, 0xf2, 0x83, 0x27,
]);

/// How an example's bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A whole client frame, its header included.
    Frame,
    /// A launch message: a datagram, no header.
    Launch,
    /// A part of messages of either kind, by itself.
    Part,
}

/// What decoding an example's payload again gives: its bytes encoded anew, and its text for people.
pub(crate) type Again = fn(&[u8]) -> Result<(Vec<u8>, String), CodecError>;

/// One message, its type erased.
pub(crate) struct Example {
    /// `Type/Variant` or `Type/Variant/situation`.
    pub(crate) name: String,
    /// How it travels.
    pub(crate) form: Form,
    /// All its bytes.
    pub(crate) bytes: Vec<u8>,
    /// The same by the second encoder, without a header.
    pub(crate) annotator: Annotator,
    /// The message for people (`Debug`).
    pub(crate) text: String,
    /// Decodes a payload as this example's type.
    pub(crate) again: Again,
    /// Decodes a payload, and gives the message as JSON, and that read and encoded again (without a header).
    pub(crate) json: fn(&[u8]) -> (String, Vec<u8>),
    /// How many variants the type decodes.
    pub(crate) variants: u32,
}

impl Example {
    /// The bytes without a header.
    pub(crate) fn payload(&self) -> &[u8] {
        if self.form == Form::Frame { &self.bytes[codec::HEADER..] } else { &self.bytes }
    }

    /// The header, where there is one.
    pub(crate) fn header(&self) -> Option<&[u8]> {
        (self.form == Form::Frame).then(|| &self.bytes[..codec::HEADER])
    }

    /// `Type`.
    pub(crate) fn kind(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }

    /// `Variant`.
    pub(crate) fn variant(&self) -> &str {
        self.name.split('/').nth(1).unwrap_or_default()
    }
}

/// Decodes a payload, and gives it encoded again (as a whole frame) with its text.
fn again_frame<T: Serialize + DeserializeOwned + Debug>(
    payload: &[u8],
) -> Result<(Vec<u8>, String), CodecError> {
    let message: T = codec::decode_payload(payload)?;
    let mut frame = Vec::new();
    codec::encode_frame(&message, MAX_FRAME, &mut frame)?;
    Ok((frame, format!("{message:?}")))
}

fn again_launch<T: Serialize + DeserializeOwned + Debug>(
    payload: &[u8],
) -> Result<(Vec<u8>, String), CodecError> {
    let message: T = codec::decode_launch(payload)?;
    Ok((codec::encode_launch(&message)?, format!("{message:?}")))
}

fn through_json<T: Serialize + DeserializeOwned>(payload: &[u8]) -> (String, Vec<u8>) {
    let message: T = codec::decode_launch(payload).unwrap();
    let text = serde_json::to_string(&message).unwrap();
    let message: T = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    (text, codec::encode_launch(&message).unwrap())
}

/// How many variants an enum decodes, from what its decoder says of one that can't be. 0 for what isn't an enum.
fn variants<T: DeserializeOwned>() -> u32 {
    let Err(error) = codec::decode_launch::<T>(&u32::MAX.to_le_bytes()) else { return 0 };
    let error = error.to_string();
    let Some((_, rest)) = error.split_once("variant index 0 <= i < ") else { return 0 };
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

fn example<T: Serialize + DeserializeOwned + Debug>(form: Form, situation: &str, message: &T) -> Example {
    let text = format!("{message:?}");
    let variant: String = text.chars().take_while(char::is_ascii_alphanumeric).collect();
    let kind = core::any::type_name::<T>().rsplit("::").next().unwrap_or_default();
    let mut name = format!("{kind}/{variant}");
    if !situation.is_empty() {
        name = format!("{name}/{situation}");
    }
    let mut bytes = Vec::new();
    let again: Again = if form == Form::Frame {
        codec::encode_frame(message, MAX_FRAME, &mut bytes).unwrap();
        again_frame::<T>
    } else {
        bytes = codec::encode_launch(message).unwrap();
        again_launch::<T>
    };
    Example {
        name,
        form,
        bytes,
        annotator: annotate(message),
        text,
        again,
        json: through_json::<T>,
        variants: variants::<T>(),
    }
}

/// Every example, in the order of the page.
pub(crate) fn all() -> Vec<Example> {
    let mut all = Vec::new();
    all.extend(client_messages().iter().map(|(situation, message)| example(Form::Frame, situation, message)));
    all.extend(server_messages().iter().map(|(situation, message)| example(Form::Frame, situation, message)));
    all.extend(to_launcher().iter().map(|message| example(Form::Launch, "", message)));
    all.extend(from_launcher().iter().map(|message| example(Form::Launch, "", message)));
    all.extend(to_relay().iter().map(|message| example(Form::Launch, "", message)));
    all.extend(from_relay().iter().map(|message| example(Form::Launch, "", message)));
    let asked = ToOpener::Open { path: "/home/ada/project".into() };
    all.push(example(Form::Launch, "", &asked));
    let answers = [FromOpener::Opened, FromOpener::Failed { errno: 13 }];
    all.extend(answers.iter().map(|message| example(Form::Launch, "", message)));
    all.extend(parts());
    all
}

/// The records of a ring, which the codec has no part in: name and header.
pub(crate) fn records() -> Vec<(String, Record)> {
    vec![
        ("Record/Stdout".into(), Record { length: 3, stream: Stream::Stdout, seq: 3 }),
        ("Record/Stderr".into(), Record { length: 65_536, stream: Stream::Stderr, seq: 4_294_967_296 }),
    ]
}

fn bytes(list: &[&str]) -> Vec<Bytes> {
    list.iter().copied().map(Bytes::from).collect()
}

fn request() -> ExecRequest {
    ExecRequest {
        request_id: 7,
        argv: bytes(&["python3", "-c", "print(6*7)"]),
        environment: vec![("PATH".into(), "/usr/bin:/bin".into()), ("LANG".into(), "C.UTF-8".into())],
        cwd: Bytes::default(),
        policy: "default".into(),
        workspace: Workspace::Descriptor { path: "/home/ada/project".into() },
        overrides: Overrides::default(),
        stdin: StdinMode::None,
        output: OutputMode::Stream,
        detach: false,
        tool: None,
    }
}

fn client_messages() -> Vec<(&'static str, ClientMessage)> {
    let passed = ExecRequest { stdin: StdinMode::Descriptor, output: OutputMode::Descriptor, ..request() };
    let tightened = ExecRequest {
        request_id: 8,
        // Not UTF-8: arguments are bytes.
        argv: vec!["cat".into(), Bytes(vec![0xff, 0xfe])],
        environment: Vec::new(),
        cwd: "/home/ada/project/src".into(),
        policy: "build".into(),
        workspace: Workspace::Path { path: "/home/ada/project".into() },
        overrides: Overrides {
            wall_ms: Some(5_000),
            cpu_ms: Some(4_000),
            idle_ms: Some(3_000),
            memory: Some(64 << 20),
            processes: Some(16),
            output: Some(1 << 20),
        },
        stdin: StdinMode::Inline("hello\n".into()),
        output: OutputMode::Stream,
        detach: true,
        tool: None,
    };
    let tool = ToolCall { name: "word-count".into(), parameters: r#"{"path":"notes.txt"}"#.into() };
    let called = ExecRequest {
        request_id: 9,
        argv: Vec::new(),
        environment: Vec::new(),
        policy: String::new(),
        tool: Some(tool),
        ..request()
    };
    vec![
        ("", ClientMessage::Hello(Hello { magic: MAGIC, version: VERSION, features: features::DESCRIPTORS })),
        ("", ClientMessage::Exec(Box::new(request()))),
        ("passed", ClientMessage::Exec(Box::new(passed))),
        ("tightened", ClientMessage::Exec(Box::new(tightened))),
        ("tool", ClientMessage::Exec(Box::new(called))),
        ("", ClientMessage::StdinData { exec_id: RUN, bytes: "hello\n".into() }),
        ("", ClientMessage::StdinEof { exec_id: RUN }),
        ("", ClientMessage::Signal { exec_id: RUN, signal: 2 }),
        ("", ClientMessage::Resize { exec_id: RUN, rows: 24, columns: 80 }),
        ("", ClientMessage::Cancel { exec_id: RUN }),
        ("", ClientMessage::Attach { exec_id: RUN, after_seq: 17 }),
        ("", ClientMessage::Acknowledge { exec_id: RUN, seq: 17 }),
        ("", ClientMessage::List),
        ("", ClientMessage::Status),
        ("", ClientMessage::Breakers),
        ("", ClientMessage::ResetBreaker { tool: "word-count".into() }),
        ("", ClientMessage::Statistics(statistics_question())),
        ("", ClientMessage::Unlock { uid: 1_000, unit: Some("agent.service".into()) }),
        ("", ClientMessage::Approvals { follow: true, only: None }),
        (
            "",
            ClientMessage::Approve {
                exec_id: RUN,
                digest: DIGEST,
                approve: false,
                reason: "not before the release".into(),
            },
        ),
        ("", ClientMessage::GrantAdd { uid: 1_000, unit: Some("agent.service".into()), terms: terms() }),
        ("", ClientMessage::GrantRequest(called_terms())),
        ("", ClientMessage::GrantAnswer { id: GRANT.into(), yes: true }),
        ("", ClientMessage::GrantRevoke { id: GRANT.into() }),
        ("", ClientMessage::Grants),
        ("", ClientMessage::Reload),
        ("", ClientMessage::Audit(Box::new(audit_question()))),
        ("", ClientMessage::AuditMore),
    ]
}

fn confinement() -> Confinement {
    Confinement {
        policy: "default".into(),
        policy_digest: digest(),
        level: Level::Strict,
        plan: Plan::System,
        layers: vec![
            LayerReport { layer: Layer::Namespaces, enforced: true, detail: "pid 4026532290".into() },
            LayerReport { layer: Layer::Landlock, enforced: true, detail: "ABI 7, 23 rules".into() },
        ],
        memory: MemoryMechanism::Cgroup,
        host_uid: 2_000_000_001,
        absent: bytes(&["/nix"]),
        stdio: [StdioPath::Null, StdioPath::Relayed, StdioPath::Relayed],
    }
}

fn digest() -> [u8; 32] {
    core::array::from_fn(|index| u8::try_from(0xa0 + index).unwrap())
}

fn usage() -> Usage {
    Usage {
        wall_us: 14_250,
        user_us: 9_800,
        system_us: 3_100,
        memory_peak: 9_437_184,
        memory_mechanism: MemoryMechanism::Cgroup,
        bytes_in: 0,
        bytes_out: 3,
        processes_peak: 1,
        context_switches_voluntary: 4,
        context_switches_involuntary: 1,
        stalled: Some(Stalled { cpu_us: 2_400, memory_us: 0, io_us: 310 }),
    }
}

fn events() -> Vec<ExecEvent> {
    vec![
        ExecEvent::Accepted { request_id: 7 },
        ExecEvent::Started { confinement: Box::new(confinement()) },
        ExecEvent::Output { stream: Stream::Stdout, bytes: "42\n".into() },
        ExecEvent::OutputLost { events: 12 },
        ExecEvent::LimitWarning { limit: "memory".into(), value: 483_183_821, bound: 536_870_912 },
        ExecEvent::Exited {
            outcome: Outcome::Exited { code: 0 },
            usage: usage(),
            trusted_files: bytes(&["/home/ada/project/.envrc"]),
            redactions: Some(Redactions {
                marks: vec![Count { name: "github-token".into(), count: 2 }],
                late: 0,
            }),
            result_check: Some(ResultCheck {
                fits: Some(false),
                said: vec!["/count: expected at least 1, got 0".into()],
            }),
        },
    ]
}

fn server_messages() -> Vec<(&'static str, ServerMessage)> {
    let welcome = Welcome {
        version: VERSION,
        features: features::DESCRIPTORS,
        max_frame: MAX_FRAME,
        server: "stockade 0.1.0".into(),
    };
    let error = ProtocolError { code: ProtocolErrorCode::Malformed, text: "malformed message".into() };
    let mut messages = vec![("", ServerMessage::Welcome(welcome)), ("", ServerMessage::Error(error))];
    // In the order of a run's life. Twelve events are lost, so the number of the twelfth stands for them; a warning has that
    // of the event before it.
    let names = [
        ("Accepted", 1),
        ("Started", 2),
        ("Output", 3),
        ("OutputLost", 15),
        ("LimitWarning", 15),
        ("Exited", 16),
    ];
    for (event, (name, seq)) in events().into_iter().zip(names) {
        messages.push((name, ServerMessage::Event { exec_id: RUN, seq, event }));
    }
    let busy = Denied::new(DenyReason::Busy, "4 runs and 64 waiting").retry_after(250);
    let unknown = Denied::new(DenyReason::UnknownRun, "no such run").remedy("see: stockade ps");
    let often = Denied::new(DenyReason::RateLimited, "60 calls a minute are allowed").retry_after(412);
    let often = often.decided_by("rate", "limits.toml:12");
    messages.push(("gate", ServerMessage::Denied { request_id: 7, exec_id: None, denied: often }));
    messages.push(("request", ServerMessage::Denied { request_id: 7, exec_id: None, denied: busy }));
    messages.push(("run", ServerMessage::Denied { request_id: 0, exec_id: Some(RUN), denied: unknown }));
    messages.push(("", ServerMessage::Runs(vec![run_summary()])));
    messages.push(("", ServerMessage::Status(Box::new(status()))));
    messages.push(("", ServerMessage::Breakers(vec![breaker_summary()])));
    messages.push(("", ServerMessage::BreakerReset { tool: "word-count".into(), changed: true }));
    messages.push(("", ServerMessage::Statistics(Box::new(statistics_report()))));
    messages.push(("", ServerMessage::Unlocked { uid: 1_000, count: 1 }));
    messages.push((
        "",
        ServerMessage::AwaitsApproval {
            request_id: 7,
            exec_id: RUN,
            within_ms: 300_000,
            score: 60,
            factors: vec![risk_factor()],
        },
    ));
    messages.push(("", ServerMessage::Approvals { waiting: vec![approval_summary()], more: 0 }));
    messages.push(("", ServerMessage::ApprovalAsked(Box::new(approval_summary()))));
    messages.push(("", ServerMessage::ApprovalOver { exec_id: RUN, how: ApprovalEnd::Approved }));
    let how = Some(ApprovalEnd::Approved);
    messages.push(("", ServerMessage::ApprovalAnswered { exec_id: RUN, missing: 0, how }));
    messages.push(("", ServerMessage::ApprovalsMissed));
    messages.push(("", ServerMessage::Granted(Box::new(granted()))));
    messages.push(("", ServerMessage::GrantGone { id: GRANT.into(), runs: 2 }));
    let list = GrantList { grants: vec![granted()], requests: Vec::new(), left_out: 0 };
    messages.push(("", ServerMessage::Grants(Box::new(list))));
    let report = ReloadReport {
        wrong: vec!["limits.toml:3:1: `rate.each`: expected a rate, such as \"10/s\"".into()],
        left_out: 1,
        policies: 12,
        tools: 3,
        takes_restart: vec!["daemon.socket".into()],
    };
    messages.push(("", ServerMessage::Reloaded(Box::new(report))));
    messages.push(("", ServerMessage::AuditPage(Box::new(audit_page()))));
    messages
}

fn audit_question() -> AuditQuestion {
    AuditQuestion {
        since_ns: Some(1_795_341_621_000_000_000),
        classes: vec![AuditClass::Security, AuditClass::Access],
        uid: Some(1_000),
        outcome: Some("refused".into()),
        last: Some(20),
        follow: true,
        ..AuditQuestion::default()
    }
}

fn audit_page() -> AuditPage {
    let record = AuditRecord {
        sequence: 1_207,
        time_ns: 1_795_341_622_500_000_000,
        class: AuditClass::Security,
        text: "{\"event\":\"security\",\"name\":\"locked-out\",\"text\":\"refused too often\"}".into(),
    };
    AuditPage { records: vec![record], more: true, partial: false, erased: 3, unreadable: 0 }
}

const GRANT: &str = "018f2d5e-7a10-7c3b-9d44-5a610ef28399";

fn terms() -> GrantTerms {
    GrantTerms {
        what: GrantWhat::Policy("build-host".into()),
        given: Some(GrantGiven::Command(bytes(&["make", "test"]))),
        length_ms: 600_000,
        uses: Some(3),
        ends_runs: true,
        why: "to find out why the tests fail there".into(),
    }
}

fn called_terms() -> GrantTerms {
    GrantTerms {
        what: GrantWhat::Tool("deploy".into()),
        given: Some(GrantGiven::Parameters("{\"to\":\"staging\"}".into())),
        length_ms: 3_600_000,
        uses: None,
        ends_runs: false,
        why: "the release".into(),
    }
}

fn granted() -> GrantSummary {
    GrantSummary {
        id: GRANT.into(),
        uid: 1_000,
        unit: Some("agent.service".into()),
        what: GrantWhat::Policy("build-host".into()),
        digest: Some(digest()),
        shown: Some("make test".into()),
        left_ms: 599_000,
        uses: Some(3),
        uses_left: Some(2),
        ends_runs: true,
        by: Some(0),
        why: "to find out why the tests fail there".into(),
    }
}

fn statistics_question() -> StatisticsQuestion {
    let name = Some("word-count".into());
    StatisticsQuestion { by: Some(StatisticsBy::Tool), name, since_s: 1_789_992_000 }
}

fn statistics_report() -> StatisticsReport {
    let count = |name: &str, count| Count { name: name.into(), count };
    let row = StatisticsRow {
        by: StatisticsBy::Tool,
        name: "word-count".into(),
        runs: 1_000,
        outcomes: vec![count("ok", 990), count("timed-out", 10)],
        denials: vec![count("rate", 7)],
        wall_us: Some(Spread { count: 1_000, mean: 1_500, p50: 1_200, p99: 9_000, max: 60_000 }),
        memory: Some(Spread { count: 1_000, mean: 3 << 20, p50: 3 << 20, p99: 9 << 20, max: 11 << 20 }),
        breaker: Some(BreakerState::Open),
        limited_ms: None,
    };
    StatisticsReport {
        from_s: Some(1_789_992_000),
        to_s: 1_790_078_400,
        rows: vec![row],
        left_out: 0,
        unwritten: Some("no space left on device".into()),
    }
}

fn run_summary() -> RunSummary {
    RunSummary {
        exec_id: RUN,
        owner_uid: 1000,
        policy: "default".into(),
        command: "python3 -c print(6*7)".into(),
        state: RunState::Running,
        age_ms: 1_500,
        last_seq: 5,
    }
}

fn breaker_summary() -> BreakerSummary {
    BreakerSummary {
        tool: "word-count".into(),
        state: BreakerState::Open,
        retry_after_ms: Some(12_500),
        failures: 0,
        outcomes: 0,
        opened: 2,
        probes: 0,
    }
}

fn status() -> StatusReport {
    StatusReport {
        version: "0.1.0".into(),
        pid: 4_711,
        launcher_pid: 4_712,
        uptime_ms: 86_400_000,
        plan: Plan::User,
        memory: MemoryMechanism::Monitor,
        running: 3,
        slots: 4,
        queued: 2,
        queue_bound: 64,
        connections: 5,
        accepted: 1_000,
        denied: 10,
        ended: 995,
        unreaped: 0,
        warmth: warmth(),
        draining: false,
        policies: vec!["default".into(), "strict".into()],
        unready: vec!["the daemon is stopping".into()],
        known: 9,
        launchers: 1,
        outcomes: vec![Count { name: "exited".into(), count: 995 }],
        denials: vec![Count { name: "busy".into(), count: 10 }],
        process: ProcessReport { memory: 11 << 20, cpu_ms: 2_500, descriptors: 18, descriptor_bound: 20_000 },
        connection_bytes: 4_096,
        kernel: "6.18.0".into(),
        metrics: "127.0.0.1:9747".into(),
        tools: 12,
        limiter: Some(LimiterReport { share: 562_500, pressure: LimitPressure::High, keys: 40 }),
        breakers_open: 1,
        breakers_half_open: 0,
        often_wrong: vec![OftenWrong { tool: "word-count".into(), rule: "/required".into(), count: 7 }],
        locked_out: vec![LockedOut {
            uid: 1_000,
            unit: Some("agent.service".into()),
            retry_after_ms: 1_800_000,
        }],
        approvals_waiting: 1,
        grants: 2,
        grant_requests: 1,
        reviewing: 2,
    }
}

const DIGEST: [u8; 32] = [0xa7; 32];

fn approval_summary() -> ApprovalSummary {
    ApprovalSummary {
        exec_id: RUN,
        digest: DIGEST,
        owner_uid: 1_000,
        unit: Some("agent.service".into()),
        policy: "build".into(),
        tool: None,
        argv: bytes(&["git", "push", "--force"]),
        parameters: None,
        workspace: "/home/ada/project".into(),
        cwd: Bytes::default(),
        environment: bytes(&["PATH"]),
        input: ApprovalInput::None,
        is_cut: false,
        score: 60,
        factors: vec![risk_factor()],
        needed: 1,
        approved: 0,
        left_ms: 299_000,
        may_answer: true,
        values: vec![Some("/usr/bin".into())],
        overrides: Overrides { wall_ms: Some(60_000), ..Overrides::default() },
        output: bytes(&["/home/ada/project/log", "pipe:[81]"]),
        whole: ApprovalWhole {
            words: 3,
            argv: 14,
            variables: 1,
            environment: 12,
            ..ApprovalWhole::default()
        },
        panels: vec![ReviewPanel {
            needed: 1,
            approved: 1,
            is_spent: false,
            reviewers: vec![ReviewerReport {
                name: "policy".into(),
                opinion: ReviewOpinion::Yes,
                reason: "it's in the plan".into(),
            }],
        }],
    }
}

fn risk_factor() -> RiskFactor {
    RiskFactor { name: "forced-push".into(), score: Some(60), reason: "it rewrites what others have".into() }
}

const MADE: Made =
    Made { took_ns: [310_000, 4_000, 90_000, 120_000, 80_000, 25_000, 4_000, 60_000, 30_000, 8_000, 70_000] };

fn warmth() -> Warmth {
    Warmth { templates: 2, parked: 3, hits: 950, misses: 50, refill_us: 1_800 }
}

fn outcomes() -> Vec<Outcome> {
    vec![
        Outcome::Exited { code: 3 },
        Outcome::Signaled { signal: 11, core_dumped: false },
        Outcome::TimedOut { clock: Clock::Wall, limit_ms: 60_000 },
        Outcome::MemoryExceeded { limit: 512 << 20, seen: 513 << 20 },
        Outcome::OutputExceeded { limit: 16 << 20 },
        Outcome::ProcessesExceeded { limit: 128, seen: 129 },
        Outcome::Cancelled { reason: CancelReason::Asked },
        Outcome::SetupFailed { failure: failure() },
        Outcome::Lost { reason: "the launcher died".into() },
    ]
}

fn failure() -> SetupFailure {
    SetupFailure { stage: SetupStage::Exec, errno: 2, subject: "/usr/bin/nope:/bin/nope".into() }
}

fn cancel_reasons() -> Vec<CancelReason> {
    vec![
        CancelReason::Asked,
        CancelReason::ClientGone,
        CancelReason::Draining,
        CancelReason::GuardDissolved { path: "/home/ada/project/.git/config".into() },
        CancelReason::InputExceeded { limit: 1 << 20 },
        CancelReason::GrantOver,
        CancelReason::Unneeded,
    ]
}

fn mount_kinds() -> Vec<MountKind> {
    vec![
        MountKind::Workspace,
        MountKind::Bind { create: true },
        MountKind::Tmpfs { size: 64 << 20, mode: 0o1777 },
        MountKind::Proc,
        MountKind::Dev { nodes: bytes(&["null", "zero"]), shm_size: 64 << 20 },
    ]
}

fn spec() -> SandboxSpec {
    let access = Access { read: true, write: true, execute: false };
    let targets = ["/home/ada/project", "/usr", "/tmp", "/proc", "/dev"];
    let mounts = mount_kinds().into_iter().zip(targets);
    SandboxSpec {
        policy: "default".into(),
        digest: digest(),
        level: Level::Strict,
        mounts: mounts.map(|(kind, target)| Mount { target: target.into(), kind, access }).collect(),
        deny: bytes(&["/home/ada/project/.env"]),
        deny_elsewhere: bytes(&["/var/run/secret"]),
        protect: bytes(&["/home/ada/project/.git/hooks"]),
        network: NetworkSpec {
            mode: NetworkMode::Loopback,
            tcp_connect: Ports::Any,
            tcp_bind: Ports::Only(vec![8080, 8081]),
        },
        limits: limits(),
        seccomp: SeccompSpec {
            base: vec![vec![BpfInstruction { code: 0x20, jt: 0, jf: 0, k: 4 }]],
            delta: vec![vec![BpfInstruction { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 }]],
            rules: 2,
        },
        run_as: RunAs::Ephemeral { start: 2_000_000_000, count: 65_536 },
        hostname: "stockade".into(),
    }
}

fn limits() -> Limits {
    Limits {
        wall_ms: Some(60_000),
        cpu_ms: Some(60_000),
        idle_ms: None,
        memory: Some(512 << 20),
        processes: 128,
        open_files: 1024,
        file_size: Some(1 << 30),
        output: Some(16 << 20),
        stdin: None,
        core: 0,
        stack: 8 << 20,
        address_space: None,
        nice: 5,
        io_priority: IoPriority::BestEffort(6),
    }
}

const SPEC: SpecNumber = SpecNumber(7);

fn to_launcher() -> Vec<ToLauncher> {
    let launch = Launch {
        exec_id: RUN,
        owner: Owner { uid: 1000, gid: 1000, groups: vec![27, 100] },
        spec: SPEC,
        argv: bytes(&["python3", "-c", "print(6*7)"]),
        environment: vec![("HOME".into(), "/home/ada".into())],
        cwd: "/home/ada/project".into(),
        home: "/home/ada".into(),
        workspace: "/home/ada/project".into(),
        workspace_passed: true,
        stdin_passed: false,
        output: LaunchOutput::Relayed { ring_bytes: 1 << 20 },
        note: note(),
        proved: false,
        openings: vec![Opening { number: 3, path: "notes/today.txt".into() }],
    };
    vec![
        ToLauncher::Hello {
            version: LAUNCH_VERSION,
            keep: Some(Keep { launcher: Token([0x5a; 32]), supervisor: Token([0xa5; 32]) }),
            parked: 8,
        },
        ToLauncher::Again { version: LAUNCH_VERSION, token: Token([0xa5; 32]) },
        ToLauncher::Spec { number: SPEC, spec: Arc::new(spec()) },
        ToLauncher::ForgetSpec { number: SPEC },
        ToLauncher::Launch(Box::new(launch.clone())),
        ToLauncher::Hold(Box::new(launch)),
        ToLauncher::Start { exec_id: RUN },
        ToLauncher::Signal { exec_id: RUN, signal: 15 },
        ToLauncher::Resize { exec_id: RUN, rows: 24, columns: 80 },
        ToLauncher::Cancel { exec_id: RUN, reason: CancelReason::Asked },
        ToLauncher::Release { exec_ids: vec![RUN] },
        ToLauncher::InputEnded { exec_id: RUN, bytes: 6 },
        ToLauncher::ReleaseOutput { exec_id: RUN, next_seq: 9 },
        ToLauncher::OutputExceeded { exec_id: RUN },
        ToLauncher::Shutdown,
        ToLauncher::Opener { owner: Owner { uid: 1000, gid: 1000, groups: vec![27, 100] }, proved: true },
    ]
}

fn note() -> RunNote {
    RunNote {
        request_id: 7,
        policy: "default".into(),
        command: "python3 -c print(6*7)".into(),
        detach: false,
        wall_ms: Some(60_000),
        fed: false,
        tool: Some(CalledTool { name: "count-lines".into(), is_tightened: true }),
        redaction: Some(Redaction { secrets: vec![("API_TOKEN".into(), "c0rrect-horse".into())] }),
        grant: Some(GrantNote { id: [0x9d; 16], ends_run: true }),
        reviews: Some(RUN),
    }
}

fn from_launcher() -> Vec<FromLauncher> {
    vec![
        FromLauncher::Known { version: LAUNCH_VERSION, token: Token([0x5a; 32]) },
        FromLauncher::Hello {
            version: LAUNCH_VERSION,
            pid: 4_712,
            plan: Plan::System,
            memory: MemoryMechanism::Cgroup,
            program: Program { device: 65_024, inode: 4_194_305, modified_ns: 1_700_000_000_000_000_000 },
            replaced: false,
        },
        FromLauncher::Adopted(Box::new(Adopted {
            exec_id: RUN,
            owner_uid: 1000,
            ring_bytes: Some(1 << 20),
            held: false,
            age_ms: 12_000,
            input_bytes: None,
            output_released: None,
            note: note(),
        })),
        FromLauncher::Started { exec_id: RUN, confinement: Box::new(confinement()) },
        FromLauncher::Warning {
            exec_id: RUN,
            limit: "memory".into(),
            value: 483_183_821,
            bound: 536_870_912,
        },
        FromLauncher::Ended {
            exec_id: RUN,
            outcome: Outcome::Exited { code: 0 },
            usage: usage(),
            trusted_files: bytes(&["/home/ada/project/.envrc"]),
            reaped: true,
        },
        FromLauncher::Reaped { exec_id: RUN },
        FromLauncher::Warmth { warmth: warmth(), made: vec![MADE] },
    ]
}

fn to_relay() -> Vec<ToRelay> {
    vec![ToRelay::Acknowledge { exec_id: RUN, offset: 4_096 }, ToRelay::Forget { exec_id: RUN }]
}

fn from_relay() -> Vec<FromRelay> {
    vec![
        FromRelay::Wrote {
            exec_id: RUN,
            head: 4_096,
            next_seq: 20,
            acknowledged: 2_048,
            oldest_offset: 1_024,
            oldest_seq: 9,
            eof: false,
        },
        FromRelay::Told,
    ]
}

fn part<T: Serialize + DeserializeOwned + Debug>(list: &[T]) -> Vec<Example> {
    list.iter().map(|value| example(Form::Part, "", value)).collect()
}

/// Every enum inside a message, by itself.
fn parts() -> Vec<Example> {
    let mut parts = Vec::new();
    parts.extend(part(&[
        Workspace::Descriptor { path: "/home/ada/project".into() },
        Workspace::Path { path: "/home/ada/project".into() },
    ]));
    parts.extend(part(&[
        StdinMode::None,
        StdinMode::Inline("hello\n".into()),
        StdinMode::Stream,
        StdinMode::Descriptor,
    ]));
    parts.extend(part(&[OutputMode::Stream, OutputMode::Descriptor]));
    parts.extend(part(&protocol_error_codes()));
    parts.extend(part(&events()));
    parts.extend(part(&[Stream::Stdout, Stream::Stderr]));
    parts.extend(part(&[
        RunState::Queued,
        RunState::Starting,
        RunState::Running,
        RunState::Ended { outcome: Outcome::Exited { code: 0 } },
    ]));
    parts.extend(part(&[BreakerState::Closed, BreakerState::Open, BreakerState::HalfOpen]));
    parts.extend(part(&[LimitPressure::Calm, LimitPressure::Between, LimitPressure::High]));
    parts.extend(part(&[
        ApprovalInput::None,
        ApprovalInput::Inline("echo hi\n".into()),
        ApprovalInput::Stream,
        ApprovalInput::Descriptor,
    ]));
    parts.extend(part(&[
        ApprovalEnd::Approved,
        ApprovalEnd::Refused,
        ApprovalEnd::Late,
        ApprovalEnd::Withdrawn,
        ApprovalEnd::Changed,
        ApprovalEnd::Draining,
    ]));
    parts.extend(part(&[ReviewOpinion::Open, ReviewOpinion::Yes, ReviewOpinion::No, ReviewOpinion::Nothing]));
    parts.extend(part(&[StatisticsBy::Tool, StatisticsBy::Policy, StatisticsBy::Principal]));
    parts.extend(part(&deny_reasons()));
    parts.extend(part(&outcomes()));
    parts.extend(part(&[Clock::Wall, Clock::Cpu, Clock::Idle]));
    parts.extend(part(&cancel_reasons()));
    parts.extend(part(&[GrantWhat::Policy("build-host".into()), GrantWhat::Tool("deploy".into())]));
    parts.extend(part(&[
        GrantGiven::Command(bytes(&["make", "test"])),
        GrantGiven::Parameters("{\"to\":\"staging\"}".into()),
    ]));
    parts.extend(part(&setup_stages()));
    parts.extend(part(&[MemoryMechanism::Rusage, MemoryMechanism::Monitor, MemoryMechanism::Cgroup]));
    parts.extend(part(&[Level::Strict, Level::Moderate, Level::Minimal]));
    parts.extend(part(&[Plan::System, Plan::User, Plan::Minimal]));
    parts.extend(part(&layers()));
    parts.extend(part(&[StdioPath::Null, StdioPath::Passed, StdioPath::Relayed, StdioPath::Terminal]));
    parts.extend(part(&mount_kinds()));
    parts.extend(part(&[NetworkMode::None, NetworkMode::Loopback, NetworkMode::Host]));
    parts.extend(part(&[Ports::Any, Ports::Only(vec![443])]));
    parts.extend(part(&[IoPriority::Idle, IoPriority::BestEffort(6)]));
    parts.extend(part(&[RunAs::Caller, RunAs::Ephemeral { start: 2_000_000_000, count: 65_536 }]));
    parts.extend(part(&[
        LaunchOutput::Passed,
        LaunchOutput::Relayed { ring_bytes: 1 << 20 },
        LaunchOutput::Marked { ring_bytes: 1 << 20 },
    ]));
    parts
}

fn protocol_error_codes() -> [ProtocolErrorCode; 7] {
    [
        ProtocolErrorCode::Malformed,
        ProtocolErrorCode::TooLarge,
        ProtocolErrorCode::Version,
        ProtocolErrorCode::Unexpected,
        ProtocolErrorCode::Slow,
        ProtocolErrorCode::TooMany,
        ProtocolErrorCode::NotPermitted,
    ]
}

fn deny_reasons() -> [DenyReason; 18] {
    [
        DenyReason::Busy,
        DenyReason::Draining,
        DenyReason::UnknownPolicy,
        DenyReason::Policy,
        DenyReason::BadRequest,
        DenyReason::UnknownRun,
        DenyReason::NotPermitted,
        DenyReason::Unsupported,
        DenyReason::Unavailable,
        DenyReason::RateLimited,
        DenyReason::BreakerOpen,
        DenyReason::UnknownTool,
        DenyReason::ToolChanged,
        DenyReason::BadParameters,
        DenyReason::NotApproved,
        DenyReason::LockedOut,
        DenyReason::AuditUnavailable,
        DenyReason::Cancelled,
    ]
}

fn layers() -> [Layer; 10] {
    [
        Layer::Namespaces,
        Layer::Root,
        Layer::Guard,
        Layer::Network,
        Layer::Identity,
        Layer::Resources,
        Layer::Rlimits,
        Layer::Landlock,
        Layer::Seccomp,
        Layer::Process,
    ]
}

fn setup_stages() -> [SetupStage; 20] {
    [
        SetupStage::Check,
        SetupStage::Open,
        SetupStage::Template,
        SetupStage::UserNamespace,
        SetupStage::Namespaces,
        SetupStage::Mount,
        SetupStage::Guard,
        SetupStage::Network,
        SetupStage::Idmap,
        SetupStage::Cgroup,
        SetupStage::Identity,
        SetupStage::Capabilities,
        SetupStage::Rlimits,
        SetupStage::Landlock,
        SetupStage::Seccomp,
        SetupStage::Verify,
        SetupStage::Cwd,
        SetupStage::Terminal,
        SetupStage::Exec,
        SetupStage::File,
    ]
}
