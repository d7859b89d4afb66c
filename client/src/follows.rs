//! What a connection owes us, so that the next can go on where it broke: the runs whose end hasn't come with the
//! number of their last event, and what was asked and not answered. Pure.
//!
//! Here each event gets through once and in its order, whatever a supervisor sends after a break: what is there
//! already is dropped, and what is missing is said by an `OutputLost`.

use std::collections::{BTreeMap, VecDeque};

use stockade_protocol::ExecId;
use stockade_protocol::client::{ClientMessage, ExecEvent, ServerMessage, StdinMode};
use stockade_protocol::denied::{Denied, DenyReason};

use crate::error::ClientError;

/// What comes to the caller: a message, or an error about a run or a request, which ends nothing else.
pub(crate) type Received = Result<ServerMessage, ClientError>;

/// Messages kept while there is no supervisor, and questions without an answer then. One more waits for it.
const MAX_LATER: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Follows {
    runs: BTreeMap<ExecId, Followed>,
    requests: Vec<Requested>,
    questions: VecDeque<Question>,
    later: Vec<ClientMessage>,
}

/// A run whose end hasn't come.
#[derive(Debug)]
struct Followed {
    last_seq: u64,
    input: Input,
    /// Whether its end was asked for. It's asked for again, since that does no harm and the first may be lost.
    cancelled: bool,
    attached: Attached,
}

/// How a run came to be followed on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attached {
    /// The caller asked, and nothing has come yet.
    Asked,
    /// We asked after a break, and nothing has come yet.
    Again,
    /// Its events come.
    Yes,
}

/// The standard input of a run that was sent as messages.
#[derive(Debug, Clone, Copy)]
enum Input {
    /// None was.
    None,
    /// So many bytes so far.
    Open { sent: u64 },
    /// So many bytes in all. In doubt if the connection broke since.
    Ended { sent: u64, in_doubt: bool },
}

/// An `Exec` without an answer.
#[derive(Debug)]
struct Requested {
    request_id: u64,
    streams: bool,
}

/// A question without an answer. It's asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    List,
    Status,
    Breakers,
}

/// What became of a message that can't be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It's sent when there is a supervisor again, or isn't needed.
    Yes,
    /// It's the caller's to wait with it.
    No,
}

impl Follows {
    /// Whether a connection that breaks is to be made again.
    pub(crate) fn any(&self) -> bool {
        !self.runs.is_empty()
    }

    /// A message was sent, whole.
    pub(crate) fn sent(&mut self, message: &ClientMessage) {
        match message {
            ClientMessage::Exec(exec) => {
                let streams = exec.stdin == StdinMode::Stream;
                self.requests.push(Requested { request_id: exec.request_id, streams });
            }
            ClientMessage::Attach { exec_id, after_seq } => {
                let attached = Attached::Asked;
                self.runs.entry(*exec_id).or_insert_with(|| Followed::new(*after_seq, Input::None, attached));
            }
            ClientMessage::Cancel { exec_id } => {
                if let Some(run) = self.runs.get_mut(exec_id) {
                    run.cancelled = true;
                }
            }
            ClientMessage::StdinData { exec_id, bytes } => {
                if let Some(Followed { input: Input::Open { sent }, .. }) = self.runs.get_mut(exec_id) {
                    *sent += bytes.len() as u64;
                }
            }
            ClientMessage::StdinEof { exec_id } => {
                if let Some(run) = self.runs.get_mut(exec_id)
                    && let Input::Open { sent } = run.input
                {
                    run.input = Input::Ended { sent, in_doubt: false };
                }
            }
            ClientMessage::List => self.questions.push_back(Question::List),
            ClientMessage::Status => self.questions.push_back(Question::Status),
            ClientMessage::Breakers => self.questions.push_back(Question::Breakers),
            _ => {}
        }
    }

