//! What strangers send, tried with any bytes: each target is a plain function that takes some and returns, or panics where a
//! promise is broken.
//!
//! The same functions are called by the fuzzer (`main.rs`, by `fuzz/run.sh`), which looks for bytes that get further than
//! those it has, and by `tests/replay.rs`, an ordinary test, with every file of `corpus/` and `crashes/`.
//!
//! That nothing panics is the least of it: what is decoded encodes to the bytes that came, what two ways of reading find is
//! the same, an explanation is what enforces, nothing a request says widens anything, and what is held in memory is
//! bounded by what came ([`held`]). Nothing here looks at a clock.
//!
//! Reading order: [`held`], [`shown`], then a target a file.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests: a panic is what they find with"
)]

mod agreement;
mod audit_record;
mod client_frames;
mod command_line;
mod configuration;
mod filters;
pub mod held;
mod json;
mod jsonrpc;
mod launch_messages;
mod policy_rules;
mod policy_text;
mod requests;
pub mod shown;
mod texts;
mod tools;

// The binary has no library; these files of it stand alone.
#[path = "../../src/run/arguments.rs"]
mod arguments;
#[path = "../../src/escape.rs"]
mod escape;
#[path = "../../src/units.rs"]
mod units;

/// Something that reads what strangers send.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and its folder's below `corpus/` and `crashes/`.
    pub name: &'static str,
    /// Tries some bytes.
    pub run: fn(&[u8]),
    /// The most bytes that the fuzzer tries.
    pub longest: usize,
}

/// All of them.
pub const TARGETS: [Target; 13] = [
    Target { name: "audit_record", run: audit_record::run, longest: 4096 },
    Target { name: "client_frames", run: client_frames::run, longest: 4096 },
    Target { name: "command_line", run: command_line::run, longest: 256 },
    Target { name: "configuration", run: configuration::run, longest: 2048 },
    Target { name: "filters", run: filters::run, longest: 2048 },
    Target { name: "json", run: json::run, longest: 4096 },
    Target { name: "jsonrpc", run: jsonrpc::run, longest: 4096 },
    Target { name: "launch_messages", run: launch_messages::run, longest: 8192 },
    Target { name: "policy_rules", run: policy_rules::run, longest: 512 },
    Target { name: "policy_text", run: policy_text::run, longest: 2048 },
    Target { name: "requests", run: requests::run, longest: 1024 },
    Target { name: "texts", run: texts::run, longest: 9216 },
    Target { name: "tools", run: tools::run, longest: 4096 },
];
