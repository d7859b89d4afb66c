//! What is told of a run: one span for the whole of it, and one for each part of it that is known.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use stockade_protocol::ExecId;
use stockade_protocol::outcome::Outcome;

use super::parent::Parent;
use crate::metrics::{Moments, stage_word, word};

/// A span.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Span {
    pub(super) trace: [u8; 16],
    pub(super) id: [u8; 8],
    pub(super) parent: Option<[u8; 8]>,
    pub(super) name: &'static str,
    /// Whether it is the one that answers the client's.
    pub(super) is_server: bool,
    /// Since the epoch, in nanoseconds.
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) attributes: Vec<(&'static str, Value)>,
    /// Why it is an error, in a word: a sentence would name paths. `None`: it isn't one.
    pub(super) error: Option<&'static str>,
}

#[cfg(test)]
impl Span {
    /// One that says nothing.
    pub(super) fn nothing() -> Self {
        let (trace, id, parent, error) = ([0; 16], [0; 8], None, None);
        Self {
            trace,
            id,
            parent,
            name: "",
            is_server: false,
            start: 0,
            end: 0,
            attributes: Vec::new(),
            error,
        }
    }
}

/// An attribute's value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    Number(u64),
}

/// A run that is over.
#[derive(Debug)]
pub(crate) struct Ended<'a> {
    pub(crate) id: ExecId,
    pub(crate) owner: u32,
    pub(crate) policy: &'a str,
    pub(crate) outcome: &'a Outcome,
    pub(crate) parent: Option<Parent>,
    pub(crate) moments: Moments,
}

/// The spans of a run; none of a trace that isn't recorded. Without a parent the run's id is the trace's.
pub(crate) fn spans(run: &Ended<'_>) -> Vec<Span> {
    let trace = run.parent.map_or(*run.id.as_bytes(), |parent| parent.trace);
    let mut ids = [[0; 8]; 4];
    let is_sampled = run.parent.is_none_or(|parent| parent.is_sampled);
    if !is_sampled
        || rustix::rand::getrandom(ids.as_flattened_mut(), rustix::rand::GetRandomFlags::empty()).is_err()
    {
        return Vec::new();
    }
    let [whole, rest @ ..] = ids;
    let clock = Clock { now: Instant::now(), then: SystemTime::now() };
    let Moments { asked, handed, started, ended } = run.moments;
    let Some(asked) = asked else { return Vec::new() };
    let end = ended.unwrap_or(clock.now);
    let is_ours = !matches!(run.outcome, Outcome::Exited { .. } | Outcome::Signaled { .. });
    let mut attributes = vec![
        ("stockade.exec_id", Value::Text(run.id.to_string())),
        ("stockade.owner", Value::Number(run.owner.into())),
        ("stockade.policy", Value::Text(run.policy.to_owned())),
        ("stockade.outcome", Value::Text(word(run.outcome).to_owned())),
    ];
    if let Outcome::Exited { code } = run.outcome {
        attributes.push(("process.exit.code", Value::Number((*code).into())));
    }
    if let Outcome::SetupFailed { failure } = run.outcome {
        attributes.push(("stockade.setup_stage", Value::Text(stage_word(failure.stage).to_owned())));
    }
    let mut spans = vec![Span {
        trace,
        id: whole,
        parent: run.parent.map(|parent| parent.span),
        name: "run",
        is_server: true,
        start: clock.nanoseconds(asked),
        end: clock.nanoseconds(end),
        attributes,
        error: is_ours.then(|| word(run.outcome)),
    }];
    let parts = [("queue", Some(asked), handed), ("launch", handed, started), ("command", started, ended)];
    spans.extend(parts.into_iter().zip(rest).filter_map(|((name, from, to), id)| {
        let (start, end) = (clock.nanoseconds(from?), clock.nanoseconds(to?));
        Some(Span {
            trace,
            id,
            parent: Some(whole),
            name,
            is_server: false,
            start,
            end,
            attributes: vec![],
            error: None,
        })
    }));
    spans
}

/// One moment by two clocks.
struct Clock {
    now: Instant,
    then: SystemTime,
}

impl Clock {
    fn nanoseconds(&self, moment: Instant) -> u64 {
        let before = self.then.checked_sub(self.now.saturating_duration_since(moment)).unwrap_or(UNIX_EPOCH);
        let since = before.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}
