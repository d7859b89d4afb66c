//! How the gate stands, for whoever asks: tools, the limiter, breakers, and what callers of tools often get wrong.

use std::time::Duration;

use stockade_gate::breaker::{Shown, State};
use stockade_gate::rate::{Pressure, Status};
use stockade_protocol::bounds::MAX_OFTEN_WRONG;
use stockade_protocol::client::{BreakerState, BreakerSummary, LimitPressure, LimiterReport, OftenWrong};
use stockade_protocol::denied::{Denied, DenyReason};

use super::{Gate, milliseconds, moment};

/// How many breakers stand how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Breaking {
    /// Of tools that are loaded.
    pub(crate) closed: usize,
    pub(crate) open: usize,
    pub(crate) half_open: usize,
}

impl Gate {
    /// The breakers of which there is something to say, by name: those of tools that aren't loaded any more among them.
    pub(crate) fn breakers(&self, uptime: Duration) -> Vec<BreakerSummary> {
        let breakers = self.breakers.borrow();
        breakers.list(moment(uptime)).into_iter().map(summary).collect()
    }

    /// Closes a tool's breaker; whether there was anything to forget. It's written down as any other change.
    ///
    /// # Errors
    /// `UnknownTool`: none of that name is loaded, and nothing is known of one that was.
    pub(crate) fn reset_breaker(&mut self, tool: &str) -> Result<bool, Denied> {
        let changed = self.breakers.borrow_mut().reset(tool);
        self.tell_changes();
        if changed {
            return Ok(true);
        }
        match self.tools.get(tool) {
            Ok(_) => Ok(false),
            Err(unknown) => Err(Denied::new(DenyReason::UnknownTool, unknown.to_string())
                .remedy("`stockade breaker list` has those of which something is known")),
        }
    }

    /// How many breakers stand how. An open one counts whether its tool is loaded or not: it's open when that comes back.
    pub(crate) fn breaking(&self, uptime: Duration) -> Breaking {
        let breakers = self.breakers.borrow();
        let mut breaking = Breaking { closed: self.tools.tools().len(), open: 0, half_open: 0 };
        for (name, state) in breakers.states(moment(uptime)) {
            match state {
                State::Closed => continue,
                State::Open => breaking.open += 1,
                State::HalfOpen => breaking.half_open += 1,
            }
            breaking.closed -= usize::from(self.tools.find(name).is_some());
        }
        breaking
    }

    /// How the limiter stands, by the machine as it is now; `None`: nobody has ever said how often. `runs`: how many go on.
    pub(crate) fn limiter(&mut self, uptime: Duration, runs: u32) -> Option<LimiterReport> {
        let _told = self.load(uptime, runs);
        let Status { share, pressure, keys } = self.limiter.as_ref()?.borrow().status();
        let pressure = match pressure {
            Pressure::Calm => LimitPressure::Calm,
            Pressure::Between => LimitPressure::Between,
            Pressure::High => LimitPressure::High,
        };
        Some(LimiterReport { share, pressure, keys: keys as u64 })
    }

    /// How long the limit on all that a user asks for lets nothing of his pass, in milliseconds; `None`: something passes. `runs`: how
    /// many go on.
    pub(crate) fn limited(&mut self, uid: u32, uptime: Duration, runs: u32) -> Option<u64> {
        let load = self.load(uptime, runs);
        let waits = self.limiter.as_ref()?.borrow_mut().waits(uid, uptime, &load)?;
        Some(milliseconds(waits))
    }

    /// What callers of tools get wrong most often.
    pub(crate) fn often_wrong(&self) -> Vec<OftenWrong> {
        let validate = self.validate.borrow();
        let often = validate.often_wrong().into_iter().take(MAX_OFTEN_WRONG);
        often
            .map(|one| OftenWrong { tool: one.tool.to_owned(), rule: one.rule.to_owned(), count: one.count })
            .collect()
    }
}

fn summary(shown: Shown) -> BreakerSummary {
    BreakerSummary {
        tool: shown.tool,
        state: match shown.state {
            State::Closed => BreakerState::Closed,
            State::Open => BreakerState::Open,
            State::HalfOpen => BreakerState::HalfOpen,
        },
        retry_after_ms: shown.retry_after.map(milliseconds),
        failures: shown.failures,
        outcomes: shown.outcomes,
        opened: shown.times,
        probes: u32::try_from(shown.probes).unwrap_or(u32::MAX),
    }
}
