//! A request that was refused before anything ran.

use serde::{Deserialize, Serialize};

/// A refusal: which reason, in which words, what would help, and when to try again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Denied {
    /// The reason, for machines.
    pub reason: DenyReason,
    /// One sentence for a person. Lower case, no full stop.
    pub message: String,
    /// What would help, if we know.
    pub remedy: Option<String>,
    /// When to try again, in milliseconds, if time alone can help.
    pub retry_after_ms: Option<u64>,
    /// Who has decided: a stage of the gate, or `admission` behind it.
    pub decided: Option<Box<Decided>>,
}

/// Who has refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// The stage of the gate.
    pub stage: String,
    /// Its rule, by its name or its place.
    pub rule: String,
}

impl Denied {
    /// A refusal without a remedy or a time.
    #[must_use]
    pub fn new(reason: DenyReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), remedy: None, retry_after_ms: None, decided: None }
    }

    /// With what would help.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// With the stage of the gate and its rule.
    #[must_use]
    pub fn decided_by(mut self, stage: impl Into<String>, rule: impl Into<String>) -> Self {
        self.decided = Some(Box::new(Decided { stage: stage.into(), rule: rule.into() }));
        self
    }

    /// With when to try again.
    #[must_use]
    pub fn retry_after(mut self, milliseconds: u64) -> Self {
        self.retry_after_ms = Some(milliseconds);
        self
    }
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DenyReason {
    /// Slots and queue are full.
    Busy,
    /// The daemon is stopping.
    Draining,
    /// No policy of that name.
    UnknownPolicy,
    /// The policy can't be resolved for this request.
    Policy,
    /// The request itself is wrong: argv, environment, cwd, workspace, an override that would widen.
    BadRequest,
    /// No run of that id, or not the caller's.
    UnknownRun,
    /// This peer may not be a client, or no rule permits it what it asks.
    NotPermitted,
    /// This machine or this daemon can't give what the policy demands.
    Unsupported,
    /// The launcher is gone and could not be replaced.
    Unavailable,
    /// Too often.
    RateLimited,
    /// The tool has failed too often of late.
    BreakerOpen,
    /// No tool of that name.
    UnknownTool,
    /// The tool's executable or its file isn't the one that was registered.
    ToolChanged,
    /// The parameters aren't what the tool takes.
    BadParameters,
    /// Nobody has approved it, or somebody has refused.
    NotApproved,
    /// Refused so often that the caller has to wait.
    LockedOut,
    /// What is done can't be recorded.
    AuditUnavailable,
    /// Its caller gave it up before anything was run.
    Cancelled,
}
