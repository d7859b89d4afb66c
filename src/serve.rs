//! `stockade serve`: the daemon.

use std::path::PathBuf;

use stockade_supervisor::config::{
    Configured, Group, LogLevel, Origin, Parked, Queue, Slots, Sources, Span, Switch,
};
use stockade_supervisor::paths::{Scope, Surroundings};
use stockade_supervisor::{Collector, Endpoint, ServeOptions};
use tracing::Level;
use tracing_subscriber::filter::{EnvFilter, LevelFilter};

use crate::error::CliError;
use crate::{logging, sources};

/// Names a socket to clients and to daemons.
const SOCKET: &str = "STOCKADE_SOCKET";
/// Says what a daemon logs.
const LOG: &str = "STOCKADE_LOG";

const EXAMPLES: &str = "Examples:
  stockade serve                                  for yourself, on $XDG_RUNTIME_DIR/stockade/stockade.sock
  stockade serve --group agents                   as root: for the members of a group, on /run/stockade
  stockade serve --policies ./policies --slots 8
  stockade serve --metrics 127.0.0.1:9747         for Prometheus: /metrics, /healthz, /readyz
  stockade serve --traces http://127.0.0.1:4318   for a collector of OpenTelemetry
  STOCKADE_LOG=stockade_supervisor=debug stockade serve

Files: what isn't said here is said by stockade.toml and stockade.d; see stockade.toml(5) and `stockade config show`.

Signals: SIGHUP reads configuration and policies again (all or nothing); SIGTERM refuses new runs and gives running ones their
grace; a second SIGTERM ends them.

Exit status: 0 after SIGTERM; else by sysexits.h: 64 wrong options, 67 no such group, 69 somebody serves already, 71 the
kernel refuses, 73 a file or socket can't be made, 77 a directory isn't ours or isn't safe, 78 configuration, policies, units
or limits are wrong.";

/// Serves runs over a socket until it is told to stop.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Serve everybody whom the socket lets in, from the system's configuration and places, as root's daemon does. Without root
    /// it takes --launcher
    #[arg(long)]
    system: bool,
    #[command(flatten)]
    options: Options,
}

/// What a command line can say about a daemon, over the files of its configuration.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// The configuration's directory, with stockade.toml and stockade.d [default: /etc/stockade; of a user
    /// ~/.config/stockade]
    #[arg(long, value_name = "DIR")]
    config: Option<PathBuf>,
    /// Where to listen
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// More policies, on top of the operator's and the user's; as root they count as the operator's. Repeatable
    #[arg(long, value_name = "DIR")]
    policies: Vec<PathBuf>,
    /// Where it keeps its lock and state
    #[arg(long, value_name = "DIR")]
    state_directory: Option<PathBuf>,
    /// The socket that starts launchers, as stockade-launcher.socket does; otherwise the daemon starts its launcher itself
    #[arg(long, value_name = "PATH")]
    launcher: Option<PathBuf>,
    /// As root: the group whose members may connect
    #[arg(long, value_name = "GROUP")]
    group: Option<Group>,
    /// Runs at once
    #[arg(long, value_name = "COUNT")]
    slots: Option<Slots>,
    /// Requests that may wait
    #[arg(long, value_name = "COUNT")]
    queue: Option<Queue>,
    /// The most workers kept ready for one user, policy and workspace; 0: none is made before its run
    #[arg(long, value_name = "COUNT")]
    parked: Option<Parked>,
    /// Where to tell metrics and health: unix:PATH, or ADDRESS:PORT of the loopback; otherwise nowhere
    #[arg(long, value_name = "WHERE")]
    metrics: Option<Endpoint>,
    /// Where to send a span of each run, by OTLP: http://ADDRESS:PORT of a collector; otherwise nowhere
    #[arg(long, value_name = "COLLECTOR")]
    traces: Option<Collector>,
    /// How long running commands have when it is told to stop
    #[arg(long, value_name = "TIME")]
    grace: Option<Span>,
    /// When it is told to stop, let runs go on for the daemon that comes next, instead of ending them after their grace
    #[arg(long)]
    keep_runs: bool,
    /// How long an ended run's output is kept
    #[arg(long, value_name = "TIME")]
    retention: Option<Span>,
}

impl Options {
    /// Of a daemon that was told nothing but its directory of configuration, or not even that.
    pub(crate) fn of_directory(config: Option<PathBuf>) -> Self {
        Self { config, ..Self::default() }
    }

