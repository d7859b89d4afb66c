//! A daemon under test: started for the first test that needs it, stopped after the last, searched for leftovers.

use std::collections::{BTreeSet, HashMap};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::spawner::Spawner;
use crate::{Ended, Ground, Mode, Person, left, wait_until};

/// Of what may take long on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    child: Mutex<Child>,
    /// Its own ground.
    pub ground: Ground,
    /// Its socket.
    pub socket: PathBuf,
    mounts: BTreeSet<String>,
    /// What starts its launchers, if it doesn't itself.
    spawner: Option<Spawner>,
}

impl Daemon {
    /// The daemon of a mode that the tests of this process share: root's is as the package has it, without a privilege and
    /// with its launcher apart.
    #[must_use]
    pub fn shared(mode: Mode) -> Arc<Self> {
        static SHARED: Mutex<Option<HashMap<Person, Weak<Daemon>>>> = Mutex::new(None);
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let known = shared.get_or_insert_default();
        if let Some(daemon) = known.get(&mode.server()).and_then(Weak::upgrade) {
            return daemon;
        }
        let person = mode.server();
        let daemon = if person.is_root() { Self::start_apart() } else { Self::start(person, &[]) };
        let daemon = Arc::new(daemon);
        known.insert(mode.server(), Arc::downgrade(&daemon));
        daemon
    }

    /// Starts one of a test's own, with more arguments.
    #[must_use]
    pub fn start(person: Person, arguments: &[&str]) -> Self {
        let ground = Ground::new(person);
        Self::start_at(ground, arguments)
    }

    /// Starts one on a ground that is there already.
    #[must_use]
    pub fn start_at(ground: Ground, arguments: &[&str]) -> Self {
        let program = ground.stockade();
        Self::start_program(ground, program, arguments)
    }

    /// As [`start_at`](Self::start_at), with another program.
    #[must_use]
    pub fn start_program(ground: Ground, program: Command, arguments: &[&str]) -> Self {
        Self::begin(ground, program, None, arguments)
    }

    /// Starts one for everybody that isn't root, with root's launchers.
    #[must_use]
    pub fn start_apart() -> Self {
        let ground = Ground::new(Person::me());
        let launcher = ground.binaries.launcher.clone();
        Self::start_apart_at(ground, launcher)
    }

    /// As [`start_apart`](Self::start_apart), on a ground of root's that is there already, with launchers of this program.
    #[must_use]
    pub fn start_apart_at(ground: Ground, launcher: PathBuf) -> Self {
        let service = Person::service();
        std::fs::create_dir(ground.base().join("daemon")).unwrap();
        for own in ["daemon", "state"] {
            service.own(&ground.base().join(own));
        }
        let spawner = Spawner::start(ground.base().join("launcher.sock"), launcher, service);
        let program = ground.stockade();
        Self::begin(ground, program, Some(spawner), &[])
    }

    fn begin(ground: Ground, program: Command, spawner: Option<Spawner>, arguments: &[&str]) -> Self {
        let mounts = left::mounts();
        let socket = ground.base().join("daemon/stockade.sock");
        let mut command = serve_as(program, &ground, &socket, spawner.as_ref());
        command.args(arguments);
        let child = Mutex::new(command.spawn().unwrap());
        let daemon = Self { child, ground, socket, mounts, spawner };
        let up = wait_until(PATIENCE, || daemon.answers() || daemon.is_over());
        assert!(up && !daemon.is_over(), "the daemon doesn't serve; it said:\n{}", daemon.log());
        daemon
    }

    /// Kills it, and starts another in its place.
    pub fn kill_and_start_again(&self, arguments: &[&str]) {
        self.kill();
        self.start_again(arguments);
    }

