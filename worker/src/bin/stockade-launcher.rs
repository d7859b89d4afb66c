//! The launcher alone, for the privileged unit: the same code as `stockade launcher`, without the rest.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let role = arguments.next().unwrap_or_else(|| "launcher".into());
    let rest: Vec<_> = arguments.collect();
    // No role of that name: nothing to say to whom, since descriptor 0 isn't a channel then.
    stockade_worker::run_role(&role, &rest).unwrap_or(ExitCode::FAILURE)
}
