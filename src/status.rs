//! `stockade status`: how the daemon is.

use std::path::PathBuf;

use stockade_protocol::client::StatusReport;
use stockade_supervisor::words::duration;

use crate::error::CliError;
use crate::{escape, follow, json, out, place, table};

const EXAMPLES: &str = "Examples:
  stockade status
  stockade status --json | jq .running";

/// Says how the daemon is: slots, queue, runs, policies.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// The daemon's socket
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

pub(crate) fn status(arguments: &Arguments) -> Result<u8, CliError> {
    let report = place::need("status", arguments.socket.as_deref())?.status()?;
    if arguments.json {
        return out::print(&json::line(&report));
    }
    out::print(shown(&report).as_bytes())
}

fn shown(report: &StatusReport) -> String {
    let policies: Vec<_> = report.policies.iter().map(|name| escape::line(name.as_bytes())).collect();
    let draining = if report.draining { " (stopping: new runs are refused)" } else { "" };
    let warmth = report.warmth;
    let rows = [
        ("release", escape::line(report.version.as_bytes())),
        ("process", format!("{} (launcher {})", report.pid, report.launcher_pid)),
        ("up", format!("{}{draining}", duration(report.uptime_ms))),
        ("workers", format!("{}, memory by {}", follow::plan(report.plan), follow::mechanism(report.memory))),
        ("running", format!("{} of {}", report.running, report.slots)),
        ("queued", format!("{} of {}", report.queued, report.queue_bound)),
        ("connections", report.connections.to_string()),
        (
            "since start",
            format!("{} accepted, {} denied, {} ended", report.accepted, report.denied, report.ended),
        ),
        ("not reaped", report.unreaped.to_string()),
        (
            "parked",
            format!(
                "{} by {} templates; {} hits, {} misses, {} us to make one",
                warmth.parked, warmth.templates, warmth.hits, warmth.misses, warmth.refill_us
            ),
        ),
        ("policies", policies.join(", ")),
    ];
    table::columns(&rows.map(|(name, value)| [name.to_owned(), value]), |_, _, cell| cell.to_owned())
}
