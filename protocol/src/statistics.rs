//! Statistics: what runs came to, by tool, policy and principal.

use serde::{Deserialize, Serialize};

use crate::client::{BreakerState, Count};

/// Which rows of the statistics are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatisticsQuestion {
    /// Of what; none: of all that the caller may see.
    pub by: Option<StatisticsBy>,
    /// Of this name only: a tool's, a policy's, or a user's id in digits. Goes with `by`.
    pub name: Option<String>,
    /// Since when, in seconds since the epoch. What is kept an hour or a day together counts as a whole.
    pub since_s: u64,
}

/// Of what there are rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum StatisticsBy {
    /// Tools that were called.
    Tool,
    /// Policies that runs were under, those of tools too.
    Policy,
    /// Users who asked.
    Principal,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatisticsReport {
    /// When the first stretch of time begins that is in it, in seconds since the epoch; none: there is nothing.
    pub from_s: Option<u64>,
    /// When it was made.
    pub to_s: u64,
    /// By what they are of, and then the ones with the most runs first.
    pub rows: Vec<StatisticsRow>,
    /// Rows that didn't fit: those with the fewest runs.
    pub left_out: u64,
    /// Why what is counted isn't on disk now, if it isn't.
    pub unwritten: Option<String>,
}

/// One tool, policy or principal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatisticsRow {
    /// Of what.
    pub by: StatisticsBy,
    /// Which; `(other)` and `(unknown)` stand for several.
    pub name: String,
    /// Runs that ended.
    pub runs: u64,
    /// How they ended: `ok`, `failed`, `timed-out` and others, those that there were.
    pub outcomes: Vec<Count>,
    /// Requests that were denied, by the stage that did: `rate`, `breaker` and others, those that there were.
    pub denials: Vec<Count>,
    /// How long commands ran, in microseconds; none: no run is known to have begun and ended.
    pub wall_us: Option<Spread>,
    /// Peaks of their memory, in bytes.
    pub memory: Option<Spread>,
    /// How a tool's circuit breaker stands now; none: closed, or no tool.
    pub breaker: Option<BreakerState>,
    /// How long a principal's limit in all lets nothing pass now, in milliseconds; none: something passes, or no principal.
    pub limited_ms: Option<u64>,
}

/// How a figure is spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// Of how many runs.
    pub count: u64,
    /// The mean.
    pub mean: u64,
    /// Half are below it, within one percent.
    pub p50: u64,
    /// 99 of 100 are below it, within one percent.
    pub p99: u64,
    /// The greatest.
    pub max: u64,
}
