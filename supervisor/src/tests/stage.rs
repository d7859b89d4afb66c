//! A daemon in a thread, a client that blocks, and a launcher that does what a test tells it.

use std::collections::{HashMap, VecDeque};
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stockade_gate::Row;
use stockade_policies::Trust;
use stockade_protocol::bounds::MAX_SPECS;
use stockade_protocol::client::{
    ClientMessage, ExecEvent, ExecRequest, Hello, MAGIC, OutputMode, ServerMessage, StdinMode, Stream,
    VERSION, Workspace, features,
};
use stockade_protocol::confinement::{Confinement, Plan, StdioPath};
use stockade_protocol::launch::{
    FromLauncher, FromRelay, Keep, Launch, LaunchOutput, Program, SpecNumber, ToLauncher, ToRelay,
};
use stockade_protocol::outcome::{MemoryMechanism, Outcome, Usage};
use stockade_protocol::spec::{Level, SandboxSpec};
use stockade_protocol::{Bytes, ExecId, codec};
use stockade_wire::channel::Channel;
use stockade_wire::frames::FrameBuffer;
use stockade_wire::socket;

use super::said::Said;
use crate::config::{Configuration, Configured, DROP_INS, FILE, LogLevel, Origin, Sources};
use crate::daemon::Settings;
use crate::gate::Gate;
use crate::homes::Lookup;
use crate::launch_link::Starter;
use crate::limits::Limits;
use crate::metrics::Endpoint;
use crate::openers;
use crate::output::tests::Writer;
use crate::paths::Scope;
use crate::reload::SetLevel;
use crate::serve::{Given, Order, ServeOptions, serve_with};
use crate::systemd::Systemd;
use crate::traces::Collector;

/// The longest that anything here is waited for.
pub(super) const LONG: Duration = Duration::from_secs(60);

/// A daemon, until it is dropped or stopped.
pub(super) struct Stage {
    pub(super) directory: tempfile::TempDir,
    pub(super) socket: PathBuf,
    orders: tokio::sync::mpsc::UnboundedSender<Order>,
    thread: Option<JoinHandle<()>>,
    launchers: Option<Receiver<OwnedFd>>,
    /// What it logs about reloads.
    pub(super) said: Said,
    /// The log's levels that reloads have set.
    pub(super) levels: Arc<Mutex<Vec<LogLevel>>>,
}

/// What is to be done before the daemon starts.
pub(super) type Before = Box<dyn FnOnce(&Path)>;

fn metrics_of(directory: &Path) -> PathBuf {
    directory.join("daemon/m")
}

/// Set in place of the defaults.
pub(super) struct Changes {
    /// Is given the directory of the stage before the daemon starts.
    pub(super) before: Option<Before>,
    pub(super) slots: usize,
    pub(super) queue: usize,
    pub(super) grace: Duration,
    pub(super) retention: Duration,
    /// How long a run that was taken over is kept for its client.
    pub(super) unclaimed: Option<Duration>,
    pub(super) hello_within: Duration,
    pub(super) frame_within: Duration,
    pub(super) met_within: Duration,
    pub(super) policy: Option<&'static str>,
    pub(super) home_of: Lookup,
    /// How openers are started.
    pub(super) opener: openers::Start,
    /// Bytes that may wait in an owner's connections.
    pub(super) memory: Option<usize>,
    /// Whether metrics are told, at [`Stage::metrics`].
    pub(super) metrics: bool,
    /// Where spans are sent.
    pub(super) traces: Option<Collector>,
    /// Bytes that its launcher's channel takes before it's full, roughly; none: the machine's usual.
    pub(super) channel: Option<usize>,
    /// Whether runs go on when it's told to stop.
    pub(super) keep: bool,
    /// Where the daemon tells how it is.
    pub(super) notify: Option<PathBuf>,
    /// What requests have to pass.
    pub(super) row: Option<fn() -> Row>,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            before: None,
            slots: 64,
            queue: 64,
            grace: Duration::from_secs(10),
            retention: Duration::from_secs(600),
            unclaimed: None,
            // The test is the other side, and may be late.
            hello_within: LONG,
            frame_within: LONG,
            met_within: LONG,
            policy: None,
            home_of: crate::paths::home_of,
            opener: super::opened::opener,
            memory: None,
            metrics: false,
            traces: None,
            channel: None,
            keep: false,
            notify: None,
            row: None,
        }
    }
}

