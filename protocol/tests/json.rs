//! The same types in a form for people: `--json` prints it, and other doors will speak it. Nothing is lost in it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::examples;
use stockade_protocol::Bytes;

#[test]
fn every_example_comes_back_from_json() {
    for example in examples::all() {
        let (text, again) = (example.json)(example.payload());
        assert_eq!(again, example.payload(), "{}: {text}", example.name);
        assert!(!text.contains('\n'), "{}: one line an event", example.name);
    }
}

#[test]
fn bytes_are_text_in_json_where_they_are_utf8_and_numbers_where_not() {
    let text = |bytes: &[u8]| serde_json::to_string(&Bytes::from(bytes)).unwrap();
    assert_eq!(text("gr\u{fc}n\n".as_bytes()), "\"gr\u{fc}n\\n\"");
    assert_eq!(text(b"\xff\x00"), "[255,0]");
    assert_eq!(text(b""), "\"\"");
    for bytes in [&b"plain"[..], b"\xff\xfe", b"\x00", b""] {
        assert_eq!(serde_json::from_str::<Bytes>(&text(bytes)).unwrap(), Bytes::from(bytes));
    }
}

/// Names that scripts match on; kebab-case, as in policies.
#[test]
fn names_in_json_are_what_scripts_match_on() {
    let find = |name: &str| {
        let example = examples::all().into_iter().find(|example| example.name == name).unwrap();
        (example.json)(example.payload()).0
    };
    assert_eq!(find("Outcome/Exited"), r#"{"exited":{"code":3}}"#);
    assert_eq!(find("Outcome/TimedOut"), r#"{"timed-out":{"clock":"wall","limit_ms":60000}}"#);
    assert_eq!(find("Outcome/Cancelled"), r#"{"cancelled":{"reason":"asked"}}"#);
    assert_eq!(find("ExecEvent/Output"), r#"{"output":{"stream":"stdout","bytes":"42\n"}}"#);
    assert_eq!(find("DenyReason/UnknownPolicy"), r#""unknown-policy""#);
}
