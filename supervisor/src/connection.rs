//! One client's connection: frames in, frames out, and when to stop.
//!
//! ```text
//! accepted ──> peer judged ──> Hello (5 s) ──> messages ──> closed by either side
//!                  │ refused        │ late, wrong          │ a frame that breaks the protocol
//!                  └────────────────┴──────────────────────┴──> Error frame, then closed
//! ```
//!
//! The first byte says which door it is: a `Hello`'s, or that of JSON-RPC (`json`), whose messages are others and whose state is the same.
//!
//! Two loops share the socket in one task. The reader takes one message at a time and stops taking any while the
//! last one's effect has no room: the run's input, the answers that wait, the launcher's queue. The writer sends
//! what the outbox has. Neither can be made to hold more than its bounds, and neither waits for another client.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::net::Shutdown;
use stockade_jsonrpc::{Framing, Kind};
use stockade_protocol::bounds::MAX_FRAME;
use stockade_protocol::client::{
    ClientMessage, ExecRequest, Hello, MAGIC, ProtocolError, ProtocolErrorCode, ServerMessage, VERSION,
    Welcome, Workspace, features,
};
use stockade_protocol::codec::CodecError;
use stockade_protocol::outcome::SetupFailure;
use stockade_wire::frames::FrameBuffer;
use stockade_wire::socket::{self, Received};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::aside::{Aside, Foreign};
use crate::daemon::{Daemon, Found, Pause, Sending};
use crate::dispatcher::ConnectionId;
use crate::ledger::Entry;
use crate::outbox::Outbox;
use crate::peer;
use crate::proof::Proof;
use crate::turn::Turn;
use crate::watched::Watched;

mod json;

/// How long the last frame may take to leave.
const LAST_FRAME_WITHIN: Duration = Duration::from_secs(1);

/// How long a full socket is left alone when there is no descriptor to wait for it by.
const ROOM_PAUSE: Duration = Duration::from_millis(20);

/// How long a workspace's opener is waited for before it's looked whether its client is still there.
const SOON: Duration = Duration::from_millis(10);

/// The largest opening frame: who hasn't opened yet can't make us keep more.
const MAX_HELLO: u32 = 1024;

/// The most bytes that are read only to be forgotten.
const DISCARDED: usize = 4 * 1024 * 1024;

/// Serves one connection until its end.
pub(crate) async fn serve(daemon: Rc<Daemon>, socket: OwnedFd) {
    let socket = match Watched::new(socket) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(%error, "a connection can't be watched");
            return;
        }
    };
    let owner = talk(&daemon, &socket).await;
    close(&daemon.aside, owner, socket.into_inner());
}

/// Tells somebody for whom no descriptor is left, and closes the connection.
pub(crate) fn turn_away(daemon: &Daemon, socket: OwnedFd) {
    let owner = getsockopt(&socket, PeerCredentials).ok().map(|peer| peer.uid());
    refuse(daemon, owner, &socket, ProtocolErrorCode::TooMany, NO_DESCRIPTOR.to_owned());
    close(&daemon.aside, owner, socket);
}

/// Closes a connection's socket: aside if something is in it, since its descriptors are closed with it.
fn close(aside: &Aside, owner: Option<u32>, socket: OwnedFd) {
    // From here on nothing comes in any more; and the client hears of the end, whoever else has the connection as a proof.
    let shut = rustix::net::shutdown(&socket, Shutdown::Both);
    let is_empty = shut.is_ok() && rustix::io::ioctl_fionread(&socket) == Ok(0);
    if !is_empty {
        drop(aside.hold(owner, socket));
    }
}

