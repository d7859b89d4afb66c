//! What is written down: the types of the record's text, which is JSON inside what is sealed.
//!
//! Every text in it is bounded, whoever made it: a caller must not be able to keep himself out of the record by asking for
//! something long.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::format::{Class, LARGEST_TEXT};
use crate::secret::{hash, hex};

/// The longest argument that is kept of a command line, in bytes.
const ARGUMENT: usize = 512;
/// The most arguments that are kept of one.
const ARGUMENTS: usize = 64;
/// The longest text and the longest list of an event that is too long as a whole.
const SHORTENED: usize = 64;

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Who was at it; `None`: the service itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<Principal>,
    /// What it was.
    #[serde(flatten)]
    pub what: What,
}

/// Somebody, as the kernel says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// Its uid.
    pub uid: u32,
    /// Its process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// The systemd unit it's of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Its roles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
}

/// What has happened, and of which [`Class`] that is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum What {
    /// Something that was asked for is about to be done. Written before it is.
    Intent(Request),
    /// What came of it.
    Outcome(Outcome),
    /// Something that was asked for was refused.
    Refused(Refused),
    /// Something to look at for whoever watches over the machine.
    Security(Note),
    /// How the service does.
    Operation(Note),
    /// Many like events of a short time, of which only the first were written.
    Repeated(Repeated),
}

/// What was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The action's name: `run`, `call`, `kill`, ….
    pub action: String,
    /// The run's id, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<String>,
    /// The tool's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// The policy's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// What it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given: Option<Given>,
    /// The workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// Why it was let through: grants, approvals, rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<String>,
}

/// Arguments or parameters, as much of them as is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// The first arguments, or the parameters' text alone; what isn't UTF-8 is replaced, what is long is cut.
    pub text: Vec<String>,
    /// How many there were.
    pub count: u64,
    /// SHA-256 of all of them, each with its length in eight bytes before it.
    pub sha256: String,
}

impl Given {
    /// Of a command line, or of one text.
    pub fn of<'a>(arguments: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let (mut text, mut count, mut all) = (Vec::new(), 0u64, Vec::new());
        for argument in arguments {
            if text.len() < ARGUMENTS {
                text.push(cut(
                    String::from_utf8_lossy(&argument[..argument.len().min(ARGUMENT)]).into_owned(),
                    ARGUMENT,
                ));
            }
            count += 1;
            all.extend((argument.len() as u64).to_le_bytes());
            all.extend_from_slice(argument);
        }
        Self { text, count, sha256: hex(&hash(&[&all])) }
    }
}

/// What came of something.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The run's id.
    pub exec: String,
    /// The tool's name, so that both are found by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// What the run's outcome is called: `exited`, `signaled`, `timed-out`, ….
    pub outcome: String,
    /// An exit status or a signal's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// How long it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub milliseconds: Option<u64>,
    /// The most memory that it had, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
}

/// A refusal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// What was asked for.
    pub request: Request,
    /// By which stage.
    pub stage: String,
    /// By which rule.
    pub rule: String,
    /// Why, for machines.
    pub reason: String,
}

/// An event of the service's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Its name: lower-case words with hyphens.
    pub name: String,
    /// One sentence.
    pub text: String,
    /// The tool, policy or file that it's about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// The id of the run that it's about, so that it's found with that run's intent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<String>,
    /// The [digest](Request::digest) of the request that it's about: questions are told apart by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asks: Option<String>,
    /// It stands for so many like ones, of which one was picked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<u64>,
}

/// Like events that weren't written one by one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeated {
    /// What they have in common: the event's name, the tool, the rule.
    pub like: String,
    /// Their class; the record's own says the same, under its own name.
    #[serde(rename = "class-of-each")]
    pub class: Class,
    /// How many weren't written.
    pub count: u64,
    /// When the first of them was, in nanoseconds since 1970.
    pub first: u64,
    /// When the last of them was.
    pub last: u64,
}

impl Request {
    /// What tells it from others that ask for something else: whatever the run's id, it's the same for the same.
    #[must_use]
    pub fn digest(&self) -> String {
        let given = self.given.as_ref().map(|given| given.sha256.as_str());
        let parts = [Some(self.action.as_str()), self.tool.as_deref(), self.policy.as_deref(), given];
        let mut all = Vec::new();
        for part in parts.map(Option::unwrap_or_default) {
            all.extend((part.len() as u64).to_le_bytes());
            all.extend_from_slice(part.as_bytes());
        }
        hex(&hash(&[&all]))
    }
}

impl Event {
    /// Something that the service itself says for whoever watches over the machine.
    #[must_use]
    pub fn security(name: &str, text: impl Into<String>) -> Self {
        Self { principal: None, what: What::Security(Note::new(name, text)) }
    }

    /// How the service does.
    #[must_use]
    pub fn operation(name: &str, text: impl Into<String>) -> Self {
        Self { principal: None, what: What::Operation(Note::new(name, text)) }
    }

    /// What it's of.
    #[must_use]
    pub fn class(&self) -> Class {
        match &self.what {
            What::Intent(_) | What::Outcome(_) | What::Refused(_) => Class::Access,
            What::Security(_) => Class::Security,
            What::Operation(_) => Class::Operation,
            What::Repeated(repeated) => repeated.class,
        }
    }

