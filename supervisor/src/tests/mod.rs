//! The daemon as a whole, between real clients on a real socket and a launcher that a script plays.
//!
//! `stage` has the daemon in a thread, the client and the scripted launcher, `said` what that thread logs; the others have one subject each.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "tests"
)]

mod accepted;
mod access;
mod adoption;
mod approvals;
mod approved;
mod breakers;
mod dead;
mod flow;
mod gate;
mod gated;
mod given_up;
mod granted;
mod grants;
mod hostile;
mod input;
mod life;
mod metrics;
mod opened;
mod promised;
mod reading;
mod record;
mod recorded;
mod redacted;
mod reload;
mod reviewers;
mod said;
mod service;
mod specs;
mod stage;
mod statistics;
mod traces;
