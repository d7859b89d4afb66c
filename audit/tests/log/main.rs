//! The record as its callers see it: what is written and killed, cut and changed, and what is said of that.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod copies;
mod full;
mod ground;
mod kept;
mod killed;
mod paging;
mod tampering;
mod writing;
