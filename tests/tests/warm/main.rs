//! Warm runs: what a spare worker gives to the run that gets it is what a worker made for it would have given, and
//! nothing of an earlier run or of another owner.
//!
//! Every test has daemons of its own, whose counts of hits and misses prove that the runs it speaks of were warm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests start programs and wait for them")]

mod channels;
mod deaths;
mod ends;
mod foundation;
mod hits;
mod host;
mod memory;
mod network;
mod stage;
