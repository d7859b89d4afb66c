//! Whole texts on our own standard output.

use std::io::{ErrorKind, Write};

use crate::error::CliError;

/// What a program exits with that SIGPIPE ended.
const PIPE_GONE: u8 = 128 + 13;

/// Prints, and says with what to exit: 0, or as if SIGPIPE had ended us where the reader has left.
pub(crate) fn print(bytes: &[u8]) -> Result<u8, CliError> {
    print_with(bytes, 0)
}

/// As [`print()`], with another status where all went well.
pub(crate) fn print_with(bytes: &[u8], status: u8) -> Result<u8, CliError> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(status),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(PIPE_GONE),
        Err(source) => Err(CliError::Io { doing: "write standard output".into(), source }),
    }
}

/// Complains on standard error. That it can't be written has no better place to go.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
