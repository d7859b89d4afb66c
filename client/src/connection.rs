//! One connection, and the next one when it breaks: the handshake, frames out, frames in.
//!
//! ```text
//!   Up ── end of file, reset ──> Away ── due, connected ──> Greeting ── Welcome ──> Up
//!    └─ nothing is followed,      │ ^                           │
//!       or no path ──> Over <─────┘ └───── end of file ─────────┘
//!                       ^     in time nobody                    │
//!                       └──────────── refused, another version ─┘
//! ```
//!
//! The socket never blocks. What arrives while the caller waits for something else is kept in order in `waiting`;
//! reading pauses while [`MAX_WAITING`] messages stand there, so a caller that doesn't read its events stops its own
//! runs and costs no memory.
//!
//! Nothing here sleeps or decides by a clock of its own: [`Connection::pump`] is told the time, and
//! [`Connection::due`] says when to call it. Who wants to wait calls [`Connection::wait`], as a poll loop would wait
//! by itself.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use stockade_protocol::bounds::MAX_FRAME;
use stockade_protocol::client::{
    ClientMessage, Hello, MAGIC, ProtocolErrorCode, ServerMessage, VERSION, Welcome, features,
};
use stockade_protocol::codec;
use stockade_wire::socket;

use crate::error::ClientError;
use crate::follows::{Follows, Kept, Received};
use crate::incoming::{Incoming, Silence};
use crate::outage::{Outage, Pause, RETURN_WITHIN};

/// Messages kept for later before reading pauses.
pub(crate) const MAX_WAITING: usize = 1024;
/// Bytes read in one [`Connection::pump`], so that a flood doesn't keep a caller's loop. Little more than one payload
/// in bulk: whoever drops each event before the next gets the same memory again and again, where eight at once would
/// be given back to the kernel each time.
const BYTES_A_PUMP: usize = 64 * 1024;
/// How long a connect may wait for room in the listener's backlog. The tries after a break don't wait.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The most that [`Connection::return_within`] takes: an end that any clock can tell.
const LONGEST_RETURN: Duration = Duration::from_secs(24 * 60 * 60);

/// Until when a caller waits, and how long that is in all.
pub(crate) type Deadline = (Instant, Duration);

/// Where a connection stands.
#[derive(Debug)]
enum Link {
    /// Connected. The outage it ended, until it's clear that it's over.
    Up(OwnedFd, Option<Outage>),
    /// Broken, and not connected.
    Away(Outage),
    /// Connected again; the greeting isn't answered.
    Greeting(OwnedFd, Outage),
    /// For good.
    Over(End),
}

/// How it ended.
#[derive(Debug, Clone, Copy)]
enum End {
    /// The supervisor closed it.
    Closed,
    /// It broke, and no supervisor came back.
    Gone { within: Duration, why: Option<Errno> },
}

/// Told of a pause that lasts.
struct Listener {
    after: Duration,
    tell: Box<dyn FnMut(Pause) + Send>,
    told: bool,
}

impl core::fmt::Debug for Listener {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Listener")
            .field("after", &self.after)
            .field("told", &self.told)
            .finish_non_exhaustive()
    }
}