/// Everything between the first and the last byte. Whose connection it was, if that could be told.
async fn talk(daemon: &Rc<Daemon>, socket: &Watched) -> Option<u32> {
    let viewer = daemon.state.borrow().viewer();
    let peer = match peer::inspect(socket.get_ref(), &viewer) {
        Ok(peer) => peer,
        Err(error) => {
            let text = crate::admission::chain(&error);
            tracing::warn!(reason = text, "a peer is refused");
            refuse(daemon, None, socket.get_ref(), ProtocolErrorCode::NotPermitted, text);
            return None;
        }
    };
    let uid = peer.owner.uid;
    if let Some(text) = too_many(daemon, uid) {
        refuse(daemon, Some(uid), socket.get_ref(), ProtocolErrorCode::TooMany, text);
        return Some(uid);
    }
    let mut outbox = Outbox::new(peer.owner.clone(), daemon.state.borrow().ledger.entry(uid));
    outbox.pid = peer.pid;
    outbox.unit = peer.unit;
    outbox.is_visitor = peer.is_visitor;
    if daemon.settings.has_to_prove() {
        match Proof::of(socket.get_ref(), |socket| daemon.state.borrow().copy(socket)) {
            Ok(proof) => outbox.proof = proof,
            Err(error) => {
                let text = format!("the connection can't be kept to show launchers who asks: {error}");
                refuse(daemon, Some(uid), socket.get_ref(), ProtocolErrorCode::TooMany, text);
                return Some(uid);
            }
        }
    }
    let (bell, room) = (Rc::clone(&outbox.bell), Rc::clone(&outbox.room));
    let id = daemon.state.borrow_mut().connect(outbox);
    tracing::debug!(connection = id.0, pid = peer.pid, uid, "connected");
    let mut connection = Connection { daemon, socket, id, uid, room, unsure: false, lacks_room: false };
    let end = tokio::select! {
        end = connection.serve() => end,
        () = write(daemon, socket, id, &bell) => End::Gone,
    };
    if let End::Broken(error) = end {
        tracing::info!(connection = id.0, code = ?error.code, reason = error.text, "the protocol was broken");
        daemon.state.borrow_mut().answer(id, &ServerMessage::Error(error));
        let _late = timeout(LAST_FRAME_WITHIN, write_out(daemon, socket, id)).await;
        discard(daemon, Some(uid), socket.get_ref());
    }
    daemon.state.borrow_mut().disconnect(id);
    tracing::debug!(connection = id.0, "disconnected");
    Some(uid)
}

fn too_many(daemon: &Daemon, uid: u32) -> Option<String> {
    let state = daemon.state.borrow();
    let limits = &state.limits;
    let own = state.connections.values().filter(|outbox| outbox.owner.uid == uid).count();
    if state.connections.len() >= limits.connections {
        return Some(format!("the daemon has {} connections already", limits.connections));
    }
    (own >= limits.connections_per_owner)
        .then(|| format!("user {uid} has {} connections already", limits.connections_per_owner))
}

/// Sends an error to somebody who won't be a client.
fn refuse(daemon: &Daemon, owner: Option<u32>, socket: &OwnedFd, code: ProtocolErrorCode, text: String) {
    daemon.state.borrow().figures.broken(code);
    let mut frame = Vec::new();
    let message = ServerMessage::Error(ProtocolError { code, text });
    if crate::frames::push(&message, &mut frame).is_err() {
        return;
    }
    // One frame fits a fresh socket's buffer; if it doesn't, the peer only loses the explanation.
    let _sent = socket::send(socket, &frame, &[]);
    discard(daemon, owner, socket);
}

/// Takes what the peer has sent and nobody will read: a socket that is closed over unread bytes resets the peer
/// instead of letting it read our last frame to its end. What brings descriptors that there is no room for stays.
fn discard(daemon: &Daemon, owner: Option<u32>, socket: &OwnedFd) {
    let mut buffer = [0; 4096];
    let mut left = DISCARDED;
    while left > 0
        && let Ok(Some((received, _))) = receive(daemon, owner, socket, &mut buffer)
        && received.length > 0
    {
        // However little comes at a time.
        left = left.saturating_sub(buffer.len());
        received.descriptors.into_iter().for_each(|descriptor| drop(daemon.aside.hold(owner, descriptor)));
    }
}

