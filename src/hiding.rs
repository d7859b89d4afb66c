//! Secrets in the output of a run without a daemon are named and not shown, as the policy or the operator's file has it.
//!
//! As a daemon does, but nobody else reads this output, and our own clock says when somebody may be waiting for what is held: once a
//! stream has been silent for [`FLUSH_AFTER`] while we listened to it. While our own output is full we don't, and know nothing of its
//! silence.

use std::time::{Duration, Instant};

use stockade_gate::redact::{FLUSH_AFTER, Redactor};
use stockade_policies::PolicySet;
use stockade_protocol::client::{Redactions, Stream};
use stockade_protocol::launch::Redaction;
use stockade_supervisor::paths::configurations;
use stockade_supervisor::redaction::{self, Redacting};
use stockade_supervisor::{Fault, Faults};

use crate::error::CliError;
use crate::sources;

/// Whether output is redacted where this policy doesn't say. The file is read only then.
pub(crate) fn by_default(policies: &PolicySet, policy: &str) -> Result<bool, CliError> {
    if policies.get(policy).is_ok_and(|policy| policy.redacts().is_some()) {
        return Ok(false);
    }
    let (directories, uid) = directories();
    redaction::by_default(&directories, uid).map_err(wrong)
}

/// What is looked for.
pub(crate) fn redacting(redaction: Option<Redaction>) -> Result<Option<Redacting>, CliError> {
    let Some(redaction) = redaction else { return Ok(None) };
    let (directories, uid) = directories();
    let forms = redaction::forms(&directories, uid).map_err(wrong)?;
    Ok(Some(Redacting::new(redaction, forms)))
}

fn directories() -> (Vec<std::path::PathBuf>, u32) {
    let surroundings = sources::surroundings();
    (configurations(Some(&surroundings.configuration()), surroundings.scope), surroundings.uid)
}

fn wrong(faults: Vec<Fault>) -> CliError {
    CliError::Asked(Faults(faults).to_string())
}

fn at(stream: Stream) -> usize {
    usize::from(stream == Stream::Stderr)
}

/// Both streams of one run.
#[derive(Debug)]
pub(crate) struct Hiding {
    redactors: [Redactor; 2],
    /// Since when each stream was listened to, and silent.
    silent: [Duration; 2],
    began: Instant,
}

impl Hiding {
    pub(crate) fn new(redacting: &Redacting) -> Self {
        let sought = redacting.sought();
        let redactors = [Redactor::of(sought.clone()), Redactor::of(sought)];
        Self { redactors, silent: [Duration::ZERO; 2], began: Instant::now() }
    }

    fn of(&mut self, stream: Stream) -> &mut Redactor {
        &mut self.redactors[at(stream)]
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// What may be seen of these bytes, and of those before them.
    pub(crate) fn feed(&mut self, stream: Stream, bytes: &[u8]) -> Vec<u8> {
        let (now, mut shown) = (self.now(), Vec::with_capacity(bytes.len()));
        self.silent[at(stream)] = now;
        self.of(stream).feed(now, bytes, &mut shown);
        shown
    }

    /// Nobody listens to a stream now: it may be anything but silent.
    pub(crate) fn turn_away(&mut self, stream: Stream) {
        self.silent[at(stream)] = self.now();
    }

    /// What is held of a stream, if that has been silent for long enough.
    pub(crate) fn flush(&mut self, stream: Stream) -> Option<Vec<u8>> {
        let now = self.now();
        self.let_go_at(at(stream)).filter(|at| *at <= now)?;
        let mut shown = Vec::new();
        self.of(stream).flush(&mut shown);
        Some(shown)
    }

    fn let_go_at(&self, at: usize) -> Option<Duration> {
        self.redactors[at].flush_at().map(|_| self.silent[at].saturating_add(FLUSH_AFTER))
    }

    /// What is left at a stream's end.
    pub(crate) fn finish(&mut self, stream: Stream) -> Vec<u8> {
        let mut shown = Vec::new();
        self.of(stream).finish(&mut shown);
        shown
    }

    /// When a stream that is listened to will have been silent for long enough.
    pub(crate) fn deadline(&self, is_heard: [bool; 2]) -> Option<Instant> {
        let heard = (0..2).filter(|at| is_heard[*at]);
        heard.filter_map(|at| self.let_go_at(at)).min().map(|at| self.began + at)
    }

    /// What was hidden.
    pub(crate) fn told(&self) -> Redactions {
        let [mut all, other] = self.redactors.each_ref().map(Redactor::counts);
        for (name, count) in other.marks {
            *all.marks.entry(name).or_insert(0) += count;
        }
        all.late += other.late;
        redaction::told(all)
    }
}
