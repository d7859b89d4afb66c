//! Every metric, once: its name, its labels, and what it says. `docs/metrics.md` has the same table, and a test holds that.
//!
//! Names are by Prometheus' conventions: base units, `_total` for what only grows, `_info` for a 1 that carries words.

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    /// Only grows, from the daemon's start. Counted when it happens.
    Counter,
    /// The same, counted elsewhere, and looked at when somebody asks.
    Total,
    /// Is what it is now. Looked at when somebody asks.
    Gauge,
    /// Counts by size: the upper bounds of its buckets.
    Histogram(&'static [f64]),
}

/// One metric.
#[derive(Debug)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(super) kind: Kind,
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

/// From a parked worker's start to the longest builds.
const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
    1800.0,
];
/// What people take, up to the longest that they may.
const PEOPLE_SECONDS: &[f64] =
    &[1.0, 5.0, 15.0, 30.0, 60.0, 180.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0];
/// What making and ending take: nothing there should last longer.
const SHORT_SECONDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// What one stage of making a worker takes.
const STAGE_SECONDS: &[f64] = &[
    0.000_005, 0.000_01, 0.000_025, 0.000_05, 0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
    0.1, 1.0, 10.0,
];
/// What the gate takes to decide.
const GATE_SECONDS: &[f64] = &[
    0.000_001,
    0.000_002_5,
    0.000_005,
    0.000_01,
    0.000_025,
    0.000_05,
    0.0001,
    0.000_25,
    0.0005,
    0.001,
    0.005,
    0.025,
    0.1,
    1.0,
];
const MIB: f64 = 1_048_576.0;
/// Of memory.
const BYTES: &[f64] = &[
    MIB,
    4.0 * MIB,
    16.0 * MIB,
    64.0 * MIB,
    128.0 * MIB,
    256.0 * MIB,
    512.0 * MIB,
    1024.0 * MIB,
    2048.0 * MIB,
    4096.0 * MIB,
    16384.0 * MIB,
];

/// Declares the metrics, each under a name of its own, and the table of all of them.
macro_rules! metrics {
    ($($constant:ident: $kind:expr, $name:literal, [$($label:literal),*], $help:literal;)*) => {
        $(pub(super) const $constant: Metric =
            Metric { name: $name, kind: $kind, labels: &[$($label),*], help: $help };)*
        /// All of them, in the order of the page.
        pub(crate) const TABLE: &[&Metric] = &[$(&$constant),*];
    };
}