/// Receives what a client has sent, and says whether it was too much. `None`: it may bring descriptors, and there is no room for
/// them, or too many of this owner's wait to be closed.
fn receive(
    daemon: &Daemon,
    owner: Option<u32>,
    socket: &OwnedFd,
    buffer: &mut [u8],
) -> io::Result<Option<(Received, bool)>> {
    let is_behind = daemon.aside.is_behind(owner);
    let mut length = buffer.len();
    if is_behind || daemon.state.borrow().table.is_tight() {
        match socket::without_descriptors(socket, buffer)? {
            Some(bytes) => length = bytes,
            None if is_behind || !daemon.state.borrow().has_room_for_a_message() => return Ok(None),
            None => {}
        }
    }
    let received = socket::receive(socket, &mut buffer[..length])?;
    let state = daemon.state.borrow();
    // All of them: each that is too much has to be seen.
    let full = received.descriptors.iter().filter(|descriptor| state.is_too_full_for(descriptor)).count();
    Ok(Some((received, full > 0)))
}

/// What is told to who would take the last descriptors.
const NO_DESCRIPTOR: &str = "the daemon has no descriptor left for clients: come back when others have gone, or raise its limit on open files";

/// Why reading ended.
enum End {
    Gone,
    Broken(ProtocolError),
}

impl From<ProtocolError> for End {
    fn from(error: ProtocolError) -> Self {
        Self::Broken(error)
    }
}

fn broken(code: ProtocolErrorCode, text: impl Into<String>) -> End {
    End::Broken(ProtocolError { code, text: text.into() })
}

/// What is told to who has passed more than can be closed.
fn unclosed(uid: u32) -> End {
    let text =
        format!("descriptors that user {uid} has passed can't be closed; does their filesystem answer?");
    broken(ProtocolErrorCode::TooMany, text)
}

struct Connection<'a> {
    daemon: &'a Rc<Daemon>,
    socket: &'a Watched,
    id: ConnectionId,
    uid: u32,
    room: Rc<Notify>,
    /// Readiness was cleared while bytes may be waiting: read before waiting.
    unsure: bool,
    /// What waits may bring descriptors, and there is no room for them.
    lacks_room: bool,
}