impl Listener {
    /// When to tell of a pause; `None`: it was told, or never will be.
    fn due(&self, pause: Pause) -> Option<Instant> {
        if self.told { None } else { pause.since.checked_add(self.after) }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Connection {
    link: Link,
    incoming: Incoming,
    waiting: VecDeque<Received>,
    follows: Follows,
    welcome: Welcome,
    /// Whether a supervisor has ever answered our greeting.
    greeted: bool,
    /// Whether the last [`Connection::pump`] ended before the socket was empty.
    more: bool,
    /// Where to connect again. `None`: nowhere.
    address: Option<SocketAddrUnix>,
    return_within: Duration,
    listener: Option<Listener>,
}

impl Connection {
    /// Connects, waiting at most [`ANSWER_WITHIN`] while the listener's backlog is full.
    pub(crate) fn connect(path: &Path) -> rustix::io::Result<(OwnedFd, SocketAddrUnix)> {
        let address = SocketAddrUnix::new(path)?;
        let socket = new_socket(SocketFlags::empty())?;
        set_socket_timeout(&socket, Timeout::Send, Some(ANSWER_WITHIN))?;
        rustix::net::connect(&socket, &address)?;
        Ok((socket, address))
    }

    /// Greets over a socket that is connected. Doesn't wait for the answer.
    pub(crate) fn over(socket: OwnedFd, address: Option<SocketAddrUnix>) -> Result<Self, ClientError> {
        rustix::io::ioctl_fionbio(&socket, true).map_err(ClientError::io("make the socket non-blocking"))?;
        let welcome = Welcome { version: VERSION, features: 0, max_frame: MAX_FRAME, server: String::new() };
        let mut connection = Self {
            link: Link::Up(socket, None),
            incoming: Incoming::new(),
            waiting: VecDeque::new(),
            follows: Follows::default(),
            welcome,
            greeted: false,
            more: false,
            address,
            return_within: RETURN_WITHIN,
            listener: None,
        };
        connection.send(&hello(), &[])?;
        Ok(connection)
    }

    pub(crate) fn return_within(&mut self, within: Duration) {
        self.return_within = within.min(LONGEST_RETURN);
    }

    pub(crate) fn on_pause(&mut self, after: Duration, tell: Box<dyn FnMut(Pause) + Send>) {
        self.listener = Some(Listener { after, tell, told: false });
    }

    pub(crate) fn is_greeted(&self) -> bool {
        self.greeted
    }

    pub(crate) fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// What to poll for reading; `None` while nothing is connected.
    pub(crate) fn socket(&self) -> Option<BorrowedFd<'_>> {
        match &self.link {
            Link::Up(socket, _) | Link::Greeting(socket, _) => Some(socket.as_fd()),
            Link::Away(_) | Link::Over(_) => None,
        }
    }

    /// The pause there is now, if there is one.
    pub(crate) fn pause(&self) -> Option<Pause> {
        match &self.link {
            Link::Away(outage) | Link::Greeting(_, outage) => Some(outage.pause()),
            Link::Up(..) | Link::Over(_) => None,
        }
    }

    /// When to pump at the latest, whether the socket is readable or not.
    pub(crate) fn due(&self) -> Option<Instant> {
        let (pause, due) = match &self.link {
            Link::Up(..) | Link::Over(_) => return None,
            Link::Away(outage) => (outage.pause(), outage.due()),
            Link::Greeting(_, outage) => (outage.pause(), outage.pause().until),
        };
        let to_tell = self.listener.as_ref().and_then(|listener| listener.due(pause));
        Some(to_tell.map_or(due, |to_tell| to_tell.min(due)))
    }

    /// Reads what is there, and in a pause does what is due.
    pub(crate) fn pump(&mut self, now: Instant) -> Result<(), ClientError> {
        if let Some(pause) = self.pause() {
            self.tell(pause, now);
        }
        match &self.link {
            Link::Away(outage) | Link::Greeting(_, outage) if outage.is_over(now) => {
                self.link = Link::Over(End::Gone { within: self.return_within, why: outage.why() });
            }
            Link::Away(outage) if now >= outage.due() => self.try_again(now),
            _ => {}
        }
        let done = self.read(now);
        if done.is_err() && !matches!(self.link, Link::Up(..)) {
            self.link = Link::Over(End::Closed);
        }
        done
    }

    fn read(&mut self, now: Instant) -> Result<(), ClientError> {
        self.more = false;
        let mut came = 0;
        while came < BYTES_A_PUMP {
            let socket = match &self.link {
                Link::Up(socket, _) if self.waiting.len() < MAX_WAITING => socket,
                Link::Greeting(socket, _) => socket,
                _ => return Ok(()),
            };
            match self.incoming.fill(socket) {
                Ok(bytes) => came += bytes,
                Err(Silence::WouldBlock) => return Ok(()),
                Err(Silence::Closed) => {
                    self.broke(now);
                    return Ok(());
                }
                Err(Silence::Io(source)) => {
                    return Err(ClientError::Io { doing: "read from the supervisor", source });
                }
            }
            while let Some(message) = self.incoming.next()? {
                match &mut self.link {
                    Link::Up(_, outage) if self.greeted => {
                        *outage = None;
                        self.follows.take(message, &mut self.waiting);
                    }
                    _ => self.greet(message, now)?,
                }
            }
        }
        self.more = true;
        Ok(())
    }

    /// Takes the first message there is: the answer to our greeting, or why there is none.
    fn greet(&mut self, message: ServerMessage, now: Instant) -> Result<(), ClientError> {
        match message {
            ServerMessage::Welcome(welcome) if welcome.version == VERSION => self.welcome = welcome,
            ServerMessage::Welcome(welcome) => {
                return Err(ClientError::Version { theirs: welcome.version, ours: VERSION });
            }
            // Everybody comes back at once; there will be room.
            ServerMessage::Error(error)
                if self.pause().is_some() && error.code == ProtocolErrorCode::TooMany =>
            {
                self.broke(now);
                return Ok(());
            }
            ServerMessage::Error(error) => return Err(ClientError::Refused(error)),
            _ => return Err(ClientError::Unexpected("something else before its welcome")),
        }
        self.greeted = true;
        match core::mem::replace(&mut self.link, Link::Over(End::Closed)) {
            Link::Greeting(socket, mut outage) => {
                outage.back(now);
                self.link = Link::Up(socket, Some(outage));
                self.resume()
            }
            link => {
                self.link = link;
                Ok(())
            }
        }
    }

    /// Asks a supervisor that is back for what the one before owed us.
    fn resume(&mut self) -> Result<(), ClientError> {
        let mut frames = Vec::new();
        for message in self.follows.resume(&mut self.waiting) {
            codec::encode_frame(&message, self.frame_limit(), &mut frames)?;
        }
        self.write(&frames, &[]).map(drop)
    }

    /// The supervisor has gone. What to do about it depends on whether it owes us anything.
    fn broke(&mut self, now: Instant) {
        self.incoming = Incoming::new();
        self.more = false;
        self.follows.broke(&mut self.waiting);
        let returns = self.greeted && self.address.is_some() && self.follows.any();
        let returns = returns && !self.return_within.is_zero();
        self.link = match core::mem::replace(&mut self.link, Link::Over(End::Closed)) {
            Link::Up(_, outage) if returns => match outage.and_then(|outage| outage.again(now)) {
                Some(outage) => Link::Away(outage),
                None => {
                    if let Some(listener) = &mut self.listener {
                        listener.told = false;
                    }
                    Link::Away(Outage::new(now, self.return_within))
                }
            },
            Link::Greeting(_, mut outage) | Link::Away(mut outage) => {
                outage.failed(now, None);
                Link::Away(outage)
            }
            Link::Up(..) => Link::Over(End::Closed),
            over @ Link::Over(_) => over,
        };
    }

    /// One try to connect and to greet.
    fn try_again(&mut self, now: Instant) {
        let Some(address) = &self.address else { return };
        // Without waiting, for the sake of the caller's loop: a full backlog is one more failure.
        let greeted = new_socket(SocketFlags::NONBLOCK).and_then(|socket| {
            rustix::net::connect(&socket, address)?;
            greet(&socket).map(|()| socket)
        });
        self.link = match (core::mem::replace(&mut self.link, Link::Over(End::Closed)), greeted) {
            (Link::Away(outage), Ok(socket)) => Link::Greeting(socket, outage),
            (Link::Away(mut outage), Err(errno)) => {
                outage.failed(now, Some(errno));
                Link::Away(outage)
            }
            (link, _) => link,
        };
    }

    fn tell(&mut self, pause: Pause, now: Instant) {
        if let Some(listener) = &mut self.listener
            && listener.due(pause).is_some_and(|due| now >= due)
        {
            listener.told = true;
            (listener.tell)(pause);
        }
    }

    /// The next message that was read; `None`: nothing yet. At the connection's end, the error.
    pub(crate) fn next_waiting(&mut self) -> Option<Received> {
        match self.waiting.pop_front() {
            Some(Ok(ServerMessage::Error(error))) => Some(Err(ClientError::Refused(error))),
            Some(received) => Some(received),
            None => match self.link {
                Link::Over(end) => Some(Err(end.error())),
                _ => None,
            },
        }
    }

    /// Sends one message; while the socket takes no more, reads what comes. In a pause keeps it for later, or waits for
    /// the pause's end with what can't be kept.
    pub(crate) fn send(
        &mut self,
        message: &ClientMessage,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ClientError> {
        let mut frame = Vec::new();
        loop {
            // Each time: the next supervisor may take less.
            frame.clear();
            codec::encode_frame(message, self.frame_limit(), &mut frame)?;
            match &self.link {
                Link::Up(..) => {
                    if let Some(doubt) = self.take_doubt(message) {
                        return Err(doubt);
                    }
                    // What wasn't sent whole was never there, and so can be sent again.
                    if self.write(&frame, descriptors)? {
                        self.follows.sent(message);
                        return Ok(());
                    }
                }
                Link::Away(_) | Link::Greeting(..) => match self.follows.keep(message) {
                    Kept::Yes => return Ok(()),
                    Kept::No => {
                        self.wait(PollFlags::IN, None)?;
                        self.pump(Instant::now())?;
                    }
                },
                Link::Over(end) => return Err(self.last_words().unwrap_or_else(|| end.error())),
            }
        }
    }

    /// Input must not go on after a gap that nobody has heard of.
    fn take_doubt(&mut self, message: &ClientMessage) -> Option<ClientError> {
        let (ClientMessage::StdinData { exec_id: ours, .. } | ClientMessage::StdinEof { exec_id: ours }) =
            message
        else {
            return None;
        };
        let is_ours = |received: &Received| matches!(received, Err(ClientError::InputInDoubt { exec_id }) if exec_id == ours);
        self.waiting.remove(self.waiting.iter().position(is_ours)?)?.err()
    }

    fn frame_limit(&self) -> u32 {
        self.welcome.max_frame.min(MAX_FRAME)
    }

    /// Whether everything was written. If not, the connection has broken.
    fn write(&mut self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<bool, ClientError> {
        let mut rest = bytes;
        let mut beside = descriptors;
        while !rest.is_empty() {
            let Link::Up(socket, _) = &self.link else { return Ok(false) };
            match socket::send(socket, rest, beside) {
                Ok(sent) => {
                    rest = &rest[sent..];
                    beside = &[];
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => self.wait_writable()?,
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset
                    ) =>
                {
                    self.read_out()?;
                    return Ok(false);
                }
                Err(source) => return Err(ClientError::Io { doing: "write to the supervisor", source }),
            }
        }
        Ok(true)
    }

    /// Takes what a supervisor said before it went: events, perhaps why.
    fn read_out(&mut self) -> Result<(), ClientError> {
        let now = Instant::now();
        loop {
            self.read(now)?;
            if !self.more {
                break;
            }
        }
        if matches!(self.link, Link::Up(..)) {
            self.broke(now);
        }
        Ok(())
    }

    fn last_words(&self) -> Option<ClientError> {
        self.waiting.iter().find_map(|received| match received {
            Ok(ServerMessage::Error(error)) => Some(ClientError::Refused(error.clone())),
            _ => None,
        })
    }

    /// Messages that were read and not taken, for who looks for one among them.
    pub(crate) fn waiting(&mut self) -> &mut VecDeque<Received> {
        &mut self.waiting
    }

    /// The connection's end, if it has come.
    pub(crate) fn end(&self) -> Option<ClientError> {
        match self.link {
            Link::Over(end) => Some(end.error()),
            _ => None,
        }
    }

    /// Waits until there may be something to pump.
    pub(crate) fn wait_readable(&self, deadline: Option<Deadline>) -> Result<(), ClientError> {
        if self.more || matches!(self.link, Link::Over(_)) {
            Ok(())
        } else {
            self.wait(PollFlags::IN, deadline).map(drop)
        }
    }

    fn wait_writable(&mut self) -> Result<(), ClientError> {
        let reads = if self.waiting.len() < MAX_WAITING { PollFlags::IN } else { PollFlags::empty() };
        if self.wait(PollFlags::OUT | reads, None)?.contains(PollFlags::IN) {
            self.pump(Instant::now())?;
        }
        Ok(())
    }

    /// Waits for the socket, or until something is due.
    fn wait(&self, flags: PollFlags, deadline: Option<Deadline>) -> Result<PollFlags, ClientError> {
        loop {
            let due = self.due();
            let left = |at: Instant| at.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
            let mut least = None;
            if let Some((at, within)) = deadline {
                least = Some(left(at).ok_or(ClientError::Silent(within))?);
            }
            if let Some(due) = due {
                let Some(left) = left(due) else { return Ok(PollFlags::empty()) };
                least = Some(least.map_or(left, |least| left.min(least)));
            }
            let timeout = least.and_then(|left| Timespec::try_from(left).ok());
            let mut polled = self.socket().map(|socket| PollFd::from_borrowed_fd(socket, flags));
            match rustix::event::poll(polled.as_mut_slice(), timeout.as_ref()) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(polled.map_or(PollFlags::empty(), |polled| polled.revents())),
                Err(errno) => return Err(ClientError::io("wait for the supervisor")(errno)),
            }
        }
    }
}

impl End {
    fn error(self) -> ClientError {
        match self {
            Self::Closed => ClientError::Closed,
            Self::Gone { within, why } => ClientError::Gone { within, source: why.map(Into::into) },
        }
    }
}

fn hello() -> ClientMessage {
    ClientMessage::Hello(Hello { magic: MAGIC, version: VERSION, features: features::DESCRIPTORS })
}

/// Sends a greeting into a socket that is new, and so has room for it.
fn greet(socket: &OwnedFd) -> rustix::io::Result<()> {
    let mut frame = Vec::new();
    codec::encode_frame(&hello(), MAX_FRAME, &mut frame).map_err(|_| Errno::INVAL)?;
    match socket::send(socket, &frame, &[]) {
        Ok(sent) if sent == frame.len() => Ok(()),
        Ok(_) => Err(Errno::AGAIN),
        Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    }
}

fn new_socket(flags: SocketFlags) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | flags;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}
