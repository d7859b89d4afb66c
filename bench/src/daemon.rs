//! The daemon under test: `stockade serve` on a socket of its own, as whoever runs the benchmark. Stopped by SIGTERM.
//!
//! How it is started is a row of a table ([`StartUp`]): a variant that is the same call under another configuration
//! is a row more, nothing else.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use stockade_client::Client;
use tempfile::TempDir;

use crate::error::BenchError;
use crate::ground::{Ground, write};
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
    /// Added to `stockade serve`; in each [`PLACE`] stands for the daemon's own directory.
    pub(crate) arguments: &'static [&'static str],
    /// Added to its environment.
    pub(crate) environment: &'static [(&'static str, &'static str)],
    /// Whether it records requests, and where.
    pub(crate) record: Record,
    /// How many tools it has: [`tool_name`] of 0 and up, each `/bin/true`.
    pub(crate) tools: usize,
}

/// A tool's name.
pub(crate) fn tool_name(number: usize) -> String {
    format!("tool-{number}")
}

/// See [`StartUp::arguments`].
const PLACE: &str = "{place}";
/// What passes a daemon its socket as a service manager does, by the name of `sd_listen_fds(3)`: it comes as standard input.
const ACTIVATE: &str = "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\" 3<&0 </dev/null";

/// Where a daemon's state is, and whether it has a key for the record in there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Record {
    /// No key; with the rest of what it has.
    None,
    /// Recorded, on the disk that temporary directories are on.
    OnDisk,
    /// Recorded, on a tmpfs.
    InMemory,
}

/// A tmpfs that every Linux has.
const MEMORY: &str = "/dev/shm";

/// Flags that leave nothing parked but keep templates.
const NOTHING_PARKED: &[&str] = &["--parked", "0"];
/// As it comes.
pub(crate) const DEFAULT: StartUp =
    StartUp { name: "default", arguments: &[], environment: &[], record: Record::None, tools: 0 };
/// Templates, and no parked workers.
pub(crate) const TEMPLATE: StartUp = StartUp { name: "template", arguments: NOTHING_PARKED, ..DEFAULT };
/// The same, for who ends the template of each run before the next: see [`Daemon::end_templates`].
pub(crate) const COLD: StartUp = StartUp { name: "cold", arguments: NOTHING_PARKED, ..DEFAULT };
/// As many parked workers as a daemon keeps; few runs at once, since what many at once leave in the kernel's memory isn't
/// a parked worker's.
pub(crate) const ALL_PARKED: StartUp =
    StartUp { name: "all-parked", arguments: &["--parked", "64", "--slots", "2"], ..DEFAULT };
/// Slots for a thousand runs of one owner, who in root's daemon may hold three quarters of them.
pub(crate) const MANY_SLOTS: StartUp =
    StartUp { name: "many-slots", arguments: &["--slots", "1400"], ..DEFAULT };
/// So few slots that every client waits.
pub(crate) const FEW_SLOTS: StartUp = StartUp { name: "few-slots", arguments: &["--slots", "8"], ..DEFAULT };

/// It tells metrics, at [`Daemon::scrape`], of as many tools as the bound on a scrape speaks of.
pub(crate) const MEASURED: StartUp = StartUp {
    name: "measured",
    arguments: &["--metrics", "unix:{place}/metrics.sock"],
    tools: 200,
    ..DEFAULT
};
/// Requests are durable before they run.
pub(crate) const RECORDED: StartUp = StartUp { name: "recorded", record: Record::InMemory, ..DEFAULT };
/// The same on a disk.
pub(crate) const RECORDED_ON_DISK: StartUp =
    StartUp { name: "recorded-on-disk", record: Record::OnDisk, ..DEFAULT };

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
    /// Gone when it has ended.
    _state: Option<TempDir>,
}

impl Daemon {
    /// Starts one with the benchmark's policies and waits until its socket accepts.
    pub(crate) fn start(ground: &Ground, how: StartUp) -> Result<Self, BenchError> {
        Self::start_with(ground, how, &ground.policies)
    }

    /// Starts one with these policies.
    pub(crate) fn start_with(ground: &Ground, how: StartUp, policies: &Path) -> Result<Self, BenchError> {
        let command = spawn::command(&ground.stockade);
        let began = Instant::now();
        let mut daemon = Self::spawn(command, Stdio::null(), ground, how, policies)?;
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

    /// Has one started by a client's connection, as a service manager does; from before that until the client was answered.
    pub(crate) fn activate(ground: &Ground, how: StartUp) -> Result<(Self, Duration), BenchError> {
        let socket = ground.directory(&format!("daemon-{}/run", how.name))?.join("stockade.sock");
        let _none = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).map_err(BenchError::io("make a socket"))?;
        let mut command = spawn::command("/bin/sh");
        command.args(["-c", ACTIVATE, "sh"]).arg(&ground.stockade);
        let began = Instant::now();
        let daemon = Self::spawn(command, OwnedFd::from(listener).into(), ground, how, &ground.policies)?;
        drop(daemon.connect()?);
        Ok((daemon, began.elapsed()))
    }