impl Connection<'_> {
    async fn serve(&mut self) -> End {
        match self.read_all().await {
            Ok(never) => never,
            Err(end) => end,
        }
    }

    async fn read_all(&mut self) -> Result<End, End> {
        let entry = self.daemon.state.borrow().ledger.entry(self.uid);
        let mut incoming = Incoming::new(self.daemon.aside.clone(), self.uid, entry);
        let frames = &mut incoming;
        let settings = &self.daemon.settings;
        let until = Instant::now() + settings.hello_within;
        let kind = loop {
            if let Some(first) = frames.buffer.begun().first() {
                break Kind::of_first_byte(*first);
            }
            self.fill(frames, Some(until), "the opening frame").await?;
        };
        if let Some(kind) = kind {
            return self.read_json(kind, frames, until).await;
        }
        let hello: ClientMessage = loop {
            if let Some(message) = next_message(&mut frames.buffer)? {
                break message;
            }
            self.fill(frames, Some(until), "the opening frame").await?;
        };
        self.welcome(&hello)?;
        frames.buffer.set_limit(MAX_FRAME);
        let mut turn = Turn::default();
        loop {
            let mut since: Option<Instant> = None;
            let message = loop {
                if let Some(message) = next_message(&mut frames.buffer)? {
                    break message;
                }
                if frames.buffer.is_mid_frame() {
                    since.get_or_insert_with(Instant::now);
                } else if frames.buffer.waiting_descriptors() > 0 {
                    return Err(broken(
                        ProtocolErrorCode::Unexpected,
                        "descriptors came that no message names",
                    ));
                }
                let until = since.map(|since| since + settings.frame_within);
                self.fill(frames, until, "a frame").await?;
            };
            self.take(message, frames).await?;
            turn.took_one().await;
        }
    }

    async fn take(&mut self, message: ClientMessage, frames: &mut Incoming) -> Result<(), End> {
        // First, since it takes longest: the rest has to hold when the message has its effect.
        let found = match &message {
            ClientMessage::Exec(request) => {
                let home = self.home().await?;
                Found { home, workspace: self.workspace(request).await? }
            }
            _ => Found::default(),
        };
        self.wait_for_room().await;
        self.wait_for_closings().await?;
        let pause =
            self.daemon.state.borrow_mut().message(self.id, message, found, || frames.take_descriptor())?;
        frames.count();
        self.is_within_memory()?;
        self.pause(pause).await
    }

    fn is_within_memory(&self) -> Result<(), End> {
        match self.daemon.state.borrow().connections.get(&self.id) {
            Some(outbox) if outbox.is_overdrawn => {
                Err(broken(ProtocolErrorCode::TooMany, outbox.entry.refusal()))
            }
            _ => Ok(()),
        }
    }

    /// What has to happen before the next message.
    async fn pause(&mut self, pause: Pause) -> Result<(), End> {
        if let Pause::Feed(feed) = pause {
            tokio::select! {
                () = feed.room() => {}
                () = self.hang_up() => return Err(End::Gone),
            }
        }
        Ok(())
    }

    /// The peer's home. Waited for without the loop, and no longer than the peer is there.
    async fn home(&mut self) -> Result<PathBuf, End> {
        let looking = self.daemon.homes.of(self.uid);
        tokio::select! {
            home = looking => Ok(home),
            () = self.hang_up() => Err(End::Gone),
        }
    }

    /// The workspace that a request names by its path, opened as the peer. Waited for without the loop, and no longer than the
    /// peer is there.
    async fn workspace(
        &mut self,
        request: &ExecRequest,
    ) -> Result<Option<Result<Foreign, SetupFailure>>, End> {
        let Workspace::Path { path } = &request.workspace else { return Ok(None) };
        let client = self.daemon.state.borrow_mut().opens_for(self.id, path);
        let Some(client) = client else { return Ok(None) };
        let daemon = self.daemon;
        let mut opening = core::pin::pin!(daemon.open_as(&client, path));
        // Nearly always it's there before it would be worth a look at who waits.
        if let Ok(opened) = timeout(SOON, &mut opening).await {
            return Ok(Some(opened));
        }
        tokio::select! {
            opened = opening => Ok(Some(opened)),
            () = self.hang_up() => Err(End::Gone),
        }
    }

    fn welcome(&self, message: &ClientMessage) -> Result<(), End> {
        let ClientMessage::Hello(Hello { magic, version, features: theirs }) = message else {
            return Err(broken(ProtocolErrorCode::Unexpected, "the first frame must be a Hello"));
        };
        if *magic != MAGIC || *version == 0 {
            let text = format!("this isn't the opening of Stockade's protocol, version 1 to {VERSION}");
            return Err(broken(ProtocolErrorCode::Version, text));
        }
        let welcome = Welcome {
            version: (*version).min(VERSION),
            features: theirs & features::DESCRIPTORS,
            max_frame: MAX_FRAME,
            server: format!("stockade {}", env!("CARGO_PKG_VERSION")),
        };
        self.daemon.state.borrow_mut().answer(self.id, &ServerMessage::Welcome(welcome));
        Ok(())
    }

    /// Waits until the answers that wait and the launcher's queue are within their bounds.
    async fn wait_for_room(&self) {
        loop {
            let (answers, queue) = {
                let state = self.daemon.state.borrow();
                let is_full = |outbox: &Outbox| outbox.waiting() >= outbox.answers();
                (state.connections.get(&self.id).is_some_and(is_full), state.links.full())
            };
            match queue {
                Some(queue) => queue.notified().await,
                None if answers => self.room.notified().await,
                None => return,
            }
        }
    }

    /// Waits until not too much of what this owner has passed waits to be closed.
    async fn wait_for_closings(&mut self) -> Result<(), End> {
        if !self.daemon.aside.is_behind(Some(self.uid)) {
            return Ok(());
        }
        let (daemon, uid, within) = (self.daemon, self.uid, self.daemon.settings.frame_within);
        tokio::select! {
            caught_up = timeout(within, daemon.aside.caught_up(uid)) => caught_up.map_err(|_elapsed| unclosed(uid)),
            () = self.hang_up() => Err(End::Gone),
        }
    }

    /// Reads once, by a deadline if there is one.
    async fn fill(&mut self, frames: &mut Incoming, until: Option<Instant>, what: &str) -> Result<(), End> {
        let Some(until) = until else { return self.read(frames).await };
        match timeout_at(until, self.read(frames)).await {
            Ok(read) => read,
            // It's here, and we that don't take it.
            Err(_elapsed) if self.lacks_room => Err(self.no_room()),
            Err(_elapsed) => Err(broken(ProtocolErrorCode::Slow, format!("{what} took too long to arrive"))),
        }
    }

    /// Why nothing is taken that may bring descriptors.
    fn no_room(&self) -> End {
        if self.daemon.aside.is_behind(Some(self.uid)) {
            unclosed(self.uid)
        } else {
            broken(ProtocolErrorCode::TooMany, NO_DESCRIPTOR)
        }
    }

    /// Reads once, as soon as there is room for what may come.
    async fn read(&mut self, frames: &mut Incoming) -> Result<(), End> {
        let mut since = None;
        self.lacks_room = false;
        while !self.read_once(frames).await? {
            self.lacks_room = true;
            let since = since.get_or_insert_with(Instant::now);
            if since.elapsed() >= self.daemon.settings.frame_within {
                return Err(self.no_room());
            }
            tokio::select! {
                () = sleep(ROOM_PAUSE) => self.unsure = true,
                () = self.hang_up() => return Err(End::Gone),
            }
        }
        Ok(())
    }

    /// `false`: what comes may bring descriptors, and there is no room for them now.
    async fn read_once(&mut self, frames: &mut Incoming) -> Result<bool, End> {
        // One buffer for all connections: it is borrowed for the length of a system call and a copy.
        let mut take = |socket: &OwnedFd| -> io::Result<Result<bool, End>> {
            let mut buffer = self.daemon.received.borrow_mut();
            let Some((received, is_full)) = receive(self.daemon, Some(self.uid), socket, &mut buffer)? else {
                return Ok(Ok(false));
            };
            let pushed = frames.push(&buffer, received);
            Ok(if is_full {
                Err(broken(ProtocolErrorCode::TooMany, NO_DESCRIPTOR))
            } else {
                pushed.map(|()| true)
            })
        };
        if self.unsure {
            match take(self.socket.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.unsure = false,
                Err(_broken) => return Err(End::Gone),
                // More may wait, and no edge will tell: a client whose socket is full writes nothing new.
                Ok(pushed) => return pushed,
            }
        }
        loop {
            let mut guard = self.socket.readable().await.map_err(|_error| End::Gone)?;
            match guard.try_io(|socket| take(socket.get_ref())) {
                Err(_would_block) => {}
                Ok(Err(_broken)) => return Err(End::Gone),
                Ok(Ok(pushed)) => return pushed,
            }
        }
    }

    /// Waits until the client has closed its end, while nothing is read.
    async fn hang_up(&mut self) {
        loop {
            let Ok(mut guard) = self.socket.readable().await else { return };
            if guard.ready().is_read_closed() {
                return;
            }
            guard.clear_ready();
            self.unsure = true;
        }
    }
}