metrics! {
    RUNS: Kind::Counter, "stockade_runs_total", ["policy", "outcome"],
        "Runs that have ended, by policy and outcome.";
    ACCEPTED: Kind::Total, "stockade_requests_accepted_total", [],
        "Requests for a run that were accepted.";
    ADOPTED: Kind::Counter, "stockade_runs_adopted_total", [],
        "Runs that an earlier daemon had accepted and this one has taken over.";
    DENIALS: Kind::Counter, "stockade_denials_total", ["reason"],
        "Messages of clients that were denied, by reason.";
    GATE_REFUSALS: Kind::Counter, "stockade_gate_refusals_total", ["stage", "reason"],
        "Those of stockade_denials_total that a stage of the gate has decided, by stage and reason.";
    GATE_TIME: Kind::Histogram(GATE_SECONDS), "stockade_gate_seconds", ["verdict"],
        "What the gate's row takes to let a request pass or to refuse it; nothing where no stage has anything to look at.";
    APPROVALS: Kind::Counter, "stockade_approvals_total", ["how"],
        "Requests that waited until somebody had approved them, by what became of them: approved, refused, late, withdrawn, changed, draining.";
    APPROVAL_WAIT: Kind::Histogram(PEOPLE_SECONDS), "stockade_approval_wait_seconds", [],
        "How long people took to approve what they did approve: no part of stockade_run_start_seconds.";
    REVIEWS: Kind::Counter, "stockade_reviews_total", ["answer"],
        "Reviewer programs that were asked, by what counted of it: yes, no, nothing.";
    TOOL_CALLS: Kind::Counter, "stockade_tool_calls_total", ["tool", "outcome"],
        "Those of stockade_runs_total that were calls of tools, by tool and outcome.";
    SETUP_FAILURES: Kind::Counter, "stockade_setup_failures_total", ["stage"],
        "Runs whose command never began, by the stage of set-up that failed.";
    RUN_START: Kind::Histogram(SHORT_SECONDS), "stockade_run_start_seconds", [],
        "From the request to the start of the command, told when the run ends.";
    RUN_SETUP: Kind::Histogram(SHORT_SECONDS), "stockade_run_setup_seconds", ["stage"],
        "Parts of stockade_run_start_seconds: waiting for a slot (queue), then for the launcher (launch).";
    WORKER_SETUP: Kind::Histogram(STAGE_SECONDS), "stockade_worker_setup_seconds", ["stage"],
        "Making a worker of a daemon's, by stage: until its template has cloned it (template), its own stages, and the reading back (verify).";
    RUN_DURATION: Kind::Histogram(SECONDS), "stockade_run_duration_seconds", [],
        "From the start of the command to its end.";
    RUN_CPU: Kind::Histogram(SECONDS), "stockade_run_cpu_seconds", [],
        "Processor time that a run used, its whole tree.";
    RUN_MEMORY: Kind::Histogram(BYTES), "stockade_run_memory_peak_bytes", [],
        "The most memory that a run had, as its mechanism measures it.";
    KILL: Kind::Histogram(SHORT_SECONDS), "stockade_kill_seconds", [],
        "From the order to end a run until its end was told.";
    RELAYED: Kind::Counter, "stockade_relayed_bytes_total", ["stream"],
        "Bytes of input and output that passed through the daemon, counted at a run's end.";
    REDACTIONS: Kind::Counter, "stockade_redactions_total", ["kind"],
        "Marks that clients were given in place of secrets: of known forms and an operator's (form), of values that the run was given (value).";
    LAYERS: Kind::Counter, "stockade_run_layers_total", ["layer", "enforced"],
        "Runs that started, by layer and by whether it was enforced, as read back from the kernel.";
    RUNNING: Kind::Gauge, "stockade_runs_running", [], "Runs that hold a slot.";
    SLOTS: Kind::Gauge, "stockade_slots", [], "Runs that may go on at once.";
    QUEUED: Kind::Gauge, "stockade_runs_queued", [], "Runs that wait for a slot.";
    QUEUE: Kind::Gauge, "stockade_queue_slots", [], "Runs that may wait.";
    KNOWN: Kind::Gauge, "stockade_runs_known", [], "Runs that wait, go on, or are kept for a client that comes back.";
    UNCLAIMED: Kind::Gauge, "stockade_runs_unclaimed", [],
        "Adopted runs whose clients have yet to come back: their output waits for that.";
    UNREAPED: Kind::Gauge, "stockade_runs_unreaped", [],
        "Runs that have ended but whose processes the kernel hasn't let go.";
    TEMPLATES: Kind::Gauge, "stockade_templates", [], "Templates: one for each user, policy and workspace in use.";
    PARKED: Kind::Gauge, "stockade_workers_parked", [], "Workers that wait for a run.";
    HITS: Kind::Total, "stockade_pool_hits_total", [], "Runs that got a parked worker, since the launcher's start.";
    MISSES: Kind::Total, "stockade_pool_misses_total", [], "Runs that had to wait for a worker, since the launcher's start.";
    REFILL: Kind::Gauge, "stockade_pool_refill_seconds", [], "How long making the last parked worker took.";
    CONNECTIONS: Kind::Gauge, "stockade_connections", [], "Connections of clients.";
    CONNECTED: Kind::Counter, "stockade_connections_accepted_total", [], "Connections that clients have opened.";
    CONNECTION_ERRORS: Kind::Counter, "stockade_connection_errors_total", ["code"],
        "Connections that the daemon refused or closed, by the code that the client was told.";
    CONNECTION_MEMORY: Kind::Gauge, "stockade_connection_memory_bytes", [], "Bytes that wait in connections.";
    SPANS: Kind::Counter, "stockade_trace_spans_total", ["result"],
        "Spans of runs, sent to the collector or lost on the way.";
    LAUNCHER_UP: Kind::Gauge, "stockade_launcher_up", [], "Whether a launcher is there.";
    LAUNCHER_STARTS: Kind::Counter, "stockade_launcher_starts_total", [],
        "Launchers that came up; each after the first took the place of one that was gone.";
    OLDER: Kind::Gauge, "stockade_launchers_older", [],
        "Launchers of earlier daemons that stay until their runs have ended.";
    READY: Kind::Gauge, "stockade_ready", [], "Whether new runs are taken: what /readyz answers.";
    DRAINING: Kind::Gauge, "stockade_draining", [], "Whether the daemon is stopping.";
    POLICY_NAMES: Kind::Gauge, "stockade_policies", [], "Policies that are loaded.";
    TOOL_NAMES: Kind::Gauge, "stockade_tools", [], "Tools that are loaded.";
    BREAKERS: Kind::Gauge, "stockade_breakers", ["state"],
        "Circuit breakers by how they stand: closed (of tools that are loaded), open, half-open.";
    APPROVALS_WAITING: Kind::Gauge, "stockade_approvals_waiting", [], "Requests that wait until somebody has approved them.";
    REVIEWING: Kind::Gauge, "stockade_reviewing", [], "Reviewer programs that look at what waits for an approval.";
    LIMITER_SHARE: Kind::Gauge, "stockade_limiter_share_ratio", [],
        "What limits on how often are worth now: 1 is what they say; less while the machine is busy.";
    LIMITER_KEYS: Kind::Gauge, "stockade_limiter_keys", [],
        "Users, and users with a tool or a policy, that still owe something to a limit.";
    GRANTS: Kind::Gauge, "stockade_grants", [], "Grants that hold.";
    GRANT_REQUESTS: Kind::Gauge, "stockade_grant_requests", [], "Requests for grants that wait for an answer.";
    GRANT_EVENTS: Kind::Counter, "stockade_grant_events_total", ["event"],
        "What happened to grants: given, revoked, redeemed by a run, a run ended with one.";
    AUDIT_LAG: Kind::Histogram(SHORT_SECONDS), "stockade_audit_lag_seconds", [],
        "From the moment that a request is handed to the record until that is durable; those that weren't recorded aside.";
    AUDIT_BYTES: Kind::Gauge, "stockade_audit_bytes", [], "Size of the record's segments together.";
    AUDIT_RECORDING: Kind::Gauge, "stockade_audit_recording", [], "Whether requests are recorded before they run.";
    AUDIT_WRITABLE: Kind::Gauge, "stockade_audit_writable", [],
        "Whether the record can be written, as far as the last try tells; without a record 1.";
    AUDIT_WAITING: Kind::Gauge, "stockade_audit_waiting", [], "Requests that wait until they are recorded.";
    AUDIT_LAST: Kind::Gauge, "stockade_audit_last_record", [], "The number of the newest record that is durable.";
    AUDIT_SYNCS: Kind::Total, "stockade_audit_syncs_total", [],
        "Times that all that waited was made durable at once.";
    AUDIT_REFUSED: Kind::Total, "stockade_audit_refused_total", [], "Events that couldn't be written when they came.";
    RELOADS: Kind::Counter, "stockade_policy_reloads_total", ["result"],
        "Times the policies were read again: loaded, or refused and the old ones kept.";
    POSTURE: Kind::Gauge, "stockade_posture_info", ["plan", "memory", "kernel"],
        "How this machine confines: spawn plan, what bounds memory, and the kernel's release. Always 1.";
    FEATURES: Kind::Gauge, "stockade_kernel_feature", ["feature"],
        "Whether the kernel has a feature, as its files say: 1 or 0; without a series where none says.";
    LANDLOCK: Kind::Gauge, "stockade_landlock_abi", [],
        "Landlock's ABI that the kernel offers; 0 where it has none.";
    LEVELS: Kind::Gauge, "stockade_level_supported", ["level"],
        "Whether this machine has what the shipped policy of a level needs, by the two before: 1 or 0; `stockade doctor` tries it.";
    BUILD: Kind::Gauge, "stockade_build_info", ["version", "architecture"], "Which release this is. Always 1.";
    PROCESS_CPU: Kind::Total, "process_cpu_seconds_total", [], "Processor time of the supervisor.";
    PROCESS_RESIDENT: Kind::Gauge, "process_resident_memory_bytes", [], "Memory of the supervisor.";
    PROCESS_VIRTUAL: Kind::Gauge, "process_virtual_memory_bytes", [], "Address space of the supervisor.";
    PROCESS_FDS: Kind::Gauge, "process_open_fds", [], "Descriptors that the supervisor has open.";
    PROCESS_MAX_FDS: Kind::Gauge, "process_max_fds", [], "Descriptors that the supervisor may have open.";
    PROCESS_START: Kind::Gauge, "process_start_time_seconds", [], "When the supervisor started, since the epoch.";
}