    /// Starts `stockade serve` by this command, which has none of its words yet.
    fn spawn(
        mut command: Command,
        stdin: Stdio,
        ground: &Ground,
        how: StartUp,
        policies: &Path,
    ) -> Result<Self, BenchError> {
        let place = ground.directory(&format!("daemon-{}", how.name))?;
        let socket = place.join("run/stockade.sock");
        let log = place.join("log");
        let file = File::create(&log).map_err(BenchError::io("make the daemon's log"))?;
        let state = match how.record {
            Record::InMemory => Some(in_memory()?),
            Record::None | Record::OnDisk => None,
        };
        let directory =
            state.as_ref().map_or_else(|| place.join("state"), |state| state.path().join("state"));
        command.arg("serve").arg("--socket").arg(&socket).arg("--state-directory").arg(directory);
        if how.record != Record::None || how.tools > 0 {
            command.arg("--config").arg(configured(&place, how)?);
        }
        let shown = place.display().to_string();
        command.arg("--policies").arg(policies);
        command.args(how.arguments.iter().map(|argument| argument.replace(PLACE, &shown)));
        // A person's own policies and settings have no part in this.
        command.env("XDG_CONFIG_HOME", &place);
        command.envs(how.environment.iter().copied());
        command.stdin(stdin).stdout(Stdio::null()).stderr(file);
        let child = command.spawn().map_err(BenchError::io("start the daemon"))?;
        Ok(Self { child, socket, ready: Duration::ZERO, log, stopped: false, _state: state })
    }

    /// Asks for its metrics: how much was told.
    pub(crate) fn scrape(&self) -> Result<usize, BenchError> {
        let failed = || BenchError::io("ask for metrics");
        let socket =
            self.socket.parent().and_then(Path::parent).unwrap_or(Path::new("/")).join("metrics.sock");
        let mut stream = UnixStream::connect(socket).map_err(failed())?;
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            .map_err(failed())?;
        let mut page = Vec::new();
        stream.read_to_end(&mut page).map_err(failed())?;
        match page.starts_with(b"HTTP/1.1 200") {
            true => Ok(page.len()),
            false => Err(BenchError::Wrong("metrics aren't told".into())),
        }
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

fn in_memory() -> Result<TempDir, BenchError> {
    let failed = BenchError::io(format!("make a directory in {MEMORY}"));
    tempfile::Builder::new().prefix("stockade-bench-").tempdir_in(MEMORY).map_err(failed)
}

/// A configuration with a key for the record, or with tools.
fn configured(place: &Path, how: StartUp) -> Result<PathBuf, BenchError> {
    let directory = place.join("config");
    let tools = directory.join("tools");
    std::fs::create_dir_all(&tools).map_err(BenchError::io("make the daemon's configuration"))?;
    for number in 0..how.tools {
        let name = tool_name(number);
        let text = format!(
            "name = \"{name}\"\ntitle = \"Nothing\"\ndescription = \"Does nothing.\"\nversion = \"1.0.0\"\n\
             policy = \"default\"\n[command]\nprogram = \"/bin/true\"\narguments = []\n\
             [parameters]\ntype = \"object\"\n"
        );
        write(&tools.join(format!("{name}.toml")), &text)?;
    }
    if how.record == Record::None {
        return Ok(directory);
    }
    let key = directory.join("audit.key");
    let mut bytes = [0; 32];
    let random = File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes));
    random.map_err(BenchError::io("make a key"))?;
    let mut file = OpenOptions::new();
    let file = file.write(true).create(true).truncate(true).mode(0o600).open(&key);
    file.and_then(|mut file| file.write_all(&bytes)).map_err(BenchError::io("write the key"))?;
    write(&directory.join("stockade.toml"), &format!("[audit]\nkey = \"{}\"\n", key.display()))?;
    Ok(directory)
}

/// Whether a socket accepts, without saying anything over it.
fn accepts(path: &Path) -> std::io::Result<()> {
    UnixStream::connect(path).map(drop)
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            crate::out::say(&format!("bench: {}", crate::error::chain(&error)));
        }
    }
}
