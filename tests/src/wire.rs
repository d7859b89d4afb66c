//! The client's wire, spoken by hand: whole messages, or bytes that are none.

use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use stockade_protocol::Bytes;
use stockade_protocol::client::{
    ClientMessage, ExecEvent, ExecRequest, Hello, MAGIC, OutputMode, Overrides, ServerMessage, StdinMode,
    VERSION, Workspace, features,
};
use stockade_protocol::{ExecId, bounds, codec};
use stockade_wire::frames::FrameBuffer;

use crate::{Daemon, Ground, Person};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What came, or that nothing will.
#[derive(Debug, Clone, PartialEq)]
pub enum Came {
    /// A message.
    Message(Box<ServerMessage>),
    /// The daemon closed the connection.
    Closed,
    /// Nothing within the time.
    Nothing,
}

/// One connection.
#[derive(Debug)]
pub struct Wire {
    stream: UnixStream,
    frames: FrameBuffer,
    helper: Option<(Child, UnixStream)>,
}

impl Wire {
    /// Connects as a person. A daemon looks at its peer's process, so where that isn't us the probe connects for us,
    /// passes the connection and stays.
    #[must_use]
    pub fn connect(daemon: &Daemon, person: Person) -> Self {
        Self::try_connect(daemon, person).unwrap()
    }

