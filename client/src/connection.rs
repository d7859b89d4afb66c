//! One connection: the handshake, frames out, frames in.
//!
//! The socket never blocks. What arrives while the caller waits for something else is kept in order in
//! `waiting`; reading pauses while [`MAX_WAITING`] bytes' worth of messages stand there, so a caller that doesn't
//! read its events stops its own runs and costs no memory.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use stockade_protocol::bounds::{MAX_FRAME, MAX_STDIN_CHUNK};
use stockade_protocol::client::{
    ClientMessage, ExecEvent, Hello, MAGIC, RunSummary, ServerMessage, StatusReport, VERSION, Welcome,
    features,
};
use stockade_protocol::{Bytes, ExecId, codec};
use stockade_wire::socket;

use crate::error::{ClientError, ConnectError};
use crate::incoming::{Incoming, Silence};
use crate::request::Request;

/// Messages kept for later before reading pauses.
const MAX_WAITING: usize = 1024;
/// Bytes read in one [`Client::pump`], so that a flood doesn't keep a caller's loop. Little more than one payload in
/// bulk: whoever drops each event before the next gets the same memory again and again, where eight at once would be
/// given back to the kernel each time.
const BYTES_A_PUMP: usize = 64 * 1024;

/// One thing that happened to one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunEvent {
    /// The run.
    pub exec_id: ExecId,
    /// Its place among the run's events.
    pub seq: u64,
    /// What.
    pub event: ExecEvent,
}

/// One connection to the supervisor.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    /// Boxed, so that a connection stays small wherever it's held.
    incoming: Box<Incoming>,
    waiting: VecDeque<ServerMessage>,
    welcome: Welcome,
    /// Whether the supervisor has answered our greeting.
    greeted: bool,
    last_request: u64,
    /// Whether the last [`Client::pump`] ended before the socket was empty.
    more: bool,
    closed: bool,
}