impl Stage {
    #[allow(clippy::needless_pass_by_value, reason = "tests make them on the spot")]
    pub(super) fn new(changes: Changes) -> Self {
        raise_descriptor_limit();
        let directory = tempfile::tempdir().unwrap();
        if let Some(before) = changes.before {
            before(directory.path());
        }
        // In a directory that the daemon makes: one that others may enter it refuses to a user.
        let socket = directory.path().join("daemon/s");
        let policies = directory.path().join("policies");
        std::fs::create_dir(&policies).unwrap();
        if let Some(text) = changes.policy {
            std::fs::write(policies.join("custom.toml"), text).unwrap();
        }
        let uid = rustix::process::geteuid().as_raw();
        let mut over = Configured::default();
        let mut set = |path, put: &dyn Fn(&mut Configuration)| over.set(path, Origin::Option(path), put);
        set("daemon.socket", &|to| to.daemon.socket = socket.clone().into());
        set("daemon.state-directory", &|to| {
            to.daemon.state_directory = directory.path().join("state").into();
        });
        set("telemetry.traces", &|to| to.telemetry.traces = changes.traces.clone().into());
        let metrics = changes.metrics.then(|| Endpoint::Unix(metrics_of(directory.path())));
        set("telemetry.metrics", &|to| to.telemetry.metrics = metrics.clone().into());
        let files = directory.path().join("configuration");
        std::fs::create_dir_all(files.join(DROP_INS)).unwrap();
        std::fs::write(
            files.join(FILE),
            format!(
                "[runs]\nslots = {}\nqueue = {}\nkeep = {}\n",
                changes.slots, changes.queue, changes.keep
            ),
        )
        .unwrap();
        let scope = Scope::of(uid);
        let sources = Sources { directory: Some(files), is_named: true, uid, scope, over };
        let configured = sources.load().unwrap();
        let mut limits = Limits::of(&configured.values, scope);
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        limits.grace_ms = milliseconds(changes.grace);
        limits.bounds.retention_ms = milliseconds(changes.retention);
        limits.bounds.unclaimed_ms = changes.unclaimed.map_or(limits.bounds.unclaimed_ms, milliseconds);
        limits.memory.per_owner = changes.memory.unwrap_or(limits.memory.per_owner);
        let settings = Settings {
            uid,
            scope,
            apart: false,
            pid: rustix::process::getpid().as_raw_nonzero().get(),
            hello_within: changes.hello_within,
            frame_within: changes.frame_within,
            met_within: changes.met_within,
            home_of: changes.home_of,
            opener: Some(changes.opener),
        };
        let policy_directories = vec![(policies, Trust::Operator)];
        let (orders, received) = tokio::sync::mpsc::unbounded_channel();
        let (launcher, launchers) = channel();
        let levels = Arc::new(Mutex::new(Vec::new()));
        let set_levels = Arc::clone(&levels);
        let said = Said::default();
        let saying = said.clone();
        let thread = std::thread::spawn(move || {
            let starter: Starter = Box::new(move || {
                let (ours, theirs) = socket::seqpacket_pair().unwrap();
                if let Some(bytes) = changes.channel {
                    rustix::net::sockopt::set_socket_send_buffer_size(&ours, bytes).unwrap();
                }
                // A test that is over takes no more launchers.
                let _over = launcher.send(theirs);
                Ok((Channel::new(ours), None))
            });
            let _saying = tracing::subscriber::set_default(saying);
            let set_level: SetLevel = Box::new(move |level| set_levels.lock().unwrap().push(level));
            let set_level = Some(set_level);
            let options = ServeOptions {
                configured,
                sources,
                policy_directories,
                log: None,
                set_level,
                landlock_abi: 5,
            };
            let systemd = changes.notify.as_deref().map(Systemd::at).unwrap_or_default();
            let gate = changes.row.map(|row| Gate::new(row()));
            let given = Given { orders: Some(received), systemd, gate, ..Given::default() };
            serve_with(options, settings, limits, starter, given).unwrap();
        });
        let stage = Self {
            directory,
            socket,
            orders,
            thread: Some(thread),
            launchers: Some(launchers),
            said,
            levels,
        };
        let until = Instant::now() + LONG;
        while !stage.socket.exists() {
            assert!(Instant::now() < until, "no socket");
            std::thread::yield_now();
        }
        stage
    }

    /// The next launcher that the daemon starts, after its greeting.
    pub(super) fn launcher(&self) -> Launcher {
        self.launcher_greeted().0
    }

