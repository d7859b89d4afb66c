//! The stage, and what an operator sees and does of it.

use core::time::Duration;
use std::collections::BTreeMap;

use crate::asked::{Action, Asked, Moment};
use crate::breaker::settings::Settings;
use crate::breaker::snapshot::{Snapshot, Written};
use crate::breaker::tool::{NotYet, Stand, Tool, time};
use crate::refusal::{Reason, Refusal};
use crate::row::{Ending, Stage, StageName};
use crate::verdict::Verdict;

/// The most tools of which something is known.
pub const MAX_TOOLS: usize = 4_096;

/// All breakers: a [`Stage`] that calls of tools go through. All else passes.
#[derive(Debug, Clone, Default)]
pub struct Breakers {
    default: Settings,
    own: BTreeMap<String, Settings>,
    tools: BTreeMap<String, Tool>,
    changes: u64,
}

/// What a breaker does with calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// All pass.
    Closed,
    /// None passes.
    Open,
    /// A few pass: the open time is over.
    HalfOpen,
}

impl State {
    /// What a stand means at a time, and how long nothing passes yet.
    fn of(stand: Stand, now: Duration) -> (Self, Option<Duration>) {
        match stand {
            Stand::Closed => (Self::Closed, None),
            Stand::Open { until } if now < until => (Self::Open, Some(until - now)),
            Stand::Open { .. } | Stand::HalfOpen { .. } => (Self::HalfOpen, None),
        }
    }

    /// Its name in lists.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// A breaker, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The tool.
    pub tool: String,
    /// What it does with calls.
    pub state: State,
    /// How long it lets nothing pass yet.
    pub retry_after: Option<Duration>,
    /// Failures that count.
    pub failures: u32,
    /// Outcomes that count, failures among them.
    pub outcomes: u32,
    /// How often it has opened without having closed.
    pub times: u32,
    /// Probes that run.
    pub probes: usize,
}

impl Breakers {
    /// All closed. `own`: those of tools that have their own.
    #[must_use]
    pub fn new(default: Settings, own: BTreeMap<String, Settings>) -> Self {
        Self { default, own, ..Self::default() }
    }

    /// Other settings from now on. How breakers stand doesn't change.
    pub fn set(&mut self, default: Settings, own: BTreeMap<String, Settings>) {
        (self.default, self.own) = (default, own);
    }

    /// Those of which there is something to say, by name.
    #[must_use]
    pub fn list(&self, at: Moment) -> Vec<Shown> {
        self.tools.iter().filter_map(|(name, tool)| self.shown(name, tool, time(at))).collect()
    }

    /// How those stand of which something is known, by name; all others are closed. Nothing is copied.
    pub fn states(&self, at: Moment) -> impl Iterator<Item = (&str, State)> {
        self.tools.iter().map(move |(name, tool)| (name.as_str(), State::of(tool.stand, time(at)).0))
    }

    fn shown(&self, name: &str, tool: &Tool, now: Duration) -> Option<Shown> {
        let mut tool = tool.clone();
        tool.forget(now, self.settings(name));
        if tool.stand == Stand::Closed && tool.window.len() == 0 {
            return None;
        }
        let (state, retry_after) = State::of(tool.stand, now);
        Some(Shown {
            tool: name.to_owned(),
            state,
            retry_after,
            failures: tool.window.failures(),
            outcomes: tool.window.len(),
            times: tool.times,
            probes: tool.probes(),
        })
    }

    /// Closes a tool's breaker. Whether there was anything to forget.
    pub fn reset(&mut self, tool: &str) -> bool {
        let Some(found) = self.tools.get_mut(tool) else { return false };
        let said = found.stand != Stand::Closed || found.window.len() > 0;
        found.close();
        self.changes += u64::from(said);
        said
    }

    /// Goes up whenever there is something else to be written: as long as it's the same, a snapshot would say the same.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// What is to be written down.
    #[must_use]
    pub fn snapshot(&self, at: Moment) -> Snapshot {
        let written = |(name, tool): (&String, &Tool)| {
            let mut tool = tool.clone();
            tool.forget(time(at), self.settings(name));
            Some((name.clone(), Written::of(&tool, at)?))
        };
        Snapshot::of(self.tools.iter().filter_map(written).collect())
    }

