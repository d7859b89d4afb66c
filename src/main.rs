//! The `stockade` binary: which process this is, and the command line.
//!
//! The role is chosen before anything else happens, and before any thread could start: a launcher, a template, an
//! opener, a relay, a monitor ([`stockade_worker::run_role`]); else a person's or a program's subcommand ([`cli`]).
//!
//! Reading order: `cli`, `run`, `daemon` and `embedded` with `link` (the two ways of running), `follow` (what is seen of a run),
//! then a file a subcommand; `logging` and `journal` are the daemon's.
#![forbid(unsafe_code)]

mod access;
mod approve;
mod attach;
mod audit;
mod breaker;
mod canary;
mod cli;
mod color;
mod completions;
mod config;
mod config_check;
mod daemon;
mod doctor;
mod embedded;
mod error;
mod escape;
mod exit;
mod file_page;
mod follow;
mod grant;
mod hiding;
mod ids;
mod journal;
mod json;
mod kill;
mod link;
mod logging;
mod logs;
mod man;
mod out;
mod place;
mod policy;
mod ps;
mod reload;
mod run;
mod runs;
mod serve;
mod signals;
mod sink;
mod sources;
mod stats;
mod status;
mod table;
mod tool;
mod trial;
mod units;
mod wait;
mod words;

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some((first, rest)) = words.split_first() {
        if let Some(ended) = stockade_worker::run_role(first, rest) {
            return ended;
        }
        if first == canary::ROLE {
            return canary::run(rest);
        }
    }
    cli::main(words)
}