    /// The same, and the secrets by which its door is opened, if it was given one.
    pub(super) fn launcher_greeted(&self) -> (Launcher, Option<Keep>) {
        let channel = Channel::new(
            self.launchers.as_ref().unwrap().recv_timeout(LONG).expect("no launcher is started"),
        );
        let (ours, theirs) = socket::seqpacket_pair().unwrap();
        let mut launcher = Launcher {
            channel,
            relay: Channel::new(ours),
            rings: HashMap::new(),
            heard: VecDeque::new(),
            specs: HashMap::new(),
            told: 0,
            held: HashMap::new(),
            inputs: HashMap::new(),
            workspace: None,
            released: Vec::new(),
        };
        let ToLauncher::Hello { keep, .. } = launcher.next() else { panic!("no greeting") };
        let program = Program::default();
        let (plan, memory) = (Plan::User, MemoryMechanism::Monitor);
        let hello = FromLauncher::Hello { version: 1, pid: 1, plan, memory, program, replaced: false };
        launcher.channel.send(&hello, &[theirs.as_fd()]).unwrap();
        launcher.relay.send(&FromRelay::Told, &[]).unwrap();
        (launcher, keep)
    }

    /// Where its metrics are told.
    pub(super) fn metrics(&self) -> PathBuf {
        metrics_of(self.directory.path())
    }

    pub(super) fn client(&self) -> Client {
        let mut client = self.stranger();
        client.say(&ClientMessage::Hello(Hello {
            magic: MAGIC,
            version: VERSION,
            features: features::DESCRIPTORS,
        }));
        assert!(matches!(client.next(), ServerMessage::Welcome(_)));
        client
    }

