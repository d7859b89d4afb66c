//! The envelope of JSON-RPC 2.0: one request, or a batch of them. Parameters stay as they came until their method is known.
//!
//! What a batch costs is bounded while it's read: after [`MAX_BATCH`] elements nothing more of it is kept.

use core::fmt;
use std::borrow::Cow;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::bounds::MAX_BATCH;
use crate::id::Id;
use crate::refusal::Refusal;

/// One element that is a request.
#[derive(Debug)]
pub(crate) struct Request {
    /// `None`: a notification, which is never answered.
    pub(crate) id: Option<Id>,
    pub(crate) method: String,
    pub(crate) params: Option<Box<RawValue>>,
}

/// One element: a request, or why it's none and the id that the answer goes to, if it has one.
pub(crate) type Element = Result<Request, (Option<Id>, Refusal)>;

/// What a message is.
#[derive(Debug)]
pub(crate) enum Message {
    One(Element),
    Batch(Vec<Element>),
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    jsonrpc: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

/// `null` is there.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

/// Elements of a batch, each as it came.
struct Elements<'a>(Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Elements<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded;
        impl<'de> Visitor<'de> for Bounded {
            type Value = Vec<&'de RawValue>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a batch")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = seq.next_element()? {
                    if elements.len() == MAX_BATCH {
                        return Err(A::Error::custom(TOO_MANY));
                    }
                    elements.push(element);
                }
                Ok(elements)
            }
        }
        deserializer.deserialize_seq(Bounded).map(Self)
    }
}

/// Says that it's the batch that is too long, and not the JSON that is wrong.
const TOO_MANY: &str = "too many requests in one batch";

/// Reads one message.
///
/// # Errors
/// It isn't JSON, or a batch of none or of too many: one answer without an id.
pub(crate) fn open(text: &[u8]) -> Result<Message, Refusal> {
    let text = core::str::from_utf8(text).map_err(|error| Refusal::parse(&error))?;
    if !text.trim_start().starts_with('[') {
        let raw: &RawValue = serde_json::from_str(text).map_err(|error| Refusal::parse(&error))?;
        return Ok(Message::One(element(raw)));
    }
    let elements: Elements<'_> = serde_json::from_str(text).map_err(|error| match error.to_string() {
        text if text.starts_with(TOO_MANY) => {
            Refusal::invalid(format!("a batch of more than {MAX_BATCH} requests"))
        }
        _ => Refusal::parse(&error),
    })?;
    if elements.0.is_empty() {
        return Err(Refusal::invalid("a batch without a request"));
    }
    Ok(Message::Batch(elements.0.into_iter().map(element).collect()))
}

fn element(raw: &RawValue) -> Element {
    if !raw.get().starts_with('{') {
        return Err((None, Refusal::invalid("a request is an object")));
    }
    let envelope: Envelope<'_> = serde_json::from_str(raw.get())
        .map_err(|error| (None, Refusal::invalid(format!("not a request: {error}"))))?;
    let id = envelope.id.map(Id::of);
    let no = |text: &str| Err((id.clone().flatten(), Refusal::invalid(text)));
    if envelope.jsonrpc.as_deref() != Some("2.0") {
        return no("expected \"jsonrpc\": \"2.0\"");
    }
    let Some(method) = envelope.method else {
        return no("a request has a `method`; answers of a client aren't asked for");
    };
    if matches!(id, Some(None)) {
        return no("an id is a string or a number of at most 256 bytes");
    }
    let params = envelope.params.map(ToOwned::to_owned);
    Ok(Request { id: id.flatten(), method: method.into_owned(), params })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;
    use crate::refusal::{INVALID_REQUEST, PARSE_ERROR};

    fn one(text: &str) -> Element {
        match open(text.as_bytes()).unwrap() {
            Message::One(element) => element,
            Message::Batch(_) => panic!("a batch"),
        }
    }

    #[test]
    fn a_request_is_read_and_its_parameters_stay_as_they_came() {
        let request =
            one(r#" {"jsonrpc":"2.0","id":"x","method":"exec","params":{ "a" : [1,2]},"extra":0}"#).unwrap();
        assert_eq!((request.method.as_str(), request.params.unwrap().get()), ("exec", "{ \"a\" : [1,2]}"));
        assert!(one(r#"{"jsonrpc":"2.0","method":"x"}"#).unwrap().id.is_none());
    }

    #[test]
    fn what_is_no_request_is_told_with_its_id_if_it_has_one() {
        for (text, has_id) in [
            (r#"{"jsonrpc":"1.0","id":1,"method":"x"}"#, true),
            (r#"{"id":1,"method":"x"}"#, true),
            (r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, true),
            (r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#, false),
            (r#"{"jsonrpc":"2.0","id":{},"method":"x"}"#, false),
            (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"x"}"#, false),
            (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, false),
            ("7", false),
        ] {
            let (id, refusal) = one(text).unwrap_err();
            assert_eq!((id.is_some(), refusal.code), (has_id, INVALID_REQUEST), "{text}");
        }
    }

    #[test]
    fn text_that_is_not_json_is_a_parse_error() {
        for text in [&b"{"[..], b"{}}", b"{\"a\":\xff}", b"[1", b"", b"[1,]"] {
            assert_eq!(open(text).unwrap_err().code, PARSE_ERROR, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn a_batch_has_its_bounds() {
        let batch = |count: usize| format!("[{}]", vec!["1"; count].join(","));
        assert_eq!(open(b" [ ]").unwrap_err().code, INVALID_REQUEST);
        assert!(
            matches!(open(batch(MAX_BATCH).as_bytes()), Ok(Message::Batch(all)) if all.len() == MAX_BATCH)
        );
        for count in [MAX_BATCH + 1, 100_000] {
            assert_eq!(open(batch(count).as_bytes()).unwrap_err().code, INVALID_REQUEST);
        }
    }

    /// Nothing here goes down by the depth of what came.
    #[test]
    fn nesting_without_end_costs_no_stack() {
        let deep = "[".repeat(300_000);
        assert_eq!(open(deep.as_bytes()).unwrap_err().code, PARSE_ERROR);
        let whole = format!("{}{}", "[".repeat(300_000), "]".repeat(300_000));
        assert!(
            matches!(open(whole.as_bytes()), Ok(Message::Batch(all)) if all.len() == 1 && all[0].is_err())
        );
        let params = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"exec","params":{whole}}}"#);
        assert!(one(&params).is_ok());
    }
}
