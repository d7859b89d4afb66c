//! `stockade serve`: the daemon.

use std::path::PathBuf;
use std::time::Duration;

use stockade_policies::Trust;
use stockade_supervisor::{Log, ServeOptions};
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::error::CliError;
use crate::{color, sources, units};

const EXAMPLES: &str = "Examples:
  stockade serve                                  for yourself, on $XDG_RUNTIME_DIR/stockade/stockade.sock
  stockade serve --group agents                   as root: for the members of a group, on /run/stockade
  stockade serve --policies ./policies --slots 8
  STOCKADE_LOG=stockade_supervisor=debug stockade serve

Signals: SIGHUP reads the policies again (all or nothing); SIGTERM refuses new runs and gives running ones their
grace; a second SIGTERM ends them.

Exit status: 0 after SIGTERM; else by sysexits.h: 64 wrong options, 67 no such group, 69 somebody serves already, 71 the
kernel refuses, 73 a file or socket can't be made, 77 a directory isn't ours or isn't safe, 78 policies, units or limits are wrong.";

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
    /// How long running commands have when it is told to stop
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = units::time)]
    grace: u64,
    /// How long an ended run's output is kept
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = units::time)]
    retention: u64,
}

pub(crate) fn serve(arguments: &Arguments) -> Result<u8, CliError> {
    let filter = EnvFilter::try_from_env("STOCKADE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let (log, _last_lines) = Log::to(std::io::stderr()).map_err(CliError::io("start the log's thread"))?;
    settle_before_a_panic(&log);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(color::wanted(&std::io::stderr()))
        .with_writer(Lines(log.clone()))
        .init();
    stockade_supervisor::serve(ServeOptions { log: Some(log), ..options(arguments) })?;
    Ok(0)
}

/// A panic ends the process: what was logged before has to be there to explain it.
fn settle_before_a_panic(log: &Log) {
    let (log, print) = (log.clone(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        log.settle();
        print(panic);
    }));
}

/// Writes lines by their level: warnings and errors wait for nothing.
struct Lines(Log);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Log;

    fn make_writer(&'a self) -> Log {
        self.0.clone()
    }

    fn make_writer_for(&'a self, line: &Metadata<'_>) -> Log {
        if *line.level() <= Level::WARN { self.0.urgent() } else { self.make_writer() }
    }
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
        log: None,
    }
}
