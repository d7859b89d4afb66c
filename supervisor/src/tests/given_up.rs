//! Requests that their clients give up before anything has begun, by JSON-RPC's own id: a binary client knows none until then.

use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};
use stockade_protocol::launch::ToLauncher;
use stockade_protocol::outcome::Outcome;

use super::approvals::{list, stage};
use super::record::hanging;
use super::stage::{Changes, LONG, Stage, until};
use crate::serve::Order;

/// A client of lines.
struct Lines(BufReader<UnixStream>);

impl Lines {
    fn opened(stage: &Stage) -> Self {
        let socket = UnixStream::connect(&stage.socket).unwrap();
        let mut lines = Self(BufReader::new(socket));
        lines.say(&json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize" }));
        assert_eq!(lines.next()["id"], 0);
        lines
    }

    fn say(&mut self, message: &Value) {
        self.0.get_mut().write_all(format!("{message}\n").as_bytes()).unwrap();
    }

    fn exec(&mut self, stage: &Stage, id: &str, word: &str) {
        let params = json!({ "argv": ["/bin/true", word], "workspace": stage.workspace(), "wait": true });
        self.say(&json!({ "jsonrpc": "2.0", "id": id, "method": "exec", "params": params }));
    }

    fn cancel(&mut self, id: &str) {
        self.say(&json!({ "jsonrpc": "2.0", "method": "$/cancelRequest", "params": { "id": id } }));
    }

    fn next(&mut self) -> Value {
        self.next_within(LONG).expect("nothing is said")
    }

    fn next_within(&mut self, within: Duration) -> Option<Value> {
        self.0.get_ref().set_read_timeout(Some(within)).unwrap();
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(_) => Some(serde_json::from_str(&line).unwrap()),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
                None
            }
        }
    }
}

fn is_cancelled(answer: &Value, id: &str, reason: &str) {
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(id), &json!(-32001)), "{answer}");
    assert_eq!(answer["error"]["data"]["reason"], reason, "{answer}");
}

#[test]
fn what_waits_for_a_disk_that_hangs_is_answered_when_its_given_up_and_never_runs() {
    let (stage, hangs) = hanging("", Changes::default());
    let mut launcher = stage.launcher();
    let mut client = Lines::opened(&stage);
    client.exec(&stage, "one", "");
    // Not given up it waits.
    assert_eq!(client.next_within(Duration::from_millis(200)), None);
    client.cancel("one");
    is_cancelled(&client.next(), "one", "cancelled");
    // Twice is once, and the id is free again.
    client.cancel("one");
    client.exec(&stage, "one", "");
    std::fs::remove_file(hangs).unwrap();
    let (launch, _) = launcher.launch();
    launcher.started_with(&launch, &[]);
    launcher.ended(launch.exec_id, Outcome::Exited { code: 0 });
    let answer = client.next();
    assert_eq!(answer["result"]["outcome"]["kind"], "exited", "{answer}");
    while launcher.hears_something() {
        assert!(!matches!(launcher.next(), ToLauncher::Launch(_)), "what was given up was begun");
    }
}

#[test]
fn a_stop_answers_no_second_time_what_was_given_up() {
    let (stage, _hangs) = hanging("", Changes::default());
    let _launcher = stage.launcher();
    let mut client = Lines::opened(&stage);
    client.exec(&stage, "one", "");
    client.cancel("one");
    is_cancelled(&client.next(), "one", "cancelled");
    stage.order(Order::Stop);
    let mut rest = String::new();
    client.0.read_line(&mut rest).unwrap();
    assert!(!rest.contains("\"one\""), "{rest}");
}

#[test]
fn what_waits_for_an_approval_is_told_of_by_its_requests_id_and_given_up_by_it() {
    let stage = stage("");
    let (mut launcher, mut other) = (stage.launcher(), stage.client());
    let mut client = Lines::opened(&stage);
    client.exec(&stage, "one", "asked");
    let told = client.next();
    assert_eq!(told["method"], "run/awaitsApproval", "{told}");
    let params = &told["params"];
    assert_eq!((&params["requestId"], &params["score"]), (&json!("one"), &json!(60)));
    assert_eq!(params["factors"], json!([{ "name": "marked", "score": 60, "reason": "it's marked" }]));
    assert!(params["withinMs"].as_u64().is_some_and(|within| within > 0));
    assert_eq!(list(&mut other, false)[0].exec_id.to_string(), params["execId"].as_str().unwrap());
    client.cancel("one");
    is_cancelled(&client.next(), "one", "not-approved");
    until("it waits no more", || list(&mut other, false).is_empty());
    assert!(!launcher.hears_something());
}
