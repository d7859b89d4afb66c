//! `stockade ps`: the caller's runs.

use std::path::PathBuf;

use stockade_protocol::client::{RunState, RunSummary};
use stockade_supervisor::words::duration;

use crate::color::Paint;
use crate::error::CliError;
use crate::{escape, json, out, place, table, words};

const EXAMPLES: &str = "Examples:
  stockade ps                 runs that wait or go on
  stockade ps --all           and those that have ended and are still kept
  stockade ps --json | jq -r .exec_id";

/// Lists your runs.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Also runs that have ended and whose events are kept
    #[arg(short, long)]
    all: bool,
    /// One JSON object a run
    #[arg(long)]
    json: bool,
    /// The daemon's socket
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

pub(crate) fn ps(arguments: &Arguments) -> Result<u8, CliError> {
    let mut runs = place::need("ps", arguments.socket.as_deref())?.list()?;
    runs.retain(|run| arguments.all || !matches!(run.state, RunState::Ended { .. }));
    runs.sort_by_key(|run| run.exec_id);
    if arguments.json {
        let lines: Vec<u8> = runs.iter().flat_map(json::line).collect();
        return out::print(&lines);
    }
    out::print(listed(&runs, Paint::to(&std::io::stdout())).as_bytes())
}

fn listed(runs: &[RunSummary], paint: Paint) -> String {
    let head = ["RUN", "STATE", "POLICY", "AGE", "COMMAND"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head)
        .chain(runs.iter().map(|run| {
            [
                run.exec_id.to_string(),
                state(&run.state),
                escape::line(run.policy.as_bytes()),
                duration(run.age_ms),
                escape::line(&run.command),
            ]
        }))
        .collect();
    table::columns(&rows, |row, _, cell| if row == 0 { paint.bold(cell) } else { cell.to_owned() })
}

fn state(state: &RunState) -> String {
    match state {
        RunState::Queued => "queued".into(),
        RunState::Starting => "starting".into(),
        RunState::Running => "running".into(),
        RunState::Ended { outcome } => words::short(outcome),
        _ => "unknown".into(),
    }
}

#[cfg(test)]
mod tests {
    use stockade_protocol::{Bytes, ExecId};

    use super::*;

    #[test]
    fn a_command_with_terminal_escapes_is_shown_escaped() {
        let run = RunSummary {
            exec_id: ExecId::from_bytes([7; 16]),
            owner_uid: 0,
            policy: "default".into(),
            command: Bytes::from("echo \x1b]0;owned\x07"),
            state: RunState::Running,
            age_ms: 1500,
            last_seq: 2,
        };
        let text =
            listed(&[run], Paint::to(&std::fs::File::open("/dev/null").unwrap_or_else(|_| unreachable!())));
        assert!(!text.contains('\x1b'));
        assert!(text.contains("1.5 s") && text.contains("running") && text.contains("\\u{1b}"));
    }
}
