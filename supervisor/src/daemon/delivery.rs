//! Events on their way: from runs into connections' buffers, from buffers into sockets, and what that acknowledges.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::net::SendFlags;
use stockade_protocol::ExecId;
use stockade_protocol::client::{ExecEvent, ServerMessage};
use stockade_protocol::codec::CodecError;
use stockade_protocol::ring::FIRST_SEQ;

use super::hiding;
use super::state::State;
use crate::dispatcher::{ConnectionId, Event, Phase};
use crate::frames::{Frames, Workshop};
use crate::outbox::Mark;
use crate::output::{Place, Read, Ring};
use crate::redacted::Piece;
use crate::runs::Run;

/// How far sending has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sending {
    /// Nothing waits.
    Idle,
    /// There is more, after others had their turn.
    More,
    /// The socket takes no more for now.
    Blocked,
    /// The client has gone.
    Gone,
}

/// Bytes that one turn sends before other connections get theirs.
const TURN: usize = 1024 * 1024;

impl State {
    /// Sends what one connection can be sent now.
    pub(crate) fn send(&mut self, connection: ConnectionId, socket: impl AsFd) -> Sending {
        let mut turn = 0;
        self.workshop.spent = Duration::ZERO;
        loop {
            let is_spent = self.fill(connection);
            let Some(outbox) = self.connections.get_mut(&connection) else { return Sending::Gone };
            if outbox.waiting() == 0 && is_spent {
                self.take_marks(connection);
                return Sending::More;
            }
            if outbox.waiting() == 0 && outbox.has_reached() {
                // What was read and isn't told yet: it waits for its run's end, or for the rest of a character.
                self.take_marks(connection);
                continue;
            }
            if outbox.waiting() == 0 {
                outbox.rest(&mut self.workshop.spare);
                return Sending::Idle;
            }
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match rustix::net::send(&socket, outbox.to_send(), flags) {
                Ok(sent) => {
                    outbox.went(sent);
                    turn += sent;
                    self.take_marks(connection);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) if io::Error::from(errno).kind() == io::ErrorKind::WouldBlock => {
                    return Sending::Blocked;
                }
                Err(_) => return Sending::Gone,
            }
            if turn >= TURN || is_spent {
                return Sending::More;
            }
        }
    }

    /// Moves events of the runs that a connection follows into its buffer, a batch a run in turn. Whether others are to have
    /// their turn before it goes on.
    fn fill(&mut self, connection: ConnectionId) -> bool {
        loop {
            let Some(outbox) = self.connections.get_mut(&connection) else { return false };
            if self.workshop.spent >= hiding::SPENT {
                return true;
            }
            let Some(id) = outbox.next_ready() else { return false };
            let Some(run) = self.runs.get_mut(&id) else { continue };
            let put = fill_from(id, run, outbox, &mut self.workshop);
            self.figures.redacted(core::mem::take(&mut self.workshop.marks));
            match put {
                Ok(true) => outbox.make_ready(id),
                Ok(false) => {}
                Err(error) => tracing::error!(parent: run.span(), %error, "an event can't be sent"),
            }
        }
    }

    fn take_marks(&mut self, connection: ConnectionId) {
        loop {
            let Some(outbox) = self.connections.get_mut(&connection) else { return };
            match outbox.reached() {
                None => break,
                Some(Mark::Output(run, offset)) => {
                    if let Some(following) = outbox.following.get_mut(&run) {
                        following.taken = following.taken.max(offset);
                    }
                    self.settle_acknowledgement(run);
                }
                Some(Mark::Exited(run)) => {
                    outbox.unfollow(run);
                    if let Some(run) = self.runs.get_mut(&run) {
                        run.followers.retain(|other| *other != connection);
                    }
                    self.settle_acknowledgement(run);
                    self.handle(Event::Delivered { connection, run });
                }
            }
        }
        self.links.nudge_relays();
    }

