//! What one connection has still to be sent: answers, and the events of the runs it follows.
//!
//! Events are pulled, not pushed: a run's output stays in its ring until this connection's buffer has room, so a
//! client that doesn't read costs one buffer and stops its own runs only. When bytes have gone to the socket, the
//! marks behind them say which ring may be written over, and who has its `Exited`.
//!
//! A `LimitWarning` is the exception: it is sent at once or not at all, carries the number of the event before it,
//! and isn't kept for a later follower. So it takes no number from the ring's.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use stockade_gate::Principal;
use stockade_gate::redact::Sought;
use stockade_jsonrpc::bounds::WORST_ESCAPE;
use stockade_jsonrpc::{Session, Tail};
use stockade_protocol::ExecId;
use stockade_protocol::bounds::MAX_OUTPUT_CHUNK;
use stockade_protocol::client::{ServerMessage, Stream};
use stockade_protocol::codec::CodecError;
use stockade_protocol::launch::Owner;
use stockade_protocol::ring::{FIRST_SEQ, Record};
use tokio::sync::Notify;

use crate::form::Form;
use crate::frames::{self, Frames, Workshop};
use crate::ledger::Entry;
use crate::outgoing::{Outgoing, Spare};
use crate::output::{BATCH, Place, Taker as _};
use crate::proof::Proof;
use crate::redacted::{READER, Reader};

/// Below so many waiting bytes another batch of events is put behind them.
pub(crate) const LOW: usize = 64 * 1024;
/// Bytes of events that wait in a connection's buffer at most, roughly.
pub(crate) const HIGH: usize = LOW + BATCH;
/// Bytes of answers that may wait before the client's next message is read.
pub(crate) const ANSWERS: usize = 1024 * 1024;

/// An answer of so many bytes is never refused: without memory they come one at a time.
const SMALL: usize = 4 * 1024;
/// Bytes that a followed run takes here and in its record, roughly.
const FOLLOWING: usize = 128;

/// One connection's outgoing side.
#[derive(Debug)]
pub(crate) struct Outbox {
    pub(crate) owner: Owner,
    /// The client's process; 0: not known.
    pub(crate) pid: i32,
    /// The systemd unit that it's of.
    pub(crate) unit: Option<String>,
    /// Whether it's root's at a user's own daemon, who may see what waits for an approval and answer, and nothing else.
    pub(crate) is_visitor: bool,
    /// Who asks by this connection, as the gate's files of this number have him.
    pub(crate) asker: Option<(u64, Rc<Principal>)>,
    /// Whether it was written down that it has asked for a run that it may not know of.
    pub(crate) has_probed: bool,
    /// Bytes to be sent.
    outgoing: Outgoing,
    /// Bytes ever put there.
    put: u64,
    marks: VecDeque<(u64, Mark)>,
    pub(crate) following: HashMap<ExecId, Following>,
    /// How many of them have a reader.
    readers: usize,
    /// Runs that have something for this connection.
    ready: VecDeque<ExecId>,
    /// Rung when there is something to send.
    pub(crate) bell: Rc<Notify>,
    /// Rung when there is room for answers.
    pub(crate) room: Rc<Notify>,
    /// What all this takes.
    pub(crate) entry: Entry,
    /// Something was refused for want of memory: the connection is to be closed.
    pub(crate) is_overdrawn: bool,
    /// By what launchers see whose it is.
    pub(crate) proof: Proof,
    /// How what it's sent is spelled.
    pub(crate) form: Form,
}

/// What it means that the bytes before a mark have gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// A run's ring was taken up to this offset.
    Output(ExecId, u64),
    /// A run's `Exited` was taken.
    Exited(ExecId),
}

