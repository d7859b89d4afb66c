//! The `bench` binary; see the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    stockade_bench::main(std::env::args_os().skip(1).collect())
}