    /// A message is to be sent while there is no supervisor.
    pub(crate) fn keep(&mut self, message: &ClientMessage) -> Kept {
        match message {
            // It has descriptors beside it, or is larger than what is kept.
            ClientMessage::Exec(_) | ClientMessage::StdinData { .. } | ClientMessage::StdinEof { .. } => {
                Kept::No
            }
            // Only saves the supervisor memory, which it frees by itself in time.
            ClientMessage::Acknowledge { .. } => Kept::Yes,
            ClientMessage::List | ClientMessage::Status | ClientMessage::Breakers
                if self.questions.len() >= MAX_LATER =>
            {
                Kept::No
            }
            ClientMessage::Attach { .. }
            | ClientMessage::List
            | ClientMessage::Status
            | ClientMessage::Breakers => {
                self.sent(message);
                Kept::Yes
            }
            ClientMessage::Cancel { exec_id } if self.runs.contains_key(exec_id) => {
                self.sent(message);
                Kept::Yes
            }
            _ if self.later.len() < MAX_LATER => {
                self.later.push(message.clone());
                Kept::Yes
            }
            _ => Kept::No,
        }
    }

    /// Takes what the supervisor sent; puts what the caller is to have of it.
    pub(crate) fn take(&mut self, mut message: ServerMessage, into: &mut VecDeque<Received>) {
        let passes = match &mut message {
            ServerMessage::Event { exec_id, seq, event } => self.event(*exec_id, *seq, event, into),
            ServerMessage::Denied { request_id: 0, exec_id: Some(exec_id), denied } => {
                self.denied(*exec_id, denied, into)
            }
            other => {
                match other {
                    ServerMessage::Denied { request_id, .. } => drop(self.answered(*request_id)),
                    ServerMessage::Runs(_) => self.answer(Question::List),
                    ServerMessage::Status(_) => self.answer(Question::Status),
                    ServerMessage::Breakers(_) => self.answer(Question::Breakers),
                    // Its close is meant, and nothing is owed any more.
                    ServerMessage::Error(_) => *self = Self::default(),
                    _ => {}
                }
                true
            }
        };
        if passes {
            into.push_back(Ok(message));
        }
    }

    /// Whether the caller is to have it, after what is put before it.
    fn event(
        &mut self,
        exec_id: ExecId,
        seq: u64,
        event: &mut ExecEvent,
        into: &mut VecDeque<Received>,
    ) -> bool {
        let Some(run) = self.runs.get_mut(&exec_id) else {
            // Of another run that isn't followed nothing is due: its end was here already.
            let ExecEvent::Accepted { request_id } = *event else { return false };
            let streams = self.answered(request_id).is_some_and(|request| request.streams);
            let input = if streams { Input::Open { sent: 0 } } else { Input::None };
            self.runs.insert(exec_id, Followed::new(seq, input, Attached::Yes));
            return true;
        };
        run.attached = Attached::Yes;
        // It has the number of the event before it, and isn't sent again.
        if matches!(event, ExecEvent::LimitWarning { .. }) {
            return true;
        }
        let Some(missing) = run.missing(seq, event) else { return false };
        run.last_seq = seq;
        if let ExecEvent::OutputLost { events } = event {
            *events = missing;
        } else if missing > 0 {
            let event = ExecEvent::OutputLost { events: missing };
            into.push_back(Ok(ServerMessage::Event { exec_id, seq: seq - 1, event }));
        }
        if let ExecEvent::Exited { usage, .. } = event {
            if matches!(run.input, Input::Ended { sent, in_doubt: true } if usage.bytes_in < sent) {
                into.push_back(Err(ClientError::InputInDoubt { exec_id }));
            }
            self.runs.remove(&exec_id);
        }
        true
    }

