//! One run, on the side that does I/O: what is to be launched, what came back, and its output.
//!
//! Where the run stands is the dispatcher's. Here is what its followers will be told, so that a follower that comes
//! late gets the same events with the same numbers.

use core::cell::OnceCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use stockade_gate::redact::Forms;
use stockade_protocol::client::ResultCheck;
use stockade_protocol::confinement::Confinement;
use stockade_protocol::launch::{Adopted, CalledTool, GrantNote, Launch};
use stockade_protocol::outcome::{Outcome, SetupFailure, Usage};
use stockade_protocol::ring::FIRST_SEQ;
use stockade_protocol::spec::SandboxSpec;
use stockade_protocol::{Bytes, ExecId};
use tracing::Span;

use crate::aside::Foreign;
use crate::dispatcher::{ConnectionId, LauncherId};
use crate::feed::{Feed, Source};
use crate::metrics::Timing;
use crate::output::{Ring, Wrote};
use crate::redacted::ENDS;
use crate::redaction::Redacting;
use crate::traces::{self, Parent};

/// The most bytes of a command in a list.
const SHOWN_COMMAND: usize = 256;

/// The relay is told of what was taken by this part of its ring at a time: often enough that a ring whose followers keep
/// up never fills, and never for a run that says little.
pub(crate) const ACKNOWLEDGED_PART: u64 = 4;

/// One run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) exec_id: ExecId,
    pub(crate) owner: u32,
    /// Who asked for it, unless another supervisor has accepted it.
    pub(crate) origin: Option<ConnectionId>,
    pub(crate) request_id: u64,
    pub(crate) policy: String,
    pub(crate) command: Bytes,
    /// When it was asked for, in milliseconds since the daemon's start.
    pub(crate) asked_at: u64,
    /// How old it was then, in milliseconds: one that was adopted.
    pub(crate) age_before: u64,
    /// When what happened to it.
    pub(crate) timing: Timing,
    /// The client's span that it belongs to.
    pub(crate) parent: Option<Parent>,
    /// The tool that was called, if one was.
    pub(crate) tool: Option<CalledTool>,
    /// The grant that it was let through by, if it was.
    pub(crate) grant: Option<GrantNote>,
    /// The request that it looks at, if it is a reviewer's.
    pub(crate) reviews: Option<ExecId>,
    /// See [`Run::span`].
    pub(crate) span: OnceCell<Span>,
    /// Which launcher it was handed to.
    pub(crate) launcher: Option<LauncherId>,
    /// Whether a launcher holds it, and starts it when it's told to.
    pub(crate) is_held: bool,
    /// Whether its client may be told that it was accepted: its launcher's channel has it, so it outlives us.
    pub(crate) is_sure: bool,
    /// Until it is handed to the launcher, or told to be started.
    pub(crate) waiting: Option<Box<Waiting>>,
    /// Its standard input, if that passes through us.
    pub(crate) feed: Option<Rc<Feed>>,
    /// Whether its input passed through another supervisor, and how much that was.
    pub(crate) fed_before: Option<u64>,
    /// Whether `StdinData` may fill the feed.
    pub(crate) streams_input: bool,
    /// Capacity of its ring, if its output is relayed.
    pub(crate) ring_bytes: Option<u64>,
    pub(crate) ring: Option<Ring>,
    pub(crate) wrote: Wrote,
    /// What every follower's socket has taken.
    pub(crate) taken: u64,
    /// What the relay was told that it may write over.
    pub(crate) acknowledged: u64,
    pub(crate) confinement: Option<Box<Confinement>>,
    /// Whether the dispatcher has put `Started` out.
    pub(crate) started: bool,
    /// What the launcher said at its end.
    pub(crate) usage: Usage,
    pub(crate) trusted_files: Vec<Bytes>,
    pub(crate) exited: Option<Exited>,
    /// Whether what it printed is what its tool promises.
    pub(crate) result_check: Option<ResultCheck>,
    pub(crate) followers: Vec<ConnectionId>,
    /// What is hidden in its output, if that is redacted.
    pub(crate) redacting: Option<Box<Redacting>>,
    /// Whether another supervisor has launched it.
    pub(crate) is_adopted: bool,
    /// Whether it was adopted and its client has yet to come back: its output waits for that.
    pub(crate) is_unclaimed: bool,
}

/// What is handed to the launcher.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) launch: Launch,
    pub(crate) spec: Arc<SandboxSpec>,
    pub(crate) workspace: Option<Foreign>,
    /// Why there is none, where it was to be opened for its client: then nothing is begun.
    pub(crate) unopened: Option<SetupFailure>,
    pub(crate) input: Input,
    pub(crate) output: Vec<Foreign>,
    /// What its input passes through, if it passes through us: made when the first launcher is told of it.
    pub(crate) pipe: Option<Pipe>,
    /// Who asks, where a launcher wants to see that.
    pub(crate) proof: Option<Rc<OwnedFd>>,
}

/// Both ends of a pipe.
#[derive(Debug)]
pub(crate) struct Pipe {
    /// The tool's.
    pub(crate) reader: OwnedFd,
    /// What is held open so that the tool sees no end of its input before there is one.
    pub(crate) writer: OwnedFd,
}

/// Where standard input will come from.
#[derive(Debug)]
pub(crate) enum Input {
    /// Nowhere.
    Null,
    /// This descriptor becomes the tool's.
    Passed(Foreign),
    /// The run's feed, which a client fills.
    Fed,
    /// The run's feed, which this descriptor fills.
    Relayed(Source),
}

impl Input {
    /// What fills the feed, if that isn't a client.
    pub(crate) fn source(self) -> Option<Source> {
        match self {
            Self::Relayed(source) => Some(source),
            _ => None,
        }
    }
}

