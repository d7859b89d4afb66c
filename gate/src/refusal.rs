//! Why something is refused, and what would help.

use std::time::Duration;

use crate::row::StageName;

/// A refusal by a stage of the gate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The stage.
    pub stage: StageName,
    /// The reason, for machines.
    pub reason: Reason,
    /// The rule that decided, by its name or its place: `roles.toml:12`, `owner-runs-shipped-policies`, `/properties/depth`.
    pub rule: String,
    /// One sentence for a person. Lower case, no full stop; no path outside of the caller's workspace.
    pub message: String,
    /// What would help, if anything would.
    pub remedy: Option<String>,
    /// How long until the same may be let through, exactly, if time alone can help.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal without a remedy or a time.
    #[must_use]
    pub fn new(
        stage: StageName,
        reason: Reason,
        rule: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        let (rule, message) = (rule.into(), message.into());
        Self { stage, reason, rule, message, remedy: None, retry_after: None }
    }

    /// With what would help.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// With when to try again.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }
}

/// Why, for machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Reason {
    /// No rule permits it, or one forbids it.
    NotPermitted,
    /// Refused too often, for a while.
    LockedOut,
    /// Too often.
    RateLimited,
    /// The tool has failed too often.
    BreakerOpen,
    /// There is no such tool.
    UnknownTool,
    /// The tool's executable or its file isn't the one that was registered.
    ToolChanged,
    /// The parameters aren't what the tool takes.
    BadParameters,
    /// Nobody has approved it, or somebody has refused.
    NotApproved,
    /// What is done couldn't be recorded.
    AuditUnavailable,
}