    /// Whether the caller is to have a denial of something about a run.
    fn denied(&mut self, exec_id: ExecId, denied: &Denied, into: &mut VecDeque<Received>) -> bool {
        match self.runs.get(&exec_id).map(|run| run.attached) {
            Some(Attached::Again) => {
                self.runs.remove(&exec_id);
                into.push_back(Err(ClientError::Lost { exec_id, denied: denied.clone() }));
                false
            }
            Some(Attached::Asked) if denied.reason == DenyReason::UnknownRun => {
                self.runs.remove(&exec_id);
                true
            }
            _ => true,
        }
    }

    /// The connection broke. What can't be asked again is an error.
    pub(crate) fn broke(&mut self, into: &mut VecDeque<Received>) {
        let unanswered = self.requests.drain(..);
        into.extend(
            unanswered.map(|Requested { request_id, .. }| Err(ClientError::Unanswered { request_id })),
        );
        for run in self.runs.values_mut() {
            if let Input::Ended { in_doubt, .. } = &mut run.input {
                *in_doubt = true;
            }
        }
    }

    /// There is a supervisor again: what to ask it, in this order.
    pub(crate) fn resume(&mut self, into: &mut VecDeque<Received>) -> Vec<ClientMessage> {
        let mut messages = Vec::new();
        for (&exec_id, run) in &mut self.runs {
            run.attached = Attached::Again;
            messages.push(ClientMessage::Attach { exec_id, after_seq: run.last_seq });
            if run.cancelled {
                messages.push(ClientMessage::Cancel { exec_id });
            }
            if matches!(run.input, Input::Open { sent: 1.. }) {
                into.push_back(Err(ClientError::InputInDoubt { exec_id }));
            }
        }
        messages.extend(self.questions.iter().map(|question| match question {
            Question::List => ClientMessage::List,
            Question::Status => ClientMessage::Status,
            Question::Breakers => ClientMessage::Breakers,
        }));
        messages.append(&mut self.later);
        messages
    }

    /// Takes out the request that is answered.
    fn answered(&mut self, request_id: u64) -> Option<Requested> {
        let at = self.requests.iter().position(|request| request.request_id == request_id)?;
        Some(self.requests.swap_remove(at))
    }

    fn answer(&mut self, question: Question) {
        if let Some(at) = self.questions.iter().position(|asked| *asked == question) {
            self.questions.remove(at);
        }
    }
}

impl Followed {
    fn new(last_seq: u64, input: Input, attached: Attached) -> Self {
        Self { last_seq, input, cancelled: false, attached }
    }