    /// Works out what the relay may write over: what every follower of the owner's has; without any, everything. Tells the
    /// dispatcher whether a client holds up the end of the run. Who looks on by rules of access holds nothing up.
    pub(super) fn settle_acknowledgement(&mut self, id: ExecId) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        if run.ring_bytes.is_none() {
            return;
        }
        let connections = &self.connections;
        let owner = run.owner;
        let following = |connection| {
            let outbox = connections.get(connection).filter(|outbox| outbox.owner.uid == owner)?;
            outbox.following.get(&id)
        };
        let slowest = run.followers.iter().filter_map(following).map(|following| following.taken).min();
        // What nobody follows nobody waits for, unless its client was cut off and may come back: then whoever else follows it
        // has no say.
        let floor = if run.is_unclaimed { run.taken } else { slowest.unwrap_or(run.wrote.head) };
        let held = floor < run.wrote.head;
        run.taken = floor.max(run.taken);
        if let Some(offset) = run.to_acknowledge() {
            run.acknowledged = offset;
            self.links.acknowledge(run.launcher, id, offset);
        }
        let owner = run.owner;
        if matches!(self.dispatcher.phase(id, owner), Some(Phase::Closing { .. })) {
            self.handle(Event::Taken { now: self.now(), run: id, held });
        }
    }
}

/// Puts the next events of a run into a buffer. Whether there may be more.
fn fill_from(
    id: ExecId,
    run: &mut Run,
    outbox: &mut crate::outbox::Outbox,
    workshop: &mut Workshop,
) -> Result<bool, CodecError> {
    let Some(following) = outbox.following.get(&id) else { return Ok(false) };
    let mut place = following.place;
    if following.complete || !run.has(place.seq) {
        return Ok(false);
    }
    if run.exited.as_ref().is_some_and(|exited| exited.seq == place.seq)
        && !hiding::has_more(run, following.reader.as_deref())
    {
        return put_exited(id, run, outbox, workshop);
    }
    match place.seq {
        1 => {
            place.seq = 2;
            let event = ExecEvent::Accepted { request_id: run.request_id };
            put_event(id, 1, event, outbox, workshop)?;
        }
        2 => {
            place.seq = FIRST_SEQ;
            put_started(id, run, outbox, workshop)?;
        }
        _ if run.redacting.is_some() => return hiding::put(id, run, outbox, workshop),
        _ => return put_output(id, run, outbox, workshop),
    }
    if let Some(following) = outbox.following.get_mut(&id) {
        following.place = place;
    }
    Ok(true)
}

pub(super) fn put_event(
    exec_id: ExecId,
    seq: u64,
    event: ExecEvent,
    outbox: &mut crate::outbox::Outbox,
    workshop: &mut Workshop,
) -> Result<(), CodecError> {
    outbox.say(&ServerMessage::Event { exec_id, seq, event }, workshop)
}

/// Lends the run's report to the event, and takes it back.
fn put_started(
    exec_id: ExecId,
    run: &mut Run,
    outbox: &mut crate::outbox::Outbox,
    workshop: &mut Workshop,
) -> Result<(), CodecError> {
    let Some(confinement) = run.confinement.take() else { return Ok(()) };
    let message = ServerMessage::Event { exec_id, seq: 2, event: ExecEvent::Started { confinement } };
    let put = outbox.say(&message, workshop);
    if let ServerMessage::Event { event: ExecEvent::Started { confinement }, .. } = message {
        run.confinement = Some(confinement);
    }
    put
}

fn put_exited(
    id: ExecId,
    run: &Run,
    outbox: &mut crate::outbox::Outbox,
    workshop: &mut Workshop,
) -> Result<bool, CodecError> {
    let Some(exited) = &run.exited else { return Ok(false) };
    let reader = outbox.following.get(&id).and_then(|following| following.reader.as_deref());
    let redactions = hiding::hidden(run, reader);
    let event = ExecEvent::Exited {
        outcome: exited.outcome.clone(),
        usage: run.final_usage(),
        trusted_files: run.trusted_files.clone(),
        redactions,
        result_check: run.result_check.clone(),
    };
    outbox.say_tails(id, exited.seq - 1, workshop);
    put_event(id, exited.seq, event, outbox, workshop)?;
    if let Some(following) = outbox.following.get_mut(&id) {
        following.place.seq = exited.seq + 1;
        following.complete = true;
    }
    outbox.mark(Mark::Exited(id));
    Ok(false)
}

