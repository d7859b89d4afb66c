//! How often: one principal and one tool (or one policy, of plain runs), and one principal in all.
//!
//! ```text
//! load ──> pace: a clock that goes slower while the machine is busy
//!            │
//! asked ──> limits: which hold for whom ──> cells: two are looked at, and both are charged, or neither
//! ```
//!
//! The algorithm is GCRA (ATM Forum, Traffic Management 4.0, 4.4.2): a cell is the time at which all that was let through is
//! paid for, one number, and a request passes if that time is near enough. All of it is whole numbers of nanoseconds, so
//! `retry_after` is exact: a nanosecond earlier it's refused, and then it passes, if nothing else is asked for until then and the
//! machine stays as busy as it is.
//!
//! Adaptive limits are the same cells on another clock. Were a limit itself changed, a cell that's nearly full would at once be
//! nearly empty by the new measure; a clock that goes slower takes nothing from anybody and gives nothing.
//!
//! The crate `governor` isn't used: a limiter of it has one quota for all keys, and for ever; a cell can't be looked at without
//! being charged, so that two can't be charged together; and nothing of it can be given a slower clock for a while. Decisions of
//! this one and of that one for a fixed quota were compared when this was written: docs/limits.md has the figures.
//!
//! What a request has paid with isn't given back when a later stage refuses it: whoever floods the gate with requests that are no
//! good must be stopped here, before validation has to look at each of them.
//!
//! Reading order: `quota`, `pace`, `cells`, `limits`, `stage`, `file`.

mod cells;
mod file;
mod limits;
mod pace;
mod quota;
mod stage;
#[cfg(test)]
mod tests;

pub use cells::MAX_KEYS;
pub use file::{FILE, Limited, Named, read};
pub use limits::{Limits, Stated, Tier};
pub use pace::{Adaptive, Pressure};
pub use quota::{Limit, Quota, RATE_EXPECTED};
pub use stage::{Limiter, Status};