/// The last event.
#[derive(Debug)]
pub(crate) struct Exited {
    pub(crate) seq: u64,
    pub(crate) outcome: Outcome,
}

impl Run {
    /// One that another supervisor has launched. `now`: in milliseconds since our start; `forms`: what is looked for in its output.
    pub(crate) fn adopted(
        adopted: Adopted,
        launcher: LauncherId,
        now: u64,
        forms: impl FnOnce() -> Arc<Forms>,
    ) -> Self {
        let Adopted { exec_id, owner_uid, ring_bytes, held, age_ms, input_bytes, output_released, note } =
            adopted;
        let mut wrote = Wrote::default();
        if let Some(next_seq) = output_released {
            wrote.next_seq = next_seq;
            wrote.eof = true;
        }
        Self {
            exec_id,
            owner: owner_uid,
            origin: None,
            request_id: note.request_id,
            policy: note.policy,
            command: note.command,
            asked_at: now,
            age_before: age_ms,
            timing: Timing::default(),
            parent: None,
            tool: note.tool,
            grant: note.grant,
            reviews: note.reviews,
            span: OnceCell::new(),
            launcher: Some(launcher),
            is_held: held,
            is_sure: true,
            waiting: None,
            feed: None,
            fed_before: input_bytes.or(note.fed.then_some(0)),
            streams_input: false,
            ring_bytes,
            ring: None,
            wrote,
            taken: 0,
            acknowledged: 0,
            confinement: None,
            started: false,
            usage: Usage::default(),
            trusted_files: Vec::new(),
            exited: None,
            result_check: None,
            followers: Vec::new(),
            redacting: note.redaction.map(|hidden| Box::new(Redacting::new(hidden, Some(forms())))),
            is_adopted: true,
            is_unclaimed: true,
        }
    }

    /// What its log lines stand in. Made with the first of them: by then it has been handed to the launcher, if it could be.
    pub(crate) fn span(&self) -> &Span {
        self.span.get_or_init(|| {
            tracing::info_span!(
                "run",
                exec_id = %self.exec_id,
                owner = self.owner,
                policy = self.policy,
                command = %self.command.escape_ascii(),
            )
        })
    }

    /// The number of the next event that has none yet; records below it are output.
    pub(crate) fn end_of_output(&self) -> u64 {
        match &self.exited {
            Some(exited) => exited.seq,
            None => self.wrote.next_seq + self.ends(),
        }
    }

    /// Events behind the last record: where output is redacted, what is held at the end of each stream.
    pub(crate) fn ends(&self) -> u64 {
        match &self.exited {
            _ if self.redacting.is_none() => 0,
            Some(exited) => exited.seq.saturating_sub(self.wrote.next_seq),
            None if self.wrote.eof && self.wrote.next_seq > FIRST_SEQ => ENDS,
            None => 0,
        }
    }

    /// What to tell the relay that it may write over, if it's time. At a ring's end nothing will be written over any
    /// more.
    pub(crate) fn to_acknowledge(&self) -> Option<u64> {
        let part = self.ring_bytes? / ACKNOWLEDGED_PART;
        // Whoever reads on, after us, too, needs what stands before it: what may have begun there.
        let kept = if self.redacting.is_some() { part } else { 0 };
        let taken = self.taken.saturating_sub(kept);
        (!self.wrote.eof && taken.saturating_sub(self.acknowledged) >= part).then_some(taken)
    }

    /// Whether no report of the relay will change anything any more.
    pub(crate) fn is_settled(&self) -> bool {
        self.exited.is_some() || self.wrote.eof
    }

    /// What it used, with the bytes that only we have seen.
    pub(crate) fn final_usage(&self) -> Usage {
        let mut usage = self.usage.clone();
        if self.ring_bytes.is_some() && self.started {
            usage.bytes_out = self.wrote.payload_bytes();
        }
        if let Some(bytes) = self.feed.as_ref().map(|feed| feed.written()).or(self.fed_before) {
            usage.bytes_in = bytes;
        }
        usage
    }

    /// What a trace says of it, now that it is over.
    pub(crate) fn spans(&self, outcome: &Outcome) -> Vec<traces::Span> {
        let wall = Duration::from_micros(self.usage.wall_us);
        traces::spans(&traces::Ended {
            id: self.exec_id,
            owner: self.owner,
            policy: &self.policy,
            outcome,
            parent: self.parent,
            moments: self.timing.moments(wall),
        })
    }

    /// Whether there is something for a follower that wants `seq` next.
    pub(crate) fn has(&self, seq: u64) -> bool {
        match seq {
            1 => self.is_sure || self.exited.is_some(),
            2 => self.started || self.exited.is_some(),
            _ => self.started && seq >= FIRST_SEQ && (seq < self.end_of_output() || self.exited.is_some()),
        }
    }
}

/// A command as lists show it: its words with spaces between, cut at a bound.
pub(crate) fn shown_command(argv: &[Bytes]) -> Bytes {
    let mut shown = Vec::new();
    for argument in argv {
        if !shown.is_empty() {
            shown.push(b' ');
        }
        shown.extend_from_slice(&argument[..argument.len().min(SHOWN_COMMAND)]);
        if shown.len() >= SHOWN_COMMAND {
            shown.truncate(SHOWN_COMMAND);
            break;
        }
    }
    Bytes(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_command_is_cut_in_a_list() {
        assert_eq!(shown_command(&["ls".into(), "-l".into()]), "ls -l".into());
        let long: Vec<Bytes> = vec![Bytes(vec![b'x'; 1 << 20]); 100];
        assert_eq!(shown_command(&long).len(), SHOWN_COMMAND);
    }
}
