//! The daemon under test: `stockade serve` on a socket of its own, as whoever runs the benchmark. Stopped by SIGTERM.
//!
//! How it is started is a row of a table ([`StartUp`]): a variant that is the same call under another configuration
//! is a row more, nothing else.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use stockade_client::Client;

use crate::error::BenchError;
use crate::ground::Ground;
use crate::process;
use crate::spawn;

/// Of what may take long on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a template's process is called (the kernel cuts names at 15 bytes).
const TEMPLATE_NAME: &str = "stockade-templa";
/// Between two looks whether the socket is there: the resolution of the start's time.
const LOOK: Duration = Duration::from_micros(100);
/// Between two looks whether a template that was ended is gone.
const REAPED: Duration = Duration::from_millis(1);

/// How a daemon is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StartUp {
    /// For directories and messages.
    pub(crate) name: &'static str,
    /// Added to `stockade serve`.
    pub(crate) arguments: &'static [&'static str],
    /// Added to its environment.
    pub(crate) environment: &'static [(&'static str, &'static str)],
}

/// Flags that leave nothing parked but keep templates.
const NOTHING_PARKED: &[&str] = &["--parked", "0"];
/// As it comes.
pub(crate) const DEFAULT: StartUp = StartUp { name: "default", arguments: &[], environment: &[] };
/// Templates, and no parked workers.
pub(crate) const TEMPLATE: StartUp =
    StartUp { name: "template", arguments: NOTHING_PARKED, environment: &[] };
/// The same, for who ends the template of each run before the next: see [`Daemon::end_templates`].
pub(crate) const COLD: StartUp = StartUp { name: "cold", arguments: NOTHING_PARKED, environment: &[] };
/// As many parked workers as a daemon keeps; few runs at once, since what many at once leave in the kernel's memory isn't
/// a parked worker's.
pub(crate) const ALL_PARKED: StartUp =
    StartUp { name: "all-parked", arguments: &["--parked", "64", "--slots", "2"], environment: &[] };
/// Slots for a thousand runs of one owner, who in root's daemon may hold three quarters of them.
pub(crate) const MANY_SLOTS: StartUp =
    StartUp { name: "many-slots", arguments: &["--slots", "1400"], environment: &[] };
/// So few slots that every client waits.
pub(crate) const FEW_SLOTS: StartUp =
    StartUp { name: "few-slots", arguments: &["--slots", "8"], environment: &[] };

/// A running daemon; dropping it stops it.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    /// Its socket.
    pub(crate) socket: PathBuf,
    /// From before its process was made until its socket accepted.
    pub(crate) ready: Duration,
    log: PathBuf,
    stopped: bool,
}

impl Daemon {
    /// Starts one with the benchmark's policies and waits until its socket accepts.
    pub(crate) fn start(ground: &Ground, how: StartUp) -> Result<Self, BenchError> {
        Self::start_with(ground, how, &ground.policies)
    }

    /// Starts one with these policies.
    pub(crate) fn start_with(ground: &Ground, how: StartUp, policies: &Path) -> Result<Self, BenchError> {
        let place = ground.directory(&format!("daemon-{}", how.name))?;
        let socket = place.join("run/stockade.sock");
        let log = place.join("log");
        let file = File::create(&log).map_err(BenchError::io("make the daemon's log"))?;
        let mut command = spawn::command(&ground.stockade);
        command.arg("serve").arg("--socket").arg(&socket).arg("--state-directory").arg(place.join("state"));
        command.arg("--policies").arg(policies).args(how.arguments);
        // A person's own policies and settings have no part in this.
        command.env("XDG_CONFIG_HOME", &place);
        command.envs(how.environment.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let began = Instant::now();
        let child = command.spawn().map_err(BenchError::io("start the daemon"))?;
        let mut daemon = Self { child, socket, ready: Duration::ZERO, log, stopped: false };
        while accepts(&daemon.socket).is_err() {
            let over = daemon.child.try_wait().map_err(BenchError::io("look after the daemon"))?.is_some();
            if over || began.elapsed() > PATIENCE {
                return Err(BenchError::Daemon(daemon.last_words()));
            }
            spawn::moment(LOOK);
        }
        daemon.ready = began.elapsed();
        Ok(daemon)
    }

    /// A connection to it.
    pub(crate) fn connect(&self) -> Result<Client, BenchError> {
        Ok(Client::connect(&self.socket)?)
    }

    /// The supervisor's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends its templates, as a fault of theirs would, and waits until none is there. Asked for by no client: a template
    /// stays for ten seconds, and thirty-two of them would stand beside whatever is measured next.
    pub(crate) fn end_templates(&self) -> Result<(), BenchError> {
        let began = Instant::now();
        loop {
            let tree = process::tree(self.pid())?;
            let mut templates = tree.iter().filter(|process| process.name == TEMPLATE_NAME).peekable();
            if templates.peek().is_none() {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                return Err(BenchError::Wrong(format!("a template is still there after {PATIENCE:?}")));
            }
            for template in templates {
                process::kill(template)?;
            }
            spawn::moment(REAPED);
        }
    }

    /// Stops it and waits for its end.
    pub(crate) fn stop(mut self) -> Result<(), BenchError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), BenchError> {
        if self.stopped {
            return Ok(());
        }
        self.stopped = true;
        spawn::signal(&self.child, Signal::TERM)?;
        let ended = spawn::ends_within(&self.child, PATIENCE)?;
        if !ended {
            let _ = self.child.kill();
        }
        self.child.wait().map_err(BenchError::io("wait for the daemon"))?;
        match ended {
            true => Ok(()),
            false => Err(BenchError::Wrong(format!("the daemon didn't end within {PATIENCE:?} of SIGTERM"))),
        }
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

/// Whether a socket accepts, without saying anything over it.
fn accepts(path: &Path) -> std::io::Result<()> {
    std::os::unix::net::UnixStream::connect(path).map(drop)
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            crate::out::say(&format!("bench: {}", crate::error::chain(&error)));
        }
    }
}