    /// Takes up what was written down, in place of what is known. A half-open breaker is open, and its time is over.
    pub fn restore(&mut self, snapshot: &Snapshot, at: Moment) {
        self.tools.clear();
        for (name, written) in snapshot.tools().take(MAX_TOOLS) {
            let tool = written.tool(at, self.settings(name));
            self.tools.insert(name.to_owned(), tool);
        }
        self.changes += 1;
    }

    fn settings(&self, tool: &str) -> &Settings {
        self.own.get(tool).unwrap_or(&self.default)
    }

    /// A tool's breaker, if there is room for it.
    fn tool(&mut self, name: &str, now: Duration) -> Option<(&mut Tool, Settings)> {
        let settings = *self.settings(name);
        if !self.tools.contains_key(name) {
            if self.tools.len() >= MAX_TOOLS {
                let (own, default) = (&self.own, &self.default);
                self.tools.retain(|name, tool| {
                    tool.forget(now, own.get(name).unwrap_or(default));
                    !tool.is_idle()
                });
            }
            if self.tools.len() >= MAX_TOOLS {
                return None;
            }
            self.tools.insert(name.to_owned(), Tool::default());
        }
        self.tools.get_mut(name).map(|tool| (tool, settings))
    }
}

fn refusal(tool: &str, found: &Tool, not_yet: NotYet, now: Duration) -> Refusal {
    let message = match found.stand {
        Stand::HalfOpen { .. } => {
            format!("tool `{tool}` has failed too often, and is being tried by others just now")
        }
        Stand::Closed | Stand::Open { .. } => format!("tool `{tool}` has failed too often"),
    };
    Refusal::new(StageName::Breaker, Reason::BreakerOpen, format!("breaker of {tool}"), message)
        .remedy(format!(
            "find out why it fails; it's tried again by itself, and `stockade breaker reset {tool}` is for operators"
        ))
        .retry_after(not_yet.until.saturating_sub(now))
}

impl Breakers {
    fn judge_call(&mut self, run: u128, name: &str, at: Moment) -> Result<(), Refusal> {
        let now = time(at);
        let Some((tool, settings)) = self.tool(name, now) else {
            let message = format!("something is known of {MAX_TOOLS} tools, and no more is kept");
            return Err(Refusal::new(StageName::Breaker, Reason::BreakerOpen, "built-in", message));
        };
        let before = tool.stand;
        let judged = tool.judge(run, now, &settings);
        let judged = judged.map_err(|not_yet| refusal(name, tool, not_yet, now));
        let changed = tool.stand != before;
        self.changes += u64::from(changed);
        judged
    }
}

impl Stage for Breakers {
    fn name(&self) -> StageName {
        StageName::Breaker
    }

    fn judge(&mut self, asked: &Asked<'_>) -> Result<Verdict, Refusal> {
        let (Action::Call, Some(name)) = (asked.action, asked.tool) else { return Ok(Verdict::Pass) };
        self.judge_call(asked.run, name, asked.at).map(|()| Verdict::Pass)
    }

    fn take_back(&mut self, asked: &Asked<'_>) {
        if let (Action::Call, Some(name)) = (asked.action, asked.tool)
            && let Some(tool) = self.tools.get_mut(name)
        {
            tool.take_back(asked.run);
        }
    }

    /// A probe that nobody runs would keep the tool from everybody else for as long as somebody thinks.
    fn waits(&mut self, run: u128, tool: Option<&str>) {
        if let Some(tool) = tool.and_then(|name| self.tools.get_mut(name)) {
            tool.take_back(run);
        }
    }

    /// It's judged as what comes now: it may be a probe again, or have to wait for another.
    fn goes_on(&mut self, run: u128, tool: Option<&str>, at: Moment) -> Result<(), Refusal> {
        tool.map_or(Ok(()), |name| self.judge_call(run, name, at))
    }

    fn ended(&mut self, run: u128, tool: Option<&str>, ending: Ending, at: Moment) {
        let Some(name) = tool else { return };
        let Some((tool, settings)) = self.tool(name, time(at)) else { return };
        tool.ended(run, ending, time(at), &settings);
        if tool.is_idle() {
            self.tools.remove(name);
        }
        self.changes += u64::from(ending != Ending::Neither);
    }
}
