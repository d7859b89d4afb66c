//! `stockade kill`: ends runs, or sends them a signal.

use std::path::PathBuf;
use std::str::FromStr;

use nix::sys::signal::Signal;
use stockade_client::{Client, ClientError};
use stockade_protocol::client::ServerMessage;
use stockade_protocol::{ExecId, client::ClientMessage};

use crate::error::CliError;
use crate::{exit, out, place, runs, words};

const EXAMPLES: &str = "Examples:
  stockade kill 774b                  the run whose id ends (or begins) so: the whole tree, at once
  stockade kill --signal INT 774b     SIGINT to the command's process group
  stockade kill --all";

/// Ends runs: each with its whole tree, at once.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Ids, or a part of the beginning or end that only one run has
    #[arg(value_name = "RUN", required_unless_present = "all")]
    runs: Vec<String>,
    /// All your runs that wait or go on
    #[arg(long, conflicts_with = "runs")]
    all: bool,
    /// Send this signal to the command's process group instead (INT, SIGINT or 2)
    #[arg(short, long, value_name = "SIGNAL", value_parser = signal)]
    signal: Option<u8>,
    /// The daemon's socket
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

pub(crate) fn kill(arguments: &Arguments) -> Result<u8, CliError> {
    let mut client = place::need("kill", arguments.socket.as_deref())?;
    let mut targets = Vec::new();
    if arguments.all {
        let live = client.list()?.into_iter();
        let live = live.filter(|run| !matches!(run.state, stockade_client::RunState::Ended { .. }));
        targets.extend(live.map(|run| run.exec_id));
    }
    let mut status = 0;
    for text in &arguments.runs {
        match runs::find(&mut client, text) {
            Ok(exec_id) => targets.push(exec_id),
            Err(error @ CliError::Asked(_)) => {
                out::complain(&format!("stockade: {error}"));
                status = exit::FAILED;
            }
            Err(error) => return Err(error),
        }
    }
    for exec_id in targets {
        if let Some(refused) = ask(&mut client, exec_id, arguments.signal)? {
            out::complain(&format!("stockade: {exec_id}: {refused}"));
            status = exit::FAILED;
        }
    }
    Ok(status)
}

/// Sends it, and waits until it's taken. A refusal is answered in order, so it comes before the answer to a question
/// that is asked afterwards.
fn ask(client: &mut Client, exec_id: ExecId, signal: Option<u8>) -> Result<Option<String>, CliError> {
    match signal {
        Some(signal) => client.signal(exec_id, signal)?,
        None => client.cancel(exec_id)?,
    }
    client.ask(&ClientMessage::List)?;
    loop {
        match client.receive(Some(Client::ANSWER_WITHIN))? {
            ServerMessage::Denied { exec_id: Some(of), denied, .. } if of == exec_id => {
                // The answer to the question still comes; it isn't wanted.
                while !matches!(client.receive(Some(Client::ANSWER_WITHIN))?, ServerMessage::Runs(_)) {}
                return Ok(Some(words::denied(&denied)));
            }
            ServerMessage::Runs(_) => return Ok(None),
            ServerMessage::Error(error) => return Err(ClientError::Refused(error).into()),
            _ => {}
        }
    }
}

/// A signal by name, with or without `SIG`, or by number.
fn signal(text: &str) -> Result<u8, String> {
    if let Ok(number) = text.parse::<u8>() {
        return if (1..=64).contains(&number) { Ok(number) } else { Err("expected 1 to 64".into()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    let signal =
        Signal::from_str(&name).map_err(|_| "expected a name like INT or SIGTERM, or a number".to_owned())?;
    u8::try_from(signal as i32).map_err(|_| "no such signal".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_a_name_or_a_number() {
        for text in ["INT", "sigint", "SIGINT", "2"] {
            assert_eq!(signal(text), Ok(2), "{text}");
        }
        assert_eq!(signal("64"), Ok(64));
        for text in ["0", "65", "256", "-1", "", "SIG", "FROB"] {
            assert!(signal(text).is_err(), "{text}");
        }
    }
}
