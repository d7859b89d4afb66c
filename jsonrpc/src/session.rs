//! One connection's session: which requests wait for an answer, and how whatever the daemon says is told.
//!
//! ```text
//!            open(text)          take(call)                    answered by
//!  message ───────────> calls ─────────────> Todo::Done        here, at once
//!                                            Todo::Exec        tell(Accepted | Denied), with `wait` tell(Exited)
//!                                            Todo::Messages    tell(an answer) or, if there is none, done()
//!                                            Todo::Explain     explained()
//! ```
//!
//! The wire answers most requests in the order they came and gives only runs a number; JSON-RPC answers each by its id. So there is at
//! most one request *now*, whose messages the daemon is given one after the other, and what it says meanwhile about no run is that
//! request's answer. Runs have numbers of ours: they begin somewhere at random, so that a run which another connection asked for, and
//! which is attached to, isn't taken for one of this one's.

use std::collections::{HashMap, HashSet};

use serde::Serialize;
use serde_json::value::RawValue;
use stockade_protocol::ExecId;
use stockade_protocol::bounds::MAX_STDIN_CHUNK;
use stockade_protocol::client::{ClientMessage, ExecEvent, ExecRequest, ServerMessage, Stream};
use stockade_protocol::denied::Denied;

use crate::asked::{self, Asked, ExplainParams, METHODS};
use crate::batch::Batches;
use crate::bounds::{
    A_REQUEST, MAX_BATCH, MAX_BATCH_ANSWERS, MAX_BATCHES, MAX_IN_FLIGHT, MAX_INLINE_OUTPUT, MAX_MESSAGE,
};
use crate::envelope::{self, Element, Message};
use crate::framing::Kind;
use crate::id::Id;
use crate::refusal::{ANSWER_TOO_LARGE, NOT_INITIALIZED, Refusal};
use crate::tail::Tail;
use crate::text::{Text, TextOf};
use crate::told::{
    AcceptedTold, BreakersTold, Capabilities, Done, EndedTold, Explained, Initialized, LimitsTold,
    NOTIFICATIONS, RunAccepted, RunExited, RunId, RunLimitWarning, RunOutput, RunOutputLost, RunStarted,
    RunsTold, ServerInfo, Told,
};
use crate::waits::Collected;

/// The version of this form.
const VERSION: u32 = 1;

/// To whom an answer goes.
#[derive(Debug)]
struct Ticket {
    /// `None`: nobody waits for it.
    id: Option<Id>,
    /// Of which batch it is.
    batch: Option<u64>,
}

/// One request that is yet to be taken.
#[derive(Debug)]
pub struct Call {
    ticket: Ticket,
    method: String,
    params: Option<Box<RawValue>>,
}

impl Call {
    /// Whether it asks for a run.
    #[must_use]
    pub fn is_for_a_run(&self) -> bool {
        matches!(self.method.as_str(), "exec" | "call")
    }

    /// Bytes of memory that it takes, roughly.
    #[must_use]
    pub fn held(&self) -> usize {
        let params = self.params.as_ref().map_or(0, |params| params.get().len());
        A_REQUEST + self.method.len() + params
    }

    /// Whether it asks about a policy.
    #[must_use]
    pub fn is_for_a_policy(&self) -> bool {
        self.method == "policy/explain"
    }
}

/// What the daemon is to do about a request.
#[derive(Debug, Default)]
pub enum Todo {
    /// Nothing: it's answered, or there is nothing to it.
    #[default]
    Done,
    /// This, which is answered in its own time.
    Exec(Box<ExecRequest>),
    /// These, one after the other; then [`Session::done`].
    Messages(Vec<ClientMessage>),
    /// To say what a policy allows; then [`Session::explained`].
    Explain(ExplainParams),
    /// To end the run that was asked for with this number.
    CancelNumber(u64),
    /// To end a run.
    CancelRun(ExecId),
}

#[derive(Debug)]
struct Wait {
    ticket: Ticket,
    collected: Collected,
}