    /// As [`connect`](Self::connect), to a daemon that may be gone.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn try_connect(daemon: &Daemon, person: Person) -> std::io::Result<Self> {
        let (stream, helper) = if person == Person::me() {
            (UnixStream::connect(&daemon.socket)?, None)
        } else {
            let (stream, child, pair) = handed_over(daemon, person)?;
            (stream, Some((child, pair)))
        };
        Ok(Self { stream, frames: FrameBuffer::new(bounds::MAX_FRAME), helper })
    }

    /// Connects as who runs the tests, with a socket that has a name, and greets.
    #[must_use]
    pub fn named(daemon: &Daemon) -> Self {
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let socket = socket.unwrap();
        let name = format!("stockade-test-{}", ExecId::generate());
        rustix::net::bind(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap()).unwrap();
        rustix::net::connect(&socket, &SocketAddrUnix::new(&daemon.socket).unwrap()).unwrap();
        let mut wire =
            Self { stream: socket.into(), frames: FrameBuffer::new(bounds::MAX_FRAME), helper: None };
        wire.greet();
        wire
    }

    /// Connects and greets.
    #[must_use]
    pub fn greeted(daemon: &Daemon, person: Person) -> Self {
        let mut wire = Self::connect(daemon, person);
        wire.greet();
        wire
    }

    /// Greets, and is welcomed.
    pub fn greet(&mut self) {
        self.send(&hello(VERSION), &[]);
        match self.receive(PATIENCE) {
            Came::Message(message) if matches!(*message, ServerMessage::Welcome(_)) => {}
            other => panic!("no welcome but {other:?}"),
        }
    }

    /// Sends a message; panics if the daemon has closed.
    pub fn send(&mut self, message: &ClientMessage, descriptors: &[BorrowedFd<'_>]) {
        self.try_send(message, descriptors).unwrap();
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The socket's.
    pub fn try_send(
        &mut self,
        message: &ClientMessage,
        descriptors: &[BorrowedFd<'_>],
    ) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        codec::encode_frame(message, bounds::MAX_FRAME, &mut bytes).unwrap();
        let sent = stockade_wire::socket::send(&self.stream, &bytes, descriptors)?;
        self.stream.write_all(&bytes[sent..])
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The socket's.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends no more.
    pub fn finish_sending(&self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// The next message.
    #[must_use]
    pub fn receive(&mut self, within: Duration) -> Came {
        let deadline = Instant::now() + within;
        loop {
            if let Some(message) = self.frames.next_message().unwrap() {
                return Came::Message(Box::new(message));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Came::Nothing;
            }
            self.stream.set_read_timeout(Some(left)).unwrap();
            let mut buffer = vec![0; 128 * 1024];
            match stockade_wire::socket::receive(&self.stream, &mut buffer) {
                Ok(received) if received.length == 0 => return Came::Closed,
                Ok(received) => self.frames.push(&buffer[..received.length], received.descriptors).unwrap(),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Came::Nothing,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Came::Closed,
                Err(error) => panic!("receiving: {error}"),
            }
        }
    }

    /// Whatever bytes come next; `None`: nothing within the time. None at all: the daemon closed the connection.
    #[must_use]
    pub fn receive_bytes(&mut self, within: Duration) -> Option<Vec<u8>> {
        self.stream.set_read_timeout(Some(within.max(Duration::from_millis(1)))).unwrap();
        let mut buffer = vec![0; 128 * 1024];
        match std::io::Read::read(&mut self.stream, &mut buffer) {
            Ok(length) => Some(buffer[..length].to_vec()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Some(Vec::new()),
            Err(error) => panic!("receiving: {error}"),
        }
    }

    /// Sends bytes with descriptors beside them.
    pub fn send_bytes_with(&mut self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let sent = stockade_wire::socket::send(&self.stream, bytes, descriptors).unwrap();
        self.stream.write_all(&bytes[sent..]).unwrap();
    }

    /// How long sending may block.
    pub fn set_patience(&self, within: Duration) {
        self.stream.set_write_timeout(Some(within)).unwrap();
    }

    /// The next message, which must come.
    #[must_use]
    pub fn message(&mut self) -> ServerMessage {
        match self.receive(PATIENCE) {
            Came::Message(message) => *message,
            other => panic!("no message but {other:?}"),
        }
    }

    /// Asks for a run and follows it to its end: everything that came, with its sequence numbers.
    #[must_use]
    pub fn run(&mut self, request: ExecRequest, workspace: &OwnedFd) -> Vec<(u64, ExecEvent)> {
        self.send(&ClientMessage::Exec(Box::new(request)), &[workspace.as_fd()]);
        self.follow()
    }

    /// Follows the one run of this connection to its end.
    #[must_use]
    pub fn follow(&mut self) -> Vec<(u64, ExecEvent)> {
        let mut events = Vec::new();
        loop {
            match self.message() {
                ServerMessage::Event { exec_id, seq, event } => {
                    let is_last = matches!(event, ExecEvent::Exited { .. });
                    events.push((seq, event));
                    if is_last {
                        self.send(&ClientMessage::Acknowledge { exec_id, seq }, &[]);
                        return events;
                    }
                }
                other => panic!("not an event: {other:?}"),
            }
        }
    }

    /// The id of the run that was accepted next.
    #[must_use]
    pub fn accepted(&mut self) -> ExecId {
        match self.message() {
            ServerMessage::Event { exec_id, event: ExecEvent::Accepted { .. }, .. } => exec_id,
            other => panic!("not accepted: {other:?}"),
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some((mut helper, _pair)) = self.helper.take() {
            let _ = helper.kill();
            let _ = helper.wait();
        }
    }
}

fn handed_over(daemon: &Daemon, person: Person) -> std::io::Result<(UnixStream, Child, UnixStream)> {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = std::process::Command::new(&daemon.ground.binaries.probe);
    command.arg("hand-over-connection").arg(&daemon.socket).stdout(Stdio::null());
    command.stdin(Stdio::from(OwnedFd::from(theirs)));
    person.take(&mut command);
    let mut helper = command.current_dir("/").spawn().unwrap();
    drop(command);
    let received = stockade_wire::socket::receive(&ours, &mut [0; 1]).ok();
    let Some(passed) = received.and_then(|received| received.descriptors.into_iter().next()) else {
        helper.wait()?;
        return Err(std::io::ErrorKind::ConnectionRefused.into());
    };
    Ok((UnixStream::from(passed), helper, ours))
}

/// A greeting of a version.
#[must_use]
pub fn hello(version: u16) -> ClientMessage {
    ClientMessage::Hello(Hello { magic: MAGIC, version, features: features::DESCRIPTORS })
}

/// A request with streams, in the ground's workspace, whose descriptor is to be passed.
#[must_use]
pub fn request(ground: &Ground, policy: &str, words: &[&str]) -> ExecRequest {
    ExecRequest {
        request_id: 1,
        argv: words.iter().map(|word| Bytes::from(*word)).collect(),
        environment: vec![(Bytes::from("PATH"), Bytes::from(crate::ground::PATH))],
        cwd: Bytes::default(),
        policy: policy.to_owned(),
        workspace: Workspace::Descriptor { path: Bytes::from(ground.work()) },
        overrides: Overrides::default(),
        stdin: StdinMode::None,
        output: OutputMode::Stream,
        detach: false,
        tool: None,
    }
}

/// The ground's workspace, open for being passed.
#[must_use]
pub fn workspace(ground: &Ground) -> OwnedFd {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(ground.work(), flags, Mode::empty()).unwrap()
}

/// The bytes of a message's frame.
#[must_use]
pub fn frame(message: &ClientMessage) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode_frame(message, bounds::MAX_FRAME, &mut bytes).unwrap();
    bytes
}
