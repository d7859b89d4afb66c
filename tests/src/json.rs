//! JSON-RPC with a daemon, spoken by hand: whole messages, or bytes that are none.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::wire::Wire;
use crate::{Daemon, Ground, Person};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// One connection, one message a line or with headers.
#[derive(Debug)]
pub struct Json {
    /// For bytes as they are.
    pub wire: Wire,
    has_headers: bool,
    bytes: Vec<u8>,
    /// What came while something else was waited for.
    aside: VecDeque<Value>,
    id: u64,
}

impl Json {
    /// Connects and doesn't say anything.
    #[must_use]
    pub fn connect(daemon: &Daemon, person: Person) -> Self {
        let wire = Wire::connect(daemon, person);
        Self { wire, has_headers: false, bytes: Vec::new(), aside: VecDeque::new(), id: 0 }
    }

    /// Connects and opens a session of lines.
    #[must_use]
    pub fn opened(daemon: &Daemon, person: Person) -> Self {
        let mut json = Self::connect(daemon, person);
        json.result("initialize", json!({ "clientInfo": { "name": "tests" } }));
        json
    }

    /// Connects and opens a session of headers.
    #[must_use]
    pub fn opened_with_headers(daemon: &Daemon, person: Person) -> Self {
        let mut json = Self::connect(daemon, person);
        json.has_headers = true;
        json.result("initialize", json!({}));
        json
    }

    /// Sends one message.
    pub fn send(&mut self, message: &Value) {
        let text = message.to_string();
        let framed = if self.has_headers {
            format!("Content-Length: {}\r\n\r\n{text}", text.len())
        } else {
            format!("{text}\n")
        };
        self.wire.send_bytes(framed.as_bytes()).unwrap();
    }

    /// Sends a request; its id.
    pub fn ask(&mut self, method: &str, params: &Value) -> u64 {
        self.id += 1;
        self.send(&json!({ "jsonrpc": "2.0", "id": self.id, "method": method, "params": params }));
        self.id
    }

    /// The next message that hasn't been looked at; `None`: nothing within the time, or the end.
    pub fn try_next(&mut self, within: Duration) -> Option<Value> {
        if let Some(message) = self.aside.pop_front() {
            return Some(message);
        }
        self.read(within)
    }

    fn read(&mut self, within: Duration) -> Option<Value> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(message) = self.cut() {
                return Some(message);
            }
            let bytes = self.wire.receive_bytes(deadline.saturating_duration_since(Instant::now()))?;
            if bytes.is_empty() {
                assert!(self.bytes.is_empty(), "half a message: {}", self.bytes.escape_ascii());
                return None;
            }
            self.bytes.extend(bytes);
        }
    }

    fn cut(&mut self) -> Option<Value> {
        let (from, to, behind) = if self.has_headers {
            let header = self.bytes.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
            let text = std::str::from_utf8(&self.bytes[..header]).unwrap();
            let length: usize = text.strip_prefix("Content-Length: ").unwrap().parse().unwrap();
            (header + 4, header + 4 + length, header + 4 + length)
        } else {
            let end = self.bytes.iter().position(|byte| *byte == b'\n')?;
            (0, end, end + 1)
        };
        let message = serde_json::from_slice(self.bytes.get(from..to)?).unwrap();
        self.bytes.drain(..behind);
        Some(message)
    }

    /// The next message, which must come.
    pub fn message(&mut self) -> Value {
        self.try_next(PATIENCE).expect("a message")
    }

    /// The answer to a request; what comes before it is kept.
    pub fn answer(&mut self, id: &Value) -> Value {
        if let Some(at) =
            self.aside.iter().position(|message| message["id"] == *id && message["method"].is_null())
        {
            return self.aside.remove(at).unwrap();
        }
        loop {
            let message = self.read(PATIENCE).expect("an answer");
            if message["id"] == *id && message["method"].is_null() {
                return message;
            }
            self.aside.push_back(message);
        }
    }

    /// What a request is answered with, which isn't an error.
    #[track_caller]
    #[allow(clippy::needless_pass_by_value, reason = "callers make the parameters on the spot")]
    pub fn result(&mut self, method: &str, params: Value) -> Value {
        let id = self.ask(method, &params);
        let mut answer = self.answer(&json!(id));
        assert!(answer["error"].is_null(), "{method}: {answer}");
        assert_eq!(answer["jsonrpc"], "2.0");
        answer["result"].take()
    }

    /// The error that a request is answered with.
    #[track_caller]
    #[allow(clippy::needless_pass_by_value, reason = "callers make the parameters on the spot")]
    pub fn error(&mut self, method: &str, params: Value) -> Value {
        let id = self.ask(method, &params);
        let mut answer = self.answer(&json!(id));
        assert!(answer["result"].is_null() && answer["error"].is_object(), "{method}: {answer}");
        answer["error"].take()
    }

    /// The notifications about a run up to its end, which must come: method and parameters. What else comes stays aside.
    pub fn follow(&mut self, run: &Value) -> Vec<(String, Value)> {
        let (mut events, mut others) = (Vec::new(), VecDeque::new());
        loop {
            let mut message = self.message();
            if message["params"]["execId"] != *run {
                others.push_back(message);
                continue;
            }
            let method = message["method"].as_str().unwrap().to_owned();
            let is_last = method == "run/exited";
            events.push((method, message["params"].take()));
            if is_last {
                others.append(&mut self.aside);
                self.aside = others;
                return events;
            }
        }
    }

    /// Whether the daemon has closed the connection: nothing comes any more, but what is told before.
    pub fn is_closed(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.wire.receive_bytes(Duration::from_secs(1)) {
                Some(bytes) if bytes.is_empty() => return true,
                _ => {}
            }
        }
        false
    }
}

/// Parameters of `exec` in a ground's workspace.
#[must_use]
pub fn exec(ground: &Ground, policy: &str, words: &[&str]) -> Value {
    json!({ "argv": words, "policy": policy, "workspace": ground.work(), "env": { "PATH": crate::ground::PATH } })
}

/// The output of a run's events: bytes of one stream.
#[must_use]
pub fn output(events: &[(String, Value)], stream: &str) -> Vec<u8> {
    let pieces =
        events.iter().filter(|(method, params)| method == "run/output" && params["stream"] == stream);
    pieces.flat_map(|(_, params)| bytes(&params["data"])).collect()
}

/// The bytes that a text or its base64 stand for.
#[must_use]
pub fn bytes(text: &Value) -> Vec<u8> {
    if let Some(text) = text.as_str() {
        return text.as_bytes().to_vec();
    }
    let coded = text["base64"].as_str().expect("text, or base64").trim_end_matches('=');
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        other => panic!("{other} in base64"),
    };
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for byte in coded.bytes() {
        bits = bits << 6 | u32::from(value(byte));
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).unwrap());
        }
    }
    bytes
}