    /// Kills it as nothing can prevent.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
        assert!(self.ends_within(PATIENCE), "killed, and still there");
    }

    /// Starts another in the place of one that has ended.
    pub fn start_again(&self, arguments: &[&str]) {
        self.start_another(self.ground.stockade(), arguments);
    }

    /// As [`start_again`](Self::start_again), with another program.
    pub fn start_another(&self, program: Command, arguments: &[&str]) {
        self.follow_with(program, arguments);
        let up = wait_until(PATIENCE, || self.answers() || self.is_over());
        assert!(up && !self.is_over(), "the next daemon doesn't serve; it said:\n{}", self.log());
    }

    /// Starts another program in the place of the one that has ended, and doesn't wait until it serves.
    pub fn follow_with(&self, program: Command, arguments: &[&str]) {
        assert!(self.is_over(), "the one before goes on");
        let mut command = serve_as(program, &self.ground, &self.socket, self.spawner.as_ref());
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = command.args(arguments).spawn().unwrap();
    }

    /// The command of another one like it, on the same socket.
    #[must_use]
    pub fn another(&self) -> Command {
        serve_as(self.ground.stockade(), &self.ground, &self.socket, self.spawner.as_ref())
    }

    /// It and everything below it and its launchers.
    #[must_use]
    pub fn tree(&self) -> Vec<left::Process> {
        // Of one that has ended, the number may be another's by now.
        let mut tree = if self.is_over() { Vec::new() } else { left::tree(self.pid()) };
        let launchers = self.launchers().into_iter().flat_map(left::tree);
        let more: Vec<_> = launchers.filter(|process| !tree.contains(process)).collect();
        tree.extend(more);
        tree
    }

    /// The process ids of the launchers that were started from its state directory and are written down.
    #[must_use]
    pub fn launchers(&self) -> Vec<u32> {
        if let Some(spawner) = &self.spawner {
            return spawner.launchers();
        }
        let path = self.ground.base().join("state/launchers.json");
        let Ok(text) = std::fs::read_to_string(path) else { return Vec::new() };
        let register: serde_json::Value = serde_json::from_str(&text).unwrap();
        let launchers = register["launchers"].as_array().unwrap();
        launchers.iter().map(|entry| u32::try_from(entry["pid"].as_u64().unwrap()).unwrap()).collect()
    }

    fn is_over(&self) -> bool {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait().unwrap().is_some()
    }

    /// Whether it's the one that listens: the socket of one that was killed may be open for a moment yet, in a child that it was
    /// just making.
    fn answers(&self) -> bool {
        let connected = UnixStream::connect(&self.socket).ok();
        let peer = connected.and_then(|stream| rustix::net::sockopt::socket_peercred(stream).ok());
        peer.is_some_and(|peer| u32::try_from(peer.pid.as_raw_nonzero().get()) == Ok(self.pid()))
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).id()
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.ground.base().join("daemon.log")).unwrap_or_default()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits until it has heard that it's to stop.
    pub fn is_draining(&self) -> bool {
        let status = || Ended::of(self.ask(&self.ground, &["status", "--json"])).text();
        wait_until(PATIENCE, || {
            let report: serde_json::Value = serde_json::from_str(&status()).unwrap_or_default();
            report["draining"] == true
        })
    }

    /// Waits for its end; whether it came in time.
    pub fn ends_within(&self, within: Duration) -> bool {
        wait_until(within, || self.is_over())
    }

    /// A command of `stockade` for a person of another ground, with this daemon's socket.
    #[must_use]
    pub fn ask(&self, ground: &Ground, words: &[&str]) -> Command {
        let mut command = ground.stockade();
        command.args(words).arg("--socket").arg(&self.socket);
        command
    }

    /// What is left of it after its end, in words.
    fn leftovers(&self, tree: &[left::Process]) -> Vec<String> {
        let mut found = Vec::new();
        wait_until(PATIENCE, || left::alive(tree).is_empty());
        found.extend(left::alive(tree).iter().map(|process| format!("process {process:?}")));
        found.extend(left::mounts().difference(&self.mounts).map(|mount| format!("mount {mount}")));
        let is_socket = |name: &String| Path::new(name).extension().is_some_and(|end| end == "sock");
        let sockets = left::names(&self.ground.base().join("daemon")).into_iter().filter(is_socket);
        found.extend(sockets.map(|name| format!("socket {name}")));
        found.extend(
            left::names(&self.ground.base().join("tmp")).iter().map(|name| format!("tmp file {name}")),
        );
        found
    }
}

/// The command that serves, not started.
#[must_use]
pub fn serve(ground: &Ground, socket: &Path) -> Command {
    serve_with(ground.stockade(), ground, socket)
}

fn serve_as(program: Command, ground: &Ground, socket: &Path, spawner: Option<&Spawner>) -> Command {
    let mut command = serve_with(program, ground, socket);
    if let Some(spawner) = spawner {
        command.arg("--system").arg("--launcher").arg(&spawner.path);
        Person::service().take(&mut command);
    }
    command
}

fn serve_with(mut command: Command, ground: &Ground, socket: &Path) -> Command {
    command.arg("serve").arg("--socket").arg(socket);
    command.arg("--state-directory").arg(ground.base().join("state"));
    if ground.person.is_root() {
        // A user's daemon looks there by itself (`XDG_CONFIG_HOME`); what the machine's operator has isn't ours.
        command.args(["--group", "users"]).arg("--policies").arg(ground.policies());
        command.arg("--config").arg(ground.configuration());
    }
    let log = ground.base().join("daemon.log");
    let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
    command.stdout(Stdio::null()).stderr(log);
    command
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let tree = self.tree();
        if !self.is_over() {
            self.signal(Signal::TERM);
        }
        let ended = self.ends_within(PATIENCE);
        if !ended {
            self.signal(Signal::KILL);
            self.ends_within(PATIENCE);
        }
        if std::thread::panicking() {
            return;
        }
        let log = self.log();
        assert!(ended, "the daemon didn't end within {PATIENCE:?} of SIGTERM; it said:\n{log}");
        let left = self.leftovers(&tree);
        assert!(left.is_empty(), "the daemon left {left:#?}\nit said:\n{log}");
        assert!(!log.contains("panicked at"), "the daemon panicked:\n{log}");
    }
}
