//! `--json`: what happens, one JSON object a line, on standard output.
//!
//! The objects are the wire's own types: `{"exec_id":…,"seq":…,"event":{"output":{"stream":"stdout","bytes":…}}}`,
//! `{"denied":{…}}` for a request that was refused, `{"awaits_approval":{…}}` for one that waits until somebody has approved it, and `{"connection":{…}}` where the daemon was away for a while. Bytes are text where they are UTF-8, else an array of
//! numbers; a digest is hexadecimal. `docs/cli.md` has an example of each.

use serde::Serialize;
use serde_json::{Value, json};
use stockade_protocol::ExecId;
use stockade_protocol::approval::RiskFactor;
use stockade_protocol::client::ExecEvent;
use stockade_protocol::denied::Denied;

/// One event of one run.
#[derive(Serialize)]
struct Line<E> {
    exec_id: ExecId,
    seq: u64,
    event: E,
}

/// One event, with its line end.
pub(crate) fn event(exec_id: ExecId, seq: u64, event: &ExecEvent) -> Vec<u8> {
    if !matches!(event, ExecEvent::Started { .. }) {
        return line(&Line { exec_id, seq, event });
    }
    let mut event = json!(event);
    if let Some(digest) = event.pointer_mut("/started/confinement/policy_digest") {
        let bytes = digest.as_array().map(Vec::as_slice).unwrap_or_default();
        let hex = bytes.iter().filter_map(Value::as_u64).map(|byte| format!("{byte:02x}")).collect();
        *digest = Value::String(hex);
    }
    line(&Line { exec_id, seq, event })
}

/// One refusal, with its line end.
pub(crate) fn denied(denied: &Denied) -> Vec<u8> {
    line(&json!({ "denied": denied }))
}

/// That a request waits until somebody has approved it, with its line end.
pub(crate) fn awaits(exec_id: ExecId, within_ms: u64, score: u32, factors: &[RiskFactor]) -> Vec<u8> {
    line(&json!({
        "awaits_approval": { "exec_id": exec_id, "within_ms": within_ms, "score": score, "factors": factors },
    }))
}

/// A pause without a daemon, and its end. Of a short one nothing is said.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Connection {
    /// The daemon is gone, and is waited for.
    Waiting {
        /// So long in all.
        within_ms: u64,
    },
    /// There is one again.
    Back {
        /// So long after the connection broke.
        after_ms: u64,
    },
}

/// What became of the connection, with its line end.
pub(crate) fn connection(connection: Connection) -> Vec<u8> {
    line(&json!({ "connection": connection }))
}

/// Any object, with its line end.
pub(crate) fn line(value: &impl Serialize) -> Vec<u8> {
    // Our own types have string keys and no failing Serialize; if one ever had, the reader sees that it failed.
    let mut bytes = serde_json::to_vec(value)
        .unwrap_or_else(|error| json!({ "error": error.to_string() }).to_string().into_bytes());
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use stockade_protocol::Bytes;
    use stockade_protocol::client::Stream;
    use stockade_protocol::confinement::{Confinement, Plan, StdioPath};
    use stockade_protocol::denied::DenyReason;
    use stockade_protocol::outcome::{MemoryMechanism, Outcome, Usage};
    use stockade_protocol::spec::Level;

    use super::*;

    const ID: ExecId = ExecId::from_bytes([1, 0x90, 0, 0, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, 1]);

    fn parsed(bytes: &[u8]) -> Value {
        assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 1, "one line an object");
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn output_is_text_where_it_is_utf8_else_numbers() {
        let output = |bytes: &[u8]| ExecEvent::Output { stream: Stream::Stderr, bytes: Bytes::from(bytes) };
        let text = parsed(&event(ID, 3, &output(b"a\nb")));
        assert_eq!(text["exec_id"], "01900000-0000-7000-8000-000000000001");
        assert_eq!(text["event"]["output"]["stream"], "stderr");
        assert_eq!(text["event"]["output"]["bytes"], "a\nb");
        assert_eq!(parsed(&event(ID, 3, &output(b"\xff\x00")))["event"]["output"]["bytes"], json!([255, 0]));
    }

    #[test]
    fn a_policys_digest_is_hexadecimal() {
        let confinement = Confinement {
            policy: "default".into(),
            policy_digest: [0xa5; 32],
            level: Level::Strict,
            plan: Plan::User,
            layers: vec![],
            memory: MemoryMechanism::Monitor,
            host_uid: 1000,
            absent: vec![],
            stdio: [StdioPath::Null, StdioPath::Relayed, StdioPath::Relayed],
        };
        let started = ExecEvent::Started { confinement: Box::new(confinement) };
        let value = parsed(&event(ID, 2, &started));
        assert_eq!(value["event"]["started"]["confinement"]["policy_digest"], "a5".repeat(32));
    }

    #[test]
    fn the_end_says_outcome_and_usage() {
        let exited = ExecEvent::Exited {
            outcome: Outcome::Exited { code: 7 },
            usage: Usage::default(),
            trusted_files: vec![],
            redactions: None,
            result_check: None,
        };
        let value = parsed(&event(ID, 4, &exited));
        assert_eq!(value["event"]["exited"]["outcome"]["exited"]["code"], 7);
        assert_eq!(value["event"]["exited"]["usage"]["memory_mechanism"], "rusage");
    }

    #[test]
    fn a_pause_is_an_object_of_its_own() {
        let waiting = parsed(&connection(Connection::Waiting { within_ms: 30_000 }));
        assert_eq!(waiting, json!({ "connection": { "waiting": { "within_ms": 30_000 } } }));
        let back = parsed(&connection(Connection::Back { after_ms: 2_310 }));
        assert_eq!(back, json!({ "connection": { "back": { "after_ms": 2_310 } } }));
    }

    #[test]
    fn a_refusal_has_its_reason_and_remedy() {
        let value = parsed(&denied(&Denied::new(DenyReason::UnknownPolicy, "no").remedy("yes")));
        assert_eq!(value["denied"]["reason"], "unknown-policy");
        assert_eq!(value["denied"]["remedy"], "yes");
    }
}