    /// Its name: `intent`, `outcome`, `refused`, `repeated`, or what a note is called.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.what {
            What::Intent(_) => "intent",
            What::Outcome(_) => "outcome",
            What::Refused(_) => "refused",
            What::Security(note) | What::Operation(note) => &note.name,
            What::Repeated(_) => "repeated",
        }
    }

    /// The request that it's about.
    #[must_use]
    pub fn request(&self) -> Option<&Request> {
        match &self.what {
            What::Intent(request) => Some(request),
            What::Refused(refused) => Some(&refused.request),
            _ => None,
        }
    }

    /// The tool that it's about.
    #[must_use]
    pub fn tool(&self) -> Option<&str> {
        match &self.what {
            What::Outcome(outcome) => outcome.tool.as_deref(),
            _ => self.request()?.tool.as_deref(),
        }
    }

    /// The run that it's about.
    #[must_use]
    pub fn exec(&self) -> Option<&str> {
        match &self.what {
            What::Outcome(outcome) => Some(&outcome.exec),
            What::Security(note) | What::Operation(note) => note.exec.as_deref(),
            _ => self.request()?.exec.as_deref(),
        }
    }

    /// How it ended: an outcome's kind, `refused`, or `None`.
    #[must_use]
    pub fn outcome(&self) -> Option<&str> {
        match &self.what {
            What::Outcome(outcome) => Some(&outcome.outcome),
            What::Refused(_) => Some("refused"),
            _ => None,
        }
    }

    /// Its text, within the bound. One that is too long is told shorter.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let text = serde_json::to_vec(self).unwrap_or_default();
        if !text.is_empty() && text.len() <= LARGEST_TEXT {
            return text;
        }
        let mut value: Value = serde_json::from_slice(&text).unwrap_or_default();
        shorten(&mut value);
        let text = value.to_string().into_bytes();
        if text.len() <= LARGEST_TEXT {
            return text;
        }
        // Lists of lists: no event of ours has them.
        Self::security("unwritable", "an event was too long to be written").encode()
    }

    /// Reads what [`Self::encode`] has written.
    pub(crate) fn decode(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }
}

impl Note {
    fn new(name: &str, text: impl Into<String>) -> Self {
        Self { name: name.to_owned(), text: text.into(), about: None, exec: None, asks: None, of: None }
    }
}

/// Cuts every text and every list.
fn shorten(value: &mut Value) {
    match value {
        Value::String(text) => *text = cut(core::mem::take(text), SHORTENED),
        Value::Array(values) => {
            values.truncate(SHORTENED);
            values.iter_mut().for_each(shorten);
        }
        Value::Object(values) => values.values_mut().for_each(shorten),
        _ => {}
    }
}

/// A text of at most so many bytes and a sign that it was longer.
pub(crate) fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.push('…');
    }
    text
}

/// Nanoseconds since 1970.
pub(crate) fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_as_it_was_written() {
        let request = Request {
            action: "call".into(),
            exec: Some("e1".into()),
            tool: Some("lint".into()),
            given: Some(Given::of([b"a".as_slice(), b"\xff"])),
            ..Request::default()
        };
        let principal = Some(Principal { uid: 7, roles: vec!["client".into()], ..Principal::default() });
        let refused = Refused { request: request.clone(), stage: "rate".into(), ..Refused::default() };
        for what in [
            What::Intent(request),
            What::Refused(refused),
            What::Outcome(Outcome { exec: "e1".into(), outcome: "exited".into(), ..Outcome::default() }),
            What::Security(Note::new("a-name", "text")),
            What::Repeated(Repeated {
                like: "x".into(),
                class: Class::Security,
                count: 3,
                first: 1,
                last: 2,
            }),
        ] {
            let event = Event { principal: principal.clone(), what };
            assert_eq!(Event::decode(&event.encode()), Some(event));
        }
    }

    #[test]
    fn whatever_is_asked_for_fits_into_a_record() {
        let long = "x".repeat(LARGEST_TEXT);
        let arguments = vec![long.as_bytes(); 200];
        let given = Given::of(arguments.iter().copied());
        assert_eq!((given.count, given.text.len()), (200, ARGUMENTS));
        let request = Request {
            action: "run".into(),
            tool: Some("\u{1}".repeat(LARGEST_TEXT)),
            because: vec![long.clone(); 2000],
            given: Some(given),
            ..Request::default()
        };
        let event = Event { principal: None, what: What::Intent(request) };
        let text = event.encode();
        assert!(text.len() <= LARGEST_TEXT);
        assert_eq!(
            Event::decode(&text).unwrap().name(),
            "intent",
            "it's told shorter, and not as something else"
        );
    }

    #[test]
    fn a_requests_digest_is_of_what_is_asked_for_and_not_of_its_run() {
        let request = Request {
            action: "run".into(),
            exec: Some("e1".into()),
            policy: Some("default".into()),
            given: Some(Given::of([b"a".as_slice()])),
            ..Request::default()
        };
        let again = Request { exec: Some("e2".into()), because: vec!["x".into()], ..request.clone() };
        assert_eq!(request.digest(), again.digest());
        for other in [
            Request { action: "call".into(), ..request.clone() },
            Request { policy: None, ..request.clone() },
            Request { policy: None, tool: Some("default".into()), ..request.clone() },
            Request { given: Some(Given::of([b"b".as_slice()])), ..request.clone() },
        ] {
            assert_ne!(request.digest(), other.digest(), "{other:?}");
        }
    }

    #[test]
    fn digests_tell_arguments_apart_that_read_the_same_joined() {
        let digest = |arguments: &[&[u8]]| Given::of(arguments.iter().copied()).sha256;
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
    }
}
