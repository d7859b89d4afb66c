//! `stockade breaker`: how the circuit breakers of tools stand in the daemon, and closing one by hand.

use std::path::PathBuf;

use stockade_client::ClientError;
use stockade_protocol::client::{BreakerState, BreakerSummary};
use stockade_supervisor::words::duration;

use crate::color::Paint;
use crate::error::CliError;
use crate::{escape, json, out, place, table};

const EXAMPLES: &str = "Examples:
  stockade breaker list
  stockade breaker list --json | jq -r 'select(.state == \"open\").tool'
  stockade breaker reset search     once it's known why it failed";

/// Lists the circuit breakers of tools, and closes one.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The daemon's socket
    #[arg(long, value_name = "PATH", global = true)]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    subcommand: Subcommand,
}

#[derive(Debug, clap::Subcommand)]
enum Subcommand {
    /// The breakers of which there is something to say; all others are closed
    List {
        /// One JSON object a breaker
        #[arg(long)]
        json: bool,
    },
    /// Closes a tool's breaker, and forgets how its runs ended: for root and the user that the daemon runs as
    Reset {
        /// The tool's name
        name: String,
    },
}

pub(crate) fn breaker(arguments: &Arguments) -> Result<u8, CliError> {
    let mut client = place::need("breaker", arguments.socket.as_deref())?;
    match &arguments.subcommand {
        Subcommand::List { json: true } => {
            let lines: Vec<u8> = client.breakers()?.iter().flat_map(json::line).collect();
            out::print(&lines)
        }
        Subcommand::List { json: false } => {
            out::print(listed(&client.breakers()?, Paint::to(&std::io::stdout())).as_bytes())
        }
        Subcommand::Reset { name } => {
            let changed = client.reset_breaker(name).map_err(|error| match error {
                ClientError::Denied(denied) => CliError::Denied(denied),
                other => other.into(),
            })?;
            out::print(format!("{}\n", told(name, changed)).as_bytes())
        }
    }
}

fn told(name: &str, changed: bool) -> String {
    let name = escape::line(name.as_bytes());
    if changed {
        format!("{name}: closed, and how its runs ended is forgotten")
    } else {
        format!("{name}: was closed, and there was nothing to forget")
    }
}

fn listed(breakers: &[BreakerSummary], paint: Paint) -> String {
    let head = ["TOOL", "BREAKER", "FAILED", "OPENED", "TRIED AGAIN"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head)
        .chain(breakers.iter().map(|breaker| {
            [
                escape::line(breaker.tool.as_bytes()),
                state(breaker.state).to_owned(),
                format!("{} of {}", breaker.failures, breaker.outcomes),
                breaker.opened.to_string(),
                again(breaker),
            ]
        }))
        .collect();
    table::columns(&rows, |row, _, cell| if row == 0 { paint.bold(cell) } else { cell.to_owned() })
}

fn state(state: BreakerState) -> &'static str {
    match state {
        BreakerState::Closed => "closed",
        BreakerState::Open => "open",
        BreakerState::HalfOpen => "half-open",
        _ => "unknown",
    }
}

/// When calls pass again, of one that doesn't let all pass.
fn again(breaker: &BreakerSummary) -> String {
    match (breaker.state, breaker.retry_after_ms) {
        (BreakerState::Closed, _) => String::new(),
        (_, Some(after)) => format!("in {}", duration(after)),
        (_, None) if breaker.probes == 0 => "with the next call".to_owned(),
        (_, None) => format!("now: {} under way", breaker.probes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_says_what_each_does_with_calls_and_until_when() {
        let breaker = |tool: &str, state, retry_after_ms, probes| BreakerSummary {
            tool: tool.into(),
            state,
            retry_after_ms,
            failures: 3,
            outcomes: 20,
            opened: 2,
            probes,
        };
        let text = listed(
            &[
                breaker("a\x1b[2J", BreakerState::Closed, None, 0),
                breaker("b", BreakerState::Open, Some(12_500), 0),
                breaker("c", BreakerState::HalfOpen, None, 1),
            ],
            Paint::to(&std::fs::File::open("/dev/null").unwrap_or_else(|_| unreachable!())),
        );
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1][1..], ["closed", "3", "of", "20", "2"], "{text}");
        assert_eq!(lines[2], ["b", "open", "3", "of", "20", "2", "in", "12.5", "s"], "{text}");
        assert_eq!(lines[3][1..], ["half-open", "3", "of", "20", "2", "now:", "1", "under", "way"], "{text}");
        assert!(!text.contains('\x1b'), "{text}");
    }

    #[test]
    fn a_reset_says_whether_there_was_anything_to_forget() {
        assert!(told("a", true).contains("is forgotten") && told("a", false).contains("nothing to forget"));
        assert!(!told("a\x1b", true).contains('\x1b'));
    }
}
