#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
//! What a session answers, whoever asks what in which order.

use serde_json::{Value, json};
use stockade_protocol::client::{ProtocolError, ProtocolErrorCode, RunState, RunSummary};
use stockade_protocol::denied::DenyReason;
use stockade_protocol::outcome::{Outcome, Usage};

use super::*;

const RUN: ExecId = ExecId::from_bytes([1, 0x90, 0, 0, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, 1]);

fn opened() -> Session {
    let mut session = Session::new(Kind::Lines, "0.0.0", 6);
    ask(&mut session, &json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize" }));
    assert_eq!(told(&mut session)[0]["result"]["serverInfo"]["version"], "0.0.0");
    session
}

fn ask(session: &mut Session, message: &Value) -> Vec<Todo> {
    let calls = session.open(message.to_string().as_bytes());
    calls.into_iter().map(|call| session.take(call)).collect()
}

fn told(session: &mut Session) -> Vec<Value> {
    let out = session.take_out();
    out.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

fn exec(id: &Value, wait: bool) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": "exec", "params": { "argv": ["x"], "workspace": "/", "wait": wait } })
}

fn number(todo: &[Todo]) -> u64 {
    match todo {
        [Todo::Exec(request)] => request.request_id,
        other => panic!("{other:?}"),
    }
}

fn event(session: &mut Session, seq: u64, event: ExecEvent) {
    session.tell(&ServerMessage::Event { exec_id: RUN, seq, event });
}

fn exited() -> ExecEvent {
    ExecEvent::Exited {
        outcome: Outcome::Exited { code: 0 },
        usage: Usage::default(),
        trusted_files: vec![],
        redactions: None,
        result_check: None,
    }
}

#[test]
fn a_run_is_answered_when_it_is_accepted_or_denied_and_only_then() {
    let mut session = opened();
    let first = number(&ask(&mut session, &exec(&json!("a"), false)));
    let second = number(&ask(&mut session, &exec(&json!("b"), false)));
    assert!(told(&mut session).is_empty() && first != second);
    let denied = Denied::new(DenyReason::Busy, "full").retry_after(5);
    session.tell(&ServerMessage::Denied { request_id: first, exec_id: None, denied });
    event(&mut session, 1, ExecEvent::Accepted { request_id: second });
    let answers = told(&mut session);
    assert_eq!(answers[0]["error"]["data"], json!({ "reason": "busy", "retryAfterMs": 5 }));
    assert_eq!((&answers[1]["id"], &answers[1]["result"]["execId"]), (&json!("b"), &json!(RUN.to_string())));
    // What nobody waits for any more, and another connection's run of the same number.
    event(&mut session, 1, ExecEvent::Accepted { request_id: second });
    assert_eq!(told(&mut session)[0]["method"], "run/accepted");
    assert_eq!(session.held(), 0, "nothing is kept of it");
}

#[test]
fn a_run_that_is_waited_for_is_told_once() {
    let mut session = opened();
    let asked = number(&ask(&mut session, &exec(&json!(1), true)));
    event(&mut session, 1, ExecEvent::Accepted { request_id: asked });
    let mut tail = Tail::default();
    session.output((RUN, 3, Stream::Stdout), b"a\xc3", &mut tail, true);
    session.output((RUN, 4, Stream::Stdout), b"\xa9", &mut tail, true);
    assert!(session.waits_for(RUN) && tail.is_empty());
    event(&mut session, 4, ExecEvent::OutputLost { events: 1 });
    event(&mut session, 5, exited());
    let answers = told(&mut session);
    assert_eq!(answers.len(), 1);
    assert_eq!(
        (&answers[0]["result"]["stdout"], &answers[0]["result"]["truncated"]),
        (&json!("a\u{e9}"), &json!(true))
    );
}

#[test]
fn what_the_daemon_does_not_answer_is_answered_when_it_is_done() {
    let mut session = opened();
    let cancel =
        json!({ "jsonrpc": "2.0", "id": 1, "method": "cancel", "params": { "execId": RUN.to_string() } });
    assert!(
        matches!(ask(&mut session, &cancel).as_slice(), [Todo::Messages(messages)] if messages.len() == 1)
    );
    session.done();
    assert_eq!(told(&mut session)[0]["result"], json!({}));
    ask(&mut session, &cancel);
    let denied = Denied::new(DenyReason::UnknownRun, "no");
    session.tell(&ServerMessage::Denied { request_id: 0, exec_id: Some(RUN), denied });
    session.done();
    let answers = told(&mut session);
    assert_eq!((answers.len(), &answers[0]["error"]["data"]["execId"]), (1, &json!(RUN.to_string())));
}

#[test]
fn statistics_are_answered_later_and_by_their_own_id() {
    let mut session = opened();
    ask(&mut session, &json!({ "jsonrpc": "2.0", "id": "s", "method": "statistics" }));
    session.done();
    ask(&mut session, &json!({ "jsonrpc": "2.0", "id": "l", "method": "list" }));
    session.tell(&ServerMessage::Runs(vec![]));
    session.done();
    assert_eq!(told(&mut session)[0]["id"], "l");
    let report = stockade_protocol::statistics::StatisticsReport {
        from_s: None,
        to_s: 1,
        rows: vec![],
        left_out: 0,
        unwritten: None,
    };
    session.tell(&ServerMessage::Statistics(Box::new(report)));
    assert_eq!(told(&mut session)[0]["id"], "s");
}

#[test]
fn notifications_are_never_answered() {
    let mut session = opened();
    for method in ["no/such", "list", "exec", "initialize", "$/cancelRequest"] {
        ask(&mut session, &json!({ "jsonrpc": "2.0", "method": method }));
        session.tell(&ServerMessage::Runs(vec![]));
        session.done();
        assert!(told(&mut session).is_empty(), "{method}");
    }
}

#[test]
fn a_run_is_cancelled_by_its_requests_id_before_and_after_it_was_accepted() {
    let mut session = opened();
    let asked = number(&ask(&mut session, &exec(&json!("x"), true)));
    let cancel = json!({ "jsonrpc": "2.0", "method": "$/cancelRequest", "params": { "id": "\u{78}" } });
    assert!(
        matches!(ask(&mut session, &cancel).as_slice(), [Todo::CancelNumber(number)] if *number == asked)
    );
    event(&mut session, 1, ExecEvent::Accepted { request_id: asked });
    assert!(matches!(ask(&mut session, &cancel).as_slice(), [Todo::CancelRun(RUN)]));
    event(&mut session, 3, exited());
    assert!(matches!(ask(&mut session, &cancel).as_slice(), [Todo::Done]));
}

#[test]
fn answers_of_a_batch_are_bounded_together_and_each_has_one() {
    let mut session = opened();
    let batch: Vec<Value> = (0..20).map(|id| exec(&json!(id), true)).collect();
    let asked = ask(&mut session, &json!(batch));
    for (at, todo) in asked.iter().enumerate() {
        let Todo::Exec(request) = todo else { panic!("{todo:?}") };
        let run = ExecId::from_bytes([u8::try_from(at).unwrap(); 16]);
        let accepted = ExecEvent::Accepted { request_id: request.request_id };
        session.tell(&ServerMessage::Event { exec_id: run, seq: 1, event: accepted });
        session.output((run, 3, Stream::Stdout), &[b'x'; MAX_INLINE_OUTPUT], &mut Tail::default(), true);
        assert!(told(&mut session).is_empty());
        session.tell(&ServerMessage::Event { exec_id: run, seq: 4, event: exited() });
    }
    let answers = told(&mut session);
    let answers = answers[0].as_array().unwrap();
    assert_eq!(answers.len(), 20);
    // Each run's end is told; of those that had no room only the output is missing.
    for (at, answer) in answers.iter().enumerate() {
        let result = &answer["result"];
        assert_eq!((&result["outcome"]["kind"], &result["truncated"]), (&json!("exited"), &json!(at > 2)));
        assert_eq!(result["stdout"].as_str().unwrap().len(), if at > 2 { 0 } else { MAX_INLINE_OUTPUT });
    }
    assert_eq!(session.held(), 0);
}

/// A list of runs with about so many bytes.
fn runs(bytes: usize) -> ServerMessage {
    let one = RunSummary {
        exec_id: RUN,
        owner_uid: 1,
        policy: "p".repeat(200),
        command: "c".into(),
        state: RunState::Running,
        age_ms: 1,
        last_seq: 1,
    };
    ServerMessage::Runs(vec![one; bytes / 350])
}

#[test]
fn all_open_batches_of_a_session_share_one_bound_and_a_run_is_never_left_out_of_it() {
    let mut session = opened();
    let mut whole = 0;
    for batch in 0..MAX_BATCHES {
        let list = |at: usize| json!({ "jsonrpc": "2.0", "id": format!("{batch}-{at}"), "method": "list" });
        let mut requests: Vec<Value> = (0..10).map(list).collect();
        requests.push(exec(&json!(format!("open-{batch}")), true));
        let text = serde_json::to_vec(&requests).unwrap();
        for call in session.open(&text) {
            match session.take(call) {
                Todo::Messages(_) => {
                    whole += 1;
                    session.tell(&runs(60_000));
                }
                Todo::Exec(request) => {
                    let id = ExecId::from_bytes([u8::try_from(batch).unwrap(); 16]);
                    let accepted = ExecEvent::Accepted { request_id: request.request_id };
                    session.tell(&ServerMessage::Event { exec_id: id, seq: 1, event: accepted });
                }
                Todo::Done => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(told(&mut session).is_empty());
        assert!(session.held() < 3 * MAX_BATCH_ANSWERS, "{} after {batch}", session.held());
    }
    assert!((10..40).contains(&whole), "{whole} were asked of 160");
    // One more is refused whole, by one error.
    assert!(ask(&mut session, &json!([exec(&json!("more"), true)])).is_empty());
    let refused = told(&mut session);
    assert_eq!((&refused[0]["id"], &refused[0]["error"]["code"]), (&Value::Null, &json!(-32_600)));
    for batch in 0..MAX_BATCHES {
        let id = ExecId::from_bytes([u8::try_from(batch).unwrap(); 16]);
        session.tell(&ServerMessage::Event { exec_id: id, seq: 4, event: exited() });
        let answers = told(&mut session)[0].take();
        let answers = answers.as_array().unwrap();
        assert_eq!((answers.len(), &answers[10]["result"]["outcome"]["kind"]), (11, &json!("exited")));
        let cut = answers.iter().filter(|answer| answer["error"]["code"] == ANSWER_TOO_LARGE).count();
        let expected = if batch == 0 {
            0..=0
        } else if batch == 1 {
            1..=9
        } else {
            10..=10
        };
        assert!(expected.contains(&cut), "{batch}: {cut}");
    }
    assert_eq!(session.held(), 0);
}

#[test]
fn an_error_repeats_little_of_what_came() {
    let mut session = opened();
    let signal = json!({ "execId": RUN.to_string(), "signal": "\u{7f}".repeat(100_000) });
    ask(&mut session, &json!({ "jsonrpc": "2.0", "id": 1, "method": "signal", "params": signal }));
    let message = told(&mut session)[0]["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("invalid type") && message.len() < 600, "{message}");
}

#[test]
fn input_has_a_bound_a_message() {
    for (length, taken) in [(MAX_STDIN_CHUNK, true), (MAX_STDIN_CHUNK + 1, false)] {
        let mut session = opened();
        let params = json!({ "execId": RUN.to_string(), "data": "x".repeat(length) });
        let todo =
            ask(&mut session, &json!({ "jsonrpc": "2.0", "id": 1, "method": "stdin", "params": params }));
        assert_eq!(matches!(todo.as_slice(), [Todo::Messages(_)]), taken);
    }
}

#[test]
fn requests_in_flight_are_bounded() {
    let mut session = opened();
    for id in 0..MAX_IN_FLIGHT {
        ask(&mut session, &exec(&json!(id), false));
    }
    assert!(ask(&mut session, &exec(&json!("one more"), false)).is_empty());
    assert_eq!(told(&mut session)[0]["error"]["code"], -32_600);
}

#[test]
fn a_connections_end_has_its_code_and_no_id() {
    for (code, number, word) in [
        (ProtocolErrorCode::TooLarge, -32_600, "too-large"),
        (ProtocolErrorCode::Malformed, -32_700, "malformed"),
        (ProtocolErrorCode::Slow, -32_003, "slow"),
    ] {
        let mut session = opened();
        session.tell(&ServerMessage::Error(ProtocolError { code, text: "why".into() }));
        let told = told(&mut session)[0].take();
        assert_eq!((&told["id"], &told["error"]["code"]), (&Value::Null, &json!(number)));
        assert_eq!(told["error"]["data"]["reason"], word);
    }
}