/// One run that a connection follows.
#[derive(Debug)]
pub(crate) struct Following {
    pub(crate) place: Place,
    /// What has reached the socket.
    pub(crate) taken: u64,
    /// Whether it stands in the queue of ready runs.
    queued: bool,
    /// Whether `Exited` is in the buffer.
    pub(crate) complete: bool,
    /// Of a run whose output is redacted, once it has read any.
    pub(crate) reader: Option<Box<Reader>>,
    /// What of its streams waits for the rest of a character. Of JSON only.
    tails: [Tail; 2],
    /// Whether what stands before its place was looked at for that.
    pub(crate) knows_tails: bool,
}

impl Outbox {
    pub(crate) fn new(owner: Owner, entry: Entry) -> Self {
        Self {
            owner,
            pid: 0,
            unit: None,
            is_visitor: false,
            asker: None,
            has_probed: false,
            outgoing: Outgoing::default(),
            put: 0,
            marks: VecDeque::new(),
            following: HashMap::new(),
            readers: 0,
            ready: VecDeque::new(),
            bell: Rc::default(),
            room: Rc::default(),
            entry,
            is_overdrawn: false,
            proof: Proof::NotNeeded,
            form: Form::Frames,
        }
    }

    /// Bytes that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.outgoing.waiting().len()
    }

    /// The bytes that wait.
    pub(crate) fn to_send(&self) -> &[u8] {
        self.outgoing.waiting()
    }

    /// Whether anything waits, or is ready to be put.
    pub(crate) fn has_something_to_send(&self) -> bool {
        self.waiting() > 0 || !self.ready.is_empty()
    }

    /// Puts bytes behind those that wait; `fill` is given their buffer and may take back only what it added.
    pub(crate) fn put<T>(&mut self, fill: impl FnOnce(&mut Outgoing) -> T) -> T {
        let before = self.waiting();
        let result = fill(&mut self.outgoing);
        self.put += (self.waiting() - before) as u64;
        self.count();
        self.bell.notify_one();
        result
    }

    /// Puts an answer, unless there is no memory for it.
    pub(crate) fn answer(&mut self, answer: &[u8]) {
        if answer.len() <= SMALL || self.entry.allows(self.held() + answer.len()) {
            self.put(|outgoing| outgoing.put(answer, &mut None));
        } else {
            self.is_overdrawn = true;
        }
    }

    /// Puts a message behind those that wait, as this client reads it.
    ///
    /// # Errors
    /// [`CodecError`]; nothing was put then.
    pub(crate) fn say(&mut self, message: &ServerMessage, workshop: &mut Workshop) -> Result<(), CodecError> {
        let Form::Json(session) = &mut self.form else {
            return self.put(|outgoing| workshop.put(message, outgoing));
        };
        session.tell(message);
        self.put_told(&mut workshop.spare);
        Ok(())
    }

    /// As [`Outbox::answer`], of a message: an answer is put unless there is no memory for it, and why a connection ends in any case.
    pub(crate) fn reply(&mut self, message: &ServerMessage) -> Result<(), CodecError> {
        let is_last = matches!(message, ServerMessage::Error(_));
        let mut bytes = Vec::new();
        match &mut self.form {
            Form::Frames => frames::push(message, &mut bytes)?,
            Form::Json(session) => {
                let before = session.held();
                session.tell(message);
                bytes = session.take_out();
                self.keeps_within(before);
            }
        }
        if is_last {
            self.put(|outgoing| outgoing.put(&bytes, &mut None));
        } else {
            self.answer(&bytes);
        }
        Ok(())
    }

    /// Puts a message that nobody has asked for, if there is memory for it; whether it was put.
    pub(crate) fn offer(&mut self, message: &ServerMessage) -> bool {
        let mut bytes = Vec::new();
        match &mut self.form {
            Form::Frames => {
                if frames::push(message, &mut bytes).is_err() {
                    return false;
                }
            }
            Form::Json(session) => {
                session.tell(message);
                bytes = session.take_out();
            }
        }
        let has_memory = bytes.len() <= SMALL || self.entry.allows(self.held() + bytes.len());
        if has_memory {
            self.put(|outgoing| outgoing.put(&bytes, &mut None));
        }
        has_memory
    }

    /// Has the session of a client of JSON do something, and puts what it answers.
    pub(crate) fn with_session<T: Default>(&mut self, act: impl FnOnce(&mut Session) -> T) -> T {
        let Some(session) = self.form.session() else { return T::default() };
        let before = session.held();
        let result = act(session);
        let bytes = session.take_out();
        self.keeps_within(before);
        if bytes.is_empty() {
            self.count();
        } else {
            self.answer(&bytes);
        }
        result
    }

    /// What a session keeps for later (answers of a batch whose last isn't there) has to have memory, too. `before`: what it held.
    fn keeps_within(&mut self, before: usize) {
        let held = self.held();
        if self.form.held() > before && !self.entry.allows(held) {
            self.is_overdrawn = true;
        }
        self.entry.set(held);
    }

    /// Puts a piece of a run's output.
    ///
    /// # Errors
    /// [`CodecError`]; nothing was put then.
    pub(crate) fn say_output(
        &mut self,
        (run, seq, stream): (ExecId, u64, Stream),
        bytes: &[u8],
        workshop: &mut Workshop,
    ) -> Result<(), CodecError> {
        let has_memory = self.entry.allows(self.held() + bytes.len());
        let Form::Json(session) = &mut self.form else {
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            return self.put(|outgoing| {
                let mut frames = Frames::new(run, outgoing, workshop);
                if let Some(room) = frames.room(&Record { length, stream, seq }) {
                    room.copy_from_slice(bytes);
                }
                frames.failure.map_or(Ok(()), Err)
            });
        };
        if let Some(following) = self.following.get_mut(&run) {
            let tail = &mut following.tails[usize::from(stream == Stream::Stderr)];
            session.output((run, seq, stream), bytes, tail, has_memory);
        }
        self.put_told(&mut workshop.spare);
        Ok(())
    }

    /// Output that the client has from another connection: of it only counts whether it ends within a character.
    pub(crate) fn pass_over(&mut self, run: ExecId, stream: Stream, bytes: &[u8]) {
        if self.form.is_json()
            && let Some(following) = self.following.get_mut(&run)
        {
            let _told = following.tails[usize::from(stream == Stream::Stderr)].join(bytes);
        }
    }

    /// What was passed over is followed by a gap.
    pub(crate) fn forget_tails(&mut self, run: ExecId) {
        if let Some(following) = self.following.get_mut(&run) {
            following.tails = Default::default();
        }
    }

    /// Before the end of a run's output, or a gap in it: what waits for the rest of a character is put as it is.
    pub(crate) fn say_tails(&mut self, run: ExecId, last: u64, workshop: &mut Workshop) {
        if let Some(session) = self.form.session()
            && let Some(following) = self.following.get_mut(&run)
        {
            session.flush(run, last, &mut following.tails);
            self.put_told(&mut workshop.spare);
        }
    }

    fn put_told(&mut self, spare: &mut Spare) {
        let told = self.form.session().map(Session::take_out).unwrap_or_default();
        if told.is_empty() {
            self.count();
        } else {
            self.put(|outgoing| outgoing.put(&told, spare));
        }
    }

    /// Bytes that this takes.
    fn held(&self) -> usize {
        self.outgoing.held() + self.following.len() * FOLLOWING + self.readers * READER + self.form.held()
    }

    /// The most bytes that one batch of events adds.
    fn batch(&self) -> usize {
        // A piece at a time, which is at most one event more than it's meant to be.
        if self.form.is_json() { WORST_ESCAPE * MAX_OUTPUT_CHUNK } else { BATCH }
    }

    fn count(&self) {
        self.entry.set(self.held());
    }

    /// Whether another run may be followed.
    pub(crate) fn may_follow(&self) -> bool {
        self.entry.allows(self.held() + FOLLOWING)
    }

    /// Bytes of answers that may wait before the next message is read.
    pub(crate) fn answers(&self) -> usize {
        if self.entry.allows(self.held() + ANSWERS) { ANSWERS } else { 1 }
    }

    /// Marks what has been put so far.
    pub(crate) fn mark(&mut self, mark: Mark) {
        self.marks.push_back((self.put, mark));
    }

    /// Bytes have gone to the socket.
    pub(crate) fn went(&mut self, bytes: usize) {
        self.outgoing.went(bytes);
        if self.waiting() < self.answers() {
            self.room.notify_waiters();
        }
    }

    /// Nothing is left to be sent: an idle connection keeps no large buffer.
    pub(crate) fn rest(&mut self, spare: &mut Spare) {
        self.outgoing.rest(spare);
        self.count();
    }

    /// Takes the next mark whose bytes have gone.
    pub(crate) fn reached(&mut self) -> Option<Mark> {
        let gone = self.put - self.waiting() as u64;
        let (at, mark) = *self.marks.front()?;
        if at > gone {
            return None;
        }
        self.marks.pop_front();
        Some(mark)
    }

    /// Whether the next mark's bytes have gone.
    pub(crate) fn has_reached(&self) -> bool {
        self.marks.front().is_some_and(|(at, _)| *at <= self.put - self.waiting() as u64)
    }

    /// Follows a run from a place.
    pub(crate) fn follow(&mut self, run: ExecId, place: Place, taken: u64) {
        let knows_tails = place.seq <= FIRST_SEQ || !self.form.is_json();
        self.following.insert(
            run,
            Following {
                place,
                taken,
                queued: false,
                complete: false,
                reader: None,
                tails: Default::default(),
                knows_tails,
            },
        );
        self.count();
        self.make_ready(run);
    }

    /// Follows a run no more.
    pub(crate) fn unfollow(&mut self, run: ExecId) {
        let gone = self.following.remove(&run);
        self.readers -= usize::from(gone.is_some_and(|following| following.reader.is_some()));
        self.count();
    }

    /// The reader of a run whose output is redacted; it's put back.
    pub(crate) fn take_reader(
        &mut self,
        run: ExecId,
        sought: impl FnOnce() -> Arc<Sought>,
    ) -> Option<Box<Reader>> {
        let reader = self.following.get_mut(&run)?.reader.take();
        self.readers += usize::from(reader.is_none());
        Some(reader.unwrap_or_else(|| Box::new(Reader::new(sought()))))
    }

    /// A run has something for this connection.
    pub(crate) fn make_ready(&mut self, run: ExecId) {
        if let Some(following) = self.following.get_mut(&run)
            && !following.complete
            && !core::mem::replace(&mut following.queued, true)
        {
            self.ready.push_back(run);
            self.bell.notify_one();
        }
    }

    /// Takes the run whose turn it is, while there is room.
    pub(crate) fn next_ready(&mut self) -> Option<ExecId> {
        if self.waiting() >= LOW || self.ready.is_empty() {
            return None;
        }
        if !self
            .entry
            .allows(self.waiting() + self.batch() + self.following.len() * FOLLOWING + self.form.held())
        {
            self.entry.ring_when_freed(&self.bell);
            return None;
        }
        let run = self.ready.pop_front()?;
        if let Some(following) = self.following.get_mut(&run) {
            following.queued = false;
        }
        Some(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatcher::Share;
    use crate::ledger::{Ledger, Memory};

    fn outbox() -> Outbox {
        let memory = Memory { share: Share::new(2 * HIGH, 0, false), per_owner: 2 * HIGH };
        Outbox::new(Owner { uid: 1, gid: 1, groups: Vec::new() }, Ledger::new(memory).entry(1))
    }

    #[test]
    fn a_mark_is_reached_when_the_bytes_before_it_have_gone() {
        let run = ExecId::from_bytes([1; 16]);
        let mut outbox = outbox();
        outbox.put(|outgoing| outgoing.put(b"abc", &mut None));
        outbox.mark(Mark::Output(run, 3));
        outbox.put(|outgoing| outgoing.put(b"de", &mut None));
        outbox.mark(Mark::Exited(run));
        outbox.went(2);
        assert_eq!(outbox.reached(), None);
        outbox.went(1);
        assert_eq!(outbox.reached(), Some(Mark::Output(run, 3)));
        assert_eq!(outbox.reached(), None);
        outbox.went(2);
        assert_eq!(outbox.reached(), Some(Mark::Exited(run)));
        outbox.put(|outgoing| outgoing.put(b"f", &mut None));
        assert_eq!(outbox.waiting(), 1);
        assert_eq!(outbox.to_send(), b"f");
    }

    #[test]
    fn what_nobody_has_asked_for_is_put_where_there_is_memory_and_ends_no_connection() {
        let long = |length: usize| ServerMessage::Denied {
            request_id: 0,
            exec_id: None,
            denied: stockade_protocol::denied::Denied::new(
                stockade_protocol::denied::DenyReason::Busy,
                "x".repeat(length),
            ),
        };
        let mut outbox = outbox();
        assert!(outbox.offer(&long(HIGH)));
        let waiting = outbox.waiting();
        assert!(!outbox.offer(&long(2 * HIGH)) && outbox.offer(&ServerMessage::ApprovalsMissed));
        assert!(!outbox.is_overdrawn && outbox.waiting() - waiting < 64);
        // The twin: an answer ends it.
        outbox.reply(&long(2 * HIGH)).unwrap();
        assert!(outbox.is_overdrawn);
    }

    /// Answers of a batch that wait for its last are memory of the connection's like any other.
    #[test]
    fn a_session_that_keeps_more_than_there_is_memory_for_is_overdrawn() {
        for (lists, too_many) in [(20, false), (250, true)] {
            let mut outbox = outbox();
            outbox.form = Form::Json(Box::new(Session::new(stockade_jsonrpc::Kind::Lines, "0", 1)));
            let list = |id: usize| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"list"}}"#);
            let open = r#"{"jsonrpc":"2.0","id":"open","method":"exec","params":{"argv":["x"],"workspace":"/","wait":true}}"#;
            let batch: Vec<String> = core::iter::once(open.to_owned()).chain((0..lists).map(list)).collect();
            let opening = r#"{"jsonrpc":"2.0","id":"first","method":"initialize"}"#.to_owned();
            for text in [opening, format!("[{}]", batch.join(","))] {
                for call in outbox.with_session(|session| session.open(text.as_bytes())) {
                    if let stockade_jsonrpc::Todo::Messages(_) =
                        outbox.with_session(|session| session.take(call))
                    {
                        outbox.reply(&ServerMessage::Runs(vec![summary(); 10])).unwrap();
                    }
                }
            }
            assert_eq!(outbox.is_overdrawn, too_many, "{} bytes are held", outbox.held());
        }
    }

    fn summary() -> stockade_protocol::client::RunSummary {
        stockade_protocol::client::RunSummary {
            exec_id: ExecId::from_bytes([1; 16]),
            owner_uid: 1,
            policy: "p".repeat(150),
            command: "c".into(),
            state: stockade_protocol::client::RunState::Running,
            age_ms: 1,
            last_seq: 1,
        }
    }

    #[test]
    fn a_run_waits_in_the_ready_queue_once_and_only_while_there_is_room() {
        let run = ExecId::from_bytes([1; 16]);
        let mut outbox = outbox();
        outbox.follow(run, Place { seq: 1, offset: None }, 0);
        outbox.make_ready(run);
        assert_eq!(outbox.next_ready(), Some(run));
        assert_eq!(outbox.next_ready(), None);
        outbox.make_ready(run);
        outbox.put(|outgoing| outgoing.put(&[0; LOW], &mut None));
        assert_eq!(outbox.next_ready(), None);
        outbox.went(1);
        assert_eq!(outbox.next_ready(), Some(run));
    }
}
