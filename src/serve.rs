//! `stockade serve`: the daemon.

use std::path::PathBuf;
use std::time::Duration;

use stockade_policies::Trust;
use stockade_supervisor::{Collector, Endpoint, ServeOptions};

use crate::error::CliError;
use crate::{logging, sources, units};

const EXAMPLES: &str = "Examples:
  stockade serve                                  for yourself, on $XDG_RUNTIME_DIR/stockade/stockade.sock
  stockade serve --group agents                   as root: for the members of a group, on /run/stockade
  stockade serve --policies ./policies --slots 8
  stockade serve --metrics 127.0.0.1:9747         for Prometheus: /metrics, /healthz, /readyz
  stockade serve --traces http://127.0.0.1:4318   for a collector of OpenTelemetry
  STOCKADE_LOG=stockade_supervisor=debug stockade serve

Signals: SIGHUP reads the policies again (all or nothing); SIGTERM refuses new runs and gives running ones their
grace; a second SIGTERM ends them.";

/// Serves runs over a socket until it is told to stop.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Where to listen
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// More policies, on top of the operator's and the user's; as root they count as the operator's. Repeatable
    #[arg(long, value_name = "DIR")]
    policies: Vec<PathBuf>,
    /// Where it keeps its lock and state
    #[arg(long, value_name = "DIR")]
    state_directory: Option<PathBuf>,
    /// As root: the group whose members may connect
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Runs at once
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    slots: Option<u32>,
    /// Requests that may wait
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    queue: Option<u32>,
    /// The most workers kept ready for one user, policy and workspace; 0: none is made before its run
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(0..=64))]
    parked: Option<u32>,
    /// Where to tell metrics and health: unix:PATH, or ADDRESS:PORT of the loopback; otherwise nowhere
    #[arg(long, value_name = "WHERE")]
    metrics: Option<Endpoint>,
    /// Where to send a span of each run, by OTLP: http://ADDRESS:PORT of a collector; otherwise nowhere
    #[arg(long, value_name = "COLLECTOR")]
    traces: Option<Collector>,
    /// How long running commands have when it is told to stop
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = units::time)]
    grace: u64,
    /// How long an ended run's output is kept
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = units::time)]
    retention: u64,
}

pub(crate) fn serve(arguments: &Arguments) -> Result<u8, CliError> {
    let (log, _last_lines) = logging::start().map_err(CliError::io("start the log's thread"))?;
    stockade_supervisor::serve(ServeOptions { log: Some(log), ..options(arguments) })?;
    Ok(0)
}

fn options(arguments: &Arguments) -> ServeOptions {
    let surroundings = sources::surroundings();
    let trust = if surroundings.uid == 0 { Trust::Operator } else { Trust::User };
    let mut policy_directories = surroundings.policies();
    policy_directories.extend(arguments.policies.iter().map(|path| (path.clone(), trust)));
    let count = |count: Option<u32>| count.map(|count| usize::try_from(count).unwrap_or(usize::MAX));
    ServeOptions {
        socket: arguments.socket.clone(),
        policy_directories,
        state_directory: arguments.state_directory.clone(),
        group: arguments.group.clone(),
        slots: count(arguments.slots),
        queue: count(arguments.queue),
        parked: arguments.parked,
        grace: Duration::from_millis(arguments.grace),
        retention: Duration::from_millis(arguments.retention),
        metrics: arguments.metrics.clone(),
        traces: arguments.traces.clone(),
        log: None,
    }
}
