//! Runs outlive their supervisor: it's killed, stopped or replaced, and the next one has them, whole.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests start programs and wait for them")]

mod follower;
mod kills;
mod launchers;
mod runs;
mod silent;
mod uids;
mod upgrade;
