//! The gate in the daemon: what its stages are told of a request, and what its client is told of a refusal.
//!
//! The stages themselves are [`stockade_gate`]'s, which know neither sockets nor clocks. A daemon without one lets every request
//! pass that admission permits.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use stockade_gate::{Action, Asked, Ending, Given, Load, Moment, Principal, Reason, Refusal, Row};
use stockade_protocol::denied::{Denied, DenyReason};
use stockade_protocol::launch::Owner;
use stockade_protocol::outcome::Outcome;

/// The row, and what it needs of the daemon.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    row: Row,
}

/// What is asked of the gate.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    /// By whom.
    pub(crate) owner: &'a Owner,
    /// By which process.
    pub(crate) pid: i32,
    /// The policy's name.
    pub(crate) policy: &'a str,
    /// The command line.
    pub(crate) command: &'a [Vec<u8>],
    /// How many runs go on.
    pub(crate) runs: u32,
}

impl Gate {
    /// One with this row.
    #[cfg(test)]
    pub(crate) fn new(row: Row) -> Self {
        Self { row }
    }

    /// Whether it asks anything at all.
    pub(crate) fn is_open(&self) -> bool {
        self.row.is_empty()
    }

    /// Lets a command line pass, or says why not. `uptime`: since the daemon's start.
    ///
    /// # Errors
    /// The first stage's refusal.
    pub(crate) fn judge_run(&mut self, wanted: &Wanted<'_>, uptime: Duration) -> Result<(), Denied> {
        let gids = core::iter::once(wanted.owner.gid).chain(wanted.owner.groups.iter().copied()).collect();
        let (uid, pid) = (wanted.owner.uid, wanted.pid);
        let principal = Principal { uid, gids, pid, unit: None, roles: BTreeSet::new() };
        let asked = Asked {
            at: moment(uptime),
            principal: &principal,
            action: Action::Run,
            policy: Some(wanted.policy),
            tool: None,
            given: Given::Command(wanted.command),
            workspace: None,
            owner: None,
            load: Load { runs: wanted.runs, ..Load::default() },
        };
        self.row.judge(&asked, &BTreeSet::new()).map_err(denied)
    }

    /// What has passed has ended. `tool`: its tool's name.
    pub(crate) fn ended(&mut self, owner: u32, tool: Option<&str>, outcome: &Outcome, uptime: Duration) {
        if !self.is_open() {
            self.row.ended(owner, tool, ending(outcome), moment(uptime));
        }
    }

    /// What has passed never became a run: admission, or the queue, has refused it.
    pub(crate) fn never_began(&mut self, owner: u32, tool: Option<&str>, uptime: Duration) {
        if !self.is_open() {
            self.row.ended(owner, tool, Ending::Neither, moment(uptime));
        }
    }
}

fn moment(uptime: Duration) -> Moment {
    Moment { uptime, wall: SystemTime::now() }
}

/// Whose fault an end is.
fn ending(outcome: &Outcome) -> Ending {
    match outcome {
        Outcome::Exited { code: 0 } => Ending::Success,
        Outcome::Exited { .. }
        | Outcome::Signaled { .. }
        | Outcome::TimedOut { .. }
        | Outcome::MemoryExceeded { .. }
        | Outcome::OutputExceeded { .. }
        | Outcome::ProcessesExceeded { .. } => Ending::Failure,
        _ => Ending::Neither,
    }
}

/// A refusal in a client's words.
fn denied(refusal: Refusal) -> Denied {
    let Refusal { stage, reason, rule, message, remedy, retry_after } = refusal;
    let reason = match reason {
        Reason::LockedOut => DenyReason::LockedOut,
        Reason::RateLimited => DenyReason::RateLimited,
        Reason::BreakerOpen => DenyReason::BreakerOpen,
        Reason::UnknownTool => DenyReason::UnknownTool,
        Reason::ToolChanged => DenyReason::ToolChanged,
        Reason::BadParameters => DenyReason::BadParameters,
        Reason::NotApproved => DenyReason::NotApproved,
        Reason::AuditUnavailable => DenyReason::AuditUnavailable,
        // Also what this daemon has no word for.
        _ => DenyReason::NotPermitted,
    };
    let mut denied = Denied::new(reason, message).decided_by(stage.name(), rule);
    denied.remedy = remedy;
    denied.retry_after_ms = retry_after.map(milliseconds);
    denied
}

/// Rounded up: who comes back after that is let through.
fn milliseconds(after: Duration) -> u64 {
    u64::try_from(after.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use stockade_gate::StageName;
    use stockade_protocol::outcome::{CancelReason, Clock};

    use super::*;

    #[test]
    fn a_refusal_keeps_all_it_says_and_its_time_is_never_too_short() {
        let refusal = Refusal::new(StageName::Rate, Reason::RateLimited, "limits.toml:3", "too often")
            .remedy("ask less")
            .retry_after(Duration::from_micros(1_000_001));
        let denied = denied(refusal);
        assert_eq!(denied.reason, DenyReason::RateLimited);
        assert_eq!((denied.stage.as_deref(), denied.rule.as_deref()), (Some("rate"), Some("limits.toml:3")));
        assert_eq!((denied.message.as_str(), denied.remedy.as_deref()), ("too often", Some("ask less")));
        assert_eq!(denied.retry_after_ms, Some(1_001));
    }

    #[test]
    fn an_end_is_the_tools_fault_or_nobodys() {
        let cancelled = Outcome::Cancelled { reason: CancelReason::ClientGone };
        assert_eq!(ending(&Outcome::Exited { code: 0 }), Ending::Success);
        assert_eq!(ending(&Outcome::Exited { code: 3 }), Ending::Failure);
        assert_eq!(ending(&Outcome::TimedOut { clock: Clock::Wall, limit_ms: 1 }), Ending::Failure);
        for nobodys in [cancelled, Outcome::Lost { reason: "x".into() }] {
            assert_eq!(ending(&nobodys), Ending::Neither);
        }
    }
}