impl Client {
    /// How long the handshake, and an answer to `List` or `Status`, may take.
    pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);

    /// Connects to the supervisor's socket and greets it.
    ///
    /// # Errors
    /// [`ConnectError::Socket`] when nobody can be reached, [`ConnectError::Handshake`] when somebody is there but
    /// doesn't want this client, or doesn't speak its version.
    pub fn connect(path: &Path) -> Result<Self, ConnectError> {
        let mut client = Self::open(path)?;
        let greeted = client.wait_for_welcome();
        greeted.map(|()| client).map_err(|source| ConnectError::Handshake { path: path.into(), source })
    }

    /// As [`Client::connect`], but doesn't wait for the answer: what is asked meanwhile is on its way already. That the
    /// supervisor doesn't want this client is the error of the first thing that is received.
    ///
    /// # Errors
    /// [`ConnectError::Socket`]; [`ConnectError::Handshake`] when it closes at once.
    pub fn open(path: &Path) -> Result<Self, ConnectError> {
        let open = || -> rustix::io::Result<OwnedFd> {
            let socket = rustix::net::socket_with(
                AddressFamily::UNIX,
                SocketType::STREAM,
                SocketFlags::CLOEXEC,
                None,
            )?;
            // Bounds connect(2), which waits while the listener's backlog is full.
            rustix::net::sockopt::set_socket_timeout(
                &socket,
                rustix::net::sockopt::Timeout::Send,
                Some(Self::ANSWER_WITHIN),
            )?;
            rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
            Ok(socket)
        };
        let socket =
            open().map_err(|errno| ConnectError::Socket { path: path.into(), source: errno.into() })?;
        Self::greeting(socket).map_err(|source| ConnectError::Handshake { path: path.into(), source })
    }

    /// Greets the supervisor over a socket that is connected already.
    ///
    /// # Errors
    /// [`ClientError`]; nothing but a `Welcome` of this version counts as an answer.
    pub fn over(socket: OwnedFd) -> Result<Self, ClientError> {
        let mut client = Self::greeting(socket)?;
        client.wait_for_welcome()?;
        Ok(client)
    }

    fn greeting(socket: OwnedFd) -> Result<Self, ClientError> {
        rustix::io::ioctl_fionbio(&socket, true).map_err(ClientError::io("make the socket non-blocking"))?;
        let welcome = Welcome { version: VERSION, features: 0, max_frame: MAX_FRAME, server: String::new() };
        let mut client = Self {
            socket,
            incoming: Box::new(Incoming::new()),
            waiting: VecDeque::new(),
            welcome,
            greeted: false,
            last_request: 0,
            more: false,
            closed: false,
        };
        let hello = Hello { magic: MAGIC, version: VERSION, features: features::DESCRIPTORS };
        client.send(&ClientMessage::Hello(hello), &[])?;
        Ok(client)
    }

    /// Waits for the answer to our greeting, if it isn't there yet.
    ///
    /// # Errors
    /// [`ClientError`]; nothing but a `Welcome` of this version counts as an answer.
    pub fn wait_for_welcome(&mut self) -> Result<(), ClientError> {
        let deadline = Some((Instant::now() + Self::ANSWER_WITHIN, Self::ANSWER_WITHIN));
        while !self.greeted {
            if let Some(message) = self.next_waiting() {
                message?;
            }
            self.wait_readable(deadline)?;
            self.pump()?;
        }
        Ok(())
    }

    /// Takes the first message there is: the answer to our greeting, or why there is none.
    fn greet(&mut self, message: ServerMessage) -> Result<(), ClientError> {
        match message {
            ServerMessage::Welcome(welcome) if welcome.version == VERSION => {
                self.greeted = true;
                self.welcome = welcome;
                Ok(())
            }
            ServerMessage::Welcome(welcome) => {
                Err(ClientError::Version { theirs: welcome.version, ours: VERSION })
            }
            ServerMessage::Error(error) => Err(ClientError::Refused(error)),
            _ => Err(ClientError::Unexpected("something else before its welcome")),
        }
    }

    /// Whether the supervisor has answered our greeting: until then an error is one of the greeting.
    #[must_use]
    pub fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// What the supervisor said when greeted: its release, version and limits. Before that, what this client can take.
    #[must_use]
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Asks for a run and waits until it's admitted.
    ///
    /// # Errors
    /// [`ClientError::Denied`] when it isn't: nothing ran.
    pub fn exec(&mut self, request: &Request) -> Result<ExecId, ClientError> {
        let ours = self.begin(request)?;
        self.wait_for(None, |message| match message {
            ServerMessage::Event { exec_id, event: ExecEvent::Accepted { request_id }, .. }
                if *request_id == ours =>
            {
                Some(Ok(*exec_id))
            }
            ServerMessage::Denied { request_id, denied, .. } if *request_id == ours => {
                Some(Err(ClientError::Denied(denied.clone())))
            }
            _ => None,
        })?
    }

    /// Asks for a run and doesn't wait. Its `Accepted` or its denial comes with the id that this returns.
    ///
    /// # Errors
    /// [`ClientError::Codec`] when the request is too large to be sent at all.
    pub fn begin(&mut self, request: &Request) -> Result<u64, ClientError> {
        self.last_request += 1;
        let mut exec = request.exec().clone();
        exec.request_id = self.last_request;
        self.send(&ClientMessage::Exec(Box::new(exec)), &request.descriptors())?;
        Ok(self.last_request)
    }

    /// Sends standard input to a run whose request said [`Request::stdin_stream`].
    ///
    /// # Errors
    /// [`ClientError`]; that the run is gone comes later, as a denial.
    pub fn stdin(&mut self, exec_id: ExecId, bytes: &[u8]) -> Result<(), ClientError> {
        for chunk in bytes.chunks(MAX_STDIN_CHUNK) {
            self.send(&ClientMessage::StdinData { exec_id, bytes: Bytes::from(chunk) }, &[])?;
        }
        Ok(())
    }

    /// Ends a run's standard input.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn stdin_eof(&mut self, exec_id: ExecId) -> Result<(), ClientError> {
        self.send(&ClientMessage::StdinEof { exec_id }, &[])
    }

    /// Sends a signal to a run's process group.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn signal(&mut self, exec_id: ExecId, signal: u8) -> Result<(), ClientError> {
        self.send(&ClientMessage::Signal { exec_id, signal }, &[])
    }

    /// Ends a run: the whole tree, at once. Its `Exited` follows.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn cancel(&mut self, exec_id: ExecId) -> Result<(), ClientError> {
        self.send(&ClientMessage::Cancel { exec_id }, &[])
    }

    /// Follows a run's events from after a sequence number; 0: from the first that is kept.
    ///
    /// # Errors
    /// [`ClientError`]; that there's no such run comes later, as a denial.
    pub fn attach(&mut self, exec_id: ExecId, after_seq: u64) -> Result<(), ClientError> {
        self.send(&ClientMessage::Attach { exec_id, after_seq }, &[])
    }

    /// Tells the supervisor that a run's events up to this one needn't be kept.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn acknowledge(&mut self, exec_id: ExecId, seq: u64) -> Result<(), ClientError> {
        self.send(&ClientMessage::Acknowledge { exec_id, seq }, &[])
    }

    /// Sends any message and doesn't wait.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn ask(&mut self, message: &ClientMessage) -> Result<(), ClientError> {
        self.send(message, &[])
    }

    /// The caller's runs.
    ///
    /// # Errors
    /// [`ClientError::Silent`] when no answer comes in time.
    pub fn list(&mut self) -> Result<Vec<RunSummary>, ClientError> {
        self.send(&ClientMessage::List, &[])?;
        self.wait_for(Some(Self::ANSWER_WITHIN), |message| match message {
            ServerMessage::Runs(runs) => Some(core::mem::take(runs)),
            _ => None,
        })
    }

    /// How the supervisor is.
    ///
    /// # Errors
    /// [`ClientError::Silent`] when no answer comes in time.
    pub fn status(&mut self) -> Result<StatusReport, ClientError> {
        self.send(&ClientMessage::Status, &[])?;
        self.wait_for(Some(Self::ANSWER_WITHIN), |message| match message {
            ServerMessage::Status(report) => Some(report.as_ref().clone()),
            _ => None,
        })
    }

    /// A run's events until its `Exited`, waiting for each. Events of other runs stay for later. A denial that
    /// names the run (there's no such run) ends it with that error.
    pub fn events(&mut self, exec_id: ExecId) -> Events<'_> {
        Events { client: self, exec_id, done: false }
    }

    /// The next message of any kind, waiting for it at most so long.
    ///
    /// # Errors
    /// [`ClientError::Silent`] when none came in time; [`ClientError::Refused`] and [`ClientError::Closed`] at the
    /// connection's end.
    pub fn receive(&mut self, within: Option<Duration>) -> Result<ServerMessage, ClientError> {
        let deadline = within.map(|within| (Instant::now() + within, within));
        loop {
            if let Some(message) = self.next_waiting() {
                return message;
            }
            self.wait_readable(deadline)?;
            self.pump()?;
        }
    }

    /// Reads what is there without waiting; call it when the socket is readable, then take messages with
    /// [`Client::next_waiting`].
    ///
    /// # Errors
    /// [`ClientError::Codec`] for bytes that are no message; the connection is of no use then.
    pub fn pump(&mut self) -> Result<(), ClientError> {
        self.more = false;
        let mut came = 0;
        while came < BYTES_A_PUMP {
            if self.closed || self.waiting.len() >= MAX_WAITING {
                return Ok(());
            }
            match self.incoming.fill(&self.socket) {
                Ok(bytes) => came += bytes,
                Err(Silence::WouldBlock) => return Ok(()),
                Err(Silence::Closed) => {
                    self.closed = true;
                    return Ok(());
                }
                Err(Silence::Io(source)) => {
                    return Err(ClientError::Io { doing: "read from the supervisor", source });
                }
            }
            while let Some(message) = self.incoming.next()? {
                if self.greeted { self.waiting.push_back(message) } else { self.greet(message)? }
            }
        }
        self.more = true;
        Ok(())
    }

    /// The next message that [`Client::pump`] read; `None`: nothing yet. At the connection's end, the error.
    pub fn next_waiting(&mut self) -> Option<Result<ServerMessage, ClientError>> {
        match self.waiting.pop_front() {
            Some(ServerMessage::Error(error)) => Some(Err(ClientError::Refused(error))),
            Some(message) => Some(Ok(message)),
            None if self.closed => Some(Err(ClientError::Closed)),
            None => None,
        }
    }

    /// Sends one message. While the socket takes no more, reads what comes.
    fn send(&mut self, message: &ClientMessage, descriptors: &[BorrowedFd<'_>]) -> Result<(), ClientError> {
        let mut frame = Vec::new();
        codec::encode_frame(message, self.welcome.max_frame.min(MAX_FRAME), &mut frame)?;
        let mut rest = frame.as_slice();
        let mut beside = descriptors;
        while !rest.is_empty() {
            match socket::send(&self.socket, rest, beside) {
                Ok(sent) => {
                    rest = &rest[sent..];
                    beside = &[];
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => self.wait_writable()?,
                // The supervisor may have said why before it closed.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Err(self.last_words()),
                Err(source) => return Err(ClientError::Io { doing: "write to the supervisor", source }),
            }
        }
        Ok(())
    }

    fn last_words(&mut self) -> ClientError {
        loop {
            if let Err(error) = self.pump() {
                return error;
            }
            if !self.more {
                break;
            }
        }
        let error = self.waiting.iter().find_map(|message| match message {
            ServerMessage::Error(error) => Some(error.clone()),
            _ => None,
        });
        error.map_or(ClientError::Closed, ClientError::Refused)
    }

    /// Waits for the message that answers; what doesn't is kept in its order.
    fn wait_for<T>(
        &mut self,
        within: Option<Duration>,
        mut answers: impl FnMut(&mut ServerMessage) -> Option<T>,
    ) -> Result<T, ClientError> {
        let deadline = within.map(|within| (Instant::now() + within, within));
        let mut seen = 0;
        loop {
            while seen < self.waiting.len() {
                if let ServerMessage::Error(error) = &self.waiting[seen] {
                    return Err(ClientError::Refused(error.clone()));
                }
                if let Some(answer) = answers(&mut self.waiting[seen]) {
                    self.waiting.remove(seen);
                    return Ok(answer);
                }
                seen += 1;
            }
            if self.closed {
                return Err(ClientError::Closed);
            }
            if self.waiting.len() >= MAX_WAITING {
                return Err(ClientError::Unexpected("more events than are kept while waiting for an answer"));
            }
            self.wait_readable(deadline)?;
            self.pump()?;
        }
    }

    fn wait_readable(&self, deadline: Option<(Instant, Duration)>) -> Result<(), ClientError> {
        if self.more { Ok(()) } else { self.wait(PollFlags::IN, deadline).map(drop) }
    }

    fn wait_writable(&mut self) -> Result<(), ClientError> {
        let reads = if self.waiting.len() < MAX_WAITING { PollFlags::IN } else { PollFlags::empty() };
        if self.wait(PollFlags::OUT | reads, None)?.contains(PollFlags::IN) {
            self.pump()?;
        }
        Ok(())
    }

    fn wait(
        &self,
        flags: PollFlags,
        deadline: Option<(Instant, Duration)>,
    ) -> Result<PollFlags, ClientError> {
        loop {
            let left = match deadline {
                None => None,
                Some((at, within)) => match at.checked_duration_since(Instant::now()) {
                    None => return Err(ClientError::Silent(within)),
                    Some(left) => Timespec::try_from(left).ok(),
                },
            };
            let mut polled = [PollFd::new(&self.socket, flags)];
            match rustix::event::poll(&mut polled, left.as_ref()) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(polled[0].revents()),
                Err(errno) => return Err(ClientError::io("wait for the supervisor")(errno)),
            }
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A run's events until its `Exited`; see [`Client::events`].
#[derive(Debug)]
pub struct Events<'a> {
    client: &'a mut Client,
    exec_id: ExecId,
    done: bool,
}

impl Iterator for Events<'_> {
    type Item = Result<RunEvent, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let ours = self.exec_id;
        let event = self.client.wait_for(None, |message| match message {
            ServerMessage::Event { exec_id, seq, event } if *exec_id == ours => {
                // The message is removed next; its bytes are taken, not copied.
                let event = core::mem::replace(event, ExecEvent::OutputLost { events: 0 });
                Some(Ok(RunEvent { exec_id: ours, seq: *seq, event }))
            }
            ServerMessage::Denied { exec_id: Some(exec_id), denied, .. } if *exec_id == ours => {
                Some(Err(ClientError::Denied(denied.clone())))
            }
            _ => None,
        });
        let event = event.and_then(core::convert::identity);
        self.done = !matches!(&event, Ok(event) if !matches!(event.event, ExecEvent::Exited { .. }));
        Some(event)
    }
}