    /// A connection that has said nothing yet.
    pub(super) fn stranger(&self) -> Client {
        let until = Instant::now() + LONG;
        // A socket has its name a moment before it listens.
        let socket = loop {
            match UnixStream::connect(&self.socket) {
                Ok(socket) => break socket,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
        };
        Client { socket, frames: FrameBuffer::new(1 << 20), heard: VecDeque::new(), next_request: 0 }
    }

    pub(super) fn order(&self, order: Order) {
        self.orders.send(order).unwrap();
    }

    pub(super) fn workspace(&self) -> PathBuf {
        let path = self.directory.path().canonicalize().unwrap().join("workspace");
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    pub(super) fn request(&self) -> ExecRequest {
        ExecRequest {
            request_id: 0,
            argv: vec!["/bin/true".into()],
            environment: Vec::new(),
            cwd: Bytes::default(),
            policy: "default".into(),
            workspace: Workspace::Path { path: self.workspace().into() },
            overrides: Default::default(),
            stdin: StdinMode::None,
            output: OutputMode::Stream,
            detach: false,
            tool: None,
        }
    }

    /// Waits for the daemon's end.
    pub(super) fn join(self) {
        drop(self.join_but_keep());
    }

    /// Waits for the daemon's end; what it has left.
    pub(super) fn join_but_keep(mut self) -> tempfile::TempDir {
        self.launchers = None;
        self.thread.take().unwrap().join().expect("the daemon panicked");
        std::mem::replace(&mut self.directory, tempfile::tempdir().unwrap())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        // Launchers that nobody greeted have died.
        self.launchers = None;
        let _gone = self.orders.send(Order::Stop);
        let _gone = self.orders.send(Order::Stop);
        // A panic in the daemon is a failed test, unless the test has failed already.
        if thread.join().is_err() && !std::thread::panicking() {
            panic!("the daemon panicked");
        }
    }
}

/// As a daemon does at its start: the daemons of all tests are in one process, and share its table.
fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

fn wait_readable(fd: impl AsFd, within: Duration) -> bool {
    let mut set = [PollFd::new(&fd, PollFlags::IN)];
    let timeout = Timespec::try_from(within).unwrap();
    poll(&mut set, Some(&timeout)).unwrap() > 0
}

/// The other side of the daemon's launcher channel.
pub(super) struct Launcher {
    channel: Channel,
    pub(super) relay: Channel,
    pub(super) rings: HashMap<ExecId, Writer>,
    heard: VecDeque<(ToLauncher, Vec<OwnedFd>)>,
    /// What it was told and not told to forget.
    specs: HashMap<SpecNumber, Arc<SandboxSpec>>,
    /// How many specs it was told in all.
    pub(super) told: usize,
    /// The runs that wait.
    pub(super) held: HashMap<ExecId, (Launch, Vec<OwnedFd>)>,
    /// How much of its input a run has, once that is all.
    pub(super) inputs: HashMap<ExecId, u64>,
    /// The last launch's workspace.
    pub(super) workspace: Option<OwnedFd>,
    /// The runs it may forget.
    pub(super) released: Vec<ExecId>,
}

impl Launcher {
    fn receive(&mut self) -> (ToLauncher, Vec<OwnedFd>) {
        assert!(self.hears_within(LONG), "the launcher hears nothing");
        self.heard.pop_front().unwrap()
    }

    /// Whether something comes in this time that is more than what a launcher is to keep and to forget.
    fn hears_within(&mut self, within: Duration) -> bool {
        while self.heard.is_empty() {
            if !wait_readable(&self.channel, within) {
                return false;
            }
            match self.channel.receive().unwrap().expect("the daemon has closed the channel") {
                (ToLauncher::Spec { number, spec }, _) => {
                    assert!(self.specs.insert(number, spec).is_none(), "a number has two specs");
                    assert!(self.specs.len() <= MAX_SPECS, "more than a launcher takes");
                    self.told += 1;
                }
                (ToLauncher::Release { exec_ids }, _) => self.released.extend(exec_ids),
                (ToLauncher::InputEnded { exec_id, bytes }, _) => {
                    self.inputs.insert(exec_id, bytes);
                }
                (ToLauncher::Hold(launch), descriptors) => {
                    self.held.insert(launch.exec_id, (*launch, descriptors));
                }
                // As if it were launched now.
                (ToLauncher::Start { exec_id }, _) => {
                    let (launch, descriptors) = self.held.remove(&exec_id).expect("it isn't held");
                    self.heard.push_back((ToLauncher::Launch(Box::new(launch)), descriptors));
                }
                (ToLauncher::Cancel { exec_id, .. }, _) if self.held.remove(&exec_id).is_some() => {}
                (ToLauncher::ForgetSpec { number }, _) => {
                    assert!(self.specs.remove(&number).is_some(), "it never knew that");
                }
                other => self.heard.push_back(other),
            }
        }
        true
    }

    /// What a launch is confined to.
    pub(super) fn spec(&self, launch: &Launch) -> Arc<SandboxSpec> {
        Arc::clone(self.specs.get(&launch.spec).expect("a launch names what the launcher doesn't know"))
    }

    pub(super) fn next(&mut self) -> ToLauncher {
        self.receive().0
    }

    /// The next message, which must be a launch, with what is beside it but the workspace.
    pub(super) fn launch(&mut self) -> (Launch, Vec<OwnedFd>) {
        match self.receive() {
            (ToLauncher::Launch(launch), mut descriptors) => {
                drop(self.spec(&launch));
                if launch.note.fed {
                    // What a launcher holds until it's told that all is written.
                    drop(descriptors.pop().expect("the write end isn't there"));
                }
                self.workspace = launch.workspace_passed.then(|| descriptors.remove(0));
                (*launch, descriptors)
            }
            (other, _) => panic!("{other:?} instead of a launch"),
        }
    }

    /// The next run that is handed over, to be started or held.
    pub(super) fn next_handed(&mut self) -> ExecId {
        assert!(wait_readable(&self.channel, LONG), "nothing is handed over");
        match self.channel.receive().unwrap().expect("the daemon has closed the channel").0 {
            ToLauncher::Launch(launch) | ToLauncher::Hold(launch) => launch.exec_id,
            _ => self.next_handed(),
        }
    }

    /// Whether something comes within a moment.
    pub(super) fn hears_something(&mut self) -> bool {
        self.hears_within(Duration::from_millis(100))
    }

    /// Whether it is told within a moment, or was, that a run is needed no more.
    pub(super) fn has_released(&mut self, run: ExecId) -> bool {
        self.hears_something();
        self.released.contains(&run)
    }

    pub(super) fn say(&self, message: &FromLauncher, descriptors: &[OwnedFd]) {
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        self.channel.send(message, &descriptors).unwrap();
    }

    pub(super) fn started(&mut self, launch: &Launch) {
        let mut descriptors = Vec::new();
        if let Some(ring_bytes) = launch.output.ring_bytes() {
            let writer = self.rings.entry(launch.exec_id).or_insert_with(|| Writer::new(ring_bytes));
            descriptors.push(writer.memfd());
        }
        self.started_with(launch, &descriptors);
    }

    /// Says that the tool was started; without a ring also where output is to be relayed.
    pub(super) fn started_with(&self, launch: &Launch, descriptors: &[OwnedFd]) {
        let spec = self.spec(launch);
        let confinement = Box::new(Confinement {
            policy: spec.policy.clone(),
            policy_digest: spec.digest,
            level: Level::Strict,
            plan: Plan::User,
            layers: Vec::new(),
            memory: MemoryMechanism::Monitor,
            host_uid: 1,
            absent: Vec::new(),
            stdio: [StdioPath::Null; 3],
        });
        let exec_id = launch.exec_id;
        self.say(&FromLauncher::Started { exec_id, confinement }, descriptors);
    }

    /// Writes output, as much as may be written over, and reports it.
    pub(super) fn write(&mut self, exec_id: ExecId, payload: &[u8]) {
        self.rings.get_mut(&exec_id).unwrap().write(Stream::Stdout, payload);
        self.report(exec_id);
    }

    pub(super) fn report(&mut self, exec_id: ExecId) {
        let wrote = self.rings[&exec_id].wrote;
        let message = FromRelay::Wrote {
            exec_id,
            head: wrote.head,
            next_seq: wrote.next_seq,
            acknowledged: 0,
            oldest_offset: wrote.oldest_offset,
            oldest_seq: wrote.oldest_seq,
            eof: wrote.eof,
        };
        self.relay.send(&message, &[]).unwrap();
    }

    pub(super) fn end_output(&mut self, exec_id: ExecId) {
        self.rings.get_mut(&exec_id).unwrap().wrote.eof = true;
        self.report(exec_id);
    }

    pub(super) fn ended(&self, exec_id: ExecId, outcome: Outcome) {
        let ended = FromLauncher::Ended {
            exec_id,
            outcome,
            usage: Usage::default(),
            trusted_files: Vec::new(),
            reaped: true,
        };
        self.say(&ended, &[]);
    }

    /// A whole run: started, `payload` as output, exit code 0.
    pub(super) fn play(&mut self, payload: &[u8]) -> ExecId {
        let (launch, _descriptors) = self.launch();
        let exec_id = launch.exec_id;
        self.started(&launch);
        if launch.output != LaunchOutput::Passed {
            if !payload.is_empty() {
                self.write(exec_id, payload);
            }
            self.end_output(exec_id);
        }
        self.ended(exec_id, Outcome::Exited { code: 0 });
        exec_id
    }

    /// What the relay is told next about a run: how far it may write, `None` for "forget".
    pub(super) fn relay_hears(&self) -> (ExecId, Option<u64>) {
        assert!(wait_readable(&self.relay, LONG), "the relay hears nothing");
        match self.relay.receive().unwrap().expect("the daemon has closed the relay's socket").0 {
            ToRelay::Acknowledge { exec_id, offset } => (exec_id, Some(offset)),
            ToRelay::Forget { exec_id } => (exec_id, None),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn relay_hears_nothing(&self) -> bool {
        !wait_readable(&self.relay, Duration::from_millis(100))
    }
}

/// A client that blocks.
pub(super) struct Client {
    pub(super) socket: UnixStream,
    frames: FrameBuffer,
    heard: VecDeque<ServerMessage>,
    next_request: u64,
}

impl Client {
    pub(super) fn say(&mut self, message: &ClientMessage) {
        self.say_with(message, &[]);
    }

    pub(super) fn say_with(&mut self, message: &ClientMessage, descriptors: &[OwnedFd]) {
        assert!(self.try_say_with(message, descriptors), "the daemon has closed");
    }

    /// `false`: the daemon has closed.
    pub(super) fn try_say_with(&mut self, message: &ClientMessage, descriptors: &[OwnedFd]) -> bool {
        let mut frame = Vec::new();
        codec::encode_frame(message, 1 << 20, &mut frame).unwrap();
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        socket::send(&self.socket, &frame, &descriptors)
            .is_ok_and(|sent| self.socket.write_all(&frame[sent..]).is_ok())
    }

    /// Sends bytes as they are. `false`: the daemon has closed.
    pub(super) fn say_bytes(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).is_ok()
    }

    /// The next message; `None`: the daemon has closed.
    pub(super) fn try_next(&mut self) -> Option<ServerMessage> {
        loop {
            if let Some(message) = self.heard.pop_front() {
                return Some(message);
            }
            assert!(wait_readable(&self.socket, LONG), "the client hears nothing");
            let mut buffer = vec![0; 1 << 16];
            let received = match socket::receive(&self.socket, &mut buffer) {
                Ok(received) if received.length > 0 => received,
                _ => return None,
            };
            self.frames.push(&buffer[..received.length], received.descriptors).unwrap();
            while let Some(message) = self.frames.next_message().unwrap() {
                self.heard.push_back(message);
            }
        }
    }

    pub(super) fn next(&mut self) -> ServerMessage {
        self.try_next().expect("the daemon has closed the connection")
    }

    pub(super) fn hears_nothing(&mut self) -> bool {
        self.heard.is_empty() && !wait_readable(&self.socket, Duration::from_millis(100))
    }

    /// Whether something has come by now.
    pub(super) fn has_heard(&self) -> bool {
        !self.heard.is_empty() || wait_readable(&self.socket, Duration::ZERO)
    }

    /// Asks for a run, and waits for `Accepted`.
    pub(super) fn exec(&mut self, request: ExecRequest) -> ExecId {
        self.exec_with(request, &[])
    }

    /// Asks for a run, and waits for nothing.
    pub(super) fn ask(&mut self, request: ExecRequest) {
        self.ask_with(request, &[]);
    }

    fn ask_with(&mut self, mut request: ExecRequest, descriptors: &[OwnedFd]) {
        self.next_request += 1;
        request.request_id = self.next_request;
        self.say_with(&ClientMessage::Exec(Box::new(request)), descriptors);
    }

    pub(super) fn exec_with(&mut self, request: ExecRequest, descriptors: &[OwnedFd]) -> ExecId {
        self.ask_with(request, descriptors);
        loop {
            match self.next() {
                ServerMessage::Event { exec_id, seq: 1, event: ExecEvent::Accepted { request_id } } => {
                    assert_eq!(request_id, self.next_request);
                    return exec_id;
                }
                // Events of other runs may come first.
                ServerMessage::Event { .. } => {}
                other => panic!("{other:?} instead of Accepted"),
            }
        }
    }

    /// Asks for a run that is refused.
    pub(super) fn denied(
        &mut self,
        request: ExecRequest,
        descriptors: &[OwnedFd],
    ) -> stockade_protocol::denied::Denied {
        self.say_with(&ClientMessage::Exec(Box::new(request)), descriptors);
        match self.next() {
            ServerMessage::Denied { denied, .. } => denied,
            other => panic!("{other:?} instead of Denied"),
        }
    }

    /// The next event, which must be of this run and have the next number.
    pub(super) fn event(&mut self, exec_id: ExecId, seq: u64) -> ExecEvent {
        match self.next() {
            ServerMessage::Event { exec_id: of, seq: number, event } if of == exec_id && number == seq => {
                event
            }
            other => panic!("{other:?} instead of event {seq} of {exec_id}"),
        }
    }

    /// Everything from `seq` to the end of a run: its output and its outcome. Numbers must rise by one.
    pub(super) fn read_to_end(&mut self, exec_id: ExecId, mut seq: u64) -> (Vec<u8>, Outcome, Usage) {
        let mut output = Vec::new();
        loop {
            match self.next() {
                ServerMessage::Event { exec_id: of, seq: number, event } if of == exec_id => {
                    assert_eq!(number, seq, "{event:?}");
                    seq += 1;
                    match event {
                        ExecEvent::Output { bytes, .. } => output.extend_from_slice(&bytes),
                        ExecEvent::Exited { outcome, usage, .. } => {
                            let seq = seq - 1;
                            // A daemon that stops may have gone with its last run.
                            self.try_say_with(&ClientMessage::Acknowledge { exec_id, seq }, &[]);
                            return (output, outcome, usage);
                        }
                        ExecEvent::Started { .. } => {}
                        other => panic!("{other:?}"),
                    }
                }
                other => panic!("{other:?} instead of an event of {exec_id}"),
            }
        }
    }

    pub(super) fn runs(&mut self) -> Vec<stockade_protocol::client::RunSummary> {
        self.say(&ClientMessage::List);
        match self.next() {
            ServerMessage::Runs(runs) => runs,
            other => panic!("{other:?} instead of a list"),
        }
    }

    pub(super) fn status(&mut self) -> stockade_protocol::client::StatusReport {
        self.say(&ClientMessage::Status);
        match self.next() {
            ServerMessage::Status(status) => *status,
            other => panic!("{other:?} instead of a status"),
        }
    }
}

/// Waits until something is so.
pub(super) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::yield_now();
    }
}

pub(super) fn open(path: &Path) -> OwnedFd {
    std::fs::File::open(path).unwrap().into()
}
