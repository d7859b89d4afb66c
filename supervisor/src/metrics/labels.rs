//! The words of labels whose values are ours: one list a label, so that every series is there from the start, with 0.
//!
//! They are the names that JSON has. A variant that is newer than its list counts as `other`.

use stockade_protocol::approval::ApprovalEnd;
use stockade_protocol::client::ProtocolErrorCode;
use stockade_protocol::confinement::{Layer, Plan};
use stockade_protocol::denied::DenyReason;
use stockade_protocol::outcome::{MemoryMechanism, Outcome, SetupStage};

/// What isn't on a list.
pub(super) const OTHER: &str = "other";

/// Declares a label: its words in order, and the place of a value among them.
macro_rules! label {
    ($words:ident, $place:ident, $type:ty, $($pattern:pat => $word:literal),+ $(,)?) => {
        pub(super) const $words: &[&str] = &[$($word,)+ OTHER];

        pub(super) fn $place(value: &$type) -> usize {
            let mut at = 0;
            $(if matches!(value, $pattern) {
                return at;
            }
            at += 1;)+
            at
        }
    };
}

label! { OUTCOMES, outcome, Outcome,
    Outcome::Exited { .. } => "exited",
    Outcome::Signaled { .. } => "signaled",
    Outcome::TimedOut { .. } => "timed-out",
    Outcome::MemoryExceeded { .. } => "memory-exceeded",
    Outcome::OutputExceeded { .. } => "output-exceeded",
    Outcome::ProcessesExceeded { .. } => "processes-exceeded",
    Outcome::Cancelled { .. } => "cancelled",
    Outcome::SetupFailed { .. } => "setup-failed",
    Outcome::Lost { .. } => "lost",
}

/// What a reason is called.
pub(crate) fn reason_word(value: DenyReason) -> &'static str {
    REASONS[reason(&value)]
}

/// What an outcome is called.
pub(crate) fn word(value: &Outcome) -> &'static str {
    OUTCOMES[outcome(value)]
}

label! { REASONS, reason, DenyReason,
    DenyReason::Busy => "busy",
    DenyReason::Draining => "draining",
    DenyReason::UnknownPolicy => "unknown-policy",
    DenyReason::Policy => "policy",
    DenyReason::BadRequest => "bad-request",
    DenyReason::UnknownRun => "unknown-run",
    DenyReason::NotPermitted => "not-permitted",
    DenyReason::Unsupported => "unsupported",
    DenyReason::Unavailable => "unavailable",
    DenyReason::RateLimited => "rate-limited",
    DenyReason::BreakerOpen => "breaker-open",
    DenyReason::UnknownTool => "unknown-tool",
    DenyReason::ToolChanged => "tool-changed",
    DenyReason::BadParameters => "bad-parameters",
    DenyReason::NotApproved => "not-approved",
    DenyReason::LockedOut => "locked-out",
    DenyReason::AuditUnavailable => "audit-unavailable",
    DenyReason::Cancelled => "cancelled",
}

label! { APPROVAL_ENDS, approval_end, ApprovalEnd,
    ApprovalEnd::Approved => "approved",
    ApprovalEnd::Refused => "refused",
    ApprovalEnd::Late => "late",
    ApprovalEnd::Withdrawn => "withdrawn",
    ApprovalEnd::Changed => "changed",
    ApprovalEnd::Draining => "draining",
}

/// What became of what waited for an approval, in a word.
pub(crate) fn approval_word(value: ApprovalEnd) -> &'static str {
    APPROVAL_ENDS[approval_end(&value)]
}

label! { CODES, code, ProtocolErrorCode,
    ProtocolErrorCode::Malformed => "malformed",
    ProtocolErrorCode::TooLarge => "too-large",
    ProtocolErrorCode::Version => "version",
    ProtocolErrorCode::Unexpected => "unexpected",
    ProtocolErrorCode::Slow => "slow",
    ProtocolErrorCode::TooMany => "too-many",
    ProtocolErrorCode::NotPermitted => "not-permitted",
}

label! { STAGES, stage, SetupStage,
    SetupStage::Check => "check",
    SetupStage::Open => "open",
    SetupStage::Template => "template",
    SetupStage::UserNamespace => "user-namespace",
    SetupStage::Namespaces => "namespaces",
    SetupStage::Mount => "mount",
    SetupStage::Guard => "guard",
    SetupStage::Network => "network",
    SetupStage::Idmap => "idmap",
    SetupStage::Cgroup => "cgroup",
    SetupStage::Identity => "identity",
    SetupStage::Capabilities => "capabilities",
    SetupStage::Rlimits => "rlimits",
    SetupStage::Landlock => "landlock",
    SetupStage::Seccomp => "seccomp",
    SetupStage::Verify => "verify",
    SetupStage::Cwd => "cwd",
    SetupStage::Terminal => "terminal",
    SetupStage::Exec => "exec",
}

/// What a stage of set-up is called.
pub(crate) fn stage_word(value: SetupStage) -> &'static str {
    STAGES[stage(&value)]
}

label! { LAYERS, layer, Layer,
    Layer::Namespaces => "namespaces",
    Layer::Root => "root",
    Layer::Guard => "guard",
    Layer::Network => "network",
    Layer::Identity => "identity",
    Layer::Resources => "resources",
    Layer::Rlimits => "rlimits",
    Layer::Landlock => "landlock",
    Layer::Seccomp => "seccomp",
    Layer::Process => "process",
}

label! { PLANS, plan, Plan,
    Plan::System => "system",
    Plan::User => "user",
    Plan::Minimal => "minimal",
}

label! { MECHANISMS, mechanism, MemoryMechanism,
    MemoryMechanism::Rusage => "rusage",
    MemoryMechanism::Monitor => "monitor",
    MemoryMechanism::Cgroup => "cgroup",
}
