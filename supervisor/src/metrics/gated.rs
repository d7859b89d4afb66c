//! What is counted of the gate: refusals by stage, calls by tool, and what deciding and recording take.

use std::collections::HashMap;
use std::time::Duration;

use prometheus::{Error, Histogram, IntCounter, IntCounterVec};
use stockade_gate::StageName;
use stockade_gate::approve::Opinion;
use stockade_protocol::approval::ApprovalEnd;
use stockade_protocol::denied::{Denied, DenyReason};
use stockade_protocol::outcome::Outcome;

use super::figures::{Make, Outcomes, outcomes_of};
use super::labels::{self, APPROVAL_ENDS, OTHER, REASONS};
use super::table;
use crate::admission;

/// Tools that have series of their own; calls of those after them are counted together, without a name.
pub(super) const TOOLS: usize = 200;

/// What stages refuse for. Each has its series from the start.
const USUAL: [(StageName, DenyReason); 9] = [
    (StageName::Access, DenyReason::NotPermitted),
    (StageName::Access, DenyReason::LockedOut),
    (StageName::Rate, DenyReason::RateLimited),
    (StageName::Breaker, DenyReason::BreakerOpen),
    (StageName::Validate, DenyReason::UnknownTool),
    (StageName::Validate, DenyReason::ToolChanged),
    (StageName::Validate, DenyReason::BadParameters),
    (StageName::Approve, DenyReason::NotApproved),
    (StageName::Record, DenyReason::AuditUnavailable),
];

/// What happens to a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GrantEvent {
    Given,
    Revoked,
    Redeemed,
    EndedRun,
}

impl GrantEvent {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Given, "given"),
        (Self::Revoked, "revoked"),
        (Self::Redeemed, "redeemed"),
        (Self::EndedRun, "ended-run"),
    ];
}

/// A counter for each of them, in their order.
fn grants_of(counters: &IntCounterVec) -> Result<[IntCounter; GrantEvent::ALL.len()], Error> {
    let [given, revoked, redeemed, ended] =
        GrantEvent::ALL.map(|(_, word)| counters.get_metric_with_label_values(&[word]));
    Ok([given?, revoked?, redeemed?, ended?])
}

/// What reviewer programs say.
const OPINIONS: [&str; 3] = ["yes", "no", "nothing"];

/// A counter for each of them, in their order.
fn reviews_of(counters: &IntCounterVec) -> Result<[IntCounter; OPINIONS.len()], Error> {
    let [yes, no, nothing] = OPINIONS.map(|word| counters.get_metric_with_label_values(&[word]));
    Ok([yes?, no?, nothing?])
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Gated {
    refusals: IntCounterVec,
    passed: Histogram,
    refused: Histogram,
    lag: Histogram,
    approvals: IntCounterVec,
    approved_after: Histogram,
    grants: [IntCounter; GrantEvent::ALL.len()],
    reviews: [IntCounter; OPINIONS.len()],
    calls: IntCounterVec,
    tools: HashMap<String, Outcomes>,
    /// Of tools that aren't loaded, or beyond the bound.
    nameless: Outcomes,
}

impl Gated {
    pub(super) fn new(make: &Make) -> Result<Self, Error> {
        let refusals = make.counters(&table::GATE_REFUSALS)?;
        for (stage, reason) in USUAL {
            let words = [stage.name(), REASONS[labels::reason(&reason)]];
            let _from_the_start: IntCounter = refusals.get_metric_with_label_values(&words)?;
        }
        let approvals = make.counters(&table::APPROVALS)?;
        for word in APPROVAL_ENDS.iter().filter(|word| **word != OTHER) {
            let _from_the_start: IntCounter = approvals.get_metric_with_label_values(&[word])?;
        }
        let calls = make.counters(&table::TOOL_CALLS)?;
        let times = make.histograms(&table::GATE_TIME)?;
        Ok(Self {
            refusals,
            approvals,
            approved_after: make.histogram(&table::APPROVAL_WAIT)?,
            passed: times.get_metric_with_label_values(&["passed"])?,
            refused: times.get_metric_with_label_values(&["refused"])?,
            lag: make.histogram(&table::AUDIT_LAG)?,
            grants: grants_of(&make.counters(&table::GRANT_EVENTS)?)?,
            reviews: reviews_of(&make.counters(&table::REVIEWS)?)?,
            nameless: outcomes_of(&calls, "")?,
            calls,
            tools: HashMap::new(),
        })
    }

    /// Gives tools their series, as long as there are any.
    pub(super) fn know<'a>(&mut self, tools: impl IntoIterator<Item = &'a str>) {
        for tool in tools {
            if self.tools.len() >= TOOLS {
                return;
            }
            if !self.tools.contains_key(tool)
                && let Ok(outcomes) = outcomes_of(&self.calls, tool)
            {
                self.tools.insert(tool.to_owned(), outcomes);
            }
        }
    }

    /// The row has let a request pass, or refused it.
    pub(crate) fn judged(&self, passed: bool, took: Duration) {
        if passed { &self.passed } else { &self.refused }.observe(took.as_secs_f64());
    }

    /// What waited for an approval waits no more.
    pub(crate) fn approval_over(&self, how: ApprovalEnd) {
        match self.approvals.get_metric_with_label_values(&[labels::approval_word(how)]) {
            Ok(count) => count.inc(),
            Err(error) => tracing::error!(%error, "an approval can't be counted"),
        }
    }

    /// Enough people have approved what has waited so long.
    pub(crate) fn approved_after(&self, waited: Duration) {
        self.approved_after.observe(waited.as_secs_f64());
    }

    /// A reviewer program has said something, or won't any more.
    pub(crate) fn reviewed(&self, opinion: Opinion) {
        let [yes, no, nothing] = &self.reviews;
        match opinion {
            Opinion::Yes => yes.inc(),
            Opinion::No => no.inc(),
            Opinion::Open | Opinion::Nothing => nothing.inc(),
        }
    }

    /// A request has become durable.
    pub(crate) fn recorded(&self, took: Duration) {
        self.lag.observe(took.as_secs_f64());
    }

    /// Something happened to a grant.
    pub(crate) fn granted(&self, event: GrantEvent) {
        let counters = GrantEvent::ALL.iter().zip(&self.grants);
        counters.filter(|((of, _), _)| *of == event).for_each(|(_, counter)| counter.inc());
    }

    /// A call is over; `tool`: of which tool, if that is loaded.
    pub(crate) fn called(&mut self, tool: Option<&String>, outcome: &Outcome) {
        self.know(tool.map(String::as_str));
        let outcomes = tool.and_then(|tool| self.tools.get(tool)).unwrap_or(&self.nameless);
        outcomes[labels::outcome(outcome)].inc();
    }

    /// A message was denied, and counts here if it was the gate that decided, not admission behind it. Both labels are words of ours.
    pub(super) fn denied(&self, denied: &Denied) {
        let Some(decided) = denied.decided.as_ref().filter(|decided| decided.stage != admission::STAGE)
        else {
            return;
        };
        let stage = StageName::ALL.into_iter().map(StageName::name).find(|name| *name == decided.stage);
        let words = [stage.unwrap_or(OTHER), REASONS[labels::reason(&denied.reason)]];
        match self.refusals.get_metric_with_label_values(&words) {
            Ok(count) => count.inc(),
            Err(error) => tracing::error!(%error, "a refusal can't be counted"),
        }
    }
}
