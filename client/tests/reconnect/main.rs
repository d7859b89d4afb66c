//! Connections that break, against supervisors that come and go. Most tests pass the time in themselves, so that
//! half a minute takes none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod asks;
mod breaks;
mod looped;
mod returns;
#[path = "../script/mod.rs"]
mod script;
