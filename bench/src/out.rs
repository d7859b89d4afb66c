//! Whole texts on standard output, and notes on standard error.

use std::io::{ErrorKind, Write};

use crate::error::BenchError;

/// Prints. A reader that has left is no error of ours.
pub(crate) fn print(text: &str) -> Result<(), BenchError> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(BenchError::io("write standard output")(error))
        }
        _ => Ok(()),
    }
}

/// Says on standard error. That it can't be written has no better place to go.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
