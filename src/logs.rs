//! `stockade logs`: what is kept of a run's output.
//!
//! On a terminal, what a terminal would obey is escaped (the output is a stranger's); in a pipe or a file every
//! byte is as it was.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use stockade_client::{Client, ClientError, ExecEvent, RunEvent, Stream};
use stockade_protocol::ExecId;

use crate::color::Paint;
use crate::daemon::PAUSE_TOLD_AFTER;
use crate::error::CliError;
use crate::{escape, follow, json, out, place, runs};

const EXAMPLES: &str = "Examples:
  stockade logs 774b              what is kept so far
  stockade logs --follow 774b     and what comes, until the run ends
  stockade logs 774b > log        every byte as it was";

/// Prints a run's output as far as it's kept. The run is left alone.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Its id, or a part of the beginning or end that only one run has
    #[arg(value_name = "RUN")]
    run: String,
    /// Go on until the run ends
    #[arg(short, long)]
    follow: bool,
    /// Bytes as they were, on a terminal too
    #[arg(long)]
    raw: bool,
    /// Events as JSON lines
    #[arg(long, conflicts_with = "raw")]
    json: bool,
    /// The daemon's socket
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

pub(crate) fn logs(arguments: &Arguments) -> Result<u8, CliError> {
    let mut client = place::need("logs", arguments.socket.as_deref())?;
    let exec_id = runs::find(&mut client, &arguments.run)?;
    let last = last_seq(&mut client, exec_id)?;
    let prefix = Paint::to(&std::io::stderr()).bold("stockade:");
    client.on_pause(PAUSE_TOLD_AFTER, move |pause| {
        out::complain(&format!("{prefix} {}", follow::waiting(pause.until - pause.since)));
    });
    client.attach(exec_id, 0)?;
    for event in client.events(exec_id) {
        let event = match event {
            Err(ClientError::Denied(denied)) => return Err(CliError::Denied(denied)),
            other => other?,
        };
        if !show(&event, arguments)? {
            return Ok(128 + 13);
        }
        let ended = matches!(event.event, ExecEvent::Exited { .. });
        if ended || (!arguments.follow && last.is_some_and(|last| event.seq >= last)) {
            break;
        }
    }
    Ok(0)
}

/// How far the run is now. `None`: not known here, so follow it; the attach tells if it isn't there at all.
fn last_seq(client: &mut Client, exec_id: ExecId) -> Result<Option<u64>, CliError> {
    Ok(client.list()?.iter().find(|run| run.exec_id == exec_id).map(|run| run.last_seq))
}

/// Prints one event. `false`: nobody reads any more.
fn show(event: &RunEvent, arguments: &Arguments) -> Result<bool, CliError> {
    if arguments.json {
        return Ok(out::print(&json::event(event.exec_id, event.seq, &event.event))? == 0);
    }
    match &event.event {
        ExecEvent::Output { stream: Stream::Stdout, bytes } => {
            let escaped = escape::for_terminal(bytes, !arguments.raw && std::io::stdout().is_terminal());
            Ok(out::print(&escaped)? == 0)
        }
        ExecEvent::Output { stream: Stream::Stderr, bytes } => {
            let escaped = escape::for_terminal(bytes, !arguments.raw && std::io::stderr().is_terminal());
            std::io::stderr().write_all(&escaped).map_err(CliError::io("write standard error"))?;
            Ok(true)
        }
        ExecEvent::OutputLost { events } => {
            out::complain(&format!("stockade: {events} events are no longer kept; output is missing here"));
            Ok(true)
        }
        _ => Ok(true),
    }
}
