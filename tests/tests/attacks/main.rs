//! Attacks in pairs: each is stopped inside under every policy that promises it, in every mode, cold and warm, and possible
//! where the layers are missing that stop it; each layer that the table names stops it alone. All by the same probe.
//!
//! All attacks of a policy are tried in one run, each in a process of its own; a test fails with every attack that got
//! through. An attack that the machine itself refuses everywhere proves nothing here: its twin is said by name.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests start programs and wait for them")]

mod alone;
mod between;
mod inside;
mod left_behind;
mod mounted;
mod needs;
mod page;
mod pairs;
mod stage;
mod table;
mod tries;
