//! The question at the terminal.
//!
//! What was typed before it was asked is no answer to it: it was meant for something else, or for nothing. So it's thrown away, and
//! nothing of ours reads ahead.

use std::io::IsTerminal as _;
use std::os::fd::AsFd;

use rustix::termios::{QueueSelector, tcflush};
use stockade_protocol::approval::ApprovalSummary;

use super::shown;
use crate::error::CliError;
use crate::out;

/// The longest line that is read as an answer.
const MAX_LINE: usize = 1_024;

/// A person's answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    Yes,
    No(String),
    /// Somebody else shall answer, or nobody.
    Nothing,
    /// Nobody is there any more.
    Gone,
}

/// Whether there is somebody to ask, who sees what he is asked about.
pub(super) fn is_possible() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// Shows a request, and asks about it.
pub(super) fn ask(one: &ApprovalSummary) -> Result<Said, CliError> {
    out::print(shown::whole(one).as_bytes())?;
    let stdin = std::io::stdin();
    tcflush(&stdin, QueueSelector::IFlush)
        .map_err(|errno| CliError::io("throw away what was typed before the question")(errno.into()))?;
    let digits = shown::first_digits(&one.digest);
    let question = format!(
        "approve {digits} (its digest)? y, or n with a reason behind it; nothing: leave it to others > "
    );
    out::print(question.as_bytes())?;
    read(&stdin)
}

/// One line, as the terminal hands it over: in one piece, up to its end. More than that, or several, is no answer.
fn read(terminal: impl AsFd) -> Result<Said, CliError> {
    let mut line = [0; MAX_LINE];
    let read = loop {
        match rustix::io::read(&terminal, &mut line) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other.map_err(|errno| CliError::io("read the answer")(errno.into()))?,
        }
    };
    Ok(if read == 0 { Said::Gone } else { said(&String::from_utf8_lossy(&line[..read])) })
}

/// What a line says: only a plain yes is one.
fn said(line: &str) -> Said {
    let Some(line) = line.strip_suffix('\n').filter(|line| !line.contains('\n')) else {
        return Said::Nothing;
    };
    let line = line.trim();
    let (word, reason) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    match word {
        "y" | "yes" if reason.is_empty() => Said::Yes,
        "n" | "no" => Said::No(reason.trim().to_owned()),
        _ => Said::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_yes_is_one() {
        for yes in ["y\n", "yes\n", " y \n"] {
            assert_eq!(said(yes), Said::Yes);
        }
        assert_eq!(said("n not now\n"), Said::No("not now".into()));
        assert_eq!(said("no\n"), Said::No(String::new()));
        for nothing in ["", "\n", "y", "Y es\n", "yy\n", "y but\n", "approve\n", "1\n", "y\ny\n", "\ny\n"] {
            assert_eq!(said(nothing), Said::Nothing, "{nothing}");
        }
    }
}