    /// How many events are missing: before this one, or for an `OutputLost` in all. `None`: it's here already.
    fn missing(&self, seq: u64, event: &ExecEvent) -> Option<u64> {
        let ahead = seq.checked_sub(self.last_seq).filter(|ahead| *ahead > 0)?;
        Some(if matches!(event, ExecEvent::OutputLost { .. }) { ahead } else { ahead - 1 })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use stockade_protocol::Bytes;
    use stockade_protocol::client::Stream;
    use stockade_protocol::outcome::{Outcome, Usage};

    use super::*;

    const RUN: ExecId = ExecId::from_bytes([1, 0x90, 0, 0, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, 1]);

    fn output() -> ExecEvent {
        ExecEvent::Output { stream: Stream::Stdout, bytes: Bytes::from("x") }
    }

    fn exited(bytes_in: u64) -> ExecEvent {
        let usage = Usage { bytes_in, ..Usage::default() };
        ExecEvent::Exited {
            outcome: Outcome::Exited { code: 0 },
            usage,
            trusted_files: vec![],
            redactions: None,
            result_check: None,
        }
    }

    fn lost(events: u64) -> ExecEvent {
        ExecEvent::OutputLost { events }
    }

    /// What comes through of these events of a run that is followed from after its third.
    fn through(events: impl IntoIterator<Item = (u64, ExecEvent)>) -> Vec<(u64, ExecEvent)> {
        let mut follows = Follows::default();
        follows.sent(&ClientMessage::Attach { exec_id: RUN, after_seq: 3 });
        of(&mut follows, events)
    }

    fn of(
        follows: &mut Follows,
        events: impl IntoIterator<Item = (u64, ExecEvent)>,
    ) -> Vec<(u64, ExecEvent)> {
        let mut came = VecDeque::new();
        for (seq, event) in events {
            follows.take(ServerMessage::Event { exec_id: RUN, seq, event }, &mut came);
        }
        let event = |received: Received| match received.unwrap() {
            ServerMessage::Event { seq, event, .. } => (seq, event),
            other => panic!("no event: {other:?}"),
        };
        came.into_iter().map(event).collect()
    }

    #[test]
    fn what_is_here_already_is_dropped() {
        let doubled =
            [(2, output()), (4, output()), (4, output()), (3, lost(1)), (5, exited(0)), (5, exited(0))];
        assert_eq!(through(doubled), [(4, output()), (5, exited(0))]);
    }

    #[test]
    fn what_is_missing_is_said_and_never_passed_over() {
        assert_eq!(through([(7, output())]), [(6, lost(3)), (7, output())]);
        assert_eq!(through([(9, exited(0))]), [(8, lost(5)), (9, exited(0))]);
        // What the supervisor says of it counts from what it thinks is here.
        assert_eq!(through([(6, lost(5)), (7, output())]), [(6, lost(3)), (7, output())]);
        assert_eq!(through([(6, lost(1)), (7, output())]), [(6, lost(3)), (7, output())]);
    }

    #[test]
    fn a_warning_stands_outside_the_numbers() {
        let warning = || ExecEvent::LimitWarning { limit: "memory".into(), value: 1, bound: 2 };
        let events = [(3, warning()), (4, output()), (4, warning()), (5, output())];
        assert_eq!(through(events.clone()), events);
    }

    fn accepted(follows: &mut Follows, stdin: StdinMode) {
        let mut exec = crate::Request::new(["cat"]).exec().clone();
        (exec.request_id, exec.stdin) = (7, stdin);
        follows.sent(&ClientMessage::Exec(Box::new(exec)));
        of(follows, [(1, ExecEvent::Accepted { request_id: 7 })]);
    }

    fn attach(after_seq: u64) -> ClientMessage {
        ClientMessage::Attach { exec_id: RUN, after_seq }
    }

    fn is_in_doubt(received: &VecDeque<Received>) -> bool {
        matches!(received.front(), Some(Err(ClientError::InputInDoubt { exec_id: RUN })))
    }

    #[test]
    fn runs_questions_and_cancels_are_asked_again_and_signals_once() {
        let mut follows = Follows::default();
        accepted(&mut follows, StdinMode::None);
        of(&mut follows, [(2, output())]);
        let cancel = ClientMessage::Cancel { exec_id: RUN };
        let signal = ClientMessage::Signal { exec_id: RUN, signal: 2 };
        follows.sent(&ClientMessage::Status);
        follows.sent(&cancel);
        let mut errors = VecDeque::new();
        follows.broke(&mut errors);
        assert_eq!(follows.keep(&ClientMessage::List), Kept::Yes);
        assert_eq!(follows.keep(&signal), Kept::Yes);
        assert_eq!(follows.keep(&ClientMessage::Breakers), Kept::Yes);
        let again = [attach(2), cancel, ClientMessage::Status, ClientMessage::List, ClientMessage::Breakers];
        assert_eq!(follows.resume(&mut errors), [&again[..], &[signal]].concat());
        follows.broke(&mut errors);
        assert_eq!(follows.resume(&mut errors), again);
        assert!(errors.is_empty());
        follows.take(ServerMessage::Runs(vec![]), &mut VecDeque::new());
        follows.take(ServerMessage::Breakers(vec![]), &mut VecDeque::new());
        of(&mut follows, [(3, exited(0))]);
        assert_eq!(follows.resume(&mut errors), [ClientMessage::Status]);
        assert!(!follows.any());
    }

    #[test]
    fn what_is_kept_for_later_is_bounded() {
        let mut follows = Follows::default();
        for message in [ClientMessage::Signal { exec_id: RUN, signal: 2 }, ClientMessage::List] {
            let kept = core::iter::repeat_with(|| follows.keep(&message)).take(2 * MAX_LATER);
            assert_eq!(kept.filter(|kept| *kept == Kept::Yes).count(), MAX_LATER);
        }
    }

    #[test]
    fn a_request_without_an_answer_is_an_error_and_is_not_sent_again() {
        let mut follows = Follows::default();
        let exec = crate::Request::new(["true"]).exec().clone();
        follows.sent(&ClientMessage::Exec(Box::new(exec)));
        let mut errors = VecDeque::new();
        follows.broke(&mut errors);
        assert!(matches!(errors.make_contiguous(), [Err(ClientError::Unanswered { request_id: 0 })]));
        assert_eq!(follows.resume(&mut errors), []);
        follows.broke(&mut errors);
        assert_eq!(errors.len(), 1);
    }

    #[test]
    fn a_run_that_is_unknown_after_a_break_is_lost_and_one_that_never_was_is_denied() {
        let denied = || ServerMessage::Denied {
            request_id: 0,
            exec_id: Some(RUN),
            denied: Denied::new(DenyReason::UnknownRun, "no such run"),
        };
        let mut follows = Follows::default();
        let mut came = VecDeque::new();
        follows.sent(&attach(0));
        follows.take(denied(), &mut came);
        assert!(matches!(came.pop_back(), Some(Ok(ServerMessage::Denied { .. }))) && !follows.any());
        follows.sent(&attach(0));
        follows.broke(&mut came);
        follows.resume(&mut came);
        follows.take(denied(), &mut came);
        assert!(
            matches!(came.pop_back(), Some(Err(ClientError::Lost { exec_id: RUN, .. }))) && !follows.any()
        );
        // A signal to a run that has ended meanwhile: its events still come.
        follows.sent(&attach(0));
        of(&mut follows, [(1, output())]);
        follows.take(denied(), &mut came);
        assert!(matches!(came.pop_back(), Some(Ok(ServerMessage::Denied { .. }))) && follows.any());
    }

    #[test]
    fn streamed_input_is_in_doubt_after_a_break_unless_nothing_was_sent() {
        let mut follows = Follows::default();
        accepted(&mut follows, StdinMode::Stream);
        let mut errors = VecDeque::new();
        follows.broke(&mut errors);
        follows.resume(&mut errors);
        assert!(errors.is_empty());
        follows.sent(&ClientMessage::StdinData { exec_id: RUN, bytes: Bytes::from("abc") });
        follows.broke(&mut errors);
        assert!(errors.is_empty(), "it's told when there's a supervisor to tell what to do about it");
        follows.resume(&mut errors);
        assert!(is_in_doubt(&errors));
    }

    #[test]
    fn input_that_had_ended_is_judged_by_what_reached_the_tool() {
        for (reached, breaks, in_doubt) in [(3, 1, false), (2, 1, true), (2, 0, false)] {
            let mut follows = Follows::default();
            accepted(&mut follows, StdinMode::Stream);
            follows.sent(&ClientMessage::StdinData { exec_id: RUN, bytes: Bytes::from("abc") });
            follows.sent(&ClientMessage::StdinEof { exec_id: RUN });
            let mut came = VecDeque::new();
            for _ in 0..breaks {
                follows.broke(&mut came);
                assert_eq!(follows.resume(&mut came), [attach(1)]);
            }
            let event = exited(reached);
            follows.take(ServerMessage::Event { exec_id: RUN, seq: 2, event }, &mut came);
            assert_eq!(is_in_doubt(&came), in_doubt, "{reached} of 3 after {breaks} breaks");
            assert!(matches!(came.pop_back(), Some(Ok(ServerMessage::Event { seq: 2, .. }))));
        }
    }
}