/// The reading side of a connection. What descriptors no message has taken are closed aside.
struct Incoming {
    buffer: FrameBuffer,
    /// In place of the buffer, for JSON.
    text: Option<Framing>,
    aside: Aside,
    owner: u32,
    /// What the bytes take.
    entry: Entry,
}

impl Incoming {
    fn new(aside: Aside, owner: u32, entry: Entry) -> Self {
        Self { buffer: FrameBuffer::new(MAX_HELLO), text: None, aside, owner, entry }
    }

    fn count(&self) {
        self.entry.set(self.held_with(0));
    }

    /// Bytes of memory that this takes, with so many bytes more at least.
    fn held_with(&self, more: usize) -> usize {
        self.text.as_ref().map_or_else(|| self.buffer.held_with(more), |text| text.held_with(more))
    }

    /// Reads JSON from here on, what has come included.
    fn become_text(&mut self, kind: Kind) -> Result<(), End> {
        let mut text = Framing::new(kind);
        text.push(self.buffer.begun());
        self.buffer.forget_begun();
        self.text = Some(text);
        self.count();
        self.has_no_descriptors()
    }

    /// What JSON can't name mustn't come along with it.
    fn has_no_descriptors(&self) -> Result<(), End> {
        let came = self.text.is_some() && self.buffer.waiting_descriptors() > 0;
        if came {
            Err(broken(ProtocolErrorCode::Unexpected, "descriptors came beside JSON, which can't name them"))
        } else {
            Ok(())
        }
    }

