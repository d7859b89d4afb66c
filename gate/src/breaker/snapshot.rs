//! How breakers stand, as it's written down: by the calendar, since uptime ends with the daemon.

use core::time::Duration;
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::asked::Moment;
use crate::breaker::settings::{MOST_OUTCOMES, Settings};
use crate::breaker::tool::{Stand, Tool, time};

/// The version that is written, and the newest that is read.
pub const VERSION: u32 = 1;
/// The longest text that is read, in bytes: as many tools as there may be, with as many outcomes each as are kept.
pub const LARGEST: u64 = 32 * 1024 * 1024;

/// All breakers of which there is something to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    version: u32,
    tools: BTreeMap<String, Written>,
}

/// One tool's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    open: Option<Open>,
    /// How often it has opened without having closed.
    times: u32,
    /// When outcomes were, in milliseconds since 1970, the oldest first, and whether they were failures.
    outcomes: Vec<(u64, bool)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Open {
    /// In milliseconds since 1970, rounded up.
    until: u64,
}

/// Why a text says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// A newer daemon has written it: its version.
    Newer(u32),
    /// It isn't what was written.
    Text(String),
}

/// The version alone, whatever else there is.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl Default for Snapshot {
    /// Nothing to say.
    fn default() -> Self {
        Self::of(BTreeMap::new())
    }
}

impl Snapshot {
    pub(super) fn of(tools: BTreeMap<String, Written>) -> Self {
        Self { version: VERSION, tools }
    }

    pub(super) fn tools(&self) -> impl Iterator<Item = (&str, &Written)> {
        self.tools.iter().map(|(name, written)| (name.as_str(), written))
    }

    /// Reads what was written.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &[u8]) -> Result<Self, Damage> {
        let damaged = |error: serde_json::Error| Damage::Text(error.to_string());
        if text.len() as u64 > LARGEST {
            return Err(Damage::Text(format!("it's over {LARGEST} bytes")));
        }
        let Versioned { version } = serde_json::from_slice(text).map_err(damaged)?;
        if version > VERSION {
            return Err(Damage::Newer(version));
        }
        serde_json::from_slice(text).map_err(damaged)
    }

    /// How many tools it has something of.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tools.len()
    }

    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tools.is_empty()
    }
}

impl Written {
    /// `None`: there is nothing to say of it.
    pub(super) fn of(tool: &Tool, at: Moment) -> Option<Self> {
        let open = match tool.stand {
            Stand::Closed => None,
            Stand::Open { until } => Some(Open { until: milliseconds(at, until) }),
            Stand::HalfOpen { .. } => Some(Open { until: milliseconds(at, time(at)) }),
        };
        let outcomes =
            tool.window.outcomes().map(|(when, failure)| (milliseconds(at, when), failure)).collect();
        let written = Self { open, times: tool.times, outcomes };
        (written.open.is_some() || !written.outcomes.is_empty()).then_some(written)
    }

    /// What it means now. Where the clock was set back meanwhile, a breaker is open no longer than all of its open time, and an
    /// outcome of the future is one of now.
    pub(super) fn tool(&self, at: Moment, settings: &Settings) -> Tool {
        let most = usize::try_from(MOST_OUTCOMES).unwrap_or(usize::MAX);
        if let Some(open) = self.open {
            let times = self.times.max(1);
            let left = signed(at, open.until).unwrap_or_default().min(settings.open_for(times));
            return Tool::standing(Stand::Open { until: time(at) + left }, times);
        }
        let mut tool = Tool::standing(Stand::Closed, 0);
        for (when, failure) in self.outcomes.iter().rev().take(most).rev() {
            let age = signed(at, *when).err().unwrap_or_default();
            if age < settings.window {
                tool.window.add(time(at).saturating_sub(age), *failure, settings);
            }
        }
        tool
    }
}

/// A time of breakers' by the calendar, rounded up to a millisecond.
fn milliseconds(at: Moment, when: Duration) -> u64 {
    let wall = at.wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = time(at);
    let wall = if when >= now { wall.saturating_add(when - now) } else { wall.saturating_sub(now - when) };
    u64::try_from(wall.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// How long until a time of the calendar, or how long since.
fn signed(at: Moment, milliseconds: u64) -> Result<Duration, Duration> {
    let then = UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds)).unwrap_or(SystemTime::UNIX_EPOCH);
    then.duration_since(at.wall).map_err(|error| error.duration())
}
