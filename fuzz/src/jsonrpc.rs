//! JSON-RPC, both framings: a stream cut into messages, requests read and taken, and whatever they ask for answered by a daemon that
//! refuses, accepts, writes and ends.
//!
//! First byte: the framing and how long the pieces are. Second: what the daemon does. The rest: the stream.

use serde_json::Value;
use stockade_jsonrpc::bounds::{MAX_HEADER, MAX_MESSAGE};
use stockade_jsonrpc::{Call, Explained, Framing, FramingError, Kind, Session, Tail, Todo};
use stockade_protocol::ExecId;
use stockade_protocol::client::{ClientMessage, ExecEvent, ServerMessage, Stream};
use stockade_protocol::denied::{Denied, DenyReason};
use stockade_protocol::outcome::{Outcome, Usage};
use stockade_protocol::statistics::StatisticsReport;

use crate::held;

/// What a session may hold beside what came: tables, and the answer to one message.
const BESIDE: usize = 256 * 1024;
/// Bytes in memory for a byte that came: a batch of the shortest requests is answered by errors, each with words.
const EACH: usize = 1024;

pub(crate) fn run(data: &[u8]) {
    let [first, daemon, stream @ ..] = data else { return };
    let kind = if first & 1 == 0 { Kind::Lines } else { Kind::Headers };
    let piece = usize::from(first >> 1).max(1);
    let (messages, error) = cut(kind, stream, piece);
    let (whole, other) = cut(kind, stream, stream.len().max(1));
    assert_eq!(whole, messages, "pieces of {piece}");
    assert_eq!(other.map(alike), error.map(alike), "pieces of {piece}");
    reframed(kind, &messages);
    held::within(BESIDE + EACH * stream.len(), || converse(kind, &messages, *daemon));
    text(stream);
}

/// A header that is too long and is none besides is told as either: by what has come when it's looked at.
fn alike(error: FramingError) -> FramingError {
    match error {
        FramingError::HeaderTooLarge => FramingError::NotAHeader,
        other => other,
    }
}

fn cut(kind: Kind, stream: &[u8], piece: usize) -> (Vec<Vec<u8>>, Option<FramingError>) {
    let (mut framing, mut messages) = (Framing::new(kind), Vec::new());
    for part in stream.chunks(piece) {
        framing.push(part);
        loop {
            match framing.next_message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
        assert!(
            framing.held_with(0) <= 2 * (MAX_MESSAGE + MAX_HEADER + piece),
            "more than one message is kept"
        );
    }
    (messages, None)
}

/// What was cut is framed and cut again as the same, but for what a line can't hold.
fn reframed(kind: Kind, messages: &[Vec<u8>]) {
    let mut stream = Vec::new();
    messages.iter().for_each(|message| kind.frame(message, &mut stream));
    assert_eq!(cut(kind, &stream, stream.len().max(1)), (messages.to_vec(), None));
}

/// Every message is answered whole, and when all is answered nothing of it is kept.
fn converse(kind: Kind, messages: &[Vec<u8>], daemon: u8) {
    let mut session = Session::new(kind, "fuzzed", 0);
    for (at, message) in messages.iter().enumerate() {
        let run = ExecId::from_bytes([u8::try_from(at % 251).unwrap(); 16]);
        let calls: Vec<Call> = session.open(message);
        for (number, call) in calls.into_iter().enumerate() {
            let run =
                ExecId::from_bytes((u128::from_be_bytes(*run.as_bytes()) ^ number as u128).to_be_bytes());
            match session.take(call) {
                Todo::Exec(request) => act(&mut session, run, request.request_id, daemon),
                Todo::Messages(asked) => {
                    let later = asked.iter().any(|asked| answer(&mut session, asked, daemon));
                    session.done();
                    if later {
                        let report = StatisticsReport {
                            from_s: None,
                            to_s: 0,
                            rows: vec![],
                            left_out: 0,
                            unwritten: None,
                        };
                        session.tell(&ServerMessage::Statistics(Box::new(report)));
                    }
                }
                Todo::Explain(asked) => {
                    let (policy, thing) = (asked.policy, asked.thing);
                    let (rule, file, note) = Default::default();
                    let explained = Explained {
                        policy,
                        question: asked.what,
                        thing,
                        allowed: true,
                        rule,
                        file,
                        line: 0,
                        note,
                    };
                    session.explained(Ok(&explained));
                }
                Todo::Done | Todo::CancelNumber(_) | Todo::CancelRun(_) => {}
            }
        }
        let out = session.take_out();
        let (told, error) = cut(kind, &out, out.len().max(1));
        assert_eq!(error, None, "its own messages");
        told.iter().for_each(|told| well_formed(&serde_json::from_slice(told).expect("its own JSON")));
    }
    assert_eq!(session.held(), 0, "something of what was answered is kept");
}

fn act(session: &mut Session, exec_id: ExecId, request_id: u64, daemon: u8) {
    if daemon & 1 == 1 {
        let denied = Denied::new(DenyReason::Busy, "full").decided_by("rate", "1");
        return session.tell(&ServerMessage::Denied { request_id, exec_id: None, denied });
    }
    let mut tails = [Tail::default(); 2];
    let say = |session: &mut Session, seq, event| session.tell(&ServerMessage::Event { exec_id, seq, event });
    say(session, 1, ExecEvent::Accepted { request_id });
    for (seq, bytes) in (3..).zip([&b"a\xc3"[..], b"\xa9", b"\xf0\x9f", &[daemon]]) {
        session.output((exec_id, seq, Stream::Stdout), bytes, &mut tails[0], daemon & 2 == 0);
    }
    session.flush(exec_id, 6, &mut tails);
    let (outcome, usage) = (Outcome::Exited { code: daemon }, Usage::default());
    say(
        session,
        7,
        ExecEvent::Exited { outcome, usage, trusted_files: vec![], redactions: None, result_check: None },
    );
}

/// Whether it's answered later.
fn answer(session: &mut Session, asked: &ClientMessage, daemon: u8) -> bool {
    let told = match asked {
        ClientMessage::List => ServerMessage::Runs(vec![]),
        ClientMessage::Breakers => ServerMessage::Breakers(vec![]),
        ClientMessage::Statistics(_) if daemon & 4 == 0 => return true,
        ClientMessage::StdinData { .. } | ClientMessage::StdinEof { .. } => return false,
        _ => {
            let denied = Denied::new(DenyReason::UnknownRun, "no run of that id");
            ServerMessage::Denied { request_id: 0, exec_id: None, denied }
        }
    };
    session.tell(&told);
    false
}

fn well_formed(told: &Value) {
    if let Value::Array(answers) = told {
        assert!(!answers.is_empty());
        return answers.iter().for_each(well_formed);
    }
    assert_eq!(told["jsonrpc"], "2.0");
    let kinds = ["result", "error", "method"].into_iter().filter(|key| told.get(key).is_some()).count();
    assert_eq!(kinds, 1, "{told}");
    assert!(told.get("method").is_some() || told.get("id").is_some(), "{told}");
}

/// Pieces of a stream, joined, are its bytes.
fn text(stream: &[u8]) {
    let (mut tail, mut joined) = (Tail::default(), Vec::new());
    for chunk in stream.chunks(3) {
        joined.extend_from_slice(&tail.join(chunk));
    }
    joined.extend(tail.take());
    assert_eq!(joined, stream);
}
