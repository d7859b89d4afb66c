//! `cargo bench -p bench`: the same as `bench all`, with the arguments that follow `--`.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    stockade_bench::main_of_cargo_bench(std::env::args_os().skip(1).collect::<Vec<OsString>>())
}