/// Looks at what of a run's output the client has already: it may end within a character. What was written over can't be looked at,
/// and what is left of such a character is told as bytes. No longer than a ring is, and once.
fn pass_over(
    id: ExecId,
    ring: &Ring,
    (run, place): (&Run, &mut Place),
    outbox: &mut crate::outbox::Outbox,
    workshop: &mut Workshop,
) {
    if let Some(following) = outbox.following.get_mut(&id) {
        following.knows_tails = true;
    }
    let began = Instant::now();
    let mut passed = Place { seq: run.wrote.oldest_seq, offset: Some(run.wrote.oldest_offset) };
    let bounds = (place.seq, run.is_settled(), run.acknowledged);
    let mut piece = core::mem::take(&mut workshop.piece);
    while passed.seq < place.seq {
        match ring.read(&run.wrote, &mut passed, bounds, &mut piece) {
            Ok(Read::Records) => {
                piece.records().for_each(|(record, bytes)| outbox.pass_over(id, record.stream, bytes));
            }
            Ok(Read::Lost(_)) => outbox.forget_tails(id),
            Ok(Read::Nothing) | Err(_) => {
                outbox.forget_tails(id);
                break;
            }
        }
        piece.clear();
    }
    if passed.seq == place.seq && place.offset.is_none() {
        place.offset = passed.offset;
    }
    piece.clear();
    workshop.piece = piece;
    workshop.spent += began.elapsed();
}

/// As JSON: a piece at a time, read aside. How long that takes counts, as looking for secrets does.
fn put_told(
    id: ExecId,
    place: &mut Place,
    outbox: &mut crate::outbox::Outbox,
    workshop: &mut Workshop,
    read: impl FnOnce(&mut Place, &mut Piece) -> io::Result<Read>,
) -> Result<io::Result<Read>, CodecError> {
    let began = Instant::now();
    let mut piece = core::mem::take(&mut workshop.piece);
    let result = read(place, &mut piece);
    let put = piece
        .records()
        .try_for_each(|(record, bytes)| outbox.say_output((id, record.seq, record.stream), bytes, workshop));
    piece.clear();
    workshop.piece = piece;
    workshop.spent += began.elapsed();
    put.map(|()| result)
}

fn put_output(
    id: ExecId,
    run: &Run,
    outbox: &mut crate::outbox::Outbox,
    workshop: &mut Workshop,
) -> Result<bool, CodecError> {
    let Some(following) = outbox.following.get(&id) else { return Ok(false) };
    let mut place = following.place;
    let (end, settled) = (run.end_of_output(), run.is_settled());
    let read = match &run.ring {
        Some(ring) if outbox.form.is_json() => {
            let bounds = (end, settled, run.acknowledged);
            if !following.knows_tails {
                pass_over(id, ring, (run, &mut place), outbox, workshop);
            }
            put_told(id, &mut place, outbox, workshop, |place, piece| {
                ring.read(&run.wrote, place, bounds, piece)
            })?
        }
        Some(ring) => outbox.put(|outgoing| {
            let mut frames = Frames::new(id, outgoing, workshop);
            let bounds = (end, settled, run.acknowledged);
            let read = ring.read(&run.wrote, &mut place, bounds, &mut frames);
            frames.failure.map_or(Ok(read), Err)
        })?,
        None => Ok(Read::Nothing),
    };
    let read = read.unwrap_or_else(|error| {
        tracing::error!(parent: run.span(), %error, "the run's output can't be read");
        Read::Nothing
    });
    let gone = settled && run.ring.is_none() && place.seq < end;
    let lost = match read {
        Read::Lost(lost) => Some(lost),
        Read::Nothing if gone => Some(end - core::mem::replace(&mut place.seq, end)),
        _ => None,
    };
    if let Some(events) = lost {
        outbox.say_tails(id, place.seq - 1, workshop);
        put_event(id, place.seq - 1, ExecEvent::OutputLost { events }, outbox, workshop)?;
    }
    if let Some(following) = outbox.following.get_mut(&id) {
        following.place = place;
    }
    if let Some(offset) = place.offset {
        outbox.mark(Mark::Output(id, offset));
    }
    Ok(read == Read::Records || lost.is_some())
}
