//! The gate: what stands between a request and a run.
//!
//! ```text
//! asked ──> access ──> rate ──> breaker ──> validate ──> approve ──> record ──> run
//!              │          │         │            │           ├──> Verdict: it passes, or somebody is asked first
//!              └──────────┴─────────┴────────────┴───────────┴──> Refusal: stage, rule, reason, remedy, when to try again
//! ```
//!
//! Each stage is a file of its own with one signature ([`Stage`]), and fails closed: what it can't decide it refuses. It has
//! neither a clock nor a socket: what it has to know of the world comes with what is [`Asked`], and what it has to keep is
//! written by whoever owns it. So every promise of it can be tried by random histories.
#![forbid(unsafe_code)]

pub mod access;
pub mod approve;
pub mod asked;
pub mod breaker;
pub mod grants;
pub mod rate;
pub mod redact;
pub mod refusal;
pub mod row;
pub mod tools;
pub mod validate;
pub mod verdict;

pub use asked::{Action, Asked, Given, Load, Moment, Principal, Thing};
pub use refusal::{Reason, Refusal};
pub use row::{Ending, Row, Stage, StageName};
pub use verdict::{Ask, Factor, Verdict};