    fn take_descriptor(&mut self) -> Option<Foreign> {
        let descriptor = self.buffer.take_descriptor()?;
        Some(self.aside.hold(Some(self.owner), descriptor))
    }

    fn push(&mut self, bytes: &[u8], received: Received) -> Result<(), End> {
        let memory = self.entry.allows(self.held_with(received.length));
        // Before anything else: in the buffer they can't be closed by a return.
        let mut bytes = &bytes[..received.length];
        if let Some(text) = &mut self.text {
            text.push(core::mem::take(&mut bytes));
        }
        let pushed = self.buffer.push(bytes, received.descriptors);
        if received.truncated {
            return Err(broken(ProtocolErrorCode::Unexpected, "more descriptors than a message may carry"));
        }
        if received.length == 0 {
            return Err(End::Gone);
        }
        if !memory {
            return Err(broken(ProtocolErrorCode::TooMany, self.entry.refusal()));
        }
        self.count();
        self.has_no_descriptors()?;
        pushed.map_err(|error| broken(ProtocolErrorCode::Unexpected, error.to_string()))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        while let Some(descriptor) = self.take_descriptor() {
            drop(descriptor);
        }
    }
}

fn next_message(frames: &mut FrameBuffer) -> Result<Option<ClientMessage>, End> {
    frames.next_message().map_err(|error| {
        let code = match error {
            CodecError::TooLarge { .. } => ProtocolErrorCode::TooLarge,
            _ => ProtocolErrorCode::Malformed,
        };
        broken(code, error.to_string())
    })
}

/// Sends whatever comes, until the client has gone.
async fn write(daemon: &Rc<Daemon>, socket: &Watched, id: ConnectionId, bell: &Notify) {
    loop {
        let sending = daemon.state.borrow_mut().send(id, socket.get_ref());
        match sending {
            Sending::Gone => return,
            Sending::Idle => bell.notified().await,
            Sending::More => tokio::task::yield_now().await,
            Sending::Blocked => {
                if wait_writable(daemon, socket, id).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Sends what waits, and no more.
async fn write_out(daemon: &Rc<Daemon>, socket: &Watched, id: ConnectionId) {
    loop {
        let sending = daemon.state.borrow_mut().send(id, socket.get_ref());
        match sending {
            Sending::Gone | Sending::Idle => return,
            Sending::More => tokio::task::yield_now().await,
            Sending::Blocked => {
                if wait_writable(daemon, socket, id).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Waits until the socket takes bytes again. The readiness that tokio remembers may be older than the attempt that
/// blocked, so it counts only if another attempt agrees.
async fn wait_writable(daemon: &Rc<Daemon>, socket: &Watched, id: ConnectionId) -> io::Result<()> {
    loop {
        let Ok(mut guard) = socket.writable(|socket| daemon.state.borrow().copy(socket)).await else {
            // No descriptor is left to be told by: look again in a moment.
            sleep(ROOM_PAUSE).await;
            return Ok(());
        };
        let again = guard.try_io(|socket| {
            let sending = daemon.state.borrow_mut().send(id, socket.get_ref());
            match sending {
                Sending::Blocked => Err(io::ErrorKind::WouldBlock.into()),
                Sending::Gone => Err(io::ErrorKind::BrokenPipe.into()),
                Sending::Idle | Sending::More => Ok(()),
            }
        });
        if let Ok(result) = again {
            return result;
        }
    }
}