/// The session.
#[derive(Debug)]
pub struct Session {
    kind: Kind,
    server: &'static str,
    is_open: bool,
    next_number: u64,
    /// Runs that were asked for, by number; and whether their end is waited for.
    asked: HashMap<u64, (Ticket, bool)>,
    waits: HashMap<ExecId, Wait>,
    /// What the daemon is given now, and whether it may answer later.
    now: Option<(Ticket, bool)>,
    /// Who waits for statistics: one of a connection may.
    later: Option<Ticket>,
    batches: Batches,
    in_flight: HashSet<Id>,
    /// Bytes of ids in flight.
    ids: usize,
    /// Messages that are ready to be sent.
    out: Vec<u8>,
}

#[derive(Serialize)]
struct Response<'a, T: Serialize> {
    jsonrpc: &'static str,
    id: Option<&'a Id>,
    #[serde(flatten)]
    answer: Answer<'a, T>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Answer<'a, T: Serialize> {
    Result(&'a T),
    Error(&'a Refusal),
}

#[derive(Serialize)]
struct Notification<'a, T: Serialize> {
    jsonrpc: &'static str,
    method: &'static str,
    params: &'a T,
}

fn encoded(value: &impl Serialize) -> Vec<u8> {
    // Our own types have string keys and no failing Serialize.
    serde_json::to_vec(value).unwrap_or_default()
}

impl Session {
    /// One that is yet to be opened by `initialize`. `server`: the daemon's release; `first`: somewhere at random.
    #[must_use]
    pub fn new(kind: Kind, server: &'static str, first: u64) -> Self {
        Self {
            kind,
            server,
            is_open: false,
            next_number: first,
            asked: HashMap::new(),
            waits: HashMap::new(),
            now: None,
            later: None,
            batches: Batches::default(),
            in_flight: HashSet::new(),
            ids: 0,
            out: Vec::new(),
        }
    }

    /// Bytes of memory that this takes, roughly.
    #[must_use]
    pub fn held(&self) -> usize {
        let waits: usize = self.waits.values().map(|wait| wait.collected.held() + A_REQUEST).sum();
        self.batches.held() + waits + self.ids + self.in_flight.len() * A_REQUEST + self.out.capacity()
    }

    /// What is ready to be sent, which is taken.
    #[must_use]
    pub fn take_out(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.out)
    }

    /// Whether a run's output is kept for its answer.
    #[must_use]
    pub fn waits_for(&self, run: ExecId) -> bool {
        self.waits.contains_key(&run)
    }

    /// Reads one message. What is wrong with it is answered; the rest is to be taken, in its order.
    pub fn open(&mut self, text: &[u8]) -> Vec<Call> {
        match envelope::open(text) {
            Err(refusal) => {
                self.refuse(&Ticket { id: None, batch: None }, None, &refusal);
                Vec::new()
            }
            Ok(Message::One(element)) => self.admit(element, None).into_iter().collect(),
            Ok(Message::Batch(elements)) => {
                let answered = |element: &&Element| !matches!(element, Ok(request) if request.id.is_none());
                let Some(number) = self.batches.begin(elements.iter().filter(answered).count()) else {
                    let text = format!(
                        "{MAX_BATCHES} batches of this connection aren't answered yet; nothing of this was asked"
                    );
                    self.refuse(&Ticket { id: None, batch: None }, None, &Refusal::invalid(text));
                    return Vec::new();
                };
                elements.into_iter().filter_map(|element| self.admit(element, Some(number))).collect()
            }
        }
    }

    fn admit(&mut self, element: Element, batch: Option<u64>) -> Option<Call> {
        let request = match element {
            Ok(request) => request,
            Err((id, refusal)) => {
                self.refuse(&Ticket { id: None, batch }, id.as_ref(), &refusal);
                return None;
            }
        };
        if let Some(id) = &request.id {
            let refusal = if self.in_flight.contains(id) {
                Some("a request with this id isn't answered yet".to_owned())
            } else {
                (self.in_flight.len() >= MAX_IN_FLIGHT).then(|| {
                    format!("{MAX_IN_FLIGHT} requests of this connection wait for their answers already")
                })
            };
            if let Some(text) = refusal {
                self.refuse(&Ticket { id: None, batch }, Some(id), &Refusal::invalid(text));
                return None;
            }
            self.ids += id.held();
            self.in_flight.insert(id.clone());
        }
        let ticket = Ticket { id: request.id, batch };
        Some(Call { ticket, method: request.method, params: request.params })
    }

    /// Takes a request.
    pub fn take(&mut self, call: Call) -> Todo {
        let Call { ticket, method, params } = call;
        let is_first = method == "initialize";
        if is_first == self.is_open || (is_first && ticket.id.is_none()) {
            let refusal = if self.is_open {
                Refusal::invalid("the session is open already")
            } else {
                Refusal::new(NOT_INITIALIZED, "the first request must be `initialize`")
            };
            self.answer(ticket, Err::<&Done, _>(&refusal));
            return Todo::Done;
        }
        if self.batches.is_full(ticket.batch) && asked::is_question(&method) {
            return self.too_large(ticket, "it wasn't asked");
        }
        match asked::read(&method, params.as_deref()) {
            Err(refusal) => self.answer(ticket, Err::<&Done, _>(&refusal)),
            Ok(Asked::Initialize) => {
                self.is_open = true;
                let result = self.initialized();
                self.answer(ticket, Ok(&result));
            }
            Ok(Asked::Nothing) => self.answer(ticket, Ok(&Done {})),
            Ok(Asked::CancelRequest(id)) => {
                let todo = self.cancel(&id);
                self.answer(ticket, Ok(&Done {}));
                return todo;
            }
            Ok(Asked::Exec { mut request, wait }) => {
                // 0 stands for what isn't a run's.
                self.next_number = self.next_number.wrapping_add(1).max(1);
                request.request_id = self.next_number;
                self.asked.insert(request.request_id, (ticket, wait));
                return Todo::Exec(request);
            }
            Ok(Asked::Messages(messages)) => {
                self.now = Some((ticket, false));
                return Todo::Messages(messages);
            }
            Ok(Asked::Statistics(question)) => {
                self.now = Some((ticket, true));
                return Todo::Messages(vec![ClientMessage::Statistics(question)]);
            }
            Ok(Asked::Explain(params)) => {
                self.now = Some((ticket, false));
                return Todo::Explain(params);
            }
        }
        Todo::Done
    }

    /// Answers that there is no room for an answer.
    fn too_large(&mut self, ticket: Ticket, what: &str) -> Todo {
        let text =
            format!("the answers to batches have more than {MAX_BATCH_ANSWERS} bytes together; {what}");
        self.answer(ticket, Err::<&Done, _>(&Refusal::new(ANSWER_TOO_LARGE, text)));
        Todo::Done
    }

    fn initialized(&self) -> Initialized {
        Initialized {
            protocol_version: VERSION,
            server_info: ServerInfo { name: "stockade", version: self.server },
            capabilities: Capabilities { methods: &METHODS, notifications: &NOTIFICATIONS },
            limits: LimitsTold {
                max_message: MAX_MESSAGE,
                max_batch: MAX_BATCH,
                max_in_flight: MAX_IN_FLIGHT,
                max_stdin: MAX_STDIN_CHUNK,
                max_inline_output: MAX_INLINE_OUTPUT,
            },
        }
    }

    /// What ends the request that has this id, if it is for a run.
    fn cancel(&self, id: &RawValue) -> Todo {
        let Some(id) = Id::of(id) else { return Todo::Done };
        let is_it = |ticket: &Ticket| ticket.id.as_ref() == Some(&id);
        if let Some((run, _)) = self.waits.iter().find(|(_, wait)| is_it(&wait.ticket)) {
            return Todo::CancelRun(*run);
        }
        let asked = self.asked.iter().find(|(_, (ticket, _))| is_it(ticket));
        asked.map_or(Todo::Done, |(number, _)| Todo::CancelNumber(*number))
    }

    /// The daemon was given the messages of the request that is taken now.
    pub fn done(&mut self) {
        match self.now.take() {
            Some((ticket, true)) => self.later = Some(ticket),
            Some((ticket, false)) => self.answer(ticket, Ok(&Done {})),
            None => {}
        }
    }

    /// The answer about a policy.
    pub fn explained(&mut self, answer: Result<&Explained, &Denied>) {
        if let Some((ticket, _)) = self.now.take() {
            match answer {
                Ok(explained) => self.answer(ticket, Ok(explained)),
                Err(denied) => self.answer(ticket, Err::<&Done, _>(&Refusal::denied(denied, None))),
            }
        }
    }

    /// What the daemon says, but for output: that comes by [`Session::output`].
    pub fn tell(&mut self, message: &ServerMessage) {
        match message {
            ServerMessage::Event { exec_id, seq, event } => self.event(*exec_id, *seq, event),
            ServerMessage::Denied { request_id, exec_id, denied } => {
                let ticket = match request_id {
                    0 => self.now.take().map(|(ticket, _)| ticket),
                    number => self.asked.remove(number).map(|(ticket, _)| ticket),
                };
                if let Some(ticket) = ticket {
                    self.answer(ticket, Err::<&Done, _>(&Refusal::denied(denied, *exec_id)));
                }
            }
            ServerMessage::Error(error) => {
                self.refuse(&Ticket { id: None, batch: None }, None, &Refusal::protocol(error));
            }
            ServerMessage::Runs(runs) => self.answer_now(&RunsTold { runs: runs.told() }),
            ServerMessage::Status(report) => self.answer_now(&report.told()),
            ServerMessage::Breakers(breakers) => self.answer_now(&BreakersTold { breakers: breakers.told() }),
            ServerMessage::Statistics(report) => {
                let at_once = |now: &mut (Ticket, bool)| now.1;
                let ticket =
                    self.later.take().or_else(|| self.now.take_if(at_once).map(|(ticket, _)| ticket));
                if let Some(ticket) = ticket {
                    self.answer(ticket, Ok(&report.told()));
                }
            }
            // Answers to what can't be asked here.
            _ => {}
        }
    }

    fn event(&mut self, run: ExecId, seq: u64, event: &ExecEvent) {
        let exec_id = RunId(run);
        if let ExecEvent::Accepted { request_id } = event {
            match self.asked.remove(request_id) {
                Some((ticket, true)) => {
                    self.waits.insert(run, Wait { ticket, collected: Collected::default() });
                }
                Some((ticket, false)) => self.answer(ticket, Ok(&AcceptedTold { exec_id })),
                None => self.notify("run/accepted", &RunAccepted { exec_id, seq }),
            }
            return;
        }
        if let ExecEvent::Exited { .. } = event
            && let Some(wait) = self.waits.remove(&run)
        {
            return self.ended(run, wait, event);
        }
        if let Some(wait) = self.waits.get_mut(&run) {
            wait.collected.truncated |= matches!(event, ExecEvent::OutputLost { .. });
            return;
        }
        match event {
            ExecEvent::Started { confinement } => {
                self.notify("run/started", &RunStarted { exec_id, seq, confinement: confinement.told() });
            }
            ExecEvent::Output { stream, bytes } => self.piece(run, seq, *stream, bytes),
            ExecEvent::OutputLost { events } => {
                self.notify("run/outputLost", &RunOutputLost { exec_id, seq, events: *events });
            }
            ExecEvent::LimitWarning { limit, value, bound } => {
                let (limit, value, bound) = (limit.clone(), *value, *bound);
                self.notify("run/limitWarning", &RunLimitWarning { exec_id, seq, limit, value, bound });
            }
            ExecEvent::Exited { outcome, usage, trusted_files, redactions, result_check } => {
                let told = RunExited {
                    exec_id,
                    seq,
                    outcome: outcome.told(),
                    usage: usage.told(),
                    trusted_files: trusted_files.told(),
                    redactions: redactions.told(),
                    result_check: result_check.told(),
                };
                self.notify("run/exited", &told);
            }
            // Of what happens to a run later versions may tell more.
            _ => {}
        }
    }

    /// A piece of a run's output; what it begins of a character stays in `tail`. `has_memory`: whether it may be kept.
    pub fn output(&mut self, place: (ExecId, u64, Stream), bytes: &[u8], tail: &mut Tail, has_memory: bool) {
        let (run, seq, stream) = place;
        if let Some(wait) = self.waits.get_mut(&run) {
            wait.collected.add(stream, bytes, has_memory);
            return;
        }
        let whole = tail.join(bytes);
        if !whole.is_empty() {
            self.piece(run, seq, stream, &whole);
        }
    }

    /// The end of a run's output, or of what can be joined: what waits for the rest of a character is told, with the last number.
    pub fn flush(&mut self, run: ExecId, last: u64, tails: &mut [Tail; 2]) {
        for (stream, tail) in [Stream::Stdout, Stream::Stderr].into_iter().zip(tails) {
            if !tail.is_empty() {
                self.piece(run, last, stream, &tail.take());
            }
        }
    }

    fn piece(&mut self, run: ExecId, seq: u64, stream: Stream, bytes: &[u8]) {
        let told = RunOutput { exec_id: RunId(run), seq, stream: stream.told(), data: TextOf(bytes) };
        self.notify("run/output", &told);
    }

    fn ended(&mut self, run: ExecId, mut wait: Wait, event: &ExecEvent) {
        let ExecEvent::Exited { outcome, usage, trusted_files, redactions, result_check } = event else {
            return;
        };
        let truncated = wait.collected.truncated;
        let [stdout, stderr] = wait.collected.take().map(|bytes| Text(bytes.into()));
        let mut told = EndedTold {
            exec_id: RunId(run),
            outcome: outcome.told(),
            usage: usage.told(),
            stdout,
            stderr,
            truncated,
            trusted_files: trusted_files.told(),
            redactions: redactions.told(),
            result_check: result_check.told(),
        };
        let Ticket { id: Some(id), batch } = wait.ticket else { return };
        self.is_answered(&id);
        let mut bytes = encoded(&Response { jsonrpc: "2.0", id: Some(&id), answer: Answer::Result(&told) });
        if !self.batches.has_room(batch, bytes.len()) {
            told = EndedTold { stdout: Text::default(), stderr: Text::default(), truncated: true, ..told };
            bytes = encoded(&Response { jsonrpc: "2.0", id: Some(&id), answer: Answer::Result(&told) });
        }
        self.deliver(batch, bytes);
    }

    fn answer_now(&mut self, result: &impl Serialize) {
        if let Some((ticket, _)) = self.now.take() {
            self.answer(ticket, Ok(result));
        }
    }

    fn answer<T: Serialize>(&mut self, ticket: Ticket, answer: Result<&T, &Refusal>) {
        let Ticket { id: Some(id), batch } = ticket else { return };
        let is_result = answer.is_ok();
        let answer = match answer {
            Ok(result) => Answer::Result(result),
            Err(refusal) => Answer::Error(refusal),
        };
        let bytes = encoded(&Response { jsonrpc: "2.0", id: Some(&id), answer });
        if is_result && !self.batches.has_room(batch, bytes.len()) {
            self.too_large(Ticket { id: Some(id), batch }, "what was asked was done");
            return;
        }
        self.is_answered(&id);
        self.deliver(batch, bytes);
    }

    fn is_answered(&mut self, id: &Id) {
        self.in_flight.remove(id);
        self.ids = self.ids.saturating_sub(id.held());
    }

    /// An error for what isn't in flight.
    fn refuse(&mut self, ticket: &Ticket, id: Option<&Id>, refusal: &Refusal) {
        let bytes = encoded(&Response::<Done> { jsonrpc: "2.0", id, answer: Answer::Error(refusal) });
        self.deliver(ticket.batch, bytes);
    }

    fn deliver(&mut self, batch: Option<u64>, answer: Vec<u8>) {
        if let Some(whole) = self.batches.add(batch, answer) {
            self.kind.frame(&whole, &mut self.out);
        }
    }

    fn notify(&mut self, method: &'static str, params: &impl Serialize) {
        let bytes = encoded(&Notification { jsonrpc: "2.0", method, params });
        self.kind.frame(&bytes, &mut self.out);
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