    /// All that the daemon's configuration is made of.
    pub(crate) fn sources(&self, surroundings: &Surroundings<'_>) -> Sources {
        let mut over = Configured::default();
        if let Some(socket) =
            (surroundings.variable)(SOCKET).map(PathBuf::from).filter(|path| path.is_absolute())
        {
            over.set("daemon.socket", Origin::Variable(SOCKET), |to| to.daemon.socket = socket.into());
        }
        // It says more than a level does; the most of it is what a level can say.
        if let Some(filter) = own_filter(surroundings) {
            over.set("log.level", Origin::Variable(LOG), |to| to.log.level = most(&filter));
        }
        self.say(&mut over);
        let directory = self.config.clone().unwrap_or_else(|| surroundings.configuration());
        let (directory, is_named) = (Some(directory), self.config.is_some());
        Sources { directory, is_named, uid: surroundings.uid, scope: surroundings.scope, over }
    }

    fn say(&self, over: &mut Configured) {
        if let Some(path) = self.socket.clone() {
            over.set("daemon.socket", Origin::Option("--socket"), |to| to.daemon.socket = path.into());
        }
        if let Some(path) = self.launcher.clone() {
            over.set("daemon.launcher", Origin::Option("--launcher"), |to| to.daemon.launcher = path.into());
        }
        if let Some(group) = self.group.clone() {
            over.set("daemon.group", Origin::Option("--group"), |to| to.daemon.group = group);
        }
        if !self.policies.is_empty() {
            let paths = self.policies.clone();
            over.set("daemon.policies", Origin::Option("--policies"), |to| to.daemon.policies = paths.into());
        }
        if let Some(path) = self.state_directory.clone() {
            over.set("daemon.state-directory", Origin::Option("--state-directory"), |to| {
                to.daemon.state_directory = path.into();
            });
        }
        if let Some(slots) = self.slots {
            over.set("runs.slots", Origin::Option("--slots"), |to| to.runs.slots = slots);
        }
        if let Some(queue) = self.queue {
            over.set("runs.queue", Origin::Option("--queue"), |to| to.runs.queue = queue);
        }
        if let Some(parked) = self.parked {
            over.set("runs.parked", Origin::Option("--parked"), |to| to.runs.parked = parked);
        }
        if let Some(grace) = self.grace {
            over.set("runs.grace", Origin::Option("--grace"), |to| to.runs.grace = grace);
        }
        if let Some(metrics) = self.metrics.clone() {
            over.set("telemetry.metrics", Origin::Option("--metrics"), |to| {
                to.telemetry.metrics = Some(metrics).into();
            });
        }
        if let Some(traces) = self.traces.clone() {
            over.set("telemetry.traces", Origin::Option("--traces"), |to| {
                to.telemetry.traces = Some(traces).into();
            });
        }
        if self.keep_runs {
            over.set("runs.keep", Origin::Option("--keep-runs"), |to| to.runs.keep = Switch::On);
        }
        if let Some(retention) = self.retention {
            over.set("runs.retention", Origin::Option("--retention"), |to| to.runs.retention = retention);
        }
    }
}

pub(crate) fn serve(arguments: &Arguments) -> Result<u8, CliError> {
    let mut surroundings = sources::surroundings();
    if arguments.system {
        surroundings.scope = Scope::Machine;
    }
    let sources = arguments.options.sources(&surroundings);
    let configured = sources.load()?;
    let own = own_filter(&surroundings);
    let (log, _last_lines, set_level) =
        logging::start(own, configured.values.log.level).map_err(CliError::io("start the log's thread"))?;
    let policy_directories = surroundings.policies();
    let log = Some(log);
    let landlock_abi = stockade_worker::landlock_abi();
    stockade_supervisor::serve(ServeOptions {
        configured,
        sources,
        policy_directories,
        log,
        set_level,
        landlock_abi,
    })?;
    Ok(0)
}

/// What the environment says is logged.
fn own_filter(surroundings: &Surroundings<'_>) -> Option<EnvFilter> {
    let text = (surroundings.variable)(LOG)?;
    EnvFilter::try_new(text.to_str()?).ok()
}

/// The most that a filter lets through.
fn most(filter: &EnvFilter) -> LogLevel {
    match filter.max_level_hint().and_then(LevelFilter::into_level) {
        Some(Level::TRACE) => LogLevel::Trace,
        Some(Level::DEBUG) => LogLevel::Debug,
        Some(Level::INFO) => LogLevel::Info,
        Some(Level::WARN) => LogLevel::Warn,
        Some(Level::ERROR) | None => LogLevel::Error,
    }
}
