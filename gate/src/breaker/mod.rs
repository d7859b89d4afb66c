//! Circuit breakers: a tool that keeps failing isn't called for a while.
//!
//! ```text
//!            too many failures                    the time is over
//!  closed ───────────────────────> open ─────────────────────────────> half-open: a few probes at once
//!    ^                              ^                                    │     │
//!    │                              └── a probe failed: twice as long ───┘     │
//!    └──────────────── enough of them succeeded ──────────────────────────────┘
//! ```
//!
//! What counts is how tools end: by their own fault, or well. A refusal, a cancelled run and bad input are nobody's failure. A
//! breaker closes because a run has succeeded, never because one was begun or because the daemon was started again: how
//! breakers stand is written down ([`snapshot`]).
//!
//! While it's closed every end counts, while it's half-open those of its probes, which it knows by their runs' numbers. A probe
//! whose end nobody tells (lost with its launcher) is forgotten after a time, and its place is free again: that time has to be
//! longer than a run of the tool can last, or there may be one probe more at once for each that outlasts it. Which probes run
//! isn't written down: a restart in a half-open time lets as many again begin.
//!
//! Pure: times come with what is asked, those of uptime; the calendar's only for what is written, where a clock that was set
//! can make a breaker open earlier, but never for longer than it was going to be open in all.
//!
//! Reading order: `settings`, `window`, `tool`, `stage`, [`snapshot`].

mod settings;
pub mod snapshot;
mod stage;
#[cfg(test)]
mod tests;
mod tool;
mod window;

pub(crate) use settings::{BREAKER_KEYS, read};
pub use settings::{MOST_OUTCOMES, Settings};
pub use snapshot::Snapshot;
pub use stage::{Breakers, MAX_TOOLS, Shown, State};
